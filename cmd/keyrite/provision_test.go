package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/report"
	"keyrite/internal/clitest"
	"keyrite/provisioning/export"
	"keyrite/provisioning/ledger"
)

// Each script starts with headquarters' ledger, in which factory1's first bundle
// stands, and with the station's report on it.
func TestProvisionScripts(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	w.FoundFactory()
	other.FoundFactory()
	clitest.Run(t, "testdata/provision", func(dir string) error {
		files := map[string][]byte{"charter.jsonl": w.Charter, "other-bundle.json": other.SignBundle(other.Bundle())}
		for name, of := range map[string]*artifacttest.World{"anchors.json": w, "other-anchors.json": other} {
			data, err := of.Anchors.Marshal()
			if err != nil {
				return err
			}
			files[name] = data
		}
		for _, id := range []string{"provision-a", "provision-b", "acceptance"} {
			der, err := x509.MarshalPKCS8PrivateKey(w.Keys[id])
			if err != nil {
				return err
			}
			files["keys/"+id+".pem"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		}
		book, err := ledger.Open(filepath.Join(dir, "headquarters"), w.Anchors)
		if err != nil {
			return err
		}
		order := export.Order{Factory: "factory1", Quota: 3, Valid: 24 * time.Hour, Hardware: "gw100", Assurance: birthcert.Unattested}
		b, err := export.Plan(order, w.Anchors, w.State, book, artifacttest.Now())
		if err != nil {
			return err
		}
		files["first.json"], err = export.Sign(b, book, artifacttest.Now(), func(id string) (crypto.Signer, error) { return w.Keys[id], nil })
		if err = errors.Join(err, book.Close()); err != nil {
			return err
		}
		if files["report.json"], err = report.Sign(w.Report(b, w.Birth(1, b.BundleID), w.Birth(2, b.BundleID)), w.Keys["report"]); err != nil {
			return err
		}
		files["id"] = []byte(b.BundleID)
		if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
			return err
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}
