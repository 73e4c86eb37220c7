package main

import (
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/fault"
)

// Where there never was a vault nothing was kept for a restart; a folder that cannot be
// looked at is no such place.
func TestForgetRestart(t *testing.T) {
	dir := t.TempDir()
	if err := forgetRestart(&bind{}, filepath.Join(dir, "none")); err != nil {
		t.Errorf("no vault: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := forgetRestart(&bind{}, filepath.Join(file, "state")); fault.ClassOf(err) != fault.Storage {
		t.Errorf("a folder below a file: %v", err)
	}
}
