package charter_test

import (
	"fmt"
	"math/bits"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func delegation(edit func(*charter.Delegation)) charter.Delegation {
	d := charter.Delegation{
		Can: access.Read, Expires: charter.FormatTime(artifacttest.Now().Add(time.Hour)), ID: "night",
		Identity: "mes", Path: "kv/data/line1/plc", Uses: 3,
	}
	if edit != nil {
		edit(&d)
	}
	return d
}

func breakGlass(edit func(*charter.BreakGlass)) charter.BreakGlass {
	b := charter.BreakGlass{
		Delay: charter.MinBreakDelay, Duration: 600, ID: "emergency", Identity: "mes",
		People: charter.Set{Need: 2, Members: []string{"master1", "master2", "witness1"}},
		Rules:  []access.Rule{{Can: []access.Capability{access.Read}, Path: "kv/data/*"}},
	}
	if edit != nil {
		edit(&b)
	}
	return b
}

func pulled(times int) charter.BreakGlassPulled {
	return charter.BreakGlassPulled{ID: "emergency", Reason: "line 1 stands still, nobody answers", Times: times}
}

// What is given for a while is whole, or the charter does not hold.
func TestGrantsThatFailClosed(t *testing.T) {
	v := withAccess(t)
	for name, edit := range map[string]func(*charter.Delegation){
		"no id":            func(d *charter.Delegation) { d.ID = "" },
		"nobody":           func(d *charter.Delegation) { d.Identity = "" },
		"unknown identity": func(d *charter.Delegation) { d.Identity = "mes2" },
		"no end":           func(d *charter.Delegation) { d.Expires = "" },
		"ends before":      func(d *charter.Delegation) { d.Expires = charter.FormatTime(artifacttest.Now()) },
		"ends too late": func(d *charter.Delegation) {
			d.Expires = charter.FormatTime(artifacttest.Now().Add(93 * 24 * time.Hour))
		},
		"no uses":            func(d *charter.Delegation) { d.Uses = 0 },
		"uses without end":   func(d *charter.Delegation) { d.Uses = charter.MaxUses + 1 },
		"negative uses":      func(d *charter.Delegation) { d.Uses = -1 },
		"a pattern":          func(d *charter.Delegation) { d.Path = "kv/data/*" },
		"a pattern between":  func(d *charter.Delegation) { d.Path = "kv/+/line1" },
		"odd spelling":       func(d *charter.Delegation) { d.Path = "kv//data" },
		"no path":            func(d *charter.Delegation) { d.Path = "" },
		"the vault's own":    func(d *charter.Delegation) { d.Path = "sys/seal" },
		"no engine":          func(d *charter.Delegation) { d.Path = "other/data/x" },
		"no capability":      func(d *charter.Delegation) { d.Can = "" },
		"deny":               func(d *charter.Delegation) { d.Can = access.Deny },
		"another capability": func(d *charter.Delegation) { d.Can = "sudo" },
	} {
		if err := v.propose(charter.TypeDelegation, delegation(edit)); fault.ClassOf(err) != fault.Verify {
			t.Errorf("delegation, %s: %v", name, err)
		}
	}
	for name, edit := range map[string]func(*charter.BreakGlass){
		"no id":             func(b *charter.BreakGlass) { b.ID = "" },
		"unknown identity":  func(b *charter.BreakGlass) { b.Identity = "mes2" },
		"no delay":          func(b *charter.BreakGlass) { b.Delay = 0 },
		"a short delay":     func(b *charter.BreakGlass) { b.Delay = charter.MinBreakDelay - 1 },
		"a long delay":      func(b *charter.BreakGlass) { b.Delay = charter.MaxBreakDelay + 1 },
		"no duration":       func(b *charter.BreakGlass) { b.Duration = 0 },
		"a long duration":   func(b *charter.BreakGlass) { b.Duration = charter.MaxBreakDuration + 1 },
		"one person":        func(b *charter.BreakGlass) { b.People.Need = 1 },
		"nobody":            func(b *charter.BreakGlass) { b.People = charter.Set{} },
		"more than all":     func(b *charter.BreakGlass) { b.People.Need = 4 },
		"somebody twice":    func(b *charter.BreakGlass) { b.People.Members = []string{"master1", "master1", "witness1"} },
		"a stranger":        func(b *charter.BreakGlass) { b.People.Members = []string{"master1", "zoe"} },
		"no rules":          func(b *charter.BreakGlass) { b.Rules = nil },
		"all paths":         func(b *charter.BreakGlass) { b.Rules[0].Path = "*" },
		"the vault's own":   func(b *charter.BreakGlass) { b.Rules[0].Path = "sys/*" },
		"a rule of nothing": func(b *charter.BreakGlass) { b.Rules[0].Can = nil },
	} {
		if err := v.propose(charter.TypeBreakGlass, breakGlass(edit)); fault.ClassOf(err) != fault.Verify {
			t.Errorf("break-glass, %s: %v", name, err)
		}
	}
	v.decide(charter.TypeDelegation, delegation(nil))
	v.decide(charter.TypeBreakGlass, breakGlass(nil))
	for _, again := range []struct {
		typ  string
		body any
	}{{charter.TypeDelegation, delegation(nil)}, {charter.TypeBreakGlass, breakGlass(nil)}} {
		if err := v.propose(again.typ, again.body); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s again: %v", again.typ, err)
		}
	}
}

