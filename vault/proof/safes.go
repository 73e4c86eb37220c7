package proof

import (
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/share"
)

// Safe is how the shares of one safe stand, by the epoch in force.
type Safe struct {
	Safe    string      `json:"safe"`
	Epoch   int         `json:"epoch"`
	Need    int         `json:"need"`
	Of      int         `json:"of"`
	Alive   int         `json:"alive"` // proven within AliveFor
	Level   share.Level `json:"level"`
	Last    string      `json:"last,omitempty"` // RFC 3339, of the newest proof that counts
	Holders []Holder    `json:"holders"`        // in the order of their shares
}

// Holder is one of them.
type Holder struct {
	Name  string `json:"name"`
	Index int    `json:"index"` // of the share
	Alive bool   `json:"alive"`
	Last  string `json:"last,omitempty"` // RFC 3339; there is none if it was never proven
	How   string `json:"how,omitempty"`  // ByChallenge, ByOpening or ByDealing
}

// Safes tells of all safes of the charter, by name.
func Safes(r reader, st *charter.State, now time.Time) ([]Safe, error) {
	times := map[share.Place]time.Time{}
	holders := map[string][]Holder{}
	for name, e := range st.Epochs {
		for _, sh := range e.Shares {
			p, _, err := share.PlaceIn(st, &e, sh.Holder)
			if err != nil {
				return nil, err
			}
			at, how, err := last(r, p)
			if err != nil {
				return nil, err
			}
			if dealt := st.DealtAt(name); dealt.After(at) {
				at, how = dealt, ByDealing
			}
			h := Holder{Name: sh.Holder, Index: sh.Index, How: how}
			if !at.IsZero() {
				times[p], h.Last = at, charter.FormatTime(at)
			}
			holders[name] = append(holders[name], h)
		}
	}
	var out []Safe
	for _, a := range share.CountAlive(st, times, now.Add(-AliveFor)) {
		s := Safe{Safe: a.Safe, Epoch: a.Epoch, Need: a.Need, Of: a.Of, Alive: len(a.Proven), Level: a.Level(), Holders: holders[a.Safe]}
		if !a.Last.IsZero() {
			s.Last = charter.FormatTime(a.Last)
		}
		for i := range s.Holders {
			_, s.Holders[i].Alive = slices.BinarySearch(a.Proven, s.Holders[i].Name)
		}
		out = append(out, s)
	}
	return out, nil
}

// Open is a challenge that waits for answers.
type Open struct {
	ID        string   `json:"id"`
	Safe      string   `json:"safe"`
	Purpose   string   `json:"purpose"`
	Expires   string   `json:"expires"`
	Answered  []string `json:"answered"`
	Challenge string   `json:"challenge"` // the text of the file that holders answer
}

// Challenges are those that may be answered now, the one that expires first before the
// others.
func Challenges(r reader, st *charter.State, now time.Time) ([]Open, error) {
	out := []Open{}
	for _, id := range r.Keys(bucketChallenges, "") {
		w, err := load(r, id)
		if err != nil {
			return nil, err
		}
		if w.Challenge.Check(st, now) != nil {
			continue
		}
		file, err := w.Challenge.Marshal()
		if err != nil {
			return nil, err
		}
		out = append(out, Open{ID: id, Safe: w.Challenge.Safe, Purpose: w.Challenge.Purpose, Expires: w.Challenge.Expires, Answered: w.Answered, Challenge: string(file)})
	}
	slices.SortFunc(out, func(a, b Open) int { return strings.Compare(a.Expires+a.ID, b.Expires+b.ID) })
	return out, nil
}
