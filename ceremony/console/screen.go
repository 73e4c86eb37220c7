package console

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/redact"
	"keyrite/internal/secmem"
)

// ErrClosed says that the terminal went away.
var ErrClosed = fault.New(fault.Interrupted, "the terminal was closed")

// Screen is the full-screen console. It reads every key itself: what is typed
// while nobody is asked is thrown away, and a passphrase is kept in one locked
// page and never shown. Close gives the terminal back as it was.
type Screen struct {
	tty       *os.File
	old       *term.State
	look      look
	now       func() time.Time
	interrupt func()
	call      func(ceremony.Call)
	gone      chan struct{} // closed when the terminal is gone
	stop      chan struct{} // closed by Close

	mu     sync.Mutex // guards what follows, and every write to the terminal
	m      model
	w, h   int
	shown  []string
	closed bool
	stray  time.Time     // when a key was last thrown away
	leave  chan struct{} // closed by Enter once all is over
}

// OpenScreen takes the controlling terminal. interrupt is called for Ctrl-C, which
// is a key like any other here, and call for an incident that is called while
// nobody is asked for an answer. The error says why lines must do.
func OpenScreen(interrupt func(), call func(ceremony.Call)) (*Screen, error) {
	if t := os.Getenv("TERM"); t == "" || t == "dumb" {
		return nil, fault.Errorf(fault.Usage, "TERM is %q", t)
	}
	tty, err := openTTY()
	if err != nil {
		return nil, err
	}
	s, err := newScreen(tty, interrupt, call)
	if err != nil {
		_ = tty.Close()
	}
	return s, err
}

func newScreen(tty *os.File, interrupt func(), call func(ceremony.Call)) (*Screen, error) {
	w, h, err := term.GetSize(int(tty.Fd()))
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "size of the terminal: %w", err)
	}
	if w < minCols || h < minRows {
		return nil, fault.Errorf(fault.Usage, "the terminal has %dx%d characters, and the full screen wants %dx%d", w, h, minCols, minRows)
	}
	old, err := raw(tty)
	if err != nil {
		return nil, err
	}
	s := &Screen{tty: tty, old: old, look: lookOf(), now: time.Now, interrupt: interrupt, call: call, gone: make(chan struct{}), stop: make(chan struct{}), w: w, h: h}
	s.write(seqEnter)
	go s.guard(s.read)
	go s.guard(s.tick)
	return s, nil
}

// guard gives the terminal back before a panic of f ends the process.
func (s *Screen) guard(f func()) {
	defer func() {
		if r := recover(); r != nil {
			s.restore()
			panic(r) //nolint:forbidigo // the panic goes on; only the terminal was put in order
		}
	}()
	f()
}

// Close gives the terminal back. It may be called twice.
func (s *Screen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		close(s.stop)
		s.restore()
	}
}

// restore needs mu, but for a panic that may hold it.
func (s *Screen) restore() {
	s.closed = true
	s.write(seqLeave)
	flush(s.tty)
	_ = term.Restore(int(s.tty.Fd()), s.old) // nothing can be done about a terminal that is gone
}

func (s *Screen) write(text string) { _, _ = s.tty.WriteString(text) } // as above; the reader notices

// tick counts the time, and follows the size of the terminal. After a stop
// (SIGCONT) the shell has set its own modes.
func (s *Screen) tick() {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGWINCH, syscall.SIGCONT)
	defer signal.Stop(sig)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-second.C:
			s.change(func() {})
		case x := <-sig:
			s.change(func() {
				if x == syscall.SIGCONT {
					_, _ = raw(s.tty) // the first state is the one to go back to
					s.write(seqEnter)
				}
				s.resized()
			})
		}
	}
}

// resized needs mu.
func (s *Screen) resized() {
	if w, h, err := term.GetSize(int(s.tty.Fd())); err == nil && w > 0 && h > 0 {
		s.w, s.h = w, h
	}
	s.shown = nil
	s.write(seqClear)
}

// change changes the model and shows what came of it.
func (s *Screen) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.draw()
}

