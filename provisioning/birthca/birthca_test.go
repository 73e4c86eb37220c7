package birthca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/provisioning/birthca"
)

const w = world.World("rehearsal:abcdefgh")

var at = time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)

func newKey(t testing.TB) (crypto.Signer, []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k, spki
}

func issue(t testing.TB, tpl birthcert.Template, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	l, err := birthca.Lint(tpl)
	if err != nil {
		t.Fatal(err)
	}
	der, err := birthca.Issue(t.Context(), l, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := birthcert.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// unlinted signs what Lint would refuse.
func unlinted(t testing.TB, tpl birthcert.Template, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	tbs, err := tpl.TBS()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	sig, err := signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := birthcert.Assemble(tbs, sig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := birthcert.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type chain struct {
	root, factory, device, relayCA, relay *x509.Certificate
	rootKey, factoryKey, relayKey         crypto.Signer
	grant                                 birthcert.Grant
	deviceTemplate                        birthcert.Template
}

func newChain(t testing.TB) *chain {
	t.Helper()
	c := &chain{grant: birthcert.Grant{Factory: "factory1", Product: "gw100", SerialFrom: 1, SerialTo: 1000}}
	tpl := func(p birthcert.ProfileName, issuer *x509.Certificate) (birthcert.Template, crypto.Signer) {
		k, spki := newKey(t)
		out := birthcert.Template{Profile: p, World: w, Serial: birthcert.NewCertSerial(), NotBefore: at, SPKI: spki}
		if issuer != nil {
			out.Issuer = birthcert.IssuerOf(issuer)
		}
		return out, k
	}
	var tp birthcert.Template
	tp, c.rootKey = tpl(birthcert.BirthRoot, nil)
	c.root = issue(t, tp, c.rootKey)
	tp, c.factoryKey = tpl(birthcert.FactoryCA, c.root)
	tp.Grant = c.grant
	c.factory = issue(t, tp, c.rootKey)
	tp, _ = tpl(birthcert.Device, c.factory)
	tp.DeviceSerial, tp.Assurance, tp.Bundle = birthcert.MakeDeviceSerial("gw100", 7), birthcert.Unattested, strings.Repeat("0a", 16)
	c.deviceTemplate = tp
	c.device = issue(t, tp, c.factoryKey)
	tp, c.relayKey = tpl(birthcert.RelayCA, nil)
	c.relayCA = issue(t, tp, c.relayKey)
	tp, _ = tpl(birthcert.Relay, c.relayCA)
	tp.Role, tp.DNSNames, tp.IPs, tp.NotAfter = "access", []string{"relay.example", "localhost"}, []string{"127.0.0.1", "::1"}, at.Add(30*24*time.Hour)
	c.relay = issue(t, tp, c.relayKey)
	return c
}

// R-MFG-10, R-MFG-11: the chain of a device says serial, product line, assurance
// and bundle, and is verified without a clock.
func TestChain(t *testing.T) {
	c := newChain(t)
	id, err := birthcert.VerifyDevice(c.device, c.factory, c.root, c.grant)
	if err != nil {
		t.Fatal(err)
	}
	if id.DeviceSerial != "gw100-00000007" || id.Assurance != birthcert.Unattested || id.World != w || id.Factory != "factory1" || id.CertSerial != c.deviceTemplate.Serial {
		t.Errorf("identity %+v", id)
	}
	if err := errors.Join(birthcert.CheckRoot(c.root, w), birthcert.CheckRelayCA(c.relayCA, w)); err != nil {
		t.Error(err)
	}
	if err := birthcert.VerifyRelay(c.relay, c.relayCA, "access", at.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if err := birthcert.VerifyRelay(c.relay, c.relayCA, "vpn", at); !errors.Is(err, birthcert.ErrRole) {
		t.Errorf("other role: %v", err)
	}
	if err := birthcert.VerifyRelay(c.relay, c.relayCA, "access", at.Add(31*24*time.Hour)); !errors.Is(err, birthcert.ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	if err := birthcert.CheckRoot(c.root, "live"); fault.ClassOf(err) != fault.Policy {
		t.Errorf("rehearsal root as live: %v", err)
	}
	// Go's own path builder agrees.
	roots, mid := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(c.root)
	mid.AddCert(c.factory)
	if _, err := c.device.Verify(x509.VerifyOptions{Roots: roots, Intermediates: mid, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, CurrentTime: at.AddDate(200, 0, 0)}); err != nil {
		t.Error(err)
	}
}

// Every path refuses what is outside the grant, and a certificate in another
// place of the chain than its own.
func TestVerifyDeviceRefuses(t *testing.T) {
	c, other := newChain(t), newChain(t)
	grant := func(edit func(*birthcert.Grant)) birthcert.Grant {
		g := c.grant
		edit(&g)
		return g
	}
	foreign := c.deviceTemplate
	foreign.DeviceSerial = "gw100-00001001"
	outside := issue(t, foreign, c.factoryKey)
	foreign = c.deviceTemplate
	foreign.DeviceSerial = "gw200-00000007"
	product := issue(t, foreign, c.factoryKey)
	foreign = c.deviceTemplate
	foreign.World = "live"
	live := unlinted(t, foreign, c.factoryKey)
	tests := []struct {
		name                string
		cert, factory, root *x509.Certificate
		grant               birthcert.Grant
		want                error
	}{
		{"serial outside", outside, c.factory, c.root, c.grant, birthcert.ErrRange},
		{"other product", product, c.factory, c.root, c.grant, birthcert.ErrProduct},
		{"other world", live, c.factory, c.root, c.grant, world.ErrOther},
		{"charter narrower than CA", c.device, c.factory, c.root, grant(func(g *birthcert.Grant) { g.SerialTo = 500 }), birthcert.ErrGrant},
		{"charter other factory", c.device, c.factory, c.root, grant(func(g *birthcert.Grant) { g.Factory = "factory2" }), birthcert.ErrGrant},
		{"foreign CA, same names", other.device, c.factory, c.root, c.grant, birthcert.ErrProfile},
		{"foreign root", c.device, c.factory, other.root, c.grant, birthcert.ErrProfile},
		{"factory CA as device", c.factory, c.factory, c.root, c.grant, birthcert.ErrProfile},
		{"device as factory CA", c.device, c.device, c.root, c.grant, birthcert.ErrProfile},
		{"root as factory CA", c.device, c.root, c.root, c.grant, birthcert.ErrProfile},
		{"relay CA as root", c.device, c.factory, c.relayCA, c.grant, birthcert.ErrProfile},
		{"relay certificate as device", c.relay, c.factory, c.root, c.grant, birthcert.ErrProfile},
		{"no certificate", nil, c.factory, c.root, c.grant, birthcert.ErrProfile},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := birthcert.VerifyDevice(tt.cert, tt.factory, tt.root, tt.grant); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// No bit of a certificate can change.
func TestEveryFlippedBitIsRefused(t *testing.T) {
	c := newChain(t)
	for i := range c.device.Raw {
		for bit := range 8 {
			bad := bytes.Clone(c.device.Raw)
			bad[i] ^= 1 << bit
			if cert, err := birthcert.Parse(bad); err == nil {
				if _, err := birthcert.VerifyDevice(cert, c.factory, c.root, c.grant); err == nil {
					t.Errorf("byte %d bit %d", i, bit)
				}
			}
		}
	}
}

// What x509 would let a careless issuer write is outside the profile, even when
// the right CA signs it.
func TestProfileIsExact(t *testing.T) {
	c := newChain(t)
	_, spki := newKey(t)
	pub, err := birthcert.ParseSPKI(spki)
	if err != nil {
		t.Fatal(err)
	}
	edits := map[string]func(*x509.Certificate){
		"plain copy, other string types": func(*x509.Certificate) {},
		"CA": func(x *x509.Certificate) {
			x.IsCA, x.BasicConstraintsValid, x.KeyUsage = true, true, x509.KeyUsageCertSign
		},
		"EKU":  func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"DNS":  func(x *x509.Certificate) { x.DNSNames = []string{"relay.example"} },
		"ends": func(x *x509.Certificate) { x.NotAfter = at.AddDate(1, 0, 0) },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			x := &x509.Certificate{
				SerialNumber: c.device.SerialNumber, Subject: c.device.Subject, NotBefore: at, NotAfter: birthcert.Forever(),
				KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: c.device.Extensions[3:],
			}
			edit(x)
			if len(x.DNSNames) > 0 {
				x.ExtraExtensions = c.device.Extensions[4:]
			}
			der, err := x509.CreateCertificate(rand.Reader, x, c.factory, pub, c.factoryKey)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := birthcert.Parse(der)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := birthcert.VerifyDevice(cert, c.factory, c.root, c.grant); !errors.Is(err, birthcert.ErrProfile) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTemplatesThatAreRefused(t *testing.T) {
	c := newChain(t)
	edits := map[string]func(*birthcert.Template){
		"empty serial":        func(x *birthcert.Template) { x.DeviceSerial = "" },
		"serial with NUL":     func(x *birthcert.Template) { x.DeviceSerial = "gw100-00000007\x00" },
		"serial with newline": func(x *birthcert.Template) { x.DeviceSerial = "gw100-00000007\n" },
		"serial not padded":   func(x *birthcert.Template) { x.DeviceSerial = "gw100-7" },
		"upper case":          func(x *birthcert.Template) { x.DeviceSerial = "GW100-00000007" },
		"no assurance":        func(x *birthcert.Template) { x.Assurance = "" },
		"own assurance":       func(x *birthcert.Template) { x.Assurance = "certified" },
		"no bundle":           func(x *birthcert.Template) { x.Bundle = "" },
		"with role":           func(x *birthcert.Template) { x.Role = "access" },
		"with end":            func(x *birthcert.Template) { x.NotAfter = at.AddDate(1, 0, 0) },
		"no issuer":           func(x *birthcert.Template) { x.Issuer = nil },
		"issuer's own key":    func(x *birthcert.Template) { x.SPKI = x.Issuer.SPKI },
		"no key":              func(x *birthcert.Template) { x.SPKI = nil },
		"zero number":         func(x *birthcert.Template) { x.Serial = birthcert.CertSerial{} },
		"negative number":     func(x *birthcert.Template) { x.Serial[0] |= 0x80 },
		"no world":            func(x *birthcert.Template) { x.World = "" },
		"no time":             func(x *birthcert.Template) { x.NotBefore = time.Time{} },
		"unknown profile":     func(x *birthcert.Template) { x.Profile = "web" },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			tpl := c.deviceTemplate
			edit(&tpl)
			if l, err := birthca.Lint(tpl); err == nil || l != nil {
				t.Error("accepted")
			}
		})
	}
	if _, err := birthca.Issue(t.Context(), nil, c.factoryKey); !errors.Is(err, birthca.ErrLint) {
		t.Errorf("issue without lint: %v", err)
	}
	l, err := birthca.Lint(c.deviceTemplate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := birthca.Issue(t.Context(), l, c.rootKey); !errors.Is(err, birthca.ErrOtherKey) {
		t.Errorf("issue with another key: %v", err)
	}
	preview := c.deviceTemplate
	preview.SPKI = nil
	if err := birthca.Preview(preview); err != nil {
		t.Errorf("preview: %v", err)
	}
}

// Readers that nobody here wrote accept the chain.
func TestForeignReaders(t *testing.T) {
	c := newChain(t)
	dir := t.TempDir()
	file := func(name string, certs ...*x509.Certificate) string {
		var b []byte
		for _, x := range certs {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x.Raw})...)
		}
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	run := func(name string, arg ...string) string {
		out, err := exec.CommandContext(t.Context(), name, arg...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(arg, " "), err, out)
		}
		return string(out)
	}
	root, factory, device := file("root", c.root), file("factory", c.factory), file("device", c.device)
	run("openssl", "verify", "-x509_strict", "-CAfile", root, "-untrusted", factory, device)
	text := run("openssl", "x509", "-in", device, "-noout", "-text")
	for _, want := range []string{"gw100-00000007", "Dec 31 23:59:59 9999 GMT", "Digital Signature", "rehearsal:abcdefgh"} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl does not show %q:\n%s", want, text)
		}
	}
	relayCA, relay := file("relayca", c.relayCA), file("relay", c.relay)
	run("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "relay.example", "-attime", "1795400000", "-CAfile", relayCA, relay)
	if _, err := exec.LookPath("certtool"); err != nil {
		t.Log("certtool (gnutls-bin) is not installed: GnuTLS did not read the chain")
		return
	}
	run("certtool", "--verify", "--load-ca-certificate", root, "--infile", file("path", c.device, c.factory))
}

func TestCheckRequest(t *testing.T) {
	k, spki := newKey(t)
	csr, err := birthca.NewRequest("factory-ca", k)
	if err != nil {
		t.Fatal(err)
	}
	got, err := birthca.CheckRequest(csr)
	if err != nil || !bytes.Equal(got, spki) {
		t.Fatal(err)
	}
	block, _ := pem.Decode(csr)
	if got, err := birthca.CheckRequest(block.Bytes); err != nil || !bytes.Equal(got, spki) {
		t.Errorf("DER: %v", err)
	}
	for i := range block.Bytes {
		bad := bytes.Clone(block.Bytes)
		bad[i] ^= 1
		if _, err := birthca.CheckRequest(bad); err == nil {
			t.Errorf("byte %d flipped", i)
		}
	}
	if _, err := birthca.CheckRequest(append(bytes.Clone(csr), csr...)); err == nil {
		t.Error("two requests")
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA256}, p384)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := birthca.CheckRequest(der); fault.ClassOf(err) != fault.Verify {
		t.Errorf("P-384: %v", err)
	}
}

func FuzzCheckRequest(f *testing.F) {
	k, _ := newKey(f)
	csr, err := birthca.NewRequest("x", k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	block, _ := pem.Decode(csr)
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, data []byte) {
		spki, err := birthca.CheckRequest(data)
		if err != nil {
			return
		}
		if _, err := birthcert.ParseSPKI(spki); err != nil {
			t.Errorf("accepted a key that is none: %v", err)
		}
	})
}
