# What others bring to the genesis: the factory's and the relay's requests, made
# where their keys are, and the pipeline's public key.
mkdir -p requests
if [ -x bin/keyrite-station ]; then
  . "$ROOT/scripts/stages/requests-station.sh"
else
  request_by_openssl factory-ca report
fi
if [ -x bin/keyrite-relay ]; then
  . "$ROOT/scripts/stages/requests-relay.sh"
else
  request_by_openssl relay-access relay-vpn
fi
LINES_SHOWN=2 run keyrite release pipeline-key --out keys/pipeline1.key