// draw writes the rows that differ, as one frame. It needs mu.
func (s *Screen) draw() {
	if s.closed {
		return
	}
	f := render(&s.m, s.look, s.w, s.h, s.now())
	var b bytes.Buffer
	for i := range s.h {
		row := ""
		if i < len(f.rows) {
			row = f.rows[i]
		}
		if i < len(s.shown) && s.shown[i] == row {
			continue
		}
		fmt.Fprintf(&b, "\x1b[%d;1H%s\x1b[K", i+1, row)
		for len(s.shown) <= i {
			s.shown = append(s.shown, "")
		}
		s.shown[i] = row
	}
	cursor := ""
	if f.row > 0 {
		cursor = "\x1b[" + strconv.Itoa(f.row) + ";" + strconv.Itoa(f.col) + "H" + seqCursor
	}
	s.write(seqBegin + b.String() + cursor + seqEnd)
}

// View shows state and running hash.
func (s *Screen) View(v ceremony.View) { s.change(func() { s.m.view = v }) }

// Count shows who has done his part.
func (s *Screen) Count(c ceremony.Count) {
	c.Done = slices.Clone(c.Done)
	s.change(func() { s.m.count = &c })
}

// Show opens a step.
func (s *Screen) Show(phase string, n, of int, st *script.Step) {
	s.change(func() {
		s.m.phase, s.m.n, s.m.of, s.m.step, s.m.count = phase, n, of, st, nil
		s.m.ends = s.now().Add(st.Limit)
	})
}

// Say adds a message.
func (s *Screen) Say(level, text string) { s.change(func() { s.m.say(level, text) }) }

// put shows a question and waits for its answer.
func (s *Screen) put(ctx context.Context, q *question) error {
	q.done = make(chan struct{})
	s.change(func() {
		s.m.q = q
		if q.kind == askSecret {
			s.m.call = nil // or the passphrase would be shown as what happened
		}
	})
	var err error
	select {
	case <-q.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.gone:
		err = ErrClosed
	}
	s.change(func() {
		if s.m.q == q {
			s.m.q = nil
			if q.kind == askSecret && len(q.secret.Bytes()) > 0 {
				s.stray = s.now() // somebody is typing a passphrase that nobody waits for
			}
		}
	})
	return err
}

// Ask waits for a word. The word incident, or the key !, opens an incident.
func (s *Screen) Ask(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
	q := &question{kind: askAnswer, who: p.Who, role: p.Role, text: p.Text, want: p.Want}
	err := s.put(ctx, q)
	return q.answer, q.call, err
}

// Secret waits for a passphrase. Nothing of it is shown, not even its length.
func (s *Screen) Secret(ctx context.Context, who string) (*redact.Secret, error) {
	page, err := secmem.New()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "%w", err)
	}
	defer page.Wipe()
	q := &question{kind: askSecret, who: who, text: "type the passphrase of your key. Nothing is shown, not even stars.", secret: page}
	if err := s.put(ctx, q); err != nil {
		return nil, err
	}
	return q.pass, nil
}

// Elsewhere asks nobody: at a terminal everybody may cosign here.
func (s *Screen) Elsewhere(string) bool { return false }

// Documents asks for the kind of identity document of each person.
func (s *Screen) Documents(ctx context.Context, names []string) (map[string]string, error) {
	seen := map[string]string{}
	for i, n := range names {
		s.Count(ceremony.Count{What: "documents", Done: names[:i], Need: len(names), Of: len(names)})
		q := &question{kind: askText, who: n, text: "Which identity document did " + n + " show? (passport, identity card...)"}
		if err := s.put(ctx, q); err != nil {
			return nil, err
		}
		seen[n] = q.answer
	}
	return seen, nil
}

// Linger leaves the end on the screen until Enter, a signal, or d is over.
func (s *Screen) Linger(d time.Duration, signals <-chan os.Signal) {
	leave := make(chan struct{})
	s.change(func() { s.m.end, s.m.call, s.m.q, s.leave = "Enter = leave this screen", nil, nil, leave })
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-leave:
	case <-s.gone:
	case <-signals:
	case <-timer.C:
	}
}
