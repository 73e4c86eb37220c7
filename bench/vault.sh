# Sourced by scripts/bench: keyrite-vault's node and API over mutual TLS on loopback with
# a SoftHSM token and the durable audit, against the floor of bench/hsmpeer (HTTPS with a
# client certificate, PKCS#11, verify, one audit line, group sync, nothing else) in the
# same run. The client is a process of its own. Goals of the ratios: 0.60 at 8
# connections, 0.70 at 32; on a quiet machine 2,500 signatures/s with p99 under 10 ms at
# 8, 10,000 reads/s and 2,000 writes/s of KV at 32.
CGO_ENABLED=1 go build -o "$WORK/hsmpeer" ./bench/hsmpeer
go test -c -o "$WORK/vaultbench" ./vault/api
(cd vault/api && KEYRITE_BENCH_OUT=$WORK/vault.out KEYRITE_BENCH_PEER=$WORK/hsmpeer "$WORK/vaultbench" -test.run '^TestBenchVault$' ${KEYRITE_BENCH_PROFILE:+-test.cpuprofile "$KEYRITE_BENCH_PROFILE"} >"$WORK/vault.log" 2>&1) || { cat "$WORK/vault.log" >&2; exit 1; }
while IFS=$'\t' read -r vault_kind vault_name vault_value vault_note; do
  "$vault_kind" "$vault_name" "$vault_value" "$vault_note"
done <"$WORK/vault.out"
