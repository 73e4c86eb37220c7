package attestation_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keyrite/artifact/artifacttest"
)

// TestOpenSSL has a foreign program check the same chains.
func TestOpenSSL(t *testing.T) {
	m := artifacttest.NewMaker(t)
	altered := m.Attest(newTPM(t).key.Public(), nil)
	altered[0] = bytes.Clone(altered[0])
	altered[0][len(altered[0])-1] ^= 1
	real := published(t)
	for _, c := range []struct {
		name  string
		chain [][]byte
		root  []byte
		good  bool
	}{
		{"a real device", real[:3], real[3], true},
		{"our maker", m.Attest(newTPM(t).key.Public(), nil), m.RootDER, true},
		{"altered", altered, m.RootDER, false},
		{"another root", real[:3], m.RootDER, false},
	} {
		dir := t.TempDir()
		write := func(name string, ders ...[]byte) string {
			var out []byte
			for _, der := range ders {
				out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
			}
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, out, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		args := []string{"verify", "-CAfile", write("root", c.root), "-untrusted", write("mid", c.chain[1:]...), write("key", c.chain[0])}
		if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); (err == nil) != c.good {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
}
