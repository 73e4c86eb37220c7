package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
	"keyrite/vault/control"
)

// A vault from nothing with the programs alone: create, host statement, first unseal from
// five homes, seal, unseal by others, restart, and what each tells.
func TestVaultFromNothing(t *testing.T) {
	h := newHouse(t)
	out, _ := h.vault(0, "create")
	if !strings.Contains(out, "keyrite charter propose host --id vault9 --key state/host.pub") {
		t.Errorf("create says %s", out)
	}
	if code, _, errs := h.run("keyrite", "charter", "propose", "host", "--id", "vault9", "--key", "state/host.pub", "--charter", "charter.jsonl", "--anchor", "anchors.json", "--out", "host.proposal"); code != 0 {
		t.Errorf("what create proposes: exit %d: %s", code, errs)
	}
	h.vault(16, "create")
	if st, err := os.Stat(h.path("state/host.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("host.key: %v %v", st.Mode(), err)
	}
	if s := h.status(); s.Running || !s.Sealed || s.Created || s.HostOK || len(s.Warnings) != 1 {
		t.Errorf("before anything: %+v", s)
	}
	if err := os.RemoveAll(h.path("state")); err != nil {
		t.Fatal(err)
	}
	h.host()
	h.vault(19, "unseal", "--new-attempt", "--out", "x.request")
	h.vault(0, "seal")
	s := h.serve()
	if st := h.status(); !st.Running || !st.Sealed || !st.HostOK || st.Need != 3 {
		t.Errorf("%+v", st)
	}
	if code, _, errs := h.run("keyrite-vault", "serve", "--bind", "vault.yaml", "--state-dir", "state"); code != 15 {
		t.Errorf("a second one: exit %d: %s", code, errs)
	}
	h.vault(2, "unseal", "--new-attempt", "--out", "x.request")
	if _, err := os.Lstat(h.path("x.request")); err == nil {
		t.Error("a request of no attempt is left")
	}
	h.open(openrequest.Create, "master1", "master2", "master3")
	h.alone(3) // serve, supervisor and module
	if st := h.status(); st.Sealed || !st.Created || strings.Join(st.Holders, " ") != "master1 master2 master3" || st.Operation != openrequest.Create {
		t.Errorf("%+v", st)
	}
	h.vault(16, "unseal", "--new-attempt", "--out", "x.request")

	pid := s.cmd.Process.Pid
	h.vault(0, "seal")
	s.ready() // the same process, anew
	h.alone(1)
	if st := h.status(); !st.Sealed || !st.Created || s.cmd.Process.Pid != pid {
		t.Errorf("after the seal: %+v", st)
	}
	h.open(openrequest.Unseal, "master3", "master4", "master5")
	s.stop()
	h.alone(0)
	if _, err := os.Lstat(h.path("state/" + control.SocketName)); err == nil {
		t.Error("the socket is left")
	}
	s = h.serve()
	if st := h.status(); !st.Sealed || !st.Created {
		t.Errorf("after a restart: %+v", st)
	}
	h.open(openrequest.Unseal, "master1", "master5", "master2")
	s.stop()
	h.noCanary()
}

// noCanary looks for passphrases in everything that the house's files say.
func (h *house) noCanary() {
	h.t.Helper()
	_ = filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".pass") || strings.Contains(path, "/bin/") {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("canary of")) || bytes.Contains(b, []byte("AGE-SECRET-KEY")) {
			h.t.Errorf("a secret stands in %s", path)
		}
		return err
	})
}

