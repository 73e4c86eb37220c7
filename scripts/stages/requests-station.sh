# Sourced by requests.sh: the factory's station makes its token and its requests.
run keyrite-station setup --state-dir station --module "$MODULE" --factory factory1 --station station1
cp station/factory-ca.csr station/report.csr requests/
