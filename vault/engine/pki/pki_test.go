package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
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
	v.Approve(charter.TypeMount, charter.Mount{Engine: "pki", ID: "pki"})
	b := enginetest.Over(t, v.World, v.Store(), "pki")
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
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{string(r.v.World.World)}, CommonName: "plant CA"},
		NotBefore: r.Now.Add(-time.Hour), NotAfter: r.Now.Add(60 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("plant ca key id 0001"),
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
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
	a, err := r.Do(r.e, engine.Write, path, b)
	if err != nil {
		return nil, err
	}
	return enginetest.Data(r.t, a), nil
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

func (r *room) refused(what string, c fault.Class, err error) {
	r.t.Helper()
	if fault.ClassOf(err) != c {
		r.t.Errorf("%s: class %q, want %q: %v", what, fault.ClassOf(err), c, err)
	}
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

// openssl runs it in a folder with the files.
func openssl(t *testing.T, files map[string][]byte, args ...string) (dir, out string, err error) {
	t.Helper()
	dir = t.TempDir()
	for n, b := range files {
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	text, err := cmd.CombinedOutput()
	return dir, string(text), err
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

// TestIssuedCertificatesHold: issued for keys of each type, under CAs of each, they
// pass zlint and openssl, bear the names and nothing more, and the key fits
// (R-CER-20).
func TestIssuedCertificatesHold(t *testing.T) {
	for _, alg := range []string{anchor.P256, anchor.P384, anchor.RSA3072} {
		t.Run(alg, func(t *testing.T) {
			r := newRoom(t, alg)
			r.state(func(*charter.PKIRole) {})
			for _, typ := range charter.PKIKeyTypes() {
				out := r.do("issue/plant", body{"common_name": "plc1.line1.example.com", "alt_names": "mes.example.com", "uri_sans": []string{"spiffe://example.com/line1/plc1"}, "ip_sans": "10.1.2.3", "ttl": "1h", "key_type": typ})
				c := parse(t, out["certificate"])
				zlinted(t, c.Raw)
				if _, err := tls.X509KeyPair([]byte(out["certificate"].(string)), []byte(out["private_key"].(string))); err != nil {
					t.Errorf("%s: the key does not fit: %v", typ, err)
				}
				if !slices.Equal(c.DNSNames, []string{"mes.example.com", "plc1.line1.example.com"}) || len(c.URIs) != 1 || len(c.IPAddresses) != 1 || c.IsCA || c.Subject.CommonName != "plc1.line1.example.com" {
					t.Errorf("%s: %v %v %v", typ, c.DNSNames, c.URIs, c.IPAddresses)
				}
				if c.SerialNumber.BitLen() != 127 || c.NotAfter.Sub(r.Now) > time.Hour {
					t.Errorf("%s: number of %d bits, until %s", typ, c.SerialNumber.BitLen(), c.NotAfter)
				}
				files := map[string][]byte{"ca": r.raw(engine.Read, "ca/pem", nil), "crl": r.raw(engine.Read, "crl/pem", nil), "leaf": []byte(out["certificate"].(string))}
				if _, text, err := openssl(t, files, "verify", "-x509_strict", "-crl_check", "-CRLfile", "crl", "-CAfile", "ca", "leaf"); err != nil {
					t.Errorf("%s: openssl: %s", typ, text)
				}
			}
		})
	}
}

// TestTLSWithIssuedCertificates: a server and a client that the vault gave
// certificates talk to each other.
func TestTLSWithIssuedCertificates(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	pair := func() tls.Certificate {
		out := r.do("issue/plant", body{"common_name": "mes.example.com", "private_key_format": "pkcs8"})
		p, err := tls.X509KeyPair([]byte(out["certificate"].(string)), []byte(out["private_key"].(string)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	pool := x509.NewCertPool()
	pool.AddCert(r.ca)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "hello")
	}()
	c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: "mes.example.com", Certificates: []tls.Certificate{pair()}, MinVersion: tls.VersionTLS13}}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); string(got) != "hello" {
		t.Errorf("%q %v", got, err)
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

// TestSignedRequests: of a request only key and names are taken, and each name must be
// the role's.
func TestSignedRequests(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(x *charter.PKIRole) { x.KeyTypes = []string{"ecdsa-p256", "ed25519"} })
	k := ecKey(t, elliptic.P256())
	plain := func(*x509.CertificateRequest) {}
	out := r.do("sign/plant", body{"csr": request(t, k, func(c *x509.CertificateRequest) {
		c.Subject.Organization, c.Subject.OrganizationalUnit = []string{"Evil"}, []string{"Root"}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 1, 6}}} // keyCertSign, cRLSign
	})})
	c := parse(t, out["certificate"])
	zlinted(t, c.Raw)
	if out["private_key"] != nil || !k.PublicKey.Equal(c.PublicKey) || !slices.Equal(c.Subject.Organization, r.ca.Subject.Organization) || len(c.Subject.OrganizationalUnit) > 0 || c.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("subject %s, usage %b", c.Subject, c.KeyUsage)
	}
	got := parse(t, r.do("sign/plant", body{"csr": request(t, k, plain), "common_name": "mes.example.com"})["certificate"])
	if !slices.Equal(got.DNSNames, []string{"mes.example.com"}) {
		t.Errorf("names are %v", got.DNSNames)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.do("sign/plant", body{"csr": request(t, ed, plain)})
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	broken := []byte(request(t, k, plain))
	other, err := url.Parse("spiffe://example.com/line2/plc1")
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(text []byte) string {
		b, _ := pem.Decode(text)
		b.Bytes[len(b.Bytes)-3] ^= 1
		return string(pem.EncodeToMemory(b))
	}
	for what, x := range map[string]struct {
		class fault.Class
		body  body
	}{
		"none":                  {fault.Usage, body{}},
		"no PEM":                {fault.Usage, body{"csr": "AAAA"}},
		"two":                   {fault.Usage, body{"csr": string(broken) + string(broken)}},
		"huge":                  {fault.Usage, body{"csr": string(broken) + strings.Repeat(" ", 20_000)}},
		"no proof":              {fault.Usage, body{"csr": spoil(broken)}},
		"a certificate":         {fault.Usage, body{"csr": string(r.raw(engine.Read, "ca/pem", nil))}},
		"another curve":         {fault.Policy, body{"csr": request(t, ecKey(t, elliptic.P384()), plain)}},
		"a curve of nobody":     {fault.Policy, body{"csr": request(t, ecKey(t, elliptic.P521()), plain)}},
		"a weak key":            {fault.Policy, body{"csr": request(t, weak, plain)}},
		"a name more":           {fault.Policy, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.DNSNames = []string{"plc1.line1.example.com", "evil.example.com"} })}},
		"a name more, beside":   {fault.Policy, body{"common_name": "mes.example.com", "csr": request(t, k, func(c *x509.CertificateRequest) { c.DNSNames = []string{"evil.example.com"} })}},
		"a URI of another line": {fault.Policy, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.URIs = []*url.URL{other} })}},
		"an address of others":  {fault.Policy, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.IPAddresses = []net.IP{net.IPv4(10, 2, 0, 1)} })}},
		"an e-mail address":     {fault.Usage, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.EmailAddresses = []string{"a@example.com"} })}},
		"no name":               {fault.Usage, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.Subject = pkix.Name{} })}},
		"a wildcard":            {fault.Policy, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.DNSNames = []string{"*.line1.example.com"} })}},
		"a CA": {fault.Usage, body{"csr": request(t, k, func(c *x509.CertificateRequest) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		})}},
		"a name Go passes over": {fault.Usage, body{"csr": request(t, k, func(c *x509.CertificateRequest) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 4, 0x88, 2, 0x2a, 3}}}
		})}},
		"the CA's own key":       {fault.Usage, body{"csr": "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"}},
		"a key of the vault too": {fault.Usage, body{"csr": string(broken), "key_type": "ecdsa-p256"}},
	} {
		_, err := r.try("sign/plant", x.body)
		r.refused(what, x.class, err)
	}
}

