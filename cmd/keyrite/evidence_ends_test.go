package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
)

// TestEvidenceOfEnds: every end that charter and anchors know is listed, and so is that
// of each key; what is over is said to be.
func TestEvidenceOfEnds(t *testing.T) {
	w := artifacttest.New(t)
	w.FoundFactory()
	w.AddHost("vault1")
	soon := charter.FormatTime(artifacttest.Now().Add(5 * 24 * time.Hour))
	w.Approve(charter.TypeMount, charter.Mount{ID: "pki", Engine: "pki"})
	w.Approve(charter.TypePKIRole, charter.PKIRole{
		DNS: []string{"mes.example.com"}, Issuer: w.Anchors.Certificates["relay-ca"], Key: "relay-ca", KeyTypes: []string{"ecdsa-p256"}, MaxLive: 10, MaxTTL: 3600,
		Mount: "pki", Name: "plant", Usages: []string{"server"}, Version: 1,
	})
	w.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	w.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Read}}}})
	w.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"line1"}, TTL: 60, Certificate: &charter.Certificate{CA: w.SelfSigned("birth-root"), URI: "spiffe://example.com/mes"}})
	w.Approve(charter.TypeDelegation, charter.Delegation{ID: "night", Identity: "mes", Can: access.Update, Path: "kv/data/line1/x", Uses: 1, Expires: soon})
	w.Approve(charter.TypeUnattended, charter.Unattended{ID: "weekend", Host: "vault1", PCRs: []int{0, 7}, Expires: soon})
	dir := filepath.Join(t.TempDir(), "vault")
	w.Save(dir)
	issuer := w.Parsed(w.Anchors.Certificates["relay-ca"]).NotAfter

	row := func(now time.Time, head, end, over string) {
		t.Helper()
		o := evidenceOptions{now: now}
		o.anchor, o.charter = filepath.Join(dir, "anchors.json"), filepath.Join(dir, "charter.jsonl")
		_, page, err := exportAt(t, o)
		if err != nil {
			t.Fatal(err)
		}
		_, after, found := strings.Cut(page, head)
		line, _, _ := strings.Cut(after, "</tr>")
		if !found || !strings.Contains(line, end) || strings.Contains(line, ">over<") != (over != "") {
			t.Errorf("%s, at %s: %q, want %q %s", head, now, line, end, over)
		}
	}
	before, after := issuer.Add(-time.Second), issuer
	end := issuer.UTC().Format(time.DateOnly)
	for _, head := range []string{">CA of the mount pki<", ">certificate of key relay-ca<", `class="mono">relay-ca<`} {
		row(before, head, end, "")
		row(after, head, end, "over")
	}
	row(artifacttest.Now(), `class="mono">firmware<`, "no end of its own", "")
	for _, head := range []string{">CA of the client certificates of identity mes<", ">CA of factory factory1<"} {
		row(artifacttest.Now(), head, "<td>9999-12-31<", "")
	}
	for _, head := range []string{">delegation night: mes may update kv/data/line1/x<", ">unattended weekend: host vault1 opens the vault by itself after a restart<"} {
		row(artifacttest.Now(), head, soon[:10], "")
		row(before, head, soon[:10], "over")
	}
}
