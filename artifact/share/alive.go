package share

import (
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
)

// Alive says how many shares of a safe's epoch in force are proven.
type Alive struct {
	Safe   string    `json:"safe"`
	Epoch  int       `json:"epoch"`
	Need   int       `json:"need"`
	Of     int       `json:"of"`
	Proven []string  `json:"proven"`        // holders, sorted
	Last   time.Time `json:"last,omitzero"` // of the latest proof; zero if there is none
}

// Low says that the safe is one lost share away from its threshold, or nearer.
func (a *Alive) Low() bool { return len(a.Proven) <= a.Need+1 }

// Lost says that fewer are proven than open the safe.
func (a *Alive) Lost() bool { return len(a.Proven) < a.Need }

// Level says in one word how a safe stands.
type Level string

// The levels of a safe.
const (
	Good    Level = "good"
	Warning Level = "warning" // one lost share away from the threshold
	Red     Level = "red"     // at the threshold, or below it
)

// Level is how the safe stands.
func (a *Alive) Level() Level {
	switch {
	case len(a.Proven) <= a.Need:
		return Red
	case a.Low():
		return Warning
	}
	return Good
}

// CountAlive counts, for each safe, the holders whose share was proven at or after
// since, going by when each was proven last. What was proven of an epoch that is not in
// force does not count.
func CountAlive(s *charter.State, last map[Place]time.Time, since time.Time) []Alive {
	var out []Alive
	for name, e := range s.Epochs {
		a := Alive{Safe: name, Epoch: e.Epoch, Need: e.Need, Of: len(e.Shares), Proven: []string{}}
		for _, sh := range e.Shares {
			p, _, err := PlaceOf(s, name, sh.Holder)
			if err != nil {
				continue
			}
			at := last[p]
			if at.IsZero() || at.Before(since) {
				continue
			}
			a.Proven = append(a.Proven, sh.Holder)
			if at.After(a.Last) {
				a.Last = at
			}
		}
		slices.Sort(a.Proven)
		out = append(out, a)
	}
	slices.SortFunc(out, func(x, y Alive) int { return strings.Compare(x.Safe, y.Safe) })
	return out
}
