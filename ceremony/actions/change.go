package actions

import (
	"context"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// present are the first members of a set who are here, as many as it needs.
func present(r *ceremony.Run, set charter.Set) ([]string, error) {
	var out []string
	for _, n := range set.Members {
		if _, ok := r.Participant(n); ok && len(out) < set.Need {
			out = append(out, n)
		}
	}
	if len(out) < set.Need {
		return nil, fault.Errorf(fault.Quorum, "%d of %v must decide, %d are here", set.Need, set.Members, len(out))
	}
	return out, nil
}

// after are the people as they will be: those of the charter without who leaves,
// and everybody here who is not in it yet, or with another key.
func (a *Actions) after(r *ceremony.Run) (*charter.People, error) {
	p := &charter.People{}
	for _, n := range a.bind.Leaves {
		if _, ok := a.state.People.Person(n); !ok {
			return nil, fault.Errorf(fault.Usage, "%.40q is to leave and is not in the charter", n)
		}
	}
	comes := func(name string) (*ceremony.Participant, bool) {
		x, ok := r.Participant(name)
		return x, ok && !slices.Contains(a.bind.Leaves, name)
	}
	for _, m := range a.state.People.Roster {
		if x, ok := comes(m.Person.Name); ok {
			m = charter.Member{Person: *x.Person, Role: x.Role}
		}
		if !slices.Contains(a.bind.Leaves, m.Person.Name) {
			p.Roster = append(p.Roster, m)
		}
	}
	for _, m := range r.Members() {
		if _, ok := a.state.People.Person(m.Person.Name); !ok {
			p.Roster = append(p.Roster, m)
		}
	}
	all, approvers := named(p, charter.RoleKeyMaster), named(p, charter.RoleApprover)
	roles := a.script.Roles
	if !a.grouped() && len(all) != roles.KeyMasters.Of || len(approvers) != roles.Approvers.Of {
		return nil, fault.Errorf(fault.Policy, "there would be %d key masters and %d approvers, the script says %d and %d", len(all), len(approvers), roles.KeyMasters.Of, roles.Approvers.Of)
	}
	set := charter.Set{Members: approvers, Need: roles.Approvers.Need}
	p.Sets = charter.Sets{Approvers: set, Releases: set}
	for _, s := range a.state.People.Safes {
		var err error
		if s.Openers, err = a.openersAfter(r, p, s); err != nil {
			return nil, err
		}
		p.Safes = append(p.Safes, s)
	}
	return p, a.allDealt(p)
}

// checkChange finds before the ceremony is armed what people.change would void it
// for, after shares were combined.
func (a *Actions) checkChange(r *ceremony.Run) error {
	if !a.does("people.change") {
		return nil
	}
	p, err := a.after(r)
	if err != nil {
		return err
	}
	for _, set := range []charter.Set{a.state.People.Sets.Approvers, p.Sets.Approvers} {
		if _, err := present(r, set); err != nil {
			return err
		}
	}
	return nil
}

// named are the names of all with that role, sorted.
func named(p *charter.People, role string) []string {
	var out []string
	for _, m := range p.Roster {
		if m.Role == role {
			out = append(out, m.Person.Name)
		}
	}
	return sorted(out)
}

// allDealt wants a new deal, in this script, for every safe whose openers change:
// somebody who left must not hold a share in force.
func (a *Actions) allDealt(p *charter.People) error {
	for _, s := range p.Safes {
		was, _ := a.state.People.Safe(s.Name)
		same := was.Openers.Need == s.Openers.Need && slices.Equal(was.Openers.Members, s.Openers.Members)
		if !same && !a.deals(s.Name) {
			return fault.Errorf(fault.Policy, "the key masters of safe %s change, and the script does not deal it anew", s.Name)
		}
	}
	return nil
}

func (a *Actions) deals(safe string) bool {
	return slices.ContainsFunc(a.script.Run, func(st script.Step) bool { return st.Do == "shares.deal" && st.Safe == safe })
}

// changePeople has the approvers of before and of after, and everybody who comes,
// sign the people as they will be.
func (a *Actions) changePeople(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	p, err := a.after(r)
	if err != nil {
		return err
	}
	payload, err := a.state.Propose(charter.TypePeople, p, r.Clock.Now())
	if err != nil {
		return err
	}
	var names []string
	for _, set := range []charter.Set{a.state.People.Sets.Approvers, p.Sets.Approvers} {
		who, err := present(r, set)
		if err != nil {
			return err
		}
		names = append(names, who...)
	}
	for _, m := range a.state.People.Added(p) {
		names = append(names, m.Person.Name)
	}
	names = slices.Compact(sorted(names))
	for _, m := range p.Roster {
		r.Console.Say("", m.Person.Name+", "+m.Role)
	}
	var env *envelope.Envelope
	if env, err = signAll(ctx, r, "the people of the vault from now on", charter.PayloadType, payload, names); err != nil {
		return err
	}
	return a.append(r, charter.TypePeople, env, names)
}
