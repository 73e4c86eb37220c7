package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// What a test that runs beside others changes for the whole process, another reads
// half-changed; the race detector sees it only when the two happen to meet.
func TestParallelTestsChangeNoPackageVariable(t *testing.T) {
	folders := map[string][]*ast.File{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		f, err := parser.ParseFile(fset, path, nil, 0)
		folders[filepath.Dir(path)] = append(folders[filepath.Dir(path)], f)
		return err
	})
	if err != nil || len(folders) < 50 {
		t.Fatalf("%d folders with Go files, %v", len(folders), err)
	}
	for _, files := range folders {
		for _, at := range sharedChanges(files) {
			t.Errorf("%s: a parallel test changes a variable of its package: take t.Parallel away, or pass the value", fset.Position(at))
		}
	}
}

func TestSharedChangesAreFound(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       int
	}{
		{"assigned", "t.Parallel(); path = x", 1},
		{"pointed to", "t.Parallel(); place(t, &path)", 1},
		{"in a subtest", `t.Run("x", func(t *testing.T) { t.Parallel(); path = x })`, 1},
		{"serial", "path = x", 0},
		{"read", "t.Parallel(); x := path; _ = x", 0},
		{"its own of that name", "t.Parallel(); path := x; path = y; place(t, &path)", 0},
		{"a field of that name", "t.Parallel(); x.path = y", 0},
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x_test.go", "package x\nvar path string\nfunc TestX(t *testing.T) { "+tt.body+" }", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := sharedChanges([]*ast.File{f}); len(got) != tt.want {
			t.Errorf("%s: found %d, want %d", tt.name, len(got), tt.want)
		}
	}
}

// sharedChanges finds where the parallel functions of one folder assign to its
// package variables, or hand their addresses out.
func sharedChanges(files []*ast.File) []token.Pos {
	vars := map[string]bool{}
	for _, f := range files {
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for name := range declared(g) {
					vars[name] = true
				}
			}
		}
	}
	var found []token.Pos
	for _, f := range files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && parallel(fn) {
				found = append(found, changes(fn, vars, declared(fn))...)
			}
		}
	}
	return found
}

// changes lists where fn writes one of vars that it does not declare itself.
func changes(fn ast.Node, vars, own map[string]bool) (at []token.Pos) {
	check := func(e ast.Expr) {
		if id, ok := e.(*ast.Ident); ok && vars[id.Name] && !own[id.Name] {
			at = append(at, id.Pos())
		}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				check(left)
			}
		case *ast.IncDecStmt:
			check(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				check(n.X)
			}
		}
		return true
	})
	return at
}

// declared names what stands declared below n.
func declared(n ast.Node) map[string]bool {
	names := map[string]bool{"_": true}
	ast.Inspect(n, func(n ast.Node) bool {
		var ids []*ast.Ident
		switch n := n.(type) {
		case *ast.ValueSpec:
			ids = n.Names
		case *ast.Field:
			ids = n.Names
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, left := range n.Lhs {
					if id, ok := left.(*ast.Ident); ok {
						ids = append(ids, id)
					}
				}
			}
		}
		for _, id := range ids {
			names[id.Name] = true
		}
		return true
	})
	return names
}

func parallel(fn *ast.FuncDecl) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Parallel" {
			found = true
		}
		return !found
	})
	return found
}
