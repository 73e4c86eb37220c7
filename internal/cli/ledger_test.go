package cli

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLedgerIsNeverInARecord(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.MkdirAll("record/outputs", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("record/transcript.jsonl", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(dir, "record.proofs")
	if got := LedgerOf("record/outputs/charter.jsonl"); got != beside {
		t.Errorf("in a record: %s", got)
	}
	if got := LedgerOf("vault/charter.jsonl"); got != "vault/charter.jsonl.proofs" {
		t.Errorf("elsewhere: %s", got)
	}
	t.Chdir("record/outputs")
	if got := LedgerOf("charter.jsonl"); got != beside {
		t.Errorf("from within: %s", got)
	}
}
