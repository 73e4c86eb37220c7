package hsm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyrite/hsm/internal/frame"
)

// What a caller can tell apart with errors.Is.
var (
	ErrPIN       = errors.New("PIN refused")
	ErrLocked    = errors.New("PIN locked")
	ErrNotFound  = errors.New("not found")
	ErrAmbiguous = errors.New("found more than once")
	ErrExists    = errors.New("exists")
	// ErrLost: the process or token went away under the call. Whether the call
	// had an effect is unknown; look the object up by its id.
	ErrLost    = errors.New("session lost")
	ErrRefused = errors.New("refused")
	// ErrNotDone: the request never reached the token, so it may be made again.
	ErrNotDone = errors.New("not done")
	// ErrBusy: as many requests wait as may; this one was not taken.
	ErrBusy = errors.New("too many requests wait")
	// ErrWaiting: nothing was done, and will not be before Error.Wait has
	// passed. A token that was lost twice in a short time is left alone, and so
	// is one that was given wrong PINs.
	ErrWaiting = errors.New("has to wait")
)

var kinds = map[string]error{
	frame.KindPIN: ErrPIN, frame.KindLocked: ErrLocked, frame.KindNotFound: ErrNotFound,
	frame.KindAmbiguous: ErrAmbiguous, frame.KindExists: ErrExists,
	frame.KindLost: ErrLost, frame.KindRefused: ErrRefused,
	frame.KindWaiting: ErrWaiting,
}

// Error is every error of this package that comes from a token or from the
// way to it. It never holds a PIN.
type Error struct {
	Op    string // what was being done
	Token string // label of the token, may be empty
	Label string // label or id of the key, may be empty
	Code  uint64 // CKR_ value, 0 where the token did not answer
	Class string // word of the exit table
	Text  string
	// Hint is what a person can do about it, may be empty.
	Hint string
	// Wait is how long until the same may be asked again; only with ErrWaiting.
	Wait  time.Duration
	kind  error
	cause error
}

func (e *Error) Error() string {
	s := e.Op
	if e.Label != "" {
		s += " " + e.Label
	}
	if e.Token != "" {
		s += fmt.Sprintf(" in token %q", e.Token)
	}
	return s + ": " + e.Text
}

// FaultClass gives the word of the exit table.
func (e *Error) FaultClass() string { return e.Class }

// FaultHint is shown after the error.
func (e *Error) FaultHint() string { return e.Hint }

// Unwrap gives the sentinel and the cause.
func (e *Error) Unwrap() []error {
	var out []error
	if e.kind != nil {
		out = append(out, e.kind)
	}
	if e.cause != nil {
		out = append(out, e.cause)
	}
	return out
}

// fromFault turns what came over a socket into an Error.
func fromFault(f *frame.Fault, t TokenID, label string) error {
	text := f.Text
	if f.Name != "" {
		text += ": " + f.Name
	}
	return &Error{
		Op: f.Op, Token: t.Label, Label: label, Code: f.Code, Class: f.Class, Text: text,
		Hint: f.Hint, Wait: time.Duration(f.WaitMS) * time.Millisecond, kind: kinds[f.Kind],
	}
}

func usage(op, format string, args ...any) error {
	return &Error{Op: op, Class: "usage", Text: fmt.Sprintf(format, args...)}
}

// lostError says that nobody knows what became of the call.
func lostError(op string, t TokenID, cause error) error {
	text := "the module process is gone; the outcome is unknown, look it up by id"
	if errors.Is(cause, context.DeadlineExceeded) || errors.Is(cause, context.Canceled) {
		text = "no answer in time, so the module process was ended; the outcome is unknown, look it up by id"
	}
	return &Error{Op: op, Token: t.Label, Class: "token", Text: text, kind: ErrLost, cause: cause}
}

// notDone says that a request of a pool has had no effect and will have none.
func notDone(op string, t TokenID, label, why string, cause error) error {
	e := &Error{Op: op, Token: t.Label, Label: label, Class: "token", Text: "not done: " + why, kind: ErrNotDone, cause: cause}
	if c, ok := errors.AsType[*Error](cause); ok {
		e.Class, e.Hint, e.Wait = c.Class, c.Hint, c.Wait
		e.Text += ": " + c.Text
	}
	return e
}
