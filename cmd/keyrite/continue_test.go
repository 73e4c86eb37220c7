package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"keyrite/ceremony"
)

// A genesis, a further key and a reshare, each from the script that new writes,
// rehearsed by the program, cosigned elsewhere and verified with one anchors file;
// after a ceremony that was spoiled with a safe open, only a reshare goes on.
func TestLaterCeremonies(t *testing.T) {
	h := newHouse(t)
	must := func(args ...string) {
		t.Helper()
		if code, out, errs := h.run(t, args...); code != 0 {
			t.Fatalf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	cosign := func(dir string) {
		t.Helper()
		cmd := h.command("keyrite-verify", "cosign", dir, "--key", "witness2.key", "--anchor", "anchors.json", "--passphrase-fd", "3")
		pass, err := os.Open(h.path("witness2.pass"))
		if err != nil {
			t.Fatal(err)
		}
		defer pass.Close()
		cmd.ExtraFiles = []*os.File{pass}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cosign %s: %v\n%s", dir, err, out)
		}
		must("keyrite-verify", "record", dir, "--anchor", "anchors.json")
	}
	must(h.attempt(t, "one", "answers.yaml")...)
	anchors, err := os.ReadFile(h.path("record-one/outputs/anchors.json"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "anchors.json", string(anchors))
	cosign("record-one")

	base, err := os.ReadFile(h.path("bind-one.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	plan := func(kind, record, newest, answers string, more ...string) []string {
		t.Helper()
		bind := strings.Replace(string(base), "tokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}\n", "", 1)
		bind += "anchors: anchors.json\ncharter: " + newest + "/outputs/charter.jsonl\nrecords: [" + newest + "]\n"
		h.write(t, "bind-"+record+".yaml", bind)
		if _, err := os.Stat(h.path(kind + ".yaml")); err != nil {
			args := []string{"ceremony", "new", kind, "--module", h.env.Config.Module, "--enforce=false", "--work-token", "one-work", "--out", kind + ".yaml"}
			args = append(args, "--root-token", "one-root") // a key that the field is told of is signed for there
			must(args...)
		}
		return append([]string{"ceremony", "rehearse", kind + ".yaml", "--bind", "bind-" + record + ".yaml", "--answers", answers, "--record", record}, more...)
	}
	must(plan("new-key", "record-key", "record-one", "answers.yaml")...)
	cosign("record-key")

	h.write(t, "spoiled.yaml", h.answers()+"incident: {step: \"3.1\", by: witness1, reason: a stranger came in}\n")
	if code, _, errs := h.run(t, plan("reshare", "record-void", "record-key", "spoiled.yaml")...); code != 11 {
		t.Fatalf("spoiled: exit %d\n%s", code, errs)
	}
	st, err := ceremony.ReadState(h.path("record-void"))
	if err != nil || len(st.Exposed) != 4 {
		t.Fatalf("exposed %v, %v", st.Exposed, err)
	}
	code, _, errs := h.run(t, plan("new-key", "record-key2", "record-key", "answers.yaml", "--after", "record-void", "--json")...)
	var e struct {
		Error struct{ Class, Message string }
	}
	if code != 13 || json.Unmarshal([]byte(errs[strings.Index(errs, "{"):]), &e) != nil || !strings.Contains(e.Error.Message, "deals safe") {
		t.Errorf("another kind after exposed shares: exit %d\n%s", code, errs)
	}
	must(plan("reshare", "record-reshare", "record-key", "answers.yaml", "--after", "record-void")...)
	cosign("record-reshare")
}
