package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/console"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/redact"
	"keyrite/vault/quorum"
)

// tinyReshare deals the one safe of tinyScript anew.
const tinyReshare = `format: keyrite/script/v1
kind: reshare
title: Faults
purpose: break off a change of PINs
pins: {keyrite: @KEYRITE@, hsmd: @HSMD@, module: @MODULE@}
environment: {network: any, swap: any}
roles: {conductor: 1, conductor_operates: true, key_masters: {need: 2, of: 2}, witnesses: 2, approvers: {need: 2, of: 2}}
safes: [{name: work, token: tiny, state: existing}]
keys: []
summon:
  - {id: "1.1", do: environment.check, title: a, limit: 5m}
  - {id: "1.2", do: people.identify, title: a, limit: 5m}
  - {id: "1.3", do: vault.load, title: a, limit: 5m}
run:
  - {id: "2.1", do: safe.open, safe: work, title: a, limit: 5m}
  - {id: "2.2", do: shares.deal, safe: work, title: a, limit: 5m}
  - {id: "2.3", do: shares.receipts, safe: work, title: a, limit: 5m}
  - {id: "2.4", do: token.repin, safe: work, title: a, limit: 5m}
  - {id: "2.5", do: charter.append, title: a, limit: 5m}
seal:
  - {id: "3.1", do: outputs.write, title: a, limit: 5m}
  - {id: "3.2", do: read.aloud, title: a, limit: 5m}
`

// tiny is a vault of one safe over the fault module, whose token a test breaks and
// gets back.
type tiny struct {
	*stand
	dir   string // record of the genesis
	saved string // copy of the token store
	// invalid is called when a ceremony here becomes invalid, before its clean-up.
	invalid func()
	// after is the record of a void reshare that the next one adopts, or "".
	after string
	// edit changes the script of the next one, if it is set.
	edit func(string) string
	// root is the update root that the next one follows with one of its own, or "".
	root string
	// came takes the place of master2 in the next one, or "".
	came string
}

// teller calls invalid when the ceremony says so.
type teller struct {
	ceremony.Console
	invalid func()
}

func (c *teller) Say(class, text string) {
	c.Console.Say(class, text)
	if strings.HasPrefix(text, "INVALID") && c.invalid != nil {
		c.invalid()
	}
}

// tinies are vaults of tinyScript that no test uses now. The module of one is compiled
// for its store, so that a test which wants one takes that store with it.
var tinies struct {
	sync.Mutex
	free []*tiny
}

// newTiny is a vault of tinyScript as its genesis left it, until the test ends.
func newTiny(t *testing.T) *tiny {
	t.Helper()
	first := takeTiny()
	if first == nil {
		first = tinyOf(lasting{t}, tinyScript)
	}
	t.Cleanup(func() {
		tinies.Lock()
		defer tinies.Unlock()
		tinies.free = append(tinies.free, first)
	})
	x := &tiny{stand: &stand{house: &house{dir: folder(t), env: first.env, people: maps.Clone(first.people)}, faults: first.faults.For(t), programs: first.programs}, saved: first.saved}
	copyTree(t, x.house.dir, first.house.dir)
	x.dir = x.path("record-tiny")
	if err := os.RemoveAll(x.env.Config.StateDir); err != nil {
		t.Fatal(err)
	}
	x.fresh(t)
	return x
}

func takeTiny() *tiny {
	tinies.Lock()
	defer tinies.Unlock()
	n := len(tinies.free)
	if n == 0 {
		return nil
	}
	defer func() { tinies.free = tinies.free[:n-1] }()
	return tinies.free[n-1]
}

// tinyOf is a vault of one safe that this script founds, in a store of its own.
func tinyOf(t testing.TB, text string) *tiny {
	t.Helper()
	x := &tiny{stand: newStand(t)}
	x.faults.Reset(0, 0, 0)
	var err error
	if x.dir, err = x.found(t, "tiny", text, 0, nil); err != nil {
		t.Fatal(err)
	}
	x.cosign(t, x.dir, "witness2")
	x.saved = x.path("saved")
	if err := os.CopyFS(x.saved, os.DirFS(x.env.TokenDir)); err != nil {
		t.Fatal(err)
	}
	return x
}

