package node

import (
	"context"
	"errors"
	"log/slog"

	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

// intend writes the intent of a call, with what its engine takes for it; its entry
// becomes that of the result.
func (x *call) intend(ctx context.Context) error {
	e := *x.entry
	e.Kind = audit.Intent
	var refused error
	promise := x.promise()
	if x.plan.Reserve != nil {
		promise = seal.Strict
	}
	seq, err := x.journal.Do(ctx, promise, &e, func(tx *seal.Tx) error {
		if x.plan.Reserve == nil {
			return nil
		}
		if refused = x.still(); refused == nil {
			refused = x.plan.Reserve(tx)
		}
		return refused
	})
	switch {
	case refused != nil:
		return x.refuse(ctx, refused)
	case errors.Is(err, seal.ErrUnconfirmed):
		// The intent is in the store, and the token is never asked.
		x.entry.Kind, x.entry.Intent = audit.Result, &seq
		return x.failed(ctx, unwritten(err))
	case err != nil:
		return unwritten(err)
	}
	x.entry.Kind, x.entry.Intent = audit.Result, &seq
	return nil
}

// owed is the result of an intent that came to nothing, whose entry could not be written
// yet. What is owed when the vault ends is told of at the next start, as cut off.
type owed struct {
	entry *audit.Entry
	undo  func(*seal.Tx) (map[string]any, error) // nil gives nothing back
}

// maxOwed bounds how many there are. While the head is behind no intent is written, so
// there are at most as many as calls were under way when it fell behind.
const maxOwed = 1024

// nothing writes the result of an intent that came to nothing, with what is given back.
// What cannot be given back stays taken, and the entry is written without it.
func (v *vault) nothing(ctx context.Context, o owed) error {
	var kept error
	_, err := v.journal.Do(ctx, seal.Durable, o.entry, func(tx *seal.Tx) error {
		if o.undo != nil {
			o.entry.Result, kept = o.undo(tx)
		}
		return kept
	})
	if kept != nil {
		o.entry.Result = map[string]any{"undo": shown(kept)}
		_, err = v.journal.Do(ctx, seal.Durable, o.entry, nil)
	}
	return err
}

// owe keeps a result for later.
func (v *vault) owe(o owed) {
	v.owing.Lock()
	defer v.owing.Unlock()
	if len(v.owes) < maxOwed {
		v.owes = append(v.owes, o)
	}
}

// settle writes what is owed, as soon as the head is reached again. Housekeeping calls it.
func (v *vault) settle(ctx context.Context) {
	for v.owedResults() > 0 && v.store.Health().Keeper == nil {
		v.owing.Lock()
		first := v.owes[0] // only this goroutine takes any away
		v.owing.Unlock()
		if err := v.nothing(ctx, first); err != nil {
			v.cfg.Log.ErrorContext(ctx, "the result of an intent cannot be written yet", slog.String("error", err.Error()))
			return
		}
		v.owing.Lock()
		v.owes = v.owes[1:]
		v.owing.Unlock()
	}
}

// owedResults is how many intents wait for a result that came to nothing.
func (v *vault) owedResults() int {
	v.owing.Lock()
	defer v.owing.Unlock()
	return len(v.owes)
}

// lookUpIntents writes the results of intents that were cut off: that no answer left,
// and that the token may have done it nevertheless. Nothing more can be known of a
// signature.
func (v *vault) lookUpIntents(ctx context.Context) error {
	open, err := v.journal.Open()
	if err != nil {
		return err
	}
	for _, o := range open {
		e := o.Entry
		e.Kind, e.Intent, e.Time = audit.Result, &o.Seq, trail.FormatTime(v.cfg.Now())
		e.Class, e.Error = "interrupted", "the vault ended before this was answered; whether the token did it is not known"
		if _, err := v.journal.Do(ctx, seal.Durable, &e, nil); err != nil {
			return err
		}
	}
	v.cutOff = len(open)
	return nil
}
