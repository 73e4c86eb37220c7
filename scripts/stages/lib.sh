# Sourced by scripts/demo: what every stage uses. $DEMO is the demo folder and
# the current folder, $ROOT the source tree.
PATH=$DEMO/bin:$PATH
WORLD=demo$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')
export SOFTHSM2_CONF=$DEMO/hsm/softhsm2.conf
MODULE=
for f in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so; do
  if [ -e "$f" ]; then MODULE=$f; fi
done
if [ -t 1 ]; then B=$'\e[1m' G=$'\e[32m' R=$'\e[31m' D=$'\e[2m' N=$'\e[0m'; else B='' G='' R='' D='' N=''; fi
ok=true stage_from=$SECONDS
pids=()

# later PID: a process to end when the demo ends.
later() { pids+=("$1"); }

# ready_at LOG PID ROLE: prints where the program listens in a role, as soon as it says
# so; what it complained of if it ends or takes ten seconds.
ready_at() {
  local at
  for _ in $(seq 200); do
    at=$(awk -v r="$3" '$1 == "ready" && $2 == r {print $3}' "log/$1.out")
    if [ -n "$at" ]; then echo "$at"; return; fi
    if ! kill -0 "$2" 2>/dev/null; then break; fi
    sleep 0.05
  done
  cat "log/$1.err" >&2
  return 1
}

demo_end() {
  local rc=$?
  local p
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  if declare -F flow_end >/dev/null; then flow_end; fi
  if [ $rc -ne 0 ] && [ $rc -ne 130 ]; then echo "${R}scripts/demo stopped; logs are in $DEMO/log${N}" >&2; fi
  exit $rc
}

