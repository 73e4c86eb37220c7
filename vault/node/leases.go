package node

import (
	"encoding/json"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/lease"
	"keyrite/vault/seal"
)

// who makes the judge of who asks, and the book of what was given out under its tokens.
func (v *vault) who() error {
	var err error
	v.ident, err = identity.New(identity.Config{Charter: v.charter, View: v.store.View, Now: v.cfg.Now, Ended: func(tx *seal.Tx, accessor string, now time.Time) error { return v.leases.EndToken(tx, accessor, now) }})
	if err != nil {
		return err
	}
	v.leases, err = lease.New(lease.Config{
		Charter: v.charter, View: v.store.View, Journal: v.journal, Now: v.cfg.Now, Tokens: v.ident, Log: v.cfg.Log,
		Engine: func(mount string) engine.Engine { return v.force.Load().engines[mount] },
	})
	return err
}

// leaseOf enters what an answer gives out for a time, in the transaction of the answer.
func (x *call) leaseOf(tx *seal.Tx, a *engine.Answer) error {
	if a.Lease == nil {
		return nil
	}
	if a.Lease.ID == "" { // else it was renewed
		if err := x.leases.Issue(tx, x.caller, x.path, a.Lease); err != nil {
			return err
		}
	}
	x.entry.Result = withMember(x.entry.Result, "lease", a.Lease.ID)
	return nil
}

// given is the lease of an answer as the caller is told of it.
func given(a *engine.Answer) *Lease {
	if a == nil || a.Lease == nil {
		return nil
	}
	return &Lease{ID: a.Lease.ID, TTL: a.Lease.TTL, Renewable: a.Lease.Renewable}
}

// leaseRoutes are the paths of vault/identity and vault/lease, but for logins.
func leaseRoutes() []route {
	const r, l, w = engine.Read, engine.List, engine.Write
	return []route{
		{r, "auth/approle/role/*", access.Read, false, (*call).authPath},
		{l, "auth/approle/role/*", access.List, false, (*call).authPath},
		{w, "auth/approle/role/*", access.Update, false, (*call).authPath},
		{w, "auth/token/lookup-accessor", access.Update, false, (*call).authPath},
		{w, "auth/token/revoke-accessor", access.Update, false, (*call).authPath},
		{w, "sys/leases/lookup", access.Update, true, ownLease(lease.Lookup)},
		{w, "sys/leases/renew", access.Update, true, ownLease(lease.Renew)},
		{w, "sys/leases/revoke", access.Update, true, ownLease(lease.Revoke)},
		{w, "sys/leases/lookup/*", access.Update, false, (*call).leasePath},
		{r, "sys/leases/lookup/*", access.Read, false, (*call).leasePath},
		{l, "sys/leases/lookup/*", access.List, false, (*call).leasePath},
		{w, "sys/leases/revoke/*", access.Update, false, (*call).leasePath},
		{w, "sys/leases/revoke-prefix/*", access.Update, false, (*call).leasePath},
	}
}

func (x *call) authPath([]string) (err error) {
	x.plan, err = x.ident.Plan(x.request())
	return err
}

// leasePath plans what is done with leases of others. With one of the caller's own, by
// its whole name, it needs no rule; to whom it is is looked at again when it is done.
func (x *call) leasePath(rest []string) (err error) {
	q := x.request()
	id := strings.Join(rest, "/")
	if q.Method == engine.Write && q.Rest[1] != lease.RevokePrefix && x.leases.Holds(x.caller, id) {
		x.free = true
		name, err := json.Marshal(id)
		if err != nil {
			return err
		}
		x.plan, err = x.leases.Own(x.caller, q.Rest[1], engine.Params{"lease_id": name})
		return err
	}
	x.plan, err = x.leases.Plan(q)
	return err
}

func ownLease(op string) func(*call, []string) error {
	return func(x *call, _ []string) (err error) {
		x.plan, err = x.leases.Own(x.caller, op, x.Params)
		return err
	}
}
