package actions

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/hsm/hsmtest"
)

// later is a vault over the fault module, whose tokens one kind of ceremony after
// the other finds as the genesis left them. The scripts are those that we ship, with
// fewer keys, each of whose requests repeat those of another, and one key that may
// travel.
type later struct {
	*stand
	on     func(*Bind) // continues the vault
	first  string      // record of the genesis
	shares string      // folder of the shares
	label  string      // of its tokens
	saved  string      // copy of the token store
	kind   string
	mends  laterKind
	whole  int // objects in the store after a ceremony that nothing spoils
}

// laterKind is what one kind of ceremony needs beside its script.
type laterKind struct {
	bind    func(*Bind, *later)
	prepare func(*testing.T, *later) // on fresh tokens
	edit    func(string) string
	safes   []string // opened in it
}

func laterKinds() map[string]laterKind {
	root := func(b *Bind, x *later) { b.Root = filepath.Join(x.first, record.OutputsDir, "1.root.json") }
	requests := func(b *Bind, _ *later) {
		maps.Copy(b.Requests, map[string]string{"factory2-ca": "a.csr", "factory3-ca": "a.csr", "report3": "b.csr", "relay-access3": "c.csr"})
		b.Keys["pipeline3"] = "pipeline1.pem"
	}
	return map[string]laterKind{
		"new-key":    {safes: []string{"work"}},
		"succession": {safes: []string{"root", "root2", "work", "work2"}},
		"retire":     {safes: []string{"work2"}},
		"enrol":      {safes: []string{"root", "work"}, bind: requests},
		"sign-offline": {safes: []string{"root"}, bind: func(b *Bind, x *later) {
			root(b, x)
			requests(b, x)
		}},
		"hsm-lost": {safes: []string{"root", "work2"}, bind: root, prepare: func(t *testing.T, x *later) {
			t.Helper()
			if err := os.RemoveAll((&founded{house: x.house}).tokenFolder(t, x.label+"-work")); err != nil {
				t.Fatal(err)
			}
		}},
		"transfer": {safes: []string{"work", "work2"}, edit: func(text string) string { return strings.ReplaceAll(text, "firmware-gw300", "traveller") }},
	}
}

// traveller is added to the genesis.
const traveller = `  - {id: traveller, safe: work, purpose: travels, algorithm: p256, domain: dsse, movable: true, usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: true, wrap_with_trusted: true, sensitive: true, always_authenticate: false, destroyable: true}}
`

func newLater(t *testing.T) *later {
	t.Helper()
	x := &later{stand: newStand(t), shares: "shares-later", label: "later", kind: "genesis"}
	text := strings.Replace(x.shipped(t), "certificates:\n", traveller+"certificates:\n", 1)
	text = strings.Replace(text, `  - {id: "6.1"`, `  - {id: "5.99", do: key.generate, key: traveller, title: Traveller, limit: 10m}`+"\n"+`  - {id: "6.1"`, 1)
	x.faults.Reset(0, 0, 0)
	var err error
	x.first, err = x.perform(t, attempt{name: "genesis", text: text, file: "bind.yaml", bind: x.faulty})
	if err != nil {
		t.Fatal(err)
	}
	x.cosign(t, x.first, "witness2")
	x.on = continues(x.first)
	x.saved = x.path("saved")
	if err := os.CopyFS(x.saved, os.DirFS(x.env.TokenDir)); err != nil {
		t.Fatal(err)
	}
	return x
}

// faulty makes a binding use the module that spoils a call, and lets it count.
func (x *later) faulty(b *Bind) {
	b.Module, b.Shares, b.Sandbox.Folders = x.faults.Module, x.shares, []string{x.env.Dir}
}

