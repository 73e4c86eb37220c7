package acceptance_test

import (
	"bytes"
	"errors"
	"testing"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

func newWorld(t testing.TB) *artifacttest.World {
	w := artifacttest.New(t)
	w.FoundFactory()
	return w
}

// R-MFG-14: only exactly the accepted certificate is somebody.
func TestFind(t *testing.T) {
	w := newWorld(t)
	b := w.Bundle()
	one, two, extra := w.Birth(1, b.BundleID), w.Birth(2, b.BundleID), w.Birth(3, b.BundleID)
	r := acceptance.NewRegistry(w.Anchors)
	a, err := r.Add(w.Accept(b, one, two))
	if err != nil || r.Len() != 2 {
		t.Fatal(err)
	}
	id, err := r.Find(one.Cert)
	if err != nil || id.DeviceSerial != "gw100-00000001" {
		t.Errorf("%+v, %v", id, err)
	}
	// The same serial under another key, as a station with restored state makes.
	again := w.Birth(1, b.BundleID)
	for name, c := range map[string]artifacttest.Born{"overproduced": extra, "same serial, other key": again, "foreign CA": newWorld2(t, b.BundleID)} {
		if _, err := r.Find(c.Cert); !errors.Is(err, acceptance.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := a.VerifyDevice(c.Cert, w.Anchors); err == nil {
			t.Errorf("%s: taken by the acceptance itself", name)
		}
	}
}

func newWorld2(t testing.TB, id string) artifacttest.Born { return newWorld(t).Birth(1, id) }

func TestAddRefusesRepetition(t *testing.T) {
	w := newWorld(t)
	b := w.Bundle()
	one, two := w.Birth(1, b.BundleID), w.Birth(2, b.BundleID)
	first := w.Accept(b, one)
	r := acceptance.NewRegistry(w.Anchors)
	if _, err := r.Add(first); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"the same file":           first,
		"a device again":          w.Accept(b, one, two),
		"its serial, another key": w.Accept(b, w.Birth(1, b.BundleID)),
		"another world":           func() []byte { o := newWorld(t); ob := o.Bundle(); return o.Accept(ob, o.Birth(1, ob.BundleID)) }(),
	} {
		if _, err := r.Add(data); fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r.Len() != 1 {
		t.Errorf("%d devices", r.Len())
	}
	if _, err := r.Find(two.Cert); err == nil {
		t.Error("a refused acceptance left a device behind")
	}
}

func TestVerifyRefuses(t *testing.T) {
	w := newWorld(t)
	b := w.Bundle()
	good, err := acceptance.Verify(w.Accept(b, w.Birth(1, b.BundleID), w.Birth(2, b.BundleID)), w.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	edits := map[string]func(*acceptance.Acceptance){
		"format":        func(a *acceptance.Acceptance) { a.Format = "keyrite/acceptance/v2" },
		"count":         func(a *acceptance.Acceptance) { a.Counts.Confirmed = 3 },
		"device twice":  func(a *acceptance.Acceptance) { a.Devices[1] = a.Devices[0] },
		"other bundle":  func(a *acceptance.Acceptance) { a.Devices[1].BundleID = "00000000000000000000000000000000" },
		"other product": func(a *acceptance.Acceptance) { a.Devices[1].DeviceSerial = "gw200-00000002" },
		"empty hash":    func(a *acceptance.Acceptance) { a.Devices[1].SPKIHash = "" },
		"assurance":     func(a *acceptance.Acceptance) { a.Devices[1].Assurance = "" },
		"devices null":  func(a *acceptance.Acceptance) { a.Devices, a.Counts.Confirmed = nil, 0 },
		"no CA":         func(a *acceptance.Acceptance) { a.FactoryCA = nil },
		"report hash":   func(a *acceptance.Acceptance) { a.ReportHash = "" },
		"no world":      func(a *acceptance.Acceptance) { a.World = "" },
		"no time":       func(a *acceptance.Acceptance) { a.AcceptedAt = "" },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			a := *good
			a.Devices = append([]acceptance.Device{}, good.Devices...)
			edit(&a)
			if a.Check() == nil {
				t.Error("accepted")
			}
		})
	}
	other := *good
	other.Factory = "factory2"
	data, err := acceptance.Sign(&other, w.Keys["acceptance"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acceptance.Verify(data, w.Anchors); !errors.Is(err, birthcert.ErrGrant) {
		t.Errorf("CA of another factory: %v", err)
	}
	data, err = acceptance.Sign(good, w.Keys["report"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := acceptance.Verify(data, w.Anchors); fault.ClassOf(err) != fault.Verify {
		t.Errorf("signed by the station: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	b := w.Bundle()
	data := w.Accept(b, w.Birth(1, b.BundleID))
	f.Add(data)
	a, err := acceptance.Verify(data, w.Anchors)
	if err != nil {
		f.Fatal(err)
	}
	payload, err := jcs.Marshal(a)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = acceptance.Verify(data, w.Anchors)
		var a acceptance.Acceptance
		if jcs.Unmarshal(data, &a) != nil || a.Check() != nil {
			return
		}
		again, err := jcs.Marshal(a)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q read as %q, %v", data, again, err)
		}
	})
}
