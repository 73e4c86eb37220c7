# The long run, part by part: sourced by scripts/test, which calls long_run, and by
# the test of its rows. Every part writes what it ran, and no more, into
# docs/long-run.md, also when it fails or is broken off. A sweep goes on where it
# was broken off as long as the commit is the same.
#   KEYRITE_LONG_DIR   where that is kept, default .long
#   KEYRITE_LONG_JOBS  processes of a sweep, default one per processor
#   KEYRITE_LONG_TIME  seconds that one sweep may take, default none
#   KEYRITE_LONG_SEED  of the order of a sweep
#   KEYRITE_LONG_KINDS of sweep-rest, default all
#   KEYRITE_LONG_TESTS of rest, a regular expression of names, default all
#   KEYRITE_LONG_PACKAGES of rest, where these tests are, default ./...

LONG_PARTS="fuzz record sweep-genesis sweep-reshare sweep-rest image release cosign rest bench"
: "${KEYRITE_LONG_KINDS:=enrol hsm-lost new-key retire sign-offline succession transfer}"
: "${LONG_DOC:=docs/long-run.md}" "${KEYRITE_LONG_SEED:=20261122}"
long_rc=0 long_pids= long_broken=false

# What is run, as it stands when this begins; a plus says that files differ from the
# commit.
long_commit=$(git rev-parse --short=9 HEAD)
if [ -n "$(git status --porcelain -- . ':!docs/long-run.md')" ]; then long_commit=$long_commit+; fi

# long_row PART WHAT DONE TOTAL BAD SECONDS [SEED]: the row replaces that of the last
# run. The outcome follows from the numbers.
long_row() {
  local outcome=good row key
  if [ "$3" != "$4" ] || [ "$4" -le 0 ]; then outcome='not finished'; fi
  if [ "$5" -gt 0 ]; then outcome="failed: $5"; fi
  if [ "$outcome" != good ]; then long_rc=1; fi
  key="| $1 | $2 |"
  row="$key $3 of $4 | $outcome | $6 | $long_commit | $(date -u +%Y-%m-%dT%H:%MZ) | ${7:--} |"
  say "$row"
  mkdir -p "${KEYRITE_LONG_DIR:-.long}"
  exec 9>"${KEYRITE_LONG_DIR:-.long}/lock" # several parts may run at once
  flock 9
  {
    cat <<'HEAD'
# Long runs

Written by `scripts/test --long`; do not edit. One row is the last run of that part:
how much of it was run, what came of it, and on which commit. "Good" means all of
it. A plus behind the commit means that files were changed. Seconds are those of a
machine that did other things too.

| part | what | run | outcome | seconds | commit | date | seed |
|---|---|---|---|---|---|---|---|
HEAD
    {
      if [ -e "$LONG_DOC" ]; then grep '^| ' "$LONG_DOC" | grep -v '^| part |' | grep -vF -- "$key" || true; fi
      printf '%s\n' "$row"
    } | awk -v parts="$LONG_PARTS" -F' [|] ' '
      BEGIN { n = split(parts, p, " "); for (i = 1; i <= n; i++) at[p[i]] = i }
      { name = $1; sub(/^[|] /, "", name); printf "%02d\t%s\n", at[name], $0 }' | sort | cut -f2-
  } >"$LONG_DOC.new"
  mv "$LONG_DOC.new" "$LONG_DOC"
  exec 9>&-
}

