say "All trust begins with people. Ten take part; each makes a key that only he can open, and one person has one role."
MASTERS="master1 master2 master3 master4 master5"
PEOPLE="conductor $MASTERS witness1 witness2 approver1 approver2"
mkdir -p people hsm/tokens keys
cat >hsm/softhsm2.conf <<CONF
directories.tokendir = $DEMO/hsm/tokens
objectstore.backend = file
log.level = ERROR
CONF
for n in $PEOPLE; do
  # Throw-away people of a rehearsal: only they have a passphrase beside the key.
  (umask 077; od -An -N12 -tx1 /dev/urandom | tr -d ' \n' >"people/$n.passphrase"; echo >>"people/$n.passphrase")
  LINES_SHOWN=1 run keyrite person new "$n" --out people --rehearsal "$WORLD" --passphrase-fd 3 3<"people/$n.passphrase"
done
try "names are names" "a person called ../../etc" 2 keyrite person new ../../etc --out people --rehearsal "$WORLD" --passphrase-fd 3 3<people/conductor.passphrase
try "nothing is overwritten" "make conductor again" 16 keyrite person new conductor --out people --rehearsal "$WORLD" --passphrase-fd 3 3<people/conductor.passphrase
