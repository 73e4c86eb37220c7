package actions

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// office is a role, of key masters with their group.
type office struct{ role, group string }

func (s office) String() string {
	if s.group == "" {
		return "role " + s.role
	}
	return "role " + s.role + ", group " + s.group
}

// words is the office as the room is told it.
func (s office) words() string { return strings.TrimPrefix(s.String(), "role ") }

// offices are how many people of each role and group a script calls for. Of a group
// as many must come as its safe with the highest threshold takes.
func offices(s *script.Script) map[office]script.Quorum {
	r := s.Roles
	out := map[office]script.Quorum{
		{charter.RoleConductor, ""}: {Need: r.Conductor, Of: r.Conductor}, {charter.RoleWitness, ""}: {Need: r.Witnesses, Of: r.Witnesses},
		{charter.RoleKeyMaster, ""}: r.KeyMasters, {charter.RoleApprover, ""}: r.Approvers,
	}
	if r.Operator > 0 {
		out[office{charter.RoleOperator, ""}] = script.Quorum{Need: r.Operator, Of: r.Operator}
	}
	// Where every safe has a group, the others open nothing and stay at home.
	if len(s.Safes) > 0 && !slices.ContainsFunc(s.Safes, func(x script.Safe) bool { return x.Group == "" }) {
		delete(out, office{charter.RoleKeyMaster, ""})
	}
	for _, x := range s.Safes {
		if x.Group == "" {
			continue
		}
		at := office{charter.RoleKeyMaster, x.Group}
		out[at] = script.Quorum{Need: max(x.Need, out[at].Need), Of: x.Of}
	}
	return out
}

// checkRoles wants as many people as the script calls for, and names everything that
// differs. A genesis needs all of them; a vault that exists needs those who decide,
// and those who leave may come.
func (b *Bind) checkRoles(s *script.Script, count map[office]int) error {
	want := offices(s)
	var short, strange []string
	for _, at := range inOrder(want) {
		least, most := want[at].Of, want[at].Of
		if s.Kind != "genesis" {
			least, most = want[at].Need, want[at].Of+len(b.Leaves)
		}
		if n := count[at]; n < least || n > most {
			short = append(short, strconv.Itoa(least)+" of "+at.String()+", the binding names "+strconv.Itoa(n))
		}
	}
	for _, at := range inOrder(count) {
		if _, ok := want[at]; !ok {
			strange = append(strange, noOffice(at, want))
		}
	}
	switch {
	case len(strange) > 0 && len(short) > 0:
		return fault.Hint(fault.Errorf(fault.Quorum, "%s; and the script calls for %s", strings.Join(strange, "; "), strings.Join(short, "; for ")), rolesHint)
	case len(strange) > 0:
		return fault.Hint(fault.Errorf(fault.Usage, "%s", strings.Join(strange, "; ")), rolesHint)
	case len(short) > 0:
		return fault.Hint(fault.Errorf(fault.Quorum, "the script calls for %s", strings.Join(short, "; for ")), rolesHint)
	}
	return nil
}

const rolesHint = "'keyrite ceremony explain SCRIPT' says who must come; the binding has one line under people for each of them"

// noOffice says why nobody of the script has that office.
func noOffice(at office, want map[office]script.Quorum) string {
	for have := range want {
		if at.group != "" && have.role == at.role {
			return fmt.Sprintf("the binding names the group %.40q of role %.40q, which no safe of the script has", at.group, at.role)
		}
	}
	return fmt.Sprintf("the binding names the role %.40q, which the script does not have", at.role)
}

// inOrder are the offices of a map in an order that does not change.
func inOrder[V any](m map[office]V) []office {
	return slices.SortedFunc(maps.Keys(m), func(a, b office) int {
		return cmp.Or(strings.Compare(a.role, b.role), strings.Compare(a.group, b.group))
	})
}

// masters are the key masters here of a group, sorted.
func masters(r *ceremony.Run, group string) []string {
	var out []string
	for _, p := range r.People {
		if p.Role == charter.RoleKeyMaster && p.Group == group {
			out = append(out, p.Person.Name)
		}
	}
	return sorted(out)
}

// checkGroup wants a key master of the charter to open, there, every safe of the
// script that has the group which the binding gives him: nobody sits down with
// the wrong quorum and finds out when the shares are asked for.
func (a *Actions) checkGroup(p *ceremony.Participant) error {
	if p.Role != charter.RoleKeyMaster {
		return nil
	}
	for _, x := range a.script.Safes {
		safe, ok := a.vault.state.People.Safe(x.Name)
		if x.Group != p.Group || !ok || slices.Contains(safe.Openers.Members, p.Person.Name) {
			continue
		}
		return fault.Hint(fault.Errorf(fault.Policy, "%s is no key master of safe %s in the charter", p.Person.Name, x.Name),
			"give each key master of the binding the group of the safes that he holds shares of")
	}
	return nil
}

// openersAfter are who opens a safe of the charter once the people have changed:
// of its group those who are here, and those who stayed away and keep their share.
// A safe that the script does not open keeps its openers.
func (a *Actions) openersAfter(r *ceremony.Run, p *charter.People, was charter.Safe) (charter.Set, error) {
	x, listed := a.script.SafeByName(was.Name)
	if !a.grouped() {
		return charter.Set{Members: named(p, charter.RoleKeyMaster), Need: a.script.Roles.KeyMasters.Need}, nil
	}
	if !listed {
		return was.Openers, nil
	}
	var out []string
	for _, n := range named(p, charter.RoleKeyMaster) {
		if here, ok := r.Participant(n); ok && here.Group == x.Group || !ok && slices.Contains(was.Openers.Members, n) {
			out = append(out, n)
		}
	}
	if len(out) != x.Of {
		return charter.Set{}, fault.Errorf(fault.Policy, "there would be %d key masters of safe %s, the script says %d", len(out), x.Name, x.Of)
	}
	return charter.Set{Members: out, Need: x.Need}, nil
}

// grouped says whether some safe of the script has key masters of its own.
func (a *Actions) grouped() bool {
	return slices.ContainsFunc(a.script.Safes, func(x script.Safe) bool { return x.Group != "" })
}
