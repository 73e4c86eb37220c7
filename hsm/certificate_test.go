package hsm_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keyrite/hsm/hsmtest"
)

// Certificates that another program put into the token are read as they are, and the
// value of nothing else is.
func TestCertificates(t *testing.T) {
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	dir := t.TempDir()
	der := filepath.Join(dir, "c.der")
	if out, err := exec.CommandContext(t.Context(), "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
		"-keyout", filepath.Join(dir, "k"), "-out", der, "-outform", "DER", "-subj", "/CN=attestation", "-days", "30").CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	want, err := os.ReadFile(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range [][]string{{"data", "secret note"}, {"cert", "one"}, {"cert", "two"}} {
		cmd := exec.CommandContext(t.Context(), "pkcs11-tool", "--module", e.Config.Module, "--token-label", "work", "--login", "--pin", newUser, "--write-object", der, "--type", x[0], "--label", x[1])
		cmd.Env = []string{"SOFTHSM2_CONF=" + e.Conf}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("pkcs11-tool: %v\n%s", err, out)
		}
	}
	got, err := e.Open(t, id).Certificates(t.Context())
	if err != nil || len(got) != 2 || !bytes.Equal(got[0], want) || !bytes.Equal(got[1], want) {
		t.Errorf("%d certificates, %v", len(got), err)
	}
}

func TestNoCertificates(t *testing.T) {
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	if got, err := e.Open(t, id).Certificates(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("an empty token shows %d certificates, %v", len(got), err)
	}
}
