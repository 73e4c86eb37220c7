# Sourced by scripts/bench: reading a transcript of 1,000,000 entries, as a verifier
# does, against the SHA-256 of the same lines. Goals: under 5 CPU seconds, under 200
# MiB, whatever the machine does beside.
RECORD_ENTRIES=${KEYRITE_BENCH_ENTRIES:-1000000}
go build -o "$WORK/longrecord" ./bench/longrecord
"$WORK/longrecord" make "$WORK/longrecord.d" "$RECORD_ENTRIES"
for run in 1 2 3; do
  cpu_rss "$WORK/longrecord" hash "$WORK/longrecord.d" >>"$WORK/record.hash"
  cpu_rss "$WORK/longrecord" read "$WORK/longrecord.d" >>"$WORK/record.read"
done
record_cpu() { awk '{print $1}' "$WORK/record.$1" | median; }
ratio record.cpu_to_sha256 "$(awk -v a="$(record_cpu read)" -v b="$(record_cpu hash)" 'BEGIN {print a / b}')" "goal: at most 16"
raw record.cpu_s "$(record_cpu read)" "CPU s for $RECORD_ENTRIES entries, goal: under 5"
raw record.entries_per_s "$(awk -v n="$RECORD_ENTRIES" -v s="$(record_cpu read)" 'BEGIN {print n / s}')" "entries per CPU s"
raw record.rss_mib "$(awk '{print $2 / 1024}' "$WORK/record.read" | median)" "MiB, goal: under 200"
