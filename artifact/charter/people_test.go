package charter_test

import (
	"crypto"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
)

// vault is a charter that tests continue.
type vault struct {
	*artifacttest.World
	t testing.TB
}

func newVault(t testing.TB) *vault {
	t.Helper()
	return &vault{artifacttest.New(t), t}
}

// refold gives a state that may be spoilt.
func (v *vault) refold() *charter.State {
	v.t.Helper()
	s, err := charter.Fold(v.Charter, v.World.World, v.Anchors.Vault)
	if err != nil {
		v.t.Fatal(err)
	}
	return s
}

// line is the next statement, signed by names.
func (v *vault) line(typ string, body any, names ...string) []byte {
	v.t.Helper()
	payload, err := v.refold().Propose(typ, body, artifacttest.Now())
	if err != nil {
		v.t.Fatal(err)
	}
	var ks []crypto.Signer
	for _, n := range names {
		ks = append(ks, v.People[n].Signer())
	}
	env, err := envelope.Sign(charter.PayloadType, payload, ks...)
	if err != nil {
		v.t.Fatal(err)
	}
	line, err := env.Marshal()
	if err != nil {
		v.t.Fatal(err)
	}
	return line
}

func (v *vault) try(typ string, body any, names ...string) error {
	v.t.Helper()
	return v.refold().Apply(v.line(typ, body, names...))
}

func (v *vault) must(typ string, body any, names ...string) {
	v.t.Helper()
	line := v.line(typ, body, names...)
	if err := v.State.Apply(line); err != nil {
		v.t.Fatal(err)
	}
	v.Charter = append(append(v.Charter, line...), '\n')
}

// people is the roster in force, as a copy to change; a name not known yet is a
// new person.
func (v *vault) people() *charter.People {
	p := v.refold().People
	return &p
}

func (v *vault) join(p *charter.People, name, role string) {
	v.t.Helper()
	k, err := person.New(name, v.World.World)
	if err != nil {
		v.t.Fatal(err)
	}
	v.People[name] = k
	p.Roster = append(p.Roster, charter.Member{Person: *k.Public(), Role: role})
}

func leave(p *charter.People, name string) {
	p.Roster = slices.DeleteFunc(p.Roster, func(m charter.Member) bool { return m.Person.Name == name })
}

func (v *vault) openers(p *charter.People, need int, names ...string) {
	for i := range p.Safes {
		p.Safes[i].Openers = charter.Set{Members: names, Need: need}
	}
}

// subsets tries every subset of names as signers of a change to p and wants
// exactly those accepted that good says.
func (v *vault) subsets(p *charter.People, names []string, good func(has func(string) bool) bool) {
	v.t.Helper()
	accepted := 0
	for bits := range 1 << len(names) {
		var by []string
		for i, n := range names {
			if bits>>i&1 == 1 {
				by = append(by, n)
			}
		}
		if len(by) == 0 {
			continue // an envelope has a signature
		}
		err := v.try(charter.TypePeople, p, by...)
		want := good(func(n string) bool { return slices.Contains(by, n) })
		if want != (err == nil) {
			v.t.Errorf("people changed by %v: %v, want accepted %v", by, err, want)
		}
		if want {
			accepted++
		}
	}
	v.t.Logf("%d of %d subsets suffice", accepted, 1<<len(names))
}

// A change of people needs the threshold of the approvers before and after and
// everybody who enters, and takes nobody else's signature (R-CER-7, R-CER-9).
func TestPeopleChangeNeedsOldAndNewAndEverybodyAdded(t *testing.T) {
	v := newVault(t)
	both := []string{"approver1", "approver2"}

	first := v.people()
	v.join(first, "approver3", charter.RoleApprover)
	first.Sets.Approvers = charter.Set{Members: []string{"approver1", "approver2", "approver3"}, Need: 2}
	first.Sets.Releases = first.Sets.Approvers
	v.subsets(first, append(both, "approver3", "master1", "witness1", "conductor"), func(has func(string) bool) bool {
		return has("approver1") && has("approver2") && has("approver3") && !has("master1") && !has("witness1") && !has("conductor")
	})
	v.must(charter.TypePeople, first, "approver1", "approver2", "approver3")

	second := v.people() // 2 of {1,2,3} become 3 of {2,3,4}, and a key master is replaced
	leave(second, "approver1")
	leave(second, "master5")
	v.join(second, "approver4", charter.RoleApprover)
	v.join(second, "master6", charter.RoleKeyMaster)
	second.Sets.Approvers = charter.Set{Members: []string{"approver2", "approver3", "approver4"}, Need: 3}
	second.Sets.Releases = charter.Set{Members: []string{"approver2", "approver4"}, Need: 2}
	v.openers(second, 4, "master1", "master2", "master3", "master4", "master6")
	v.subsets(second, []string{"approver1", "approver2", "approver3", "approver4", "master6", "master5", "witness2"}, func(has func(string) bool) bool {
		return has("approver2") && has("approver3") && has("approver4") && has("master6") && !has("master5") && !has("witness2")
	})
	v.must(charter.TypePeople, second, "approver2", "approver3", "approver4", "master6")

	if err := v.try(charter.TypePeople, first, "approver1", "approver2", "approver3"); err == nil {
		t.Error("somebody who left decides")
	}
	pipe := charter.Pipeline{ID: "p2", Key: v.SPKI("report"), Products: []string{"x"}}
	if err := v.try(charter.TypePipeline, pipe, "approver1", "approver2", "approver3"); err == nil {
		t.Error("the signature of somebody who left counts")
	}
	if err := v.try(charter.TypePipeline, pipe, "approver2", "approver3"); fault.ClassOf(err) != fault.Quorum {
		t.Errorf("the old threshold: %v", err)
	}
	if err := v.try(charter.TypePipeline, pipe, "approver2", "approver3", "approver4"); err != nil {
		t.Error(err)
	}
	if got := v.State.Names()[v.People["approver1"].Public().KeyID()]; got != "approver1" {
		t.Errorf("who signed earlier is %q", got)
	}
}

