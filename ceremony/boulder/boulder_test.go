package boulder

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
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/ceremony/script"
)

func options() Options {
	pin := strings.Repeat("ab", 32)
	return Options{
		Pins: script.Pins{Keyrite: pin, HSMD: pin, Module: pin}, Environment: script.Environment{Network: "down", Swap: "off", CoreDumps: "off", Clock: "utc"}, Safe: "root",
		Roles: script.Roles{KeyMasters: script.Quorum{Need: 3, Of: 5}, Witnesses: 2, Approvers: script.Quorum{Need: 2, Of: 2}},
	}
}

// demo copies the example hierarchy to a folder, with the certificate that two of
// its files read.
func demo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) != 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(0x4711), Subject: pkix.Name{CommonName: "Example Issuing A1", Organization: []string{"Example Machines GmbH"}, Country: []string{"AT"}},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, SubjectKeyId: []byte{1, 2, 3, 4},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "int-a1.cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHierarchy imports every file of the example; each script lints, says what
// was asked, and carries no PIN, slot or path.
func TestHierarchy(t *testing.T) {
	dir := demo(t)
	for _, tc := range []struct {
		file, kind string
		says       []string
	}{
		{"root-a.yaml", "genesis", []string{"id: root-a", "algorithm: p384", "always_authenticate: true", `common_name: "Example Root A"`, "path_length: -1", `not_after: "2045-12-31T23:59:59Z"`}},
		{"root-b.yaml", "genesis", []string{"algorithm: rsa4096", "decrypt: false, unwrap: false", "signature: rsa-sha256"}},
		{"int-a1-key.yaml", "new-key", []string{"id: int-a1", "algorithm: p256"}},
		{"int-a1-cert.yaml", "sign-offline", []string{"public: int-a1", "issuer: root-a", "path_length: 0", `ext_key_usages: ["server-auth"]`, `policies: ["2.23.140.1.2.1"]`, `crl_url: "http://a.crl.example/"`}},
		{"int-a1-cross.yaml", "sign-offline", []string{"issuer: root-b", `subject_key_id: "01020304"`, "path_length: 0"}},
		{"root-a-crl.yaml", "sign-offline", []string{"number: 100", "days: 336", `serial: "4711"`, "reason: superseded"}},
	} {
		path := filepath.Join(dir, tc.file)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		res, err := Import(path, data, options())
		if err != nil {
			t.Errorf("%s: %v", tc.file, err)
			continue
		}
		text := string(res.Script)
		if res.Kind != tc.kind {
			t.Errorf("%s became %s, want %s", tc.file, res.Kind, tc.kind)
		}
		always := []string{"environment: {network: down, swap: off, core_dumps: off, clock: utc}\n", "key_masters: {need: 3, of: 5}", "witnesses: 2", "approvers: {need: 2, of: 2}", "planned: [late, mistyped, spare-card]", "planned: [misread]"}
		if tc.kind == "sign-offline" {
			always = append(always, "planned: [spare-share]")
		} else {
			always = append(always, "attestation: quorum", "do: births.sign")
		}
		for _, want := range append(always, tc.says...) {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %s:\n%s", tc.file, want, text)
			}
		}
		for _, never := range []string{"975312", "/opt/vendor", "/ceremony/out", ".pem", "slot"} {
			if strings.Contains(text, never) {
				t.Errorf("%s carries %s:\n%s", tc.file, never, text)
			}
		}
		if notes := strings.Join(res.Notes, "\n"); strings.Contains(text+notes, "975312") || !strings.Contains(notes, "pkcs11.pin") || !strings.Contains(notes, "slot") {
			t.Errorf("%s: notes %s", tc.file, notes)
		}
	}
	o := options()
	o.Existing = true
	data, err := os.ReadFile(filepath.Join(dir, "root-b.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if res, err := Import("root-b.yaml", data, o); err != nil || res.Kind != "new-key" {
		t.Errorf("a root in a vault that exists: %v", err)
	}
}

// TestRefused changes one thing each; what cannot be said is refused, not left
// out.
func TestRefused(t *testing.T) {
	dir := demo(t)
	for _, tc := range []struct{ file, old, new, text string }{
		{"root-a.yaml", "ceremony-type: root", "ceremony-type: cross-csr", "not carried over"},
		{"root-a.yaml", "ceremony-type: root", "ceremony-type: ocsp-response", "not carried over"},
		{"root-a.yaml", "ceremony-type: root", "ceremony-type: ocsp-signer", "not carried over"},
		{"root-a.yaml", "ceremony-type: root", "ceremony-type: wedding", "not known"},
		{"root-a.yaml", "ceremony-type: root", "x: y", "no ceremony-type"},
		{"root-a.yaml", "ceremony-type: root", "ceremony-type: intermediate", "store-key-in-slot"},
		{"root-a.yaml", "ecdsa-curve: P-384", "ecdsa-curve: P-521", "not made here"},
		{"root-a.yaml", "ecdsa-curve: P-384", "ecdsa-curve: P-256", "one hash for life"},
		{"root-a.yaml", "ECDSAWithSHA384", "ECDSAWithSHA512", "signature-algorithm"},
		{"root-a.yaml", "country: AT", "country: Austria", "country"},
		{"root-a.yaml", "country: AT", "country: AT\n  locality: Wien", "locality"},
		{"root-a.yaml", "country: AT", "country: AT\n  policies: [{oid: 1.2.3}]", "no policies"},
		{"root-a.yaml", "- Cert Sign", "- Encipherment", "key usage"},
		{"root-a.yaml", "- Cert Sign\n", "- CRL Sign\n", "cert-sign"},
		{"root-a.yaml", "2026-01-01 00:00:00", "2026-01-01", "not-before"},
		{"root-a.yaml", "2026-01-01 00:00:00", "2046-01-01 00:00:00", "not_before"},
		{"root-a.yaml", "store-key-with-label: Root A", "store-key-with-label: \"\"", "label"},
		{"root-a.yaml", "common-name: Example Root A", "common-name: \"a\\nb: c\"", "common_name"},
		{"root-b.yaml", "4096", "2048", "2,048"},
		{"int-a1-cert.yaml", "http://a.crl.example/", "https://a.crl.example/", "crl_url"},
		{"int-a1-cert.yaml", "2.23.140.1.2.1", "2.23.x", "policy"},
		{"int-a1-cross.yaml", "./int-a1.cert.pem", "./missing.pem", "cannot be read"},
		{"int-a1-cross.yaml", "common-name: Example Issuing A1", "common-name: Somebody Else", "to cross-sign is of"},
		{"root-a-crl.yaml", "number: 100", "number: 0", "number"},
		{"root-a-crl.yaml", "2027-01-31", "2028-01-31", "days"},
		{"root-a-crl.yaml", "revocation-reason: 4", "revocation-reason: 6", "revocation-reason"},
	} {
		path := filepath.Join(dir, tc.file)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(data), tc.old) {
			t.Fatalf("%s does not hold %q", tc.file, tc.old)
		}
		_, err = Import(path, []byte(strings.Replace(string(data), tc.old, tc.new, 1)), options())
		if err == nil || fault.ClassOf(err) != fault.Usage || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s with %q: %v, want class usage and %q", tc.file, tc.new, err, tc.text)
		}
	}
}

func FuzzImport(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, x := range files {
		data, err := os.ReadFile(x)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		res, err := Import(filepath.Join(dir, "x.yaml"), data, options())
		if err != nil {
			return
		}
		s, err := script.Parse("x", res.Script)
		if err != nil || s.Lint() != nil {
			t.Errorf("an imported script does not lint: %v", err)
		}
	})
}