// TestNamesOfTheRole: what a role does not name it does not give.
func TestNamesOfTheRole(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	for what, x := range map[string]struct {
		class fault.Class
		body  body
	}{
		"nothing":                  {fault.Usage, body{}},
		"the suffix itself":        {fault.Policy, body{"common_name": "line1.example.com"}},
		"a name that ends so":      {fault.Policy, body{"common_name": "evilline1.example.com"}},
		"another":                  {fault.Policy, body{"common_name": "example.com"}},
		"one of two":               {fault.Policy, body{"common_name": "mes.example.com", "alt_names": "evil.example.com"}},
		"capitals":                 {fault.Policy, body{"common_name": "MES.example.com"}},
		"a dot at the end":         {fault.Policy, body{"common_name": "mes.example.com."}},
		"a nul":                    {fault.Policy, body{"common_name": "mes.example.com\x00.evil.com"}},
		"a wildcard":               {fault.Policy, body{"common_name": "*.line1.example.com"}},
		"an address as name":       {fault.Policy, body{"common_name": "10.1.2.3"}},
		"another network":          {fault.Policy, body{"ip_sans": "10.2.0.1"}},
		"IPv4 in IPv6":             {fault.Policy, body{"ip_sans": "::ffff:10.1.2.3"}},
		"an odd address":           {fault.Usage, body{"ip_sans": "10.1.02.3"}},
		"a zone":                   {fault.Policy, body{"ip_sans": "fe80::1%eth0"}},
		"the URI's place":          {fault.Policy, body{"uri_sans": "spiffe://example.com/line1"}},
		"a URI beside":             {fault.Policy, body{"uri_sans": "spiffe://example.com/line10/x"}},
		"a URI with dots":          {fault.Policy, body{"uri_sans": "spiffe://example.com/line1/../line2"}},
		"a URI with percent":       {fault.Policy, body{"uri_sans": "spiffe://example.com/line1/%2e%2e"}},
		"a URI with user":          {fault.Policy, body{"uri_sans": "spiffe://x@example.com/line1/a"}},
		"a URI with query":         {fault.Policy, body{"uri_sans": "spiffe://example.com/line1/a?b"}},
		"too long":                 {fault.Policy, body{"common_name": "mes.example.com", "ttl": "25h"}},
		"a key of another type":    {fault.Policy, body{"common_name": "mes.example.com", "key_type": "rsa-2048"}},
		"a format of nobody":       {fault.Usage, body{"common_name": "mes.example.com", "format": "pkcs12"}},
		"an unknown parameter":     {fault.Usage, body{"common_name": "mes.example.com", "not_after": "9999-12-31T23:59:59Z"}},
		"other names":              {fault.Usage, body{"common_name": "mes.example.com", "other_sans": "1.2;UTF8:x"}},
		"a number of the caller's": {fault.Usage, body{"common_name": "mes.example.com", "serial_number": "01"}},
	} {
		_, err := r.try("issue/plant", x.body)
		r.refused(what, x.class, err)
	}
	if _, err := r.try("issue/nobody", body{"common_name": "mes.example.com"}); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("an unknown role: %v", err)
	}
	for _, path := range []string{"roles/plant", "config/urls", "root/generate/internal", "tidy"} {
		if _, err := r.try(path, body{}); !errors.Is(err, engine.ErrByCharter) {
			t.Errorf("%s: %v", path, err)
		}
	}
	err := r.Store.View(func(v *seal.View) error {
		if n := len(v.Keys("pki/pki", "")); n > 0 {
			t.Errorf("%d numbers were taken for what was refused", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRevocation: what was revoked stands in the next list and is told by OCSP, in
// openssl's words; numbers of lists go up.
func TestRevocation(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	good := r.do("issue/plant", body{"common_name": "mes.example.com"})
	bad := r.do("issue/plant", body{"common_name": "plc1.line1.example.com"})
	ca := r.raw(engine.Read, "ca/pem", nil)
	list := func() *x509.RevocationList {
		der := r.raw(engine.Read, "crl", nil)
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		zlintedList(t, der)
		if _, text, err := openssl(t, map[string][]byte{"ca": ca, "crl": der}, "crl", "-inform", "DER", "-in", "crl", "-noout", "-CAfile", "ca"); err != nil || !strings.Contains(text, "verify OK") {
			t.Errorf("openssl crl: %v %s", err, text)
		}
		return l
	}
	first := list()
	if again := list(); again.Number.Cmp(first.Number) != 0 {
		t.Error("a list was signed although nothing changed")
	}
	if got := r.ocspOf(ca, good["certificate"].(string)); !strings.Contains(got, "leaf: good") {
		t.Error(got)
	}
	rev := r.do("revoke", body{"serial_number": bad["serial_number"]})
	if rev["state"] != "revoked" || r.do("revoke", body{"certificate": bad["certificate"]})["revocation_time"] != rev["revocation_time"] {
		t.Error(rev)
	}
	second := list()
	if second.Number.Cmp(first.Number) <= 0 || len(second.RevokedCertificateEntries) != 1 || second.RevokedCertificateEntries[0].SerialNumber.Cmp(parse(t, bad["certificate"]).SerialNumber) != 0 {
		t.Errorf("list %s has %d entries", second.Number, len(second.RevokedCertificateEntries))
	}
	for name, want := range map[string]bool{"good": true, "bad": false} {
		leaf := map[string]any{"good": good["certificate"], "bad": bad["certificate"]}[name].(string)
		files := map[string][]byte{"ca": ca, "crl": r.raw(engine.Read, "crl/pem", nil), "leaf": []byte(leaf)}
		if _, text, err := openssl(t, files, "verify", "-crl_check", "-CRLfile", "crl", "-CAfile", "ca", "leaf"); (err == nil) != want {
			t.Errorf("%s: %s", name, text)
		}
	}
	if got := r.ocspOf(ca, bad["certificate"].(string)); !strings.Contains(got, "leaf: revoked") {
		t.Error(got)
	}
	r.Now = r.Now.Add(25 * time.Hour)
	if third := list(); third.Number.Cmp(second.Number) <= 0 || len(third.RevokedCertificateEntries) != 1 {
		t.Errorf("a day later the list is number %s", third.Number)
	}
	c, err := r.Do(r.e, engine.Read, "cert/"+bad["serial_number"].(string), nil)
	if err != nil || enginetest.Data(t, c)["revocation_time"] == 0.0 || enginetest.Data(t, c)["certificate"] != bad["certificate"] {
		t.Errorf("%v %v", c, err)
	}
	all, err := r.Do(r.e, engine.List, "certs", nil)
	if err != nil || len(enginetest.Data(t, all)["keys"].([]any)) != 2 {
		t.Errorf("%v %v", all, err)
	}
	for what, b := range map[string]body{"nothing": {}, "both": {"serial_number": "00", "certificate": "x"}, "too short": {"serial_number": "01:02"}, "no hex": {"serial_number": strings.Repeat("zz", 16)}, "no PEM": {"certificate": "x"}} {
		_, err := r.try("revoke", b)
		r.refused(what, fault.Usage, err)
	}
	if _, err := r.try("revoke", body{"serial_number": strings.Repeat("41", 16)}); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("an unknown number: %v", err)
	}
}

// ocspOf asks with a request that openssl made, by POST and by GET, and returns what
// openssl says of the answer.
func (r *room) ocspOf(ca []byte, leaf string) string {
	t := r.t
	t.Helper()
	files := map[string][]byte{"ca": ca, "leaf": []byte(leaf)}
	dir, text, err := openssl(t, files, "ocsp", "-issuer", "ca", "-cert", "leaf", "-no_nonce", "-reqout", "req")
	if err != nil {
		t.Fatal(text)
	}
	req, err := os.ReadFile(filepath.Join(dir, "req"))
	if err != nil {
		t.Fatal(err)
	}
	files["resp"] = r.raw(engine.Write, "ocsp", body{"request": base64.StdEncoding.EncodeToString(req)})
	_, text, err = openssl(t, files, "ocsp", "-issuer", "ca", "-cert", "leaf", "-no_nonce", "-respin", "resp", "-CAfile", "ca")
	if err != nil || !strings.Contains(text, "Response verify OK") {
		t.Errorf("openssl ocsp: %v %s", err, text)
	}
	if got := r.raw(engine.Read, "ocsp/"+base64.URLEncoding.EncodeToString(req), nil); string(got) != string(files["resp"]) {
		t.Error("GET and POST give two answers within half an hour")
	}
	return text
}

// TestOCSPOfNothing: what is no question about one of ours is answered without the
// CA's key.
func TestOCSPOfNothing(t *testing.T) {
	r := newRoom(t, anchor.P256)
	if got := r.raw(engine.Write, "ocsp", body{"request": base64.StdEncoding.EncodeToString([]byte{0x30, 0})}); string(got) != "\x30\x03\x0a\x01\x01" {
		t.Errorf("malformed: %x", got)
	}
	if _, err := r.Do(r.e, engine.Read, "crl", nil); !errors.Is(err, pki.ErrNoRole) {
		t.Errorf("no role: %v", err)
	}
	r.state(func(*charter.PKIRole) {})
	leaf := r.do("issue/plant", body{"common_name": "mes.example.com"})["certificate"].(string)
	// Of another CA, and of a number that nobody took.
	stranger := ecKey(t, elliptic.P256())
	tpl := *r.ca
	tpl.PublicKey = nil
	der, err := x509.CreateCertificate(rand.Reader, &tpl, &tpl, stranger.Public(), stranger)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"ca": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), "leaf": []byte(leaf), "ours": r.raw(engine.Read, "ca/pem", nil)}
	for what, c := range map[string]struct {
		args []string
		want string
	}{
		"another CA":     {[]string{"-issuer", "ca", "-cert", "leaf"}, "unauthorized"},
		"another number": {[]string{"-issuer", "ours", "-serial", "0x41424344454647484142434445464748"}, "unknown"},
		"two at once":    {[]string{"-issuer", "ours", "-cert", "leaf", "-serial", "0x41"}, "malformed"},
	} {
		dir, text, err := openssl(t, files, append([]string{"ocsp", "-no_nonce", "-reqout", "req"}, c.args...)...)
		if err != nil {
			t.Fatal(text)
		}
		req, err := os.ReadFile(filepath.Join(dir, "req"))
		if err != nil {
			t.Fatal(err)
		}
		files["resp"] = r.raw(engine.Write, "ocsp", body{"request": base64.StdEncoding.EncodeToString(req)})
		_, text, _ = openssl(t, files, append([]string{"ocsp", "-no_nonce", "-respin", "resp", "-CAfile", "ours"}, c.args...)...)
		if !strings.Contains(strings.ToLower(text), c.want) {
			t.Errorf("%s: %s", what, text)
		}
	}
	for _, path := range []string{"ocsp/%", "ocsp/AAA", "ocsp/=", "ocsp/A/B"} {
		if strings.Contains(path, "%") {
			continue // such a path is none (artifact/access)
		}
		if a, err := r.Do(r.e, engine.Read, path, nil); err == nil && string(a.Raw) != "\x30\x03\x0a\x01\x01" || err != nil && fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v %v", path, a, err)
		}
	}
}

