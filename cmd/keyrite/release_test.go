package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/internal/cli"
	"keyrite/internal/clitest"
	"keyrite/signer"
)

func TestMain(m *testing.M) {
	clitest.Main(m, map[string]func() int{
		"keyrite":          func() int { return runWith(newRoot(cli.Std())) },
		"keyrite-softkeys": func() int { return runWith(softRoot()) },
	})
}

func runWith(root *cobra.Command) int {
	return cli.Run(context.Background(), root, os.Args[1:], cli.Std())
}

// softRoot is the program with a work token made of key files in ./keys.
func softRoot() *cobra.Command {
	root := &cobra.Command{Use: "keyrite"}
	root.AddCommand(newReleaseSign(softOpener{}), newReleaseRoot(softOpener{}, cli.Std()), newReleasePublish(softOpener{}), newProvisionExport(softOpener{}), newProvisionAccept(softOpener{}))
	return root
}

type softKeys struct{}

type softOpener struct{}

func (softOpener) addFlags(*cobra.Command) {}

func (softOpener) open(context.Context, *charter.State, string, []byte) (keyring, error) {
	return softKeys{}, nil
}

func (softKeys) Close() error { return nil }

func (softKeys) Signer(_ context.Context, id string) (crypto.Signer, error) {
	return readPipelineKey(filepath.Join("keys", id+".pem"))
}

func TestReleaseScripts(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	files := map[string][]byte{"charter.jsonl": w.Charter, "firmware.img": bytes.Repeat([]byte("image\n"), 20_000)}
	put := func(name string, data []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	putKeys(t, w, put)
	for _, name := range []string{"approver1", "approver2", "master1"} {
		data, err := w.People[name].Seal([]byte("passphrase of " + name))
		put(name+".key", data, err)
		put(name+".passphrase", []byte("passphrase of "+name+"\n"), nil)
	}
	for name, of := range map[string]*artifacttest.World{"anchors.json": w, "other-anchors.json": other} {
		data, err := of.Anchors.Marshal()
		put(name, data, err)
	}
	old := oldRequest(t, w)
	put("old.request", old, nil)
	clitest.Run(t, "testdata/release", func(dir string) error {
		if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
			return err
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return fmt.Errorf("put %s: %w", name, err)
			}
		}
		return nil
	})
}

// putKeys gives put the private keys of the work token and the pipeline.
func putKeys(t *testing.T, w *artifacttest.World, put func(name string, data []byte, err error)) {
	t.Helper()
	for _, id := range []string{"firmware", "log", "tuf-root", "tuf-targets", "tuf-online", "pipeline1"} {
		der, err := x509.MarshalPKCS8PrivateKey(w.Keys[id])
		put("keys/"+id+".pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err)
	}
}

// oldRequest has expired.
func oldRequest(t *testing.T, w *artifacttest.World) []byte {
	t.Helper()
	wish := signer.Wish{Product: "gw100", Version: "1", Channel: "release", File: "firmware.img", Hardware: []string{"gw100"}, SecurityVersion: 1}
	data, err := signer.NewRequest(w.State, wish, fmt.Sprintf("%064d", 0), 1, w.Keys["pipeline1"], time.Now().Add(-10*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
