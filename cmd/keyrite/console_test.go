package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/record"
	"keyrite/internal/clitest"
)

// player sits at a terminal for everybody who comes to it: it sees what they see and
// presses their keys. The room has one, to which each person comes when called; who
// signs elsewhere has one of his own.
type player struct {
	t    *testing.T
	cmd  *exec.Cmd
	ptmx *os.File
	read chan struct{} // closed at the end of output

	mu    sync.Mutex // guards what follows
	vt    *clitest.VT
	raw   bytes.Buffer // all that was ever sent to the terminal
	asked string       // the question on the screen that was answered, or ""
	from  int          // how far lines were answered
	// reply may give another answer than everybody's; keys are sent as they are.
	reply func(step, question string) (keys string, ok bool)
	step  string
	seen  []string // questions, in order
	heard string   // the full screens that told words, one after the other
}

// play starts a program at a terminal of that size. With no size it is played
// line by line.
func (h *house) play(t *testing.T, cols, rows int, env []string, reply func(step, question string) (string, bool), args ...string) *player {
	t.Helper()
	return h.playCommand(t, h.command(args...), cols, rows, env, reply)
}

func (h *house) playCommand(t *testing.T, cmd *exec.Cmd, cols, rows int, env []string, reply func(step, question string) (string, bool)) *player {
	t.Helper()
	ptmx, tty, err := clitest.OpenPTY(cols, rows)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	x := &player{t: t, cmd: cmd, ptmx: ptmx, read: make(chan struct{}), vt: clitest.NewVT(max(cols, 80), max(rows, 24)), reply: reply}
	x.cmd.Env = append(x.cmd.Env, append([]string{"TERM=xterm", "LANG=C.UTF-8"}, env...)...)
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	x.vt.Frame = x.frame
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.cmd.Process.Kill(); _ = ptmx.Close() })
	go x.follow()
	return x
}

func (x *player) follow() {
	defer close(x.read)
	buf := make([]byte, 4096)
	for {
		n, err := x.ptmx.Read(buf)
		x.mu.Lock()
		x.raw.Write(buf[:n])
		_, _ = x.vt.Write(buf[:n])
		if !x.vt.Alt {
			x.lines()
		}
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

var (
	titleRE = regexp.MustCompile(`^ (\d+\.\d+)  `)
	stepRE  = regexp.MustCompile(`\[\d+/\d+\] (\d+\.\d+) `)
	// A question of the line mode is the end of what was printed.
	lineRE  = regexp.MustCompile(`(?:^|\n)([^\n]*(?:\| incident\] |passphrase of [^\n]*: |\.\.\.\)\? |\(name\)\? |what happened\? ))$`)
	colorRE = regexp.MustCompile("\x1b\\[[0-9;]*m")
)

// frame answers the question of a full screen, once. Between two questions there
// is always a frame without one. It needs mu.
func (x *player) frame() {
	away := false
	if text := strings.Join(strings.Fields(x.vt.Text()), " "); strings.Contains(text, ": signs elsewhere: ") {
		x.heard += text
		away = true
	}
	question, open := "", false
	for i := range strings.Count(x.vt.Text(), "\n") {
		row := x.vt.Row(i)
		if m := titleRE.FindStringSubmatch(row); m != nil {
			x.step = m[1]
		}
		if row == " >" || strings.HasPrefix(row, " > ") {
			open = true
			break
		}
		question = strings.TrimSpace(row)
	}
	end := strings.Contains(x.vt.Text(), "Enter = leave this screen")
	if end {
		question, open = "leave", true
	}
	if open && away {
		question = "signs elsewhere" // it takes several rows
	}
	if !open {
		x.asked = ""
	} else if x.asked != question {
		x.asked = question
		x.answer(question)
	}
}

// lines answers the question of the line mode. It needs mu.
func (x *player) lines() {
	text := strings.ReplaceAll(colorRE.ReplaceAllString(x.raw.String()[x.from:], ""), "\r", "")
	if m := stepRE.FindAllStringSubmatch(text, -1); m != nil {
		x.step = m[len(m)-1][1]
	}
	if m := lineRE.FindStringSubmatch(text); m != nil {
		x.from = x.raw.Len()
		x.answer(strings.TrimSpace(m[1]))
	}
}

func (x *player) answer(question string) {
	x.seen = append(x.seen, x.step+" "+question)
	keys := "\r"
	name, _, _ := strings.Cut(strings.TrimSuffix(question, ":"), ":")
	switch {
	case strings.HasPrefix(question, "passphrase of "): // of a key file, on his own machine
		keys = phrase(strings.TrimSuffix(filepath.Base(name), ".key")) + "\r"
	case strings.Contains(question, "signs elsewhere"):
		keys = "" // whoever brings the answer does it
	case strings.Contains(question, "passphrase"):
		keys = phrase(name) + "\r"
	case strings.Contains(strings.ToLower(question), "which identity document"):
		keys = "passport\r"
	}
	if x.reply != nil {
		if k, ok := x.reply(x.step, question); ok {
			keys = k
		}
	}
	_, _ = io.WriteString(x.ptmx, keys) // the exit code tells
}

// maxPlay is how long a ceremony may take before a test gives up.
const maxPlay = 4 * time.Minute

func (x *player) exit() int {
	x.t.Helper()
	late := time.AfterFunc(maxPlay, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.t.Errorf("stuck after %q at\n%s", x.seen, x.vt.Text())
		_ = x.cmd.Process.Kill()
	})
	defer late.Stop()
	_ = x.cmd.Wait()
	select {
	case <-x.read:
	case <-time.After(5 * time.Second): // a child of it holds the terminal
	}
	return x.cmd.ProcessState.ExitCode()
}

func (x *player) output() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.raw.String()
}