// TestLostCertificates: a number that was taken and never given out is revoked, and
// what was revoked while it was signed is not given out.
func TestLostCertificates(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	q := r.Request(engine.Write, "issue/plant", body{"common_name": "mes.example.com"})
	plan, err := r.e.Plan(q)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Work(t.Context()); fault.ClassOf(err) != fault.Unexpected {
		t.Errorf("signed without the number taken: %v", err)
	}
	update := func(f func(*seal.Tx) error) error {
		_, err := r.Store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) { return "x", f(tx) })
		return err
	}
	if err := update(plan.Reserve); err != nil {
		t.Fatal(err)
	}
	entries := func() int {
		l, err := x509.ParseRevocationList(r.raw(engine.Read, "crl", nil))
		if err != nil {
			t.Fatal(err)
		}
		return len(l.RevokedCertificateEntries)
	}
	if n := entries(); n != 0 {
		t.Errorf("%d entries while it is signed", n)
	}
	if _, err := r.Do(r.e, engine.List, "certs", nil); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("it is listed before it is there: %v", err)
	}
	r.Now = r.Now.Add(25 * time.Hour)
	if n := entries(); n != 1 {
		t.Errorf("%d entries for what was lost", n)
	}
	serial := plan.Shown["serial"].(string)
	r.do("revoke", body{"serial_number": serial})
	if err := plan.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := update(func(tx *seal.Tx) error { _, err := plan.Apply(tx); return err }); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("given out after it was revoked: %v", err)
	}
}

