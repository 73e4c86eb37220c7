say "From the image that the gateway runs, one walks back, offline, to the people in the room."
image=release/firmware.krf
[ -e "$image" ] || { echo "stage d left no $image" >&2; exit 1; }
LINES_SHOWN=40 run keyrite trace "$image" --anchor anchors.json --record record --html trace.html
if [ -e devices/1/birthcert.pem ]; then
  LINES_SHOWN=40 run keyrite trace devices/1/birthcert.pem --anchor anchors.json --charter charter.jsonl --record record
fi
try "the way back ends at the people" "trace the installed image" 0 keyrite trace "$image" --anchor anchors.json --record record
try "another vault's anchors lead nowhere" "trace with the third genesis' anchors" 14 keyrite trace "$image" --anchor record-third/outputs/anchors.json
