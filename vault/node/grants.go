package node

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

// Keys of bucketNode about what is given for a while.
const (
	keyUses  = "uses/"  // of a delegation: how many were made
	keyKnown = "known/" // of a pulled break-glass: since when others know of it
)

// ErrSpent says that a delegation has no use left.
var ErrSpent = fault.New(fault.Quota, "the delegation has no use left")

// voucher is a Keeper on another machine, whose word on the time the vault's host
// cannot make up.
type voucher interface {
	// Vouched is when the newest head was cosigned; zero before the first.
	Vouched() time.Time
}

// outside is the newest time that others vouch for. Where the head is kept in a file,
// which only rehearsals do, it is the clock of the host; else, without a cosigner, it
// is no time at all, and nothing that waits for one ever opens.
func (v *vault) outside() time.Time {
	if k, ok := v.head.(voucher); ok {
		return k.Vouched()
	}
	if v.unvouched() {
		return time.Time{}
	}
	return v.cfg.Now()
}

// unvouched says whether there is never a time from outside, and never will be with
// this keeper of the head.
func (v *vault) unvouched() bool {
	_, ok := v.head.(voucher)
	return !ok && v.cfg.World.IsLive()
}

// emergency are the rules that pulled break-glasses give an identity now, with the ids
// of those that do.
func (v *vault) emergency(f *force, identity string) (rules []access.Rule, ids []string) {
	for _, id := range slices.Sorted(maps.Keys(f.charter.Grants.Pulled)) {
		p := f.charter.Grants.Pulled[id]
		if p.Identity != identity {
			continue
		}
		from, to := p.Window(v.known(&p))
		if within(v.cfg.Now(), from, to) && within(v.outside(), from, to) {
			rules, ids = append(rules, p.Rules...), append(ids, id)
		}
	}
	return rules, ids
}

func within(t, from, to time.Time) bool {
	return !from.IsZero() && !t.Before(from) && t.Before(to)
}

// knownKey is where it stands since when a pull is known.
func knownKey(p *charter.Pulled) string { return keyKnown + p.ID + "/" + strconv.Itoa(p.Times) }

// known is since when others than the vault's host know of a pull; zero if they do
// not, or if what says so cannot be read.
func (v *vault) known(p *charter.Pulled) time.Time {
	var at time.Time
	err := v.store.View(func(w *seal.View) error {
		raw, err := w.Get(bucketNode, knownKey(p))
		if err == nil {
			at, err = time.Parse(time.RFC3339, string(raw))
		}
		return err
	})
	if err != nil {
		return time.Time{}
	}
	return at
}

// tellPulled writes, for each break-glass that is pulled, that it is: loud, and so
// that others vouch for a newer time. What they did not know of until now, they know
// since. It is called after each takeover and each minute.
func (v *vault) tellPulled(ctx context.Context) {
	pulled := v.charter().Grants.Pulled
	for _, id := range slices.Sorted(maps.Keys(pulled)) {
		p := pulled[id]
		if err := v.tellOne(ctx, &p); err != nil {
			v.cfg.Log.ErrorContext(ctx, "the break-glass could not be told of in the log", slog.String("id", id), slog.String("error", err.Error()))
		}
	}
}

func (v *vault) tellOne(ctx context.Context, p *charter.Pulled) error {
	e := v.life("break-glass")
	e.Params = map[string]any{"id": p.ID, "reason": p.Reason, "times": p.Times}
	known := v.known(p)
	if from, to := p.Window(known); !known.IsZero() {
		e.Result = map[string]any{"from": trail.FormatTime(from), "to": trail.FormatTime(to)}
		if !v.cfg.Now().Before(to) && !v.outside().Before(to) {
			return nil // over
		}
	}
	v.cfg.Log.WarnContext(ctx, "a break-glass is pulled", slog.String("id", p.ID), slog.String("reason", p.Reason))
	if _, err := v.journal.Do(ctx, seal.Strict, e, nil); err != nil || !known.IsZero() {
		return err
	}
	// The head that was just advanced has the statement that pulled it.
	at := v.outside()
	if at.IsZero() {
		return nil
	}
	e = v.life("break-glass known")
	e.Params = map[string]any{"id": p.ID, "times": p.Times}
	e.Result = map[string]any{"since": trail.FormatTime(at)}
	_, err := v.journal.Do(ctx, seal.Strict, e, func(tx *seal.Tx) error {
		return tx.Put(bucketNode, knownKey(p), []byte(at.UTC().Format(time.RFC3339)))
	})
	return err
}

// delegated finds a delegation that gives the call what the caller's rules do not,
// provided that no rule denies it.
//
// One use is one operation, so batches have none. Without a time from outside nothing
// is delegated.
func (x *call) delegated(f *force, rules access.Rules) *charter.Delegation {
	d := f.charter.Grants.Delegations
	if len(d) == 0 || x.Params.Has("batch_input") || x.outside().IsZero() {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(d)) {
		g := d[id]
		if g.Identity != x.caller.Identity || !x.cfg.Now().Before(g.Ends()) || !x.outside().Before(g.Ends()) {
			continue
		}
		one, err := access.Compile([]access.Rule{{Can: []access.Capability{g.Can}, Path: g.Path}})
		if err == nil && access.Join(rules, one).Decide(x.path, x.plan.Needs) == nil {
			return &g
		}
	}
	return nil
}

// spend takes one use of the delegation that the call needs, before it is made: also a
// call that comes to nothing then has used it.
func (x *call) spend(ctx context.Context) error {
	d := x.delegation
	if d == nil {
		return nil
	}
	e := *x.entry
	e.Kind, e.Operation, e.Params = audit.Life, "delegation", map[string]any{"id": d.ID}
	var refused error
	_, err := x.journal.Do(ctx, seal.Strict, &e, func(tx *seal.Tx) error {
		used, err := uses(tx, d.ID)
		if err != nil {
			return err
		}
		if used >= d.Uses {
			refused = fault.Errorf(fault.Quota, "%w: %s had %d", ErrSpent, d.ID, d.Uses)
			return refused
		}
		e.Result = map[string]any{"used": used + 1, "of": d.Uses}
		return tx.Put(bucketNode, keyUses+d.ID, strconv.AppendInt(nil, int64(used+1), 10))
	})
	if refused != nil {
		return x.refuse(ctx, refused)
	}
	if err != nil {
		return unwritten(err)
	}
	return nil
}

func uses(tx *seal.Tx, id string) (int, error) {
	raw, err := tx.Get(bucketNode, keyUses+id)
	if errors.Is(err, seal.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 0 {
		return 0, fault.Errorf(fault.Verify, "uses of delegation %s: %.20q", id, raw)
	}
	return n, nil
}
