say "Firmware decides what a machine does. A pipeline may ask for a release; only two people together may allow it; the key that signs is in a token that three others must open."
mkdir -p release requests
cp /usr/lib/u-boot/qemu_arm64/u-boot.bin release/firmware.img
TRUST=(--charter charter.jsonl --anchor anchors.json)
mapfile -t WORK < <(openers work master1 master3 master5)
mapfile -t ROOTS < <(openers root master2 master3 master4)

# release_request IMAGE VERSION SECURITY_VERSION NAME, release_approve NAME IMAGE
# WHO…, release_sign NAME IMAGE OUT_DIR: the three steps, for later stages too.
release_request() {
  keyrite release request "$1" --product gw100 --version "$2" --security-version "$3" --pipeline-key keys/pipeline1.key "${TRUST[@]}" --out "requests/$4.request"
}
release_approve() {
  local name=$1 image=$2 who
  shift 2
  for who in "$@"; do
    keyrite release approve "requests/$name.request" --image "$image" --key "people/$who.key" --passphrase-fd 3 "${TRUST[@]}" --out "requests/$name.$who.approval" 3<"people/$who.passphrase"
  done
}
release_sign() {
  keyrite release sign "requests/$1.request" --image "$2" --approval "requests/$1.approver1.approval" --approval "requests/$1.approver2.approval" \
    "${WORK[@]}" --passphrase-fd 3 --bind bind.yaml "${TRUST[@]}" --state-dir signer --out-dir "$3" 3< <(phrases master1 master3 master5)
}

run keyrite release request release/firmware.img --product gw100 --version 2026.11 --security-version 7 --pipeline-key keys/pipeline1.key "${TRUST[@]}" --out requests/first.request
keyrite release pipeline-key --out requests/rogue.key >/dev/null
try "an unknown process gets nothing signed" "a pipeline that is not in the charter asks" 13 \
  keyrite release request release/firmware.img --product gw100 --version 9 --security-version 9 --pipeline-key requests/rogue.key "${TRUST[@]}" --out requests/rogue.request
: >requests/empty.img
mkfifo requests/fifo.img
for bad in requests/empty.img requests/fifo.img /dev/zero; do
  try "only a real file is firmware" "release ${bad#requests/}" 2 \
    keyrite release request "$bad" --name firmware.img --product gw100 --version 9 --security-version 9 --pipeline-key keys/pipeline1.key "${TRUST[@]}" --out requests/bad.request
done
run keyrite release approve requests/first.request --image release/firmware.img --key people/approver1.key --passphrase-fd 3 "${TRUST[@]}" --out requests/first.approver1.approval 3<people/approver1.passphrase
try "a key master cannot approve a release" "master1 approves" 13 release_approve first release/firmware.img master1
try "nobody releases alone" "sign with one of two approvals" 10 \
  keyrite release sign requests/first.request --image release/firmware.img --approval requests/first.approver1.approval "${WORK[@]}" --passphrase-fd 3 --bind bind.yaml "${TRUST[@]}" --state-dir signer --out-dir release 3< <(phrases master1 master3 master5)
run release_approve first release/firmware.img approver2
mapfile -t TWO < <(openers work master1 master3)
try "two of five do not sign" "sign with two shares" 10 \
  keyrite release sign requests/first.request --image release/firmware.img --approval requests/first.approver1.approval --approval requests/first.approver2.approval "${TWO[@]}" --passphrase-fd 3 --bind bind.yaml "${TRUST[@]}" --state-dir signer --out-dir release 3< <(phrases master1 master3)
run keyrite release sign requests/first.request --image release/firmware.img --approval requests/first.approver1.approval --approval requests/first.approver2.approval \
  "${WORK[@]}" --passphrase-fd 3 --bind bind.yaml "${TRUST[@]}" --state-dir signer --out-dir release 3< <(phrases master1 master3 master5)
mkdir -p requests/again
try "an approval is used once" "sign again with the same approvals" 13 release_sign first release/firmware.img requests/again
run release_request release/firmware.img 2026.10 6 older
run release_approve older release/firmware.img approver1 approver2
try "security versions never go down" "sign security version 6 after 7" 13 release_sign older release/firmware.img requests/again

say "Anyone can check it: our verifier, openssl, and the stock Sigstore verifier."
try "the field checks what headquarters signed" "verify firmware.krf" 0 keyrite-verify firmware release/firmware.krf --anchor anchors.json --export-dsse release/dsse
run keyrite-verify firmware release/firmware.img --anchor anchors.json
try "stock tools check the signature" "openssl verifies it" 0 openssl dgst -sha256 -verify release/dsse/pub.pem -signature release/dsse/sig.der release/dsse/pae.bin
if [ ! -e "$ROOT/testdata/npm/node_modules/.package-lock.json" ]; then (cd "$ROOT/testdata/npm" && npm ci --silent); fi
try "stock tools check the signature" "npm @sigstore/verify reads the bundle" 0 node "$ROOT/testdata/npm/verify-bundle.mjs" "$DEMO/release/firmware.img.sigstore.json" "$DEMO/release/dsse/pub.pem"
run tar -tf release/firmware.krf
cp release/firmware.img requests/tampered.img
printf '\377' | dd of=requests/tampered.img bs=1 seek=400000 conv=notrunc status=none
try "a tampered image is refused" "one byte of the image changed" 14 keyrite-verify firmware requests/tampered.img --bundle release/firmware.img.sigstore.json --anchor anchors.json
try "no anchor, no belief" "verify without anchors" 2 keyrite-verify firmware release/firmware.krf

say "The same for a file of 1 GiB: everything is streamed."
openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00000000000000000000000000000000 -in <(head -c 1073741824 /dev/zero) -out requests/big.img
mkdir -p requests/big
run release_request requests/big.img 2026.11-big 7 big
run release_approve big requests/big.img approver1 approver2
run release_sign big requests/big.img requests/big
printf '\377' | dd of=requests/big/big.krf bs=1 seek=1073741900 conv=notrunc status=none
try "the last byte of a gigabyte counts" "one byte near the end changed" 14 keyrite-verify firmware requests/big/big.krf --anchor anchors.json
rm -r requests/big requests/big.img

say "Offering it to the fleet is a separate right (TUF). The offer alone makes no image acceptable."
run keyrite release root --approver people/approver1.key --approver people/approver2.key --approver-passphrase-fd 4 \
  "${ROOTS[@]}" --passphrase-fd 3 --bind bind.yaml "${TRUST[@]}" --out keys/1.root.json 3< <(phrases master2 master3 master4) 4< <(phrases approver1 approver2)
release_publish() { keyrite release publish "$@" --repo repo "${WORK[@]}" --passphrase-fd 3 --bind bind.yaml "${TRUST[@]}" 3< <(phrases master1 master3 master5); }
run release_publish release/firmware.krf --root keys/1.root.json
try "stock tools read the offer" "npm @tufjs/models checks the metadata" 0 node "$ROOT/testdata/npm/verify-tuf.mjs" "$DEMO/repo/metadata" 1
run keyrite release status --state-dir signer "${TRUST[@]}"
rm -f requests/fifo.img requests/empty.img requests/tampered.img
