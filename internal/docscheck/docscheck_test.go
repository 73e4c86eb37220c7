package docscheck

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestClaimsNameTestsThatExist(t *testing.T) {
	known := Requirements(read(t, "docs/requirements.md"))
	for _, doc := range []struct {
		name string
		gaps bool // a threat may be listed before its control is proved
	}{
		{"docs/assurance.md", false},
		{"docs/threat-model.md", true},
	} {
		text := read(t, doc.name)
		rows := 0
		for _, r := range Tables(text) {
			if _, ok := r.Cells["test"]; ok {
				rows++
			}
		}
		if rows == 0 {
			t.Errorf("%s has no table with a test column", doc.name)
		}
		for _, err := range CheckClaims(root, text, doc.gaps, known) {
			t.Errorf("%s: %v", doc.name, err)
		}
	}
}

func TestRequirementsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Tables(read(t, "docs/requirements.md")) {
		id, status := r.Cells["id"], r.Cells["status"]
		if requirement.FindString(id) != id || id == "" {
			t.Errorf("line %d: %q is no requirement ID", r.Line, id)
		}
		if seen[id] {
			t.Errorf("line %d: %s stands twice", r.Line, id)
		}
		seen[id] = true
		if !slices.Contains([]string{"open", "part", "done"}, status) {
			t.Errorf("line %d: status %q, want open, part or done", r.Line, status)
		}
	}
	const rows = 279 // rows are added, never removed: raise this with them
	if len(seen) < rows {
		t.Errorf("%d requirements, want at least %d", len(seen), rows)
	}
}

// A status is raised by a proof, not by hand.
func TestRaisedRequirementsAreClaimed(t *testing.T) {
	claimed := map[string]bool{}
	for _, r := range Tables(read(t, "docs/assurance.md")) {
		for _, id := range requirement.FindAllString(r.Cells["requirement"], -1) {
			claimed[id] = true
		}
	}
	for _, r := range Tables(read(t, "docs/requirements.md")) {
		if r.Cells["status"] != "open" && !claimed[r.Cells["id"]] {
			t.Errorf("%s is %s, and no claim of docs/assurance.md names it", r.Cells["id"], r.Cells["status"])
		}
	}
}

// A tested requirement must exist; a typing error would count for nothing.
func TestTestsNameRequirementsThatExist(t *testing.T) {
	known := Requirements(read(t, "docs/requirements.md"))
	for _, file := range tracked(t, "*.go", "scripts", "testdata", "docs") {
		for _, id := range requirement.FindAllString(read(t, file), -1) {
			if strings.HasPrefix(id, "R-") && !slices.Contains(known, id) && !strings.HasPrefix(file, "internal/docscheck/") {
				t.Errorf("%s names %s, which is no requirement", file, id)
			}
		}
	}
}

func TestGlossaryIsSorted(t *testing.T) {
	var words []string
	for _, r := range Tables(read(t, "docs/glossary.md")) {
		words = append(words, strings.ToLower(r.Cells["word"]))
		if r.Cells["meaning"] == "" {
			t.Errorf("line %d: %q has no meaning", r.Line, r.Cells["word"])
		}
	}
	if !slices.IsSorted(words) {
		t.Error("docs/glossary.md is not in alphabetical order")
	}
	if n := len(slices.Compact(slices.Clone(words))); n != len(words) {
		t.Errorf("docs/glossary.md explains %d words twice", len(words)-n)
	}
}

// Every page of a format is in the index, and the index names no page that is
// not there.
func TestFormatIndexIsComplete(t *testing.T) {
	index := read(t, "docs/formats/README.md")
	pages, err := filepath.Glob(filepath.Join(root, "docs/formats/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		name := filepath.Base(page)
		if name != "README.md" && !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/formats/README.md does not list %s: add the row | [name](%s) | what it is | `package` |", name, name)
		}
	}
	checkLinks(t, "docs/formats/README.md", index)
}

// The page that a package comment promises is there.
func TestPagesNamedInCodeExist(t *testing.T) {
	for _, file := range tracked(t, "*.go", "scripts") {
		for _, name := range page.FindAllString(read(t, file), -1) {
			if _, err := os.Stat(filepath.Join(root, name)); err != nil && !slices.Contains(written, name) {
				t.Errorf("%s names %s, which is not there", file, name)
			}
		}
	}
}

