package e2e

import (
	"bytes"
	"crypto"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/gateway/secureelement/setest"
	"keyrite/gateway/update"
	"keyrite/signer/tuf"
)

// What signer/tuf publishes, a gateway with a TPM finds, takes and starts; a
// root that approvers signed without the token it refuses.
func TestGatewayTakesWhatTheSignerOffers(t *testing.T) {
	w := artifacttest.New(t)
	now := time.Now()
	root := func(names ...string) []byte {
		t.Helper()
		spec, err := tuf.RootOf(w.State, 1, now.AddDate(1, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		tbs, err := tuf.RootTBS(spec)
		if err != nil {
			t.Fatal(err)
		}
		var sigs []tuf.RootSignature
		for _, n := range names {
			key := w.Keys[n]
			if p, ok := w.People[n]; ok {
				key = p.Signer()
			}
			s, err := tuf.SignRoot(tbs, key)
			if err != nil {
				t.Fatal(err)
			}
			sigs = append(sigs, s)
		}
		data, err := tuf.Assemble(spec, sigs)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := root("tuf-root", "approver2")
	if err := update.CheckRoot(good, w.Anchors); err != nil {
		t.Fatal(err)
	}
	if err := update.CheckRoot(root("approver1", "approver2"), w.Anchors); fault.ClassOf(err) != fault.Verify {
		t.Errorf("root of approvers alone: %v", err)
	}

	dir := t.TempDir()
	release := w.Release(bytes.Repeat([]byte("\x7fimage"), 5000), "1.0.0", 3)
	krf := filepath.Join(dir, "firmware.krf")
	if err := os.WriteFile(krf, release.KRF, 0o600); err != nil {
		t.Fatal(err)
	}
	repo, err := tuf.Open(filepath.Join(dir, "repo"), good, w.State, w.Trust(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	if _, err := repo.Add(t.Context(), krf); err != nil {
		t.Fatal(err)
	}
	if err := repo.Publish(func(id string) (crypto.Signer, error) { return w.Keys[id], nil }, tuf.DefaultValidity()); err != nil {
		t.Fatal(err)
	}
	element := setest.Birth(t, w, 1)
	device := update.Device{Product: "gw100", Hardware: "gw100"}
	client := &update.Client{
		Source: update.NewFolder(filepath.Join(dir, "repo")), Dir: filepath.Join(dir, "tuf"), Root: good, Anchors: w.Anchors,
		Element: element, Device: device, Now: time.Now,
	}
	offer, err := client.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slots, err := update.OpenSlots(filepath.Join(dir, "slots"), element, device)
	if err != nil {
		t.Fatal(err)
	}
	defer slots.Close()
	if _, err := slots.Install(t.Context(), offer); err != nil {
		t.Fatal(err)
	}
	booted, err := slots.Boot()
	if err != nil || booted.Statement.Predicate.SecurityVersion != 3 {
		t.Errorf("started %+v: %v", booted, err)
	}
}
