package node

import (
	"context"

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
	seq, err := x.journal.Do(ctx, x.promise(), &e, func(tx *seal.Tx) error {
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
	case err != nil:
		return unwritten(err)
	}
	x.entry.Kind, x.entry.Intent = audit.Result, &seq
	return nil
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
