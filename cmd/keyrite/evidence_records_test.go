package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/record"
	"keyrite/internal/cli"
)

// genesisVector is the record of a genesis, cosigned by all.
const genesisVector = "../../testdata/vectors/inspection/record"

// exported is what an export wrote.
type exported struct {
	dir, page         string
	Unsigned, Outside []string
}

// exportEvidence runs evidence export against the vault of the vector, for a period that holds
// everything unless args say otherwise.
func exportEvidence(t *testing.T, want int, args ...string) exported {
	t.Helper()
	e := exported{dir: filepath.Join(t.TempDir(), "evidence")}
	outputs := filepath.Join(genesisVector, record.OutputsDir)
	all := append([]string{
		"evidence", "export", "--json", "--from", "2020-01-01", "--to", "2100-01-01", "--out", e.dir,
		"--anchor", filepath.Join(outputs, "anchors.json"), "--charter", filepath.Join(outputs, "charter.jsonl"),
	}, args...)
	var out, told bytes.Buffer
	if code := cli.Run(t.Context(), newRoot(cli.IO{}), all, cli.IO{Out: &out, Err: &told}); code != want {
		t.Fatalf("%v: exit %d, want %d: %s%s", args, code, want, out.String(), told.String())
	}
	if want != 0 {
		if _, err := os.Stat(e.dir); err == nil {
			t.Errorf("%v: a folder was left", args)
		}
		return e
	}
	if err := json.Unmarshal(out.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(e.dir, evidenceIndex))
	if err != nil {
		t.Fatal(err)
	}
	e.page = string(page)
	return e
}

// vectorCopy is a copy of the record of the vector.
func vectorCopy(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "genesis")
	if err := os.CopyFS(dir, os.DirFS(genesisVector)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// strip takes away the last n entries of a record, and who signed it.
func strip(t *testing.T, dir string, n int) {
	t.Helper()
	path := filepath.Join(dir, record.TranscriptFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l := slices.Collect(bytes.Lines(data))
	if err := os.WriteFile(path, bytes.Join(l[:len(l)-n], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, record.CheckpointFile)); err != nil {
		t.Fatal(err)
	}
}

const allVerified = "✓ Every file in this folder was verified"

// TestEvidenceOfRecords: only what closed and was cosigned is shown without a word; what
// nobody signed proves nothing and is said to, and the page does not say that everything
// was verified.
func TestEvidenceOfRecords(t *testing.T) {
	closed := vectorCopy(t)
	if e := exportEvidence(t, 0, "--record", closed); !strings.Contains(e.page, allVerified) || len(e.Unsigned) != 0 || strings.Contains(e.page, "(exit 1") {
		t.Errorf("a closed record: %v\n%s", e.Unsigned, e.page)
	}

	wantReceipts(t, closed, true)

	stripped := vectorCopy(t)
	strip(t, stripped, 2) // the end, and that it closed
	e := exportEvidence(t, 0, "--record", stripped)
	wantReceipts(t, stripped, false)
	if strings.Contains(e.page, allVerified) || !strings.Contains(e.page, "not signed: proves nothing") || len(e.Unsigned) != 1 || !strings.HasPrefix(e.Unsigned[0], "records/genesis: ") {
		t.Errorf("a stripped record: %v\n%s", e.Unsigned, e.page)
	}
	closing := vectorCopy(t)
	strip(t, closing, 1) // the end alone: it says that it closed, and nobody signed that
	exportEvidence(t, 14, "--record", closing)

	early := vectorCopy(t)
	path := filepath.Join(early, record.CheckpointFile)
	note, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l := slices.DeleteFunc(strings.SplitAfter(string(note), "\n"), func(s string) bool { return strings.Contains(s, " witness2 ") })
	if err := os.WriteFile(path, []byte(strings.Join(l, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	wantReceipts(t, early, false)
	if e := exportEvidence(t, 0, "--record", early); !strings.Contains(e.page, "missing: witness2") || !strings.Contains(e.page, "anchors.json (exit 10: not cosigned by all)") {
		t.Errorf("a record that is not cosigned by all:\n%s", e.page)
	}
}

// wantReceipts wants the receipts of a record to count as proofs of shares, or not.
func wantReceipts(t *testing.T, dir string, want bool) {
	t.Helper()
	outputs := filepath.Join(genesisVector, record.OutputsDir)
	o := evidenceOptions{records: []string{dir}}
	o.anchor, o.charter = filepath.Join(outputs, "anchors.json"), filepath.Join(outputs, "charter.jsonl")
	_, page, err := exportAt(t, o)
	if err != nil || strings.Contains(page, "master1 2026-") != want {
		t.Errorf("receipts of %s count: want %v, %v\n%s", dir, want, err, page)
	}
}

// TestEvidenceOutsideThePeriod: what was before or after the period is marked as such, and
// what was in it is not.
func TestEvidenceOutsideThePeriod(t *testing.T) {
	const audit, mark = "../../testdata/vectors/audit", "outside the period"
	extract := filepath.Join(t.TempDir(), "trail.jsonl")
	proofs := filepath.Join(t.TempDir(), "ledger.proofs")
	for path, vector := range map[string]string{extract: audit + "/whole.txt", proofs: ledgerVectors + "/valid.txt"} {
		_, body, _ := strings.Cut(mustRead(t, vector), "\n\n")
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, o := range map[string]evidenceOptions{
		"record":  {records: []string{genesisVector}, trustOptions: trustOptions{anchor: genesisVector + "/outputs/anchors.json", charter: genesisVector + "/outputs/charter.jsonl"}},
		"extract": {audits: []string{extract}, trustOptions: trustOptions{anchor: audit + "/anchors.json", charter: audit + "/charter.jsonl"}},
		"proof":   {ledger: proofs, trustOptions: trustOptions{anchor: ledgerVectors + "/anchors.json", charter: ledgerVectors + "/charter.jsonl"}},
	} {
		on, after := "2026-11-22", "2026-11-23"
		if name == "extract" {
			on, after = "2027-01-15", "2027-01-16"
		}
		for _, p := range []struct {
			from, to string
			marked   bool
		}{{on, after, false}, {"2026-11-01", on, true}, {after, "2027-12-01", true}} {
			o.from, o.to = p.from, p.to
			if _, page, err := exportAt(t, o); err != nil || strings.Contains(page, mark) != p.marked {
				t.Errorf("%s, %s to %s: marked %v, want %v: %v", name, p.from, p.to, !p.marked, p.marked, err)
			}
		}
	}
	dir := vectorCopy(t)
	if e := exportEvidence(t, 0, "--from", "2026-11-01", "--to", "2026-11-02", "--record", dir); !slices.Contains(e.Outside, "records/genesis") {
		t.Errorf("%v", e.Outside)
	}
	if e := exportEvidence(t, 0, "--record", dir); len(e.Outside) != 0 {
		t.Errorf("%v", e.Outside)
	}
}
