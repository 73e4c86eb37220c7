package ceremony

import (
	"context"
	"errors"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
)

// void takes the attempt to VOID whatever happens on the way, and returns the
// error that says so.
func (r *Run) void(ctx context.Context, cause error) error {
	// A clock that jumped must not keep the end from being written.
	r.voiding = true
	if errors.Is(cause, errHung) {
		return r.giveUp(cause)
	}
	var out error
	err := r.serve(context.WithoutCancel(ctx), func(ctx context.Context) error {
		out = r.cleanUp(ctx, cause)
		return nil
	})
	if err != nil {
		return &voidError{cause: errors.Join(cause, err), dir: r.Dir}
	}
	return out
}

// giveUp leaves the clean-up to a fresh process: a verb hangs and may still act.
func (r *Run) giveUp(cause error) error {
	text := plain(cause.Error())
	r.room.Say("bad", "INVALID: "+text)
	err := r.write(&record.Incident{By: "engine", Class: string(fault.ClassOf(cause)), Reason: text})
	err = errors.Join(err, r.change("INVALID", text))
	return fault.Hint(&voidError{cause: errors.Join(cause, err), dir: r.Dir}, "its tokens were not looked into: keyrite ceremony recover --record "+r.Dir)
}

// cleanUp is what is done on the way to VOID.
func (r *Run) cleanUp(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	text := plain(cause.Error())
	r.Console.Say("bad", "INVALID: "+text)
	var trouble []error
	note := func(err error) {
		if err != nil {
			trouble = append(trouble, err)
		}
	}
	if !errors.Is(cause, ErrIncident) {
		note(r.Record(&record.Incident{By: "engine", Class: string(fault.ClassOf(cause)), Reason: text}))
	}
	note(r.enter("INVALID", text))
	note(r.enter("CLEANUP", ""))
	err := r.Actions.Cleanup(ctx, r)
	note(err)
	if errors.Is(err, ErrUnsettled) {
		return r.unsettled(withTrouble(cause, trouble))
	}
	note(r.do(func() error { r.step = ""; return nil }))
	note(r.enter("VOID", text))
	note(r.Record(&record.End{Cause: text, State: "VOID"}))
	if len(trouble) == 0 {
		r.signVoid(ctx)
	}
	r.Console.Say("bad", "VOID. Nothing of this attempt may be used.")
	return voided(withTrouble(cause, trouble), r.Dir)
}

// ErrUnsettled says that a token which was there before could not be put back as
// it was. The attempt then stays in CLEANUP, so that Recover ends it with shares.
var ErrUnsettled = fault.New(fault.Token, "a token of the vault is not as it was")

// unsettled leaves the rest of the clean-up to Recover: an attempt that has ended
// could not be added to.
func (r *Run) unsettled(cause error) error {
	r.Console.Say("bad", "VOID, and not at its end. Nothing of this attempt may be used; a token waits for its key masters.")
	return fault.Hint(&voidError{cause: cause, dir: r.Dir}, "with the shares of both epochs, or of the new one: keyrite ceremony recover --record "+r.Dir+" --bind FILE --opener SAFE=KEYFILE:SHAREFILE --opener SAFE/EPOCH=KEYFILE:SHAREFILE")
}

// maxReasonRunes bounds a reason, which must fit into an entry several times.
const maxReasonRunes = 1000

// plain makes a text from outside fit for an entry: a reason too long, or not
// UTF-8, must not keep an incident out of the record.
func plain(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if r := []rune(s); len(r) > maxReasonRunes {
		return string(r[:maxReasonRunes]) + "…"
	}
	return s
}

// withTrouble adds what went wrong on the way to VOID to its cause, each once.
func withTrouble(cause error, trouble []error) error {
	seen := map[string]bool{}
	for _, err := range trouble {
		if !seen[err.Error()] {
			seen[err.Error()] = true
			cause = fault.Errorf(fault.ClassOf(cause), "%w; then: %w", cause, err)
		}
	}
	return cause
}

// signVoid has the conductor sign the void record if he can; without it the
// record is void all the same.
func (r *Run) signVoid(ctx context.Context) {
	for _, name := range r.Names(charter.RoleConductor) {
		err := r.WithKey(ctx, name, "the void record", func(k *person.Key) error {
			_, err := r.checkpoint(k)
			return err
		})
		if err != nil {
			r.Console.Say("bad", "the void record is not signed: "+err.Error())
		}
	}
}
