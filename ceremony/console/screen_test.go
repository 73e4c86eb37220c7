package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/term"

	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/clitest"
)

// stage is a screen on a pseudo-terminal, and what a person sees of it.
type stage struct {
	t           *testing.T
	screen      *Screen
	ptmx        *os.File
	interrupted chan struct{}
	called      chan ceremony.Call

	mu  sync.Mutex // guards vt and raw
	vt  *clitest.VT
	raw bytes.Buffer
}

func newStage(t *testing.T, cols, rows int) *stage {
	t.Helper()
	t.Setenv("LC_ALL", "C.UTF-8")
	ptmx, tty, err := clitest.OpenPTY(cols, rows)
	if err != nil {
		t.Fatal(err)
	}
	x := &stage{t: t, ptmx: ptmx, vt: clitest.NewVT(cols, rows), interrupted: make(chan struct{}, 8), called: make(chan ceremony.Call, 8)}
	go x.read()
	if x.screen, err = newScreen(tty, func() { x.interrupted <- struct{}{} }, func(c ceremony.Call) { x.called <- c }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.screen.Close()
		_ = ptmx.Close()
		_ = tty.Close()
	})
	return x
}

func (x *stage) read() {
	buf := make([]byte, 4096)
	for {
		n, err := x.ptmx.Read(buf)
		x.mu.Lock()
		x.raw.Write(buf[:n])
		_, _ = x.vt.Write(buf[:n])
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (x *stage) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.vt.Text()
}

func (x *stage) see(want string) {
	x.t.Helper()
	if !clitest.Await(10*time.Second, func() bool { return strings.Contains(x.text(), want) }) {
		x.t.Fatalf("%q never appeared:\n%s", want, x.text())
	}
}

func (x *stage) press(keys string) {
	x.t.Helper()
	if _, err := io.WriteString(x.ptmx, keys); err != nil {
		x.t.Fatal(err)
	}
}

type answered struct {
	text string
	call *ceremony.Call
	err  error
}

func (x *stage) ask(ctx context.Context, who, text string, want ...string) chan answered {
	out := make(chan answered, 1)
	go func() {
		a, c, err := x.screen.Ask(ctx, ceremony.Prompt{Who: who, Role: "witness", Text: text, Want: want})
		out <- answered{a, c, err}
	}()
	x.see(text)
	return out
}

func (x *stage) secret(ctx context.Context, who string) chan answered {
	out := make(chan answered, 1)
	go func() {
		p, err := x.screen.Secret(ctx, who)
		out <- answered{text: string(p.Bytes()), err: err}
	}()
	x.see("type the passphrase")
	return out
}

// Every way to answer, and what is thrown away.
func TestAnswers(t *testing.T) {
	x, ctx := newStage(t, 80, 24), t.Context()
	for _, c := range []struct{ keys, want string }{
		{"\r", "yes"},
		{" no \r", "no"},
		{"maybf\x7fe\r", "maybe"},
		{"wrong\x15yes\n", "yes"},
		{"\x1b[A\x1b[B\x1bOPz\xc3\xa4h\r", "zäh"},
	} {
		got := x.ask(ctx, "witness1", "Agree? "+c.want, "yes")
		x.press(c.keys)
		if a := <-got; a.text != c.want || a.call != nil || a.err != nil {
			t.Errorf("%q: %+v", c.keys, a)
		}
	}
	docs := make(chan map[string]string, 1)
	go func() {
		d, _ := x.screen.Documents(ctx, []string{"master1", "master2"})
		docs <- d
	}()
	x.see("did master1 show")
	x.press("\r")
	x.press("passport\r")
	x.see("did master2 show")
	x.press("identity card\r")
	if d := <-docs; d["master1"] != "passport" || d["master2"] != "identity card" {
		t.Errorf("%v", d)
	}
	late, cancel := context.WithCancel(ctx)
	got := x.ask(late, "witness1", "Too late?", "yes")
	cancel()
	if a := <-got; !errors.Is(a.err, context.Canceled) {
		t.Errorf("%+v", a)
	}
	x.press("\x03")
	<-x.interrupted
}

// A passphrase is never shown, wherever it is typed by mistake (R-CER-13).
func TestPassphraseIsNeverShown(t *testing.T) {
	const pass = "canary Pässwort! 5f1d"
	x, ctx := newStage(t, 80, 24), t.Context()
	got := x.secret(ctx, "master1")
	x.press("wrong\x15" + pass[:4] + "x\x7f" + pass[4:] + "\r")
	if a := <-got; a.text != pass || a.err != nil {
		t.Errorf("%q, %v", a.text, a.err)
	}
	// Typed when nobody is asked, and before a question of another kind.
	x.press("canary P")
	if !clitest.Await(time.Second, func() bool { x.screen.mu.Lock(); defer x.screen.mu.Unlock(); return !x.screen.stray.IsZero() }) {
		t.Fatal("the keys did not come")
	}
	early := x.ask(ctx, "witness1", "Typed too early?", "yes")
	x.press("ässwort! 5f1d\r")
	x.press("\r")
	if a := <-early; a.text != "yes" || a.call != nil {
		t.Errorf("%+v", a)
	}
	// The passphrase is asked for no longer, and something else is.
	timeout, cancel := context.WithCancel(ctx)
	got = x.secret(timeout, "master1")
	x.press("canary P")
	if !clitest.Await(time.Second, func() bool {
		x.screen.mu.Lock()
		defer x.screen.mu.Unlock()
		q := x.screen.m.q
		return q != nil && len(q.secret.Bytes()) == 8
	}) {
		t.Fatal("the keys did not come")
	}
	cancel()
	if a := <-got; a.err == nil || a.text != "" {
		t.Errorf("%+v", a)
	}
	late := x.ask(ctx, "witness1", "Typed too late?", "yes")
	x.press("ässwort! 5f1d\r")
	x.press("\r")
	if a := <-late; a.text != "yes" {
		t.Errorf("%+v", a)
	}
	// An incident that somebody began to call must not take it either.
	x.press("!")
	x.see("Who calls it?")
	got = x.secret(ctx, "master1")
	x.press(pass + "\r")
	if a := <-got; a.text != pass {
		t.Errorf("%+v", a)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, part := range []string{"canary", "sswort", "5f1d"} {
		if bytes.Contains(x.raw.Bytes(), []byte(part)) {
			t.Errorf("%q was shown", part)
		}
	}
}

// An incident by key or by word, at a question or while the machine works.
func TestCallAnIncident(t *testing.T) {
	x, ctx := newStage(t, 80, 24), t.Context()
	for _, keys := range []string{"!", "incident\r"} {
		got := x.ask(ctx, "witness1", "Agree? "+keys[:1], "yes")
		x.press("!")
		x.see("Who calls it?")
		x.press("\r") // a wrong key: back to the question
		x.see("Agree? " + keys[:1])
		x.press(keys)
		x.see("Who calls it?")
		x.press("witness2\r")
		x.see("What happened?")
		x.press("the \x1b]52;c;eA==\x07door\r")
		if a := <-got; a.call == nil || a.call.By != "witness2" || a.call.Reason != "the door" {
			t.Errorf("%+v", a)
		}
	}
	x.screen.View(ceremony.View{State: "RUNNING"})
	x.see("RUNNING")
	for _, keys := range []string{"!", "\x18"} { // while the machine works
		x.press(keys + "master1\rsmoke\r")
		if c := <-x.called; c.By != "master1" || c.Reason != "smoke" {
			t.Errorf("%+v", c)
		}
	}
	x.see("master1 calls an incident: smoke")
	got := x.secret(ctx, "master2") // while a passphrase is typed
	x.press("half of it\x18master2\rfire\r")
	if c := <-x.called; c.By != "master2" || c.Reason != "fire" {
		t.Errorf("%+v", c)
	}
	x.press("whole\r")
	if a := <-got; a.text != "whole" {
		t.Errorf("%+v", a)
	}
}

// Names, titles and reasons from outside move no cursor and name no clipboard.
func TestHostileText(t *testing.T) {
	x := newStage(t, 80, 24)
	hostile := "a\x1b]52;c;eA==\x07\x1b[2J\u202eb\r\nc\u009b31m\u200b" + strings.Repeat("z\u0301\u0301", 30) + "\xff" + strings.Repeat("漢", 300)
	x.screen.View(ceremony.View{Title: hostile, World: "rehearsal:abcdefgh", State: "RUNNING", Root: "xx"})
	x.screen.Show("run", 1, 2, &script.Step{ID: hostile, Do: hostile, Title: hostile, Say: hostile, Safe: hostile, Limit: time.Hour})
	x.screen.Count(ceremony.Count{What: hostile, Done: []string{hostile, hostile}, Need: 3, Of: 5})
	x.screen.Say("bad", hostile)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, _, err := x.screen.Ask(ctx, ceremony.Prompt{Who: hostile, Role: hostile, Text: hostile + "?", Want: []string{hostile}})
		got <- err
	}()
	x.see(`\x1b]52;c;eA==\x07\x1b[2J\u202eb\x0d\nc\x9b31m\u200b`)
	cancel()
	<-got
	x.screen.Close()
	left := clitest.Await(10*time.Second, func() bool { x.mu.Lock(); defer x.mu.Unlock(); return !x.vt.Alt && x.vt.Cursor })
	x.mu.Lock()
	defer x.mu.Unlock()
	if !left || len(x.vt.Strange) > 0 {
		t.Errorf("strange: %q, alternate screen %v, cursor %v", x.vt.Strange, x.vt.Alt, x.vt.Cursor)
	}
}

// The screen follows the terminal; what is too small is said, and still works.
func TestResize(t *testing.T) {
	x := newStage(t, 80, 24)
	got := x.ask(t.Context(), "witness1", "Agree to go on?", "yes")
	for _, size := range [][2]int{{200, 60}, {40, 10}, {20, 4}, {80, 24}} {
		x.mu.Lock()
		x.vt.Resize(size[0], size[1])
		err := clitest.Resize(x.ptmx, size[0], size[1])
		x.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		x.screen.change(x.screen.resized) // the signal goes to the foreground group, which a test is not
		if size[0] < 80 {
			x.see("TOO SMALL")
		} else {
			x.see("Agree to go on?")
		}
	}
	x.press("\r")
	if a := <-got; a.text != "yes" {
		t.Errorf("%+v", a)
	}
	ptmx, tty, err := clitest.OpenPTY(79, 24)
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	defer tty.Close()
	if _, err := newScreen(tty, nil, nil); err == nil || !strings.Contains(err.Error(), "79x24") {
		t.Errorf("79 columns: %v", err)
	}
}

// A terminal that goes away ends every question.
func TestTerminalGone(t *testing.T) {
	x := newStage(t, 80, 24)
	got := x.ask(t.Context(), "witness1", "Agree?", "yes")
	_ = x.ptmx.Close()
	if a := <-got; !errors.Is(a.err, ErrClosed) {
		t.Errorf("%+v", a)
	}
}

// helper starts this test binary in another role at a terminal of its own.
func helper(t *testing.T, role string) (*exec.Cmd, *os.File, *os.File) {
	t.Helper()
	ptmx, tty, err := clitest.OpenPTY(80, 24)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ptmx.Close(); _ = tty.Close() })
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{"KEYRITE_CONSOLE_HELPER=" + role, "TERM=xterm", "LANG=C.UTF-8"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return cmd, ptmx, tty
}

