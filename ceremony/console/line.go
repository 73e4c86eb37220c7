package console

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/qr"
	"keyrite/ceremony/script"
	"keyrite/internal/redact"
)

// noTerminal is ceremony.ErrNoTerminal with what to do about it.
func noTerminal() error {
	return fault.Hint(ceremony.ErrNoTerminal, "run it at a terminal; a rehearsal can have its answers prepared (--answers)")
}

// Line is a console of plain lines, for serial lines and screen readers: no line
// is ever changed once it is written, and nothing moves. The terminal echoes only
// while somebody is asked for an answer. The word incident calls one at any time,
// asked or not. Close gives the terminal back as it was.
type Line struct {
	out   io.Writer
	look  look
	color bool
	call  func(ceremony.Call) // takes an incident; nil: only answers carry one
	tty   *os.File
	old   *term.State
	// openTTY finds the terminal: the controlling one, but in tests.
	openTTY func() (*os.File, error)
	lines   chan string
	turn    chan struct{} // held by who asks at the terminal
	stop    chan struct{} // closed by Close
	view    ceremony.View
	count   string

	mu      sync.Mutex // guards what follows
	asked   bool       // somebody is being asked; a line that comes otherwise is thrown away
	calling bool       // somebody calls an incident
}

// NewLine shows on out and asks at the controlling terminal, if there is one.
// Incidents that no answer can carry go to call, which may be nil.
func NewLine(out io.Writer, call func(ceremony.Call)) *Line {
	l := &Line{out: out, look: lookOf(), call: call, turn: make(chan struct{}, 1), stop: make(chan struct{}), openTTY: openTTY}
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		l.look.ascii = false // a log is UTF-8 whatever the locale says
		return l
	}
	l.color = !l.look.plain && os.Getenv("TERM") != "dumb"
	return l
}

func (l *Line) paint(code, text string) string {
	if !l.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (l *Line) say(code, format string, args ...any) {
	fmt.Fprintln(l.out, l.paint(code, l.look.clean(fmt.Sprintf(format, args...))))
}

// View is shown where a step opens.
func (l *Line) View(v ceremony.View) { l.view = v }

// Count is one line, once somebody has done his part.
func (l *Line) Count(c ceremony.Count) {
	text := fmt.Sprintf("    %s: %d of %d (%s)", c.What, len(c.Done), c.Need, strings.Join(c.Done, " "))
	if len(c.Done) > 0 && text != l.count {
		l.say("0", "%s", text)
	}
	l.count = text
}

// Show opens a step.
func (l *Line) Show(phase string, n, of int, st *script.Step) {
	fmt.Fprintln(l.out)
	l.say("1", "[%d/%d] %s %s", n, of, st.ID, st.Title)
	l.say("0", "    %s · %s · time limit %s · ends %s UTC", phase, l.view.State, st.Limit, time.Now().Add(st.Limit).UTC().Format(time.TimeOnly))
	l.say("0", "    running hash %s · entry %d", shortHash(l.view.Root), l.view.Entries)
	if st.Say != "" {
		l.say("1", "    read aloud: “%s”", st.Say)
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
	l.say(code, "%s %s", mark, text)
}

// Listen opens the terminal before anybody is asked, so that an incident can be
// called while the machine works. Without a terminal nobody can.
func (l *Line) Listen() {
	if l.open() == nil {
		l.say("0", "Type %s and Enter to call one, at any time, asked or not.", incidentWord)
	}
}

// open opens the terminal and reads it line by line for the whole ceremony, so
// that a question taken back leaves no reader behind.
func (l *Line) open() error {
	if l.tty != nil {
		return nil
	}
	tty, err := l.openTTY()
	if err != nil {
		return err
	}
	if l.old, err = term.GetState(int(tty.Fd())); err == nil {
		err = echo(int(tty.Fd()), false, false)
	}
	if err != nil {
		_ = tty.Close()
		return noTerminal()
	}
	l.tty, l.lines = tty, make(chan string, 1)
	go l.read(tty)
	return nil
}

func (l *Line) read(tty *os.File) {
	defer close(l.lines)
	sc := bufio.NewScanner(tty)
	for sc.Scan() {
		l.mu.Lock()
		switch {
		case l.asked:
			l.asked = false
			l.lines <- sc.Text()
		case isIncident(sc.Text()) && l.call != nil && !l.calling:
			l.calling = true
			go l.unasked()
		}
		l.mu.Unlock()
	}
}

func isIncident(text string) bool {
	text = strings.TrimSpace(text)
	return text == incidentWord || text == incidentKey
}

// unasked takes an incident that is called while nobody is asked.
func (l *Line) unasked() {
	call, err := l.dialogue(context.Background())
	l.mu.Lock()
	l.calling = false
	l.mu.Unlock()
	if err == nil && call != nil {
		l.call(*call)
	}
}

// Close gives the terminal back. What was typed and not read is thrown away. It
// may be called twice.
func (l *Line) Close() {
	if l.tty == nil {
		return
	}
	select {
	case <-l.stop:
		return
	default:
		close(l.stop)
	}
	l.turn <- struct{}{} // a dialogue under way ends by stop
	flush(l.tty)
	_ = term.Restore(int(l.tty.Fd()), l.old) // nothing can be done about a terminal that is gone
}

// take waits for the terminal, and returns what gives it back.
func (l *Line) take(ctx context.Context) (func(), error) {
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn }, nil
	default:
		l.say("0", "(a question waits: say who calls the incident and what happened, or press Enter to go back)")
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.stop:
		return nil, ErrClosed
	case l.turn <- struct{}{}:
		return func() { <-l.turn }, nil
	}
}

