// Package e2e runs parts of the system that may not know each other against
// each other.
package e2e

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/report"
	"keyrite/gateway/birth"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/secureelement/setest"
	"keyrite/hsm/hsmtest"
	"keyrite/provisioning/birthca"
	"keyrite/provisioning/station"
)

// factory is a station with a real token, in a world whose other keys are
// software.
type factory struct {
	*artifacttest.World
	dir     string
	addr    string
	pin     *x509.Certificate
	anchors []byte
	stop    func()
}

// newFactory sets a station up, has its request certified as the genesis does,
// imports a bundle of quota 3 and serves.
func newFactory(t *testing.T) *factory {
	t.Helper()
	f := &factory{World: artifacttest.New(t), dir: filepath.Join(ram(t), "station")}
	o := station.SetupOptions{Module: hsmtest.Module(t), HSMD: hsmtest.HSMD(t), Factory: "factory1", Station: "station1"}
	if err := station.Setup(t.Context(), f.dir, o); err != nil {
		t.Fatal(err)
	}
	if err := station.Setup(t.Context(), f.dir, o); fault.ClassOf(err) != fault.Exists {
		t.Errorf("set up twice: %v", err)
	}
	spki := func(name string) []byte {
		k, err := birthca.CheckRequest(f.read(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	root := f.Parsed(f.Anchors.Certificates["birth-root"])
	grant := birthcert.Grant{Factory: "factory1", Product: "gw100", SerialFrom: 1, SerialTo: 1000}
	ca := f.Certificate(birthcert.Template{Profile: birthcert.FactoryCA, SPKI: spki(station.CSRFile), Issuer: birthcert.IssuerOf(root), Grant: grant}, "birth-root")
	f.Approve(charter.TypeFactory, charter.Factory{CA: ca, Evidence: "test", ID: "factory1", Product: "gw100", SerialFrom: 1, SerialTo: 1000})
	f.Approve(charter.TypeStation, charter.Station{Factory: "factory1", ID: "station1", ReportKey: spki(station.ReportCSR)})
	certs, err := birthcert.ParsePEM(f.read(t, station.CertFile))
	if err != nil {
		t.Fatal(err)
	}
	f.pin = certs[0]
	return f
}

// ram is a folder on a RAM file system where there is one.
func ram(t *testing.T) string {
	t.Helper()
	if fi, err := os.Stat("/dev/shm"); err != nil || !fi.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "keyrite-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (f *factory) read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open opens the station with its token.
func (f *factory) open(t *testing.T) (*station.Station, func()) {
	t.Helper()
	var token *station.Token
	s, err := station.Open(f.dir, station.Options{Clock: time.Now, Signer: func(ctx context.Context, id string) (crypto.Signer, error) { return token.Signer(ctx, id) }})
	if err != nil {
		t.Fatal(err)
	}
	if token, err = station.OpenToken(t.Context(), f.dir, hsmtest.HSMD(t), s.Settings); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckToken(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, func() {
		if err := errors.Join(s.Close(), token.Close()); err != nil {
			t.Error(err)
		}
	}
}

func (f *factory) serve(t *testing.T) {
	t.Helper()
	s, end := f.open(t)
	cert, err := station.LoadTLS(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, cert, slog.New(slog.DiscardHandler)) }()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		end()
	}
}

// R-MFG-1, R-MFG-2, R-MFG-12, R-MFG-13: keys born in three TPMs are certified by
// a key born in a token; the fourth device is refused with class quota; only the
// accepted certificates are somebody.
func TestBirth(t *testing.T) {
	f := newFactory(t)
	b := f.Bundle()
	b.NotBefore = charter.FormatTime(time.Now().Add(-time.Hour))
	b.TimeFloor, b.NotAfter = b.NotBefore, charter.FormatTime(time.Now().Add(24*time.Hour))
	var err error
	if f.anchors, err = f.Anchors.Marshal(); err != nil {
		t.Fatal(err)
	}
	s, end := f.open(t)
	if _, err := s.Import(f.SignBundle(b), station.Files{Anchors: f.anchors, Charter: f.Charter}); err != nil {
		t.Fatal(err)
	}
	end()
	f.serve(t)
	var certs []*x509.Certificate
	for i := range 3 {
		m := setest.Start(t)
		if i == 0 {
			f.bornInPieces(t, m)
		}
		born, err := birth.Run(t.Context(), m.Open(), birth.Config{Addr: f.addr, Pin: f.pin, Anchors: f.anchors})
		if err != nil {
			t.Fatal(err)
		}
		if want := birthcert.MakeDeviceSerial("gw100", int64(i+1)); born.Serial != want {
			t.Errorf("born as %s, want %s", born.Serial, want)
		}
		m.Restart()
		e := m.Open()
		locked, err := e.Locked()
		if err != nil || !locked {
			t.Errorf("after its birth: %v, %v", locked, err)
		}
		if chain, err := e.Certificate(); err != nil || !chain[0].Equal(born.Chain[0]) {
			t.Errorf("certificate in the element: %v", err)
		}
		if _, err := birth.Run(t.Context(), e, birth.Config{Addr: f.addr, Pin: f.pin}); !errors.Is(err, secureelement.ErrLocked) {
			t.Errorf("born twice: %v", err)
		}
		certs = append(certs, born.Chain[0])
	}
	if _, err := birth.Run(t.Context(), setest.Start(t).Open(), birth.Config{Addr: f.addr, Pin: f.pin}); classOf(err) != "quota" {
		t.Errorf("fourth device: %v", err)
	}
	f.stop()
	f.settle(t, certs)
}

// settle closes the report, accepts it, and looks the devices up.
func (f *factory) settle(t *testing.T, certs []*x509.Certificate) {
	t.Helper()
	s, end := f.open(t)
	defer end()
	bundles := s.Bundles()
	r, file, err := s.CloseBundle(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if r.Counts != (report.Counts{Confirmed: 3, Signed: 3}) || r.QuotaLayers[0] != report.LayerTokenAbsent {
		t.Errorf("report %+v", r.Counts)
	}
	got, err := report.Verify(file, f.Anchors, f.State)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.CheckBundle(bundles[0].Bundle); err != nil {
		t.Fatal(err)
	}
	registry := acceptance.NewRegistry(f.Anchors)
	a, err := acceptance.New(got, bundles[0].Bundle, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signed, err := acceptance.Sign(a, f.Keys["acceptance"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Add(signed); err != nil {
		t.Fatal(err)
	}
	for _, c := range certs {
		if _, err := registry.Find(c); err != nil {
			t.Error(err)
		}
	}
}

// bornInPieces breaks the connection after every few bytes, each time a little
// later, and cuts the element's power: the device that comes back goes on.
func (f *factory) bornInPieces(t *testing.T, m *setest.TPM) {
	t.Helper()
	offer := int64(len(f.anchors))*4/3 + 1_200 // with the handshake before it
	for _, limit := range []int64{100, offer / 2, offer + 500} {
		addr := breaking(t, f.addr, limit)
		if _, err := birth.Run(t.Context(), m.Open(), birth.Config{Addr: addr, Pin: f.pin}); err == nil {
			t.Fatalf("born through a line that breaks after %d bytes", limit)
		}
		m.Restart()
	}
}

// breaking forwards one connection to addr and cuts it after limit bytes from
// there.
func breaking(t *testing.T, addr string, limit int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer out.Close()
		go func() { _, _ = io.Copy(out, in) }()
		_, _ = io.CopyN(in, out, limit)
	}()
	return l.Addr().String()
}

func classOf(err error) string {
	var c interface{ FaultClass() string }
	if errors.As(err, &c) {
		return c.FaultClass()
	}
	return ""
}

// Another machine at the station's address is not believed, and gets no key made.
func TestBirthPinsTheStation(t *testing.T) {
	f := newFactory(t)
	other := newFactory(t)
	b := other.Bundle()
	b.NotBefore = charter.FormatTime(time.Now().Add(-time.Hour))
	b.TimeFloor, b.NotAfter = b.NotBefore, charter.FormatTime(time.Now().Add(24*time.Hour))
	anchors, err := other.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s, end := other.open(t)
	if _, err := s.Import(other.SignBundle(b), station.Files{Anchors: anchors, Charter: other.Charter}); err != nil {
		t.Fatal(err)
	}
	end()
	other.serve(t)
	defer other.stop()
	e := setest.Start(t).Open()
	if _, err := birth.Run(t.Context(), e, birth.Config{Addr: other.addr, Pin: f.pin}); !errors.Is(err, birth.ErrStation) || classOf(err) != "peer" {
		t.Errorf("another station: %v", err)
	}
	ours, err := f.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := birth.Run(t.Context(), e, birth.Config{Addr: other.addr, Pin: other.pin, Anchors: ours}); classOf(err) != "policy" {
		t.Errorf("a station of other anchors: %v", err)
	}
	if _, err := e.Key(); !errors.Is(err, secureelement.ErrUnborn) {
		t.Errorf("a key was made: %v", err)
	}
}

// The PIN file must be the station's alone (facts: PIN in a 0600 file).
func TestStationRefusesAnOpenPINFile(t *testing.T) {
	f := newFactory(t)
	s, err := station.Open(f.dir, station.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	pin := filepath.Join(f.dir, "token.pin")
	for _, mode := range []os.FileMode{0o640, 0o604, 0o700} {
		if err := os.Chmod(pin, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := station.OpenToken(t.Context(), f.dir, hsmtest.HSMD(t), s.Settings); classOf(err) != "token" {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if err := errors.Join(os.Rename(pin, pin+".real"), os.Symlink(pin+".real", pin)); err != nil {
		t.Fatal(err)
	}
	if _, err := station.OpenToken(t.Context(), f.dir, hsmtest.HSMD(t), s.Settings); err == nil {
		t.Error("a symbolic link was followed")
	}
	if err := errors.Join(os.Remove(pin), os.WriteFile(pin, []byte("AAAA\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	token, err := station.OpenToken(t.Context(), f.dir, hsmtest.HSMD(t), s.Settings)
	if err == nil {
		_, err = token.Signer(t.Context(), station.KeyCA)
		_ = token.Close()
	}
	if classOf(err) != "token" {
		t.Errorf("wrong PIN: %v", err)
	}
}
