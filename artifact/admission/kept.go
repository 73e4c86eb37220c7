package admission

import (
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// KeptFormat names the reports that a ceremony hands on in its record.
const KeptFormat = "keyrite/admissions/v1"

// MaxKeptBytes bounds them.
const MaxKeptBytes = 16 << 20

// Kept are the reports that held when a ceremony closed, one for each token, so
// that its record alone is enough to continue from.
type Kept struct {
	Format  string      `json:"format"`
	Reports []Report    `json:"reports"`
	World   world.World `json:"world"`
}

// ParseKept reads them and checks their own sense. Each is checked again where it
// is to admit something.
func ParseKept(data []byte, w world.World) (*Kept, error) {
	var k Kept
	if err := jcs.Unmarshal(data, &k); err != nil {
		return nil, err
	}
	if k.Format != KeptFormat {
		return nil, fault.Errorf(fault.Verify, "admissions have format %.60q", k.Format)
	}
	if err := world.Match(w, k.World); err != nil {
		return nil, err
	}
	seen := map[[2]string]bool{}
	for i := range k.Reports {
		r := &k.Reports[i]
		made, err := charter.ParseTime(r.Made)
		if err != nil {
			return nil, err
		}
		if err := r.CheckTime(w, made); err != nil {
			return nil, err
		}
		id := [2]string{r.Token.Label, r.Token.Serial}
		if seen[id] {
			return nil, fault.Errorf(fault.Verify, "admissions name token %.40q twice", r.Token.Label)
		}
		seen[id] = true
	}
	return &k, nil
}