var (
	page = regexp.MustCompile(`\bdocs/[a-z/-]+\.md\b`)
	// written are pages that scripts write.
	written = []string{"docs/long-run.md"}
)

func TestLinksLeadSomewhere(t *testing.T) {
	for _, file := range tracked(t, "*.md") {
		checkLinks(t, file, read(t, file))
	}
}

func checkLinks(t *testing.T, file, text string) {
	t.Helper()
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, "](")
		if !ok {
			return
		}
		link, tail, ok := strings.Cut(after, ")")
		if !ok {
			return
		}
		rest = tail
		link, _, _ = strings.Cut(link, "#")
		if link == "" || strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, filepath.Dir(file), link)); err != nil {
			t.Errorf("%s links to %s, which is not there", file, link)
		}
	}
}

func TestTreeNamesNoMachine(t *testing.T) {
	for _, file := range tracked(t) {
		if file == "THIRD_PARTY_LICENSES" || strings.HasPrefix(file, "internal/docscheck/") {
			continue
		}
		text := read(t, file)
		if strings.ContainsRune(text, 0) {
			continue // binary vector
		}
		for _, bad := range CheckMachineMarks(text) {
			t.Errorf("%s %s", file, bad)
		}
	}
}

// tracked lists the files that are or will be committed.
func tracked(t *testing.T, patterns ...string) []string {
	t.Helper()
	args := append([]string{"ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"}, patterns...)
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = root
	// Git inside the test must not be led elsewhere by a hook's environment.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GIT_") })
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var files []string
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if fi, err := os.Stat(filepath.Join(root, name)); err == nil && fi.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	return files
}

func TestCheckClaimsCatchesPlantedFaults(t *testing.T) {
	const head = "| claim | test | requirement |\n|---|---|---|\n"
	tests := []struct {
		name, row string
		gaps      bool
		want      string // part of the error; empty for none
	}{
		{"good test", "| c | `internal/docscheck: TestGlossaryIsSorted` | R-CER-1 |", false, ""},
		{"good subtest", "| c | `internal/docscheck: TestLinksLeadSomewhere/x` | W1 |", false, ""},
		{"good file with arguments", "| c | `scripts/test --long` | |", false, ""},
		{"test does not exist", "| c | `internal/docscheck: TestNoSuch` | |", false, "no test TestNoSuch"},
		{"folder does not exist", "| c | `internal/nowhere: TestGlossaryIsSorted` | |", false, "no test"},
		{"file does not exist", "| c | `cmd/keyrite/testdata/none.txtar` | |", false, "no file"},
		{"no test at all", "| c | see the code | |", false, "names no test"},
		{"open in a claim", "| c | open: later | |", false, "no claim"},
		{"open threat", "| c | open: the relay is not here yet | |", true, ""},
		{"open without a reason", "| c | open | |", true, "needs a reason"},
		{"unknown requirement", "| c | `scripts/test` | R-CER-99 |", false, "no requirement R-CER-99"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			errs := CheckClaims(root, head+tt.row+"\n", tt.gaps, []string{"R-CER-1", "W1"})
			switch {
			case tt.want == "" && len(errs) > 0:
				t.Errorf("got %v, want none", errs)
			case tt.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), tt.want)):
				t.Errorf("got %v, want one with %q", errs, tt.want)
			}
		})
	}
}

func TestCheckMachineMarksCatchesPlantedOnes(t *testing.T) {
	for _, bad := range []string{
		"see /home/jane/keyrite", "cd /work/tree", `path = "/root/x"`,
		"GOPROXY=https://proxy.example.org", "npm --registry https://registry.example.org/",
	} {
		if got := CheckMachineMarks(bad); len(got) != 1 {
			t.Errorf("CheckMachineMarks(%q) = %v, want one", bad, got)
		}
	}
	for _, good := range []string{"/usr/lib/softhsm", "https://example.com/work", "a/home/b", "proxy.go"} {
		if got := CheckMachineMarks(good); len(got) != 0 {
			t.Errorf("CheckMachineMarks(%q) = %v, want none", good, got)
		}
	}
}
