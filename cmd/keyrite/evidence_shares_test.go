package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/internal/cli"
)

const ledgerVectors = "../../testdata/vectors/share-ledger"

// exportAt runs an export as it would run at the time of the vectors, of all time unless
// o says otherwise, and returns its page.
func exportAt(t *testing.T, o evidenceOptions) (dir, page string, err error) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "evidence")
	o.out = dir
	if o.now.IsZero() {
		o.now = artifacttest.Now()
	}
	if o.from == "" {
		o.from, o.to = "2020-01-01", "2100-01-01"
	}
	root := newRoot(cli.IO{})
	root.SetOut(&bytes.Buffer{})
	c, _, err := root.Find([]string{"evidence", "export"})
	if err != nil {
		t.Fatal(err)
	}
	c.SetContext(t.Context())
	if err := runEvidenceExport(c, &o); err != nil {
		if _, there := os.Stat(dir); there == nil {
			t.Error("a folder was left")
		}
		return dir, "", err
	}
	return dir, mustRead(t, filepath.Join(dir, evidenceIndex)), nil
}

// TestEvidenceOfShares: a ledger shows as proved what it has signed proofs of, and
// nothing else; a proof that does not hold stops the export.
func TestEvidenceOfShares(t *testing.T) {
	for _, v := range artifacttest.Vectors(t, ledgerVectors) {
		path := filepath.Join(t.TempDir(), "charter.jsonl.proofs")
		if err := os.WriteFile(path, append(v.Body, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		o := evidenceOptions{ledger: path}
		o.anchor, o.charter = filepath.Join(ledgerVectors, "anchors.json"), filepath.Join(ledgerVectors, "charter.jsonl")
		dir, page, err := exportAt(t, o)
		told := map[string]string{"told": "master5", "hand-written": "master2"}[v.Name]
		if told == "" {
			if (v.Expect == "ok") != (err == nil) || err != nil && string(fault.ClassOf(err)) != v.Expect {
				t.Errorf("%s: %v, want %s", v.Name, err, v.Expect)
			}
			if err == nil && (!strings.Contains(page, allVerified) || !strings.Contains(page, "<td>master1 2026-11-22, master5 2026-11-22 <b") || strings.Contains(page, "not proved")) {
				t.Errorf("%s:\n%s", v.Name, page)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if strings.Contains(page, allVerified) || !strings.Contains(page, "told, not proved: "+told+"</b>") || strings.Contains(page, told+" 2026") ||
			!strings.Contains(page, "shares.proofs --anchor anchors.json --charter charter.jsonl (exit 14") {
			t.Errorf("%s:\n%s", v.Name, page)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "shares.proofs")); err != nil || !bytes.Equal(got, append(v.Body, '\n')) {
			t.Errorf("%s: the copy is another one, %v", v.Name, err)
		}
	}
}
