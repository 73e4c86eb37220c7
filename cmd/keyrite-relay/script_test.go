package main

import (
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/internal/clitest"
)

func TestMain(m *testing.M) { clitest.Main(m, map[string]func() int{"keyrite-relay": run}) }

// TestScripts runs the commands in a world whose acceptance has device 1.
func TestScripts(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	w.AddSuccessors()
	w.FoundFactory()
	b := w.Bundle()
	one := w.Succession("succession", nil, "acceptance")
	files := map[string][]byte{
		"one.json": one, "two.json": w.Succession("succession", one, "log"),
		"charter.jsonl": w.Charter, "acceptance.json": w.Accept(b, w.Birth(1, b.BundleID)),
	}
	for name, from := range map[string]*artifacttest.World{"anchors.json": w, "other.json": other} {
		data, err := from.Anchors.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	clitest.Run(t, "testdata", func(dir string) error {
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}