// anew gives a person another key under the same name, and returns the name by which it
// signs here, beside the old one.
func (v *vault) anew(p *charter.People, name string) string {
	v.t.Helper()
	k, err := person.New(name, v.World.World)
	if err != nil {
		v.t.Fatal(err)
	}
	for i := range p.Roster {
		if p.Roster[i].Person.Name == name {
			p.Roster[i].Person = *k.Public()
		}
	}
	v.People[name+", new key"] = k
	return name + ", new key"
}

// The same person with a new key enters like anybody: the new key signs, and the old one
// counts among those in force and does not replace it (R-CER-7, R-CER-9).
func TestSamePersonNewKey(t *testing.T) {
	v := newVault(t)
	first := v.people()
	v.join(first, "approver3", charter.RoleApprover)
	first.Sets.Approvers = charter.Set{Members: []string{"approver1", "approver2", "approver3"}, Need: 2}
	first.Sets.Releases = first.Sets.Approvers
	v.must(charter.TypePeople, first, "approver1", "approver2", "approver3")

	second := v.people()
	next := v.anew(second, "approver3")
	v.subsets(second, []string{"approver1", "approver2", "approver3", next, "master1", "witness1"}, func(has func(string) bool) bool {
		old := 0
		for _, n := range []string{"approver1", "approver2", "approver3"} {
			if has(n) {
				old++
			}
		}
		return has(next) && old >= 2 && !has("master1") && !has("witness1")
	})
	v.must(charter.TypePeople, second, "approver1", "approver2", next)
	pipe := charter.Pipeline{ID: "p2", Key: v.SPKI("report"), Products: []string{"x"}}
	if err := v.try(charter.TypePipeline, pipe, "approver1", "approver3"); err == nil {
		t.Error("the key that was replaced counts")
	}
	if err := v.try(charter.TypePipeline, pipe, "approver1", next); err != nil {
		t.Errorf("the new key: %v", err)
	}

	third := v.people()
	master := v.anew(third, "master1")
	v.subsets(third, []string{"approver1", "approver2", next, "approver3", "master1", master}, func(has func(string) bool) bool {
		ours := 0
		for _, n := range []string{"approver1", "approver2", next} {
			if has(n) {
				ours++
			}
		}
		return has(master) && ours >= 2 && !has("master1") && !has("approver3")
	})
}

// The first change of people, given again, is refused, as is one that was signed
// for another place in the log.
func TestPeopleChangeIsNotReplayed(t *testing.T) {
	v := newVault(t)
	p := v.people()
	v.join(p, "approver3", charter.RoleApprover)
	p.Sets.Approvers = charter.Set{Members: []string{"approver1", "approver2", "approver3"}, Need: 2}
	line := v.line(charter.TypePeople, p, "approver1", "approver2", "approver3")
	v.must(charter.TypePipeline, charter.Pipeline{ID: "between", Key: v.SPKI("report"), Products: []string{"x"}}, "approver1", "approver2")
	if err := v.refold().Apply(line); err == nil {
		t.Error("a change of people signed for an earlier place")
	}
	v.must(charter.TypePeople, p, "approver1", "approver2", "approver3")
	if err := v.refold().Apply(v.Charter[strings.LastIndex(strings.TrimSpace(string(v.Charter)), "\n")+1 : len(v.Charter)-1]); err == nil {
		t.Error("the same change again")
	}
}

