say "The vault opens for a quorum only, answers processes that it knows only, and its whole configuration is the charter: whoever can log in cannot change it."
TRUST=(--charter vault/charter.jsonl --anchor anchors.json)
HOUSE=(--bind vault/vault.yaml --state-dir vault/state)
mkdir -p vault
cp charter.jsonl vault/charter.jsonl # of its own: the other stages go on with theirs

# charter NAME TYPE ARGUMENT…: a statement that both approvers sign.
charter() {
  local name=$1 type=$2 who approvals=()
  shift 2
  keyrite charter propose "$type" "$@" "${TRUST[@]}" --out "vault/$name.proposal" >"log/$name.proposed" || return
  sed -n 's/^ *You approve/approvers read:/p' "log/$name.proposed"
  for who in approver1 approver2; do
    keyrite charter approve "vault/$name.proposal" --key "people/$who.key" --passphrase-fd 3 "${TRUST[@]}" --out "vault/$name.$who" 3<"people/$who.passphrase" || return
    approvals+=(--approval "vault/$name.$who")
  done
  keyrite charter append "vault/$name.proposal" "${approvals[@]}" "${TRUST[@]}"
}
# body NAME TYPE: the same with the body from standard input.
body() { cat >"vault/$1.json"; charter "$1" "$2" --body "vault/$1.json"; }

vault_start() {
  : >log/vault.out
  keyrite-vault serve "${HOUSE[@]}" --listen api=127.0.0.1:0 --listen page=127.0.0.1:0 >>log/vault.out 2>>log/vault.err 3>&- &
  vault_pid=$!
  later "$vault_pid"
  vault_ready
}
# vault_ready: waits until it listens; its addresses go to $API and $PAGE. Sealing starts the
# process anew, so it is "ready" again.
vault_ready() {
  API=$(ready_at vault "$vault_pid" api) || return
  PAGE=$(ready_at vault "$vault_pid" page)
}
# attempt NAME OPERATION: asks the key masters for their shares; answer ATTEMPT WHO SAFE:
# one of them answers from home, with what he saw on the request.
attempt() { keyrite-vault unseal --new-attempt --operation "$2" "${HOUSE[@]}" --out "vault/$1.request"; }
answer() {
  local words
  words=$(keyrite-verify open-request "vault/$1.request" --anchor anchors.json --charter vault/charter.jsonl | sed -n 's/.*request in words: //p')
  keyrite share open "vault/$1.request" --key "people/$2.key" --share "shares/$3/$2.share" "${TRUST[@]}" --yes-words "$words" --passphrase-fd 3 --out "vault/$1.$2" 3<"people/$2.passphrase"
}
give() { keyrite-vault unseal --answer "vault/$1.$2" "${HOUSE[@]}"; }
# opened NAME OPERATION WHO…: all of it.
opened() {
  local name=$1 who
  attempt "$name" "$2"
  shift 2
  for who in "$@"; do answer "$name" "$who" work && give "$name" "$who" || return; done
}
# ask WHO WANT PATH [CURL…]: asks as a process; the answer must be of HTTP status WANT.
ask() {
  local who=$1 want=$2 path=$3 got certificate=()
  shift 3
  if [ "$who" != nobody ]; then certificate=(--cert "vault/$who.pem" --key "vault/$who.key"); fi
  got=$(curl -sS --cacert vault/ca.pem "${certificate[@]}" -o log/answer.json -w '%{http_code}' "$@" "https://$API/v1/$path")
  jq -r '.errors[0] // (.data | tostring)' log/answer.json
  if [ "$got" != "$want" ]; then echo "HTTP $got, wanted $want" >&2; return 1; fi
}
# in_force: waits until the vault has the whole charter file, which takes up to a second.
in_force() {
  for _ in $(seq 100); do
    if ask anna 200 keyrite/status >/dev/null 2>&1 && [ "$(jq .data.charter.size log/answer.json)" = "$(wc -l <vault/charter.jsonl)" ]; then return; fi
    sleep 0.1
  done
  cat log/answer.json >&2
  return 1
}
# look WHO PATH TEXT: a page in a browser; it must have TEXT.
look() {
  local certificate=()
  if [ "$1" != nobody ]; then certificate=(--cert "vault/$1.pem" --key "vault/$1.key"); fi
  curl -sS --cacert vault/ca.pem "${certificate[@]}" -o log/page.html "https://$PAGE$2"
  grep -o -m 1 "$3" log/page.html
}

