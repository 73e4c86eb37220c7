package record

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"keyrite/artifact/charter"
)

// checkEnrolled compares what entered the charter with the script: factories,
// stations, pipelines and relays, all of them and no other.
func (c *checker) checkEnrolled() error {
	before := c.base
	if before == nil {
		before = &charter.State{}
	}
	n, s := 0, &c.script
	certified := func(id string, der []byte) bool {
		sum := sha256.Sum256(der)
		return id != "" && c.certs[id].SHA256 == hex.EncodeToString(sum[:])
	}
	fail := func(what, id string) error {
		return bad("%w: %s %s is not the one that the script enrols", ErrRecord, what, id)
	}
	for _, f := range s.Factories {
		got, had := c.Charter.Factories[f.ID], before.Factories[f.ID].ID != ""
		if had || got.Product != f.Product || got.SerialFrom != f.SerialFrom || got.SerialTo != f.SerialTo || got.Evidence != f.Evidence || !certified(f.CA, got.CA) {
			return fail("factory", f.ID)
		}
		n++
	}
	for _, x := range s.Stations {
		if before.Stations[x.ID].ID != "" || c.Charter.Stations[x.ID].ID == "" || c.Charter.Stations[x.ID].Factory != x.Factory {
			return fail("station", x.ID)
		}
		n++
	}
	for _, p := range s.Pipelines {
		if before.Pipelines[p.ID].ID != "" || c.Charter.Pipelines[p.ID].ID == "" || !slices.Equal(c.Charter.Pipelines[p.ID].Products, p.Products) {
			return fail("pipeline", p.ID)
		}
		n++
	}
	for _, r := range s.Relays {
		got := c.Charter.Relays[r.ID]
		if before.Relays[r.ID].ID != "" || got.Role != r.Role || !certified(r.Certificate, got.Certificate) {
			return fail("relay", r.ID)
		}
		n++
	}
	if now := count(c.Charter) - count(before); now != n {
		return bad("%w: the script enrols %d, the charter has %d more", ErrRecord, n, now)
	}
	return nil
}

func count(s *charter.State) int {
	return len(s.Factories) + len(s.Stations) + len(s.Pipelines) + len(s.Relays)
}
