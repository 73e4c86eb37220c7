// Package docscheck compares what the documents promise with what the tree
// holds: a claim names a test that exists, a requirement that exists, and no
// file names the machine it was written on.
//
// It owns the reading of our Markdown tables; only its own test calls it. It
// must never be imported by a program.
package docscheck

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Row is one row of a Markdown table, by the lower-case name of its column.
type Row struct {
	Line  int // of the document, from 1
	Cells map[string]string
}

// Tables returns the rows of all tables in a document.
func Tables(doc string) []Row {
	var rows []Row
	var header []string
	for i, line := range strings.Split(doc, "\n") {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			header = nil
			continue
		}
		cells := cut(line)
		switch {
		case header == nil:
			for i := range cells {
				cells[i] = strings.ToLower(cells[i])
			}
			header = cells
		case strings.Trim(line, "|-: ") == "":
		default:
			row := Row{Line: i + 1, Cells: map[string]string{}}
			for j, name := range header {
				if j < len(cells) {
					row.Cells[name] = cells[j]
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func cut(line string) []string {
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

var (
	quoted      = regexp.MustCompile("`([^`]+)`")
	testName    = regexp.MustCompile(`^([A-Za-z0-9_./-]+): ((?:Test|Fuzz|Example)[A-Za-z0-9_]+)(/.*)?$`)
	requirement = regexp.MustCompile(`\b(R-[A-Z0-9]+-[0-9]+|W[0-9]{1,2})\b`)
)

// CheckReference says whether one reference of a table's test column holds in
// the tree at root: "folder: TestName" or a path, arguments after a space.
func CheckReference(root, ref string) error {
	m := testName.FindStringSubmatch(ref)
	if m == nil {
		path, _, _ := strings.Cut(ref, " ")
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			return fmt.Errorf("no file %q, and it does not read as \"folder: TestName\"", path)
		}
		return nil
	}
	files, err := filepath.Glob(filepath.Join(root, m[1], "*_test.go"))
	if err != nil {
		return fmt.Errorf("list %q: %w", m[1], err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read test: %w", err)
		}
		if strings.Contains(string(src), "\nfunc "+m[2]+"(") {
			return nil
		}
	}
	return fmt.Errorf("no test %s in %s", m[2], m[1])
}

// CheckClaims judges a document whose tables have a test and a requirement
// column. In the test column a row names at least one test, or, where gaps is
// set, says "open" and why.
func CheckClaims(root, doc string, gaps bool, known []string) []error {
	var errs []error
	bad := func(r Row, format string, args ...any) {
		errs = append(errs, fmt.Errorf("line %d: "+format, append([]any{r.Line}, args...)...))
	}
	for _, r := range Tables(doc) {
		cell, ok := r.Cells["test"]
		if !ok {
			continue
		}
		refs := quoted.FindAllStringSubmatch(cell, -1)
		switch {
		case strings.HasPrefix(cell, "open"):
			if !gaps {
				bad(r, "a claim without a test is no claim")
			}
			if strings.TrimLeft(strings.TrimPrefix(cell, "open"), ": ") == "" {
				bad(r, "open needs a reason")
			}
		case len(refs) == 0:
			bad(r, "names no test in backquotes: %q", cell)
		}
		for _, ref := range refs {
			if err := CheckReference(root, ref[1]); err != nil {
				bad(r, "%w", err)
			}
		}
		for _, id := range requirement.FindAllString(r.Cells["requirement"], -1) {
			if !slices.Contains(known, id) {
				bad(r, "no requirement %s", id)
			}
		}
	}
	return errs
}

// Requirements returns the IDs of docs/requirements.md, in its order.
func Requirements(doc string) []string {
	var ids []string
	for _, r := range Tables(doc) {
		ids = append(ids, r.Cells["id"])
	}
	return ids
}

// machineMarks are what a file must not hold: a path that exists on one
// machine only, or the host that some machine fetches packages from.
var machineMarks = []*regexp.Regexp{
	regexp.MustCompile(`(^|[\s"'=:(` + "`" + `])/(work|home|root|Users)/[A-Za-z0-9._-]`),
	regexp.MustCompile(`\b(proxy|registry|sum|mirrors?|deb|security|ftp)\.[a-z0-9-]+\.(org|com|net|io|dev)\b`),
	regexp.MustCompile(`\b(localhost|127\.0\.0\.1):4873\b`),
}

// CheckMachineMarks returns the lines of a text that only make sense on the
// machine where they were written.
func CheckMachineMarks(text string) []string {
	var bad []string
	for i, line := range strings.Split(text, "\n") {
		for _, re := range machineMarks {
			if m := re.FindString(line); m != "" {
				bad = append(bad, fmt.Sprintf("line %d: %q", i+1, strings.TrimSpace(m)))
			}
		}
	}
	return bad
}
