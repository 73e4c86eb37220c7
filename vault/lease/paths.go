package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Operations on leases.
const (
	Lookup       = "lookup"
	Renew        = "renew"
	Revoke       = "revoke"
	RevokePrefix = "revoke-prefix"
)

// Own plans what a caller does with a lease of its own, named in the parameters, as
// sys/leases/{lookup,renew,revoke} have it. It needs no rule of a policy. A lease of
// somebody else is engine.ErrNotThere, as one that is none.
func (b *Book) Own(c engine.Caller, op string, p engine.Params) (*engine.Plan, error) {
	want := time.Duration(0)
	var err error
	switch op {
	case Renew:
		if err = p.Only("lease_id", "increment"); err == nil {
			want, err = p.Duration("increment")
		}
	case Revoke:
		err = p.Only("lease_id", "sync")
	case Lookup:
		err = p.Only("lease_id")
	default:
		err = fmt.Errorf("leases, %.20q: %w", op, engine.ErrNoPath)
	}
	if err != nil {
		return nil, err
	}
	id, err := p.String("lease_id")
	if err != nil {
		return nil, err
	}
	path, err := access.ParsePath(id)
	if err != nil {
		return nil, fmt.Errorf("name of the lease: %w", err)
	}
	// Whichever of its tokens it was: a process that logged in again has its leases.
	mine := func(r *record) bool { return r.Identity == c.Identity && c.Identity != "" }
	return b.plan(op, path.String(), want, mine), nil
}

// Plan plans what a policy may allow on leases of others, by paths below sys/leases/:
// lookup, revoke, revoke-prefix, each with the lease or prefix behind it, so that what
// is decided upon is the path itself. Listing lookup/PREFIX lists. The segments of Rest
// begin with "leases".
func (b *Book) Plan(q *engine.Request) (*engine.Plan, error) {
	if len(q.Rest) < 3 || q.Rest[0] != "leases" {
		return nil, fmt.Errorf("leases: %w", engine.ErrNoPath)
	}
	op, id := q.Rest[1], strings.Join(q.Rest[2:], "/")
	if err := q.Params.Only("sync"); err != nil { // which it is, whatever is asked
		return nil, err
	}
	if _, err := access.ParsePath(id); err != nil {
		return nil, err
	}
	anybody := func(*record) bool { return true }
	switch {
	case op == Lookup && q.Method == engine.List:
		return b.planList(id), nil
	case op == Lookup && q.Method == engine.Read:
		plan := b.plan(op, id, 0, anybody)
		plan.Needs = access.Read
		return plan, nil
	case q.Method == engine.Write && (op == Lookup || op == Revoke):
		return b.plan(op, id, 0, anybody), nil
	case q.Method == engine.Write && op == RevokePrefix:
		return b.planPrefix(id), nil
	}
	return nil, fmt.Errorf("leases: %w", engine.ErrNoPath)
}

// Holds says whether a lease is the caller's own, for whom the paths with the lease in
// them need no rule either: some clients name a lease there.
func (b *Book) Holds(c engine.Caller, id string) bool {
	holds := false
	err := b.c.View(func(v *seal.View) error {
		r, err := read(v, id)
		holds = err == nil && r.Identity == c.Identity && c.Identity != ""
		return err
	})
	return err == nil && holds
}

// plan is an operation on one lease that may be done if it is whose.
func (b *Book) plan(op, id string, want time.Duration, whose func(*record) bool) *engine.Plan {
	return &engine.Plan{
		Needs: access.Update, Strict: op == Revoke, Shown: map[string]any{"lease": id},
		Apply: func(tx *seal.Tx) (*engine.Answer, error) {
			now := b.clock.now()
			r, err := read(tx, id)
			if errors.Is(err, seal.ErrNotFound) || err == nil && (!whose(r) || r.due(now) && op != Revoke) {
				err = engine.ErrNotThere
			}
			if err != nil {
				return nil, fmt.Errorf("lease %s: %w", id, err)
			}
			switch op {
			case Renew:
				return b.renew(tx, id, r, want)
			case Revoke:
				b.later(id, now.Add(recheck).UnixMilli()) // to forget it then
				return &engine.Answer{}, b.end(tx, id, r)
			}
			return &engine.Answer{Data: describe(id, r, now)}, nil
		},
	}
}

func describe(id string, r *record, now time.Time) map[string]any {
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	out := map[string]any{
		"id": id, "issue_time": at(r.Issued), "expire_time": at(r.Expires), "last_renewal": nil,
		"renewable": r.Renewable, "ttl": int(r.left(now) / time.Second), "identity": r.Identity,
	}
	if r.Renewed > 0 {
		out["last_renewal"] = at(r.Renewed)
	}
	return out
}

// renew lets a lease live for its time again, or for less, never beyond its most.
func (b *Book) renew(tx *seal.Tx, id string, r *record, want time.Duration) (*engine.Answer, error) {
	if !r.Renewable {
		return nil, fmt.Errorf("lease %s: %w", id, ErrNotRenewed)
	}
	now := b.clock.now()
	ttl := time.Duration(r.TTL) * time.Millisecond
	if want >= time.Second && want < ttl {
		ttl = want
	}
	r.Renewed, r.Expires = now.UnixMilli(), min(now.Add(ttl).UnixMilli(), r.Most)
	if err := write(tx, id, r); err != nil {
		return nil, err
	}
	return &engine.Answer{
		Lease:  &engine.Lease{ID: id, TTL: r.left(now), Renewable: true},
		Result: map[string]any{"expires": time.UnixMilli(r.Expires).UTC().Format(time.RFC3339)},
	}, nil
}

// keyed is a store at one moment.
type keyed interface {
	Keys(bucket, prefix string) []string
}

// below are the leases whose ids begin with the segments of prefix.
func below(s keyed, prefix string) []string { return s.Keys(bucketLeases, prefix+"/") }

// planList looks before its transaction: a long list must not hold up those who write.
func (b *Book) planList(prefix string) *engine.Plan {
	keys := []string{}
	work := func(context.Context) error {
		err := b.c.View(func(v *seal.View) error {
			for _, id := range below(v, prefix) {
				keys = append(keys, strings.TrimPrefix(id, prefix+"/"))
			}
			return nil
		})
		if err == nil && len(keys) == 0 {
			err = fmt.Errorf("leases below %s: %w", prefix, engine.ErrNotThere)
		}
		return err
	}
	return &engine.Plan{Needs: access.List, Shown: map[string]any{"prefix": prefix}, Work: work, Apply: func(*seal.Tx) (*engine.Answer, error) {
		return &engine.Answer{Data: map[string]any{"keys": keys}}, nil
	}}
}

// planPrefix revokes what is below a prefix, maxAtOnce at a time.
func (b *Book) planPrefix(prefix string) *engine.Plan {
	return &engine.Plan{
		Needs: access.Update, Strict: true, Shown: map[string]any{"prefix": prefix},
		Apply: func(tx *seal.Tx) (*engine.Answer, error) {
			all := below(tx, prefix)
			some := all[:min(len(all), maxAtOnce)]
			for _, id := range some {
				r, err := read(tx, id)
				if err != nil {
					return nil, err
				}
				if err := b.end(tx, id, r); err != nil {
					return nil, err
				}
				b.later(id, b.clock.now().Add(recheck).UnixMilli())
			}
			a := &engine.Answer{Data: map[string]any{"revoked": len(some), "left": len(all) - len(some)}, Result: map[string]any{"revoked": some}}
			if len(all) > len(some) {
				a.Warnings = []string{"more leases are left: ask again"}
			}
			return a, nil
		},
	}
}
