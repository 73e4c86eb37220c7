package station

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/report"
)

var errKilled = errors.New("killed")

// line is a station with software keys in a world of its own.
type line struct {
	*artifacttest.World
	*Station
	dir     string
	anchors []byte
	clock   time.Time
	signed  int // signatures of the CA
	t       testing.TB
}

func newLine(t testing.TB) *line {
	t.Helper()
	return newLineWith(t, func(*artifacttest.World) {})
}

func newLineWith(t testing.TB, more func(*artifacttest.World)) *line {
	t.Helper()
	w := artifacttest.New(t)
	more(w)
	w.FoundFactory()
	l := &line{World: w, dir: t.TempDir(), clock: artifacttest.Now(), t: t}
	var err error
	if l.anchors, err = w.Anchors.Marshal(); err != nil {
		t.Fatal(err)
	}
	l.Station, err = New(l.dir, Settings{CA: w.SPKI("factory-ca"), Factory: "factory1", Report: w.SPKI("report"), Station: "station1"}, l.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func (l *line) options() Options {
	return Options{Clock: func() time.Time { return l.clock }, Signer: func(_ context.Context, id string) (crypto.Signer, error) {
		return &counting{l.Keys[id], func() { l.signed++ }}, nil
	}}
}

type counting struct {
	crypto.Signer
	count func()
}

func (c *counting) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.count()
	return c.Signer.Sign(r, digest, opts)
}

// restart closes the ledger, as a crash does, and opens it again.
func (l *line) restart() {
	l.t.Helper()
	if err := l.Close(); err != nil {
		l.t.Fatal(err)
	}
	var err error
	if l.Station, err = Open(l.dir, l.options()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) bundle(edit func(*bundle.Bundle)) []byte {
	b := l.Bundle()
	edit(b)
	return l.SignBundle(b)
}

func (l *line) imports(file []byte) *bundle.Bundle {
	l.t.Helper()
	b, err := l.Import(file, l.files())
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func keep(*bundle.Bundle) {}

func element(n int) report.Element {
	return report.Element{ChipID: fmt.Sprintf("%032x", n), Kind: "soft"}
}

func newSPKI(t testing.TB) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// birth brings element n to life.
func (l *line) birth(n int, spki []byte) (*Unit, error) {
	u, err := l.Reserve(element(n))
	if err != nil {
		return nil, err
	}
	if u, err = l.Certify(l.t.Context(), u.DeviceSerial, spki); err != nil {
		return nil, err
	}
	return u, l.Confirm(u.DeviceSerial)
}

// R-MFG-2, R-MFG-10: three devices, the fourth refused with class quota; the
// report closes and everything in it verifies.
func TestThreeDevicesAndNoFourth(t *testing.T) {
	l := newLine(t)
	if _, err := l.Reserve(element(1)); !errors.Is(err, ErrNoBundle) {
		t.Errorf("without a bundle: %v", err)
	}
	b := l.imports(l.bundle(keep))
	for i := range 3 {
		u, err := l.birth(i, newSPKI(t))
		if err != nil {
			t.Fatal(err)
		}
		if want := birthcert.MakeDeviceSerial("gw100", int64(i+1)); u.DeviceSerial != want {
			t.Errorf("serial %s, want %s", u.DeviceSerial, want)
		}
	}
	l.restart()
	if _, err := l.Reserve(element(4)); fault.ClassOf(err) != fault.Quota {
		t.Errorf("fourth: %v", err)
	}
	r, file, err := l.CloseBundle(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if r.Counts != (report.Counts{Confirmed: 3, Signed: 3}) || l.signed != 4 { // and the report's own
		t.Errorf("counts %+v, %d signatures", r.Counts, l.signed)
	}
	got, err := report.Verify(file, l.World.Anchors, l.State)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.CheckBundle(b); err != nil {
		t.Error(err)
	}
	// A close that was cut off after the ledger gives the same file again.
	l.restart()
	if _, again, err := l.CloseBundle(t.Context(), ""); err != nil || !bytes.Equal(again, file) {
		t.Errorf("closed again: %v", err)
	}
	if _, err := l.Reserve(element(4)); !errors.Is(err, ErrNoBundle) {
		t.Errorf("after the close: %v", err)
	}
	if err := l.Scrap("gw100-00000001", "late"); !errors.Is(err, ErrUnit) {
		t.Errorf("scrapped after the close: %v", err)
	}
}

// A crash before or after any write is taken up: one serial, one certificate
// number and one set of to-be-signed bytes for each element, and no unit more
// than the quota (facts: kill at every named step).
func TestCrashAtEveryStep(t *testing.T) {
	for _, step := range steps() {
		t.Run(step, func(t *testing.T) {
			l := newLine(t)
			l.imports(l.bundle(keep))
			spki := newSPKI(t)
			l.step = func(at string) error {
				if at == step {
					return errKilled
				}
				return nil
			}
			if _, err := l.birth(1, spki); !errors.Is(err, errKilled) {
				t.Fatalf("not stopped: %v", err)
			}
			l.restart()
			before, err := l.Units()
			if err != nil || len(before) > 1 {
				t.Fatal(before, err)
			}
			u, err := l.birth(1, spki)
			if err != nil {
				t.Fatal(err)
			}
			c, err := birthcert.Parse(u.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			if len(before) == 1 {
				was := before[0]
				if was.DeviceSerial != u.DeviceSerial || was.CertSerial != "" && was.CertSerial != u.CertSerial ||
					len(was.TBS) > 0 && !bytes.Equal(was.TBS, c.RawTBSCertificate) || len(was.Certificate) > 0 && !bytes.Equal(was.Certificate, u.Certificate) {
					t.Errorf("another certificate after the crash: %+v, then %+v", was, u)
				}
			}
			for i := range 2 {
				if _, err := l.birth(10+i, newSPKI(t)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := l.birth(20, newSPKI(t)); fault.ClassOf(err) != fault.Quota {
				t.Errorf("fourth: %v", err)
			}
			if want := map[bool]int{true: 4, false: 3}[step == "signed"]; l.signed != want {
				t.Errorf("%d signatures, want %d", l.signed, want)
			}
			if _, _, err := l.CloseBundle(t.Context(), ""); err != nil {
				t.Error(err)
			}
		})
	}
}

// Two steps in a row killed at random never give a serial twice.
func TestManyCrashes(t *testing.T) {
	l := newLine(t)
	l.imports(l.bundle(func(b *bundle.Bundle) { b.Quota, b.Ranges[0].To = 30, 30 }))
	rnd := make([]byte, 1)
	for i := range 30 {
		spki := newSPKI(t)
		for {
			rand.Read(rnd)
			n := int(rnd[0]) % 12
			l.step = func(string) error {
				if n--; n == 0 {
					return errKilled
				}
				return nil
			}
			_, err := l.birth(i, spki)
			if err == nil {
				break
			}
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			l.restart()
		}
	}
	l.restart()
	r, _, err := l.CloseBundle(t.Context(), "")
	if err != nil || r.Counts.Confirmed != 30 || r.Highest != "gw100-00000030" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestUnitsKeepApart(t *testing.T) {
	l := newLine(t)
	l.imports(l.bundle(keep))
	spki := newSPKI(t)
	if _, err := l.birth(1, spki); err != nil {
		t.Fatal(err)
	}
	// A key of another unit, another key for a unit, the station's own key.
	if _, err := l.birth(2, spki); !errors.Is(err, ErrKeyUsed) {
		t.Errorf("key twice: %v", err)
	}
	if _, err := l.birth(1, newSPKI(t)); !errors.Is(err, ErrUnit) {
		t.Errorf("born again with another key: %v", err)
	}
	if _, err := l.birth(2, l.SPKI("factory-ca")); !errors.Is(err, ErrKeyUsed) {
		t.Errorf("the CA's key: %v", err)
	}
	if _, err := l.birth(2, []byte("key")); fault.ClassOf(err) == fault.Unexpected || err == nil {
		t.Errorf("no key: %v", err)
	}
	// Confirm needs a certificate.
	if err := l.Confirm("gw100-00000002"); !errors.Is(err, ErrUnit) {
		t.Errorf("confirmed without certificate: %v", err)
	}
	// Closing waits for units under way, or scraps them with a reason.
	if _, _, err := l.CloseBundle(t.Context(), ""); !errors.Is(err, ErrUnit) {
		t.Errorf("closed over an open unit: %v", err)
	}
	// A scrapped element comes again and gets another serial; the quota counts both.
	if err := l.Scrap("gw100-00000002", "dropped"); err != nil {
		t.Fatal(err)
	}
	u, err := l.birth(2, newSPKI(t))
	if err != nil || u.DeviceSerial != "gw100-00000003" {
		t.Errorf("%+v, %v", u, err)
	}
	if err := l.Scrap("gw100-00000001", ""); fault.ClassOf(err) != fault.Usage {
		t.Errorf("without a reason: %v", err)
	}
	if err := l.Scrap("gw100-00000001", "case cracked"); err != nil {
		t.Fatal(err)
	}
	r, _, err := l.CloseBundle(t.Context(), "")
	if err != nil || r.Counts != (report.Counts{Confirmed: 1, Scrapped: 2, Signed: 2}) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestScrapOpenAtClose(t *testing.T) {
	l := newLine(t)
	l.imports(l.bundle(keep))
	if _, err := l.Reserve(element(1)); err != nil {
		t.Fatal(err)
	}
	l.step = func(s string) error {
		if s == "sign" {
			return errKilled
		}
		return nil
	}
	if _, err := l.birth(2, newSPKI(t)); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	r, _, err := l.CloseBundle(t.Context(), "end of shift")
	if err != nil || r.Counts != (report.Counts{Scrapped: 2}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// What may not be imported leaves the station as it was (R-MFG-2).
func TestImportRefuses(t *testing.T) {
	l := newLine(t)
	first := l.bundle(keep)
	other := newLine(t)
	flipped := bytes.Clone(first)
	flipped[len(flipped)/2] ^= 1
	tests := []struct {
		name  string
		file  []byte
		class fault.Class
	}{
		{"flipped byte", flipped, fault.Verify},
		{"cut", first[:len(first)/2], fault.Verify},
		{"nothing", nil, fault.Verify},
		{"other world", other.bundle(keep), fault.Policy},
		{"other station", l.bundle(func(b *bundle.Bundle) { b.Stations[0] = "station2" }), fault.Policy},
		{"second before first", l.bundle(func(b *bundle.Bundle) { b.Seq, b.Prev = 2, b.Charter.Head }), fault.Policy},
		{"expired", l.bundle(func(b *bundle.Bundle) {
			b.NotBefore, b.TimeFloor, b.NotAfter = "2026-10-01T00:00:00Z", "2026-10-01T00:00:00Z", "2026-10-02T00:00:00Z"
		}), fault.Policy},
		{"not yet", l.bundle(func(b *bundle.Bundle) { b.NotBefore = "2026-11-30T00:00:00Z" }), fault.Policy},
		{"attested elements", l.bundle(func(b *bundle.Bundle) { b.Assurance = birthcert.EKAttested }), fault.Policy},
		{"newer charter", l.bundle(func(b *bundle.Bundle) { b.Charter.Size++ }), fault.Policy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := l.Import(tt.file, l.files()); fault.ClassOf(err) != tt.class {
				t.Errorf("got %v", err)
			}
			if len(l.Bundles()) != 0 || l.Station.Anchors() != nil {
				t.Error("something was kept")
			}
		})
	}
	b := l.imports(first)
	hash, err := b.Hash()
	if err != nil {
		t.Fatal(err)
	}
	second := func(edit func(*bundle.Bundle)) []byte {
		return l.bundle(func(x *bundle.Bundle) {
			x.Seq, x.Prev, x.Ranges = 2, hash, []bundle.Range{{From: 11, To: 13}}
			edit(x)
		})
	}
	for name, file := range map[string][]byte{
		"replayed":          first,
		"another first":     l.bundle(keep),
		"other predecessor": second(func(x *bundle.Bundle) { x.Prev = x.Charter.Head }),
		"third":             second(func(x *bundle.Bundle) { x.Seq = 3 }),
		"serials again":     second(func(x *bundle.Bundle) { x.Ranges[0].From = 10 }),
		"serials around":    second(func(x *bundle.Bundle) { x.Ranges[0] = bundle.Range{From: 1, To: 100} }),
	} {
		if _, err := l.Import(file, l.files()); fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.Import(second(keep), Files{Anchors: other.anchors, Charter: other.Charter}); !errors.Is(err, ErrAnchors) {
		t.Errorf("other anchors: %v", err)
	}
	l.restart()
	l.imports(second(keep))
	l.restart()
	if got := l.Bundles(); len(got) != 2 || got[1].Seq != 2 {
		t.Errorf("bundles %+v", got)
	}
	// The second goes on where the first ends.
	for i := range 6 {
		if _, err := l.birth(i, newSPKI(t)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.birth(7, newSPKI(t)); fault.ClassOf(err) != fault.Quota {
		t.Errorf("seventh: %v", err)
	}
	r1, f1, err := l.CloseBundle(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	r2, _, err := l.CloseBundle(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	h1, err := r1.Hash()
	if err != nil || r2.Prev != h1 || r1.Prev != report.FirstPrev() || len(f1) == 0 {
		t.Errorf("reports are not chained: %s after %s", r2.Prev, h1)
	}
}

// A clock that was put back does not revive a bundle: signed times are a floor.
func TestClockPutBack(t *testing.T) {
	l := newLine(t)
	l.imports(l.bundle(keep))
	l.clock = artifacttest.Now().AddDate(0, 0, 31)
	if _, err := l.Reserve(element(1)); !errors.Is(err, bundle.ErrExpired) {
		t.Errorf("after its end: %v", err)
	}
	l.clock = artifacttest.Now().AddDate(-10, 0, 0)
	u, err := l.Reserve(element(1))
	if err != nil || u.Reserved != charter.FormatTime(artifacttest.Now()) {
		t.Errorf("with a clock behind the floor: %+v, %v", u, err)
	}
	// A unit that was reserved in time is not certified after the end.
	l.clock = artifacttest.Now().AddDate(0, 0, 31)
	if _, err := l.Certify(t.Context(), u.DeviceSerial, newSPKI(t)); !errors.Is(err, bundle.ErrExpired) {
		t.Errorf("certified after the end: %v", err)
	}
}

// TestClockBehindLedger: what the ledger says happened is not undone by a clock.
func TestClockBehindLedger(t *testing.T) {
	l := newLine(t)
	l.imports(l.bundle(keep))
	l.clock = artifacttest.Now().AddDate(0, 0, 20)
	first, err := l.Reserve(element(1))
	if err != nil {
		t.Fatal(err)
	}
	l.clock = artifacttest.Now()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l.Station, err = Open(l.dir, l.options()); err != nil {
		t.Fatal(err)
	}
	if u, err := l.Reserve(element(2)); err != nil || u.Reserved != first.Reserved {
		t.Errorf("with a clock behind the last event: %+v, %v", u, err)
	}
}

// Edits of the ledger are found when it is opened.
func TestLedgerIsChained(t *testing.T) {
	edits := map[string]func(*bolt.Tx) error{
		"unit removed": func(tx *bolt.Tx) error { return tx.Bucket(bucketUnits).Delete([]byte("gw100-00000001")) },
		"unit changed": func(tx *bolt.Tx) error {
			u, err := get[Unit](tx, bucketUnits, []byte("gw100-00000001"))
			if err != nil {
				return err
			}
			v := bytes.Replace(bytes.Clone(tx.Bucket(bucketUnits).Get([]byte("gw100-00000001"))), []byte(u.Element.ChipID), []byte(element(9).ChipID), 1)
			return tx.Bucket(bucketUnits).Put([]byte("gw100-00000001"), v)
		},
		"event removed": func(tx *bolt.Tx) error { return tx.Bucket(bucketEvents).Delete(number(2)) },
		"event added":   func(tx *bolt.Tx) error { return tx.Bucket(bucketEvents).Put(number(999), []byte(`{}`)) },
		"bundle gone":   func(tx *bolt.Tx) error { return tx.Bucket(bucketBundles).Delete(number(1)) },
		"settings changed": func(tx *bolt.Tx) error {
			v := bytes.Clone(tx.Bucket(bucketMeta).Get(keySettings))
			return tx.Bucket(bucketMeta).Put(keySettings, bytes.Replace(v, []byte("station1"), []byte("station2"), 1))
		},
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			l := newLine(t)
			l.imports(l.bundle(keep))
			if _, err := l.birth(1, newSPKI(t)); err != nil {
				t.Fatal(err)
			}
			if err := l.store.db.Update(edit); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err := Open(l.dir, l.options()); fault.ClassOf(err) != fault.Verify {
				t.Errorf("opened: %v", err)
				if s != nil {
					_ = s.Close()
				}
			}
		})
	}
}

// A ledger put back to an older copy gives a serial twice, and the station
// cannot know. Headquarters admits only one of the two certificates, and the
// report's chain breaks as soon as a report was accepted (docs/formats/report.md).
func TestOlderCopyPutBack(t *testing.T) {
	l := newLine(t)
	b := l.imports(l.bundle(keep))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.dir, storeName)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	open := func() {
		if l.Station, err = Open(l.dir, l.options()); err != nil {
			t.Fatal(err)
		}
	}
	open()
	lost, err := l.birth(1, newSPKI(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	open()
	kept, err := l.birth(2, newSPKI(t))
	if err != nil || kept.DeviceSerial != lost.DeviceSerial {
		t.Fatal(kept, err)
	}
	r, _, err := l.CloseBundle(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	a, err := acceptance.New(r, b, l.clock)
	if err != nil {
		t.Fatal(err)
	}
	file, err := acceptance.Sign(a, l.Keys["acceptance"])
	if err != nil {
		t.Fatal(err)
	}
	registry := acceptance.NewRegistry(l.World.Anchors)
	if _, err := registry.Add(file); err != nil {
		t.Fatal(err)
	}
	for u, want := range map[*Unit]bool{kept: true, lost: false} {
		c, err := birthcert.Parse(u.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Find(c); (err == nil) != want {
			t.Errorf("certificate %s: %v", hex.EncodeToString(c.SerialNumber.Bytes()), err)
		}
	}
}

func TestOneProcessAtATime(t *testing.T) {
	l := newLine(t)
	if _, err := Open(l.dir, l.options()); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("opened twice: %v", err)
	}
	if _, err := Open(t.TempDir(), l.options()); fault.ClassOf(err) != fault.Usage {
		t.Errorf("no station: %v", err)
	}
	if _, err := New(l.dir, Settings{}, l.options()); fault.ClassOf(err) != fault.Exists {
		t.Errorf("made twice: %v", err)
	}
}
