package actions

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony/script"
)

// second takes the lines of the second group into a shipped script, of three key
// masters of whom two open.
func second(text string) string {
	text = strings.ReplaceAll(text, "#+second-group ", "")
	return strings.NewReplacer("need: 3 # of the second", "need: 2 # of the second", "of: 5 # in the second", "of: 3 # in the second").Replace(text)
}

// others names further key masters in the binding, of that group.
func others(group string, names ...string) func(*Bind) {
	return func(b *Bind) {
		for _, n := range names {
			b.People = append(b.People, BindPerson{Person: n + ".person", Key: n + ".key", Role: charter.RoleKeyMaster, Group: group})
		}
	}
}

// foundTwo is found with key masters of their own for the dormant safes.
func foundTwo(t *testing.T) (*founded, *charter.State) {
	t.Helper()
	h := newHouse(t)
	answers, err := os.ReadFile(h.path("answers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"other1", "other2", "other3"} {
		h.person(t, n)
		answers = append(answers, "  "+n+": "+n+".pass\n"...)
	}
	h.write(t, "answers.yaml", answers)
	dir, err := h.hold(t, plan{label: "founded", edit: second, bind: others("second", "other1", "other2", "other3")})
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &founded{h, v.Anchors, dir}, v.Charter
}

// TestTwoQuorums founds a vault whose dormant tokens are opened by other key
// masters than those in use: each group gets the shares of its safes and opens
// them, and the other group does not, whatever the binding or a medium says
// (R-CER-5, R-CER-24).
func TestTwoQuorums(t *testing.T) {
	t.Parallel()
	f, ch := foundTwo(t)
	masters, ours := []string{"master1", "master2", "master3", "master4", "master5"}, []string{"other1", "other2", "other3"}
	for safe, want := range map[string][]string{"root": masters, "work": masters, "root2": ours, "work2": ours} {
		x, _ := ch.People.Safe(safe)
		var holders []string
		for _, sh := range ch.Epochs[safe].Shares {
			holders = append(holders, sh.Holder)
		}
		if !slices.Equal(x.Openers.Members, want) || x.Openers.Need != len(want)/2+1 || !slices.Equal(sorted(holders), want) {
			t.Errorf("safe %s: openers %+v, shares of %v", safe, x.Openers, holders)
		}
	}
	t.Run("the right group", func(t *testing.T) { testRightGroup(t, f.fork(t)) })
	t.Run("the wrong group", func(t *testing.T) { testWrongGroup(t, f.fork(t)) })
	t.Run("told in the field", func(t *testing.T) { testFieldByBothGroups(t, f.fork(t)) })
	t.Run("reshare", func(t *testing.T) { testReshareByGroup(t, f.fork(t)) })
	t.Run("shares of the other group", func(t *testing.T) { testSharesOfOthers(t, f.fork(t)) })
}

// lost is the loss of the work token, with those key masters of the second group.
func (f *founded) lost(t *testing.T, name string, bind func(*Bind)) plan {
	t.Helper()
	if err := os.RemoveAll(f.tokenFolder(t, "founded-work")); err != nil {
		t.Fatal(err)
	}
	root := rootOf(f, "1.root.json")
	return plan{kind: "hsm-lost", record: name, edit: second, bind: func(b *Bind) { root(b); bind(b) }}
}

func testRightGroup(t *testing.T, f *founded) {
	v := f.later(t, f.lost(t, "right", others("second", "other2", "other3"))) // other1 is ill
	got := map[string][]string{}
	for _, l := range v.Timeline {
		if o, ok := l.Data.(*record.Opening); ok {
			got[o.Safe] = append(got[o.Safe], o.Holder)
		}
	}
	if want := fmt.Sprint(map[string][]string{"root": {"master1", "master2", "master3"}, "work2": {"other2", "other3"}}); fmt.Sprint(got) != want {
		t.Errorf("opened by %v, want %s", got, want)
	}
	if k, err := v.Charter.Key("firmware", "dsse"); err != nil || k.ID != "firmware-2" {
		t.Errorf("firmware: %v, %v", k, err)
	}
}

// A new key is told to the field by both root tokens, each opened by its own group.
func testFieldByBothGroups(t *testing.T, f *founded) {
	p := plan{kind: "new-key", record: "field", edit: func(text string) string { return second(inField(text)) }, bind: others("second", "other1", "other3")}
	if v := f.later(t, p); v.Succession == nil || len(v.Succession.Added) != 1 {
		t.Errorf("the field is told %+v", v.Succession)
	}
}

// A reshare replaces a key master of the second group: the dormant safes are dealt to
// the new group and the others to theirs, each once more; who left holds nothing, and
// nobody of the first group gets a share of the second. Whoever comes without his
// group is refused before it is armed.
func testReshareByGroup(t *testing.T, f *founded) {
	first := filepath.Join(f.newest, record.OutputsDir, "1.root.json")
	f.person(t, "other4")
	answers, err := os.ReadFile(f.path("answers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "answers.yaml", append(answers, "  other4: other4.pass\n"...))
	group := func(last string) func(b *Bind) {
		return func(b *Bind) {
			others("second", "other1", "other2", "other3")(b)
			others(last, "other4")(b)
			b.Leaves = []string{"other3"}
		}
	}
	if dir, err := f.try(t, plan{kind: "reshare", record: "strange", edit: second, bind: group("")}); err == nil {
		t.Error("other4 takes part without his group")
	} else if _, statErr := os.Stat(dir); statErr == nil {
		for _, e := range entries(t, dir) {
			if e.Type == "intent" || e.Type == "opening" || e.Type == "dealt" {
				t.Errorf("%v: %s", err, e.Type)
			}
		}
	}
	v := f.later(t, plan{kind: "reshare", record: "reshared", edit: second, bind: group("second")})
	masters, ours := []string{"master1", "master2", "master3", "master4", "master5"}, []string{"other1", "other2", "other4"}
	for safe, want := range map[string][]string{"root": masters, "work": masters, "root2": ours, "work2": ours} {
		x, _ := v.Charter.People.Safe(safe)
		e := v.Charter.Epochs[safe]
		var holders []string
		for _, sh := range e.Shares {
			holders = append(holders, sh.Holder)
		}
		if e.Epoch != 2 || !slices.Equal(x.Openers.Members, want) || x.Openers.Need != len(want)/2+1 || !slices.Equal(sorted(holders), want) || v.Charter.Stale(safe) {
			t.Errorf("safe %s: epoch %d, openers %+v, shares of %v", safe, e.Epoch, x.Openers, holders)
		}
	}
	if _, ok := v.Charter.People.Person("other3"); ok {
		t.Error("other3 is still there")
	}
	for _, n := range []string{"root/other4", "work/other1", "root2/master1", "work2/other3"} {
		if _, err := os.Lstat(f.path("shares-founded/" + n + ".epoch2.share")); err == nil {
			t.Errorf("there is a share %s", n)
		}
	}
	// The new group opens: the work token is lost, and other4 helps.
	w := f.later(t, f.lost(t, "after", func(b *Bind) {
		others("second", "other2", "other4")(b)
		b.Root = first
	}))
	if k, err := w.Charter.Key("firmware", "dsse"); err != nil || k.ID != "firmware-2" {
		t.Errorf("firmware: %v, %v", k, err)
	}
}

// A binding that gives the second group's places to the first is refused before
// the ceremony is armed.
func testWrongGroup(t *testing.T, f *founded) {
	dir, err := f.try(t, f.lost(t, "wrong", func(b *Bind) {
		others("", "other1", "other2", "other3")(b)
		for i := range b.People {
			if n := b.People[i].Person; n == "master3.person" || n == "master4.person" || n == "master5.person" {
				b.People[i].Group = "second"
			}
		}
	}))
	if err == nil || !strings.Contains(err.Error(), "is no key master of safe") {
		t.Fatalf("got %v", err)
	}
	for _, e := range entries(t, dir) {
		if e.Type == "intent" || e.Type == "opening" {
			t.Errorf("%s %v", e.Type, e.Data)
		}
	}
}

// The first group's shares, on the second group's media, open nothing: not those
// of the token in use, nor by their names.
func testSharesOfOthers(t *testing.T, f *founded) {
	for i := range 3 {
		data, err := os.ReadFile(f.path(fmt.Sprintf("shares-founded/work/master%d.share", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, fmt.Sprintf("shares-founded/work2/other%d.share", i+1), data)
		f.write(t, fmt.Sprintf("shares-founded/work2/master%d.share", i+1), data)
	}
	dir, err := f.try(t, f.lost(t, "shares", others("second", "other1", "other2")))
	if fault.ClassOf(err) != fault.Void {
		t.Fatalf("got %v", err)
	}
	for _, e := range entries(t, dir) {
		if e.Type == "opening" && e.Data["safe"] != "root" {
			t.Errorf("opened %v by %v", e.Data["safe"], e.Data["holder"])
		}
	}
}

// The binding's groups are those of the script, each with its number of people.
func TestGroupsOfTheBinding(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for i := range 4 {
		h.person(t, "other"+itoa(i+1))
	}
	s, _ := h.script(t, "genesis", "x", second)
	plain, _ := h.script(t, "genesis", "x", nil)
	tests := map[string]struct {
		script *script.Script
		bind   func(*Bind)
		class  fault.Class
	}{
		"as the script says":   {s, others("second", "other1", "other2", "other3"), ""},
		"one too few":          {s, others("second", "other1", "other2"), fault.Quorum},
		"one too many":         {s, others("second", "other1", "other2", "other3", "other4"), fault.Quorum},
		"without their group":  {s, others("", "other1", "other2", "other3"), fault.Quorum},
		"another group":        {s, others("third", "other1", "other2", "other3"), fault.Quorum},
		"a third group too":    {s, func(b *Bind) { others("second", "other1", "other2", "other3")(b); others("third", "other4")(b) }, fault.Usage},
		"script without group": {plain, others("second", "other1"), fault.Usage},
		"a witness in a group": {plain, func(b *Bind) { b.People[6].Group = "second" }, fault.Quorum},
		"somebody twice":       {s, others("second", "other1", "other2", "master1"), fault.Policy},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := LoadBind(h.path("bind.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			tt.bind(b)
			if _, err := b.Participants(tt.script); err != nil && fault.ClassOf(err) != tt.class || err == nil && tt.class != "" {
				t.Errorf("got %v, want class %q", err, tt.class)
			}
		})
	}
}

// TestOperatorTypes holds a genesis whose operator is a person of his own, who is
// named in the charter; without him the binding is refused.
func TestOperatorTypes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.person(t, "operator")
	answers, err := os.ReadFile(h.path("answers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "answers.yaml", append(answers, "  operator: operator.pass\n"...))
	edit := func(text string) string {
		return strings.Replace(text, "conductor_operates: true", "conductor_operates: false\n  operator: 1", 1)
	}
	s, _ := h.script(t, "genesis", "operated", edit)
	bind := h.bind(t, "bind.yaml")
	if _, err := bind.Participants(s); fault.ClassOf(err) != fault.Quorum {
		t.Errorf("without an operator: %v", err)
	}
	dir, err := h.hold(t, plan{label: "operated", edit: edit, bind: func(b *Bind) {
		b.People = append(b.People, BindPerson{Person: "operator.person", Key: "operator.key", Role: charter.RoleOperator})
	}})
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := v.Charter.People.Person("operator"); !ok || m.Role != charter.RoleOperator {
		t.Errorf("the charter names %v", m)
	}
}