// fresh puts the token and the media back to where the genesis left them.
func (x *tiny) fresh(t *testing.T) {
	t.Helper()
	x.faults.Reset(0, 0, 0)
	x.empty(t)
	if err := os.CopyFS(x.env.TokenDir, os.DirFS(x.saved)); err != nil {
		t.Fatal(err)
	}
	later, err := filepath.Glob(x.path("shares-tiny/work/*.epoch*.share"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range later {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

// binding of the reshare.
func (x *tiny) binding(t *testing.T) *Bind {
	t.Helper()
	b := x.bind(t, "bind-faults.yaml")
	b.Shares, b.Tokens = "shares-tiny", nil
	b.Anchors, b.Charter = filepath.Join(x.dir, "outputs/anchors.json"), filepath.Join(x.dir, "outputs/charter.jsonl")
	b.Records, b.Root = []string{x.dir}, x.root
	if x.came != "" { // who leaves comes once more, and gives the last share of his that opens
		b.People = append(b.People, BindPerson{Person: x.came + ".person", Key: x.came + ".key", Role: charter.RoleKeyMaster})
		b.Leaves = []string{"master2"}
	}
	return b
}

// adopting is the script of the next reshare.
func (x *tiny) adopting(t *testing.T) (*script.Script, []byte) {
	t.Helper()
	programs, err := Programs(x.env.Config.HSMD, x.faults.Module)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("@KEYRITE@", programs[0].SHA256, "@HSMD@", programs[1].SHA256, "@MODULE@", programs[2].SHA256).Replace(tinyReshare)
	if x.after != "" {
		text = strings.ReplaceAll(text, "state: existing}", "state: existing, adopts: true}")
	}
	if x.root != "" {
		text = renewsRoot(text)
	}
	if x.came != "" {
		text = strings.Replace(text, `  - {id: "2.2", do`, `  - {id: "2.9", do: people.change, title: a, limit: 5m}`+"\n"+`  - {id: "2.2", do`, 1)
	}
	if x.edit != nil {
		text = x.edit(text)
	}
	sc, err := script.Parse("tiny.yaml", []byte(text))
	if err == nil {
		err = sc.Lint()
	}
	if err != nil {
		t.Fatal(err)
	}
	return sc, []byte(text)
}

// reshare holds the reshare in this process.
func (x *tiny) reshare(t *testing.T, name string) (string, error) {
	t.Helper()
	sc, text := x.adopting(t)
	programs, err := Programs(x.env.Config.HSMD, x.faults.Module)
	if err != nil {
		t.Fatal(err)
	}
	bind := x.binding(t)
	people, err := bind.Participants(sc)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := console.LoadAnswers(x.path("answers.yaml"), console.NewLine(io.Discard, nil))
	if err != nil {
		t.Fatal(err)
	}
	self, err := quorum.Self()
	if err != nil {
		t.Fatal(err)
	}
	acts, err := New(sc, bind, self, x.env.Config.HSMD)
	if err != nil {
		t.Fatal(err)
	}
	dir := x.path("record-" + name)
	var after *record.Ref
	if x.after != "" {
		st, err := ceremony.ReadState(x.after)
		if err != nil {
			t.Fatal(err)
		}
		after = st.Ref()
		if err := acts.Adopt(x.after); err != nil {
			return dir, err
		}
	}
	_, err = ceremony.Execute(context.Background(), ceremony.Config{
		Script: sc, ScriptBytes: text, BindHash: bind.Hash(), Dir: dir, World: bind.World, People: people, Programs: programs, After: after,
		Environment: map[string]string{}, Console: stepped(&teller{answers, x.invalid}), Clock: ceremony.SystemClock(), Actions: acts, Base: acts.Base(),
	})
	return dir, err
}

// TestHeldElsewhere is the reshare in a process of its own, for a test to kill.
func TestHeldElsewhere(t *testing.T) {
	dir := os.Getenv("KEYRITE_TEST_HOLD")
	if dir == "" {
		return // started only by TestKilledRepin, in a process of its own
	}
	x := &tiny{stand: &stand{house: &house{dir: dir, env: &hsmtest.Env{}}, faults: &hsmtest.Faults{Module: os.Getenv("KEYRITE_TEST_MODULE")}}}
	x.env.Config.HSMD, x.dir, x.after = os.Getenv("KEYRITE_TEST_HSMD"), filepath.Join(dir, "record-tiny"), os.Getenv("KEYRITE_TEST_AFTER")
	x.root, x.came = os.Getenv("KEYRITE_TEST_ROOT"), os.Getenv("KEYRITE_TEST_CAME")
	_, err := x.reshare(t, os.Getenv("KEYRITE_TEST_NAME"))
	t.Log(err)
}

// kill holds the reshare elsewhere and kills it with signal 9 when it is time.
func (x *tiny) kill(t *testing.T, name string, now func(transcript []byte) bool) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHeldElsewhere$", "-test.v")
	cmd.Env = append(slices.Concat(os.Environ(), x.env.Config.Env), "KEYRITE_TEST_HOLD="+x.house.dir, "KEYRITE_TEST_MODULE="+x.faults.Module, "KEYRITE_TEST_HSMD="+x.env.Config.HSMD, "KEYRITE_TEST_NAME="+name, "KEYRITE_TEST_AFTER="+x.after, "KEYRITE_TEST_ROOT="+x.root, "KEYRITE_TEST_CAME="+x.came)
	dir := x.path("record-" + name)
	killWhen(t, cmd, dir, now)
	return dir
}

func entryOf(typ, with string) func([]byte) bool {
	return func(data []byte) bool {
		return slices.ContainsFunc(strings.Split(string(data), "\n"), func(l string) bool {
			return strings.HasSuffix(l, `"type":"`+typ+`"}`) && strings.Contains(l, with)
		})
	}
}

// state is the vault with the epoch whose shares are asked for.
func (x *tiny) state(t *testing.T, dir string, epoch int) *charter.State {
	t.Helper()
	lines, err := os.ReadFile(filepath.Join(x.dir, "outputs/charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifyOwn(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := charter.Fold(lines, v.Anchors.World, v.Anchors.Vault)
	if err != nil {
		t.Fatal(err)
	}
	if epoch > 1 {
		st, err := ceremony.ReadState(dir)
		if err != nil {
			t.Fatal(err)
		}
		s.Epochs["work"] = st.Dealt["work"].Epoch
		if x.came != "" {
			s.People.Roster = append(slices.Clone(s.People.Roster), charter.Member{Person: *x.people[x.came].Public(), Role: charter.RoleKeyMaster})
		}
	}
	return s
}

func (x *tiny) share(name string, epoch int) string {
	return (&Actions{bind: &Bind{Shares: "shares-tiny", dir: x.house.dir}}).shareFile("work", name, epoch)
}

// opens says whether the shares of an epoch open the token.
func (x *tiny) opens(t *testing.T, dir string, epoch int) bool {
	t.Helper()
	sup, err := hsm.Start(t.Context(), x.env.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer sup.Close()
	s := x.state(t, dir, epoch)
	c := &Cleaner{Openers: x.openers(t, "who", epoch)}
	id := hsm.TokenID{Label: s.Epochs["work"].Token.Label, Serial: s.Epochs["work"].Token.Serial}
	if err := c.take(t.Context(), sup, id, "who", quorum.OpenParams{State: s, Safe: "work"}, hsm.Current); err != nil {
		t.Fatal(err)
	}
	sess, err := sup.Open(t.Context(), id)
	if err != nil && !errors.Is(err, hsm.ErrPIN) {
		t.Fatal(err)
	}
	if err == nil {
		_ = sess.Close()
	}
	return err == nil
}

func (x *tiny) openers(t *testing.T, who string, epoch int) []SafeOpener {
	t.Helper()
	var out []SafeOpener
	second := "master2"
	if x.came != "" && epoch > 1 {
		second = x.came
	}
	for _, n := range []string{"master1", second} {
		key, err := os.ReadFile(x.path(n + ".key"))
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(x.share(n, epoch))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, SafeOpener{Safe: who, Opener: quorum.Opener{Key: key, Share: file}, Passphrase: redact.New([]byte(passphrase(n)))})
	}
	return out
}

// recover takes the killed reshare to VOID with shares of the epochs given.
func (x *tiny) recover(t *testing.T, dir string, epochs ...int) error {
	t.Helper()
	return x.recoverBy(t, dir, x.faults.Module, epochs...)
}

// recoverBy is recover through that module.
func (x *tiny) recoverBy(t *testing.T, dir, module string, epochs ...int) error {
	t.Helper()
	c := &Cleaner{Bind: x.binding(t), Record: dir, HSMD: x.env.Config.HSMD}
	c.Bind.Module = module
	st, err := ceremony.ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	inForce := 1 // as the killed one found it
	for _, o := range st.Opened {
		inForce = o.Epoch
	}
	for _, e := range epochs {
		who := "work"
		if e > inForce {
			who = "work/" + itoa(e)
		}
		c.Openers = append(c.Openers, x.openers(t, who, e)...)
	}
	var clean ceremony.Cleaner
	if len(epochs) > 0 {
		clean = c
	}
	return ceremony.Recover(t.Context(), dir, ceremony.SystemClock(), clean, false)
}

// A reshare killed with signal 9 anywhere, also inside the calls that change the
// PINs, leaves a token that recover brings under exactly one epoch, with the shares
// of both, or of the new one alone (R-CER-9, R-CER-14).
func TestKilledRepin(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	inside := func(call string) func([]byte) bool {
		x.faults.Reset(slices.Index(hsmtest.Functions(), call), 1, hsmtest.Hang)
		return func([]byte) bool { _, done := x.faults.Calls(); return done }
	}
	entry := func(typ, with string) func() func([]byte) bool {
		return func() func([]byte) bool { return entryOf(typ, with) }
	}
	tests := []struct {
		name   string
		when   func() func([]byte) bool
		shares []int // given to recover
		want   int   // epoch that opens the token afterwards
		void   bool  // recover ends it; else it asks for more
	}{
		{"opening-announced", entry("intent", `"effect":"open"`), nil, 1, true},
		{"dealt", entry("dealt", ""), nil, 1, true},
		{"begun", entry("begin", "token.repin"), nil, 1, true},
		{"so-unchanged-none", func() func([]byte) bool { return inside("C_SetPIN") }, nil, 1, false},
		{"so-unchanged-both", func() func([]byte) bool { return inside("C_SetPIN") }, []int{1, 2}, 1, true},
		{"so-unchanged-old", func() func([]byte) bool { return inside("C_SetPIN") }, []int{1}, 1, true},
		{"so-unchanged-new", func() func([]byte) bool { return inside("C_SetPIN") }, []int{2}, 1, true},
		{"so-changed-both", func() func([]byte) bool { return inside("C_InitPIN") }, []int{1, 2}, 1, true},
		{"so-changed-new", func() func([]byte) bool { return inside("C_InitPIN") }, []int{2}, 2, true},
		{"so-changed-old", func() func([]byte) bool { return inside("C_InitPIN") }, []int{1}, 0, false},
		{"announced", entry("intent", `"effect":"repin"`), []int{1, 2}, 1, true},
		{"changed-both", entry("pins-changed", ""), []int{1, 2}, 1, true},
		{"changed-new", entry("pins-changed", ""), []int{2}, 2, true},
		{"changed-old", entry("pins-changed", ""), []int{1}, 2, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x.fresh(t)
			dir := x.kill(t, tt.name, tt.when())
			x.faults.Reset(0, 0, 0)
			if tt.name == "announced" { // another module than the one that ran never sees a PIN
				if err := x.recoverBy(t, dir, x.env.Config.Module, tt.shares...); fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), "is another module") {
					t.Errorf("by another module: %v (%s)", err, fault.ClassOf(err))
				}
			}
			err := x.recover(t, dir, tt.shares...)
			if tt.void != (fault.ClassOf(err) == fault.Void) || !tt.void && fault.ClassOf(err) != fault.Quorum {
				t.Fatalf("recover: %v (%s)", err, fault.ClassOf(err))
			}
			st, err := ceremony.ReadState(dir)
			if err != nil {
				t.Fatal(err)
			}
			if tt.void && (st.State != "VOID" || !slices.Equal(st.Exposed[:1], []string{"work/1"})) {
				t.Errorf("%s, exposed %v", st.State, st.Exposed)
			}
			for e := 1; e <= 2; e++ {
				// Killed while the shares were written, not every holder has one.
				_, err := os.Stat(x.share("master2", e))
				if err == nil && tt.want > 0 && x.opens(t, dir, e) != (e == tt.want) {
					t.Errorf("epoch %d opens the token: %v", e, e != tt.want)
				}
			}
		})
	}
}

// A failing request of the change itself makes the ceremony void, which puts the
// old PINs back by itself: the old epoch opens, the new one never.
func TestFailedRepinKeepsTheOldEpoch(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	for _, call := range []string{"C_SetPIN", "C_InitPIN"} {
		for _, action := range []hsmtest.Action{hsmtest.Fail, hsmtest.Lose, hsmtest.Crash, hsmtest.Die} {
			name := fmt.Sprintf("%s-%s", strings.ToLower(call[2:]), action)
			t.Run(name, func(t *testing.T) {
				x.fresh(t)
				x.faults.Reset(slices.Index(hsmtest.Functions(), call), 1, action)
				dir, err := x.reshare(t, name)
				if fault.ClassOf(err) != fault.Void {
					t.Fatalf("got %v", err)
				}
				x.faults.Reset(0, 0, 0)
				if !x.opens(t, dir, 1) || x.opens(t, dir, 2) {
					t.Error("not the old epoch alone opens the token")
				}
				st, err := ceremony.ReadState(dir)
				if err != nil || !slices.Contains(st.Exposed, "work/1") {
					t.Errorf("exposed %v, %v", st.Exposed, err)
				}
			})
		}
	}
}

// If the old PINs cannot be put back while the ceremony becomes void, it is left in
// CLEANUP, and recover ends it with the shares of both epochs or of the new one
// (R-CER-9, R-CER-14).
func TestFailedPutBackIsLeftToRecover(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	for _, tt := range []struct {
		name   string
		shares []int
		want   int
	}{{"both", []int{1, 2}, 1}, {"new", []int{2}, 2}} {
		t.Run(tt.name, func(t *testing.T) {
			x.fresh(t)
			away := x.path("away-" + tt.name)
			x.invalid = func() { // the reader is unplugged
				if err := os.CopyFS(away, os.DirFS(x.env.TokenDir)); err != nil {
					t.Error(err)
				}
				x.empty(t)
			}
			x.faults.Reset(slices.Index(hsmtest.Functions(), "C_InitPIN"), 1, hsmtest.Crash)
			dir, err := x.reshare(t, "putback-"+tt.name)
			if fault.ClassOf(err) != fault.Void || !errors.Is(err, ceremony.ErrUnsettled) {
				t.Fatalf("got %v", err)
			}
			st, err := ceremony.ReadState(dir)
			if err != nil || st.Ended || st.State != "CLEANUP" {
				t.Fatalf("%s, ended %v, %v", st.State, st.Ended, err)
			}
			x.faults.Reset(0, 0, 0)
			x.empty(t)
			if err := os.CopyFS(x.env.TokenDir, os.DirFS(away)); err != nil {
				t.Fatal(err)
			}
			if err := x.recover(t, dir); fault.ClassOf(err) != fault.Quorum {
				t.Errorf("recovered without shares: %v", err)
			}
			if err := x.recover(t, dir, tt.shares...); fault.ClassOf(err) != fault.Void {
				t.Fatalf("recover: %v", err)
			}
			if v, err := record.Read(os.DirFS(dir)); v == nil || v.State != "VOID" || fault.ClassOf(err) != fault.Void {
				t.Errorf("the record reads as %v", err)
			}
			for e := 1; e <= 2; e++ {
				if x.opens(t, dir, e) != (e == tt.want) {
					t.Errorf("epoch %d opens the token: %v", e, e != tt.want)
				}
			}
		})
	}
}
