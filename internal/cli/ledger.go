package cli

import (
	"os"
	"path/filepath"
)

// LedgerOf is where the proofs of shares are kept that a charter names: the charter
// file's name with .proofs. A charter in the outputs of a record has it beside the
// record's folder: a record to which a file is added does not hold any more.
func LedgerOf(charter string) string {
	dir := filepath.Dir(charter)
	record := filepath.Join(dir, "..")
	if _, err := os.Lstat(filepath.Join(record, "transcript.jsonl")); err != nil {
		return charter + ".proofs"
	}
	if abs, err := filepath.Abs(record); err == nil {
		record = abs // "." has a name, too
	}
	return record + ".proofs"
}
