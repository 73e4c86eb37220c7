package actions

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
)

// founded is a house whose genesis closed, with tokens founded-root and
// founded-work; later ceremonies continue it.
type founded struct {
	*house
	anchors *anchor.Anchors
	newest  string // record folder of the last ceremony that closed
}

// found is the founded vault, whose genesis is held once for all tests.
func found(t testing.TB) *founded {
	t.Helper()
	h := vaultOf(t, "founded", func() *house {
		h := newHouse(t)
		dir, err := h.rehearse(t, "founded", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		h.cosign(t, dir, "witness2")
		return h
	})
	v, err := verifyOwn(h.path("record-founded"))
	if err != nil {
		t.Fatal(err)
	}
	return &founded{h, v.Anchors, h.path("record-founded")}
}

// continued is the binding of a ceremony after the newest one.
func (f *founded) continued(b *Bind) {
	b.Anchors, b.Charter = filepath.Join(f.newest, "outputs/anchors.json"), filepath.Join(f.newest, "outputs/charter.jsonl")
	b.Records, b.Tokens, b.Released = []string{f.newest}, nil, []string{}
}

// later holds a ceremony of that kind that must close, cosigns it and verifies it.
func (f *founded) later(t testing.TB, p plan) *record.Verified {
	t.Helper()
	dir, err := f.try(t, p)
	if err != nil {
		t.Fatal(err)
	}
	f.cosign(t, dir, "witness2")
	v, err := record.Verify(os.DirFS(dir), f.anchors)
	if err != nil {
		t.Fatal(err)
	}
	f.newest = dir
	return v
}

func (f *founded) try(t testing.TB, p plan) (string, error) {
	t.Helper()
	p.label = "founded"
	if p.record == "" {
		p.record = "record-" + p.kind
	}
	more := p.bind
	p.bind = func(b *Bind) {
		f.continued(b)
		if more != nil {
			more(b)
		}
	}
	return f.hold(t, p)
}

// A further key is born in a token that is in force, opened by three key masters
// for that one step (R-CER-5).
func TestNewKeyContinuesTheVault(t *testing.T) {
	t.Parallel()
	f := found(t)
	v := f.later(t, plan{kind: "new-key"})
	if len(v.Keys) != 1 || v.Keys[0].Key.ID != "firmware-gw200" || v.Charter.Size() != v.Open.Base.CharterSize+1 {
		t.Errorf("%d keys, %d statements after %d", len(v.Keys), v.Charter.Size(), v.Open.Base.CharterSize)
	}
	if _, err := v.Charter.Key("firmware-gw200", "dsse"); err != nil {
		t.Error(err)
	}
	openings := 0
	for _, l := range v.Timeline {
		if _, ok := l.Data.(*record.Opening); ok {
			openings++
		}
	}
	if openings != 3 {
		t.Errorf("%d openings", openings)
	}
	if _, err := f.try(t, plan{kind: "new-key", record: "again"}); err == nil || !strings.Contains(err.Error(), "firmware-gw200") {
		t.Errorf("the same key again: %v", err)
	}
}

// replaced edits the binding: master5 leaves, master6 comes.
func (f *founded) replaced(t testing.TB) func(b *Bind) {
	t.Helper()
	if f.people["master6"] == nil {
		f.person(t, "master6")
		data, err := os.ReadFile(f.path("answers.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, "answers.yaml", append(data, "  master6: master6.pass\n"...))
	}
	return func(b *Bind) {
		for i := range b.People {
			if b.People[i].Person == "master5.person" {
				b.People[i].Person, b.People[i].Key = "master6.person", "master6.key"
			}
		}
		b.Leaves = []string{"master5"}
	}
}

// A reshare replaces a key master: new secrets, new PINs, all receipts, and the
// old shares are of an epoch that is over (R-CER-9, R-CER-24).
func TestReshareReplacesAKeyMaster(t *testing.T) {
	t.Parallel()
	f := found(t)
	v := f.later(t, plan{kind: "reshare", bind: f.replaced(t)})
	for _, safe := range []string{"root", "work", "root2", "work2"} {
		e := v.Charter.Epochs[safe]
		if e.Epoch != 2 || e.Shares[4].Holder != "master6" || v.Charter.Stale(safe) {
			t.Errorf("epoch of %s: %+v", safe, e)
		}
	}
	if _, ok := v.Charter.People.Person("master5"); ok {
		t.Error("master5 is still there")
	}
	repinned := 0
	for _, l := range v.Timeline {
		if i, ok := l.Data.(*record.Intent); ok && i.Effect == "repin" {
			repinned++
		}
	}
	if repinned != 4 {
		t.Errorf("%d tokens announced their new PINs", repinned)
	}
	// The vault goes on: new shares open, and master5 is nobody.
	if _, err := f.try(t, plan{kind: "new-key", record: "master5"}); fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), "master5") {
		t.Errorf("master5 takes part again: %v", err)
	}
	k := f.later(t, plan{kind: "new-key", bind: func(b *Bind) {
		f.replaced(t)(b)
		b.Leaves = nil
	}})
	if k.Charter.Size() != v.Charter.Size()+1 {
		t.Errorf("%d statements after %d", k.Charter.Size(), v.Charter.Size())
	}
}

// What a ceremony continues is checked before anything is at stake.
func TestContinuingNeedsTheVault(t *testing.T) {
	t.Parallel()
	other := genesis(t).closed
	f := found(t) // its token store is in force
	cut := func(n int) string {
		data, err := os.ReadFile(filepath.Join(f.newest, "outputs/charter.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
		f.write(t, "cut.jsonl", bytes.Join(lines[:len(lines)-n], nil))
		return "cut.jsonl"
	}
	tests := map[string]struct {
		bind  func(b *Bind)
		class fault.Class
	}{
		"no anchors":         {func(b *Bind) { b.Anchors = "" }, fault.Usage},
		"no charter":         {func(b *Bind) { b.Charter = "" }, fault.Usage},
		"anchors of another": {func(b *Bind) { b.Anchors = filepath.Join(other, "outputs/anchors.json") }, fault.Policy},
		"charter of another": {func(b *Bind) { b.Charter = filepath.Join(other, "outputs/charter.jsonl") }, fault.Policy},
		"record of another":  {func(b *Bind) { b.Records = []string{other} }, fault.Verify},
		"older charter":      {func(b *Bind) { b.Charter = cut(1) }, fault.Policy},
		"much older charter": {func(b *Bind) { b.Charter = cut(9) }, fault.Policy},
		"another token":      {func(b *Bind) { b.Tokens = map[string]string{"work": "founded-work/0000"} }, fault.Policy},
		"no shares":          {func(b *Bind) { b.Shares = "nowhere" }, fault.Quorum},
		"too few masters":    {func(b *Bind) { b.People = append(b.People[:1:1], b.People[4:]...) }, fault.Quorum},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if name == "too few masters" {
				s, _ := f.script(t, "new-key", "founded", nil)
				b := f.bind(t, "bind.yaml")
				tt.bind(b)
				if _, err := b.Participants(s); fault.ClassOf(err) != tt.class {
					t.Errorf("got %v", err)
				}
				return
			}
			_, err := f.try(t, plan{kind: "new-key", record: strings.ReplaceAll(name, " ", "-"), bind: tt.bind})
			got := fault.ClassOf(err)
			if c, ok := err.(interface{ FaultCause() string }); ok && got == fault.Void {
				got = fault.Class(c.FaultCause())
			}
			if got != tt.class {
				t.Errorf("got %v (%s), want class %s", err, got, tt.class)
			}
		})
	}
}
