package actions

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/hsm/hsmtest"
	"keyrite/vault/quorum"
)

// stuck is a reshare killed with signal 9 after the token's PINs had changed and before
// anything was committed, and recovered with the new shares alone: the token opens for
// epoch 2, and the charter knows epoch 1.
func (x *tiny) stuck(t *testing.T, name string) string {
	t.Helper()
	x.fresh(t)
	return x.killed(t, name, 2, entryOf("pins-changed", ""))
}

// killed is the next reshare, killed when it is time and recovered with the shares of
// that epoch alone.
func (x *tiny) killed(t *testing.T, name string, epoch int, now func([]byte) bool) string {
	t.Helper()
	dir := x.kill(t, name, now)
	x.faults.Reset(0, 0, 0)
	if err := x.recover(t, dir, epoch); fault.ClassOf(err) != fault.Void {
		t.Fatalf("recover: %v", err)
	}
	if !x.opens(t, dir, epoch) {
		t.Fatalf("epoch %d does not open the token", epoch)
	}
	return dir
}

// adopt holds the reshare that takes over what the void one in after left.
func (x *tiny) adopt(t *testing.T, name, after string) (string, error) {
	t.Helper()
	x.after = after
	defer func() { x.after = "" }()
	return x.reshare(t, name)
}

// closes wants that reshare to close, and returns its record as a stranger verifies it.
func (x *tiny) closes(t *testing.T, name, after string) (string, *record.Verified) {
	t.Helper()
	dir, err := x.adopt(t, name, after)
	if err != nil {
		t.Fatal(err)
	}
	x.cosign(t, dir, "witness2")
	founded, err := verifyOwn(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := record.Verify(os.DirFS(dir), founded.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	return dir, v
}

// The whole way: a reshare killed with signal 9 between the change of the SO PIN and
// the commit, recovered with the new shares alone; the next one adopts that epoch,
// with the void record as the proof, and deals the one after it (R-CER-9, R-CER-14).
func TestAdoptsTheEpochOfAVoidReshare(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	for name, when := range map[string]func() func([]byte) bool{
		"the user PIN still the old one": func() func([]byte) bool {
			x.faults.Reset(slices.Index(hsmtest.Functions(), "C_InitPIN"), 1, hsmtest.Hang)
			return func([]byte) bool { _, done := x.faults.Calls(); return done }
		},
		"both changed": func() func([]byte) bool { return entryOf("pins-changed", "") },
		"stated":       func() func([]byte) bool { return entryOf("statement", `"type":"epoch"`) },
		"written out":  func() func([]byte) bool { return entryOf("output", "outputs/charter.jsonl") },
	} {
		t.Run(name, func(t *testing.T) {
			name := strings.ReplaceAll(name, " ", "-")
			x.fresh(t)
			x.adoptsEpoch(t, name, x.killed(t, "void-"+name, 2, when()))
		})
	}
}

// adoptsEpoch holds the reshare after a void one that left epoch 2, and looks at all
// that comes of it.
func (x *tiny) adoptsEpoch(t *testing.T, name, void string) {
	t.Helper()
	st, err := ceremony.ReadState(void)
	if err != nil {
		t.Fatal(err)
	}
	if told := strings.Join(st.TellLeft(void), "\n"); !strings.Contains(told, "epoch 2 alone") || !strings.Contains(told, "new reshare --after "+void) {
		t.Errorf("it tells %q", told)
	}
	dir, v := x.closes(t, "adopting-"+name, void)
	want := record.Adopts{Epochs: []record.AdoptedEpoch{{Epoch: 2, Record: st.Record, Root: st.Root, Safe: "work"}}, Keys: []record.AdoptedKey{}}
	if got := v.Open.Base.Adopts; got == nil || !slices.Equal(got.Epochs, want.Epochs) || len(got.Keys) != 0 {
		t.Errorf("adopts %+v, want %+v", got, want)
	}
	if e := v.Charter.Epochs["work"]; e.Epoch != 3 || v.Charter.Stale("work") || v.Charter.Size() != v.Open.Base.CharterSize+2 {
		t.Errorf("the charter ends at epoch %d, stale %v, with %d statements after %d", e.Epoch, v.Charter.Stale("work"), v.Charter.Size(), v.Open.Base.CharterSize)
	}
	x.onlyOpens(t, map[int]string{1: void, 2: void, 3: dir}, 3)
	if _, err := os.Stat(filepath.Join(dir, record.AfterDir, record.TranscriptFile)); err != nil {
		t.Error(err)
	}
	// What was adopted is not adopted again.
	again, err := record.VerifyVoid(os.DirFS(void), v.Anchors, slurp(t, dir)["outputs/charter.jsonl"])
	if err != nil {
		t.Fatal(err)
	}
	if left, err := again.Pending(v.Charter); err != nil || left.Adopts() != nil {
		t.Errorf("it leaves %+v, %v", left.Adopts(), err)
	}
}

// The void reshare replaced a key master: his successor holds a share of the epoch that
// alone opens the token, and is in no charter. The next reshare has both come in: it
// adopts the epoch and takes him into the charter, by the approvers and by himself; who
// left opens nothing any more. Without that step his share does not count.
func TestAdoptsAfterAVoidChangeOfPeople(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	x.came = "master3"
	void := x.killed(t, "void", 2, entryOf("pins-changed", ""))
	later := x.came

	x.came = "" // the people of before alone: nobody of them but one has a share
	if _, err := x.adopt(t, "of-before", void); fault.ClassOf(err) != fault.Void {
		t.Errorf("with the key masters of before: %v", err)
	}
	x.came = later
	x.edit = func(text string) string { return strings.Replace(text, "do: people.change", "do: pause", 1) }
	if _, err := x.adopt(t, "without-the-step", void); err == nil || !strings.Contains(err.Error(), "master3 is not in the charter") {
		t.Errorf("without a change of people: %v", err)
	}
	x.edit = nil

	dir, v := x.closes(t, "adopting", void)
	_, left := v.Charter.People.Person("master2")
	m, came := v.Charter.People.Person("master3")
	if e := v.Charter.Epochs["work"]; e.Epoch != 3 || v.Charter.Stale("work") || left || !came || m.Role != charter.RoleKeyMaster || !m.Person.Equal(x.people["master3"].Public()) {
		t.Errorf("epoch %d, stale %v, master2 is there: %v, master3 came: %v as %q", e.Epoch, v.Charter.Stale("work"), left, came, m.Role)
	}
	if got := v.Open.Base.Adopts; got == nil || len(got.Epochs) != 1 || got.Epochs[0].Epoch != 2 {
		t.Errorf("adopts %+v", got)
	}
	x.onlyOpens(t, map[int]string{1: void, 2: void, 3: dir}, 3)
}

// An adopting reshare may be killed in the same way: the next one adopts both epochs,
// with one void record in the other.
func TestAdoptsWhatAnAdoptingReshareLeft(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	first := x.stuck(t, "first")
	x.after = first
	second := x.killed(t, "second", 3, entryOf("pins-changed", ""))
	x.after = ""
	dir, v := x.closes(t, "third", second)
	if e := v.Charter.Epochs["work"]; e.Epoch != 4 || len(v.Open.Base.Adopts.Epochs) != 2 {
		t.Errorf("epoch %d, adopts %+v", e.Epoch, v.Open.Base.Adopts)
	}
	x.onlyOpens(t, map[int]string{1: first, 2: first, 3: second, 4: dir}, 4)
}

// onlyOpens wants one of the epochs, each dealt in a record, to open the token. It is
// tried after each other one: the supervisor counts wrong PINs in a row.
func (x *tiny) onlyOpens(t *testing.T, from map[int]string, last int) {
	t.Helper()
	for e := range from {
		if e != last && x.opens(t, from[e], e) {
			t.Errorf("epoch %d opens the token", e)
		}
		if !x.opens(t, from[last], last) {
			t.Errorf("epoch %d does not open the token", last)
		}
	}
}

// An adopting reshare that is killed and put back leaves the adopted epoch in force,
// and the next one adopts that.
func TestAdoptsAfterAnAdoptingReshareWasPutBack(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	first := x.stuck(t, "first")
	x.after = first
	second := x.kill(t, "second", entryOf("pins-changed", ""))
	x.after = ""
	if err := x.recover(t, second, 2, 3); fault.ClassOf(err) != fault.Void {
		t.Fatalf("recover: %v", err)
	}
	if !x.opens(t, first, 2) || x.opens(t, second, 3) {
		t.Error("not epoch 2 alone opens the token")
	}
	later, err := filepath.Glob(x.path("shares-tiny/work/*.epoch3.share")) // burned
	if err != nil || len(later) != 2 {
		t.Fatal(later, err)
	}
	for _, f := range later {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	_, v := x.closes(t, "third", second)
	if e := v.Charter.Epochs["work"]; e.Epoch != 3 || len(v.Open.Base.Adopts.Epochs) != 1 {
		t.Errorf("epoch %d, adopts %+v", e.Epoch, v.Open.Base.Adopts)
	}
}

// A void record alone moves nothing: without the shares that it names, with those of
// before, in a token that never took its PINs, under a script that does not say so,
// altered, or of another vault, nothing is adopted.
func TestAdoptsNothingWithoutProof(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	void := x.stuck(t, "void")
	theirs := tinyOf(t, tinyScript).stuck(t, "theirs")
	refused := func(name, after string, class fault.Class, text string) {
		t.Helper()
		_, err := x.adopt(t, name, after)
		if fault.ClassOf(err) != class || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v (%s), want class %s, %q", name, err, fault.ClassOf(err), class, text)
		}
	}
	altered := x.path("altered")
	if err := os.CopyFS(altered, os.DirFS(void)); err != nil {
		t.Fatal(err)
	}
	data := slurp(t, void)[record.TranscriptFile]
	data[len(data)/2] ^= 1
	if err := os.WriteFile(filepath.Join(altered, record.TranscriptFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := record.Read(os.DirFS(altered)); fault.ClassOf(err) != fault.Verify {
		t.Fatalf("the altered record reads: %v", err)
	}
	s, _ := x.adopting(t)
	a, err := New(s, x.binding(t), quorum.Config{}, x.env.Config.HSMD)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Adopt(altered); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a record altered by a byte: %v", err)
	}
	listed := x.path("listed") // a file that its transcript does not name
	if err := os.CopyFS(listed, os.DirFS(void)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(listed, "outputs/more"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("unlisted", listed, fault.Verify, "not listed")
	refused("another-vault", theirs, fault.Verify, "other anchors")
	x.edit = func(text string) string { return strings.ReplaceAll(text, ", adopts: true", "") }
	refused("not-said", void, fault.Policy, "does not adopt it")
	x.edit = nil

	// The old shares only.
	for _, n := range []string{"master1", "master2"} {
		if err := os.Rename(x.share(n, 2), x.share(n, 2)+".away"); err != nil {
			t.Fatal(err)
		}
	}
	refused("no-shares", void, fault.Void, "needs the shares of 2")
	if err := os.Rename(x.share("master1", 2)+".away", x.share("master1", 2)); err != nil {
		t.Fatal(err)
	}
	refused("one-share", void, fault.Void, "1 of those here")
	old, err := os.ReadFile(x.share("master2", 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x.share("master2", 2), old, 0o600); err != nil { // as if it were of epoch 2
		t.Fatal(err)
	}
	refused("an-old-share", void, fault.Void, "")
	if err := os.Rename(x.share("master2", 2)+".away", x.share("master2", 2)); err != nil {
		t.Fatal(err)
	}

	// Everything signed as it should be, and a token that never took those PINs.
	x.empty(t)
	if err := os.CopyFS(x.env.TokenDir, os.DirFS(x.saved)); err != nil {
		t.Fatal(err)
	}
	refused("another-token", void, fault.Void, "")
	if !x.opens(t, void, 1) {
		t.Error("the shares in force do not open the token any more")
	}
}

// A void reshare that put its token back leaves nothing: the next one opens it for the
// shares that the charter names, whatever its script may adopt.
func TestAdoptsNothingThatWasPutBack(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	void := x.kill(t, "void", entryOf("pins-changed", ""))
	if err := x.recover(t, void, 1, 2); fault.ClassOf(err) != fault.Void {
		t.Fatal(err)
	}
	later, err := filepath.Glob(x.path("shares-tiny/work/*.epoch2.share"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range later {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	st, err := ceremony.ReadState(void)
	if err != nil || st.TellLeft(void) != nil {
		t.Errorf("it tells %v, %v", st.TellLeft(void), err)
	}
	dir, v := x.closes(t, "next", void)
	if v.Open.Base.Adopts != nil || v.Charter.Epochs["work"].Epoch != 2 {
		t.Errorf("adopts %+v, epoch %d", v.Open.Base.Adopts, v.Charter.Epochs["work"].Epoch)
	}
	if _, err := os.Stat(filepath.Join(dir, record.AfterDir)); err == nil {
		t.Error("it keeps a record that proves nothing")
	}
}
