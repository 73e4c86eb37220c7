package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/internal/clitest"
)

func TestCharterScripts(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	files := map[string][]byte{"charter.jsonl": w.Charter, "firmware.img": bytes.Repeat([]byte("image\n"), 1000)}
	put := func(name string, data []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	for _, name := range []string{"approver1", "approver2", "master1"} {
		data, err := w.People[name].Seal([]byte("passphrase of " + name))
		put(name+".key", data, err)
		put(name+".passphrase", []byte("passphrase of "+name+"\n"), nil)
	}
	for name, of := range map[string]*artifacttest.World{"anchors.json": w, "other-anchors.json": other} {
		data, err := of.Anchors.Marshal()
		put(name, data, err)
	}
	clitest.Run(t, "testdata/charter", func(dir string) error {
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return fmt.Errorf("put %s: %w", name, err)
			}
		}
		return nil
	})
}
