# Sourced by scripts/bench: P-256 signatures through hsm.Pool against the bare
# binding on the same SoftHSM token, both sides in turn in one run. Figures per CPU
# second count all processes and hold on a busy machine; those per second need a
# quiet one. Goals: at least 0.90 of the binding inside the module process, through
# its socket 0.85 at 32 requests in flight, 0.75 at 8, 0.40 at 1; 8 workers at least
# 1.3 times one session behind a mutex; no search of the token; recovery under 2 s.
for hsm_module in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so; do
  if [ -e "$hsm_module" ]; then break; fi
done
CGO_ENABLED=1 go build -o "$WORK/keyrite-hsmd" ./cmd/keyrite-hsmd
CGO_ENABLED=1 go build -o "$WORK/hsmpeer" ./bench/hsmpeer
CGO_ENABLED=0 go build -o "$WORK/hsmload" ./bench/hsmload
# The module that tests count calls with; its configuration is that of the token.
hsm_control=$WORK/hsm.control
head -c 288 /dev/zero >"$hsm_control"
gcc -O1 -shared -fPIC -o "$WORK/libcounting.so" -DREAL="\"$hsm_module\"" -DCONTROL="\"$hsm_control\"" \
  -DCONF='getenv("SOFTHSM2_CONF")' hsm/hsmtest/testdata/fault.c -ldl
chmod 755 "$WORK/libcounting.so" # a module that a group may write is refused
"$WORK/hsmload" -hsmd "$WORK/keyrite-hsmd" -peer "$WORK/hsmpeer" -module "$hsm_module" \
  -counting "$WORK/libcounting.so" -control "$hsm_control" -rounds "${KEYRITE_BENCH_ROUNDS:-15}" >"$WORK/hsm.out"
while IFS=$'\t' read -r hsm_kind hsm_name hsm_value hsm_note; do
  "$hsm_kind" "$hsm_name" "$hsm_value" "$hsm_note"
done <"$WORK/hsm.out"