demo_build() {
  local from=$SECONDS d p
  echo "building into $DEMO/bin (does not count)"
  for d in "$ROOT"/cmd/*/; do
    p=$(basename "$d")
    if [ "$p" = keyrite-hsmd ]; then (cd "$ROOT" && go build -trimpath -o "$DEMO/bin/" "./cmd/$p")
    else (cd "$ROOT" && CGO_ENABLED=0 go build -trimpath -o "$DEMO/bin/" "./cmd/$p"); fi
    echo "  $p"
  done
  echo "  built in $((SECONDS - from)) s"
}

stage() {
  echo
  echo "${B}=== $1 · $2: $3${N}"
  stage_from=$SECONDS
  if $pause && [ -t 0 ]; then read -r -p "(Enter) " _; fi
}

# say SENTENCE: why a stage matters, in plain words.
say() { echo "${B}$*${N}"; }

shown() { # what is run; functions of the stages stand for several commands
  local s=$*
  echo "${D}\$ ${s//$DEMO\//}${N}"
}

# run CMD…: must succeed; its output is shown.
run() {
  shown "$@"
  local rc=0
  "$@" >log/last.out 2>log/last.err || rc=$?
  cat log/last.out >>log/all.log; cat log/last.err >>log/all.log
  awk -v n="${LINES_SHOWN:-12}" 'NR > n {exit} {print "    " $0}' log/last.out
  if [ $rc -ne 0 ]; then
    sed 's/^/    /' log/last.err >&2
    echo "${R}exit $rc, wanted 0${N}" >&2
    exit 1
  fi
}

# try PROMISE WHAT EXIT CMD…: runs it, wants that exit code, and keeps a row for
# the closing table.
try() {
  local promise=$1 what=$2 want=$3 rc=0 got
  shift 3
  shown "$@"
  "$@" >log/last.out 2>log/last.err || rc=$?
  cat log/last.out >>log/all.log; cat log/last.err >>log/all.log
  got=$({ grep -v 'hint:' log/last.err || true; } | tail -n 1 | cut -c1-110)
  if [ "$want" = 0 ]; then got=$(head -n 1 log/last.out | cut -c1-110); fi
  echo "    $got"
  if [ $rc -ne "$want" ]; then
    echo "${R}exit $rc, wanted $want: $promise${N}" >&2
    cat log/last.err >&2
    ok=false
    printf '%s\t%s\tFAILED: exit %s, wanted %s\n' "$promise" "$what" "$rc" "$want" >>table.tsv
    exit 1
  fi
  printf '%s\t%s\texit %s: %s\n' "$promise" "$what" "$rc" "$got" >>table.tsv
}

# openers SAFE NAME…: the --opener arguments; phrases NAME…: their passphrases.
openers() {
  local safe=$1 n
  shift
  for n in "$@"; do printf -- '--opener\npeople/%s.key:shares/%s/%s.share\n' "$n" "$safe" "$n"; done
}
phrases() { local n; for n in "$@"; do cat "people/$n.passphrase"; done; }

# highlights: the promises of the closing screen, in its order. Every other row
# stands in table.tsv.
highlights() {
  cat <<'LIST'
two of five open nothing|two shares
three of five open the token|three shares
a bad share is named|one byte
one incident voids the whole ceremony|a witness
a void attempt leaves nothing behind|count
an altered record is noticed and the entry named|change entry 41
an unknown process gets nothing signed|a pipeline
nobody releases alone|sign with one
stock tools check the signature|openssl
the quota holds|a fourth device
a foreign certificate gets nothing|a device of another CA
a device that nobody accepted is refused|device 4
a tampered image is refused|one bit changed
an engineer reaches his machine|a page
only what the policy names|the PLC
the way back ends at the people|trace
an unknown process gets nothing|nobody
a change of the rules needs the quorum|append
an older copy of the store is refused|three good shares
LIST
}

closing() {
  echo
  echo "${B}=== promise | what we tried | what happened${N}"
  local promise what row shown=0 total=0
  if [ -e table.tsv ]; then
    total=$(wc -l <table.tsv)
    while IFS='|' read -r promise what; do
      row=$(awk -F'\t' -v p="$promise" -v w="$what" '$1 == p && index($2, w) == 1 {print; exit}' table.tsv)
      if [ -z "$row" ]; then continue; fi
      shown=$((shown + 1))
      awk -F'\t' '{sub(/^exit ([0-9]+): keyrite[a-z-]*: /, "refused: ", $3); sub(/^exit 0: /, "", $3); printf "  %-47s | %-34.34s | %.60s\n", $1, $2, $3}' <<<"$row"
    done < <(highlights)
    echo "  and $((total - shown)) more, all as promised: $DEMO/table.tsv"
  fi
  echo
  echo "The report of the ceremony: $DEMO/record/report.html   (of the void one: record-void/report.html)"
  echo "Paste:"
  echo "  cd $DEMO && export PATH=\$PWD/bin:\$PATH SOFTHSM2_CONF=\$PWD/hsm/softhsm2.conf"
  echo "  keyrite-verify record record --anchor anchors.json"
  if [ -e release/firmware.img ]; then echo "  keyrite-verify firmware release/firmware.img --anchor anchors.json"; fi
  if [ -e devices/1/birthcert.pem ]; then echo "  keyrite trace devices/1/birthcert.pem --anchor anchors.json --charter charter.jsonl --record record"; fi
  echo "  keyrite ceremony status --record record-void"
  echo "  keyrite charter show --charter charter.jsonl --anchor anchors.json"
  if [ -e vault/trail.jsonl ]; then
    echo "  keyrite-verify audit vault/trail.jsonl --anchor anchors.json --charter vault/charter.jsonl --list"
    echo "  keyrite-vault serve --bind vault/vault.yaml --state-dir vault/state --listen api=127.0.0.1:8200 --listen page=127.0.0.1:8300   # then open it: docs/operations/vault.md, 3"
    echo "  openssl pkcs12 -export -inkey vault/anna.key -in vault/anna.pem -out anna.p12   # for a browser, which opens https://127.0.0.1:8300"
  fi
  echo
  if [ ${#missing[@]} -gt 0 ] && [ -z "$only" ]; then
    echo "${R}Not built yet:${N}"
    printf '  %s\n' "${missing[@]}"
  fi
  echo "demo: $((SECONDS - START)) s without building, world rehearsal:$WORLD"
}

# request_by_openssl NAME…: a request by a key of openssl, where the program
# that keeps the key does not exist yet.
request_by_openssl() {
  local n
  for n in "$@"; do
    openssl ecparam -genkey -name prime256v1 -noout -out "requests/$n.key"
    openssl req -new -key "requests/$n.key" -subj "/CN=$n" -out "requests/$n.csr"
  done
}
