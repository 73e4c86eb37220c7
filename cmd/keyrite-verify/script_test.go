package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/jcs"
	"keyrite/artifact/policy"
	"keyrite/artifact/report"
	"keyrite/artifact/succession"
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
	w.FoundFactory()
	b := w.Bundle()
	one, two, extra := w.Birth(1, b.BundleID), w.Birth(2, b.BundleID), w.Birth(3, b.BundleID)
	rep, err := report.Sign(w.Report(b, one, two), w.Keys["report"])
	if err != nil {
		t.Fatal(err)
	}
	other.FoundFactory()
	ca := w.Parsed(w.State.Factories["factory1"].CA)
	maps.Copy(files, map[string][]byte{
		"bundle.json": w.SignBundle(b), "other-bundle.json": other.SignBundle(other.Bundle()), "report.json": rep, "acceptance.json": w.Accept(b, one, two),
		"device.pem": pemOf(one.Cert, ca), "leaf.pem": pemOf(one.Cert), "extra.pem": pemOf(extra.Cert, ca), "foreign.pem": pemOf(other.Birth(1, b.BundleID).Cert, ca),
		"factory/anchors.json": files["anchors.json"], "factory/charter.jsonl": w.Charter,
	})
	maps.Copy(files, policyFiles(t, w))
	maps.Copy(files, successionFiles(t, image))
	clitest.Run(t, "testdata", func(dir string) error {
		for _, sub := range []string{"factory", "s/alone"} {
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
				return err
			}
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return err
			}
		}
		return syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600)
	})
}

func pemOf(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// successionFiles are a world with successors, and what its keys signed before
// and after the firmware key and the birth root gave way.
func successionFiles(t *testing.T, image []byte) map[string][]byte {
	t.Helper()
	w := artifacttest.New(t)
	w.AddSuccessors()
	w.FoundFactory()
	b := w.Bundle()
	device := w.Birth(1, b.BundleID)
	old, anchors := w.Release(image, "1.0", 1), must(t)(w.Anchors.Marshal())
	out := map[string][]byte{
		"s/anchors.json": anchors, "s/alone/anchors.json": anchors, "s/charter.jsonl": w.Charter, "s/old.img": image, "s/old.bundle": old.Bundle, "s/old.krf": old.KRF,
		"s/device.pem": pemOf(device.Cert, w.Parsed(w.State.Factories["factory1"].CA)), "s/acceptance.json": w.Accept(b, device), "s/bundle.json": w.SignBundle(b),
	}
	var list []succession.Entry
	for _, id := range []string{"firmware", "birth-root"} {
		list = append(list, succession.Entry{From: succession.Hash(w.SPKI(id)), ID: id, Reason: "compromised", To: *w.Anchors.Dormant(id)})
	}
	st := succession.New(w.Anchors, nil, list, nil, "keyrite/record/0011223344556677", artifacttest.Now())
	out["s/succession.json"] = must(t)(st.Sign(w.Anchors, w.Keys["succession"]))
	out["s/altered.json"] = bytes.Replace(out["s/succession.json"], []byte("keyid"), []byte("keyiD"), 1)
	env, err := envelope.Sign(succession.PayloadType, must(t)(jcs.Marshal(st)), w.Keys["firmware"])
	if err != nil {
		t.Fatal(err)
	}
	out["s/forged.json"] = must(t)(env.Marshal())
	s, err := succession.Verify(out["s/succession.json"], w.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	if w.Anchors, err = succession.Apply(w.Anchors, s); err != nil {
		t.Fatal(err)
	}
	out["s/new.krf"] = w.ReleaseBy("firmware-2", image, "1.1", 2).KRF
	return out
}

func must(t *testing.T) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// policyFiles is a policy of account acme, its key and somebody else's.
func policyFiles(t *testing.T, w *artifacttest.World) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, id := range []string{"firmware", "log"} { // any keys will do
		files[id+".pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: w.SPKI(id)})
	}
	now := time.Now().UTC()
	for name, after := range map[string]time.Duration{"policy.dsse": time.Hour, "old-policy.dsse": -time.Minute} {
		data, err := policy.Sign(&policy.Policy{
			Account: "acme", Format: policy.Format, Version: 1, World: w.World, NotBefore: now.Add(-time.Hour).Format(time.RFC3339), NotAfter: now.Add(after).Format(time.RFC3339),
			Users: []policy.User{{Keys: []string{strings.Repeat("a", 64)}, Name: "ann"}}, Gateways: []policy.Gateway{{ID: "press-7", SPKI: strings.Repeat("1", 64)}},
			Devices: []policy.Device{{Addr: "192.168.10.2", Gateway: "press-7", Name: "hmi", Ports: []policy.Ports{{First: 80, Last: 80}}}},
			Rules:   []policy.Rule{{Device: "hmi", User: "ann"}},
		}, w.Keys["firmware"])
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return files
}
