package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/ceremony"
	"keyrite/internal/clitest"
)

// adopting is a house whose genesis closed, for the ceremonies after it.
type adopting struct {
	*house
	t *testing.T
}

func (a *adopting) must(args ...string) string {
	a.t.Helper()
	code, out, errs := a.run(a.t, args...)
	if code != 0 {
		a.t.Fatalf("%v: exit %d\n%s%s", args, code, out, errs)
	}
	return out + errs
}

// with runs a program with passphrases on descriptor 3.
func (a *adopting) with(pass string, args ...string) (int, string) {
	a.t.Helper()
	a.write(a.t, "pass", pass)
	f, err := os.Open(a.path("pass"))
	if err != nil {
		a.t.Fatal(err)
	}
	defer f.Close()
	cmd := a.command(append(args, "--passphrase-fd", "3")...)
	cmd.ExtraFiles = []*os.File{f}
	text, _ := cmd.CombinedOutput() // the exit code is looked at
	return cmd.ProcessState.ExitCode(), string(text)
}

func (a *adopting) cosign(dir string) {
	a.t.Helper()
	if code, out := a.with(phrase("witness2")+"\n", "keyrite-verify", "cosign", dir, "--key", "witness2.key", "--anchor", "anchors.json"); code != 0 {
		a.t.Fatalf("cosign %s: exit %d\n%s", dir, code, out)
	}
}

func (a *adopting) rehearse(script, record string, more ...string) []string {
	return append([]string{"ceremony", "rehearse", script, "--bind", "later.yaml", "--answers", "answers.yaml", "--record", record}, more...)
}

// killed holds the reshare and kills it with signal 9 once the second token has new
// PINs; recover gets the new shares of both alone.
func (a *adopting) killed(record string) {
	t := a.t
	t.Helper()
	cmd := a.command(a.rehearse("plain.yaml", record)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	came := clitest.Await(2*time.Minute, func() bool {
		data, _ := os.ReadFile(a.path(record + "/transcript.jsonl"))
		return strings.Count(string(data), `"type":"pins-changed"}`) == 2
	})
	if err := cmd.Process.Kill(); err != nil || !came {
		t.Fatalf("it did not come to the second change of PINs: %v", err)
	}
	_ = cmd.Wait()
	a.noOrphans(t)
	args, pass := []string{"ceremony", "recover", "--record", record, "--bind", "later.yaml"}, ""
	for _, safe := range []string{"root", "work"} {
		for _, m := range []string{"master1", "master3", "master5"} {
			args = append(args, "--opener", safe+"/2="+m+".key:shares-one/"+safe+"/"+m+".epoch2.share")
			pass += phrase(m) + "\n"
		}
	}
	code, out := a.with(pass, args...)
	if code != 11 || !strings.Contains(out, "Safe work opens for the shares of epoch 2 alone") || !strings.Contains(out, "new reshare --after "+record) {
		t.Fatalf("recover: exit %d\n%s", code, out)
	}
	burned, err := filepath.Glob(a.path("shares-one/*2/*.epoch2.share")) // of root2, if it was dealt by then
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range burned {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
}

// By the programs alone: a reshare killed after two of four tokens had new PINs, and
// recovered with the new shares, is what status, recover and report say it is; another
// reshare is refused; the one that 'new --after' writes takes the two epochs over, and
// its record verifies with the anchors of the genesis.
func TestAdoptingReshare(t *testing.T) {
	a := &adopting{newHouse(t), t}
	a.must(a.attempt(t, "one", "answers.yaml")...)
	anchors, err := os.ReadFile(a.path("record-one/outputs/anchors.json"))
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, "anchors.json", string(anchors))
	a.cosign("record-one")
	base, err := os.ReadFile(a.path("bind-one.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, "later.yaml", strings.Replace(string(base), "tokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}\n", "", 1)+
		"anchors: anchors.json\ncharter: record-one/outputs/charter.jsonl\nrecords: [record-one]\n")
	newReshare := []string{"ceremony", "new", "reshare", "--module", a.env.Config.Module, "--enforce=false", "--printer=no", "--root-token", "one-root", "--work-token", "one-work"}
	a.must(append(newReshare, "--out", "plain.yaml")...)
	a.killed("void")

	out := a.must("ceremony", "status", "--record", "void", "--json")
	var st struct{ Left []string }
	if err := json.Unmarshal([]byte(out), &st); err != nil || len(st.Left) != 3 {
		t.Errorf("status: %v\n%s", err, out)
	}
	report, err := os.ReadFile(a.path("void/report.html"))
	if err != nil || !strings.Contains(string(report), "Safe root opens for the shares of epoch 2 alone") {
		t.Errorf("the report does not say what was left: %v", err)
	}
	code, _, errs := a.run(t, a.rehearse("plain.yaml", "refused", "--after", "void")...)
	if _, err := os.Stat(a.path("refused")); code != 13 || err == nil || !strings.Contains(errs, "new reshare --after void") {
		t.Errorf("a script that does not adopt: exit %d\n%s", code, errs)
	}
	if code, _, errs := a.run(t, append(newReshare, "--after", "record-one", "--out", "no.yaml")...); code != 2 {
		t.Errorf("after a closed ceremony: exit %d\n%s", code, errs)
	}
	if code, _, errs := a.run(t, "ceremony", "new", "new-key", "--module", a.env.Config.Module, "--after", "void", "--out", "no.yaml"); code != 2 {
		t.Errorf("another kind: exit %d\n%s", code, errs)
	}
	if _, err := os.Stat(a.path("no.yaml")); err == nil {
		t.Error("a script was written")
	}

	a.must(append(newReshare, "--after", "void", "--out", "adopting.yaml")...)
	if out := a.must("ceremony", "explain", "adopting.yaml"); strings.Count(out, "left safe") != 2 {
		t.Errorf("explain does not say what is taken over:\n%s", out)
	}
	a.must(a.rehearse("adopting.yaml", "taken", "--after", "void")...)
	a.cosign("taken")
	out = a.must("keyrite-verify", "record", "taken", "--anchor", "anchors.json")
	now, err := ceremony.ReadState(a.path("void"))
	if err != nil || !strings.Contains(out, "epoch 2 of safe work, dealt in the void keyrite/record/"+now.Record) {
		t.Errorf("verified: %v\n%s", err, out)
	}
	if out := a.must("ceremony", "status", "--record", "taken"); !strings.Contains(out, "safe work, epoch 3") || !strings.Contains(out, "safe work2, epoch 2") {
		t.Errorf("status:\n%s", out)
	}
	report, err = os.ReadFile(a.path("taken/report.html"))
	if err != nil || !strings.Contains(string(report), "Safe work was found under the shares of epoch 2") {
		t.Errorf("the report does not say what was taken over: %v", err)
	}
	a.must("keyrite-verify", "charter", "taken/outputs/charter.jsonl", "--anchor", "anchors.json")
	// The old shares open nothing, say the programs too.
	code, text := a.with(phrase("master1")+"\n", "share", "check", "--safe", "work", "--opener", "master1.key:shares-one/work/master1.epoch2.share", "--anchor", "anchors.json", "--charter", "taken/outputs/charter.jsonl")
	if code != 14 {
		t.Errorf("a share of the adopted epoch: exit %d\n%s", code, text)
	}
	a.evidence(t)
}