// TestLeasesAndLimits: a lease revoked early revokes; a role has no more certificates
// than it may; what ended makes room and is forgotten.
func TestLeasesAndLimits(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(x *charter.PKIRole) { x.MaxLive = 2 })
	a, err := r.Do(r.e, engine.Write, "issue/plant", body{"common_name": "mes.example.com", "ttl": 3600})
	if err != nil || a.Lease == nil || a.Lease.TTL != time.Hour || a.Lease.Renewable {
		t.Fatalf("%+v %v", a, err)
	}
	r.do("issue/plant", body{"common_name": "mes.example.com", "ttl": "1h"})
	if _, err := r.try("issue/plant", body{"common_name": "mes.example.com"}); !errors.Is(err, pki.ErrFull) {
		t.Errorf("a third: %v", err)
	}
	end := func(now time.Time) {
		_, err := r.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "end", r.e.End(tx, a.Lease.Object, now) })
		if err != nil {
			t.Fatal(err)
		}
	}
	revoked := func() bool {
		c, err := r.Do(r.e, engine.Read, "cert/"+a.Lease.Object, nil)
		if err != nil {
			t.Fatal(err)
		}
		return enginetest.Data(t, c)["revocation_time"] != 0.0
	}
	if end(r.Now.Add(time.Hour)); revoked() {
		t.Error("at its end a certificate was revoked")
	}
	if end(r.Now.Add(time.Minute)); !revoked() {
		t.Error("its lease was revoked, it was not")
	}
	r.Now = r.Now.Add(2 * time.Hour)
	r.do("issue/plant", body{"common_name": "mes.example.com", "ttl": "1h"})
	r.Now = r.Now.Add(8 * 24 * time.Hour)
	r.do("issue/plant", body{"common_name": "mes.example.com", "ttl": "1h"})
	if _, err := r.Do(r.e, engine.Read, "cert/"+a.Lease.Object, nil); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("a week after its end it is still there: %v", err)
	}
}

