package charter

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// People are those who rule a vault: who they are, who opens which safe, who
// decides. It is part of the genesis and the whole body of a people statement.
type People struct {
	Roster []Member `json:"roster"`
	Safes  []Safe   `json:"safes"`
	Sets   Sets     `json:"sets"`
}

// RosterHash is the hex SHA-256 of the canonical roster.
func (p *People) RosterHash() (string, error) {
	b, err := jcs.Marshal(p.Roster)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// Person returns the member of that name.
func (p *People) Person(name string) (*Member, bool) {
	for i := range p.Roster {
		if p.Roster[i].Person.Name == name {
			return &p.Roster[i], true
		}
	}
	return nil, false
}

// Safe returns the safe of that name.
func (p *People) Safe(name string) (*Safe, bool) {
	for i := range p.Safes {
		if p.Safes[i].Name == name {
			return &p.Safes[i], true
		}
	}
	return nil, false
}

// Check validates people of world w: unique names and keys, thresholds of at
// least 2, one conductor, at least one witness, nobody in two roles.
func (p *People) Check(w world.World) error {
	if len(p.Safes) == 0 {
		return fault.Errorf(fault.Verify, "%w: there is no safe", ErrStatement)
	}
	if err := w.Check(); err != nil {
		return err
	}
	roles, err := p.checkRoster(w)
	if err != nil {
		return err
	}
	if roles[RoleConductor] != 1 || roles[RoleWitness] < 1 {
		return fault.Errorf(fault.Verify, "%w: a vault has one conductor and at least one witness", ErrStatement)
	}
	for _, s := range []Set{p.Sets.Approvers, p.Sets.Releases} {
		if err := p.checkSet(s, RoleApprover); err != nil {
			return err
		}
	}
	names := map[string]bool{}
	for _, s := range p.Safes {
		if !idRE.MatchString(s.Name) || names[s.Name] {
			return fault.Errorf(fault.Verify, "%w: safe %.40q", ErrStatement, s.Name)
		}
		names[s.Name] = true
		if err := p.checkSet(s.Openers, RoleKeyMaster); err != nil {
			return err
		}
	}
	return nil
}

func (p *People) checkRoster(w world.World) (map[string]int, error) {
	roles, seen := map[string]int{}, map[string]bool{}
	for i := range p.Roster {
		m := &p.Roster[i]
		if err := m.Person.Check(); err != nil {
			return nil, err
		}
		if err := world.Match(w, m.Person.World); err != nil {
			return nil, err
		}
		if !slices.Contains([]string{RoleConductor, RoleOperator, RoleKeyMaster, RoleWitness, RoleApprover}, m.Role) {
			return nil, fault.Errorf(fault.Verify, "%w: role %.40q", ErrStatement, m.Role)
		}
		for _, k := range []string{"n" + m.Person.Name, "k" + m.Person.KeyID(), "r" + m.Person.Recipient} {
			if seen[k] {
				return nil, fault.Errorf(fault.Verify, "%w: %s has a name or key twice in the roster", ErrStatement, m.Person.Name)
			}
			seen[k] = true
		}
		roles[m.Role]++
	}
	return roles, nil
}

// checkSet wants distinct, sorted members of one role and a threshold between 2
// and their number. Roles being exclusive, sets of different roles are disjoint.
func (p *People) checkSet(s Set, role string) error {
	if s.Need < 2 || s.Need > len(s.Members) || !slices.IsSorted(s.Members) || len(slices.Compact(slices.Clone(s.Members))) != len(s.Members) {
		return fault.Errorf(fault.Verify, "%w: a set needs 2 or more of its distinct, sorted members", ErrStatement)
	}
	for _, n := range s.Members {
		if m, ok := p.Person(n); !ok || m.Role != role {
			return fault.Errorf(fault.Verify, "%w: %.40q is no %s", ErrStatement, n, role)
		}
	}
	return nil
}

// Added lists who of after must sign to enter: everybody whose name, key,
// recipient or role p does not have.
func (p *People) Added(after *People) []Member {
	var out []Member
	for _, m := range after.Roster {
		old, ok := p.Person(m.Person.Name)
		if !ok || old.Role != m.Role || !old.Person.Equal(&m.Person) {
			out = append(out, m)
		}
	}
	return out
}

// Keys are the keys of a set's members, for envelope.Verify.
func (p *People) Keys(set Set) []envelope.Key {
	var keys []envelope.Key
	for _, n := range set.Members {
		if m, ok := p.Person(n); ok {
			keys = append(keys, envelope.Key{Name: n, Public: m.Person.PublicKey()})
		}
	}
	return keys
}

// changePeople takes a people statement: signed by the approvers' threshold of
// before and of after, and by everybody who enters, and by nobody else.
func (s *State) changePeople(after *People, env *envelope.Envelope) error {
	if err := s.checkPeople(after); err != nil {
		return err
	}
	old, next := s.People.Keys(s.People.Sets.Approvers), after.Keys(after.Sets.Approvers)
	all := append(append([]envelope.Key{}, old...), next...)
	added := s.People.Added(after)
	for _, m := range added {
		all = append(all, envelope.Key{Name: m.Person.Name, Public: m.Person.PublicKey()})
	}
	if _, _, err := envelope.Verify(env, PayloadType, all, 1); err != nil {
		return err
	}
	signed := map[string]bool{}
	for _, x := range env.Signatures {
		signed[x.KeyID] = true
	}
	for _, m := range added {
		if n, err := count(signed, []envelope.Key{{Public: m.Person.PublicKey()}}); err != nil || n != 1 {
			return fault.Errorf(fault.Quorum, "%w: %s enters without having signed", envelope.ErrQuorum, m.Person.Name)
		}
	}
	for _, x := range []struct {
		who  string
		keys []envelope.Key
		need int
	}{{"in force", old, s.People.Sets.Approvers.Need}, {"to come", next, after.Sets.Approvers.Need}} {
		n, err := count(signed, x.keys)
		if err != nil {
			return err
		}
		if n < x.need {
			return fault.Errorf(fault.Quorum, "%w: %d of the approvers %s, %d needed", envelope.ErrQuorum, n, x.who, x.need)
		}
	}
	for _, m := range s.People.Roster {
		s.former[m.Person.KeyID()] = m.Person.Name
	}
	s.People = *after
	return nil
}

// checkPeople checks what a people statement says against what was before.
func (s *State) checkPeople(after *People) error {
	if err := after.Check(s.World); err != nil {
		return err
	}
	for _, m := range after.Roster {
		if name, ok := s.former[m.Person.KeyID()]; ok && name != m.Person.Name {
			return fault.Errorf(fault.Verify, "%w: %s has the key that was %s's", ErrStatement, m.Person.Name, name)
		}
	}
	for _, x := range s.People.Safes {
		if _, ok := after.Safe(x.Name); !ok {
			return fault.Errorf(fault.Verify, "%w: safe %s is left out; a safe ends by a statement of its own", ErrStatement, x.Name)
		}
	}
	for _, x := range after.Safes {
		if slices.Contains(s.gone, x.Name) {
			return fault.Errorf(fault.Verify, "%w: safe %s was retired", ErrStatement, x.Name)
		}
	}
	return nil
}

// count says how many of keys are among the key ids that signed.
func count(signed map[string]bool, keys []envelope.Key) (int, error) {
	n := 0
	for _, k := range keys {
		id, err := envelope.KeyID(k.Public)
		if err != nil {
			return 0, err
		}
		if signed[id] {
			n++
		}
	}
	return n, nil
}

// Names maps the key id of everybody who is or was in the roster to the name.
func (s *State) Names() map[string]string {
	out := maps.Clone(s.former)
	for _, m := range s.People.Roster {
		out[m.Person.KeyID()] = m.Person.Name
	}
	return out
}

// Stale says that the shares in force of a safe are not those of its openers: its
// people changed, or its epoch was adopted, and it was not dealt anew.
func (s *State) Stale(safe string) bool {
	x, ok := s.People.Safe(safe)
	e, dealt := s.Epochs[safe]
	return !ok || !dealt || s.adopted[safe] == e.Epoch || checkShares(&e, x) != nil
}
