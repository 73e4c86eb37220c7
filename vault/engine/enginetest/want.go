package enginetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/vault/engine"
)

// Write is Do of a write whose answer has data.
func (b *Bench) Write(e engine.Engine, path string, body any) (map[string]any, error) {
	b.t.Helper()
	a, err := b.Do(e, engine.Write, path, body)
	if err != nil {
		return nil, err
	}
	return Data(b.t, a), nil
}

// Refused wants an error of a class; what says what was asked.
func Refused(t testing.TB, what string, class fault.Class, err error) {
	t.Helper()
	if fault.ClassOf(err) != class {
		t.Errorf("%s: class %q, want %q: %v", what, fault.ClassOf(err), class, err)
	}
}

// OpenSSL runs openssl in a folder with the files, and returns the folder and what it
// said.
func OpenSSL(t testing.TB, files map[string][]byte, args ...string) (dir, said string, err error) {
	t.Helper()
	dir = t.TempDir()
	for n, b := range files {
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return dir, string(out), err
}
