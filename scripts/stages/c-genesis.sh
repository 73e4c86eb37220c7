say "A ceremony runs from one reviewed script. Keys are born inside the tokens, before witnesses; nobody ever sees one."
. "$ROOT/scripts/stages/requests.sh"

bind() { # FILE SHARES
  echo "format: keyrite/bind/v1"
  echo "world: rehearsal:$WORLD"
  echo "module: $MODULE"
  echo "tokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}"
  echo "people:"
  local n role
  for n in $PEOPLE; do
    case $n in conductor) role=conductor ;; master*) role=key-master ;; witness*) role=witness ;; *) role=approver ;; esac
    echo "  - {person: people/$n.person, key: people/$n.key, role: $role}"
  done
  echo "requests: {factory-ca: requests/factory-ca.csr, report: requests/report.csr, relay-access: requests/relay-access.csr, relay-vpn: requests/relay-vpn.csr}"
  echo "keys: {pipeline1: keys/pipeline1.key.pub}"
  echo "shares: $1"
}
answers() {
  echo "format: keyrite/answers/v1"
  echo "passphrases:"
  local n
  for n in $PEOPLE; do echo "  $n: people/$n.passphrase"; done
  echo "yes: [all]"
  echo "documents: {all: passport}"
  echo "elsewhere: [witness2]"
}
bind shares >bind.yaml
answers >answers.yaml
run keyrite ceremony new genesis --module "$MODULE" --enforce=false --title "Demo genesis" --root-token demo-root --work-token demo-work --out genesis.yaml
LINES_SHOWN=40 run keyrite ceremony explain genesis.yaml

say "The script is strict: a PIN in it, an unknown key, or prepared answers in a live run are refused before anything happens."
sed 's/^purpose:/pin: "1234"\npurpose:/' genesis.yaml >bad.yaml
try "no secret in a script" "a PIN in the script" 2 keyrite ceremony lint bad.yaml
sed 's/^purpose:/colour: red\npurpose:/' genesis.yaml >bad.yaml
try "nothing unknown in a script" "an unknown key in the script" 2 keyrite ceremony lint bad.yaml
rm bad.yaml
try "people answer a live ceremony" "answers with a live run" 2 keyrite ceremony run genesis.yaml --bind bind.yaml --answers answers.yaml --record live
try "a rehearsal is not live" "a live run of rehearsal people" 13 keyrite ceremony run genesis.yaml --bind bind.yaml --rehearsal record --record live

shown keyrite ceremony rehearse genesis.yaml --bind bind.yaml --answers answers.yaml --record record
keyrite ceremony rehearse genesis.yaml --bind bind.yaml --answers answers.yaml --record record >log/last.out 2>log/genesis.log || { cat log/genesis.log >&2; exit 1; }
grep -E '✓|anchors' log/genesis.log | tail -n 28
cat log/last.out

