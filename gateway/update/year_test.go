package update_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/gateway/secureelement/setest"
	"keyrite/gateway/update"
)

// rootOf is root metadata of that version: both root tokens and a person, two of whom
// must sign; the tokens are those that ids name.
func (r *repo) rootOf(version int64, expires time.Time, ids ...string) func(*metadata.Metadata[metadata.RootType]) {
	return func(root *metadata.Metadata[metadata.RootType]) {
		root.Signed.Version, root.Signed.Expires = version, expires.UTC().Truncate(time.Second)
		root.Signed.Roles[metadata.ROOT].KeyIDs = nil
		for _, id := range append(ids, "pipeline1") {
			k, err := metadata.KeyFromPublicKey(r.w.Keys[id].Public())
			r.check(err)
			r.check(root.Signed.AddKey(k, metadata.ROOT))
		}
		root.Signed.Roles[metadata.ROOT].Threshold = 2
	}
}

// TestAYearOfflineOnTPM: while a gateway was switched off for a year, the firmware key,
// the update root, the relay's CA and the birth root gave way, in three ceremonies, and
// every signature that it knew has expired. It comes back with what it had, takes all
// steps at once, and nothing of the year before brings it back (R-CER-25).
func TestAYearOfflineOnTPM(t *testing.T) {
	now := time.Now()
	then := now.AddDate(-1, 0, 0)
	clock := then
	w := artifacttest.New(t)
	w.AddSuccessors()
	e := setest.Birth(t, w, 1)
	r := newRepo(t, w)
	// The root before was good for half a year only.
	first := r.makeRoot(r.rootOf(1, then.AddDate(0, 6, 0), "tuf-root", "tuf-root-2"), "tuf-root", "pipeline1")
	r.root, r.expires = first, then.Add(24*time.Hour)
	r.put("metadata/1.root.json", first)
	dir := t.TempDir()
	slots := openSlots(t, dir, e)
	c := r.client(e)
	c.Succession, c.Now = slots.Succession(), func() time.Time { return clock }
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
		if _, err := slots.Confirm(); err != nil {
			t.Fatal(err)
		}
	}
	old := w.Release(image(t, 50_000), "1.0.0", 1)
	r.publish(map[string][]byte{"gw100-1.0.0.krf": old.KRF})
	install("1.0.0")
	before := t.TempDir() // what somebody copied of the state folder, and of the repository
	for name, from := range map[string]string{"slots": dir, "tuf": c.Dir, "repo": r.dir} {
		if err := os.CopyFS(filepath.Join(before, name), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}

	// The year: three ceremonies, each with a statement that follows the one before.
	one := w.Succession("succession", nil, "firmware")
	two := w.Succession("succession-2", one, "tuf-root")
	three := w.Succession("succession", two, "relay-ca", "birth-root")
	told := *w.Anchors
	*w.Anchors = *w.Under(three)
	fresh := w.ReleaseBy("firmware-2", image(t, 50_000), "2.0.0", 2)
	*w.Anchors = told
	second := r.makeRoot(r.rootOf(2, then.AddDate(0, 11, 0), "tuf-root-2"), "tuf-root-2", "pipeline1")
	third := r.makeRoot(r.rootOf(3, now.AddDate(1, 0, 0), "tuf-root-2"), "tuf-root-2", "pipeline1")
	r.put("metadata/2.root.json", second)
	r.put("metadata/3.root.json", third)

	clock = now
	thief := w.Release(image(t, 50_000), "9.0.0", 9)
	t.Run("a repository of a year ago", func(t *testing.T) {
		stale := *c
		stale.Source, stale.Dir = update.NewFolder(filepath.Join(before, "repo")), t.TempDir()
		if _, err := stale.Find(t.Context()); fault.ClassOf(err) != fault.Policy {
			t.Errorf("expired metadata: %v", err)
		}
	})
	r.expires = now.Add(time.Hour)
	r.publish(map[string][]byte{update.SuccessionTarget: three, "gw100-2.0.0.krf": fresh.KRF, "gw100-9.0.0.krf": thief.KRF})
	if b, err := slots.Boot(); err != nil || b.Statement.Predicate.Version != "1.0.0" {
		t.Fatalf("what it had does not start after a year: %+v, %v", b, err)
	}
	install("2.0.0")
	if v, ok, err := e.Succession(); err != nil || !ok || v != 2*4+1 {
		t.Errorf("the element counts %d, %v, %v", v, ok, err)
	}
	eff := c.Succession.InForce(w.Anchors)
	for id, domain := range map[string]string{"firmware": "dsse", "tuf-root": "tuf-root", "relay-ca": "x509", "birth-root": "x509"} {
		if k, _, err := eff.Key(id, domain); err != nil || k.ID != id+"-2" {
			t.Errorf("in force: %v, %v", k, err)
		}
	}
	// A relay's certificate by the CA before, and by the one in force.
	for id, good := range map[string]bool{"relay-ca": false, "relay-ca-2": true} {
		cert := w.Parsed(w.Certificate(birthcert.Template{
			Profile: birthcert.Relay, SPKI: w.SPKI("pipeline1"), Issuer: birthcert.IssuerOf(w.Parsed(w.Anchors.Certificates[id])), Role: "access",
			DNSNames: []string{"relay.test"}, NotBefore: now.UTC().Truncate(time.Second), NotAfter: now.Add(24 * time.Hour).UTC().Truncate(time.Second),
		}, id))
		ca, err := eff.Present("relay-ca", cert)
		if err == nil {
			err = birthcert.VerifyRelay(cert, ca, "access", now.Add(time.Minute))
		}
		if good != (err == nil) {
			t.Errorf("a relay certified by %s: %v", id, err)
		}
	}

	// Nothing of the year before brings it back: not the state folder, not a root by the
	// key before, not a statement of half the way, not the old release.
	replay := map[string]map[string][]byte{
		"the first statement":  {update.SuccessionTarget: one, "gw100-9.0.0.krf": thief.KRF},
		"the second statement": {update.SuccessionTarget: two, "gw100-9.0.0.krf": thief.KRF},
		"no statement":         {"gw100-9.0.0.krf": thief.KRF},
		"a branch":             {update.SuccessionTarget: w.Succession("succession", nil, "log", "acceptance", "tuf-targets", "tuf-online", "provision-a"), "gw100-9.0.0.krf": thief.KRF},
	}
	for _, name := range []string{"the first statement", "the second statement", "no statement", "a branch"} {
		r.publish(replay[name])
		if _, err := c.Find(t.Context()); err == nil || name != "a branch" && !errors.Is(err, firmware.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
		if got := c.Succession.Counter(); got != 4 {
			t.Errorf("%s: counts %d", name, got)
		}
	}
	r.publish(map[string][]byte{update.SuccessionTarget: three, "gw100-1.0.0.krf": old.KRF})
	if _, err := c.Find(t.Context()); err == nil {
		t.Error("the release of a year ago is offered again and taken")
	}
	r.put("metadata/4.root.json", r.makeRoot(r.rootOf(4, now.AddDate(1, 0, 0), "tuf-root", "tuf-root-2"), "tuf-root-2", "pipeline1"))
	r.put("metadata/5.root.json", r.makeRoot(r.rootOf(5, now.AddDate(1, 0, 0), "tuf-root"), "tuf-root", "pipeline1"))
	r.publish(map[string][]byte{update.SuccessionTarget: three, "gw100-2.0.0.krf": fresh.KRF})
	if _, err := c.Find(t.Context()); err == nil || !strings.Contains(err.Error(), "tuf-root") {
		t.Errorf("a root by the key before: %v", err)
	}
	_ = slots.Close()
	if _, err := update.OpenSlots(filepath.Join(before, "slots"), e, device()); fault.ClassOf(err) != fault.Policy {
		t.Errorf("the state folder of a year ago: %v", err)
	}
	again, err := update.OpenSlots(dir, e, device())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	state, err := again.State()
	if err != nil {
		t.Fatal(err)
	}
	versions := []string{}
	for _, x := range []*update.Slot{&state.A, &state.B} {
		if st, err := again.Statement(x); err == nil {
			versions = append(versions, st.Predicate.Version)
		}
	}
	if !slices.Equal(versions, []string{"2.0.0"}) {
		t.Errorf("it starts %v", versions)
	}
}