// Exactly those subsets of everybody in the roster pull a break-glass that have its
// threshold of its people and nobody else.
func TestWhoPullsABreakGlass(t *testing.T) {
	v := withAccess(t)
	v.decide(charter.TypeBreakGlass, breakGlass(nil))
	all := []string{"master1", "master2", "witness1", "approver1", "approver2", "master3", "conductor"}
	for set := range 1 << len(all) {
		var names []string
		for i, n := range all {
			if set&(1<<i) != 0 {
				names = append(names, n)
			}
		}
		if len(names) == 0 {
			continue // an envelope has a signature
		}
		err := v.try(charter.TypeBreakGlassPulled, pulled(1), names...)
		want := set>>3 == 0 && bits.OnesCount(uint(set)) >= 2
		if (err == nil) != want {
			t.Errorf("pulled by %s: %v", strings.Join(names, ", "), err)
		}
	}
}

// A pull is in force until the approvers end it, once, and each has its number.
func TestBreakGlass(t *testing.T) {
	v := withAccess(t)
	v.decide(charter.TypeBreakGlass, breakGlass(nil))
	for name, p := range map[string]charter.BreakGlassPulled{
		"another":         {ID: "other", Reason: "x", Times: 1},
		"no reason":       {ID: "emergency", Times: 1},
		"reason in lines": {ID: "emergency", Reason: "a\nb", Times: 1},
		"long reason":     {ID: "emergency", Reason: strings.Repeat("x", 201), Times: 1},
		"not the first":   {ID: "emergency", Reason: "x", Times: 2},
		"never":           {ID: "emergency", Reason: "x"},
	} {
		if err := v.try(charter.TypeBreakGlassPulled, p, "master1", "witness1"); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.must(charter.TypeBreakGlassPulled, pulled(1), "master1", "witness1")
	p, ok := v.refold().Grants.Pulled["emergency"]
	if !ok || p.Times != 1 || p.Seq != v.refold().Size()-1 || p.Rules[0].Path != "kv/data/*" {
		t.Fatalf("pulled: %+v", p)
	}
	if err := v.try(charter.TypeBreakGlassPulled, pulled(2), "master1", "witness1"); err == nil {
		t.Error("pulled while it is pulled")
	}
	for _, n := range []int{0, 2} {
		if err := v.propose(charter.TypeBreakGlassEnded, charter.BreakGlassEnded{ID: "emergency", Times: n}); fault.ClassOf(err) != fault.Verify {
			t.Errorf("pull %d is ended: %v", n, err)
		}
	}
	end := charter.BreakGlassEnded{ID: "emergency", Times: 1}
	if err := v.try(charter.TypeBreakGlassEnded, end, "master1", "witness1"); err == nil {
		t.Error("those who pulled it ended it")
	}
	v.decide(charter.TypeBreakGlassEnded, end)
	if err := v.propose(charter.TypeBreakGlassEnded, end); fault.ClassOf(err) != fault.Verify {
		t.Errorf("ended twice: %v", err)
	}
	v.must(charter.TypeBreakGlassPulled, pulled(2), "master2", "witness1")
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "emergency", Type: charter.TypeBreakGlass})
	if g := v.refold().Grants; len(g.Pulled) != 0 || len(g.BreakGlass) != 0 {
		t.Errorf("ended for good, and there is %+v", g)
	}
}

