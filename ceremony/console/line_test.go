package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/ceremony"
	"keyrite/internal/clitest"
)

// lineStage is a line console at a pseudo-terminal.
type lineStage struct {
	t     *testing.T
	l     *Line
	ptmx  *os.File
	calls chan ceremony.Call

	mu   sync.Mutex // guards text
	text bytes.Buffer
	from int
}

func newLineStage(t *testing.T) *lineStage {
	t.Helper()
	ptmx, tty, err := clitest.OpenPTY(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &lineStage{t: t, ptmx: ptmx, calls: make(chan ceremony.Call, 4)}
	x.l = NewLine(tty, func(c ceremony.Call) { x.calls <- c })
	x.l.openTTY = func() (*os.File, error) { return tty, nil }
	x.l.Listen()
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
	t.Cleanup(func() { x.l.Close(); _ = ptmx.Close(); _ = tty.Close() })
	return x
}

func (x *lineStage) see(want string) {
	x.t.Helper()
	ok := clitest.Await(10*time.Second, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		i := strings.Index(x.text.String()[x.from:], want)
		if i >= 0 {
			x.from += i + len(want)
		}
		return i >= 0
	})
	if !ok {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.t.Fatalf("%q never came after %q", want, x.text.String())
	}
}

func (x *lineStage) press(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.ptmx, text); err != nil {
		x.t.Fatal(err)
	}
}

func (x *lineStage) call(want ceremony.Call) {
	x.t.Helper()
	select {
	case c := <-x.calls:
		if c != want {
			x.t.Errorf("called %+v", c)
		}
	case <-time.After(10 * time.Second):
		x.t.Fatal("nobody was told of the incident")
	}
}

func (x *lineStage) silent() {
	x.t.Helper()
	select {
	case c := <-x.calls:
		x.t.Errorf("called %+v", c)
	default:
	}
}

// While the machine works and nobody is asked, the word calls an incident, and so
// does the key; whatever else is typed is thrown away. Enter alone goes back.
func TestLineIncidentAtAnyTime(t *testing.T) {
	x := newLineStage(t)
	x.see("Type incident and Enter")
	x.press("incidents\nyes\n\nincident\n")
	x.see("who calls it (name)? ")
	x.press("\n")
	x.see("no incident was called")
	x.silent()
	x.press("!\n")
	x.see("who calls it (name)? ")
	x.press("witness1\n")
	x.see("what happened? ")
	x.press("the door stood open\n")
	x.call(ceremony.Call{By: "witness1", Reason: "the door stood open"})
}

// A question that comes meanwhile waits; it neither takes the reason for its
// answer nor loses its own.
func TestLineQuestionWaitsForAnIncident(t *testing.T) {
	x := newLineStage(t)
	x.see("Type incident")
	x.press("incident\n")
	x.see("who calls it (name)? ")
	got := make(chan string, 1)
	go func() {
		a, c, err := x.l.Ask(t.Context(), ceremony.Prompt{Who: "conductor", Text: "Begin?", Want: []string{"yes"}})
		if c != nil || err != nil {
			a = "error"
		}
		got <- a
	}()
	x.see("a question waits")
	x.press("yes\n")
	x.see("what happened? ")
	x.press("\n")
	x.see("no incident was called")
	x.see("Begin? [yes | incident] ")
	x.press("no\n")
	if a := <-got; a != "no" {
		t.Errorf("answer %q", a)
	}
	x.silent()
	// One that is taken back does not wait for ever.
	x.press("incident\n")
	x.see("who calls it (name)? ")
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 1)
	go func() {
		_, err := x.l.Secret(ctx, "master1")
		errs <- err
	}()
	x.see("a question waits")
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// At the prompts of a passphrase and of a document too the word calls one; it is
// no passphrase, and the passphrase that comes later is not shown.
func TestLineIncidentInsteadOfASecret(t *testing.T) {
	x := newLineStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	x.l.call = func(c ceremony.Call) { x.calls <- c; cancel() } // as the engine does
	errs := make(chan error, 1)
	go func() {
		_, err := x.l.Secret(ctx, "master1")
		errs <- err
	}()
	x.see("passphrase of your key: ")
	x.press("incident\n")
	x.see("who calls it (name)? ")
	x.press("master1\n")
	x.see("what happened? ")
	x.press("somebody looks over my shoulder\n")
	x.call(ceremony.Call{By: "master1", Reason: "somebody looks over my shoulder"})
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() {
		_, err := x.l.Documents(t.Context(), []string{"ann"})
		errs <- err
	}()
	x.see("did ann show")
	x.press("!\n")
	x.see("who calls it (name)? ")
	x.press("\n")
	x.see("did ann show")
	x.press("passport\n")
	if err := <-errs; err != nil {
		t.Error(err)
	}
	secret := make(chan string, 1)
	go func() {
		s, err := x.l.Secret(t.Context(), "master1")
		if err != nil {
			secret <- err.Error()
			return
		}
		secret <- string(s.Bytes())
	}()
	x.see("passphrase of your key: ")
	x.press("incident and more\n")
	if s := <-secret; s != "incident and more" {
		t.Errorf("got %q", s)
	}
	x.l.Close()
	x.mu.Lock()
	defer x.mu.Unlock()
	if strings.Contains(x.text.String(), "incident and more") {
		t.Error("a passphrase was shown")
	}
}

// Closing ends a dialogue that nobody finishes, gives the terminal back, and may
// happen twice.
func TestLineClosesInADialogue(t *testing.T) {
	x := newLineStage(t)
	x.press("incident\n")
	x.see("who calls it (name)? ")
	x.l.Close()
	x.l.Close()
	x.silent()
	x.press("echoed again")
	x.see("echoed again")
}
