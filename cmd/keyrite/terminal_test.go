package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyrite/artifact/record"
	"keyrite/internal/clitest"
)

// terminal is a rehearsal at a terminal of its own.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	ptmx *os.File
	mu   sync.Mutex
	text bytes.Buffer
	from int // how far the test has read
}

func (h *house) terminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	ptmx, tty, err := clitest.OpenPTY(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	// Not blocking, so that closing it hangs up even while it is read.
	fd, err := unix.FcntlInt(ptmx.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = ptmx.Close()
	ptmx = os.NewFile(uintptr(fd), "ptmx")
	x := &terminal{t: t, cmd: h.command(args...), ptmx: ptmx}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.cmd.Process.Kill(); _ = ptmx.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ptmx.Read(buf)
			x.mu.Lock()
			x.text.Write(buf[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return x
}

func (x *terminal) all() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.text.String()
}

// expect waits until text appears after what was expected before.
func (x *terminal) expect(text string) {
	x.t.Helper()
	came := clitest.Await(30*time.Second, func() bool {
		i := strings.Index(x.all()[x.from:], text)
		if i >= 0 {
			x.from += i + len(text)
		}
		return i >= 0
	})
	if !came {
		x.t.Fatalf("%q never appeared in:\n%s", text, x.all())
	}
}

func (x *terminal) send(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.ptmx, text); err != nil {
		x.t.Fatal(err)
	}
}

// signs says yes to each signature that is asked for.
func (x *terminal) signs(what ...string) {
	x.t.Helper()
	for _, w := range what {
		x.expect("Sign " + w + "? [") // of the one at the terminal; prepared answers stand there at once
		x.send("yes\n")
	}
}

func (x *terminal) exit() int {
	_ = x.cmd.Wait()
	return x.cmd.ProcessState.ExitCode()
}

// A person at the terminal: the passphrase is not shown, a wrong one may be
// repeated, and the word incident ends it all (R-CER-13, R-CER-14).
func TestAtTheTerminal(t *testing.T) {
	h := newHouse(t)
	h.write(t, "answers-w1.yaml", h.answers("witness1"))
	x := h.terminal(t, h.attempt(t, "tty", "answers-w1.yaml")...)
	const prompt = "passphrase of your key: "
	x.expect(prompt)
	x.send("not the passphrase\n")
	x.expect("wrong passphrase")
	x.expect(prompt)
	x.send(phrase("witness1") + "\n")
	// Unlocked once: from here on a yes is enough.
	x.signs("which documents you saw", "the founding statement")
	x.expect("Do you agree with step 2.1?")
	x.send("\n") // Enter means yes
	x.expect("Do you agree with step 5.1?")
	x.send("incident\n")
	x.expect("who calls it")
	x.send("witness1\n")
	x.expect("what happened?")
	x.send("the door \x1b]52;c;eA== stood open\n")
	x.expect("VOID. Nothing of this attempt may be used.")
	if code := x.exit(); code != 11 {
		t.Errorf("exit %d", code)
	}
	if strings.Contains(x.all(), phrase("witness1")) || strings.Contains(x.all(), "not the passphrase") {
		t.Error("a passphrase was shown")
	}
	v, err := record.Read(os.DirFS(h.path("record-tty")))
	if v == nil || len(v.Incidents) != 1 || v.Incidents[0].By != "witness1" || v.Incidents[0].Envelope == nil {
		t.Errorf("%+v, %v", v, err)
	}
	h.noOrphans(t)
}

// Line by line too, an incident is called while the machine works and nobody is
// asked; other lines typed then are no answers (R-CER-13).
func TestIncidentWhileTheMachineWorks(t *testing.T) {
	h := newHouse(t)
	h.write(t, "answers-w1.yaml", strings.Replace(h.answers("witness1"), "passphrases:\n", "passphrases:\n  witness1: witness1.pass\n", 1))
	x := h.terminal(t, append(h.attempt(t, "any", "answers-w1.yaml"), "--plain")...)
	x.expect("Type incident and Enter to call one")
	x.signs("which documents you saw", "the founding statement")
	x.expect("Do you agree with step 2.1?")
	x.send("\n")
	x.expect("] 3.1 ")
	x.send("yes\nincident\n")
	x.expect("who calls it (name)? ")
	x.send("witness1\n")
	x.expect("what happened? ")
	x.send("the token was taken out of sight\n")
	x.expect("VOID. Nothing of this attempt may be used.")
	if code := x.exit(); code != 11 {
		t.Errorf("exit %d", code)
	}
	v, err := record.Read(os.DirFS(h.path("record-any")))
	if v == nil || len(v.Incidents) != 1 || v.Incidents[0].By != "witness1" || v.Incidents[0].Envelope == nil || v.Incidents[0].Reason != "the token was taken out of sight" {
		t.Fatalf("%+v, %v", v, err)
	}
	for _, l := range v.Timeline {
		if _, ok := l.Data.(*record.Incident); ok && !strings.HasPrefix(l.Step, "3.") && !strings.HasPrefix(l.Step, "4.") {
			t.Errorf("called in step %s, where somebody is asked", l.Step)
		}
	}
	h.noOrphans(t)
}

// Ctrl-C asks for the word VOID; anything else goes on.
func TestCtrlCAtTheTerminal(t *testing.T) {
	h := newHouse(t)
	h.write(t, "answers-w1.yaml", strings.Replace(h.answers("witness1"), "passphrases:\n", "passphrases:\n  witness1: witness1.pass\n", 1))
	x := h.terminal(t, h.attempt(t, "int", "answers-w1.yaml")...)
	x.signs("which documents you saw", "the founding statement")
	for range 2 {
		x.expect("Do you agree with step 2.1?")
		x.send("\x03")
		x.expect("Type VOID")
		x.send("\n")
		x.expect("going on")
	}
	x.expect("Do you agree with step 2.1?")
	x.send("yes\n")
	x.expect("Do you agree with step 5.1?")
	x.send("\x03")
	x.expect("Type VOID")
	x.send("VOID\n")
	if code := x.exit(); code != 11 || !strings.Contains(x.all(), "signal: interrupt") {
		t.Errorf("exit %d, %s", code, x.all())
	}
	// The same before ARMED ends the command and nothing else.
	h.write(t, "answers-c.yaml", h.answers("conductor"))
	x = h.terminal(t, h.attempt(t, "early", "answers-c.yaml")...)
	x.expect("Begin step 1.1?")
	x.send("\x03")
	if code := x.exit(); code != 130 {
		t.Errorf("before ARMED: exit %d, %s", code, x.all())
	}
	h.noOrphans(t)
}
