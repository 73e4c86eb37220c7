package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyrite/ceremony/script"
	"keyrite/internal/clitest"
	"keyrite/scripts/ceremonies"
)

// What needs no token: the commands' results, errors and exit codes.
func TestCeremonyScripts(t *testing.T) {
	template, _ := ceremonies.Text("genesis")
	h := strings.Repeat("ab", 32)
	text, err := script.Fill(template, nil, map[string]string{"KEYRITE": h, "HSMD": h, "MODULE": h, "NETWORK": "any", "SWAP": "any", "DUMPS": "any", "CLOCK": "any"})
	if err != nil {
		t.Fatal(err)
	}
	clitest.Run(t, "testdata/ceremony", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "genesis.yaml"), []byte(text), 0o600); err != nil {
			return err
		}
		return syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600)
	})
}