func TestPeopleThatFailClosed(t *testing.T) {
	everybody := []string{"approver1", "approver2", "approver3", "master6"}
	edits := map[string]func(v *vault, p *charter.People){
		"safe left out":           func(_ *vault, p *charter.People) { p.Safes = p.Safes[:1] },
		"no safe":                 func(_ *vault, p *charter.People) { p.Safes = nil },
		"threshold 1":             func(_ *vault, p *charter.People) { p.Sets.Approvers.Need = 1 },
		"opener approves":         func(_ *vault, p *charter.People) { p.Sets.Releases.Members = []string{"approver1", "master1"} },
		"approver opens":          func(v *vault, p *charter.People) { v.openers(p, 2, "approver1", "master1", "master2") },
		"nobody conducts":         func(_ *vault, p *charter.People) { leave(p, "conductor") },
		"nobody witnesses":        func(_ *vault, p *charter.People) { leave(p, "witness1"); leave(p, "witness2") },
		"member of a set is gone": func(_ *vault, p *charter.People) { leave(p, "approver1") },
		"person of another world": func(_ *vault, p *charter.People) { p.Roster[0].Person.World = "live" },
		"one key, two people":     func(_ *vault, p *charter.People) { p.Roster[1].Person.Ed25519 = p.Roster[2].Person.Ed25519 },
		"key of somebody who was": func(v *vault, p *charter.People) { p.Roster[1].Person.Ed25519 = v.People["master5"].Public().Ed25519 },
		"two roles": func(_ *vault, p *charter.People) {
			m := p.Roster[1]
			m.Role = charter.RoleWitness
			p.Roster = append(p.Roster, m)
		},
		"role of a role not known":  func(_ *vault, p *charter.People) { p.Roster[0].Role = "king" },
		"key master is now witness": func(_ *vault, p *charter.People) { p.Roster[1].Role = charter.RoleWitness },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			v := newVault(t)
			p := v.people() // master5 leaves, approver3 and master6 come
			leave(p, "master5")
			v.join(p, "approver3", charter.RoleApprover)
			v.join(p, "master6", charter.RoleKeyMaster)
			v.openers(p, 3, "master1", "master2", "master3", "master4", "master6")
			v.must(charter.TypePeople, p, everybody...)
			q := v.people()
			v.join(q, "approver4", charter.RoleApprover)
			if err := v.try(charter.TypePeople, q, "approver1", "approver2", "approver4"); err != nil {
				t.Fatal(err)
			}
			edit(v, q)
			if err := v.try(charter.TypePeople, q, "approver1", "approver2", "approver4"); err == nil {
				t.Error("accepted")
			} else {
				t.Log(err)
			}
		})
	}
}

// epoch deals a safe to its openers in force, with throw-away share keys.
func (v *vault) epoch(safe string, n int) charter.Epoch {
	v.t.Helper()
	x, _ := v.State.People.Safe(safe)
	e := charter.Epoch{Epoch: n, Need: x.Openers.Need, Safe: safe, Shares: []charter.Share{}, Token: anchor.Token{Label: "test-" + safe, Serial: "0"}}
	for i, holder := range x.Openers.Members {
		k, err := person.New("x", v.World.World)
		if err != nil {
			v.t.Fatal(err)
		}
		e.Shares = append(e.Shares, charter.Share{Holder: holder, Index: i + 1, Public: k.Public().Ed25519})
	}
	return e
}

// Shares follow the openers: after a change of people a safe is stale until it
// is dealt anew, to exactly those people, in the next epoch and the same token.
func TestEpochFollowsThePeople(t *testing.T) {
	v := newVault(t)
	by := []string{"approver1", "approver2"}
	v.must(charter.TypeEpoch, v.epoch("work", 1), by...)
	if v.State.Stale("work") || !v.State.Stale("root") {
		t.Error("work was dealt, root was not")
	}
	old := v.State.Epochs["work"]
	p := v.people()
	leave(p, "master5")
	v.join(p, "master6", charter.RoleKeyMaster)
	v.openers(p, 3, "master1", "master2", "master3", "master4", "master6")
	v.must(charter.TypePeople, p, "approver1", "approver2", "master6")
	if !v.State.Stale("work") {
		t.Error("work is held by somebody who left")
	}
	same := v.epoch("work", 2)
	same.Shares[0].Public = old.Shares[0].Public
	away := v.epoch("work", 2)
	away.Token.Serial = "1"
	few := v.epoch("work", 2)
	few.Need = 2
	again := old
	again.Epoch = 2
	for name, e := range map[string]charter.Epoch{
		"skipped": v.epoch("work", 3), "the epoch in force": v.epoch("work", 1), "share of the old epoch": same, "another token": away, "other threshold": few, "the old holders": again,
	} {
		if err := v.try(charter.TypeEpoch, e, by...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	v.must(charter.TypeEpoch, v.epoch("work", 2), by...)
	if v.State.Stale("work") {
		t.Error("work was dealt anew")
	}
}
