package main

import (
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/activation"
	"keyrite/artifact/artifacttest"
	"keyrite/gateway/secureelement/setest"
	"keyrite/internal/clitest"
)

func TestMain(m *testing.M) {
	clitest.Main(m, map[string]func() int{"keyrite-gateway": run})
}

// TestScripts runs the commands against a born element, an unborn one, and
// none. Each script finds their addresses in files.
func TestScripts(t *testing.T) {
	w := artifacttest.New(t)
	born, unborn := setest.Birth(t, w, 42), setest.Start(t)
	anchors, err := w.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	other := artifacttest.New(t)
	foreign, err := other.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	act := activation.Activation{
		Access: "127.0.0.1:1", ActivationKey: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", Format: activation.Format,
		PolicyKey: activation.Fingerprint([]byte("key")), World: w.World,
	}
	file, err := act.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	clitest.Run(t, "testdata", func(dir string) error {
		for name, data := range map[string][]byte{
			"born": []byte(born.TPM.Addr), "unborn": []byte(unborn.Addr), "anchors.json": anchors, "foreign.json": foreign, "activation.json": file,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}
