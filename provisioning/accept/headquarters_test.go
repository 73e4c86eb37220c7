package accept_test

import (
	"bytes"
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/fault"
	"keyrite/artifact/report"
	"keyrite/provisioning/accept"
	"keyrite/provisioning/export"
	"keyrite/provisioning/ledger"
)

type headquarters struct {
	*artifacttest.World
	dir string
	l   *ledger.Ledger
}

func newHeadquarters(t *testing.T) *headquarters {
	t.Helper()
	w := artifacttest.New(t)
	w.FoundFactory()
	h := &headquarters{World: w, dir: filepath.Join(t.TempDir(), "state")}
	h.open(t)
	return h
}

// open closes the book and reads it anew.
func (h *headquarters) open(t *testing.T) {
	t.Helper()
	if h.l != nil {
		if err := h.l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l, err := ledger.Open(h.dir, h.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	h.l = l
	t.Cleanup(func() { _ = l.Close() })
}

func (h *headquarters) signer(id string) (crypto.Signer, error) {
	k, ok := h.Keys[id]
	if !ok {
		return nil, fault.New(fault.Policy, "no such key")
	}
	return k, nil
}

func order(edit func(*export.Order)) export.Order {
	o := export.Order{Factory: "factory1", Quota: 3, Valid: 30 * 24 * time.Hour, Hardware: "gw100 rev A", Assurance: birthcert.Unattested}
	edit(&o)
	return o
}

func (h *headquarters) export(t *testing.T, edit func(*export.Order)) (*bundle.Bundle, []byte) {
	t.Helper()
	b, err := export.Plan(order(edit), h.Anchors, h.State, h.l, artifacttest.Now())
	if err != nil {
		t.Fatal(err)
	}
	file, err := export.Sign(b, h.l, artifacttest.Now(), h.signer)
	if err != nil {
		t.Fatal(err)
	}
	return b, file
}

func (h *headquarters) report(t *testing.T, r *report.Report) []byte {
	t.Helper()
	data, err := report.Sign(r, h.Keys["report"])
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (h *headquarters) accept(t *testing.T, reportFile, bundleFile []byte) ([]byte, error) {
	t.Helper()
	c, err := accept.Check(reportFile, bundleFile, h.Anchors, h.State, h.l, artifacttest.Now())
	if err != nil {
		return nil, err
	}
	return accept.Sign(c, h.l, artifacttest.Now(), h.signer)
}

func none(*export.Order) {}

// R-MFG-2: sequence, previous hash, disjoint serials and the number of open
// bundles hold over a restart, and an accepted report opens the way again.
func TestRound(t *testing.T) {
	h := newHeadquarters(t)
	b1, f1 := h.export(t, none)
	h.open(t)
	b2, f2 := h.export(t, none)
	hash, err := b1.Hash()
	if err != nil {
		t.Fatal(err)
	}
	if b2.Seq != 2 || b2.Prev != hash || b2.Ranges[0] != (bundle.Range{From: 4, To: 6}) {
		t.Errorf("second bundle %+v", b2)
	}
	if _, err := export.Plan(order(none), h.Anchors, h.State, h.l, artifacttest.Now()); !errors.Is(err, export.ErrOpen) || fault.ClassOf(err) != fault.Policy {
		t.Errorf("third open bundle: %v", err)
	}
	r1 := h.Report(b1, h.Birth(1, b1.BundleID), h.Birth(2, b1.BundleID))
	a1, err := h.accept(t, h.report(t, r1), f1)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := acceptance.Verify(a1, h.Anchors); err != nil || len(a.Devices) != 2 {
		t.Errorf("acceptance %+v, %v", a, err)
	}
	h.open(t)
	again, err := h.accept(t, h.report(t, r1), f1)
	if err != nil || !bytes.Equal(again, a1) {
		t.Errorf("the same report once more: %v", err)
	}
	// The second report must follow the first: a station put back to an older
	// state starts its chain anew and is found out.
	r2 := h.Report(b2, h.Birth(4, b2.BundleID))
	if _, err := h.accept(t, h.report(t, r2), f2); !errors.Is(err, accept.ErrChain) {
		t.Errorf("report of a forgotten chain: %v", err)
	}
	if r2.Prev, err = r1.Hash(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.accept(t, h.report(t, r2), f2); err != nil {
		t.Errorf("second report: %v", err)
	}
	h.export(t, none)
}

func TestAcceptRefuses(t *testing.T) {
	h := newHeadquarters(t)
	b, f := h.export(t, none)
	other := newHeadquarters(t)
	_, foreign := other.export(t, none)
	private := h.Bundle()
	ok := h.report(t, h.Report(b, h.Birth(1, b.BundleID)))
	four := h.Report(b, h.Birth(1, b.BundleID), h.Birth(2, b.BundleID), h.Birth(3, b.BundleID))
	extra := h.Report(b, h.Birth(4, b.BundleID)).Units[0]
	four.Units, four.Highest = append(four.Units, extra), extra.DeviceSerial
	four.Counts = report.Counts{Confirmed: 4, Signed: 4}
	root, err := report.RootOf(four.Units)
	if err != nil {
		t.Fatal(err)
	}
	four.Root, four.Quota = root, 4
	tests := []struct {
		name           string
		report, bundle []byte
		class          fault.Class
	}{
		{"bundle never exported", ok, h.SignBundle(private), fault.Policy},
		{"bundle of another world", ok, foreign, fault.Policy},
		{"report on another bundle", h.report(t, h.Report(private, h.Birth(1, private.BundleID))), f, fault.Policy},
		{"four on three", h.report(t, four), f, fault.Policy},
		{"report is the bundle", f, f, fault.Verify},
		{"nothing", nil, f, fault.Verify},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := h.accept(t, tt.report, tt.bundle); fault.ClassOf(err) != tt.class {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := h.accept(t, ok, f); err != nil {
		t.Fatal(err)
	}
	if _, err := h.accept(t, h.report(t, h.Report(b, h.Birth(2, b.BundleID))), f); fault.ClassOf(err) != fault.Policy {
		t.Errorf("a second report on one bundle: %v", err)
	}
}

func TestPlanRefuses(t *testing.T) {
	h := newHeadquarters(t)
	h.export(t, func(o *export.Order) { o.SerialFrom = 100 })
	tests := []struct {
		name  string
		edit  func(*export.Order)
		class fault.Class
	}{
		{"unknown factory", func(o *export.Order) { o.Factory = "factory2" }, fault.Policy},
		{"unknown station", func(o *export.Order) { o.Station = "station2" }, fault.Policy},
		{"serials given out", func(o *export.Order) { o.SerialFrom = 98 }, fault.Policy},
		{"serials above the grant", func(o *export.Order) { o.SerialFrom = 999 }, fault.Policy},
		{"quota 0", func(o *export.Order) { o.Quota = 0 }, fault.Usage},
		{"quota high", func(o *export.Order) { o.Quota = bundle.MaxQuota + 1 }, fault.Usage},
		{"ten years", func(o *export.Order) { o.Valid = 10 * 365 * 24 * time.Hour }, fault.Usage},
		{"no hardware", func(o *export.Order) { o.Hardware = "" }, fault.Usage},
		{"no assurance", func(o *export.Order) { o.Assurance = "" }, fault.Usage},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := export.Plan(order(tt.edit), h.Anchors, h.State, h.l, artifacttest.Now()); fault.ClassOf(err) != tt.class {
				t.Errorf("got %v", err)
			}
		})
	}
	b, err := export.Plan(order(none), h.Anchors, h.State, h.l, artifacttest.Now().AddDate(-5, 0, 0))
	if err != nil || b.NotBefore != "2026-11-22T02:00:00Z" {
		t.Errorf("with a clock behind the ledger: %v, %v", b, err)
	}
}

// A changed, dropped or repeated line of the ledger stops headquarters.
func TestLedgerIsChained(t *testing.T) {
	h := newHeadquarters(t)
	b, f := h.export(t, none)
	if _, err := h.accept(t, h.report(t, h.Report(b, h.Birth(1, b.BundleID))), f); err != nil {
		t.Fatal(err)
	}
	h.export(t, none)
	if _, err := ledger.Open(h.dir, h.Anchors); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("opened twice: %v", err)
	}
	if err := h.l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.dir, ledger.FileName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	flip := func(i int) []byte { c := bytes.Clone(good); c[i] ^= 1; return c }
	for name, data := range map[string][]byte{
		"first line gone":  bytes.Join(lines[1:], nil),
		"second line gone": append(bytes.Clone(lines[0]), lines[2]...),
		"first line twice": append(bytes.Clone(lines[0]), good...),
		"time changed":     bytes.Replace(good, []byte(`"at":"2026`), []byte(`"at":"2025`), 1),
		"byte of a file":   flip(len(good) / 2),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := ledger.Open(h.dir, h.Anchors); err == nil {
			t.Errorf("%s: opened", name)
			_ = l.Close()
		}
	}
}
