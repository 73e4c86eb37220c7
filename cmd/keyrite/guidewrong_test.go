package main

import (
	"os"
	"strings"
	"testing"
)

// What a newcomer does wrongly with the guide in his hand: each message says what is
// wrong and what to do, with the exit code of its class, and leaves nothing behind.
func TestFirstCeremonyGuideDoneWrongly(t *testing.T) {
	h := newHouse(t)
	module := h.env.Config.Module
	base := mustRead(t, h.path("bind-base.yaml")) + "shares: shares\n"
	h.write(t, "bind.yaml", base)
	edit := func(name string, pairs ...string) {
		t.Helper()
		text := base
		for i := 0; i < len(pairs); i += 2 {
			next := strings.ReplaceAll(text, pairs[i], pairs[i+1])
			if next == text {
				t.Fatalf("%s: %q is not in the binding", name, pairs[i])
			}
			text = next
		}
		h.write(t, name, text)
	}
	if code, _, errs := h.run(t, "ceremony", "new", "genesis", "--module", module, "--enforce=false", "--out", "practice.yaml"); code != 0 {
		t.Fatal(errs)
	}
	edit("few.yaml", "role: witness}", "role: key-master}", "  - {person: approver1.person, key: approver1.key, role: approver}\n", "")
	edit("typo.yaml", "role: witness}", "role: witnes}")
	edit("live.yaml", "world: "+houseWorld, "world: live")
	edit("twice.yaml", "witness2.person", "witness1.person")
	edit("lacks.yaml", "requests: {", "requests: {nobody: x, ", "report: ", "raport: ", "pipeline1: ", "pipeline: ")
	edit("member.yaml", "\nshares: shares", "\nshare: shares")
	edit("nofile.yaml", "master3.person", "master33.person")
	edit("exchanged.yaml", "key: witness2.key", "key: witness1.key")
	h.write(t, "typo-script.yaml", strings.Replace(mustRead(t, h.path("practice.yaml")), "key_masters:", "keymasters:", 1))
	h.write(t, "other-build.yaml", otherBuild(mustRead(t, h.path("practice.yaml"))))
	rehearse := func(bind string, more ...string) []string {
		return append([]string{"ceremony", "rehearse", "practice.yaml", "--bind", bind, "--answers", "answers.yaml", "--record", "wrong"}, more...)
	}
	for _, tc := range []struct {
		what string
		exit int
		want []string // all of them on stderr
		args []string
	}{
		{"a name with a blank", 2, []string{`not "Witness 3"`}, []string{"person", "new", "Witness 3", "--out", ".", "--rehearsal", "spring2027"}},
		{"a folder that is not there", 2, []string{"hint: make the folder first: mkdir -p peeple"}, []string{"person", "new", "zoe", "--out", "peeple", "--rehearsal", "spring2027"}},
		{"a rehearsal with a blank", 2, []string{"8 to 32 of a-z and 0-9, not Spring 2027"}, []string{"person", "new", "zoe", "--out", ".", "--rehearsal", "Spring 2027"}},
		{"a kind mistyped", 2, []string{"hint: did you mean genesis?"}, []string{"ceremony", "new", "genisis", "--module", module, "--out", "x.yaml"}},
		{"a module that is not there", 2, []string{"hint: name the PKCS#11 module"}, []string{"ceremony", "new", "genesis", "--module", "/none.so", "--out", "x.yaml"}},
		{"a member of the script mistyped", 2, []string{"unknown member", "hint: did you mean key_masters?"}, []string{"ceremony", "lint", "typo-script.yaml"}},
		{"a script that is not there", 2, []string{"hint: is the name right?"}, []string{"ceremony", "lint", "nowhere.yaml"}},
		{"no binding", 2, []string{"hint: the binding says which file is whom"}, []string{"ceremony", "rehearse", "practice.yaml", "--record", "wrong"}},
		{"three people missing", 10, []string{"2 of role approver, the binding names 1", "5 of role key-master, the binding names 7", "2 of role witness, the binding names 0", "hint: 'keyrite ceremony explain SCRIPT'"}, rehearse("few.yaml")},
		{"a role mistyped", 10, []string{`the role "witnes"`, "2 of role witness, the binding names 0"}, rehearse("typo.yaml")},
		{"the live world", 13, []string{"hint: a rehearsal's binding has 'world: rehearsal:NAME'"}, rehearse("live.yaml")},
		{"run instead of rehearse", 13, []string{"hint: rehearse it: keyrite ceremony rehearse"}, []string{"ceremony", "run", "practice.yaml", "--bind", "bind.yaml", "--record", "wrong"}},
		{"one person twice", 13, []string{"witness1 is named twice"}, rehearse("twice.yaml")},
		{"what others bring", 2, []string{"request report (under requests)", "public key pipeline1 (under keys)", "hint: 'keyrite ceremony explain SCRIPT' lists them"}, rehearse("lacks.yaml")},
		{"a member of the binding mistyped", 2, []string{`unknown member "share"`}, rehearse("member.yaml")},
		{"a person file that is not there", 2, []string{"the binding's key-master: \"master33.person\"", "hint: is the name right?"}, rehearse("nofile.yaml")},
	} {
		code, out, errs := h.run(t, tc.args...)
		if code != tc.exit || out != "" {
			t.Errorf("%s: exit %d, want %d\n%s%s", tc.what, code, tc.exit, out, errs)
		}
		for _, w := range tc.want {
			if !strings.Contains(errs, w) {
				t.Errorf("%s: %q is not in\n%s", tc.what, w, errs)
			}
		}
		if strings.Contains(errs, "actions.") || strings.Contains(errs, "strconv") || strings.Contains(errs, "unmarshal") {
			t.Errorf("%s: the message speaks of Go\n%s", tc.what, errs)
		}
	}
	for _, n := range []string{"wrong", "x.yaml", "zoe.key", "zoe.person", "peeple"} {
		if _, err := os.Lstat(h.path(n)); err == nil {
			t.Errorf("%s is left behind", n)
		}
	}
	h.sameCommandAgain(t, rehearse)
}

// otherBuild is a script for another build of keyrite.
func otherBuild(text string) string {
	at := strings.Index(text, "\n  keyrite: ") + len("\n  keyrite: ")
	return text[:at] + strings.Repeat("0", 64) + text[at+64:]
}

// sameCommandAgain: what fails in the first steps has done nothing. It says so, and
// the same command goes through once the cause is put right, the record of the first
// try beside it.
func (h *house) sameCommandAgain(t *testing.T, rehearse func(bind string, more ...string) []string) {
	t.Helper()
	args := rehearse("bind.yaml")
	args[2] = "other-build.yaml"
	code, _, errs := h.run(t, args...)
	if code != 13 || !strings.Contains(errs, "nothing has happened yet: put it right, and give the same command again") {
		t.Errorf("another build: exit %d, %s", code, errs)
	}
	if code, _, errs := h.run(t, rehearse("exchanged.yaml")...); code != 12 || !strings.Contains(errs, "it is kept as wrong.early-1") || !strings.Contains(errs, "witness2: wrong passphrase, or not this key file, 3 times") {
		t.Errorf("the key of another: exit %d, %s", code, errs)
	}
	if code, _, errs := h.run(t, rehearse("bind.yaml")...); code != 0 || !strings.Contains(errs, "it is kept as wrong.early-2") {
		t.Errorf("the same command again: exit %d, %s", code, errs)
	}
	if code, _, errs := h.run(t, rehearse("bind.yaml")...); code != 16 {
		t.Errorf("over a closed record: exit %d, %s", code, errs)
	}
}
