package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/internal/cli"
	"keyrite/internal/clitest"
)

// TestEvidenceScripts: the vectors of the audit trail stand for a vault.
func TestEvidenceScripts(t *testing.T) {
	const vectors = "../../testdata/vectors/audit"
	files := map[string][]byte{}
	for _, x := range artifacttest.Vectors(t, vectors) {
		body := append(bytes.Clone(x.Body), '\n')
		switch x.Name {
		case "whole":
			files["trail.jsonl"], files["sub/trail.jsonl"] = body, body
		case "an-entry-changed":
			files["altered.jsonl"] = body
		case "not-cosigned":
			files["uncosigned.jsonl"] = body
		}
	}
	for _, name := range []string{"anchors.json", "charter.jsonl"} {
		data, err := os.ReadFile(filepath.Join(vectors, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	other, err := artifacttest.New(t).Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	files["other-anchors.json"] = other
	clitest.Run(t, "testdata/evidence", func(dir string) error {
		for name, data := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(path, data, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}

// evidence puts a genesis, a void reshare and the one that adopted it together, and
// checks each with the command that its page names.
func (a *adopting) evidence(t *testing.T) {
	t.Helper()
	a.must("evidence", "export", "--from", "2020-01-01", "--to", "2100-01-01", "--out", "evidence", "--anchor", "anchors.json",
		"--charter", "taken/outputs/charter.jsonl", "--record", "record-one", "--record", "void", "--record", "taken")
	page, err := os.ReadFile(a.path("evidence/index.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"records/void", "(exit 11: void)", "not signed: proves nothing", "3 of master1, master2, master3, master4, master5", ">dormant<", ">in force<"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if got := strings.Join(runChecks(t, a.path("bin/keyrite-verify"), a.path("evidence")), " "); got != "charter.jsonl records/record-one records/void records/taken" {
		t.Errorf("checked %s", got)
	}
	if strings.Contains(string(page), allVerified) {
		t.Error("the page says that everything was verified, with a record that was killed")
	}
	// Of another vault of the same world, nothing void is taken either.
	for _, dir := range []string{"void", "record-one"} {
		exportEvidence(t, map[string]int{"void": 13, "record-one": 14}[dir], "--record", a.path(dir))
	}
	cut := a.path("cut")
	if err := os.CopyFS(cut, os.DirFS(a.path("taken"))); err != nil {
		t.Fatal(err)
	}
	strip(t, cut, 2)
	exportEvidence(t, 13, "--record", cut)
	if code, _, errs := a.run(t, "evidence", "export", "--from", "2020-01-01", "--to", "2100-01-01", "--out", "evidence3", "--anchor", "anchors.json",
		"--charter", "taken/outputs/charter.jsonl", "--record", "cut"); code != 0 || !strings.Contains(mustRead(t, a.path("evidence3/index.html")), "it was never ended") {
		t.Errorf("a stripped record: exit %d\n%s", code, errs)
	}
	// An altered record goes nowhere.
	if err := os.WriteFile(a.path("taken/outputs/extra"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errs := a.run(t, "evidence", "export", "--from", "2020-01-01", "--to", "2100-01-01", "--out", "evidence2", "--anchor", "anchors.json",
		"--charter", "taken/outputs/charter.jsonl", "--record", "taken")
	if _, err := os.Stat(a.path("evidence2")); code != 14 || err == nil {
		t.Errorf("an altered record: exit %d\n%s", code, errs)
	}
}

// An interrupted export leaves no folder.
func TestEvidenceInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	const vectors = "../../testdata/vectors/audit/"
	out := filepath.Join(t.TempDir(), "evidence")
	args := []string{"evidence", "export", "--from", "2026-01-01", "--to", "2027-01-01", "--anchor", vectors + "anchors.json", "--charter", vectors + "charter.jsonl", "--out", out}
	var text bytes.Buffer
	if code := cli.Run(ctx, newRoot(cli.IO{}), args, cli.IO{Out: &text, Err: &text}); code != 130 {
		t.Errorf("exit %d: %s", code, text.String())
	}
	left, err := os.ReadDir(filepath.Dir(out))
	if err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}
