package watch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/vault/duty"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// files is a folder of what a binding may have watched.
type files struct {
	t   *testing.T
	dir string
}

func (f *files) path(name string) string { return filepath.Join(f.dir, name) }

func (f *files) write(name string, data []byte) string {
	f.t.Helper()
	p := f.path(name)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return p
}

// look is what the files say, by kind and name.
func look(c Config, w *artifacttest.World) map[string]duty.Thing {
	x := New(c)
	x.Look()
	out := map[string]duty.Thing{}
	for _, t := range x.Things(w.State) {
		out[t.Kind+"/"+t.Name] = t
	}
	return out
}

// ca is a certificate and a list of what it revoked.
func ca(t *testing.T) (cert, crl []byte, from, to, next time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	to, next = from.AddDate(2, 0, 0), from.AddDate(0, 3, 0)
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign}
	if cert, err = x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	crl, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: next}, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, crl, from, to, next
}

func tuf(role, expires string) []byte {
	return []byte(`{"signatures":[],"signed":{"_type":"` + role + `","expires":"` + expires + `","version":3}}`)
}

// TestFiles: certificates, lists, bundles and TUF metadata say when they end, in each of
// their forms; of TUF the newest of each role counts.
func TestFiles(t *testing.T) {
	w := artifacttest.New(t)
	w.FoundFactory()
	f := &files{t, t.TempDir()}
	cert, crl, from, to, next := ca(t)
	b := w.Bundle()
	repo := f.path("metadata")
	for name, data := range map[string][]byte{
		"9.root.json": tuf("root", "2027-01-01T00:00:00Z"), "10.root.json": tuf("root", "2028-01-01T00:00:00Z"), "3.targets.json": tuf("targets", "2026-12-01T00:00:00Z"),
		"3.snapshot.json": tuf("snapshot", "2026-12-02T00:00:00Z"), "timestamp.json": tuf("timestamp", "2026-12-03T00:00:00Z"), "11.root.json.bak": []byte("x"),
	} {
		f.write("metadata/"+name, data)
	}
	c := Config{
		Server: f.write("tls.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		Files: Files{
			Certificates: []string{f.write("relay.der", cert)},
			CRLs:         []string{f.write("a.crl", crl), f.write("b.pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl}))},
			Bundles:      []string{f.write("bundle.json", w.SignBundle(b))},
			TUF:          []string{repo},
		},
	}
	got := look(c, w)
	notAfter, err := charter.ParseTime(b.NotAfter)
	if err != nil {
		t.Fatal(err)
	}
	for id, ends := range map[string]time.Time{
		"server-certificate/" + c.Server: to, "certificate/" + f.path("relay.der"): to, "watched-crl/" + f.path("a.crl"): next, "watched-crl/" + f.path("b.pem"): next,
		"bundle/" + f.path("bundle.json"): notAfter, "tuf-root/" + repo: time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC), "tuf-targets/" + repo: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
		"tuf-snapshot/" + repo: time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC), "tuf-timestamp/" + repo: time.Date(2026, 12, 3, 0, 0, 0, 0, time.UTC),
	} {
		if x := got[id]; x.Fault != "" || !x.Ends.Equal(ends) {
			t.Errorf("%s: %+v, want %s", id, x, ends)
		}
	}
	if x := got["server-certificate/"+c.Server]; !x.From.Equal(from) {
		t.Errorf("begins %s", x.From)
	}
	if x := got["bundle/"+f.path("bundle.json")]; !strings.Contains(x.About, b.Factory) {
		t.Errorf("%+v", x)
	}
	if len(got) != 9 {
		t.Errorf("%d things: %v", len(got), got)
	}
}

