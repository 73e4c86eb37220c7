package actions

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/signer/tuf"
)

// approverChanges edits the binding: approver2 leaves, approver3 comes.
func (f *founded) approverChanges(t testing.TB) func(b *Bind) {
	t.Helper()
	f.person(t, "approver3")
	data, err := os.ReadFile(f.path("answers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "answers.yaml", append(data, "  approver3: approver3.pass\n"...))
	root := rootOf(f, "1.root.json")
	return func(b *Bind) {
		b.People = append(b.People, BindPerson{Person: "approver3.person", Key: "approver3.key", Role: "approver"})
		b.Leaves = []string{"approver2"}
		root(b)
	}
}

// oneLineSafes writes the safes that stand on several lines on one, to be cut out.
func oneLineSafes(text string) string {
	return regexp.MustCompile(`(?m)^  - (name: \S+)\n    (token: \S+)\n    (state: existing)(\n    dormant: true)?$`).ReplaceAllStringFunc(text, func(s string) string {
		return "  - {" + strings.ReplaceAll(strings.TrimPrefix(s, "  - "), "\n    ", ", ") + "}"
	})
}

// rootOnly is a reshare of the root safe that renews the update root too.
func rootOnly(text string) string {
	text = cutLines(oneLineSafes(text), "safe: work", "safe: root2", "name: work", "name: root2")
	text = strings.Replace(text, "# What people predictably do.", "existing:\n  - {id: tuf-root, safe: root, domain: tuf-root}\n\n# What people predictably do.", 1)
	return strings.Replace(text, "\nseal:", "  - {id: \"8.2\", do: update.root, title: Update root, limit: 30m}\n\nseal:", 1)
}

// TestRootAfterApproversChanged: the approvers change, and with them the update root.
// Whoever verifies the record sees that it names the new ones and that those who trust
// the root before take it; a record with another root, or none, does not hold.
func TestRootAfterApproversChanged(t *testing.T) {
	t.Parallel()
	f := found(t)
	genesis := f.newest
	v := f.later(t, plan{kind: "reshare", bind: f.approverChanges(t), edit: rootOnly})
	if _, ok := v.Charter.People.Person("approver3"); !ok {
		t.Fatal("approver3 did not come")
	}
	for _, name := range []string{"1.root.json", "2.root.json"} {
		if len(f.output(t, name)) == 0 {
			t.Errorf("no %s", name)
		}
	}
	m := &twoRecords{house: f.house}
	try := func(name string, change func(dir string, list []entry) []entry) error {
		t.Helper()
		dir := f.path("forged-" + strings.ReplaceAll(name, " ", "-"))
		if err := os.CopyFS(dir, os.DirFS(f.newest)); err != nil {
			t.Fatal(err)
		}
		m.forge(t, dir, change(dir, entries(t, dir)))
		_, err := record.Verify(os.DirFS(dir), f.anchors)
		return err
	}
	if err := try("nothing", func(_ string, list []entry) []entry { return list }); err != nil {
		t.Fatalf("the record as it is: %v", err)
	}
	without := func(path string) func(string, []entry) []entry {
		return func(dir string, list []entry) []entry {
			if err := os.Remove(filepath.Join(dir, path)); err != nil {
				t.Fatal(err)
			}
			var out []entry
			for _, e := range list {
				if e.Type != "output" || e.Data["path"] != path {
					out = append(out, e)
				}
			}
			return out
		}
	}
	swap := func(path string, data []byte) func(string, []entry) []entry {
		return func(dir string, list []entry) []entry {
			m.put(t, dir, list, path, data)
			return list
		}
	}
	one, two := "outputs/1.root.json", "outputs/2.root.json"
	people := f.rootBy(t, v, 2, "approver1", "approver3")
	first, err := os.ReadFile(filepath.Join(genesis, one))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string, []entry) []entry{
		"no root":            without(two),
		"no root before":     without(one),
		"the root of before": swap(two, first),
		"people alone":       swap(two, people),
		"another before":     swap(one, f.rootBy(t, v, 1, "approver1", "approver3")),
		"cut off":            swap(two, f.output(t, "2.root.json")[1:]),
	} {
		if err := try(name, change); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// rootBy is a root of the charter of v, signed by people only.
func (f *founded) rootBy(t *testing.T, v *record.Verified, version int64, names ...string) []byte {
	t.Helper()
	spec, err := tuf.RootOf(v.Charter, version, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := tuf.RootTBS(spec)
	if err != nil {
		t.Fatal(err)
	}
	var sigs []tuf.RootSignature
	for _, n := range names {
		s, err := tuf.SignRoot(tbs, f.people[n].Signer())
		if err != nil {
			t.Fatal(err)
		}
		sigs = append(sigs, s)
	}
	data, err := tuf.Assemble(spec, sigs)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withRoot is tinyScript with the keys of an update root, which it signs.
func withRoot(text string) string {
	var keys, born string
	for i, id := range []string{tuf.RootKeyID, tuf.TargetsKeyID, tuf.OnlineKeyID} {
		keys += "  - {id: " + id + ", safe: work, purpose: " + id + ", algorithm: p256, domain: " + id + ", usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: false, destroyable: true}}\n"
		born += "  - {id: \"5.9" + itoa(i) + "\", do: key.generate, key: " + id + ", title: a, limit: @LIMIT@}\n"
	}
	text = strings.Replace(text, "certificates:", keys+"certificates:", 1)
	text = strings.Replace(text, "  - {id: \"6.1\"", born+"  - {id: \"6.1\"", 1)
	return strings.Replace(text, "seal:", "  - {id: \"7.2\", do: update.root, title: a, limit: @LIMIT@}\nseal:", 1)
}

// renewsRoot has tinyReshare sign the next update root.
func renewsRoot(text string) string {
	text = strings.Replace(text, "keys: []", "keys: []\nexisting: [{id: tuf-root, safe: work, domain: tuf-root}]", 1)
	return strings.Replace(text, "seal:", "  - {id: \"2.6\", do: update.root, title: a, limit: 5m}\nseal:", 1)
}

// A void reshare that wrote an update root out leaves its epoch, and nothing of the
// root: the one that adopts the epoch signs that version itself, and holds with the
// other's inside it.
func TestAdoptsAfterAVoidRoot(t *testing.T) {
	t.Parallel()
	x := tinyOf(t, withRoot(tinyScript))
	x.root = filepath.Join(x.dir, record.OutputsDir, "1.root.json")
	void := x.killed(t, "void", 2, entryOf("output", "outputs/2.root.json"))
	dir, v := x.closes(t, "adopting", void)
	if e := v.Charter.Epochs["work"]; e.Epoch != 3 || v.Open.Base.Adopts == nil {
		t.Errorf("epoch %d, adopts %+v", e.Epoch, v.Open.Base.Adopts)
	}
	files := slurp(t, dir)
	own, theirs := files[record.OutputsDir+"/2.root.json"], files[record.AfterDir+"/outputs/2.root.json"]
	if len(own) == 0 || len(theirs) == 0 || bytes.Equal(own, theirs) {
		t.Errorf("roots of %d and %d bytes", len(own), len(theirs))
	}
	if err := tuf.CheckNext(files[record.OutputsDir+"/1.root.json"], own); err != nil {
		t.Error(err)
	}
}

// A missing root to follow, or what is none, is found before ARMED, where it costs
// nothing yet.
func TestRootToFollowIsWantedBeforeArmed(t *testing.T) {
	t.Parallel()
	f := found(t)
	for name, x := range map[string]struct {
		root  string
		class fault.Class
	}{
		"none":    {"", fault.Usage},
		"nowhere": {"nowhere.json", fault.Usage},
		"no root": {"conductor.person", fault.Verify},
	} {
		name := strings.ReplaceAll(name, " ", "-")
		_, err := f.try(t, plan{kind: "reshare", record: name, edit: rootOnly, bind: func(b *Bind) { b.Root = x.root }})
		if fault.ClassOf(err) != x.class {
			t.Errorf("%s: %v (%s)", name, err, fault.ClassOf(err))
		}
	}
}
