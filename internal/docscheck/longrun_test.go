package docscheck

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// long runs lines of a shell with the functions of scripts/long.sh, and returns
// what they print and the page that they wrote.
func long(t *testing.T, doc, lines string) (out, page string) {
	t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", `say() { printf '%s\n' "$*"; }; . scripts/long.sh; work=$(dirname "$LONG_DOC"); `+lines)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "LONG_DOC="+doc, "KEYRITE_LONG_DIR="+filepath.Join(filepath.Dir(doc), "state"))
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", lines, err, text)
	}
	data, err := os.ReadFile(doc)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text), string(data)
}

// A row claims no more than was run: good is what ran whole and without a fault.
func TestLongRunRows(t *testing.T) {
	doc := filepath.Join(t.TempDir(), "page.md")
	for _, tt := range []struct{ numbers, outcome, rc string }{
		{"5 5 0", "good", "0"},
		{"4 5 0", "not finished", "1"},
		{"6 5 0", "not finished", "1"},
		{"5 5 1", "failed: 1", "1"},
		{"0 0 0", "not finished", "1"},
		{"0 -1 0", "not finished", "1"},
	} {
		out, page := long(t, doc, "long_row fuzz targets "+tt.numbers+" 12 7; echo rc=$long_rc")
		row := "| fuzz | targets | " + strings.Replace(strings.TrimSuffix(tt.numbers, tt.numbers[strings.LastIndex(tt.numbers, " "):]), " ", " of ", 1) + " | " + tt.outcome + " | 12 | "
		if !strings.Contains(page, row) || !strings.Contains(out, "rc="+tt.rc) || strings.Count(page, "| fuzz |") != 1 {
			t.Errorf("%s: want %q and exit %s, got %s%s", tt.numbers, row, tt.rc, out, page)
		}
	}
	// Rows of other parts stay, in the order of the parts.
	_, page := long(t, doc, `long_row image boots 1 1 0 3; long_row record flips 2 2 0 3; long_row record cuts 2 2 0 3; long_row fuzz targets 1 1 0 3`)
	if !regexp.MustCompile(`(?s)\n\| fuzz \| targets \| 1 of 1.*\n\| record \| cuts.*\n\| record \| flips.*\n\| image \| boots`).MatchString(page) {
		t.Errorf("the page is\n%s", page)
	}
	// Parts that end at the same moment do not lose each other's rows.
	_, page = long(t, doc, `for i in 1 2 3 4 5 6 7 8; do long_row rest "case $i" 1 1 0 3 & done; wait`)
	if n := strings.Count(page, "| rest | case "); n != 8 || strings.Count(page, "| record | ") != 2 {
		t.Errorf("%d of 8 rows in\n%s", n, page)
	}
	out, _ := long(t, doc, `long_known fuzz image && long_known fuzz nothing || echo refused`)
	if !strings.Contains(out, "no part is called nothing") || !strings.Contains(out, "refused") {
		t.Errorf("got %s", out)
	}
}

// The last word on each run of a sweep counts, a torn line does not, and processes
// that count differently have no total.
func TestLongRunJournals(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ journal, want string }{
		{"of 3\nof 3\na good void\nb bad\nb good void\nc good void\n", "3 3 0"},
		{"of 3\na good void\nb good\nb bad\n", "1 3 1"},
		{"of 3\na good void\na good void\nb go", "1 3 0"},
		{"of 3\nof 4\nof 3\na good void\n", "1 -1 0"},
		{"", "0 0 0"},
	} {
		file := filepath.Join(dir, "x.journal")
		if err := os.WriteFile(file, []byte(tt.journal), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, _ := long(t, filepath.Join(dir, "page.md"), "long_journal "+file); strings.TrimSpace(out) != tt.want {
			t.Errorf("%q: got %q, want %q", tt.journal, out, tt.want)
		}
	}
}

// What go test prints becomes rows: what a test says that it tried, or the test.
func TestLongRunTests(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	text := `=== RUN   TestLongBytes
    a_test.go:3: long: bytes of a record of 9 entries: 70 of 70
    a_test.go:4: long: bytes of a large one: 9 of 900
--- PASS: TestLongBytes (14.90s)
=== RUN   TestLongPlain
=== RUN   TestLongPlain/sub
--- PASS: TestLongPlain (2.00s)
    --- PASS: TestLongPlain/sub (1.00s)
=== RUN   TestLongBad
    a_test.go:9: long: cuts: 7 of 7
--- FAIL: TestLongBad (1.00s)
=== RUN   TestLongWorse
--- FAIL: TestLongWorse (1.00s)
=== RUN   TestLongKilled
    a_test.go:3: long: bytes before the kill: 70 of 70
=== RUN   TestLongNeverEnded
`
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, page := long(t, filepath.Join(dir, "page.md"), "long_tests rest 99 <"+log)
	for _, row := range []string{
		"| rest | bytes of a record of 9 entries | 70 of 70 | good | 14 |",
		"| rest | bytes of a large one | 9 of 900 | not finished | 14 |",
		"| rest | TestLongPlain | 1 of 1 | good | 2 |",
		"| rest | cuts | 7 of 7 | failed: 1 | 1 |",
		"| rest | TestLongWorse | 0 of 1 | failed: 1 | 1 |",
		"| rest | TestLongKilled | 0 of 1 | not finished | 99 |",
		"| rest | TestLongNeverEnded | 0 of 1 | not finished | 99 |",
	} {
		if !strings.Contains(page, row) {
			t.Errorf("no row %s in\n%s", row, page)
		}
	}
}

// The page in the tree is as the script writes it, and no row says good of less
// than all.
func TestLongRunPage(t *testing.T) {
	rows := 0
	for _, r := range Tables(read(t, "docs/long-run.md")) {
		rows++
		done, total, ok := strings.Cut(r.Cells["run"], " of ")
		n, err := strconv.Atoi(done)
		m, errTotal := strconv.Atoi(total)
		if !ok || err != nil || errTotal != nil || n > m {
			t.Errorf("line %d: run is %q", r.Line, r.Cells["run"])
		}
		if o := r.Cells["outcome"]; (o == "good") != (n == m && m > 0) && !strings.HasPrefix(o, "failed: ") || o != "good" && o != "not finished" && !strings.HasPrefix(o, "failed: ") {
			t.Errorf("line %d: %q of %q", r.Line, o, r.Cells["run"])
		}
	}
	if rows == 0 {
		t.Error("docs/long-run.md has no row")
	}
}