say "A witness verifies the whole record on a machine of his own before he signs. Until then it does not count."
cp record/outputs/anchors.json anchors.json
cp record/outputs/charter.jsonl charter.jsonl
try "a record needs all its witnesses" "verify before witness2 cosigned" 10 keyrite-verify record record --anchor anchors.json
run keyrite-verify cosign record --key people/witness2.key --passphrase-fd 3 --anchor anchors.json 3<people/witness2.passphrase
try "a stranger can verify the ceremony" "verify the record" 0 keyrite-verify record record --anchor anchors.json
run keyrite ceremony report --record record
run keyrite-verify charter charter.jsonl --anchor anchors.json
for f in record/outputs/*.pub.pem; do n=$(basename "$f" .pub.pem); cp "$f" "keys/$n.pub.pem"; done
for f in record/outputs/*.cert.pem; do n=$(basename "$f" .cert.pem); cp "$f" "keys/$n.pem"; done
for f in record/outputs/*.pub.pem; do n=$(basename "$f" .pub.pem); [ -e "keys/$n.pem" ] || cp "$f" "keys/$n.pem"; done
try "stock tools read the birth chain" "openssl verifies the factory CA" 0 openssl verify -CAfile keys/birth-root.pem keys/factory-ca.pem

say "One byte of the transcript is flipped in a copy: the verifier names the entry."
rm -rf altered && cp -r record altered
awk 'NR == 42 {sub(/"mono":/, "\"mono\":9")} {print}' record/transcript.jsonl >altered/transcript.jsonl
try "an altered record is noticed and the entry named" "change entry 41 of the transcript" 14 keyrite-verify record altered --anchor anchors.json
rm -rf altered
sed 's/"world":"rehearsal:[a-z0-9]*"/"world":"live"/g' anchors.json >live.json
try "rehearsal and live never mix" "live anchors with a rehearsal's record" 13 keyrite-verify record record --anchor live.json
rm live.json

say "A wrong share is named with its holder before anything is combined; two do not open, three do."
mkdir -p wrong && cp shares/work/master2.share wrong/
printf '\001' | dd of=wrong/master2.share bs=1 seek=$(($(stat -c %s wrong/master2.share) - 9)) conv=notrunc status=none
try "a bad share is named" "one byte of master2's share changed" 14 \
  keyrite share check --safe work --anchor anchors.json --charter charter.jsonl --opener people/master1.key:shares/work/master1.share --opener people/master2.key:wrong/master2.share --passphrase-fd 3 3< <(phrases master1 master2)
try "a share of another safe is refused" "master2's root share for the work safe" 14 \
  keyrite share check --safe work --anchor anchors.json --charter charter.jsonl --opener people/master2.key:shares/root/master2.share --passphrase-fd 3 3<people/master2.passphrase
rm -r wrong
mapfile -t two < <(openers work master1 master2)
mapfile -t three < <(openers work master1 master3 master5)
mapfile -t twice < <(openers work master1 master2 master2)
vault_open() { keyrite hsm inspect --safe work --anchor anchors.json --charter charter.jsonl --bind bind.yaml "$@"; }
try "two of five open nothing" "two shares" 10 vault_open "${two[@]}" --passphrase-fd 3 3< <(phrases master1 master2)
try "two of five open nothing" "the same share twice" 10 vault_open "${twice[@]}" --passphrase-fd 3 3< <(phrases master1 master2 master2)
try "three of five open the token" "three shares" 0 vault_open "${three[@]}" --passphrase-fd 3 3< <(phrases master1 master3 master5)

say "A second ceremony is spoiled on purpose: after a key is born, a witness signs an incident. The whole attempt is void."
run keyrite ceremony new genesis --module "$MODULE" --enforce=false --title "Second genesis" --root-token second-root --work-token second-work --out second.yaml
bind shares-void >bind-void.yaml
{ answers; echo 'incident: {step: "5.3", by: witness1, reason: "the seal of bag 7 was broken"}'; } >answers-void.yaml
try "one incident voids the whole ceremony" "a witness signs an incident after key generation" 11 keyrite ceremony rehearse second.yaml --bind bind-void.yaml --answers answers-void.yaml --record record-void
tail -n 6 log/last.err
left=$(grep -l second- hsm/tokens/*/token.object | xargs -n1 dirname | while read -r d; do ls "$d" | grep -c '\.object$' || true; done | awk '{n += $1 - 1} END {print n}')
echo "    objects left in both tokens: $left"
[ "$left" = 0 ] || exit 1
printf '%s\t%s\t%s\n' "a void attempt leaves nothing behind" "count the objects in its tokens" "0 objects" >>table.tsv
try "a void ceremony does not go on" "rehearse into the same record" 11 keyrite ceremony rehearse second.yaml --bind bind-void.yaml --answers answers.yaml --record record-void
try "a void record never verifies as closed" "verify the void record" 11 keyrite-verify record record-void --anchor anchors.json
run keyrite ceremony new genesis --module "$MODULE" --enforce=false --title "Second genesis" --root-token third-root --work-token third-work --out third.yaml
bind shares-third >bind-third.yaml
shown keyrite ceremony rehearse third.yaml --bind bind-third.yaml --answers answers.yaml --after record-void --record record-third
keyrite ceremony rehearse third.yaml --bind bind-third.yaml --answers answers.yaml --after record-void --record record-third >log/last.out 2>log/third.log || { cat log/third.log >&2; exit 1; }
voided=$(keyrite ceremony status --record record-void --json | jq -r .record)
[[ $(head -n 1 record-third/transcript.jsonl) == *"\"after\":{\"record\":\"$voided\""* ]] || { echo "the next attempt does not name the void one" >&2; exit 1; }
printf '%s\t%s\t%s\n' "the next attempt starts at step 1" "read its first entry" "names the void record $voided" >>table.tsv
try "a share of another ceremony is refused" "master1's share of the other genesis" 14 \
  keyrite share check --safe work --anchor anchors.json --charter charter.jsonl --opener people/master1.key:shares-third/work/master1.share --passphrase-fd 3 3<people/master1.passphrase