// TestAdmissionReports: a report that somebody of the charter signed says when it ends; of
// two of one token the newer counts, in whichever order they stand, and one of a token
// that is no safe's is not told of.
func TestAdmissionReports(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	first, err := admission.Open(v.Report, &v.State.People)
	if err != nil {
		t.Fatal(err)
	}
	older := v.Report
	sign := func(change func(*admission.Report)) []byte {
		r := *first.Report
		change(&r)
		v.SignReport(&r)
		return v.Report
	}
	made := time.Now().UTC().Truncate(time.Second)
	newer := sign(func(r *admission.Report) {
		r.Made, r.Expires = charter.FormatTime(made), charter.FormatTime(made.Add(admission.Validity))
	})
	updated := sign(func(r *admission.Report) {
		r.Made, r.Expires = charter.FormatTime(made), charter.FormatTime(made.Add(admission.Validity))
		r.Token.Firmware = "99.1"
	})
	other := sign(func(r *admission.Report) { r.Token.Serial = "another" })
	endsOf := func(s string) time.Time {
		at, err := charter.ParseTime(s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	id := duty.Admission + "/" + v.Token.Label + "/" + v.Token.Serial
	for name, c := range map[string]struct {
		reports [][]byte
		ends    time.Time
	}{
		"one":                       {[][]byte{older}, endsOf(first.Report.Expires)},
		"the newer last":            {[][]byte{older, newer}, made.Add(admission.Validity)},
		"the newer first":           {[][]byte{newer, older}, made.Add(admission.Validity)},
		"before and after firmware": {[][]byte{older, updated}, made.Add(admission.Validity)},
		"and of another token":      {[][]byte{older, other}, endsOf(first.Report.Expires)},
	} {
		x := New(Config{Admissions: c.reports})
		x.Look()
		got := x.Things(v.State)
		if len(got) != 1 || got[0].Fault != "" || got[0].Kind+"/"+got[0].Name != id || !got[0].Ends.Equal(c.ends) || !got[0].From.Equal(c.ends.Add(-admission.Validity)) {
			t.Errorf("%s: %+v, want one of %s until %s", name, got, id, c.ends)
		}
	}
}

// TestUnreadable: what is not there, is something else, is cut off, or would be waited
// for for ever is told of, and holds up nothing.
func TestUnreadable(t *testing.T) {
	w := artifacttest.New(t)
	f := &files{t, t.TempDir()}
	cert, crl, _, _, _ := ca(t)
	pipe := f.path("pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := f.path("empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	f.write("wrong/1.root.json", tuf("targets", "2028-01-01T00:00:00Z"))
	f.write("wrong/1.targets.json", tuf("targets", "next year"))
	f.write("wrong/1.snapshot.json", []byte("{"))
	f.write("void/transcript.jsonl", []byte("{}\n"))
	f.write("void/checkpoint", []byte("x"))
	c := Config{
		Server:     f.write("tls.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: cert})),
		Admissions: [][]byte{[]byte("{}")},
		Files: Files{
			Certificates: []string{f.path("gone"), pipe, f.write("cut.der", cert[:100]), f.write("none", nil)},
			CRLs:         []string{f.write("cut.crl", crl[:50]), empty, f.write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))},
			Bundles:      []string{f.write("bundle.json", []byte("{}")), f.path("no-bundle")},
			TUF:          []string{f.path("wrong"), f.path("no-folder"), empty},
			Rehearsals:   []string{empty, f.path("void"), f.path("no-record"), pipe},
		},
	}
	got := look(c, w)
	if want := 1 + 1 + 4 + 3 + 2 + 3*4 + 4; len(got) != want {
		t.Errorf("%d things, want %d: %v", len(got), want, got)
	}
	for id, x := range got {
		if x.Fault == "" {
			t.Errorf("%s: %+v", id, x)
		}
	}
	for _, x := range duty.Due(duty.Input{Things: New(c).Things(w.State)}, time.Now()) {
		if x.Level != duty.Late {
			t.Errorf("%+v", x)
		}
	}
}

// TestHangingDisk: files that were not read for long are told of.
func TestHangingDisk(t *testing.T) {
	w := artifacttest.New(t)
	now := artifacttest.Now()
	x := New(Config{Now: func() time.Time { return now }})
	if got := x.Things(w.State); len(got) != 0 {
		t.Errorf("before the first time: %+v", got)
	}
	now = now.Add(3*Period + time.Minute)
	if got := x.Things(w.State); len(got) != 1 || got[0].Fault == "" {
		t.Errorf("a disk that hung from the start: %+v", got)
	}
	x.Look()
	now = now.Add(3 * Period)
	if got := x.Things(w.State); len(got) != 0 {
		t.Errorf("soon after: %+v", got)
	}
	now = now.Add(time.Minute)
	if got := x.Things(w.State); len(got) != 1 || got[0].Fault == "" {
		t.Errorf("long after: %+v", got)
	}
}

func FuzzTUF(f *testing.F) {
	f.Add(tuf("root", "2028-01-01T00:00:00Z"), "root")
	f.Add(tuf("targets", "2028-01-01"), "targets")
	f.Add([]byte(`{"signed":{"_type":"root","expires":"9999-12-31T23:59:60Z"}}`), "root")
	f.Add([]byte(`{"signed":null}`), "")
	f.Fuzz(func(t *testing.T, data []byte, role string) {
		at, err := parseTUF(data, role)
		if (err == nil) == at.IsZero() && err == nil && !strings.Contains(string(data), "0001-01-01") {
			t.Errorf("no time and no error: %q", data)
		}
		if err != nil && !at.IsZero() {
			t.Errorf("%s and %v", at, err)
		}
	})
}

// TestEmptyFolders: a folder with nothing in it is told of as that.
func TestEmptyFolders(t *testing.T) {
	dir := t.TempDir()
	got := look(Config{Files: Files{TUF: []string{dir}, Rehearsals: []string{dir}}}, artifacttest.New(t))
	for kind, want := range map[string]string{duty.TUFRoot: "there is none", duty.TUFTimestamp: "there is none", duty.Rehearsal: "there is no closed rehearsal"} {
		if f := got[kind+"/"+dir].Fault; !strings.Contains(f, want) {
			t.Errorf("%s: %q, want %q", kind, f, want)
		}
	}
}