// After a panic anywhere the terminal is as it was: alternate screen off, cursor
// on, modes restored, and the panic still ends the process.
func TestTerminalAfterPanic(t *testing.T) {
	for _, where := range []string{"main", "reader"} {
		cmd, ptmx, tty := helper(t, "panic:"+where)
		before, err := term.GetState(int(tty.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		vt := clitest.NewVT(80, 24)
		seen := make(chan struct{})
		vt.Frame = sync.OnceFunc(func() { close(seen) })
		read := make(chan struct{})
		go func() { defer close(read); _, _ = io.Copy(vt, ptmx) }()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-seen
		if where == "reader" {
			_, _ = io.WriteString(ptmx, "\x03")
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%s: %v", where, err)
		}
		after, err := term.GetState(int(tty.Fd()))
		if err != nil || fmt.Sprint(*after) != fmt.Sprint(*before) {
			t.Errorf("%s: the modes are %v, not %v (%v)", where, after, before, err)
		}
		_ = tty.Close()
		<-read
		if vt.Alt || !vt.Cursor {
			t.Errorf("%s: alternate screen %v, cursor %v", where, vt.Alt, vt.Cursor)
		}
	}
}

// What a real terminal (tmux) shows of each scene is what the golden files say.
func TestInTmux(t *testing.T) {
	dir := t.TempDir()
	conf, sock := filepath.Join(dir, "tmux.conf"), filepath.Join(dir, "sock")
	if err := os.WriteFile(conf, []byte("set -g status off\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tmux := func(args ...string) string {
		cmd := exec.Command("tmux", append([]string{"-u", "-S", sock, "-f", conf}, args...)...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	tmux("new-session", "-d", "-s", "keep", "cat")
	defer tmux("kill-server")
	for _, size := range []string{"80x24", "120x40", "200x60"} {
		w, h, _ := strings.Cut(size, "x")
		for _, name := range []string{"passphrase", "void", "works"} {
			want, err := os.ReadFile(filepath.Join("testdata", name+"-"+size+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			tmux("new-session", "-d", "-s", name+size, "-x", w, "-y", h, "KEYRITE_CONSOLE_HELPER=scene:"+name+" exec "+os.Args[0])
			got := ""
			clitest.Await(10*time.Second, func() bool {
				got = tmux("capture-pane", "-p", "-t", name+size)
				return trimmed(got) == trimmed(string(want))
			})
			if trimmed(got) != trimmed(string(want)) {
				t.Errorf("%s at %s:\n%s", name, size, got)
			}
		}
	}
}

// trimmed drops the blank ends of lines, which tmux may keep where they are inverse.
func trimmed(text string) string {
	var b strings.Builder
	for l := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString(strings.TrimRight(l, " ") + "\n")
	}
	return b.String()
}
