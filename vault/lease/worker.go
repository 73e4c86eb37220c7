package lease

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

const (
	// period is how often the worker looks.
	period = time.Second
	// maxAtOnce bounds what one transaction makes due or revokes.
	maxAtOnce = 1_000
	// batch is how many leases end in one transaction of the worker.
	batch = 64
	// retry is when a lease is tried again that its engine could not end.
	retry = time.Minute
	// recheck is when a lease is looked at again that the store does not have: its
	// transaction may be under way.
	recheck = 10 * time.Second
)

// Why leases end by themselves, as the audit says it.
const (
	whyTime     = "its time is over"
	whyToken    = "its token ended"
	whyIdentity = "the charter ended its identity"
)

// round ends everything that is due now.
func (b *Book) round(ctx context.Context) {
	for accessor, ids := range b.orphans() {
		b.endAll(ctx, ids, whyToken, func(r *record) bool { return r.Accessor == accessor })
	}
	if ids := b.ofNobody(); len(ids) > 0 {
		state := b.c.Charter()
		b.endAll(ctx, ids, whyIdentity, func(r *record) bool { _, ok := state.Access.Identities[r.Identity]; return !ok })
	}
	for ctx.Err() == nil {
		now := b.clock.now()
		b.mu.Lock()
		ids := b.index.pop(now, maxAtOnce)
		b.mu.Unlock()
		if len(ids) == 0 {
			return
		}
		b.endAll(ctx, b.due(ids, now), whyTime, func(r *record) bool { return r.due(now) })
	}
}

// orphans are the leases of tokens that ended, by token.
func (b *Book) orphans() map[string][]string {
	b.mu.Lock()
	accessors := slices.Collect(maps.Keys(b.index.byToken))
	b.mu.Unlock()
	out := map[string][]string{}
	for _, a := range accessors {
		if !b.c.Tokens.Gone(a) {
			continue
		}
		now := b.clock.now()
		b.mu.Lock()
		out[a] = b.index.ofToken(a, now, maxAtOnce)
		b.mu.Unlock()
	}
	return out
}

// ofNobody are leases of identities that the charter does not know any more.
func (b *Book) ofNobody() []string {
	state, now := b.c.Charter(), b.clock.now().UnixMilli()
	b.mu.Lock()
	defer b.mu.Unlock()
	nobody := map[string]bool{}
	for who := range b.index.count {
		if _, ok := state.Access.Identities[who]; !ok {
			nobody[who] = true
		}
	}
	if len(nobody) == 0 {
		return nil
	}
	var out []string
	for id, it := range b.index.all {
		if nobody[it.identity] && len(out) < maxAtOnce && it.failed <= now {
			out = append(out, id)
		}
	}
	return out
}

// due are those of the ids that the store says are due; the others are looked at again
// when it says.
func (b *Book) due(ids []string, now time.Time) []string {
	var out []string
	err := b.c.View(func(v *seal.View) error {
		for _, id := range ids {
			r, err := read(v, id)
			switch {
			case errors.Is(err, seal.ErrNotFound):
				b.missed(id, now)
			case err != nil:
				return err
			case r.due(now):
				out = append(out, id)
			default:
				b.later(id, r.Expires)
			}
		}
		return nil
	})
	if err != nil {
		b.failed(ids, now, err)
		return nil
	}
	return out
}

func (b *Book) later(id string, at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.index.look(id, at)
}

// missed forgets a lease that the store did not have twice.
func (b *Book) missed(id string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	it, ok := b.index.all[id]
	if it.missed++; !ok || it.missed > 1 {
		b.index.forget(id)
		return
	}
	b.index.all[id] = it
	b.index.look(id, now.Add(recheck).UnixMilli())
}

// failed has leases looked at again later.
func (b *Book) failed(ids []string, now time.Time, err error) {
	b.c.Log.Error("leases could not be ended; they are tried again", slog.Int("leases", len(ids)), slog.String("error", err.Error()))
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		it, ok := b.index.all[id]
		if it.failed = now.Add(retry).UnixMilli(); ok {
			b.index.all[id] = it
			b.index.look(id, it.failed)
		}
	}
}

// endAll ends leases for a reason that still holds in their transaction. What an engine
// cannot end does not hold up the others.
func (b *Book) endAll(ctx context.Context, ids []string, why string, still func(*record) bool) {
	for part := range slices.Chunk(ids, batch) {
		if ctx.Err() != nil {
			return
		}
		err := b.endSome(ctx, part, why, still)
		if err == nil || len(part) == 1 {
			b.settle(part, err)
			continue
		}
		for _, id := range part {
			one := []string{id}
			b.settle(one, b.endSome(ctx, one, why, still))
		}
	}
}

// settle brings the index to what came of leases.
func (b *Book) settle(ids []string, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, seal.ErrStopped) {
		return // the vault is being sealed, or serves no more
	}
	if err != nil {
		b.failed(ids, b.clock.now(), err)
		return
	}
	gone := ids
	_ = b.c.View(func(v *seal.View) error { // an error leaves the index as it was
		gone = nil
		for _, id := range ids {
			if r, err := read(v, id); err == nil {
				b.later(id, r.Expires)
			} else if errors.Is(err, seal.ErrNotFound) {
				gone = append(gone, id)
			}
		}
		return nil
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range gone {
		b.index.forget(id)
	}
}

// endSome ends leases in one transaction with one entry.
func (b *Book) endSome(ctx context.Context, ids []string, why string, still func(*record) bool) error {
	e := &audit.Entry{Charter: b.c.Charter().Size(), Kind: audit.Life, Operation: "lease", Time: trail.FormatTime(b.c.Now())}
	ended := []string{}
	nothing := errors.New("nothing to end")
	_, err := b.c.Journal.Do(ctx, seal.Durable, e, func(tx *seal.Tx) error {
		for _, id := range ids {
			r, err := read(tx, id)
			if errors.Is(err, seal.ErrNotFound) || err == nil && !still(r) {
				continue
			}
			if err != nil {
				return err
			}
			if err := b.end(tx, id, r); err != nil {
				return err
			}
			ended = append(ended, id)
		}
		if len(ended) == 0 {
			return nothing // and no entry of it
		}
		e.Result = map[string]any{"ended": ended, "why": why}
		return nil
	})
	if errors.Is(err, nothing) {
		return nil
	}
	return err
}