// noPassphrase searches the terminal for any person's passphrase.
func (x *player) noPassphrase(h *house) {
	x.t.Helper()
	out := x.output()
	for _, n := range h.names {
		if strings.Contains(out, phrase(n)) || strings.Contains(out, "canary") {
			x.t.Errorf("the passphrase of %s was shown", n)
		}
	}
}

// fromAnswers drops the answers file of an attempt: everything is typed.
func withoutAnswers(args []string) []string {
	for i, a := range args {
		if a == "--answers" {
			return append(append([]string{}, args[:i]...), args[i+2:]...)
		}
	}
	return args
}

// A whole rehearsal is played by keys, on the full screen at three sizes' worth
// of layout and line by line; nothing but our own sequences is sent, and the
// record that comes of it verifies (R-CER-10, R-CER-13).
func TestRehearsalByKeys(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		label      string
		cols, rows int
		env, args  []string
	}{
		{label: "full", cols: 120, rows: 40},
		{label: "plain", cols: 120, rows: 40, args: []string{"--plain"}},
	} {
		t.Run(c.label, func(t *testing.T) {
			args := append(withoutAnswers(h.attempt(t, c.label, "answers.yaml")), c.args...)
			x := h.play(t, c.cols, c.rows, c.env, nil, args...)
			if code := x.exit(); code != 0 {
				t.Fatalf("exit %d after %q\n%s", code, x.seen, x.output())
			}
			x.noPassphrase(h)
			if len(x.vt.Strange) > 0 || x.vt.Alt || !x.vt.Cursor {
				t.Errorf("strange %q, alternate screen %v, cursor %v", x.vt.Strange, x.vt.Alt, x.vt.Cursor)
			}
			if full := strings.Contains(x.output(), "\x1b[?1049h"); full != (c.label == "full") {
				t.Errorf("full screen: %v", full)
			}
			if c.label == "plain" && strings.ContainsAny(x.output(), "\x1b\x07\x08") {
				t.Error("lines with escape sequences")
			}
			if !strings.Contains(x.output(), "CLOSED: record") {
				t.Errorf("%s", x.output())
			}
			v, err := record.VerifyOwn(os.DirFS(h.path("record-" + c.label)))
			if err != nil || v.State != "CLOSED" {
				t.Errorf("%v", err)
			}
			if code, out, errs := h.run(t, "keyrite-verify", "record", "record-"+c.label, "--anchor", "record-"+c.label+"/outputs/anchors.json"); code != 0 {
				t.Errorf("verify: exit %d, %s%s", code, out, errs)
			}
		})
	}
	h.noOrphans(t)
}

// A terminal that cannot show the full screen gets lines, and is told why.
func TestTerminalsThatGetLines(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		name       string
		cols, rows int
		env        string
		want       string
	}{
		{"small", 79, 24, "TERM=xterm", "79x24"},
		{"serial", 0, 0, "TERM=vt220", "0x0"},
		{"dumb", 120, 40, "TERM=dumb", `TERM is "dumb"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			stop := func(string, string) (string, bool) { return "\x03", true }
			x := h.play(t, c.cols, c.rows, []string{c.env}, stop, withoutAnswers(h.attempt(t, c.name, "answers.yaml"))...)
			if code := x.exit(); code != 130 {
				t.Errorf("exit %d", code)
			}
			if out := x.output(); !strings.Contains(out, "no full screen: ") || !strings.Contains(out, c.want) || strings.Contains(out, "\x1b[?") {
				t.Errorf("%s", out)
			}
		})
	}
}
