package succession_test

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keyrite/artifact/envelope"
)

// TestOpenSSLAgrees has openssl check a statement's signature, from nothing but
// the envelope's members and the key in the anchors, as the format page shows.
func TestOpenSSLAgrees(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is missing: scripts/setup installs it")
	}
	w := newWorld(t)
	env, err := envelope.Parse(mustSign(t, w))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"pae.bin": envelope.PAE(env.PayloadType, env.Payload), "sig.der": env.Signatures[0].Sig,
		"pub.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: w.SPKI("succession")}),
		"old.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: w.SPKI("firmware")}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(key string) error {
		c := exec.CommandContext(t.Context(), "openssl", "dgst", "-sha256", "-verify", key, "-signature", "sig.der", "pae.bin")
		c.Dir = dir
		return c.Run()
	}
	if err := check("pub.pem"); err != nil {
		t.Errorf("openssl refuses: %v", err)
	}
	if check("old.pem") == nil {
		t.Error("openssl accepts under another key")
	}
}
