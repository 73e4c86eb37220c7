# scripts/demo ceremony: the reader is conductor and master1.
say "You are the conductor and master1. Your passphrases:"
echo "    conductor  $(cat people/conductor.passphrase)"
echo "    master1    $(cat people/master1.passphrase)"
say "Read aloud what the screen says, answer yes, or type incident at any question and see what happens. Ctrl-C asks for VOID."
. "$ROOT/scripts/stages/requests.sh"
awk '/^bind\(\)/,/^}/; /^answers\(\)/,/^}/' "$ROOT/scripts/stages/c-genesis.sh" >log/functions.sh
. log/functions.sh
bind shares >bind.yaml
answers | grep -v -e '^  conductor:' -e '^  master1:' | sed "s/^yes:.*/yes: [$(echo $PEOPLE | sed 's/conductor //; s/ /, /g')]/" >answers.yaml
keyrite ceremony new genesis --module "$MODULE" --enforce=false --title "Your genesis" --root-token your-root --work-token your-work --out genesis.yaml
rc=0
keyrite ceremony rehearse genesis.yaml --bind bind.yaml --answers answers.yaml --record record || rc=$?
echo "exit $rc; the report is $DEMO/record/report.html"
