package main

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/internal/clitest"
)

func TestMain(m *testing.M) {
	clitest.Main(m, map[string]func() int{"keyrite-verify": run})
}

func TestScripts(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	image := append([]byte("\x7fFIRMWARE"), bytes.Repeat([]byte("0123456789abcdef"), 5000)...)
	r := w.Release(image, "1.2.3", 7)
	flipped := bytes.Clone(image)
	flipped[40_000] ^= 1
	files := map[string][]byte{
		"firmware.img": r.Image, "firmware.img.sigstore.json": r.Bundle, "firmware.img.tlog-proof": r.Proof, "firmware.krf": r.KRF,
		"flipped.img": flipped, "flipped.img.sigstore.json": r.Bundle, "flipped.krf": bytes.Replace(r.KRF, image, flipped, 1),
		"other-proof.tlog-proof": w.Release(image, "1.2.4", 7).Proof,
	}
	for name, world := range map[string]*artifacttest.World{"anchors.json": w, "other-anchors.json": other} {
		b, err := world.Anchors.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	clitest.Run(t, "testdata", func(dir string) error {
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return err
			}
		}
		return syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600)
	})
}
