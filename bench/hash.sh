# Sourced by scripts/bench: verifying 1 GiB against what openssl needs to hash it.
# Goals: CPU time at most 1.15 times, and at most 40 MB of memory. CPU seconds and
# not wall seconds, since other work on the machine does not change them; the runs
# are interleaved.
HASH_MIB=${KEYRITE_BENCH_MIB:-1024}
CGO_ENABLED=0 go build -o "$WORK/keyrite-verify" ./cmd/keyrite-verify
go build -o "$WORK/mkrelease" ./bench/mkrelease
{ openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00000000000000000000000000000000 -in /dev/zero 2>/dev/null || true; } |
  head -c $((HASH_MIB * 1048576)) >"$WORK/image.bin"
mkdir "$WORK/release"
"$WORK/mkrelease" "$WORK/image.bin" "$WORK/release"
for run in 1 2 3 4 5; do
  cpu_rss openssl dgst -sha256 "$WORK/image.bin" >>"$WORK/hash.openssl"
  cpu_rss "$WORK/keyrite-verify" firmware "$WORK/image.bin" --bundle "$WORK/release/bundle.json" --anchor "$WORK/release/anchors.json" >>"$WORK/hash.image"
  cpu_rss "$WORK/keyrite-verify" firmware "$WORK/release/image.krf" --anchor "$WORK/release/anchors.json" >>"$WORK/hash.krf"
done
hash_cpu() { awk '{print $1}' "$WORK/hash.$1" | median; }
hash_rss() { awk '{print $2 / 1000}' "$WORK/hash.$1" | median; }
for what in image krf; do
  ratio "hash.$what.cpu_to_openssl" "$(awk -v a="$(hash_cpu $what)" -v b="$(hash_cpu openssl)" 'BEGIN {print a / b}')" "goal: at most 1.15"
  raw "hash.$what.rss_mb" "$(hash_rss $what)" "MB, goal: at most 40"
  raw "hash.$what.cpu_s" "$(hash_cpu $what)" "CPU s for $HASH_MIB MiB"
done
raw hash.openssl.cpu_s "$(hash_cpu openssl)" "CPU s for $HASH_MIB MiB"
