// Package console is what the room sees and answers. Screen fills a terminal,
// readable at three metres; Line is for serial lines and screen readers; Answers
// are a rehearsal's prepared answers, with one of the two for what they lack.
//
// The commands of cmd/keyrite open one with Open and must Close it on every path.
// Nothing secret is ever shown, not even the length of a passphrase. Whatever
// comes from outside (names, titles, reasons) is escaped here, once. The package
// knows no HSM and decides nothing.
package console

import (
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"keyrite/ceremony"
)

// lingerTime is how long the end stays on the full screen if nobody presses
// Enter: long enough to read, not so long that nobody dares to leave the room.
const lingerTime = 2 * time.Minute

// Options say what the caller wants and has.
type Options struct {
	In, Err   any    // the standard streams
	Plain     bool   // lines, whatever the terminal can
	Answers   string // path of an answers file, or ""
	Names     []string
	Interrupt func()              // what Ctrl-C does
	Call      func(ceremony.Call) // takes an incident that is called while nobody is asked
}

// Room is an open console.
type Room struct {
	ceremony.Console
	screen *Screen
	line   *Line
}

// Open chooses the full screen where standard input and standard error are a
// terminal that is large enough, and somebody sits at it: answers that prepare
// everything leave nobody to look. It says so where a terminal does not do.
func Open(o Options) (*Room, error) {
	errs, ok := o.Err.(io.Writer)
	if !ok {
		errs = io.Discard
	}
	r := &Room{line: NewLine(errs, o.Call)}
	r.Console = r.line
	var a *Answers
	if o.Answers != "" {
		var err error
		if a, err = LoadAnswers(o.Answers, r.line); err != nil {
			return nil, err
		}
		r.Console = a
	}
	if a != nil && a.complete(o.Names) {
		r.line.color = r.line.color && !o.Plain
		return r, nil // and whoever has the terminal may go on using it
	}
	if o.Plain || !terminal(o.In) || !terminal(o.Err) {
		r.line.color = r.line.color && !o.Plain
		if terminal(o.In) {
			r.line.Listen()
		}
		return r, nil
	}
	s, err := OpenScreen(o.Interrupt, o.Call)
	if err != nil {
		r.line.Say("", "no full screen: "+err.Error()+"; going on line by line")
		r.line.Listen()
		return r, nil
	}
	r.screen, r.Console = s, s
	if a != nil {
		a.Console, r.Console = s, a
	}
	return r, nil
}

func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Linger leaves the end on a full screen until Enter, a signal, or two minutes
// are over. A terminal of lines keeps it anyway.
func (r *Room) Linger(signals <-chan os.Signal) {
	if r.screen != nil {
		r.screen.Linger(lingerTime, signals)
	}
}

// Close gives the terminal back as it was. It may be called twice.
func (r *Room) Close() {
	if r.screen != nil {
		r.screen.Close()
	}
	r.line.Close()
}
