package identity

import (
	"fmt"
	"time"

	"keyrite/artifact/access"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Operations that a process does with its own token; they need no rule of a policy.
const (
	LookupSelf = "lookup-self"
	RenewSelf  = "renew-self"
	RevokeSelf = "revoke-self"
)

// Self plans an operation on the caller's own token. The token itself, which the vault
// does not keep, is not in the answer.
func (r *Registry) Self(c engine.Caller, op string, p engine.Params) (*engine.Plan, error) {
	if op == LookupSelf && c.Accessor == "" {
		return r.lookupPeer(c, p)
	}
	if c.Accessor == "" {
		return nil, fmt.Errorf("%s: %w", op, ErrNoToken)
	}
	switch op {
	case LookupSelf:
		return r.lookup(c.Accessor, p)
	case RenewSelf:
		return r.renew(c.Accessor, p)
	case RevokeSelf:
		if err := p.Only("token"); err != nil { // clients send it empty or with the token
			return nil, err
		}
		return r.revoke(c.Accessor), nil
	}
	return nil, fmt.Errorf("%.20q: %w", op, engine.ErrNoPath)
}

// named is a copy of a live token's description.
func (r *Registry) named(accessor string) (token, error) {
	now := r.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.tokens[r.byName[accessor]]
	if !ok || accessor == "" || !now.Before(t.expires) {
		return token{}, fmt.Errorf("token %.40q: %w", accessor, engine.ErrNotThere)
	}
	return *t, nil
}

// lookupPeer tells a process without a token who it is.
func (r *Registry) lookupPeer(c engine.Caller, p engine.Params) (*engine.Plan, error) {
	if err := p.Only(); err != nil {
		return nil, err
	}
	x, ok := r.charter().Access.Identities[c.Identity]
	if !ok {
		return nil, fmt.Errorf("look up %.40q: %w", c.Identity, engine.ErrNotThere)
	}
	data := map[string]any{"display_name": x.ID, "policies": x.Policies, "path": "auth/" + c.Means, "type": "none", "meta": map[string]string{"identity": x.ID}}
	return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) { return &engine.Answer{Data: data}, nil }}, nil
}

func (r *Registry) lookup(accessor string, p engine.Params) (*engine.Plan, error) {
	if err := p.Only("accessor"); err != nil {
		return nil, err
	}
	return &engine.Plan{
		Needs: access.Read, Shown: map[string]any{"accessor": accessor},
		Apply: func(*seal.Tx) (*engine.Answer, error) {
			t, err := r.named(accessor)
			if err != nil {
				return nil, err
			}
			return &engine.Answer{Data: t.describe(r.clock())}, nil
		},
	}, nil
}

// describe is a token in the words of clients.
func (t *token) describe(now time.Time) map[string]any {
	return map[string]any{
		"accessor": t.accessor, "display_name": t.identity, "policies": t.proof.Policies, "path": "auth/" + t.means + "/login",
		"creation_time": t.issued.Unix(), "creation_ttl": t.proof.TTL, "issue_time": t.issued.UTC().Format(time.RFC3339), "expire_time": t.expires.UTC().Format(time.RFC3339),
		"ttl": int(t.expires.Sub(now) / time.Second), "explicit_max_ttl": int(t.end.Sub(t.issued) / time.Second), "renewable": t.renewable(), "num_uses": 0, "orphan": true, "type": "service",
		"meta": map[string]string{"identity": t.identity}, "charter": t.charter, "bound": t.bound != hash{},
	}
}

// renew lets a token live for its time again, counted from now, or for less if the
// caller wants less; never beyond its end.
func (r *Registry) renew(accessor string, p engine.Params) (*engine.Plan, error) {
	if err := p.Only("increment", "token"); err != nil {
		return nil, err
	}
	want, err := p.Duration("increment")
	if err != nil {
		return nil, err
	}
	t, err := r.named(accessor)
	if err != nil {
		return nil, err
	}
	if !t.renewable() {
		return nil, fmt.Errorf("token of %s: %w", t.identity, ErrNotRenewed)
	}
	ttl := time.Duration(t.proof.TTL) * time.Second
	if want > 0 && want < ttl {
		ttl = want
	}
	return &engine.Plan{
		Needs: access.Update, Shown: map[string]any{"accessor": accessor, "ttl": int(ttl / time.Second)},
		Apply: func(*seal.Tx) (*engine.Answer, error) {
			now := r.clock()
			r.mu.Lock()
			defer r.mu.Unlock()
			t, ok := r.tokens[r.byName[accessor]]
			if !ok || !now.Before(t.expires) {
				return nil, fmt.Errorf("token %.40q: %w", accessor, engine.ErrNotThere)
			}
			t.extend(now, ttl)
			return &engine.Answer{Auth: t.auth(), Result: map[string]any{"ttl": int(t.ttl / time.Second)}}, nil
		},
	}, nil
}

// revoke ends a token, and in the same transaction what was given out under it.
func (r *Registry) revoke(accessor string) *engine.Plan {
	return &engine.Plan{
		Needs: access.Update, Strict: true, Shown: map[string]any{"accessor": accessor},
		Apply: func(tx *seal.Tx) (*engine.Answer, error) {
			t, err := r.named(accessor)
			if err != nil {
				return nil, err
			}
			if err := r.ended(tx, accessor, r.clock()); err != nil {
				return nil, fmt.Errorf("end what was given out under token %s: %w", accessor, err)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.drop(r.byName[accessor])
			return &engine.Answer{Result: map[string]any{"identity": t.identity}}, nil
		},
	}
}
