package artifacttest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
)

// Vector is a file of testdata/vectors: header lines, an empty line, the body.
type Vector struct {
	Name   string
	Expect string // a class of package fault, or "ok"
	Body   []byte
}

// Vectors reads the vectors of a folder.
func Vectors(t testing.TB, dir string) []Vector {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", dir, err)
	}
	var out []Vector
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		head, body, ok := bytes.Cut(b, []byte("\n\n"))
		_, expect, ok2 := strings.Cut(string(head), "expect: ")
		if !ok || !ok2 {
			t.Fatalf("%s is no vector", f)
		}
		out = append(out, Vector{Name: strings.TrimSuffix(filepath.Base(f), ".txt"), Expect: strings.TrimSpace(expect), Body: bytes.TrimSuffix(body, []byte("\n"))})
	}
	return out
}

// WriteVector writes one vector.
func WriteVector(t testing.TB, dir string, v Vector, comment string) {
	t.Helper()
	writeFile(t, filepath.Join(dir, v.Name+".txt"), fmt.Appendf(nil, "comment: %s\nexpect: %s\n\n%s\n", comment, v.Expect, v.Body))
}

// Save writes anchors.json and charter.jsonl of the world to a new folder of
// vectors; what was there goes.
func (w *World) Save(dir string) {
	w.t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	writeFile(w.t, filepath.Join(dir, "anchors.json"), w.must(w.Anchors.Marshal()))
	writeFile(w.t, filepath.Join(dir, "charter.jsonl"), w.Charter)
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Load reads the world of a folder of vectors.
func Load(t testing.TB, dir string) (*anchor.Anchors, *charter.State) {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, err := anchor.Parse(read("anchors.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := charter.Fold(read("charter.jsonl"), a.World, a.Vault)
	if err != nil {
		t.Fatal(err)
	}
	return a, s
}
