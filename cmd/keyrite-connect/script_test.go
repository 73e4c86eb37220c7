package main

import (
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/internal/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m, map[string]func() int{"keyrite-connect": run}) }

func TestScripts(t *testing.T) {
	w := artifacttest.New(t)
	data, err := w.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	clitest.Run(t, "testdata", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "world"), []byte(w.World[len("rehearsal:"):]), 0o600); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "anchors.json"), data, 0o600)
	})
}