// ask prints a question and waits for one line. What was typed before is thrown
// away, for nobody had asked. Only an answer is echoed.
func (l *Line) ask(ctx context.Context, question string, shown bool) (string, error) {
	if err := l.open(); err != nil {
		return "", err
	}
	give, err := l.take(ctx)
	if err != nil {
		return "", err
	}
	defer give()
	return l.put(ctx, question, shown)
}

// put is ask for who has the terminal.
func (l *Line) put(ctx context.Context, question string, shown bool) (string, error) {
	fd := int(l.tty.Fd())
	if err := echo(fd, shown, true); err != nil {
		return "", ErrClosed
	}
	l.expect(true)
	fmt.Fprint(l.tty, question)
	defer func() {
		l.expect(false)
		_ = echo(fd, false, true) // a terminal that is gone echoes nothing
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(l.tty)
		return "", ctx.Err()
	case <-l.stop:
		return "", ErrClosed
	case s, ok := <-l.lines:
		if !ok {
			return "", ErrClosed
		}
		if !shown {
			fmt.Fprintln(l.tty)
		}
		return s, nil
	}
}

// expect says whether the next line is an answer. One that came for a question
// that was taken back is thrown away.
func (l *Line) expect(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.lines:
	default:
	}
	l.asked = on
}

// dialogue asks who calls an incident and why; nothing and Enter goes back, and
// the call is nil. No question comes between.
func (l *Line) dialogue(ctx context.Context) (*ceremony.Call, error) {
	give, err := l.take(ctx)
	if err != nil {
		return nil, err
	}
	defer give()
	call := &ceremony.Call{}
	for _, q := range []struct {
		text string
		into *string
	}{{"SOMEBODY CALLS AN INCIDENT (Enter alone goes back)\nwho calls it (name)? ", &call.By}, {"what happened? ", &call.Reason}} {
		s, err := l.put(ctx, q.text, true)
		if err != nil {
			return nil, err
		}
		if *q.into = strings.TrimSpace(s); *q.into == "" {
			l.say("0", "no incident was called")
			return nil, nil
		}
	}
	return call, nil
}

// Ask waits for a line. The word incident opens an incident by anybody.
func (l *Line) Ask(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
	who := p.Who
	if p.Role != "" {
		who += " (" + p.Role + ")"
	}
	for {
		answer, err := l.ask(ctx, fmt.Sprintf("%s: %s [%s | %s] ", l.paint("33", l.look.clean(who)), l.look.clean(p.Text), strings.Join(p.Want, " | "), incidentWord), true)
		if err != nil {
			return "", nil, err
		}
		if !isIncident(answer) {
			if answer = strings.TrimSpace(answer); answer == "" {
				answer = p.Want[0]
			}
			return answer, nil, nil
		}
		if call, err := l.dialogue(ctx); err != nil || call != nil {
			return "", call, err
		}
	}
}

// asks asks for what no incident can travel with: one that is called instead of an
// answer goes to call, which takes the question back.
func (l *Line) asks(ctx context.Context, question string, shown bool) (string, error) {
	for {
		s, err := l.ask(ctx, question, shown)
		if err != nil || !isIncident(s) || l.call == nil {
			return s, err
		}
		call, err := l.dialogue(ctx)
		if err != nil {
			return "", err
		}
		if call != nil {
			l.call(*call)
		}
	}
}

// Secret asks for a passphrase without showing it. The word incident is none.
func (l *Line) Secret(ctx context.Context, who string) (*redact.Secret, error) {
	s, err := l.asks(ctx, l.paint("33", l.look.clean(who))+": passphrase of your key: ", false)
	if err != nil {
		return nil, err
	}
	return redact.New([]byte(s)), nil
}

// Page is written as it is; whoever reads it scrolls.
func (l *Line) Page(_ context.Context, title, code string, rows []string) error {
	fmt.Fprintln(l.out)
	l.say("1", "    %s", title)
	if code != "" {
		drawn, err := qr.Rows(code, l.look.ascii)
		if err != nil {
			return err
		}
		for _, r := range drawn {
			fmt.Fprintln(l.out, l.paint("97;40", r))
		}
	}
	for _, r := range rows {
		l.say("0", "    %s", r)
	}
	fmt.Fprintln(l.out)
	return nil
}

// Elsewhere asks nobody: at a terminal everybody may cosign here.
func (l *Line) Elsewhere(string) bool { return false }

// Documents asks for the kind of identity document of each person.
func (l *Line) Documents(ctx context.Context, names []string) (map[string]string, error) {
	seen := map[string]string{}
	for _, n := range names {
		for seen[n] == "" {
			s, err := l.asks(ctx, "which identity document did "+l.look.clean(n)+" show (passport, identity card...)? ", true)
			if err != nil {
				return nil, err
			}
			seen[n] = strings.TrimSpace(s)
		}
	}
	return seen, nil
}
