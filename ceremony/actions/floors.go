package actions

import (
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/internal/intake"
	"keyrite/signer"
)

// maxLedgerBytes bounds a ledger: 10,000 releases of some 20 KiB.
const maxLedgerBytes = 256 << 20

// carriesFloors says whether a firmware key or the log's key gives way here: then
// whoever signs next may begin with an empty ledger.
func (a *Actions) carriesFloors() bool {
	for _, x := range a.script.Successions {
		k := a.state.Keys[x.ID]
		if role := k.Role(); role == firmware.KeyID || role == firmware.LogKeyID || strings.HasPrefix(role, firmware.KeyIDOf("")) {
			return true
		}
	}
	return false
}

// loadFloors reads from what the binding names which security version each product
// has reached. The charter's own floors are never lowered.
func (a *Actions) loadFloors() error {
	if !a.carriesFloors() {
		return nil
	}
	if a.bind.Released == nil {
		return fault.Hint(fault.New(fault.Usage, "the binding does not say what was released with the keys that give way"),
			"write released: [FILE, …], the signer's ledger.jsonl or, if it is lost, the newest .sigstore.json of each product; or released: [] if nothing ever was")
	}
	a.floors = map[string]int64{}
	for _, product := range record.Products(&a.vault.state) {
		a.floors[product] = 1
	}
	for product, f := range a.vault.state.Floors {
		a.floors[product] = max(a.floors[product], f.SecurityVersion)
	}
	for _, path := range a.bind.Released {
		reached, err := a.reached(a.bind.Path(path))
		if err != nil {
			return fault.Errorf(fault.ClassOf(err), "released %q: %w", path, err)
		}
		for product, v := range reached {
			a.floors[product] = max(a.floors[product], v)
		}
	}
	return nil
}

// reached reads one ledger or one signed release.
func (a *Actions) reached(path string) (map[string]int64, error) {
	if filepath.Ext(path) == ".jsonl" {
		data, err := intake.Read(path, maxLedgerBytes)
		if err != nil {
			return nil, err
		}
		return signer.Highest(data, &a.vault.state)
	}
	data, err := intake.Read(path, firmware.MaxBundleBytes)
	if err != nil {
		return nil, err
	}
	trust, err := firmware.TrustOf(a.vault.inForce)
	if err != nil {
		return nil, err
	}
	st, err := firmware.Open(data, trust)
	for _, before := range trust.Before() {
		if err == nil {
			break
		}
		st, err = firmware.Open(data, before)
	}
	if err != nil {
		return nil, err
	}
	return map[string]int64{st.Predicate.Product: st.Predicate.SecurityVersion}, nil
}

// floorStatements carry the floors over, in the order of the products.
func (a *Actions) floorStatements(r *ceremony.Run) []statement {
	var out []statement
	for _, product := range slices.Sorted(maps.Keys(a.floors)) {
		v := a.floors[product]
		r.Console.Say("", product+" is released with security version "+strconv.FormatInt(v, 10)+" or higher from now on")
		out = append(out, statement{charter.TypeFloor, charter.Floor{Product: product, Record: record.Origin(r.ID), SecurityVersion: v}})
	}
	return out
}
