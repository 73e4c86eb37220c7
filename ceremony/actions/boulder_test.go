package actions

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/ceremony/boulder"
	"keyrite/ceremony/script"
)

// imported is the script that a configuration of Boulder's tool becomes.
func (h *house) imported(t testing.TB, path string, existing ...string) string {
	t.Helper()
	programs, err := Programs(h.env.Config.HSMD, h.env.Config.Module)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	safe := "root"
	if len(existing) > 0 {
		safe = existing[0]
	}
	res, err := boulder.Import(path, data, boulder.Options{
		Pins:        script.Pins{Keyrite: programs[0].SHA256, HSMD: programs[1].SHA256, Module: programs[2].SHA256},
		Environment: script.Environment{Network: "any", Swap: "any"}, Safe: safe, Existing: len(existing) > 0,
		Roles: script.Roles{KeyMasters: script.Quorum{Need: 3, Of: 5}, Witnesses: 2, Approvers: script.Quorum{Need: 2, Of: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(res.Script)
}

func certOf(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(data)
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asBoulder is the certificate that Boulder's tool would make for the same key,
// serial number and validity, by what its documentation says of each member; its
// own key signs, since only the bytes to be signed matter.
func asBoulder(t testing.TB, got *x509.Certificate, tpl, issuer *x509.Certificate) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(got.RawSubjectPublicKeyInfo, &info); err != nil {
		t.Fatal(err)
	}
	ski := sha256.Sum256(info.Key.Bytes)
	tpl.SerialNumber, tpl.NotBefore, tpl.NotAfter = got.SerialNumber, got.NotBefore, got.NotAfter
	tpl.SubjectKeyId, tpl.SignatureAlgorithm, tpl.IsCA, tpl.BasicConstraintsValid = ski[:20], x509.ECDSAWithSHA384, true, true
	parent := tpl
	if issuer != nil {
		p := *issuer
		p.PublicKey = nil
		parent = &p
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, got.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c.RawTBSCertificate
}

func name(cn string) pkix.Name {
	return pkix.Name{CommonName: cn, Organization: []string{"Example Machines GmbH"}, Country: []string{"AT"}}
}

// TestImportedHierarchyIsIssued rehearses a root, an intermediate and a revocation
// list that Boulder's configuration files ask for, on a real token.
func TestImportedHierarchyIsIssued(t *testing.T) {
	t.Parallel()
	demo := filepath.Join("..", "boulder", "testdata")
	h := newHouse(t)
	on, first := h.found(t, h.imported(t, filepath.Join(demo, "root-a.yaml")), "root")
	root := certOf(t, filepath.Join(first, "outputs", "root-a.cert.pem"))
	want := asBoulder(t, root, &x509.Certificate{Subject: name("Example Root A"), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}, nil)
	if !bytes.Equal(root.RawTBSCertificate, want) {
		t.Errorf("the root is another than Boulder's configuration asks for\n%x\n%x", root.RawTBSCertificate, want)
	}
	if d := root.NotAfter.Sub(root.NotBefore); d != 30*24*time.Hour {
		t.Errorf("a rehearsal's root is good for %s", d)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "int-a1.pem", pemBlock("PUBLIC KEY", spki))
	dir, err := h.perform(t, "intermediate", h.imported(t, filepath.Join(demo, "int-a1-cert.yaml")), "", func(b *Bind) {
		on(b)
		b.Keys = map[string]string{"int-a1": h.path("int-a1.pem")}
	})
	if err != nil {
		t.Fatal(err)
	}
	sub := certOf(t, filepath.Join(dir, "outputs", "int-a1.cert.pem"))
	policy, err := x509.ParseOID("2.23.140.1.2.1")
	if err != nil {
		t.Fatal(err)
	}
	want = asBoulder(t, sub, &x509.Certificate{
		Subject: name("Example Issuing A1"), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature, MaxPathLenZero: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, Policies: []x509.OID{policy},
		CRLDistributionPoints: []string{"http://a.crl.example/"}, IssuingCertificateURL: []string{"http://a.ca.example/"},
	}, root)
	if !bytes.Equal(sub.RawTBSCertificate, want) {
		t.Errorf("the intermediate is another than Boulder's configuration asks for\n%x\n%x", sub.RawTBSCertificate, want)
	}
	h.cosign(t, dir, "witness2")
	if _, err := verifyOwn(dir); err != nil {
		t.Error(err)
	}
	h.importedCRL(t, demo, on, first, dir)
}

// importedCRL signs the revocation list and has openssl and certtool judge all
// three.
func (h *house) importedCRL(t *testing.T, demo string, on func(*Bind), first, second string) {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(demo, "root-a-crl.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(second, "outputs", "int-a1.cert.pem")
	text := strings.Replace(string(config), "./int-a1.cert.pem", sub, 1)
	text = strings.Replace(text, "2026-02-20 00:00:00", time.Now().UTC().Format(time.DateOnly)+" 00:00:00", 1)
	text = strings.Replace(text, "2027-01-31", "2026-03-20", 1) // a rehearsal's root ends in 30 days
	h.write(t, "crl.yaml", []byte(text))
	dir, err := h.perform(t, "crl", h.imported(t, h.path("crl.yaml")), "", on)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(first, "outputs", "root-a.cert.pem")
	list := filepath.Join(dir, "outputs", "root-a-crl.crl.pem")
	for _, args := range [][]string{
		{"openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", root, sub},
		{"certtool", "--verify", "--load-ca-certificate", root, "--infile", sub},
		{"openssl", "crl", "-in", list, "-CAfile", root, "-noout"},
		{"certtool", "--verify-crl", "--load-ca-certificate", root, "--infile", list},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	out, err := exec.Command("openssl", "verify", "-CAfile", root, "-CRLfile", list, "-crl_check", sub).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "revoked") {
		t.Errorf("openssl does not see the revocation: %v\n%s", err, out)
	}
	data, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(data)
	crl, err := x509.ParseRevocationList(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if crl.Number.Int64() != 100 || len(crl.RevokedCertificateEntries) != 1 || crl.RevokedCertificateEntries[0].ReasonCode != 4 || crl.SignatureAlgorithm != x509.ECDSAWithSHA384 {
		t.Errorf("list %s, %d entries, %s", crl.Number, len(crl.RevokedCertificateEntries), crl.SignatureAlgorithm)
	}
}

// TestImportedRootInAVaultThatExists makes the root in a later ceremony; its
// certificate is found in that ceremony's record when it issues.
func TestImportedRootInAVaultThatExists(t *testing.T) {
	t.Parallel()
	demo := filepath.Join("..", "boulder", "testdata")
	h := newHouse(t)
	on, first := h.found(t, strings.NewReplacer("tok-2", "work2", "token: tok}", "token: work}").Replace(twoSafes), "work work2")
	second, err := h.perform(t, "root", h.imported(t, filepath.Join(demo, "root-a.yaml"), "work"), "", on)
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, second, "witness2")
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "int-a1.pem", pemBlock("PUBLIC KEY", spki))
	issue := func(label string, records ...string) error {
		_, err := h.perform(t, label, h.imported(t, filepath.Join(demo, "int-a1-cert.yaml"), "work"), "", func(b *Bind) {
			continues(first)(b)
			b.Charter, b.Records = filepath.Join(second, "outputs", "charter.jsonl"), records
			b.Keys = map[string]string{"int-a1": h.path("int-a1.pem")}
		})
		return err
	}
	if err := issue("without", first); err == nil || !strings.Contains(err.Error(), "nor in a record") {
		t.Errorf("without the root's record: %v", err)
	}
	if err := issue("with", first, second); err != nil {
		t.Error(err)
	}
}
