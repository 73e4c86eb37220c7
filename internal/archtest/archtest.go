// Package archtest holds the direction of imports as a table and checks the
// whole tree against it.
//
// It owns the rules (rules.go) and the checker; only its own test calls it. It
// must never be imported by a program, and it learns about the tree from
// `go list` alone, so that a package added tomorrow is judged without a change
// here or is refused because no rule knows it.
package archtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
)

// Module is the path of our module.
const Module = "keyrite"

// Package is what the checker needs to know about one package, in the names
// that `go list -json` uses.
type Package struct {
	ImportPath   string
	Name         string
	Standard     bool
	CgoFiles     []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Incomplete   bool
	Error        *struct{ Err string }
	DepsErrors   []*struct{ Err string }
}

// Violation is one import, or one file, that the rules forbid.
type Violation struct {
	Package string // who does it
	Import  string // what it reaches for
	Reason  string // why that is forbidden
}

func (v Violation) String() string {
	return fmt.Sprintf("%s imports %s: %s", v.Package, v.Import, v.Reason)
}

// Layer says what the packages below one prefix of our module may import.
type Layer struct {
	Prefix string
	// Allow lists prefixes of our own packages, relative to the module.
	Allow []string
	// Third lists the only import prefixes outside std and our module. Nil
	// leaves third-party imports to Confined alone.
	Third []string
}

// Confinement keeps an import within a few packages.
type Confinement struct {
	Target string   // import prefix, a full path
	Only   []string // prefixes of ours that may import it; empty means nobody
	// InTests lets any _test.go file import it too.
	InTests bool
	Reason  string
}

// Binary says what one program must not link.
type Binary struct {
	Program string   // package of the main, relative to the module
	Never   []string // import prefixes, full paths
	// Only, if not nil, lists the only prefixes of ours that it may link.
	Only []string
}

// Rules is the whole table.
type Rules struct {
	Layers   []Layer
	Confined []Confinement
	Binaries []Binary
	// CgoOnly lists the packages of ours that may contain cgo files.
	CgoOnly []string
}

// under reports whether path is prefix or lies below it.
func under(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func underAny(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if under(path, p) {
			return true
		}
	}
	return false
}

// standard reports whether path belongs to the standard library: its first
// element has no dot, and it is not ours.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && !under(path, Module)
}

// rel cuts the module from one of our paths.
func rel(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, Module), "/")
}

// layerOf finds the layer with the longest prefix of path, which is relative.
func (r Rules) layerOf(path string) (Layer, bool) {
	var best Layer
	found := false
	for _, l := range r.Layers {
		if under(path, l.Prefix) && (!found || len(l.Prefix) > len(best.Prefix)) {
			best, found = l, true
		}
	}
	return best, found
}

// Check judges our own packages against Layers, Confined and CgoOnly.
func (r Rules) Check(pkgs []Package) []Violation {
	var out []Violation
	for _, p := range pkgs {
		self := rel(p.ImportPath)
		layer, known := r.layerOf(self)
		if !known {
			out = append(out, Violation{p.ImportPath, "anything", "no layer in internal/archtest/rules.go knows this package"})
			continue
		}
		if len(p.CgoFiles) > 0 && !underAny(self, r.CgoOnly) {
			out = append(out, Violation{p.ImportPath, "C", "cgo lives only in " + strings.Join(r.CgoOnly, ", ")})
		}
		for _, imp := range p.Imports {
			out = append(out, r.checkImport(p.ImportPath, layer, imp, false)...)
		}
		for _, imp := range append(append([]string{}, p.TestImports...), p.XTestImports...) {
			out = append(out, r.checkImport(p.ImportPath, layer, imp, true)...)
		}
	}
	return unique(out)
}

// checkImport judges one import of a package in layer. A test may use any
// third-party module that no confinement forbids, and the test support that a
// confinement opens to tests, whatever its layer.
func (r Rules) checkImport(pkg string, layer Layer, imp string, test bool) []Violation {
	self := rel(pkg)
	var out []Violation
	opened := false
	for _, c := range r.Confined {
		if !under(imp, c.Target) || under(pkg, c.Target) {
			continue
		}
		switch {
		case underAny(self, c.Only):
		case test && c.InTests:
			opened = true
		default:
			out = append(out, Violation{pkg, imp, c.Reason})
		}
	}
	if len(out) > 0 || opened {
		return out
	}
	switch {
	case under(imp, Module):
		if !underAny(rel(imp), layer.Allow) && !r.sameLayer(rel(imp), layer) {
			return []Violation{{pkg, imp, fmt.Sprintf("%s may import of ours only %s", layer.Prefix, list(layer.Allow))}}
		}
	case standard(imp) || test || layer.Third == nil:
	case !underAny(imp, layer.Third):
		return []Violation{{pkg, imp, fmt.Sprintf("%s may import of others only %s", layer.Prefix, list(layer.Third))}}
	}
	return nil
}

// sameLayer lets a package import its own layer. A stricter layer further down
// is another one: ceremony does not see ceremony/actions.
func (r Rules) sameLayer(imp string, layer Layer) bool {
	other, ok := r.layerOf(imp)
	return ok && other.Prefix == layer.Prefix
}

func list(s []string) string {
	if len(s) == 0 {
		return "its own layer"
	}
	return "its own layer and " + strings.Join(s, ", ")
}

// CheckBinary judges the packages that one program links.
func (b Binary) CheckBinary(deps []Package) []Violation {
	program := Module + "/" + b.Program
	var out []Violation
	for _, d := range deps {
		switch {
		case underAny(d.ImportPath, b.Never):
			out = append(out, Violation{program, d.ImportPath, "this program must not link it"})
		case b.Only != nil && under(d.ImportPath, Module) && !underAny(rel(d.ImportPath), append([]string{b.Program}, b.Only...)):
			out = append(out, Violation{program, d.ImportPath, "this program links of ours only " + strings.Join(b.Only, ", ")})
		}
	}
	return unique(out)
}

// CheckPureGo judges a program's dependencies as listed with CGO_ENABLED=0.
func CheckPureGo(program string, deps []Package) []Violation {
	var out []Violation
	for _, d := range deps {
		if d.ImportPath == "runtime/cgo" {
			out = append(out, Violation{program, d.ImportPath, "only keyrite-hsmd may need cgo"})
		}
		if d.Error != nil {
			out = append(out, Violation{program, d.ImportPath, "does not build without cgo: " + d.Error.Err})
		}
	}
	return unique(out)
}

func unique(in []Violation) []Violation {
	sort.Slice(in, func(i, j int) bool { return in[i].String() < in[j].String() })
	var out []Violation
	for i, v := range in {
		if i == 0 || v != in[i-1] {
			out = append(out, v)
		}
	}
	return out
}

// List runs `go list -e -json` in dir with the given arguments, with
// CGO_ENABLED as told.
func List(ctx context.Context, dir string, cgo bool, args ...string) ([]Package, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-e", "-json"}, args...)...)
	cmd.Dir = dir
	enabled := "0"
	if cgo {
		enabled = "1"
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+enabled)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go list %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	var pkgs []Package
	dec := json.NewDecoder(&stdout)
	for {
		var p Package
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read go list output: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}
