say "A gateway trusts its own chip, not the network: whom it serves, what it installs and what it starts are signed, and checked with keys that the chip holds."
TRUST=(--charter charter.jsonl --anchor anchors.json)
mkdir -p account

# relay_start: the relay's two roles; their addresses go to $ACCESS and $VPN.
relay_start() {
  : >log/relay.out
  keyrite-relay serve --state-dir relay --listen access=127.0.0.1:0 --listen vpn=127.0.0.1:0 "${TRUST[@]}" --tuf repo >log/relay.out 2>>log/relay.err 3>&- &
  relay_pid=$!
  later "$relay_pid"
  ACCESS=$(ready_at relay "$relay_pid" access) || exit 1
  VPN=$(ready_at relay "$relay_pid" vpn) || exit 1
}

# gateway N COMMAND…: a command of device N. gateway_start N LAN…: lets it run
# and waits until it is online; gateway_stop ends it.
gateway() {
  local n=$1 command=$2
  shift 2
  keyrite-gateway "$command" --state-dir "devices/$n/gateway" --element "$(cat "devices/$n/element")" "$@"
}
gateway_start() {
  local n=$1 lan=() p
  shift
  for p in "$@"; do lan+=(--lan "$p"); done
  : >log/gateway.out
  keyrite-gateway run --state-dir "devices/$n/gateway" --element "$(cat "devices/$n/element")" "${lan[@]}" >log/gateway.out 2>>log/gateway.err 3>&- &
  gateway_pid=$!
  later "$gateway_pid"
  for _ in $(seq 400); do
    if grep -q ^online log/gateway.out; then return; fi
    if ! kill -0 "$gateway_pid" 2>/dev/null; then break; fi
    sleep 0.05
  done
  cat log/gateway.err >&2
  exit 1
}
gateway_stop() { kill "$gateway_pid" && wait "$gateway_pid"; }
# gateway_run: as a program that ends by itself would.
gateway_run() { gateway_start "$@" && cat log/gateway.out; }
# confirmed N VERSION: waits until device N has confirmed what it runs.
confirmed() {
  for _ in $(seq 100); do
    if gateway "$1" status --json | jq -e --arg v "$2" '.slots[.active_slot].version == $v' >/dev/null; then return; fi
    sleep 0.05
  done
  echo "release $2 was not confirmed" >&2
  return 1
}

# flip FILE OFFSET: changes one bit of a file.
flip() {
  local old
  old=$(od -An -tu1 -j "$2" -N 1 "$1")
  printf "\\x$(printf %x $((old ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# activation ENTRY FILE: what the account's administrator carries to a gateway.
activation() {
  keyrite-relay admin gateway add acme "$1" --state-dir relay >"account/$1.key"
  keyrite-connect activation --access "$ACCESS" --anchor anchors.json --policy-key account/acme.pub --activation-key-fd 3 --out "$2" 3<"account/$1.key"
}
enroll() { gateway "$1" enroll --activation "$2" --anchor anchors.json --tuf-root keys/1.root.json; }

run keyrite-relay admin init --state-dir relay --anchor anchors.json
run keyrite-relay admin import-acceptance acceptance.json --state-dir relay --anchor anchors.json
openssl rand -hex 16 >account/acme.passphrase
run keyrite-connect policy-key --account acme --rehearsal "$WORLD" --out account/acme --passphrase-fd 3 3<account/acme.passphrase
run keyrite-relay admin account add acme --policy-key account/acme.pub --state-dir relay
relay_start

say "Only a device that headquarters accepted is let in. A copied certificate of another maker, or a device nobody counted, gets nothing."
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout account/rogue-ca.key -out account/rogue-ca.pem -subj "/O=rehearsal:$WORLD/OU=gw100/CN=keyrite factory factory1" -days 1 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout account/rogue.key -out account/rogue.csr -subj "/O=rehearsal:$WORLD/OU=gw100/serialNumber=gw100-00000001" 2>/dev/null
openssl x509 -req -in account/rogue.csr -CA account/rogue-ca.pem -CAkey account/rogue-ca.key -CAcreateserial -days 1 -out account/rogue.pem 2>/dev/null
# The stock client says what the relay answers in the handshake.
rogue_dials() {
  timeout 10 openssl s_client -connect "$ACCESS" -tls1_3 -CAfile keys/relay-ca.pem -cert account/rogue.pem -key account/rogue.key -ign_eof </dev/null >log/rogue.out 2>&1 || true
  if ! grep -q 'Verify return code: 0' log/rogue.out; then cat log/rogue.out >&2; return 1; fi
  if grep -o 'alert bad certificate' log/rogue.out >&2; then return 20; fi
}
try "a foreign certificate gets nothing" "a device of another CA dials, with openssl" 20 rogue_dials
rm account/rogue*
run provision_export 1 bundle/second.json --serial-from 4
run keyrite-station import bundle/second.json --state-dir station "${TRUST[@]}"
station_start
run born 4
station_stop
run activation press-4 account/press-4.activation
try "a device that nobody accepted is refused" "device 4, born, in no acceptance" 13 enroll 4 account/press-4.activation

say "Device 1 joins the account. The fingerprint of the account's key comes with the activation file, not from the relay, and goes into the chip."
run activation press-7 account/press-7.activation
sed "s/rehearsal:$WORLD/live/" account/press-7.activation >account/live.activation
try "rehearsal and live never mix" "an activation file of the live world" 13 enroll 1 account/live.activation
rm account/live.activation
try "a gateway keeps the anchors of its birth" "other anchors of this world" 14 \
  gateway 1 enroll --activation account/press-7.activation --anchor record-third/outputs/anchors.json --tuf-root keys/1.root.json
run enroll 1 account/press-7.activation
run gateway_run 1
run gateway 1 status
gateway_stop

say "It fetches the release: TUF says what is offered, the release statement says that it is ours, and both must agree."
run gateway 1 update
run gateway 1 boot
run gateway_run 1
run confirmed 1 2026.11
gateway_stop

say "The next release. One bit changed in the repository, then one bit changed in the slot: neither is started."
cp release/firmware.img requests/next.img
echo 2026.12 >>requests/next.img
mkdir -p requests/next
run release_request requests/next.img 2026.12 8 next
run release_approve next requests/next.img approver1 approver2
run release_sign next requests/next.img requests/next
run release_publish requests/next/next.krf
target=$(echo repo/targets/*2026.12.krf)
chmod u+w "$target"
flip "$target" 500000
try "a tampered image is refused" "one bit changed in the repository" 14 gateway 1 update
flip "$target" 500000
run gateway 1 update
flip devices/1/gateway/boot/b.img 1000
try "a tampered image is never started" "one bit changed in slot b" 0 gateway 1 boot
gateway 1 boot --json | jq -e '.slot == "a"' >/dev/null
run gateway 1 update
run gateway 1 boot
run gateway_run 1
run confirmed 1 2026.12
gateway_stop
flip devices/1/gateway/boot/b.img 1000
try "nothing older is started instead" "one bit changed in slot b, slot a is older" 14 gateway 1 boot
flip devices/1/gateway/boot/b.img 1000
run gateway 1 boot