// TestRelayCertificates: in the profile that gateways check, for the role alone.
func TestRelayCertificates(t *testing.T) {
	r := newRoom(t, anchor.P256)
	k, rec, err := r.Host.Token.Signer(t.Context(), "plant-ca")
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := (&birthcert.Template{Profile: birthcert.RelayCA, World: r.v.World.World, Serial: birthcert.NewCertSerial(), NotBefore: r.Now.Add(-time.Hour).Truncate(time.Second).UTC(), SPKI: rec.Public}).TBS()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	sig, err := k.SignContext(t.Context(), sum[:])
	if err != nil {
		t.Fatal(err)
	}
	der, err := birthcert.Assemble(tbs, sig)
	if err != nil {
		t.Fatal(err)
	}
	if r.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	r.state(func(x *charter.PKIRole) {
		x.Relay, x.KeyTypes, x.Usages, x.URIs, x.DNS, x.MaxTTL = "vpn", []string{"ecdsa-p256"}, []string{"server"}, nil, []string{".relay.example.com"}, charter.MaxPKITTL
	})
	c := parse(t, r.do("issue/plant", body{"common_name": "vpn1.relay.example.com", "ip_sans": "10.1.0.9"})["certificate"])
	zlinted(t, c.Raw)
	if err := birthcert.VerifyRelay(c, r.ca, "vpn", r.Now); err != nil {
		t.Error(err)
	}
	if err := birthcert.VerifyRelay(c, r.ca, "access", r.Now); err == nil {
		t.Error("it stands for another role")
	}
	if err := c.VerifyHostname("vpn1.relay.example.com"); err != nil {
		t.Error(err)
	}
	for what, b := range map[string]body{"a URI": {"common_name": "vpn1.relay.example.com", "uri_sans": birthcert.RoleURI("access")}, "another name": {"common_name": "vpn1.example.com"}} {
		_, err := r.try("issue/plant", b)
		r.refused(what, fault.Policy, err)
	}
}

// TestKeysAreNotKept: the private key is in the answer and nowhere in the store or its
// log.
func TestKeysAreNotKept(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	out := r.do("issue/plant", body{"common_name": "mes.example.com"})
	b, _ := pem.Decode([]byte(out["private_key"].(string)))
	k, err := x509.ParseECPrivateKey(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"hex": hex.EncodeToString(secret), "raw": string(secret), "base64": base64.StdEncoding.EncodeToString(b.Bytes)}
	look := func(where string, data []byte) {
		for how, s := range all {
			if strings.Contains(string(data), s) {
				t.Errorf("%s has the key in %s", where, how)
			}
		}
	}
	for i := range r.Store.Head().Size {
		e, err := r.Store.Entry(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		look("the log", e)
	}
	err = r.Store.View(func(v *seal.View) error {
		for _, bucket := range []string{"pki/pki", "pki-index/pki", "pki-begun/pki", "pki-crl/pki"} {
			for _, key := range v.Keys(bucket, "") {
				data, err := v.Get(bucket, key)
				if err != nil {
					return err
				}
				look(bucket, data)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
