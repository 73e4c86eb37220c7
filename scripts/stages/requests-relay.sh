# Sourced by requests.sh: the relay makes its server keys and their requests.
run keyrite-relay admin init-keys --state-dir relay --out requests
mv requests/access.csr requests/relay-access.csr
mv requests/vpn.csr requests/relay-vpn.csr
