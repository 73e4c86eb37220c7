package ceremony

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"keyrite/artifact/record"
)

// NewInForce lists the safes that open for an epoch which was dealt in this attempt.
func (s *Status) NewInForce() []string {
	var out []string
	for safe, name := range s.InForce {
		if d, dealt := s.Dealt[safe]; dealt && name == epochOf(safe, d.Epoch.Epoch) {
			out = append(out, safe)
		}
	}
	slices.Sort(out)
	return out
}

// LeftSomething says whether the attempt left something that the charter may not
// know: an epoch, a key, or what it was to adopt itself.
func (s *Status) LeftSomething() bool {
	return len(s.KeptKeys()) > 0 || len(s.NewInForce()) > 0 || s.adopts() != nil
}

// FellByPeople says whether a person called an incident in the attempt, or in one that
// it was told of. Nothing is verified.
func (s *Status) FellByPeople() bool {
	return len(s.Called) > 0 || s.Base != nil && len(s.Base.Fell) > 0
}

func (s *Status) adopts() *record.Adopts {
	if s.Base == nil {
		return nil
	}
	return s.Base.Adopts
}

// KeptKey is a key that a transfer left in the safe to which it went.
type KeptKey struct {
	ID   string
	From string // the safe that it left
	Safe string // where it is
}

// KeptKeys are those of all safes, by id.
func (s *Status) KeptKeys() []KeptKey {
	var out []KeptKey
	for safe, list := range s.Kept {
		for _, k := range list {
			id, _, _ := strings.Cut(k, " ")
			out = append(out, KeptKey{id, s.From[id], safe})
		}
	}
	slices.SortFunc(out, func(a, b KeptKey) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// TellLeft says in plain words what a void attempt left that the charter does not
// know, and what to do about it. dir is the record folder as a person would write it.
// Nothing is said if nothing was left.
func (s *Status) TellLeft(dir string) []string {
	if s.State != "VOID" || !s.Ended || !s.LeftSomething() {
		return nil
	}
	var out []string
	fresh := s.NewInForce()
	for _, safe := range fresh {
		out = append(out, "Safe "+safe+" opens for the shares of epoch "+s.InForce[safe][len(safe)+1:]+" alone, which were dealt in this attempt: keep every one of them. The charter does not know them, so nothing uses the safe until they are taken over. The shares of the epoch before open nothing.")
	}
	for _, k := range s.KeptKeys() {
		out = append(out, "Key "+k.ID+" is in the token of safe "+k.Safe+" and is gone, or may be, from the one that the charter names.")
	}
	if a := s.adopts(); a != nil {
		for _, e := range a.Epochs {
			if _, again := slices.BinarySearch(fresh, e.Safe); !again {
				out = append(out, "Safe "+e.Safe+" opens, as before this attempt, for the shares of epoch "+epochOf(e.Safe, e.Epoch)[len(e.Safe)+1:]+", which an earlier void attempt dealt: keep them.")
			}
		}
		for _, k := range a.Keys {
			out = append(out, "Key "+k.ID+" is in the token of safe "+k.Safe+", where an earlier void transfer left it.")
		}
	}
	return append(out, "Take it over with a reshare, before anything else is done with these safes: keyrite ceremony new reshare --after "+dir+", then rehearse and run that script with --after "+dir+".")
}

// LeftKeys are the keys that the next ceremony has to look for: those of this attempt,
// whose record is in dir, and of those whose records lie in it.
func (s *Status) LeftKeys(dir string) ([]KeptKey, error) {
	out := s.KeptKeys()
	if s.adopts() == nil {
		return out, nil
	}
	dir = filepath.Join(dir, filepath.FromSlash(record.AfterDir))
	before, err := ReadState(dir)
	if err != nil {
		return nil, err
	}
	earlier, err := before.LeftKeys(dir)
	if err != nil {
		return nil, err
	}
	for _, k := range earlier {
		wanted := slices.ContainsFunc(s.adopts().Keys, func(x record.AdoptedKey) bool { return x.ID == k.ID })
		if wanted && !slices.ContainsFunc(out, func(x KeptKey) bool { return x.ID == k.ID }) {
			out = append(out, k)
		}
	}
	return out, nil
}

// LeftSafes are the safes of which the next ceremony has to take over an epoch,
// sorted.
func (s *Status) LeftSafes() []string {
	names := map[string]bool{}
	for _, safe := range s.NewInForce() {
		names[safe] = true
	}
	if a := s.adopts(); a != nil {
		for _, e := range a.Epochs {
			names[e.Safe] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
