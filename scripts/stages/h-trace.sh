say "From the image that the gateway runs, one walks back, offline, to the people in the room."
slot=$(gateway 1 status --json | jq -r .active_slot)
image=devices/1/gateway/boot/$slot.img
jq -r --arg s "$slot" '.[$s].bundle' devices/1/gateway/boot/state.json | base64 -d >log/installed.sigstore.json
LINES_SHOWN=40 run keyrite trace "$image" --bundle log/installed.sigstore.json --anchor anchors.json --record record --html trace.html
LINES_SHOWN=40 run keyrite trace devices/1/birthcert.pem --anchor anchors.json --charter charter.jsonl --record record
try "the way back ends at the people" "trace the installed image" 0 keyrite trace "$image" --bundle log/installed.sigstore.json --anchor anchors.json --record record
try "another vault's anchors lead nowhere" "trace with the third genesis' anchors" 14 keyrite trace "$image" --bundle log/installed.sigstore.json --anchor record-third/outputs/anchors.json
