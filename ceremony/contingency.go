package ceremony

import (
	"context"
	"errors"
	"slices"

	"keyrite/artifact/record"
	"keyrite/ceremony/script"
)

// Causes that a script may plan for.
const (
	CausePassphrase = "passphrase" // the tries for a passphrase or PIN are used up
	CauseWords      = "words"      // words read aloud were not understood alike
	CausePrinter    = "printer"
	CauseMedium     = "medium" // a medium cannot be read or written
	CauseCard       = "card"
	CauseShare      = "share" // a share cannot be used; a spare one may be
	CauseLate       = "late"  // a person is not there yet
)

// Contingency is the error of a verb that met a cause which a script may plan for.
// In a step that plans for it the ceremony goes on as the script says; in any
// other it is an incident like any error. A verb that is begun again goes on where
// it was: what it recorded stands.
type Contingency struct {
	Cause string
	Err   error
}

func (c *Contingency) Error() string { return c.Err.Error() }

func (c *Contingency) Unwrap() error { return c.Err }

// planned takes a step, with the contingencies that it meets.
func (r *Run) planned(ctx context.Context, phase string, st *script.Step) error {
	for again := 1; ; again++ {
		err := r.one(ctx, phase, st)
		c := r.contingency(st, err)
		if c == nil || c.Then == "again" && again > st.Tries || ctx.Err() != nil {
			return err
		}
		reason := plain(err.Error())
		r.Console.Say("bad", "planned for ("+c.ID+"): "+reason)
		if err := r.Record(&record.Contingency{ID: c.ID, On: c.On, Reason: reason, Step: st.ID}); err != nil {
			return err
		}
		for i := range c.Steps {
			if err := r.one(ctx, phase, &c.Steps[i]); err != nil {
				return err
			}
		}
		if c.Then != "again" {
			return nil
		}
	}
}

// contingency is the one that st plans for err, or nil.
func (r *Run) contingency(st *script.Step, err error) *script.Contingency {
	var met *Contingency
	if !errors.As(err, &met) {
		return nil
	}
	for i := range r.Script.Contingencies {
		c := &r.Script.Contingencies[i]
		if c.On == met.Cause && slices.Contains(st.Planned, c.ID) {
			return c
		}
	}
	return nil
}
