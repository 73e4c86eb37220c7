package actions

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/anchor"
	"keyrite/artifact/record"
)

// TestRSA4096Keys makes keys of 4,096 bits in a vault that exists, with either padding,
// in the domain that scripts allow them. Each proves itself in its own
// padding, and the field is told of all of them.
func TestRSA4096Keys(t *testing.T) {
	t.Parallel()
	f := found(t)
	usage := "attestation: quorum, usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: false, destroyable: true}"
	want := map[string][2]string{"second-ca": {anchor.RSA4096, "x509"}, "third-ca": {anchor.RSA4096PSS, "x509"}}
	v := f.later(t, plan{kind: "new-key", bind: f.admittedFor(t, anchor.RSA4096, anchor.RSA4096PSS), edit: func(text string) string {
		from, to := strings.Index(text, "  - id: firmware-gw200"), strings.Index(text, "#+field existing:")
		keys := ""
		for _, id := range []string{"third-ca", "second-ca"} {
			keys += "  - {id: " + id + ", safe: work, purpose: test, algorithm: " + want[id][0] + ", domain: " + want[id][1] + ", " + usage + "}\n"
		}
		text = inField(text[:from] + keys + text[to:])
		line := ""
		for l := range strings.Lines(text) {
			if strings.Contains(l, "do: key.generate") {
				line = l
			}
		}
		return strings.Replace(text, line, strings.Replace(line, "firmware-gw200", "third-ca", 1)+strings.Replace(strings.Replace(line, "firmware-gw200", "second-ca", 1), `"3.1"`, `"3.9"`, 1), 1)
	}})
	if len(v.Keys) != len(want) || len(v.Succession.Added) != len(want) {
		t.Fatalf("%d keys, %d told", len(v.Keys), len(v.Succession.Added))
	}
	for i := range v.Keys {
		k := &v.Keys[i].Key
		pub, err := k.Key()
		if err != nil {
			t.Fatal(err)
		}
		p, ok := pub.(*rsa.PublicKey)
		if !ok || p.N.BitLen() != 4096 || want[k.ID] != [2]string{k.Algorithm, k.Domain} {
			t.Errorf("%s: %s, %s, %T", k.ID, k.Algorithm, k.Domain, pub)
		}
	}
	// A proof in one padding is none in the other.
	list := entries(t, f.newest)
	for i := range list {
		if list[i].Type == "key" {
			k := list[i].Data["key"].(map[string]any)
			if k["id"] == "third-ca" {
				k["algorithm"] = anchor.RSA4096
			}
		}
	}
	dir := f.path("other-padding")
	if err := os.CopyFS(dir, os.DirFS(f.newest)); err != nil {
		t.Fatal(err)
	}
	f.forgeAs(t, dir, list, "witness1", "witness2", "master1", "master2", "master3")
	if _, err := record.Verify(os.DirFS(dir), f.anchors); err == nil {
		t.Error("a key told with another padding")
	}
}

