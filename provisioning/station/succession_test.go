package station

import (
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/bundle"
	"keyrite/artifact/fault"
)

// files are what a bundle is imported with, without a statement.
func (l *line) files() Files { return Files{Anchors: l.anchors, Charter: l.Charter} }

// TestProvisioningKeysGaveWay: under a succession statement a station takes bundles by
// the keys in force only, gives birth to nothing more under one of the keys before,
// which it still closes and reports, and is not brought back by an older statement or
// by none.
func TestProvisioningKeysGaveWay(t *testing.T) {
	l := newLineWith(t, func(w *artifacttest.World) { w.AddSuccessors() })
	first := l.imports(l.bundle(keep))
	if _, err := l.birth(1, newSPKI(t)); err != nil {
		t.Fatal(err)
	}
	under, err := l.Reserve(element(2)) // under way when the keys give way
	if err != nil {
		t.Fatal(err)
	}
	hash, err := first.Hash()
	if err != nil {
		t.Fatal(err)
	}
	next := func(a, b string, edit func(*bundle.Bundle)) []byte {
		x := l.Bundle()
		x.Seq, x.Prev, x.Ranges = 2, hash, []bundle.Range{{From: 11, To: 20}}
		edit(x)
		data, err := bundle.Sign(x, l.Keys[a], l.Keys[b])
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	older := l.Succession("succession", nil, "provision-a")
	both := l.Succession("succession-2", older, "provision-b")
	with := func(statement []byte) Files {
		f := l.files()
		f.Succession = statement
		return f
	}
	old, fresh := next("provision-a", "provision-b", keep), next("provision-a-2", "provision-b-2", keep)
	stranger := artifacttest.New(t)
	stranger.AddSuccessors()
	for name, x := range map[string]struct {
		file []byte
		with Files
	}{
		"new keys without a statement": {fresh, l.files()},
		"old keys under the statement": {old, with(both)},
		"one key of each":              {next("provision-a-2", "provision-b", keep), with(both)},
		"a foreign statement":          {fresh, with(stranger.Succession("succession", nil, "provision-a"))},
		"a broken statement":           {fresh, with(both[:len(both)-1])},
	} {
		if _, err := l.Import(x.file, x.with); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := l.birth(3, newSPKI(t)); err != nil {
		t.Errorf("a refused import changed something: %v", err)
	}
	if _, err := l.Import(fresh, with(both)); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at once", "after a restart"} {
		if _, err := l.Certify(t.Context(), under.DeviceSerial, newSPKI(t)); fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), "gave way") {
			t.Errorf("%s, a unit under way under the old bundle: %v", when, err)
		}
		l.restart()
	}
	u, err := l.birth(4, newSPKI(t))
	if err != nil || u.Seq != 2 {
		t.Errorf("born under bundle %+v, %v", u, err)
	}
	// The statement stays without being given, and an older one is refused.
	second, err := l.bundles[1].Hash()
	if err != nil {
		t.Fatal(err)
	}
	third := func(x *bundle.Bundle) { x.Seq, x.Prev, x.Ranges = 3, second, []bundle.Range{{From: 21, To: 30}} }
	if _, err := l.Import(next("provision-a", "provision-b", third), l.files()); err == nil {
		t.Error("a bundle by the old keys, when the statement is left out")
	}
	if _, err := l.Import(next("provision-a-2", "provision-b-2", third), with(older)); fault.ClassOf(err) != fault.Policy {
		t.Errorf("an older statement: %v", err)
	}
	if _, err := l.Import(next("provision-a-2", "provision-b-2", third), l.files()); err != nil {
		t.Error(err)
	}
	// The old bundle is closed and reported as any other.
	r, _, err := l.CloseBundle(t.Context(), "the keys gave way")
	if err != nil || r.Counts.Confirmed != 2 || r.Counts.Scrapped != 1 {
		t.Errorf("report %+v, %v", r, err)
	}
}

// TestBirthRootGaveWay: a station that is set up after the birth root was replaced takes
// a bundle whose CA the twin certified, under the statement and not without, and tells
// the devices of it.
func TestBirthRootGaveWay(t *testing.T) {
	w := artifacttest.New(t)
	w.AddSuccessors()
	w.FoundFactory()
	fresh := w.SignBundle(w.SecondFactory("birth-root-2"))
	statement := w.Succession("succession", nil, "birth-root")
	anchors, err := w.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	l := &line{World: w, dir: t.TempDir(), clock: artifacttest.Now(), anchors: anchors, t: t}
	l.Station, err = New(l.dir, Settings{CA: w.SPKI("factory-ca"), Factory: "factory2", Report: w.SPKI("report"), Station: "station2"}, l.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if _, err := l.Import(fresh, l.files()); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a CA of the twin without the statement: %v", err)
	}
	with := l.files()
	with.Succession = statement
	if _, err := l.Import(fresh, with); err != nil {
		t.Fatal(err)
	}
	u, err := l.birth(1, newSPKI(t))
	if err != nil {
		t.Fatal(err)
	}
	offer, _, err := l.offer(u)
	if err != nil || string(offer.Succession) != string(statement) || string(offer.Anchors) != string(anchors) {
		t.Errorf("the device is not told of the statement: %v", err)
	}
}
