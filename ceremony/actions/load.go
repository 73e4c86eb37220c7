package actions

import (
	"context"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/succession"
	"keyrite/artifact/world"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/intake"
)

// maxCharterBytes bounds a charter file.
const maxCharterBytes = 64 << 20

// vault is what a ceremony continues.
type vault struct {
	anchors *anchor.Anchors
	base    record.Base
	state   charter.State // as loaded: it decides who opens what

	succession *succession.Statement // of the last succession, nil without one
	inForce    *anchor.Anchors       // anchors under it
	counted    int64                 // highest counter of a statement in a loaded record

	left  record.Left // of void ceremonies, taken over here
	after string      // folder of the record that proves it

	issuers map[string][]byte // certificates of keys made after the genesis, from verified records
}

// load reads anchors and charter, which the record names from its first entry on.
func (a *Actions) load() error {
	if err := a.fold(); err != nil {
		return err
	}
	if err := a.checkSafes(); err != nil {
		return err
	}
	return a.loadFloors()
}

// fold reads the vault that the binding names.
func (a *Actions) fold() error {
	b := a.bind
	if b.Anchors == "" || b.Charter == "" {
		return fault.Hint(fault.New(fault.Usage, "the binding names no vault to continue"), "write anchors: FILE and charter: FILE, as they left the last ceremony")
	}
	data, err := intake.Read(b.Path(b.Anchors), maxCharterBytes)
	if err != nil {
		return err
	}
	an, err := anchor.Parse(data)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "anchors %q: %w", b.Anchors, err)
	}
	if err := world.Match(b.World, an.World); err != nil {
		return err
	}
	lines, err := intake.Read(b.Path(b.Charter), maxCharterBytes)
	if err != nil {
		return err
	}
	var states [2]*charter.State // what is loaded, and what this ceremony goes on to make of it
	for i := range states {
		if states[i], err = charter.Fold(lines, an.World, an.Vault); err != nil {
			return fault.Errorf(fault.ClassOf(err), "charter %q: %w", b.Charter, err)
		}
	}
	if err := knows(states[0], an); err != nil {
		return err
	}
	hash, err := an.Hash()
	if err != nil {
		return err
	}
	a.vault = &vault{anchors: an, base: record.Base{Anchors: hash, CharterHead: states[0].Head(), CharterSize: states[0].Size()}, state: *states[0]}
	a.state, a.lines = *states[1], lines
	return a.loadSuccession()
}

// knows wants every key of the anchors in the charter.
func knows(s *charter.State, an *anchor.Anchors) error {
	for i := range an.Keys {
		k, ok := s.Keys[an.Keys[i].ID]
		if !ok || string(k.Public) != string(an.Keys[i].Public) {
			return fault.Errorf(fault.Verify, "key %s of the anchors is not the one in the charter", an.Keys[i].ID)
		}
	}
	return nil
}

// checkSafes wants every safe that the script opens in the charter, in the token
// that script and binding name.
func (a *Actions) checkSafes() error {
	for i := range a.script.Safes {
		x := &a.script.Safes[i]
		e, ok := a.state.Epochs[x.Name]
		switch {
		case !ok:
			return fault.Errorf(fault.Policy, "the charter knows no safe %s", x.Name)
		case e.Token.Label != x.Token:
			return fault.Errorf(fault.Policy, "safe %s is token %s, and the script says %s", x.Name, e.Token.Label, x.Token)
		}
		if bound := a.bind.Tokens[x.Name]; bound != "" && bound != e.Token.Label+"/"+e.Token.Serial {
			return fault.Errorf(fault.Policy, "safe %s is token %s/%s, and the binding says %.80q", x.Name, e.Token.Label, e.Token.Serial, bound)
		}
	}
	return nil
}

// Base is the vault that the ceremony continues, nil for a genesis.
func (a *Actions) Base() *record.Base {
	if a.vault == nil {
		return nil
	}
	return &a.vault.base
}

// loaded is the verb vault.load: earlier records are verified and the people
// compared with the charter, before anything is at stake.
func (a *Actions) loaded(_ context.Context, r *ceremony.Run, _ *script.Step) error {
	for _, x := range a.earlier() {
		if x.err != nil {
			return x.err
		}
		if err := a.vault.keep(x.dir, x.Verified); err != nil {
			return err
		}
		r.Console.Say("good", record.Origin(x.Open.Record)+" holds: "+x.Open.Title)
	}
	for _, p := range r.People {
		if err := a.admits(&p); err != nil {
			return err
		}
	}
	if err := a.foundElsewhere(); err != nil {
		return err
	}
	if err := a.keepAfter(r); err != nil {
		return err
	}
	if err := a.checkChange(r); err != nil {
		return err
	}
	if err := a.checkFollows(); err != nil {
		return err
	}
	words, err := record.HeadWords(&a.vault.state)
	if err != nil {
		return err
	}
	r.Console.Say("good", "vault "+a.state.Vault[:16]+"…, charter of "+itoa(a.state.Size())+" statements: "+words)
	return nil
}

// checkFollows wants what the ceremony will add a statement or an update root to, as
// the steps that do so want it when shares were combined.
func (a *Actions) checkFollows() error {
	if a.does("succession.sign") {
		if err := a.newest(); err != nil {
			return err
		}
	}
	if a.does("update.root") {
		if _, err := a.rootBefore(); err != nil {
			return err
		}
	}
	return nil
}

// admits wants a participant in the charter, with that key and role; where the
// script changes people, somebody new may come.
func (a *Actions) admits(p *ceremony.Participant) error {
	m, known := a.vault.state.People.Person(p.Person.Name)
	switch {
	case known && m.Role == p.Role && m.Person.Equal(p.Person) && !a.does("people.change"):
		return a.checkGroup(p)
	case a.does("people.change"):
		return nil
	case known:
		return fault.Errorf(fault.Policy, "%s of the binding is not the %s of the charter", p.Person.Name, m.Role)
	}
	return fault.Hint(fault.Errorf(fault.Policy, "%s is not in the charter", p.Person.Name), "people come and go by a ceremony of kind reshare with a step people.change")
}

// does says whether the script has a step of that verb.
func (a *Actions) does(verb string) bool {
	for _, ph := range a.script.Phases() {
		for i := range ph.Steps {
			if ph.Steps[i].Do == verb {
				return true
			}
		}
	}
	return false
}