// TestImportedCrossCertificate certifies, under a root of RSA with 4,096 bits that
// Boulder's configuration asked for, an authority that another root has certified
// already: same name, same key, same key identifier.
func TestImportedCrossCertificate(t *testing.T) {
	t.Parallel()
	demo := filepath.Join("..", "boulder", "testdata")
	h := newHouse(t)
	on, first := h.found(t, h.imported(t, filepath.Join(demo, "root-b.yaml")), "root")
	rootFile := filepath.Join(first, "outputs", "root-b.cert.pem")
	root := certOf(t, rootFile)
	if p, ok := root.PublicKey.(*rsa.PublicKey); !ok || p.N.BitLen() != 4096 || root.SignatureAlgorithm != x509.SHA256WithRSA {
		t.Fatalf("root: %T, %s", root.PublicKey, root.SignatureAlgorithm)
	}
	other, sub := foreignAuthority(t)
	h.write(t, "int-a1.cert.pem", pemBlock("CERTIFICATE", sub.Raw))
	h.write(t, "int-a1.pem", pemBlock("PUBLIC KEY", sub.RawSubjectPublicKeyInfo))
	config, err := os.ReadFile(filepath.Join(demo, "int-a1-cross.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "int-a1-cross.yaml", config)
	text := h.imported(t, h.path("int-a1-cross.yaml"))
	with := func(file string) func(*Bind) {
		return func(b *Bind) {
			on(b)
			b.Keys = map[string]string{"int-a1-cross": h.path(file)}
		}
	}
	dir, err := h.perform(t, "cross", text, "", with("int-a1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	if _, err := verifyOwn(dir); err != nil {
		t.Error(err)
	}
	path := filepath.Join(dir, "outputs", "int-a1-cross.cert.pem")
	cross := certOf(t, path)
	if !bytes.Equal(cross.RawSubject, sub.RawSubject) || !bytes.Equal(cross.RawSubjectPublicKeyInfo, sub.RawSubjectPublicKeyInfo) || !bytes.Equal(cross.SubjectKeyId, sub.SubjectKeyId) ||
		!bytes.Equal(cross.RawIssuer, root.RawSubject) || cross.SignatureAlgorithm != x509.SHA256WithRSA || cross.MaxPathLen != sub.MaxPathLen || !cross.MaxPathLenZero {
		t.Errorf("cross-certificate: %s by %s, %s", cross.Subject, cross.Issuer, cross.SignatureAlgorithm)
	}
	// One leaf, two roots: both ways lead up.
	leaf := leafBelow(t, sub)
	h.write(t, "leaf.pem", pemBlock("CERTIFICATE", leaf.Raw))
	h.write(t, "other-root.pem", pemBlock("CERTIFICATE", other.Raw))
	for _, way := range [][2]string{{rootFile, path}, {h.path("other-root.pem"), h.path("int-a1.cert.pem")}} {
		out, err := exec.Command("openssl", "verify", "-x509_strict", "-CAfile", way[0], "-untrusted", way[1], h.path("leaf.pem")).CombinedOutput()
		if err != nil {
			t.Errorf("by %s: %v\n%s", filepath.Base(way[0]), err, out)
		}
	}
	if out, err := exec.Command("openssl", "verify", "-CAfile", rootFile, "-untrusted", h.path("int-a1.cert.pem"), h.path("leaf.pem")).CombinedOutput(); err == nil {
		t.Errorf("openssl builds a way over the other root's certificate: %s", out)
	}
	t.Run("a weak key", func(t *testing.T) {
		weak, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(weak.Public())
		if err != nil {
			t.Fatal(err)
		}
		h.write(t, "weak.pem", pemBlock("PUBLIC KEY", der))
		if _, err := h.perform(t, "weak", text, "", with("weak.pem")); err == nil || !strings.Contains(err.Error(), "3,072") {
			t.Errorf("a key of 2,048 bits: %v", err)
		}
	})
}

// issuing is the key of the authority that is cross-certified.
var issuing = func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}()

// foreignAuthority is a root outside our vaults, and the authority below it.
func foreignAuthority(t *testing.T) (root, sub *x509.Certificate) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(tpl, parent *x509.Certificate, pub any) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, tpl, parent, pub, k)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := pem.Decode(pemBlock("CERTIFICATE", der))
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: name("Example Root A"), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	root = make(tpl, tpl, k.Public())
	below := *tpl
	below.SerialNumber, below.Subject, below.MaxPathLenZero = big.NewInt(2), name("Example Issuing A1"), true
	below.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return root, make(&below, root, issuing.Public())
}

func leafBelow(t *testing.T, sub *x509.Certificate) *x509.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "leaf.example"}, DNSNames: []string{"leaf.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 7),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, sub, k.Public(), issuing)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// admittedFor has the conductor sign a report of the work token that names further
// algorithms beside those that the genesis tried. The genesis of the fixture tries its
// own only, since attacks with RSA-4096 take long.
func (f *founded) admittedFor(t *testing.T, algorithms ...string) func(*Bind) {
	t.Helper()
	b, state, module, work := f.workToken(t)
	made, err := b.Reports(state).Admit(module, work, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := *made.Report
	r.Algorithms = append(slices.Clone(r.Algorithms), algorithms...)
	slices.Sort(r.Algorithms)
	file, err := admission.Sign(&r, f.people["conductor"].Signer())
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "work.admission", file)
	return func(b *Bind) { b.Admissions = []string{f.path("work.admission")} }
}