// become takes up another kind and counts its requests.
func (x *later) become(t *testing.T, kind string) {
	t.Helper()
	var known bool
	x.kind = kind
	if x.mends, known = laterKinds()[kind]; !known {
		t.Fatalf("there is no kind %s", kind)
	}
	x.fresh(t)
	dir, err := x.hold(t, "whole-"+kind, 0, x.learn)
	if err != nil {
		t.Fatal(err)
	}
	x.total, _ = x.faults.Calls()
	x.whole = len(x.objects(t))
	x.closes(t, "without a fault", dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// shipped is the text of the kind's script that we ship, over this vault's tokens.
func (x *later) shipped(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../scripts/ceremonies/" + x.kind + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := cutLines(string(data), "acceptance", "provision-", "{id: log", "key: log")
	if x.mends.edit != nil {
		text = x.mends.edit(text)
	}
	return strings.NewReplacer("@TITLE@", "Sweep of "+x.kind, "@NETWORK@", "any", "@SWAP@", "any", "@DUMPS@", "any", "@CLOCK@", "any",
		"@ROOT@", x.label+"-root", "@WORK@", x.label+"-work").Replace(text)
}

func (x *later) binding(t *testing.T) *Bind {
	t.Helper()
	b := x.bind(t, "bind.yaml")
	x.bound(b)
	return b
}

func (x *later) bound(b *Bind) {
	x.faulty(b)
	b.Released = []string{}
	x.on(b)
	if x.mends.bind != nil {
		x.mends.bind(b, x)
	}
}

func (x *later) hold(t *testing.T, name string, action hsmtest.Action, enters func(string)) (string, error) {
	t.Helper()
	return x.perform(t, attempt{name: name, text: x.shipped(t), file: "bind.yaml", action: action, enters: enters, bind: x.bound})
}

// fresh puts the tokens back to where the genesis left them.
func (x *later) fresh(t *testing.T) {
	t.Helper()
	x.faults.Reset(0, 0, 0)
	x.empty(t)
	if err := os.CopyFS(x.env.TokenDir, os.DirFS(x.saved)); err != nil {
		t.Fatal(err)
	}
	if x.mends.prepare != nil {
		x.mends.prepare(t, x)
	}
}

// objects names the objects in the store, by token and file.
func (s *stand) objects(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.env.TokenDir, "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(f string) bool { return filepath.Base(f) == "token.object" })
}

// closes wants a closed record that only waits for the witness who is elsewhere.
func (x *later) closes(t *testing.T, name, dir string) {
	t.Helper()
	if v, err := record.VerifyOwn(os.DirFS(dir)); v == nil || v.State != "CLOSED" || fault.ClassOf(err) != fault.Quorum {
		t.Errorf("%s: the record does not close: %v", name, err)
	}
	if n := len(x.objects(t)); n != x.whole {
		t.Errorf("%s: %d objects are in the store, want %d", name, n, x.whole)
	}
}

// spoil holds the ceremony with one call spoiled. A call that comes after CLOSED, when
// sessions end, changes nothing. Otherwise the outcome is VOID, by itself or by
// recover, which the word says; nothing new is in any token, and nothing is missing
// but what the record announced to destroy, unless it names the token as tainted.
func (x *later) spoil(t *testing.T, sp spoiling) string {
	t.Helper()
	x.fresh(t)
	before := x.objects(t)
	x.faults.Reset(sp.function, sp.n, sp.action)
	dir, err := x.hold(t, sp.String(), sp.action, nil)
	defer os.RemoveAll(dir)
	if _, done := x.faults.Calls(); !done {
		t.Errorf("the call never came: %v", err)
		return ""
	}
	x.faults.Reset(0, 0, 0)
	if sp.n > x.closed[sp.function] {
		if err != nil {
			t.Errorf("after CLOSED: %v", err)
		}
		x.closes(t, "after CLOSED", dir)
		return "closed"
	}
	if fault.ClassOf(err) != fault.Void {
		t.Errorf("the outcome is %v (%s)", err, fault.ClassOf(err))
		return ""
	}
	word := "void"
	if errors.Is(err, ceremony.ErrUnsettled) {
		word = x.settle(t, dir)
	}
	v, err := record.Read(os.DirFS(dir))
	if v == nil || v.State != "VOID" || fault.ClassOf(err) != fault.Void {
		t.Errorf("the record reads as %v", err)
		return word
	}
	x.accounted(t, v, before)
	return word
}

// settle recovers an attempt that could not leave a token as it was: with shares, or
// where they open nothing any more by giving the token up.
func (x *later) settle(t *testing.T, dir string) string {
	t.Helper()
	c := &Cleaner{Bind: x.binding(t), Record: dir, HSMD: x.env.Config.HSMD}
	for _, safe := range x.mends.safes {
		c.Openers = append(c.Openers, x.openersIn(t, x.shares, safe)...)
	}
	err := ceremony.Recover(t.Context(), dir, ceremony.SystemClock(), c, false)
	if fault.ClassOf(err) == fault.Void {
		return "recovered"
	}
	t.Logf("recover with shares: %v", err)
	if err := ceremony.Recover(t.Context(), dir, ceremony.SystemClock(), c, true); fault.ClassOf(err) != fault.Void {
		t.Errorf("recover: %v", err)
	}
	return "abandoned"
}

// accounted compares the store with what the record says became of it.
func (x *later) accounted(t *testing.T, v *record.Verified, before []string) {
	t.Helper()
	ends, wiped, kept, tainted := 0, 0, 0, map[string]bool{}
	for _, l := range v.Timeline {
		switch d := l.Data.(type) {
		case *record.Intent:
			if d.Effect == "destroy" && d.Object != "" {
				ends++
			} else if d.Effect == "destroy" {
				wiped++
			}
		case *record.Cleanup:
			kept += len(d.Kept)
			tainted[d.Safe] = d.Tainted != ""
			if d.Left != 0 && d.Tainted == "" {
				t.Errorf("safe %s: %d objects left, and its token is not named", d.Safe, d.Left)
			}
		}
	}
	after := x.objects(t)
	missing := slices.DeleteFunc(slices.Clone(before), func(f string) bool { return slices.Contains(after, f) })
	fresh := slices.DeleteFunc(slices.Clone(after), func(f string) bool { return slices.Contains(before, f) })
	if len(tainted) == 0 && ends+wiped > 0 {
		t.Error("no clean-up is recorded")
	}
	for _, safe := range x.mends.safes {
		if tainted[safe] {
			return // named as never to be used again, whatever is in it
		}
	}
	if len(missing) > 2*ends && wiped == 0 {
		t.Errorf("%d objects are missing, and %d keys were to be destroyed: %v", len(missing), ends, missing)
	}
	if len(fresh) > 2*kept {
		t.Errorf("%d objects are new in the tokens, and %d keys kept: %v", len(fresh), kept, fresh)
	}
}

// Every single request of each later kind of ceremony is spoiled once in each way
// (R-CER-14, R-CER-15). KEYRITE_TEST_KIND takes one kind.
func TestLongEveryRequestOfLaterCeremoniesSpoiled(t *testing.T) {
	long(t)
	x := newLater(t)
	for _, kind := range slices.Sorted(maps.Keys(laterKinds())) {
		if only := os.Getenv("KEYRITE_TEST_KIND"); only != "" && only != kind {
			continue
		}
		x.become(t, kind)
		sweep(t, kind, x.every, x.spoilOne)
	}
}

func (x *later) spoilOne(t *testing.T, sp spoiling) string {
	t.Helper()
	return x.spoil(t, sp)
}

// A signature of each later kind hangs, and a request drawn by a fixed seed is
// spoiled; --long has all.
func TestSomeRequestsOfLaterCeremoniesSpoiled(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 10))
	x := newLater(t)
	for _, kind := range slices.Sorted(maps.Keys(laterKinds())) {
		x.become(t, kind)
		sign := slices.Index(hsmtest.Functions(), "C_Sign")
		list := x.every(r.Uint64())[:1]
		if x.total[sign] > 0 {
			list = append(list, spoiling{sign, x.total[sign], hsmtest.Hang})
		}
		for _, sp := range list {
			t.Run(fmt.Sprintf("%s %s", kind, sp), func(t *testing.T) { x.spoil(t, sp) })
		}
	}
}
