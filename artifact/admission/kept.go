package admission

import (
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// KeptFormat names the reports that a ceremony hands on in its record.
const KeptFormat = "keyrite/admissions/v1"

// MaxKeptBytes bounds them; an honest report has some 20 KiB.
const MaxKeptBytes = 16 << 20

// Kept are the reports that held when a ceremony closed, one for each token, so
// that its record alone is enough to continue from. docs/formats/admissions.md
// describes each member.
type Kept struct {
	Envelopes []envelope.Envelope `json:"envelopes"` // by label and serial of the token
	Format    string              `json:"format"`
	World     world.World         `json:"world"`
}

// ParseKept reads them; each is signed by one of the people, who are those of the
// charter that the ceremony left. Whether one admits anything is for Check to say.
// Errors are those of Take and CheckTime, and of class verify for the rest.
func ParseKept(data []byte, w world.World, people *charter.People) ([]Signed, error) {
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
	var out []Signed
	for i := range k.Envelopes {
		x, err := Take(&k.Envelopes[i], people)
		if err != nil {
			return nil, err
		}
		if err := x.Report.checkOwn(w); err != nil {
			return nil, err
		}
		if i > 0 && !before(&out[i-1].Report.Token, &x.Report.Token) {
			return nil, fault.Errorf(fault.Verify, "admissions name token %.40q twice, or out of order", x.Report.Token.Label)
		}
		out = append(out, *x)
	}
	return out, nil
}

// checkOwn is what a report says of itself, on the day that it was made.
func (r *Report) checkOwn(w world.World) error {
	made, err := charter.ParseTime(r.Made)
	if err != nil {
		return err
	}
	return r.CheckTime(w, made)
}

func before(a, b *Token) bool {
	return a.Label < b.Label || a.Label == b.Label && a.Serial < b.Serial
}

// OpenAny reads one report, or those that a ceremony handed on in its record. If the
// file is neither the error is that of Open.
func OpenAny(data []byte, w world.World, people *charter.People) ([]Signed, error) {
	x, err := Open(data, people)
	if err == nil {
		return []Signed{*x}, nil
	}
	if kept, keptErr := ParseKept(data, w, people); keptErr == nil {
		return kept, nil
	}
	return nil, err
}
