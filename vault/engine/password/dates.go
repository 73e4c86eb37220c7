package password

import (
	"fmt"
	"time"

	"keyrite/vault/duty"
	"keyrite/vault/seal"
)

// Dates implements engine.Dated: when the first password of each policy is to be
// rotated, and how many of it are due. It names none: who may see what is due need not
// know which passwords there are.
func (e *Engine) Dates(v *seal.View, now time.Time) ([]duty.Thing, error) {
	type tally struct {
		first time.Time
		due   int
	}
	by := map[string]*tally{}
	for _, path := range v.Keys(e.records, "") {
		rec, err := e.load(v, path)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			continue
		}
		at := e.due(rec)
		if at.IsZero() {
			continue
		}
		t := by[rec.Policy]
		if t == nil {
			t = &tally{first: at}
			by[rec.Policy] = t
		}
		if at.Before(t.first) {
			t.first = at
		}
		if !now.Before(at) {
			t.due++
		}
	}
	var out []duty.Thing
	for policy, t := range by {
		about := fmt.Sprintf("passwords of policy %s at the mount %s", policy, e.host.Mount)
		if t.due > 0 {
			about = fmt.Sprintf("%s: %d to be rotated", about, t.due)
		}
		out = append(out, duty.Thing{Kind: duty.Password, Name: e.host.Mount + "/" + policy, About: about, Ends: t.first})
	}
	return out, nil
}
