package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/pki"
	"keyrite/vault/seal"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// room is an engine whose CA's key lies in a token.
type room struct {
	*enginetest.Bench
	e  *pki.Engine
	v  *vaulttest.Vault
	ca *x509.Certificate
	t  *testing.T
}

type body map[string]any

func newRoom(t *testing.T, alg string) *room {
	t.Helper()
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "plant-ca", Algorithm: alg, Domain: "x509"}})
	return roomOver(t, v, v.Store())
}

// roomOver is a room of a vault that has the CA's key, over a store.
func roomOver(t *testing.T, v *vaulttest.Vault, s *seal.Store) *room {
	t.Helper()
	v.Approve(charter.TypeMount, charter.Mount{Engine: "pki", ID: "pki"})
	b := enginetest.Over(t, v.World, s, "pki")
	b.Host.Token, b.Now = v.Open(), time.Now()
	r := &room{Bench: b, e: pki.New(b.Host), v: v, t: t}
	r.ca = r.authority()
	return r
}

// authority has the key in the token sign its own certificate, as a ceremony does.
func (r *room) authority() *x509.Certificate {
	t := r.t
	t.Helper()
	k, _, err := r.Host.Token.Signer(t.Context(), "plant-ca")
	if err != nil {
		t.Fatal(err)
	}
	tpl := r.template("plant CA")
	tpl.MaxPathLen, tpl.MaxPathLenZero = 0, true
	return certify(t, tpl, tpl, k.Public(), k)
}

// template is what a CA's certificate says; the plant's names the world.
func (r *room) template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{string(r.v.World.World)}, CommonName: name},
		NotBefore: r.Now.Add(-time.Hour), NotAfter: r.Now.Add(60 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name + " key id 0001"),
	}
}

// subordinate makes the room's CA one below a middle and a root whose keys are elsewhere,
// and returns the root in PEM and what the charter is to say is above the CA.
func (r *room) subordinate() (root []byte, above [][]byte) {
	rk, mk := ecKey(r.t, elliptic.P256()), ecKey(r.t, elliptic.P384())
	tpl := r.template("root")
	top := certify(r.t, tpl, tpl, rk.Public(), rk)
	middle := certify(r.t, r.template("middle"), top, mk.Public(), rk)
	tpl = r.template("plant CA")
	tpl.MaxPathLen, tpl.MaxPathLenZero = 0, true
	r.ca = certify(r.t, tpl, middle, r.ca.PublicKey, mk)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: top.Raw}), [][]byte{middle.Raw}
}

func certify(t *testing.T, tpl, by *x509.Certificate, pub crypto.PublicKey, k crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tpl, by, pub, k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *room) role(f func(*charter.PKIRole)) charter.PKIRole {
	x := charter.PKIRole{
		DNS: []string{".line1.example.com", "mes.example.com"}, IPs: []string{"10.1.0.0/16"}, Issuer: r.ca.Raw, Key: "plant-ca",
		KeyTypes: []string{"ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-3072"}, MaxLive: 100, MaxTTL: 24 * 60 * 60, Mount: "pki", Name: "plant",
		URIs: []string{"spiffe://example.com/line1/"}, Usages: []string{"client", "server"}, Version: 1,
	}
	f(&x)
	return x
}

func (r *room) state(f func(*charter.PKIRole)) {
	r.t.Helper()
	r.v.Approve(charter.TypePKIRole, r.role(f))
}

func (r *room) try(path string, b body) (map[string]any, error) {
	r.t.Helper()
	return r.Write(r.e, path, b)
}

func (r *room) do(path string, b body) map[string]any {
	r.t.Helper()
	out, err := r.try(path, b)
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	return out
}

func (r *room) raw(m engine.Method, path string, b body) []byte {
	r.t.Helper()
	a, err := r.Do(r.e, m, path, b)
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	return a.Raw
}

func parse(t *testing.T, text any) *x509.Certificate {
	t.Helper()
	s, _ := text.(string)
	b, _ := pem.Decode([]byte(s))
	if b == nil {
		t.Fatalf("%q is no PEM", s)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// zlinted wants nothing found by zlint, with the sources that fit certificates of
// machines.
func zlinted(t *testing.T, der []byte) {
	t.Helper()
	reg, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := zx509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for name, res := range zlint.LintCertificateEx(c, reg).Results {
		if res.Status >= lint.Warn {
			t.Errorf("zlint: %s %s %s", name, res.Status, res.Details)
		}
	}
}

func zlintedList(t *testing.T, der []byte) {
	t.Helper()
	reg, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := zx509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	for name, res := range zlint.LintRevocationListEx(l, reg).Results {
		if res.Status >= lint.Warn {
			t.Errorf("zlint: %s %s %s", name, res.Status, res.Details)
		}
	}
}

// request is a CSR in PEM.
func request(t *testing.T, k crypto.Signer, f func(*x509.CertificateRequest)) string {
	t.Helper()
	tpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "plc1.line1.example.com"}}
	f(tpl)
	der, err := x509.CreateCertificateRequest(rand.Reader, tpl, k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func ecKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