# long_tests PART SECONDS <LOG: the rows of go test -v. A test may say how much it
# tried, in lines "long: WHAT: N of M"; one that did not end is not finished.
long_tests() {
  local part=$1 took=$2 name what done total bad secs
  while IFS=$'\t' read -r what done total bad secs; do
    long_row "$part" "$what" "$done" "$total" "$bad" "${secs:-$took}"
  done < <(awk '
    function flush(bad, secs,   i) {
      if (bad == "") n = 0
      if (n == 0) printf "%s\t%d\t1\t%d\t%s\n", name, bad != "" && bad == 0, bad, secs
      for (i = 1; i <= n; i++) printf "%s\t%d\t%d\t%d\t%s\n", what[i], done[i], total[i], bad, secs
      n = 0; name = ""
    }
    /^=== RUN   TestLong[A-Za-z0-9_]*$/ { if (name != "") flush("", ""); name = $3 }
    match($0, /_test\.go:[0-9]+: long: .*: [0-9]+ of [0-9]+$/) {
      s = substr($0, RSTART); sub(/^_test\.go:[0-9]+: long: /, "", s)
      n++; what[n] = s; sub(/: [0-9]+ of [0-9]+$/, "", what[n])
      done[n] = $(NF - 2); total[n] = $NF
    }
    /^--- (PASS|FAIL): TestLong/ { s = $4; gsub(/[(s)]/, "", s); flush($2 == "FAIL:", int(s)) }
    END { if (name != "") flush("", "") }')
  return 0
}

# long_journal FILE: prints DONE TOTAL BAD of a sweep. The last word on a run counts;
# processes that count differently have no total.
long_journal() {
  awk '
    $1 == "of" && NF == 2 { if (total != "" && total != $2) total = -1; else if (total != -1) total = $2; next }
    NF >= 2 && ($2 == "good" || $2 == "bad") { how[$1] = $2 }
    END {
      for (x in how) if (how[x] == "good") good++; else bad++
      printf "%d %d %d\n", good, total, bad
    }' "$1"
}

# --- parts ------------------------------------------------------------------

long_state() {
  local d
  d=${KEYRITE_LONG_DIR:-.long}/$long_commit
  mkdir -p "$d"
  (cd "$d" && pwd)
}

# long_go PART RUN PACKAGE…: long tests, and their rows.
long_go() {
  local part=$1 run=$2 log from=$SECONDS
  shift 2
  log=$work/$part.log
  set -m
  KEYRITE_TEST_LONG=1 go test -count=1 -timeout=12h -run "$run" ${long_skip:+-skip "$long_skip"} -v "$@" >"$log" 2>&1 </dev/null &
  set +m
  long_wait $! || { grep -aE '^\s*(--- FAIL|FAIL|panic|.*_test\.go:)' "$log" || true; }
  # What failed beside the tests, as a build does, has a row as well.
  if grep -aqE '^FAIL.*\[(build|setup) failed\]|^panic: ' "$log"; then long_row "$part" "the tests of the part" 0 1 1 $((SECONDS - from)); fi
  long_tests "$part" $((SECONDS - from)) <"$log"
}

# long_wait PID…: waits for process groups, which long_break may end.
long_wait() {
  local rc=0 p
  long_pids=$*
  for p in "$@"; do
    while kill -0 "$p" 2>/dev/null && ! $long_broken; do wait "$p" || rc=$?; done
    wait "$p" || rc=$?
  done
  long_pids=
  return $rc
}

# long_sweep PART KIND TEST: every request of a ceremony, in several processes.
long_sweep() {
  local part=$1 kind=$2 test=$3 state jobs i from=$SECONDS pids=() p rc=0 base=${TMPDIR:-/tmp}
  if $long_broken; then return 0; fi
  state=$(long_state) jobs=${KEYRITE_LONG_JOBS:-$(nproc)}
  if [ -d /dev/shm ]; then base=/dev/shm; fi
  go test -c -o "$work/sweep.test" ./ceremony/actions
  set -m
  for ((i = 0; i < jobs; i++)); do
    p=$(mktemp -d "$base/keyrite-sweep.XXXXXX")
    echo "$p" >>"$work/scratch"
    ( cd ceremony/actions && TMPDIR=$p KEYRITE_TEST_LONG=1 KEYRITE_TEST_KIND=$kind KEYRITE_TEST_SLICE=$i/$jobs KEYRITE_TEST_JOURNAL=$state \
      KEYRITE_TEST_SEED=$KEYRITE_LONG_SEED KEYRITE_TEST_SWEEP=${KEYRITE_LONG_TIME:+${KEYRITE_LONG_TIME}s} exec "$work/sweep.test" -test.run "^$test\$" -test.v ) >"$work/sweep-$kind-$i.log" 2>&1 &
    pids+=($!)
  done
  set +m
  long_wait "${pids[@]}" || rc=1
  long_sweep_row "$part" "$kind" "$state" $((SECONDS - from)) "$rc"
}

# long_sweep_row PART KIND STATE SECONDS RC
long_sweep_row() {
  local done=0 total=0 bad=0 before=0
  if [ -e "$3/$2.seconds" ]; then before=$(cat "$3/$2.seconds"); fi
  echo $((before + $4)) >"$3/$2.seconds"
  if [ -e "$3/$2.journal" ]; then read -r done total bad < <(long_journal "$3/$2.journal"); fi
  if [ "$5" -ne 0 ] && [ "$bad" -eq 0 ] && ! $long_broken; then bad=1; fi
  if [ "$bad" -gt 0 ]; then grep -ahE '^\s*(--- FAIL|panic:|.*_test\.go:)' "$work/sweep-$2-"*.log || true; fi
  long_row "$1" "every request of $2" "$done" "$total" "$bad" $((before + $4)) "$KEYRITE_LONG_SEED"
}

long_fuzz() {
  local state each=${KEYRITE_LONG_FUZZ:-120} file name pkg n=0 total=0 bad=0 from=$SECONDS before=0
  state=$(long_state)
  touch "$state/fuzz.journal"
  if [ -e "$state/fuzz.seconds" ]; then before=$(cat "$state/fuzz.seconds"); fi
  while IFS=: read -r file name; do
    total=$((total + 1)) name=${name#func } pkg=./$(dirname "$file")
    if grep -qxF "$each $pkg $name" "$state/fuzz.journal"; then n=$((n + 1)); continue; fi
    if $long_broken || { [ -n "${KEYRITE_LONG_TIME:-}" ] && [ $((SECONDS - from)) -gt "$KEYRITE_LONG_TIME" ]; }; then continue; fi
    if fuzz_one "$pkg" "$name" "${each}s"; then
      n=$((n + 1))
      echo "$each $pkg $name" >>"$state/fuzz.journal"
    else
      bad=$((bad + 1))
    fi
    echo $((before + SECONDS - from)) >"$state/fuzz.seconds"
  done < <(fuzz_targets)
  long_row fuzz "every fuzz target for $each s" "$n" "$total" "$bad" $((before + SECONDS - from))
}

# long_script PART WHAT COMMAND…: a script that says by its exit code what came of it.
long_script() {
  local part=$1 what=$2 from=$SECONDS rc=0
  shift 2
  set -m
  "$@" >"$work/$part.log" 2>&1 </dev/null &
  set +m
  long_wait $! || rc=$?
  if [ $rc -ne 0 ]; then tail -n 30 "$work/$part.log"; fi
  if $long_broken; then
    long_row "$part" "$what" 0 1 0 $((SECONDS - from))
  else
    long_row "$part" "$what" $((rc == 0)) 1 $((rc != 0)) $((SECONDS - from))
  fi
}

long_part() {
  local k
  case $1 in
    fuzz) long_fuzz ;;
    record) long_go record '^TestLongEvery(FlippedByte|Cut|Swap)$' ./ceremony/actions ;;
    sweep-genesis) long_sweep "$1" genesis TestLongEveryRequestSpoiled ;;
    sweep-reshare) long_sweep "$1" reshare TestLongEveryRequestOfAReshareSpoiled ;;
    sweep-rest) for k in $KEYRITE_LONG_KINDS; do long_sweep "$1" "$k" TestLongEveryRequestOfLaterCeremoniesSpoiled; done ;;
    image) long_go image '^TestLongCeremonyImage$' ./cmd/keyrite ;;
    release) long_script release "two builds of the programs give the same bytes" scripts/release --out "$work/dist" ;;
    cosign) long_cosign ;;
    rest) long_skip='^TestLong(Every(FlippedByte|Cut|Swap|Request.*)|CeremonyImage|Cosign)$' long_go rest "${KEYRITE_LONG_TESTS:-^TestLong}" ${KEYRITE_LONG_PACKAGES:-./...} ;;
    bench) long_script bench "every figure is printed" scripts/bench --json ;;
  esac
}

