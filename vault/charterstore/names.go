package charterstore

import (
	"maps"
	"slices"

	"keyrite/artifact/envelope"
)

func sortedNames(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }

// missing are the members who have not signed.
func missing(members []string, by map[string]string) []string {
	var out []string
	for _, m := range members {
		if _, ok := by[m]; !ok {
			out = append(out, m)
		}
	}
	return out
}

// keys are those of the approvers in force.
func (p *Proposal) keys() []envelope.Key {
	var out []envelope.Key
	for _, n := range p.people.Sets.Approvers.Members {
		if m, ok := p.people.Person(n); ok {
			out = append(out, envelope.Key{Name: n, Public: m.Person.PublicKey()})
		}
	}
	return out
}