// Whoever left the roster pulls nothing any more.
func TestPullersLeave(t *testing.T) {
	v := withAccess(t)
	v.join(v.people(), "nora", charter.RoleWitness)
	p := v.people()
	p.Roster = append(p.Roster, charter.Member{Person: *v.People["nora"].Public(), Role: charter.RoleWitness})
	v.must(charter.TypePeople, p, "approver1", "approver2", "nora")
	v.decide(charter.TypeBreakGlass, breakGlass(func(b *charter.BreakGlass) { b.People.Members = []string{"master1", "nora"} }))
	if err := v.try(charter.TypeBreakGlassPulled, pulled(1), "master1", "nora"); err != nil {
		t.Fatal(err)
	}
	p = v.people()
	p.Roster = p.Roster[:len(p.Roster)-1]
	v.must(charter.TypePeople, p, "approver1", "approver2")
	if err := v.try(charter.TypeBreakGlassPulled, pulled(1), "master1", "nora"); err == nil {
		t.Error("somebody who left pulled it")
	}
}

// The window begins when others knew, never before the statement, and never at all
// while nobody knew.
func TestBreakGlassWindow(t *testing.T) {
	at := time.Unix(1.8e9, 0)
	p := charter.Pulled{BreakGlass: breakGlass(nil), At: at}
	if from, to := p.Window(time.Time{}); !from.IsZero() || !to.IsZero() {
		t.Errorf("nobody knew, and it opens from %v to %v", from, to)
	}
	for known, want := range map[time.Duration]time.Duration{-time.Hour: time.Hour, 0: time.Hour, time.Minute: time.Hour + time.Minute} {
		from, to := p.Window(at.Add(known))
		if from.Sub(at) != want || to.Sub(from) != 10*time.Minute {
			t.Errorf("known after %v: from %v to %v", known, from.Sub(at), to.Sub(at))
		}
	}
}

// What was given ends with whom it was given to, and holds its engine.
func TestGrantsEnd(t *testing.T) {
	v := withAccess(t)
	v.decide(charter.TypeMount, charter.Mount{Engine: "kv", ID: "kv2"})
	for i, typ := range []string{charter.TypeDelegation, charter.TypeBreakGlass} {
		id := fmt.Sprintf("g%d", i)
		if typ == charter.TypeDelegation {
			v.decide(typ, delegation(func(d *charter.Delegation) { d.ID, d.Path = id, "kv2/data/x" }))
		} else {
			v.decide(typ, breakGlass(func(b *charter.BreakGlass) { b.ID, b.Rules[0].Path = id, "kv2/data/*" }))
		}
		if err := v.propose(charter.TypeAccessEnded, charter.AccessEnded{ID: "kv2", Type: charter.TypeMount}); fault.ClassOf(err) != fault.Verify {
			t.Errorf("the engine of a %s ends: %v", typ, err)
		}
		v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: id, Type: typ})
		if err := v.propose(charter.TypeAccessEnded, charter.AccessEnded{ID: id, Type: typ}); fault.ClassOf(err) != fault.Verify {
			t.Errorf("a %s ends twice: %v", typ, err)
		}
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "kv2", Type: charter.TypeMount})
	v.decide(charter.TypeDelegation, delegation(nil))
	v.decide(charter.TypeBreakGlass, breakGlass(nil))
	v.must(charter.TypeBreakGlassPulled, pulled(1), "master1", "witness1")
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "mes", Type: charter.TypeIdentity})
	if g := v.refold().Grants; len(g.Delegations)+len(g.BreakGlass)+len(g.Pulled) != 0 {
		t.Errorf("its identity ended, and there is %+v", g)
	}
}
