say "A factory is a stranger with our keys. It may make three devices, no more; each gets its identity from a key that its own chip made."
TRUST=(--charter charter.jsonl --anchor anchors.json)
mapfile -t WORK < <(openers work master1 master3 master5)
mkdir -p bundle devices
provision_export() { # NUMBER OUT FLAG…
  local quota=$1 out=$2
  shift 2
  keyrite provision export --factory factory1 --quota "$quota" --hardware "gw100 rev A" --valid 30d "$@" \
    "${WORK[@]}" --passphrase-fd 3 --bind bind.yaml "${TRUST[@]}" --state-dir headquarters --out "$out" 3< <(phrases master1 master3 master5)
}

# tpm_start N: a TPM for device N, on loopback; its address goes to devices/N/element.
tpm_start() {
  local dir=$DEMO/devices/$1/swtpm port pid
  mkdir -p "$dir"
  for _ in $(seq 20); do
    port=$((20000 + (RANDOM % 10000) * 2))
    swtpm socket --tpm2 --tpmstate "dir=$dir" --server "type=tcp,port=$port,bindaddr=127.0.0.1" \
      --ctrl "type=tcp,port=$((port + 1)),bindaddr=127.0.0.1" --flags not-need-init,startup-clear --log "file=$dir/log" 3>&- &
    pid=$!
    for _ in $(seq 50); do
      if ! kill -0 "$pid" 2>/dev/null; then break; fi
      if (exec 4<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        later "$pid"
        echo "127.0.0.1:$port" >"devices/$1/element"
        return
      fi
      sleep 0.02
    done
    kill "$pid" 2>/dev/null || true
  done
  echo "swtpm of device $1 did not start" >&2
  exit 1
}

# station_start: serves the birth dialogue; its address goes to $STATION.
station_start() {
  : >log/station.out
  keyrite-station serve --state-dir station --listen factory=127.0.0.1:0 >log/station.out 2>>log/station.err 3>&- &
  station_pid=$!
  later "$station_pid"
  STATION=$(ready_at station "$station_pid" factory) || exit 1
}
station_stop() { kill "$station_pid" && wait "$station_pid"; }
born() { keyrite-gateway birth --element "$(cat "devices/$1/element")" --station "$STATION" --pin-cert station/station-cert.pem --anchor anchors.json --out "devices/$1"; }

try "an unknown factory gets nothing" "a bundle for factory2" 13 provision_export 3 bundle/no.json --factory factory2
try "serials stay within the charter's range" "three serials from 999" 13 provision_export 3 bundle/no.json --serial-from 999
run provision_export 3 bundle/first.json --serial-from 1
run keyrite-verify bundle bundle/first.json --anchor anchors.json --charter charter.jsonl
try "nothing is overwritten" "export into the same file" 16 provision_export 3 bundle/first.json

say "The station believes only what both provisioning keys signed, for this factory, in this order, until that day."
sed 's/"payload":"\(.\{100\}\)./"payload":"\1x/' bundle/first.json >bundle/flipped.json
try "an altered bundle is refused" "one character of the bundle changed" 14 keyrite-station import bundle/flipped.json --state-dir station "${TRUST[@]}"
sed "s/\"world\":\"rehearsal:$WORLD\"/\"world\":\"live\"/g" anchors.json >bundle/live.json
try "rehearsal and live never mix" "a rehearsal's bundle with live anchors" 13 keyrite-station import bundle/first.json --state-dir station --charter charter.jsonl --anchor bundle/live.json
rm bundle/flipped.json bundle/live.json
run keyrite-station import bundle/first.json --state-dir station "${TRUST[@]}"
try "a bundle is used once" "import it again" 13 keyrite-station import bundle/first.json --state-dir station "${TRUST[@]}"

say "Three devices are switched on. Each TPM makes its key inside; only the public half comes out."
station_start
for n in 1 2 3; do
  tpm_start "$n"
  run born "$n"
done
tpm_start 4
try "the quota holds" "a fourth device" 17 born 4
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout bundle/rogue.key -out bundle/rogue.pem -subj /CN=station1 -days 1 2>/dev/null
try "a device pins its station" "another station's certificate is pinned" 20 \
  keyrite-gateway birth --element "$(cat devices/4/element)" --station "$STATION" --pin-cert bundle/rogue.pem --out devices/4
rm bundle/rogue.key bundle/rogue.pem
station_stop
for n in 1 2 3; do
  run keyrite-verify birthcert "devices/$n/birthcert.pem" --anchor anchors.json --charter charter.jsonl
done
try "stock tools read the birth chain" "openssl verifies a birth certificate" 0 openssl verify -x509_strict -CAfile keys/birth-root.pem -untrusted keys/factory-ca.pem devices/1/birthcert.pem

say "The station reports what became of every serial; headquarters counts after, and only what it accepts is admitted anywhere."
run keyrite-station unit list --state-dir station
run keyrite-station close --state-dir station --out report.json
run keyrite-verify report report.json --bundle bundle/first.json --anchor anchors.json --charter charter.jsonl
accept() { # REPORT OUT
  keyrite provision accept "$1" --bundle bundle/first.json "${WORK[@]}" --passphrase-fd 3 --bind bind.yaml "${TRUST[@]}" \
    --state-dir headquarters --out "$2" 3< <(phrases master1 master3 master5)
}
altered=$(jq -r .payload report.json | base64 -d | sed 's/"confirmed":3/"confirmed":2/' | base64 -w0)
jq -cj --arg p "$altered" '.payload = $p' report.json >bundle/report-altered.json
try "an altered report is refused" "one device less in its totals" 14 accept bundle/report-altered.json bundle/no.json
rm bundle/report-altered.json
run accept report.json acceptance.json
run keyrite-verify acceptance acceptance.json --anchor anchors.json
try "an accepted device is somebody" "look device 1 up in the acceptance" 0 keyrite-verify birthcert devices/1/birthcert.pem --anchor anchors.json --charter charter.jsonl --acceptance acceptance.json
