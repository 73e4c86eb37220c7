package charter_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

const cryptoVectors = "../../testdata/vectors/charter-"

// saveVectors writes, with -update, a vector for each body: a statement that follows the
// charter as it is.
func saveVectors[T any](v *vault, kind, typ string, bad, good map[string]T) {
	v.t.Helper()
	if !*update {
		return
	}
	dir := cryptoVectors + kind
	v.Save(dir)
	for expect, bodies := range map[string]map[string]T{"verify": bad, "ok": good} {
		for what, body := range bodies {
			name := typ + "-" + strings.Map(func(r rune) rune {
				if r == ' ' || r == '\'' || r == ',' {
					return '-'
				}
				return r
			}, strings.ToLower(what))
			artifacttest.WriteVector(v.t, dir, artifacttest.Vector{Name: name, Expect: expect, Body: v.line(typ, body, "approver1", "approver2")}, what)
		}
	}
}

// TestCryptoVectors: each vector is a statement that follows charter.jsonl beside it.
func TestCryptoVectors(t *testing.T) {
	for _, kind := range []string{"pki", "release", "transit", "unattended"} {
		dir := cryptoVectors + kind
		a, _ := artifacttest.Load(t, dir)
		lines, err := os.ReadFile(filepath.Join(dir, "charter.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, x := range artifacttest.Vectors(t, dir) {
			got := "ok"
			if _, err := charter.Fold(slices.Concat(lines, x.Body, []byte("\n")), a.World, a.Vault); err != nil {
				got = string(fault.ClassOf(err))
			}
			if got != x.Expect {
				t.Errorf("%s: %s, want %s", x.Name, got, x.Expect)
			}
			seen[got]++
		}
		if seen["ok"] < 2 || seen["verify"] < 10 {
			t.Errorf("%s: %v", kind, seen)
		}
	}
}
