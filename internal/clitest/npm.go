package clitest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Node runs a script of testdata/npm with the stock verifiers of other projects
// and returns what it printed. The pinned modules are installed the first time.
func Node(t *testing.T, args ...string) (string, error) {
	t.Helper()
	dir := filepath.Join(moduleRoot(t), "testdata/npm")
	install(t, dir)
	c := exec.CommandContext(t.Context(), "node", args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	return string(out), err
}

// moduleRoot is the folder of go.mod: tests run in the folder of their package, and a
// binary that was built with -trimpath does not know where its sources are.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil {
		if _, err = os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir, err = filepath.Dir(dir), nil
	}
	t.Fatalf("no go.mod above the tests: %v", err)
	return ""
}

// install runs npm once, however many test processes ask at a time.
func install(t *testing.T, dir string) {
	t.Helper()
	lock, err := os.Open(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	// npm writes this file last.
	want, err := lock.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if have, err := os.Stat(filepath.Join(dir, "node_modules/.package-lock.json")); err == nil && !have.ModTime().Before(want.ModTime()) {
		return
	}
	c := exec.CommandContext(t.Context(), "npm", "ci", "--silent")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("npm ci in testdata/npm: %v: %s", err, out)
	}
}