# long_cosign builds cosign from its module, once, and has it sign with a vault of ours.
long_cosign() {
  local dir=$PWD/bin/tools/cosign-v3.1.3 new
  if [ ! -x "$dir/cosign" ]; then
    new=$(mktemp -d "$work/cosign.XXXXXX")
    if ! GOBIN=$new GOFLAGS="${GOFLAGS:-} -trimpath" nice go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3 >"$work/cosign.log" 2>&1; then
      tail -n 20 "$work/cosign.log"
      long_row cosign "cosign signs and verifies" 0 1 1 0
      return 0
    fi
    mkdir -p "$dir"
    mv "$new/cosign" "$dir/.cosign.$$" && mv "$dir/.cosign.$$" "$dir/cosign"
  fi
  KEYRITE_COSIGN=$dir/cosign long_go cosign '^TestLongCosign$' ./vault/api
}

# long_known PART…: all are parts.
long_known() {
  local p
  for p in "$@"; do
    case " $LONG_PARTS " in *" $p "*) ;; *) say "scripts/test: no part is called $p; there are: $LONG_PARTS"; return 2 ;; esac
  done
}

# long_run PART…: a part that fails does not keep the next from being run.
long_run() {
  local p
  for p in "$@"; do
    if $long_broken; then break; fi
    say "== long: $p"
    long_part "$p"
  done
  if $long_broken; then return 130; fi
  return $long_rc
}

# long_break ends what a part has started; its row then says how far it came.
long_break() {
  local p
  long_broken=true
  for p in $long_pids; do kill -- "-$p" 2>/dev/null || true; done
}

# long_clean removes what killed sweeps left.
long_clean() {
  local p
  if [ -s "$work/scratch" ]; then while read -r p; do rm -rf "$p"; done <"$work/scratch"; fi
}