// What a holder's program refuses leaves no answer, and what the vault refuses is
// named and leaves the progress.
func TestAnswersThatAreRefused(t *testing.T) {
	h := newHouse(t)
	h.host()
	s := h.serve()
	h.vault(0, "unseal", "--new-attempt", "--operation", "create", "--out", "a.request")
	words := h.words("a.request")
	refused := func(name string, want int, says string, args ...string) {
		t.Helper()
		args = append([]string{"keyrite", "share", "open"}, append(args, "--anchor", "anchors.json", "--out", "none.answer", "--passphrase-fd", "0")...)
		cmd := h.command(args...)
		cmd.Stdin = strings.NewReader(phrase("master1") + "\n")
		text, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want || !strings.Contains(string(text), says) {
			t.Errorf("%s: exit %d, want %d: %s", name, code, want, text)
		}
		if _, err := os.Lstat(h.path("none.answer")); err == nil {
			t.Errorf("%s: an answer is left", name)
		}
	}
	mine := []string{"--key", "master1.key", "--share", "master1.share", "--charter", "charter.jsonl"}
	yes := append([]string{"--yes-words", words}, mine...)
	refused("nobody confirmed", 2, "confirm", append([]string{"a.request"}, mine...)...)
	refused("other words", 2, "not the words", append([]string{"a.request", "--yes-words", "aardvark"}, mine...)...)
	refused("the share of another", 14, "master1", "a.request", "--yes-words", words, "--key", "master1.key", "--share", "master2.share", "--charter", "charter.jsonl")
	refused("another's key", 12, "", "a.request", "--yes-words", words, "--key", "master2.key", "--share", "master2.share", "--charter", "charter.jsonl")
	h.write("cut.request", h.read("a.request")[:200])
	refused("half a request", 14, "", append([]string{"cut.request"}, yes...)...)
	lines := bytes.SplitAfter(h.Charter, []byte("\n"))
	h.write("old.jsonl", bytes.Join(lines[:len(lines)-2], nil)) // of before the host
	refused("a host that this charter does not know", 14, "no host of the charter", "a.request", "--yes-words", words, "--key", "master1.key", "--share", "master1.share", "--charter", "old.jsonl")
	h.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "vault9", Type: charter.TypeHost})
	h.write("newer.jsonl", h.Charter)
	refused("a host that ended", 14, "", "a.request", "--yes-words", words, "--key", "master1.key", "--share", "master1.share", "--charter", "newer.jsonl")

	if code, text := h.answer("a.request", "master1", "one.answer"); code != 0 {
		t.Fatalf("exit %d: %s", code, text)
	}
	if st, err := os.Stat(h.path("one.answer")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if code, out, errs := h.run("keyrite-verify", "open-request", "a.request", "--answer", "one.answer", "--anchor", "anchors.json", "--charter", "charter.jsonl"); code != 0 || !strings.Contains(out, "master1 answered it") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	h.write("bad.answer", bytes.Replace(h.read("one.answer"), []byte(`"share":"`), []byte(`"share":"AAAA`), 1))
	if _, errs := h.vault(14, "unseal", "--answer", "bad.answer"); !strings.Contains(errs, "master1") {
		t.Errorf("a damaged share: %s", errs)
	}
	// The good ones of several count, also beside a bad one.
	if _, errs := h.vault(14, "unseal", "--answer", "bad.answer", "--answer", "one.answer"); !strings.Contains(errs, "1 of 3") {
		t.Errorf("%s", errs)
	}
	h.vault(10, "unseal", "--answer", "one.answer")
	st := h.status()
	if len(st.Attempts) != 1 || len(st.Attempts[0].Given) != 1 {
		t.Errorf("%+v", st)
	}
	h.vault(0, "unseal", "--drop", st.Attempts[0].Attempt)
	h.vault(13, "unseal", "--answer", "one.answer")
	h.vault(13, "unseal", "--retry", st.Attempts[0].Attempt)
	h.vault(2, "unseal", "--drop", "x")
	s.stop()
}

// Below the threshold nothing is kept: a vault that is killed asks everybody anew.
func TestKilledVaultKeepsNoShare(t *testing.T) {
	h := newHouse(t)
	h.host()
	s := h.serve()
	h.vault(0, "unseal", "--new-attempt", "--operation", "create", "--out", "a.request")
	for _, n := range []string{"master1", "master2"} {
		if code, text := h.answer("a.request", n, n+".answer"); code != 0 {
			t.Fatalf("exit %d: %s", code, text)
		}
	}
	h.vault(0, "unseal", "--answer", "master1.answer", "--answer", "master2.answer")
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
	h.alone(0)
	s = h.serve()
	if st := h.status(); len(st.Attempts) != 0 || !st.Sealed || st.Created {
		t.Errorf("%+v", st)
	}
	h.vault(13, "unseal", "--answer", "master1.answer")
	h.open(openrequest.Create, "master3", "master4", "master5")
	if err := s.cmd.Process.Kill(); err != nil { // with the token open
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
	h.alone(0) // no supervisor outlives it with the PIN
	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master4", "master5")
	s.stop()
	entries, err := os.ReadDir(h.path("state"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "answer") || strings.HasPrefix(e.Name(), ".") {
			t.Errorf("left in the state folder: %s", e.Name())
		}
	}
}

// An older charter, another world, and keys that others may read are refused.
func TestDoubtfulStateIsRefused(t *testing.T) {
	h := newHouse(t)
	h.host()
	h.serve().stop()
	lines := bytes.SplitAfter(h.Charter, []byte("\n"))
	h.write("charter.jsonl", bytes.Join(lines[:len(lines)-2], nil))
	h.vault(13, "serve")
	h.write("charter.jsonl", h.Charter)
	if err := os.Chmod(h.path("state/host.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.vault(13, "serve")
	if err := os.Chmod(h.path("state/host.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := string(h.read("vault.yaml"))
	for name, c := range map[string]struct {
		from, to string
		exit     int
	}{
		"live, and the head in a file": {"world: " + string(h.World.World), "world: live", 2},
		"another world":                {"world: " + string(h.World.World), "world: rehearsal:otherworld", 13},
		"no safe":                      {"safe: work", "safe: none", 13},
		"no head":                      {"head: {file: head.json}", "", 2},
		"an unknown member":            {"host: vault9", "host: vault9\nhosts: 1", 2},
		"no report":                    {"admissions: [report.json]", "admissions: []", 2},
		"a report that is not there":   {"admissions: [report.json]", "admissions: [none.json]", 2},
		"two days":                     {"host: vault9", "host: vault9\nattempt: 48h", 2},
	} {
		h.write("vault.yaml", []byte(strings.Replace(good, c.from, c.to, 1)))
		if code, out, errs := h.run("keyrite-vault", "serve", "--bind", "vault.yaml", "--state-dir", "state"); code != c.exit {
			t.Errorf("%s: exit %d, want %d: %s%s", name, code, c.exit, out, errs)
		}
	}
	h.write("vault.yaml", []byte(good))
	if code, _, errs := h.run("keyrite-vault", "serve", "--bind", "vault.yaml", "--state-dir", "nowhere"); code != 2 {
		t.Errorf("no state folder: exit %d: %s", code, errs)
	}
}
