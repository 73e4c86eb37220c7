# Sourced by scripts/bench: a whole genesis (rehearsal, four tokens on a RAM disk,
# ten people), without the time in which the people unlock their keys, which
# stands beside it. Goal: under 5 s.
genesis_dir=$(mktemp -d "$( [ -d /dev/shm ] && echo /dev/shm || echo "$WORK" )/keyrite-bench.XXXXXX")
genesis_run() (
  set -e
  local dir=$1 module='' m n role
  for m in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so; do if [ -e "$m" ]; then module=$m; fi; done
  CGO_ENABLED=0 go build -o "$dir/bin/keyrite" ./cmd/keyrite
  CGO_ENABLED=1 go build -o "$dir/bin/keyrite-hsmd" ./cmd/keyrite-hsmd
  cd "$dir"
  mkdir tokens people requests
  printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$dir" >softhsm2.conf
  export SOFTHSM2_CONF=$dir/softhsm2.conf
  { echo "format: keyrite/bind/v1"; echo "world: rehearsal:benchmark"; echo "module: $module"
    echo "tokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}"; echo "people:"; } >bind.yaml
  { echo "format: keyrite/answers/v1"; echo "yes: [all]"; echo "documents: {all: passport}"; echo "elsewhere: [witness2]"; echo "passphrases:"; } >answers.yaml
  for n in conductor master1 master2 master3 master4 master5 witness1 witness2 approver1 approver2; do
    case $n in conductor) role=conductor ;; master*) role=key-master ;; witness*) role=witness ;; *) role=approver ;; esac
    echo "passphrase of $n" >"people/$n.passphrase"
    bin/keyrite person new "$n" --out people --rehearsal benchmark --passphrase-fd 3 3<"people/$n.passphrase" >/dev/null
    echo "  - {person: people/$n.person, key: people/$n.key, role: $role}" >>bind.yaml
    echo "  $n: people/$n.passphrase" >>answers.yaml
  done
  for n in factory-ca report relay-access relay-vpn; do
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=bench -out "requests/$n.csr" 2>/dev/null
  done
  openssl ecparam -name prime256v1 -genkey -noout | openssl pkey -pubout -out requests/pipeline1.pem
  { echo "requests: {factory-ca: requests/factory-ca.csr, report: requests/report.csr, relay-access: requests/relay-access.csr, relay-vpn: requests/relay-vpn.csr}"
    echo "keys: {pipeline1: requests/pipeline1.pem}"; echo "shares: shares"; } >>bind.yaml
  bin/keyrite ceremony new genesis --module "$module" --enforce=false --break=no --printer=no --root-token bench-root --work-token bench-work --out genesis.yaml >/dev/null
  local from to
  from=$(date +%s%N)
  "$WORK/usage" setsid bin/keyrite ceremony rehearse genesis.yaml --bind bind.yaml --answers answers.yaml --record record >cpu 2>log
  to=$(date +%s%N)
  # Unlocking is the step people.identify, by the record's own clock.
  jq -rs --argjson ms "$(((to - from) / 1000000))" '
    ([.[] | select(.type == "begin" and .data.do == "people.identify")][0].mono) as $a
    | ([.[] | select(.type == "done" and .data.do == "people.identify")][0].mono) as $b
    | "\(($ms - ($b - $a)) / 1000) \(($b - $a) / 1000) \(length)"' record/transcript.jsonl | tr '\n' ' '
  cat cpu
)
if genesis_out=$(genesis_run "$genesis_dir"); then
  read -r genesis_s genesis_unlock genesis_entries genesis_cpu _ <<<"$genesis_out"
  raw genesis.wall_s "$genesis_s" "s for $genesis_entries entries without unlocking, goal: under 5"
  raw genesis.cpu_s "$genesis_cpu" "CPU s of all its processes, for a machine that does other work meanwhile"
  raw genesis.unlock_s "$genesis_unlock" "s to unlock ten rehearsal keys (a live one takes about 1 s and 256 MiB)"
  ratio genesis.wall_to_goal "$(awk -v a="$genesis_s" 'BEGIN {print a / 5}')" "goal: at most 1"
else
  cat "$genesis_dir/log" >&2
fi
rm -rf "$genesis_dir"