cat >vault/vault.yaml <<YAML
format: keyrite/vault-bind/v1
world: rehearsal:$WORLD
host: vault1
safe: work
module: $MODULE
admissions: [../record/outputs/admissions.json]
anchors: ../anchors.json
charter: charter.jsonl
head: {file: head.json} # in a rehearsal only; live a cosigner on another machine keeps it
tls: {certificate: server.pem, key: server.key}
YAML
# A CA of the plant, by openssl: the vault's own certificate, and those of two processes.
plant() { # NAME EXTENSION…
  local name=$1
  shift
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "vault/$name.key" -out "vault/$name.csr" -subj "/CN=$name" 2>/dev/null
  printf '%s\n' basicConstraints=CA:false keyUsage=digitalSignature "$@" >vault/extensions
  openssl x509 -req -in "vault/$name.csr" -CA vault/ca.pem -CAkey vault/ca.key -CAcreateserial -days 30 -extfile vault/extensions -out "vault/$name.pem" 2>/dev/null
  rm "vault/$name.csr" vault/extensions
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout vault/ca.key -out vault/ca.pem -subj "/CN=plant CA" -addext keyUsage=critical,keyCertSign -days 30 2>/dev/null
chmod 600 vault/*.key
plant server extendedKeyUsage=serverAuth subjectAltName=IP:127.0.0.1
plant anna extendedKeyUsage=clientAuth subjectAltName=URI:spiffe://plant/people/anna
plant mes extendedKeyUsage=clientAuth subjectAltName=URI:spiffe://plant/mes
plant stranger extendedKeyUsage=clientAuth subjectAltName=URI:spiffe://plant/stranger

run keyrite-vault create "${HOUSE[@]}"
LOG_KEY=$(sed -n "s/.*key of the log.*: //p" log/last.out)
vault_start
try "key masters answer only a host of the charter" "the host asks before it is in the charter" 13 attempt early create
run charter host host --id vault1 --key vault/state/host.pub
run attempt monday create
try "a bad share is named" "master2 answers with a share of the other safe" 14 answer monday master2 root
run answer monday master1 work
run give monday master1
try "a key master answers once" "master1's answer a second time" 10 give monday master1
for who in master3 master5; do run answer monday "$who" work; run give monday "$who"; done

say "What a process may is a statement of the approvers. One of them alone changes nothing, and a client cannot either."
run body log audit-log <<<"{\"cosigners\":[],\"log\":{\"key\":\"$LOG_KEY\",\"name\":\"vault1\"},\"need\":0,\"version\":1}"
run body kv mount <<<'{"engine":"kv","id":"kv"}'
run body transit mount <<<'{"engine":"transit","id":"transit"}'
run body key transit-key <<<'{"mount":"transit","name":"orders","software":{"min_decryption_version":1,"min_encryption_version":1,"type":"ecdsa-p256","versions":1}}'
run body policy policy <<<'{"id":"line1","rules":[{"can":["create","read","update"],"path":"kv/data/line1/*"},{"can":["read"],"path":"transit/keys/orders"},{"can":["update"],"path":"transit/sign/orders"}],"version":1}'
run body auditor policy <<<'{"id":"auditor","rules":[{"can":["read"],"path":"keyrite/charter"},{"can":["read"],"path":"keyrite/due"},{"can":["list"],"path":"keyrite/proposals"},{"can":["read"],"path":"keyrite/proposals/+"},{"can":["read"],"path":"keyrite/shares"},{"can":["read"],"path":"keyrite/status"},{"can":["read"],"path":"keyrite/trail"}],"version":1}'
CA=$(openssl x509 -in vault/ca.pem -outform DER | base64 -w0)
run body anna identity <<<"{\"certificate\":{\"ca\":\"$CA\",\"uri\":\"spiffe://plant/people/anna\"},\"id\":\"anna\",\"policies\":[\"auditor\"],\"ttl\":600}"
run body mes identity <<<"{\"certificate\":{\"ca\":\"$CA\",\"uri\":\"spiffe://plant/mes\"},\"id\":\"mes\",\"policies\":[\"line1\"],\"ttl\":3600}"
echo '{"id":"line1","rules":[{"can":["read"],"path":"kv/data/*"}],"version":2}' >vault/alone.json
run keyrite charter propose policy --body vault/alone.json "${TRUST[@]}" --out vault/alone.proposal
keyrite charter approve vault/alone.proposal --key people/approver1.key --passphrase-fd 3 "${TRUST[@]}" --out vault/alone.approver1 >/dev/null 3<people/approver1.passphrase
try "a change of the rules needs the quorum" "append a policy with one of two approvals" 10 keyrite charter append vault/alone.proposal --approval vault/alone.approver1 "${TRUST[@]}"

say "Clients are those that exist, here curl. Who is not known is refused, and what no rule gives, too."
in_force
try "a process gets what the charter gives it" "mes writes a secret" 0 ask mes 200 kv/data/line1/plc -d '{"data":{"recipe":"7"}}'
try "a process gets what the charter gives it" "mes reads it" 0 ask mes 200 kv/data/line1/plc
try "an unknown process gets nothing" "a certificate of the same CA that the charter does not know" 0 ask stranger 403 kv/data/line1/plc
try "an unknown process gets nothing" "nobody" 0 ask nobody 403 kv/data/line1/plc
try "what no rule gives is refused" "mes asks for line 2" 0 ask mes 403 kv/data/line2/plc
try "a client configures nothing" "mes mounts an engine" 0 ask mes 403 sys/mounts/mine -d '{"type":"kv"}'
head -c 60000 /dev/urandom >vault/order.bin
# signed: mes has a file signed, and openssl verifies it with the public key that the vault tells.
signed() {
  ask mes 200 transit/sign/orders -d "{\"input\":\"$(base64 -w0 vault/order.bin)\"}" >/dev/null
  jq -r .data.signature log/answer.json | sed 's/^vault:v1://' | base64 -d >vault/order.sig
  ask mes 200 transit/keys/orders >/dev/null
  jq -r '.data.keys."1".public_key' log/answer.json >vault/orders.pem
  openssl dgst -sha256 -verify vault/orders.pem -signature vault/order.sig vault/order.bin
}
try "a process signs with a key that it never sees" "mes has 60 kB signed, openssl verifies it" 0 signed

say "People look at it in a browser. Who is not known sees whether it is sealed, and nothing else; nobody decides anything there."
try "a page for people" "anna, an auditor, reads the charter" 0 look anna /charter "decided by the approvers"
try "a page for people" "anna finds the signature in the trail" 0 look anna "/trail?path=transit/sign" "transit/sign/orders"
look nobody /charter "" >/dev/null
if grep -q 'master1\|spiffe' log/page.html; then echo "a stranger sees the charter" >&2; exit 1; fi

say "kill -9, and three others open it again. What was acknowledged is there."
cp -r vault/state vault/older
try "a process gets what the charter gives it" "mes writes a second version" 0 ask mes 200 kv/data/line1/plc -d '{"data":{"recipe":"8"}}'
kill -9 "$vault_pid"
wait "$vault_pid" 2>/dev/null || true
vault_start
try "a restart seals" "mes asks the vault that was killed" 0 ask mes 503 kv/data/line1/plc
run opened tuesday unseal master2 master3 master4
try "nothing that was acknowledged is lost" "mes reads after kill -9" 0 ask mes 200 kv/data/line1/plc
[ "$(jq -r .data.data.recipe log/answer.json)" = 8 ] || { cat log/answer.json >&2; exit 1; }

say "Everything stands in a trail that a stranger verifies. A change of the rules that the approvers did not sign would show in it."
run body ended access-ended <<<'{"id":"mes","type":"identity"}'
in_force
try "a right that ended has ended" "mes asks a second later" 0 ask mes 403 kv/data/line1/plc
run keyrite-vault audit "${HOUSE[@]}" --out vault/trail.jsonl
try "a stranger verifies what the vault did" "keyrite-verify audit" 0 keyrite-verify audit vault/trail.jsonl "${TRUST[@]}"
awk '/transit\/sign\/orders/ && !done {done = 1; sub(/transit\/sign\/orders/, "transit/sign/orderz")} {print}' vault/trail.jsonl >vault/altered.jsonl
try "an altered trail is noticed" "one letter of one entry" 14 keyrite-verify audit vault/altered.jsonl "${TRUST[@]}"
grep -v '"transit/sign/orders"' vault/trail.jsonl >vault/altered.jsonl
try "an altered trail is noticed" "the signature's entry left out" 14 keyrite-verify audit vault/altered.jsonl "${TRUST[@]}"
rm vault/altered.jsonl
try "an auditor gets it in one folder" "keyrite evidence export" 0 keyrite evidence export --from "$(date -u +%F)" --to "$(date -u -d tomorrow +%F)" --out vault/evidence "${TRUST[@]}" --record record --record record-void --audit vault/trail.jsonl

say "Sealing needs nobody's share. An older copy of the store is not taken, whoever opens it."
: >log/vault.out
run keyrite-vault seal "${HOUSE[@]}"
vault_ready
try "a sealed vault answers nothing" "mes asks" 0 ask mes 503 kv/data/line1/plc
kill "$vault_pid" && wait "$vault_pid" || true
mv vault/state vault/newest && mv vault/older vault/state
vault_start
try "an older copy of the store is refused" "three good shares, and the folder of before" 14 opened rolled unseal master1 master2 master3
kill "$vault_pid" && wait "$vault_pid" || true
rm -r vault/state && mv vault/newest vault/state # what is left is good: three shares open it
