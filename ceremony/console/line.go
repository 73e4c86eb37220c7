// Package console is what the room sees and answers: Line is a plain terminal,
// Answers a rehearsal's prepared answers, with Line for whatever they lack.
//
// Nothing secret is ever shown. Names and reasons from outside are escaped.
package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/cli"
	"keyrite/internal/redact"
)

// ErrNoTerminal says that a question had nobody to answer it.
var ErrNoTerminal = fault.New(fault.Usage, "there is no terminal to ask at")

// Line is a console of plain lines, also for serial lines and screen readers.
type Line struct {
	out   io.Writer
	color bool
	tty   *os.File
	lines chan string
	view  ceremony.View
}

// NewLine shows on out and asks at the controlling terminal, if there is one.
func NewLine(out io.Writer) *Line {
	l := &Line{out: out}
	if f, ok := out.(*os.File); ok {
		l.color = term.IsTerminal(int(f.Fd()))
	}
	return l
}

func (l *Line) paint(code, text string) string {
	if !l.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// View is shown where a step opens.
func (l *Line) View(v ceremony.View) { l.view = v }

// Count is one line, once somebody has done his part.
func (l *Line) Count(c ceremony.Count) {
	if len(c.Done) > 0 {
		fmt.Fprintf(l.out, "    %s: %d of %d (%s)\n", c.What, len(c.Done), c.Need, cli.Escape(strings.Join(c.Done, " ")))
	}
}

// Show opens a step.
func (l *Line) Show(phase string, n, of int, st *script.Step) {
	fmt.Fprintf(l.out, "\n%s %s\n", l.paint("1", fmt.Sprintf("[%d/%d] %s", n, of, st.ID)), l.paint("1", cli.Escape(st.Title)))
	fmt.Fprintf(l.out, "    %s · time limit %s\n", phase, st.Limit)
	if st.Say != "" {
		fmt.Fprintf(l.out, "    read aloud: “%s”\n", cli.Escape(st.Say))
	}
}

// Say tells the room something.
func (l *Line) Say(level, text string) {
	mark, code := "   ", "0"
	switch level {
	case "good":
		mark, code = " ✓ ", "32"
	case "bad":
		mark, code = " ✗ ", "31"
	}
	fmt.Fprintln(l.out, l.paint(code, mark+" "+cli.Escape(text)))
}

// open opens the terminal and reads it line by line for the whole ceremony, so
// that a question taken back leaves no reader behind.
func (l *Line) open() error {
	if l.tty != nil {
		return nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return ErrNoTerminal
	}
	l.tty, l.lines = tty, make(chan string)
	go func() {
		defer close(l.lines)
		sc := bufio.NewScanner(tty)
		for sc.Scan() {
			l.lines <- sc.Text()
		}
	}()
	return nil
}

func (l *Line) readLine(ctx context.Context) (string, error) {
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case s, ok := <-l.lines:
		if !ok {
			return "", fault.New(fault.Interrupted, "the terminal was closed")
		}
		return strings.TrimSpace(s), nil
	}
}

// Ask waits for a line. The word incident opens an incident by anybody.
func (l *Line) Ask(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
	if err := l.open(); err != nil {
		return "", nil, err
	}
	who := p.Who
	if p.Role != "" {
		who += " (" + p.Role + ")"
	}
	fmt.Fprintf(l.tty, "%s: %s [%s | incident] ", l.paint("33", cli.Escape(who)), cli.Escape(p.Text), strings.Join(p.Want, " | "))
	answer, err := l.readLine(ctx)
	if err != nil {
		return "", nil, err
	}
	if answer != "incident" {
		if answer == "" {
			answer = p.Want[0]
		}
		return answer, nil, nil
	}
	call := &ceremony.Call{}
	for _, q := range []struct {
		text string
		into *string
	}{{"who calls it (name)? ", &call.By}, {"what happened? ", &call.Reason}} {
		fmt.Fprint(l.tty, q.text)
		if *q.into, err = l.readLine(ctx); err != nil {
			return "", nil, err
		}
	}
	return "", call, nil
}

// Secret asks for a passphrase without showing it.
func (l *Line) Secret(ctx context.Context, who string) (*redact.Secret, error) {
	if err := l.open(); err != nil {
		return nil, err
	}
	fd := int(l.tty.Fd())
	old, err := term.GetState(fd)
	if err == nil {
		err = echo(fd, false)
	}
	if err != nil {
		return nil, errors.Join(ErrNoTerminal, err)
	}
	defer term.Restore(fd, old) //nolint:errcheck // nothing can be done about a terminal that is gone
	fmt.Fprintf(l.tty, "%s: passphrase of your key: ", l.paint("33", cli.Escape(who)))
	s, err := l.readLine(ctx)
	fmt.Fprintln(l.tty)
	if err != nil {
		return nil, err
	}
	return redact.New([]byte(s)), nil
}

// Elsewhere asks nobody: at a terminal everybody may cosign here.
func (l *Line) Elsewhere(string) bool { return false }

// Documents asks for the kind of identity document of each person.
func (l *Line) Documents(ctx context.Context, names []string) (map[string]string, error) {
	if err := l.open(); err != nil {
		return nil, err
	}
	seen := map[string]string{}
	for _, n := range names {
		fmt.Fprintf(l.tty, "which identity document did %s show (passport, identity card…)? ", cli.Escape(n))
		s, err := l.readLine(ctx)
		if err != nil {
			return nil, err
		}
		seen[n] = s
	}
	return seen, nil
}
