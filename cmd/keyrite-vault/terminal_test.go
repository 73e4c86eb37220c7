package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrite/internal/clitest"
)

// atTerminal runs a program at a pseudo-terminal, and types each answer when its prompt
// has appeared.
func (h *house) atTerminal(cmd *exec.Cmd, dialogue ...string) (int, string) {
	h.t.Helper()
	ptmx, tty, err := clitest.OpenPTY(0, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer ptmx.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	_ = tty.Close()
	var mu sync.Mutex
	var text bytes.Buffer
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ptmx.Read(buf)
			mu.Lock()
			text.Write(buf[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	all := func() string { mu.Lock(); defer mu.Unlock(); return text.String() }
	from := 0
	for i := 0; i+1 < len(dialogue); i += 2 {
		came := clitest.Await(60*time.Second, func() bool {
			at := strings.Index(all()[from:], dialogue[i])
			if at >= 0 {
				from += at + len(dialogue[i])
			}
			return at >= 0
		})
		if !came {
			_ = cmd.Process.Kill()
			h.t.Fatalf("%q never appeared in:\n%s", dialogue[i], all())
		}
		if _, err := ptmx.WriteString(dialogue[i+1]); err != nil {
			h.t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), all()
}

// A key master at his terminal reads who asks, says yes, and gives his passphrase, which
// is not shown; anything but yes, and Ctrl-C, give nothing.
func TestShareIsGivenAtATerminal(t *testing.T) {
	h := newHouse(t)
	h.host()
	s := h.serve()
	h.vault(0, "unseal", "--new-attempt", "--operation", "create", "--out", "a.request")
	open := func(out string) *exec.Cmd {
		return h.command("keyrite", "share", "open", "a.request", "--key", "master1.key", "--share", "master1.share", "--anchor", "anchors.json", "--charter", "charter.jsonl", "--out", out)
	}
	code, text := h.atTerminal(open("a.answer"), "Host vault9 asks for your share of safe work, epoch 1", "", "CREATE", "", "Type yes: ", "yes\n", "passphrase of master1.key: ", phrase("master1")+"\n")
	if code != 0 || strings.Contains(text, phrase("master1")) {
		t.Fatalf("exit %d: %s", code, text)
	}
	h.vault(0, "unseal", "--answer", "a.answer")
	for typed, want := range map[string]int{"no\n": 2, "\n": 2, "YES\n": 2, "\x03": 130, "\x04": 130} {
		if code, text := h.atTerminal(open("none.answer"), "Type yes: ", typed); code != want {
			t.Errorf("%q: exit %d, want %d: %s", typed, code, want, text)
		}
		if _, err := os.Lstat(h.path("none.answer")); err == nil {
			t.Errorf("%q: an answer is left", typed)
		}
	}
	s.stop()
}
