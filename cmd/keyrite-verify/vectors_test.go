package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/internal/cli"
)

// exits are the exit codes of what vectors expect.
var exits = map[string]int{"ok": 0, "quorum": 10, "policy": 13, "verify": 14}

// vector reads the exit code that a vector expects, and the file in it.
func vector(t *testing.T, path string) (want int, file []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, file, _ := bytes.Cut(data, []byte("\n\n"))
	_, rest, _ := strings.Cut(string(head), "expect: ")
	expect, _, _ := strings.Cut(rest, "\n")
	want, ok := exits[expect]
	if !ok {
		t.Fatalf("%s expects %q", path, expect)
	}
	return want, file
}

// The command gives the vectors of releases the exit codes that the package
// gives them classes.
func TestFirmwareVectors(t *testing.T) {
	const dir = "../../testdata/vectors/firmware/"
	files, err := filepath.Glob(dir + "*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	tmp := t.TempDir()
	body := func(path string) string {
		_, data := vector(t, path)
		ext := ".file"
		if strings.HasPrefix(filepath.Base(path), "krf-") {
			ext = ".krf"
		}
		out := filepath.Join(tmp, filepath.Base(path)+ext)
		if err := os.WriteFile(out, bytes.TrimSuffix(data, []byte("\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		return out
	}
	good := body(dir + "bundle-valid.txt")
	for _, f := range files {
		want, _ := vector(t, f)
		args := []string{"firmware", body(f), "--anchor", dir + "anchors.json"}
		switch name := filepath.Base(f); {
		case strings.HasPrefix(name, "bundle-"):
			args = []string{"firmware", dir + "image.bin", "--bundle", body(f), "--anchor", dir + "anchors.json"}
		case strings.HasPrefix(name, "proof-"):
			args = []string{"log", body(f), "--bundle", good, "--anchor", dir + "anchors.json"}
		}
		if got := cli.Run(t.Context(), newRoot(), args, cli.IO{In: os.Stdin, Out: io.Discard, Err: io.Discard}); got != want {
			t.Errorf("%s: exit %d, want %d", filepath.Base(f), got, want)
		}
	}
}

// The same of statements of the charter: each follows charter.jsonl beside it.
func TestCharterVectors(t *testing.T) {
	dirs, err := filepath.Glob("../../testdata/vectors/charter*")
	if err != nil || len(dirs) < 7 {
		t.Fatalf("%v: %v", dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { charterVectors(t, dir+"/") })
	}
}

func charterVectors(t *testing.T, dir string) {
	files, err := filepath.Glob(dir + "*.txt")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	before, err := os.ReadFile(dir + "charter.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	last := fmt.Sprintf("charter entry %d: ", bytes.Count(before, []byte("\n")))
	tmp := t.TempDir()
	for _, f := range files {
		want, line := vector(t, f)
		path := filepath.Join(tmp, filepath.Base(f)+".jsonl")
		if err := os.WriteFile(path, append(bytes.Clone(before), line...), 0o600); err != nil {
			t.Fatal(err)
		}
		var told bytes.Buffer
		args := []string{"charter", path, "--anchor", dir + "anchors.json"}
		if got := cli.Run(t.Context(), newRoot(), args, cli.IO{In: os.Stdin, Out: io.Discard, Err: &told}); got != want {
			t.Errorf("%s: exit %d, want %d: %s", filepath.Base(f), got, want, told.String())
		}
		// It is the last statement that is wrong, and no other.
		if want != 0 && !strings.Contains(told.String(), last) {
			t.Errorf("%s: %s", filepath.Base(f), told.String())
		}
	}
}

// The same of extracts of a vault's audit trail.
func TestAuditVectors(t *testing.T) {
	const dir = "../../testdata/vectors/audit/"
	files, err := filepath.Glob(dir + "*.txt")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	tmp := t.TempDir()
	for _, f := range files {
		want, extract := vector(t, f)
		path := filepath.Join(tmp, filepath.Base(f)+".jsonl")
		if err := os.WriteFile(path, extract, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, list := range [][]string{nil, {"--list"}, {"--list", "--json"}} {
			args := append([]string{"audit", path, "--anchor", dir + "anchors.json"}, list...)
			var out, told bytes.Buffer
			if got := cli.Run(t.Context(), newRoot(), args, cli.IO{In: os.Stdin, Out: &out, Err: &told}); got != want {
				t.Errorf("%s %v: exit %d, want %d: %s", filepath.Base(f), list, got, want, told.String())
			}
			if want == 0 && list != nil && !strings.Contains(out.String(), `transit/sign/log`) {
				t.Errorf("%s %v lists %s", filepath.Base(f), list, out.String())
			}
			if want != 0 && out.Len() > 0 {
				t.Errorf("%s %v: printed %s", filepath.Base(f), list, out.String())
			}
		}
	}
}

// The same of what witnesses read in a token, beside the record of its genesis.
func TestInspectionVectors(t *testing.T) {
	const dir = "../../testdata/vectors/inspection/"
	files, err := filepath.Glob(dir + "*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	tmp := t.TempDir()
	for _, f := range files {
		want, file := vector(t, f)
		path := filepath.Join(tmp, filepath.Base(f)+".inspection")
		if err := os.WriteFile(path, bytes.TrimSuffix(file, []byte("\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, told bytes.Buffer
		args := []string{"inspection", path, "--record", dir + "record", "--anchor", dir + "record/outputs/anchors.json"}
		if got := cli.Run(t.Context(), newRoot(), args, cli.IO{In: os.Stdin, Out: &out, Err: &told}); got != want || (got == 0) != (out.Len() > 0) {
			t.Errorf("%s: exit %d, want %d: %s%s", filepath.Base(f), got, want, out.String(), told.String())
		}
	}
}

// The same of ledgers of share proofs, which are only read.
func TestShareLedgerVectors(t *testing.T) {
	const dir = "../../testdata/vectors/share-ledger/"
	files, err := filepath.Glob(dir + "*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	tmp := t.TempDir()
	for _, f := range files {
		want, ledger := vector(t, f)
		path := filepath.Join(tmp, filepath.Base(f)+".proofs")
		if err := os.WriteFile(path, ledger, 0o600); err != nil {
			t.Fatal(err)
		}
		var out, told bytes.Buffer
		args := []string{"share-proof", "--ledger", path, "--anchor", dir + "anchors.json", "--charter", dir + "charter.jsonl"}
		if got := cli.Run(t.Context(), newRoot(), args, cli.IO{In: os.Stdin, Out: &out, Err: &told}); got != want || (got == 0) != strings.Contains(out.String(), "master5 proved the share of safe work") {
			t.Errorf("%s: exit %d, want %d: %s%s", filepath.Base(f), got, want, out.String(), told.String())
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, ledger) {
			t.Errorf("%s: the ledger was written to, %v", filepath.Base(f), err)
		}
		if got := cli.Run(t.Context(), newRoot(), append([]string{"share-proof"}, args[3:]...), cli.IO{In: os.Stdin, Out: &out, Err: &told}); got != 2 {
			t.Errorf("without a ledger and files: exit %d", got)
		}
	}
}
