# What a start of the vault takes: a store with 1,000,000 entries of its trail is opened
# in a new process, its check included, and a charter of 10,000 statements is folded.
# Then the whole trail is searched in pages.
# Sourced by scripts/bench.
go build -o "$WORK/storestart" ./bench/storestart
mkdir "$WORK/store"
entries=${KEYRITE_BENCH_ENTRIES:-1000000}
from=$(date +%s.%N)
"$WORK/storestart" make "$WORK/store" "$entries"
to=$(date +%s.%N)
raw store_entries_per_second "$(awk "BEGIN {print $entries / ($to - $from)}")" '/s written, 256 callers, durable'
for _ in 1 2 3; do
  from=$(date +%s.%N)
  "$WORK/storestart" open "$WORK/store" >"$WORK/store.kib"
  to=$(date +%s.%N)
  awk "BEGIN {print $to - $from}"
done >"$WORK/store.times"
raw store_start_seconds "$(median <"$WORK/store.times")" "s, $entries entries"
fold=$(go test -run '^$' -bench Fold10000 -benchtime 3x ./artifact/charter | awk '/^BenchmarkFold10000/ {print $3 / 1e9}')
raw charter_fold_seconds "$fold" 's, 10,000 statements'
ratio store_start_of_3s "$(awk "BEGIN {print ($(median <"$WORK/store.times") + $fold) / 3}")" 'at most 1: store and charter together'
ratio store_memory_of_300mib "$(awk '{print $1 / 1024 / 300}' "$WORK/store.kib")" 'at most 1: peak of the opening process'
"$WORK/storestart" search "$WORK/store" >"$WORK/store.search"
raw trail_search_page_seconds "$(awk '{print $1}' "$WORK/store.search")" "s, 20,000 entries looked through: the longest page of $entries"
ratio trail_search_memory_of_300mib "$(awk '{print $2 / 1024 / 300}' "$WORK/store.search")" 'at most 1: own memory after the search, without pages of the mapped file'
