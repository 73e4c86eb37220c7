package unseal

import (
	"context"
	"os"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/durable"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

// mayReseal wants an open vault whose shares were dealt anew since.
func (a *Attempts) mayReseal(st *charter.State) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var under seal.Place
	switch {
	case a.opened != nil:
		under = a.opened.place
	case a.carried != nil && a.c.Now().Before(a.carried.until):
		under = a.carried.place
	default:
		return fault.Hint(ErrSealed, "the store is resealed while the vault is open under the shares of before, or after those were given for carry")
	}
	if int(under.Epoch) >= st.Epochs[a.c.Safe].Epoch {
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
	return joinNil(old.close(), a.removeKey(old.place))
}

// removeKey removes the wrapped key of an epoch that nothing is under any more.
func (a *Attempts) removeKey(p seal.Place) error {
	if err := os.Remove(a.keyPath(int(p.Epoch))); err != nil {
		return fault.Errorf(fault.Storage, "remove the old wrapped key: %w", err)
	}
	return durable.SyncDir(a.c.Dir)
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
