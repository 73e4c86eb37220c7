package unseal

import (
	"context"
	"os"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/vault/audit"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
)

// carried is the store's data key, opened by shares of an epoch before or of a retired
// safe. It opens no token, and waits for shares of the epoch in force to take the store
// over, but not for long: it is kept for Config.Valid.
type carried struct {
	key   *seal.DataKey
	epoch charter.Epoch // whose shares opened it
	place seal.Place
	until time.Time
	timer *time.Timer // ends it
}

// forget wipes the carried key. The caller holds a.mu, and nothing is under way.
func (a *Attempts) forget() {
	if a.carried != nil {
		a.carried.timer.Stop()
		a.carried.key.Wipe()
		a.carried = nil
	}
}

// expire wipes a carried key whose time is over, between openings, and says so. A key
// that came after it stays.
func (a *Attempts) expire(c *carried) {
	a.gate.Lock()
	defer a.gate.Unlock()
	a.mu.Lock()
	mine := a.carried == c
	if mine {
		a.forget()
		a.next(fault.Errorf(fault.Policy, "%w: no new shares came for the store's key, which was wiped", ErrEnded))
	}
	a.mu.Unlock()
	if mine && a.c.Expired != nil {
		a.c.Expired()
	}
}

// mayCarry wants a sealed vault whose store is under shares of before.
func (a *Attempts) mayCarry(st *charter.State) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.opened != nil:
		return fault.Hint(ErrOpen, "an open vault is resealed at once: the operation is reseal")
	case a.carried != nil:
		return fault.Hint(fault.New(fault.Exists, "the store's key is open already"), "the operation is reseal")
	case !a.created() || a.before(st).Safe == "":
		return fault.New(fault.Policy, "there is no store under shares of before")
	}
	return nil
}

// carry opens the data key with shares of before, and nothing else.
func (a *Attempts) carry(ctx context.Context, x *attempt, st *charter.State) error {
	wrapped, err := a.loadKey(st, x.epoch)
	if err != nil {
		return err
	}
	p, err := place(st, x.epoch)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	defer r.Close()
	_, err = a.c.Quorum.Join(ctx, quorum.Join{
		Given: quorum.Given{State: st, Epoch: x.epoch, Once: x.once, Contributions: x.given}, Place: p, Wrapped: wrapped, Key: w,
	})
	_ = w.Close()
	if err != nil {
		return err
	}
	key, err := seal.TakeDataKey(r)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &carried{key: key, epoch: x.epoch, place: p, until: a.c.Now().Add(a.c.Valid)}
	c.timer = time.AfterFunc(a.c.Valid, func() { a.expire(c) })
	a.carried = c
	a.next(fault.Errorf(fault.Policy, "%w: the store's key was opened by shares of before", ErrEnded))
	return nil
}

// resealCarried seals the store, whose key was carried, for the epoch that o was opened
// in. After a failure the key is still there, until its time is over or the vault is
// sealed, unless the store is under the new one: then it is unsealed by shares of the
// epoch in force.
func (a *Attempts) resealCarried(ctx context.Context, x *attempt, st *charter.State, o *Opened) error {
	a.mu.Lock()
	old := a.carried
	a.mu.Unlock()
	c := a.c.Store
	c.Place = old.place
	note := a.note
	if o.Operation == openrequest.Rehead {
		note = func(ctx context.Context, c seal.Config, key *seal.DataKey, e *audit.Entry) error {
			return seal.Rehead(ctx, c, key, e)
		}
	}
	err := note(ctx, c, old.key, a.entry(x, st))
	if err != nil && otherKey(err) {
		err = fault.Hint(err, "a reseal of before may have come to its end: the operation is unseal, with the new shares")
	}
	if err == nil {
		reseal := seal.Reseal
		if old.epoch.Safe != a.c.Safe {
			reseal = seal.TakeOver
		}
		err = reseal(ctx, c, old.key, o.place, o.key)
	}
	if err == nil {
		a.mu.Lock()
		a.forget() // the store is not under it any more
		a.mu.Unlock()
		c.Place = o.place
		o.Store, err = seal.Open(ctx, c, o.key)
	}
	if err != nil {
		return joinErrors(err, o.close())
	}
	if err := a.handOver(ctx, o); err != nil {
		return err
	}
	return a.removeKey(st, old.epoch)
}

// note writes an entry into a store that is not in use.
func (a *Attempts) note(ctx context.Context, c seal.Config, key *seal.DataKey, e *audit.Entry) error {
	s, err := seal.Open(ctx, c, key)
	if err != nil {
		return err
	}
	if _, err := audit.NewJournal(s).Do(ctx, seal.Strict, e, nil); err != nil {
		return joinErrors(err, s.Close())
	}
	return s.Close()
}
