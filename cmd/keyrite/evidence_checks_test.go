package main

import (
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/hsm/hsmtest"
)

// runChecks runs every command that the page of a folder names, there, and wants the exit
// code that the page says. It returns the names of the files that have one.
func runChecks(t *testing.T, verify, dir string) []string {
	t.Helper()
	_, table, _ := strings.Cut(mustRead(t, filepath.Join(dir, evidenceIndex)), `<section id="check">`)
	table, _, _ = strings.Cut(table, "</section>")
	rows := regexp.MustCompile(`<th scope="row" class="mono">([^<]+)</th><td>[^<]*</td><td class="mono">([^<]+)</td>`).FindAllStringSubmatch(table, -1)
	if len(rows) < 2 || len(rows) != strings.Count(table, `scope="row"`) {
		t.Fatalf("%d rows in %s", len(rows), table)
	}
	var names []string
	for _, r := range rows {
		if r[1] == "anchors.json" {
			continue // its words are compared by people
		}
		command, rest, exits := strings.Cut(html.UnescapeString(r[2]), " (exit ")
		want := 0
		if exits {
			var err error
			if want, err = strconv.Atoi(rest[:2]); err != nil {
				t.Fatal(err)
			}
		}
		args := strings.Fields(command)
		if args[0] != "keyrite-verify" {
			t.Errorf("%s has no command of keyrite-verify: %s", r[1], command)
			continue
		}
		cmd := exec.Command(verify, args[1:]...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput() // the exit code is looked at
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("%s: exit %d, want %d: %s", command, code, want, out)
		}
		names = append(names, r[1])
	}
	return names
}

// TestEvidenceChecks: what the page says about a file is what keyrite-verify says in that
// folder, for every kind of file.
func TestEvidenceChecks(t *testing.T) {
	verify := hsmtest.Program(t, "keyrite-verify")
	tmp := t.TempDir()
	body := func(name, vector string) string {
		_, text, _ := strings.Cut(mustRead(t, vector), "\n\n")
		path := filepath.Join(tmp, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	of := func(dir string) trustOptions {
		return trustOptions{anchor: filepath.Join(dir, "anchors.json"), charter: filepath.Join(dir, "charter.jsonl")}
	}
	const audit = "../../testdata/vectors/audit"
	w := artifacttest.New(t)
	w.AddSuccessors()
	statement := w.Succession("succession", nil, "firmware")
	w.Save(filepath.Join(tmp, "w"))
	replaced := evidenceOptions{trustOptions: of(filepath.Join(tmp, "w"))}
	replaced.succession = filepath.Join(tmp, "succession.json")
	if err := os.WriteFile(replaced.succession, statement, 0o600); err != nil {
		t.Fatal(err)
	}
	stripped := vectorCopy(t)
	strip(t, stripped, 2)
	for _, x := range []struct {
		o     evidenceOptions
		names string
	}{
		{evidenceOptions{trustOptions: of(audit), audits: []string{body("trail.jsonl", audit+"/whole.txt")}}, "charter.jsonl audit/trail.jsonl"},
		{evidenceOptions{trustOptions: of(ledgerVectors), ledger: body("good.proofs", ledgerVectors+"/valid.txt")}, "charter.jsonl shares.proofs"},
		{evidenceOptions{trustOptions: of(ledgerVectors), ledger: body("told.proofs", ledgerVectors+"/told.txt")}, "charter.jsonl shares.proofs"},
		{evidenceOptions{trustOptions: of(genesisVector + "/outputs"), records: []string{genesisVector, stripped}}, "charter.jsonl records/record records/genesis"},
		{replaced, "succession.json charter.jsonl"},
	} {
		dir, _, err := exportAt(t, x.o)
		if err != nil {
			t.Errorf("%s: %v", x.names, err)
			continue
		}
		if got := strings.Join(runChecks(t, verify, dir), " "); got != x.names {
			t.Errorf("checked %s, want %s", got, x.names)
		}
	}
}
