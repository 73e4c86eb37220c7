package update_test

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/jcs"
	"keyrite/artifact/succession"
	"keyrite/gateway/secureelement/setest"
	"keyrite/gateway/update"
)

// twoTokens puts both root tokens and a person into the root role, two of whom
// must sign. The person's key is P-256 here, as all keys of repo are.
func (r *repo) twoTokens(version int64) func(*metadata.Metadata[metadata.RootType]) {
	return func(root *metadata.Metadata[metadata.RootType]) {
		root.Signed.Version = version
		for _, id := range []string{"tuf-root-2", "pipeline1"} {
			k, err := metadata.KeyFromPublicKey(r.w.Keys[id].Public())
			r.check(err)
			r.check(root.Signed.AddKey(k, metadata.ROOT))
		}
		root.Signed.Roles[metadata.ROOT].Threshold = 2
	}
}

// statement replaces keys by their twins.
func statement(t *testing.T, w *artifacttest.World, by string, ids ...string) []byte {
	t.Helper()
	var list []succession.Entry
	for _, id := range ids {
		list = append(list, succession.Entry{From: succession.Hash(w.SPKI(id)), ID: id, Reason: "lost", To: *w.Anchors.Dormant(id)})
	}
	b, err := succession.New(w.Anchors, nil, list, nil, "keyrite/record/0011223344556677", artifacttest.Now()).Sign(w.Anchors, w.Keys[by])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSuccessionOnTPM: a gateway that slept through the loss of a whole token
// learns of the standby's keys through the update channel, takes a release by
// them, and refuses the old key from then on, at once for what is offered and
// after the first confirmed release for what it starts (R-CER-25).
func TestSuccessionOnTPM(t *testing.T) {
	w := artifacttest.New(t)
	w.AddSuccessors()
	e := setest.Birth(t, w, 1)
	r := newRepo(t, w)
	r.root = r.makeRoot(r.twoTokens(1), "tuf-root", "pipeline1")
	r.put("metadata/1.root.json", r.root)
	dir := t.TempDir()
	slots := openSlots(t, dir, e)
	c := r.client(e)
	c.Succession = slots.Succession()
	install := func(want string) {
		t.Helper()
		o, err := c.Find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := slots.Install(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if b, err := slots.Boot(); err != nil || b.Statement.Predicate.Version != want {
			t.Fatalf("booted %+v, %v", b, err)
		}
	}
	reopen := func() error {
		_ = slots.Close()
		s, err := update.OpenSlots(dir, e, device())
		if err == nil {
			slots, c.Succession = s, s.Succession()
			t.Cleanup(func() { _ = s.Close() })
		}
		return err
	}
	counted := func(want int64) {
		t.Helper()
		if v, ok, err := e.Succession(); err != nil || !ok || v != want {
			t.Errorf("the element counts %d, %v, %v; want %d", v, ok, err, want)
		}
	}
	r.publish(map[string][]byte{"gw100-1.0.0.krf": w.Release(image(t, 50_000), "1.0.0", 1).KRF})
	install("1.0.0")
	if _, err := slots.Confirm(); err != nil {
		t.Fatal(err)
	}
	counted(0)

	// The work token is gone. Root 2 names the standby's online keys; the old
	// firmware key, which somebody may have, signs a release with a high version.
	thief := w.Release(image(t, 50_000), "9.0.0", 9)
	ids := []string{"firmware", "log", "tuf-targets", "tuf-online"}
	st := statement(t, w, "succession", ids...)
	s, err := succession.Verify(st, w.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	told := w.Anchors
	if w.Anchors, err = succession.Apply(told, s); err != nil {
		t.Fatal(err)
	}
	w.Keys["log"] = w.Keys["log-2"]
	fresh := w.ReleaseBy("firmware-2", image(t, 50_000), "1.1.0", 2)
	w.Anchors = told
	r.suffix = "-2"
	r.put("metadata/2.root.json", r.makeRoot(r.twoTokens(2), "tuf-root", "pipeline1"))
	r.publish(map[string][]byte{update.SuccessionTarget: st, "gw100-9.0.0.krf": thief.KRF})
	if _, err := c.Find(t.Context()); !errors.Is(err, firmware.ErrGone) {
		t.Errorf("a release by the old key: %v", err)
	}
	counted(8)
	if b, err := slots.Boot(); err != nil || b.Statement.Predicate.Version != "1.0.0" {
		t.Errorf("what it had does not start any more: %+v, %v", b, err)
	}
	r.publish(map[string][]byte{update.SuccessionTarget: st, "gw100-9.0.0.krf": thief.KRF, "gw100-1.1.0.krf": fresh.KRF})
	install("1.1.0")
	if err := reopen(); err != nil {
		t.Fatal(err)
	}
	if _, err := slots.Confirm(); err != nil {
		t.Fatal(err)
	}
	counted(9)

	// From now on the old key opens nothing, whoever writes the flash.
	state, err := slots.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*update.Slot{&state.A, &state.B} {
		st, err := slots.Statement(x)
		if old := st == nil; old != errors.Is(err, firmware.ErrGone) || !old && st.Predicate.Version != "1.1.0" {
			t.Errorf("slot: %+v, %v", st, err)
		}
	}
	// An older statement, or none, does not bring it back.
	r.publish(map[string][]byte{update.SuccessionTarget: statement(t, w, "succession-2", ids[:1]...), "gw100-9.0.0.krf": thief.KRF})
	if _, err := c.Find(t.Context()); !errors.Is(err, firmware.ErrGone) {
		t.Errorf("an older statement: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, update.SuccessionTarget)); err != nil {
		t.Fatal(err)
	}
	wantClass(t, reopen(), fault.Policy)
}

// TestProductKeyOnTPM: a gateway takes a release by a key made after its birth once a
// statement of both succession keys says so, and not before.
func TestProductKeyOnTPM(t *testing.T) {
	w := artifacttest.New(t)
	w.AddSuccessors()
	e := setest.Birth(t, w, 1)
	r := newRepo(t, w)
	slots := openSlots(t, t.TempDir(), e)
	c := r.client(e)
	c.Succession = slots.Succession()
	later := w.Later("firmware-gw100", "dsse", "")
	made := func(by ...string) []byte {
		t.Helper()
		s := succession.New(w.Anchors, nil, nil, nil, "keyrite/record/0011223344556677", artifacttest.Now())
		s.Add(later)
		var keys []crypto.Signer
		for _, id := range by {
			keys = append(keys, w.Keys[id])
		}
		payload, err := jcs.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		env, err := envelope.Sign(succession.PayloadType, payload, keys...)
		if err != nil {
			t.Fatal(err)
		}
		data, err := env.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	told := *w.Anchors
	w.Anchors.Keys = append(slices.Clone(told.Keys), later)
	fresh := w.ReleaseBy("firmware-gw100", image(t, 50_000), "2.0.0", 2)
	*w.Anchors = told
	r.publish(map[string][]byte{"gw100-2.0.0.krf": fresh.KRF})
	if _, err := c.Find(t.Context()); !errors.Is(err, envelope.ErrUnknown) {
		t.Errorf("without a statement: %v", err)
	}
	r.publish(map[string][]byte{update.SuccessionTarget: made("succession"), "gw100-2.0.0.krf": fresh.KRF})
	if _, err := c.Find(t.Context()); fault.ClassOf(err) != fault.Quorum {
		t.Errorf("by one succession key: %v", err)
	}
	r.publish(map[string][]byte{update.SuccessionTarget: made("succession", "succession-2"), "gw100-2.0.0.krf": fresh.KRF})
	o, err := c.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slots.Install(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if b, err := slots.Boot(); err != nil || b.Statement.Role() != "firmware-gw100" {
		t.Fatalf("%+v, %v", b, err)
	}
	if v, _, err := e.Succession(); err != nil || v != 2 {
		t.Errorf("the element counts %d, %v", v, err)
	}
}

// TestRootOfTokensAloneIsRefused: two root tokens meet TUF's threshold, but the
// people behind them may be the same.
func TestRootOfTokensAloneIsRefused(t *testing.T) {
	w := artifacttest.New(t)
	w.AddSuccessors()
	r := newRepo(t, w)
	for signers, want := range map[[2]string]fault.Class{
		{"tuf-root", "pipeline1"}: "", {"tuf-root", "tuf-root-2"}: fault.Verify, {"tuf-root-2", "pipeline1"}: fault.Verify,
	} {
		err := update.CheckRoot(r.makeRoot(r.twoTokens(1), signers[0], signers[1]), w.Anchors)
		wantClass(t, err, want)
	}
	s, err := succession.Verify(statement(t, w, "succession-2", "tuf-root"), w.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	eff, err := succession.Apply(w.Anchors, s)
	if err != nil {
		t.Fatal(err)
	}
	wantClass(t, update.CheckRoot(r.makeRoot(r.twoTokens(1), "tuf-root-2", "pipeline1"), eff), "")
	wantClass(t, update.CheckRoot(r.makeRoot(r.twoTokens(1), "tuf-root", "pipeline1"), eff), fault.Verify)
}
