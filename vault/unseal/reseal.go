package unseal

import (
	"context"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

// reseals says whether an operation seals the store anew: rehead does after carry, when the
// store's head is lost as well.
func (a *Attempts) reseals(operation string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return operation == openrequest.Reseal || operation == openrequest.Rehead && a.carried != nil
}

// mayReseal wants an open vault whose shares were dealt anew since, or the store's key,
// carried from an epoch before or from a safe that ours took over from.
func (a *Attempts) mayReseal(st *charter.State) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var under charter.Epoch
	switch {
	case a.opened != nil:
		under = charter.Epoch{Safe: a.c.Safe, Epoch: a.opened.Epoch}
	case a.carried != nil && a.c.Now().Before(a.carried.until):
		under = a.carried.epoch
	default:
		return fault.Hint(ErrSealed, "the store is resealed while the vault is open under the shares of before, or after those were given for carry")
	}
	switch {
	case under.Safe != a.c.Safe && !slices.Contains(st.Followed(a.c.Safe), under.Safe):
		return fault.Errorf(fault.Policy, "the store is under safe %s, and safe %s did not take over from it", under.Safe, a.c.Safe)
	case under.Safe == a.c.Safe && under.Epoch >= st.Epochs[a.c.Safe].Epoch:
		return fault.Errorf(fault.Policy, "the store is under epoch %d, which is in force", under.Epoch)
	}
	return nil
}

// reseal seals the store of an open vault for the epoch that o was opened in, and
// puts o in the place of what was open. If it fails, what was open is open again.
func (a *Attempts) reseal(ctx context.Context, x *attempt, st *charter.State, o *Opened) error {
	a.mu.Lock()
	old := a.opened
	a.mu.Unlock()
	if old == nil {
		return a.resealCarried(ctx, x, st, o)
	}
	if _, err := audit.NewJournal(old.Store).Do(ctx, seal.Strict, a.entry(x, st), nil); err != nil {
		return joinErrors(err, o.close())
	}
	if err := a.resealed(ctx, old, o); err != nil {
		return joinErrors(err, o.close(), a.reopen(ctx, old))
	}
	if err := a.handOver(ctx, o); err != nil {
		a.mu.Lock()
		a.opened = nil
		a.mu.Unlock()
		old.user, old.Store = nil, nil
		return joinErrors(err, old.close())
	}
	old.user, old.Store = nil, nil
	under, err := st.EpochAt(a.c.Safe, old.Epoch)
	if err != nil {
		return joinErrors(err, old.close())
	}
	return joinNil(old.close(), a.removeKey(st, under))
}

// resealed closes the store, seals it anew and opens it under the new key.
func (a *Attempts) resealed(ctx context.Context, old, o *Opened) error {
	if err := old.user.Close(); err != nil {
		return err
	}
	if err := old.Store.Close(); err != nil {
		return err
	}
	c := a.c.Store
	c.Place = old.place
	if err := seal.Reseal(ctx, c, old.key, o.place, o.key); err != nil {
		return err
	}
	c.Place = o.place
	var err error
	o.Store, err = seal.Open(ctx, c, o.key)
	return err
}

// reopen brings back what was open before. If that fails, too, the vault is sealed.
func (a *Attempts) reopen(ctx context.Context, old *Opened) error {
	c := a.c.Store
	c.Place = old.place
	var err error
	if old.Store, err = seal.Open(ctx, c, old.key); err == nil {
		old.user, err = a.c.Opened(ctx, old)
	}
	if err == nil {
		return nil
	}
	a.mu.Lock()
	a.opened = nil
	a.mu.Unlock()
	old.user = nil
	return joinErrors(err, old.close())
}
