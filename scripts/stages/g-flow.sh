say "An engineer far away reaches one machine behind the gateway, and only that one. The relay in the middle can refuse, but neither read nor redirect: the engineer's key and the gateway's shake hands with each other."
if [ "$(id -u)" -ne 0 ]; then
  echo "scripts/demo: this stage makes a network namespace for the machine, which needs root" >&2
  exit 2
fi
LAN=192.168.177
lan_ns=keyrite-lan-$$
flow_end() { ip netns del "$lan_ns" 2>/dev/null || true; }

# The machine's side: a namespace with an HMI (.2) and a PLC (.3), both of which
# answer HTTP, behind a cable to the gateway (.1).
ip netns add "$lan_ns"
ip link add kr-lan0 type veth peer name kr-lan1 netns "$lan_ns"
ip addr add $LAN.1/24 dev kr-lan0
ip link set kr-lan0 up
ip -n "$lan_ns" addr add $LAN.2/24 dev kr-lan1
ip -n "$lan_ns" addr add $LAN.3/24 dev kr-lan1
ip -n "$lan_ns" link set lo up
ip -n "$lan_ns" link set kr-lan1 up
ip netns exec "$lan_ns" perl -MIO::Socket::INET -e '
  $s = IO::Socket::INET->new(LocalPort => 80, Listen => 16, ReuseAddr => 1) or die $!;
  while ($c = $s->accept) {
    while (<$c>) { last if /^\r?\n$/ }
    $m = $c->sockhost =~ /3$/ ? "PLC: stopped" : "HMI of press 7: 214 parts today";
    print $c "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " . length($m) . "\r\n\r\n$m";
    close $c;
  }' 2>>log/lan.err 3>&- &
later $!
for _ in $(seq 100); do if curl -fso /dev/null http://$LAN.2/; then break; fi; sleep 0.05; done

say "The account writes who may reach what, and signs it with its own key, which the relay never has."
openssl rand -hex 12 >account/ann.password
run keyrite-relay admin user add acme ann --state-dir relay --password-fd 3 3<account/ann.password
ann=$(keyrite-connect key --state-dir engineer)
spki=$(openssl x509 -in devices/1/birthcert.pem -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1)
# policy VERSION NAME ARG…: writes and signs a version.
policy() {
  local version=$1 name=$2
  shift 2
  keyrite-connect policy new --account acme --anchor anchors.json --version "$version" --out "account/$name.json" \
    --user "ann=$ann" --gateway "press-7=$spki" --device "hmi=press-7,$LAN.2,80" --device "plc=press-7,$LAN.3,80" "$@"
  keyrite-connect policy sign "account/$name.json" --key account/acme.key --out "account/$name.dsse" --passphrase-fd 3 3<account/acme.passphrase
}
run policy 2 policy --allow ann:hmi
run policy 1 policy-old --allow ann:hmi --allow ann:plc
set_policy() { keyrite-relay admin set-policy acme "$1" --state-dir relay; }
run set_policy account/policy.dsse
try "nobody goes back to an older policy" "an older version that permits more" 13 set_policy account/policy-old.dsse
altered=$(jq -r .payload account/policy.dsse | base64 -d | sed 's/"version":2/"version":9/' | base64 -w0)
jq -cj --arg p "$altered" '.payload = $p' account/policy.dsse >account/altered.dsse
try "nobody but the account permits anything" "another version number in the signed policy" 14 set_policy account/altered.dsse
rm account/altered.dsse
gateway_start 1 $LAN.0/24

login() { keyrite-connect login --state-dir engineer --access "$ACCESS" --account acme --user ann --policy-key account/acme.pub --password-fd 3 "$@"; }
openssl rand -hex 12 >account/wrong.password
try "a password alone is little, a wrong one nothing" "log in with a wrong password" 12 login --anchor anchors.json 3<account/wrong.password
try "a password goes to our relay only" "log in with another relay's anchors" 20 login --anchor record-third/outputs/anchors.json 3<account/ann.password
rm account/wrong.password
run login --anchor anchors.json 3<account/ann.password
run keyrite-connect list --state-dir engineer
: >log/connect.out
keyrite-connect connect press-7 --device hmi --local 127.0.0.1:0 --state-dir engineer >log/connect.out 2>>log/connect.err 3>&- &
connect_pid=$!
later $connect_pid
for _ in $(seq 200); do if grep -q ^ready log/connect.out; then break; fi; kill -0 $connect_pid 2>/dev/null || break; sleep 0.05; done
local_port=$(sed -n 's/^ready local .*://p' log/connect.out)
[ -n "$local_port" ] || { cat log/connect.err >&2; exit 1; }
try "an engineer reaches his machine" "a page of the HMI through the relay" 0 curl -fsS "http://127.0.0.1:$local_port/"
grep -q '214 parts' log/last.out
run keyrite-connect status --state-dir engineer

say "Everything that the policy does not name is denied, twice: by the relay and again by the gateway."
try "only what the policy names" "the PLC beside it" 13 keyrite-connect check press-7 --device plc --state-dir engineer
try "only what the policy names" "another port of the HMI" 13 keyrite-connect check press-7 --address $LAN.2:22 --state-dir engineer
try "only what the policy names" "another gateway" 13 keyrite-connect check press-9 --device hmi --state-dir engineer

say "A new policy without him is in force within a second, also for what is open; after disconnecting nothing is left."
run policy 3 policy-none
run set_policy account/policy-none.dsse
try "a right that is taken away is gone" "the HMI, after the policy changed" 13 keyrite-connect check press-7 --device hmi --state-dir engineer
run keyrite-connect disconnect --state-dir engineer
wait $connect_pid
try "after disconnecting nothing is reachable" "the same local port" 7 curl -fsS "http://127.0.0.1:$local_port/"
run keyrite-connect logout --state-dir engineer
gateway_stop
run keyrite-relay admin audit verify --state-dir relay
keyrite-relay admin audit export --state-dir relay --account acme | tail -n 3 | cut -c1-160 | sed 's/^/    /'
flow_end
