package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/ceremony/script"
)

// At a terminal 'new' asks what no flag says, explains each question, takes the
// default for an empty line, and asks again for what cannot be.
func TestNewAsksAtTheTerminal(t *testing.T) {
	h := newHouse(t)
	x := h.terminal(t, "ceremony", "new", "reshare", "--witnesses", "3")
	x.expect("out [reshare.yaml]: ")
	x.send("mine.yaml\n")
	x.expect("its hash goes into the script.")
	x.expect("module []: ")
	x.send("relative.so\n")
	x.expect("--module wants an absolute path")
	x.send(h.env.Config.Module + "\n")
	x.expect("enforce [true]: ")
	x.send("\n")
	x.expect("boot []: ")
	x.send("none.iso\n")
	x.expect("none.iso")
	x.expect("boot []: ")
	x.send("bind-base.yaml\n") // a file is a file
	x.expect("title [Reshare]: ")
	x.send("The second \"reshare\"\n")
	x.expect("without quotes")
	x.send("The second reshare\n")
	for _, q := range []string{"root-token [root]: ", "work-token [work]: ", "masters-need [3]: ", "masters [5]: "} {
		x.expect(q)
		x.send(map[string]string{"masters [5]: ": "many\n"}[q])
		if q != "masters [5]: " {
			x.send("\n")
		}
	}
	x.expect("masters wants a whole number, not")
	x.send("7\n")
	for _, q := range []string{"second-group [no]: ", "second-need [3]: ", "second-masters [5]: ", "approvers-need [2]: ", "approvers [2]: ", "printer [yes]: "} {
		x.expect(q)
		x.send("\n")
	}
	x.expect("mine.yaml: good. reshare")
	if code := x.exit(); code != 0 {
		t.Fatalf("exit %d: %s", code, x.all())
	}
	if strings.Contains(x.all(), "witnesses [") {
		t.Error("what a flag says was asked again")
	}
	boot := sha256.Sum256([]byte(mustRead(t, h.path("bind-base.yaml"))))
	data, err := os.ReadFile(h.path("mine.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := script.Parse("mine.yaml", data)
	if err != nil || s.Title != "The second reshare" || s.Pins.Boot != hex.EncodeToString(boot[:]) || s.Roles.KeyMasters.Of != 7 || s.Roles.Witnesses != 3 || s.Environment != (script.Environment{Network: "down", Swap: "off", CoreDumps: "off", Clock: "utc"}) {
		t.Errorf("%+v, %v", s, err)
	}
	// Ctrl-C writes nothing.
	x = h.terminal(t, "ceremony", "new", "genesis")
	x.expect("out [genesis.yaml]: ")
	x.send("\n")
	x.expect("module []: ")
	x.send("\x03")
	if code := x.exit(); code != 130 {
		t.Errorf("exit %d: %s", code, x.all())
	}
	if _, err := os.Stat(h.path("genesis.yaml")); err == nil {
		t.Error("a script was written")
	}
}

// Another ceremony program made the key first and linted the certificate then: a
// certificate that its own lint refused left an orphan key in the token. Here the
// certificate is examined before any token is touched, and nothing is left.
func TestNoKeyForABadCertificate(t *testing.T) {
	h := newHouse(t)
	before := h.objects(t)
	for name, edit := range map[string][2]string{
		"name":   {"names: [127.0.0.1, localhost, relay.test]", "names: [127.0.0.1, 'no host name']"},
		"hidden": {"names: [127.0.0.1, localhost, relay.test]", "names: [relay..test]"},
	} {
		args := h.attempt(t, "bad"+name, "answers.yaml")
		data, err := os.ReadFile(h.path(args[2]))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(data), edit[0], edit[1], 1)
		if text == string(data) {
			t.Fatal("nothing changed")
		}
		h.write(t, args[2], text)
		if code, out, errs := h.run(t, "ceremony", "lint", args[2]); code != 0 {
			t.Fatalf("%s: the script itself lints: exit %d, %s%s", name, code, out, errs)
		}
		code, _, errs := h.run(t, args...)
		if code == 0 || code == 11 || !strings.Contains(errs, "certificate relay-access") {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
		if strings.Contains(errs, "is born") {
			t.Errorf("%s: a key was made: %s", name, errs)
		}
		if got := h.objects(t); !slices.Equal(got, before) {
			t.Errorf("%s: %q in the token store, which had %q", name, got, before)
		}
	}
	// The same without the fault makes its tokens and keys: the count can fail.
	if code, _, errs := h.run(t, h.attempt(t, "good", "answers.yaml")...); code != 0 {
		t.Fatalf("exit %d, %s", code, errs)
	}
	if got := h.objects(t); len(got) < len(before)+20 {
		t.Errorf("%d objects", len(got))
	}
}

// objects lists the files of every token, one for each object and one for the
// token itself.
func (h *house) objects(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(h.env.TokenDir, "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Every kind that opens a dormant token asks whether it has key masters of its own,
// and its script lints and explains itself with them; a script without --boot pins no
// image.
func TestNewAsksEveryKindForItsGroup(t *testing.T) {
	h := newHouse(t)
	for _, kind := range []string{"genesis", "new-key", "hsm-lost", "reshare", "succession", "transfer", "retire"} {
		out := kind + "2.yaml"
		if code, _, errs := h.run(t, "ceremony", "new", kind, "--module", h.env.Config.Module, "--second-group=yes", "--second-need", "2", "--second-masters", "3", "--out", out); code != 0 {
			t.Errorf("%s: exit %d, %s", kind, code, errs)
			continue
		}
		text := mustRead(t, h.path(out))
		s, err := script.Parse(out, []byte(text))
		if err != nil || s.Pins.Boot != "" || strings.Contains(text, "#+") {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		n := 0
		for _, x := range s.Safes {
			if x.Group == "second" && x.Need == 2 && x.Of == 3 {
				n++
			}
		}
		if n == 0 || n != strings.Count(text, "group: second") {
			t.Errorf("%s: %d safes of the second group", kind, n)
		}
		if code, text, errs := h.run(t, "ceremony", "explain", out); code != 0 || !strings.Contains(text, "group second") {
			t.Errorf("%s: explain: exit %d, %s%s", kind, code, text, errs)
		}
	}
	for _, kind := range []string{"sign-offline", "enrol"} { // of the tokens in use only
		if code, _, errs := h.run(t, "ceremony", "new", kind, "--module", h.env.Config.Module, "--second-group=yes", "--out", "x.yaml"); code != 2 || !strings.Contains(errs, "does not ask --second-group") {
			t.Errorf("%s: exit %d, %s", kind, code, errs)
		}
	}
}

// The twins' key masters may be others: the script has their group, its paper and
// explanation too, and numbers for a group that nobody wants are refused.
func TestNewAsksForASecondGroup(t *testing.T) {
	h := newHouse(t)
	args := []string{"ceremony", "new", "genesis", "--module", h.env.Config.Module, "--enforce=false", "--second-need", "2", "--second-masters", "4", "--out"}
	if code, _, errs := h.run(t, append(args, "none.yaml")...); code != 2 || !strings.Contains(errs, "second-") {
		t.Errorf("numbers without a group: exit %d, %s", code, errs)
	}
	if code, _, errs := h.run(t, append(args, "two.yaml", "--second-group=yes")...); code != 0 {
		t.Fatalf("exit %d, %s", code, errs)
	}
	if code, out, errs := h.run(t, "ceremony", "explain", "two.yaml"); code != 0 || !strings.Contains(out, "All 4 key masters of group second") || !strings.Contains(out, "All 5 key masters") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	bind, err := os.ReadFile(h.path("bind-base.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bind2.yaml", strings.Replace(string(bind), "role: key-master}", "role: key-master, group: second}", 1))
	for name, want := range map[string]string{"bind-base.yaml": "key master 1 (second)", "bind2.yaml": "key master 2 (second)"} {
		page := strings.TrimSuffix(name, ".yaml") + ".html"
		code, _, errs := h.run(t, "ceremony", "print", "two.yaml", "--bind", name, "--out", page)
		html, err := os.ReadFile(h.path(page))
		if code != 0 || err != nil || !strings.Contains(string(html), want) {
			t.Errorf("%s: exit %d, %v, %s", name, code, err, errs)
		}
	}
}
