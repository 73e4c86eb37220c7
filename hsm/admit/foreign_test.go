package admit_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/admission"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/hsm/hsmtest"
)

var update = flag.Bool("update", false, "write docs/portability.md from this run")

const matrixFile = "../../docs/portability.md"

// tried are the algorithms of the matrix: a longer RSA key shows nothing more, and
// takes longer.
var tried = []hsm.Algorithm{hsm.ECDSAP256, hsm.ECDSAP384, hsm.Ed25519, hsm.RSA3072PKCS1, hsm.RSA3072PSS}

// column is one module of the matrix.
type column struct {
	name   string
	open   func(*testing.T) *hsm.Session
	fails  []string // cases that must be among those that fail; none means admitted
	report *admission.Report
}

// TestModules attacks every module that there is here. What they withstand stands
// in docs/portability.md, which is made of this run.
func TestModules(t *testing.T) {
	foreign := func(start func(testing.TB) *hsmtest.Foreign) func(*testing.T) *hsm.Session {
		return func(t *testing.T) *hsm.Session { return start(t).Open(t) }
	}
	columns := []*column{
		{name: "SoftHSM", open: func(t *testing.T) *hsm.Session { return hsmtest.New(t).Token(t, "work") }},
		{name: "NSS softoken", open: foreign(hsmtest.NSS), fails: []string{
			"readback-born", "copy-extractable", "wrap-out", "wrap-trojan", "frozen-copy", "direct-copy", "frozen-wrap-copy",
			"usage-derive", "allowed-mechanisms", "always-auth", "claim-local", "claim-trusted", "claim-trusted-made",
		}},
		{name: "opencryptoki soft token", open: foreign(hsmtest.Opencryptoki), fails: []string{
			"readback-born", "readback-stored", "copy-public", "frozen-copy", "direct-copy", "always-auth", "import-pair",
		}},
		{name: "tpm2-pkcs11 on swtpm", open: foreign(hsmtest.TPM2), fails: []string{
			"readback-born", "set-sensitive", "set-extractable", "frozen-set", "always-auth", "session-object-dies",
		}},
	}
	t.Run("attack", func(t *testing.T) {
		for _, c := range columns {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.attack(t)
			})
		}
	})
	if t.Failed() {
		return
	}
	got := matrix(columns)
	if *update {
		if err := os.WriteFile(matrixFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("docs/portability.md is not what this run finds; look at the change and run: go test ./hsm/admit -run TestModules -update\n%s", firstDifference(string(want), got))
	}
}

func (c *column) attack(t *testing.T) {
	s := c.open(t)
	r, err := admit.Run(t.Context(), s, testWorld, noon, tried...)
	if r == nil {
		t.Fatal(err)
	}
	c.report = r
	var refused *admission.RefusedError
	if errors.As(err, &refused) == (len(c.fails) == 0) {
		t.Fatalf("got %v, want refused: %v", err, len(c.fails) > 0)
	}
	for _, id := range c.fails {
		if !slices.ContainsFunc(refused.Failed, func(k admission.Case) bool { return k.ID == id }) {
			t.Errorf("%s withstood %s", c.name, id)
		}
	}
	if err := admit.Check(r, s.Access, testWorld, noon); (err != nil) != (len(c.fails) > 0) {
		t.Errorf("check of the report: %v", err)
	}
}

func matrix(columns []*column) string {
	var b strings.Builder
	b.WriteString(`# Which PKCS#11 modules hold

Made by ` + "`go test ./hsm/admit -run TestModules -update`" + ` from attacks on the real
modules; the test fails when a run finds something else. Do not edit.
[What is attacked and why](formats/admission.md), [how to attack your own
token](operations/hsm.md).

A token that makes no key from the whole [template](formats/admission.md) is
refused for that; the other attacks are then tried on the nearest key that it
makes, so that its column says what else to expect of it. *Not offered*: there is
nothing to attack, and no key of that kind will be made there. *Not decided*: the
module did not get so far as to show anything, which counts as failed.

`)
	row := func(first string, cell func(*column) string) {
		b.WriteString("| " + first + " |")
		for _, c := range columns {
			b.WriteString(" " + cell(c) + " |")
		}
		b.WriteString("\n")
	}
	row("", func(c *column) string { return c.name })
	b.WriteString("|" + strings.Repeat("---|", len(columns)+1) + "\n")
	row("library", func(c *column) string { return c.report.Module.Description + " " + c.report.Module.LibraryVersion })
	row("model", func(c *column) string { return c.report.Token.Model })
	row("mechanisms", func(c *column) string { return fmt.Sprint(len(c.report.Capabilities)) })
	row("**outcome**", outcome)
	for _, k := range columns[0].report.Cases {
		row("`"+k.ID+"` "+k.Title, func(c *column) string { return cell(c.report, k.ID) })
	}
	return b.String()
}

func outcome(c *column) string {
	failed := 0
	for _, k := range c.report.Cases {
		if !k.Pass {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Sprintf("**refused**: %d of %d cases", failed, len(c.report.Cases))
	}
	return "admitted for " + strings.Join(c.report.Algorithms, ", ") + " as " + strings.Join(c.report.Templates, ", ")
}

// numbered are the labels of throw-away keys, which say nothing.
var numbered = regexp.MustCompile(`"?admission-[0-9]+"?`)

func cell(r *admission.Report, id string) string {
	i := slices.IndexFunc(r.Cases, func(k admission.Case) bool { return k.ID == id })
	if i < 0 {
		return "not run"
	}
	got := numbered.ReplaceAllString(r.Cases[i].Got, "its key")
	got, _, _ = strings.Cut(got, ";")
	switch {
	case !r.Cases[i].Pass:
		return "**fails**: " + strings.ReplaceAll(got, "|", "/")
	case strings.HasPrefix(got, "not offered"):
		return got
	}
	return "holds"
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return "- " + x[i] + "\n+ " + y[i]
		}
	}
	return "one is longer"
}
