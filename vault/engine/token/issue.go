package token

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// issue is one token while it is made.
type issue struct {
	role    charter.TokenRole
	subject string
	id      string // jti
	at, exp time.Time

	signed string
	keyID  string
}

// planIssue signs before the transaction. A key in the token has its intent written
// first, since it is a use of a key that a ceremony made.
func (e *Engine) planIssue(r *engine.Request) (*engine.Plan, error) {
	if err := r.Params.Only("ttl"); err != nil {
		return nil, err
	}
	role, err := e.role(r.Rest[1])
	if err != nil {
		return nil, err
	}
	if r.Caller.Identity == "" {
		return nil, fault.New(fault.Peer, "tokens are given to processes that are known")
	}
	ttl, err := lifetime(r.Params, &role)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	rand.Read(id)
	t := &issue{
		role: role, subject: strings.Replace(role.Subject, charter.IdentityMark, r.Caller.Identity, 1), id: hex.EncodeToString(id),
		at: r.Now.UTC().Truncate(time.Second),
	}
	t.exp = t.at.Add(ttl)
	shown := map[string]any{
		"audience": role.Audience, "claims": slices.Sorted(maps.Keys(role.Claims)), "expires": t.exp.Format(time.RFC3339), "id": t.id, "role": role.Version, "subject": t.subject,
	}
	return &engine.Plan{
		Needs: access.Update, Shown: shown, Intent: role.TokenKey != "",
		Work:  func(ctx context.Context) error { return e.sign(ctx, t) },
		Apply: func(*seal.Tx) (*engine.Answer, error) { return e.answer(t) },
	}, nil
}

// lifetime is that of the role, or a shorter one that the caller wants, in whole
// seconds.
func lifetime(p engine.Params, role *charter.TokenRole) (time.Duration, error) {
	most := time.Duration(role.TTL) * time.Second
	if !p.Has("ttl") {
		return most, nil
	}
	d, err := p.Duration("ttl")
	switch {
	case err != nil:
		return 0, err
	case d < time.Second || d > most || d%time.Second != 0:
		return 0, fault.Errorf(fault.Usage, "tokens of this role live 1 to %d whole seconds", role.TTL)
	}
	return d, nil
}

// claims are those of the token. Nothing of the charter's can take the place of a
// registered one: the fold refuses it.
func (t *issue) claims() ([]byte, error) {
	m := map[string]any{}
	for k, v := range t.role.Claims {
		m[k] = v
	}
	m["iss"], m["sub"], m["aud"], m["jti"] = t.role.Issuer, t.subject, t.role.Audience, t.id
	m["iat"], m["nbf"], m["exp"] = t.at.Unix(), t.at.Unix(), t.exp.Unix()
	return json.Marshal(m)
}

func (e *Engine) sign(ctx context.Context, t *issue) error {
	s, err := e.signer(ctx, &t.role)
	if err != nil {
		return err
	}
	payload, err := t.claims()
	if err != nil {
		return err
	}
	opts := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", s.public.KeyID)
	js, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: cryptosigner.Opaque(s.key)}, opts)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make the signer of token role %s: %w", t.role.Name, err)
	}
	out, err := js.Sign(payload)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "sign a token of role %s: %w", t.role.Name, err)
	}
	// Before it leaves us it is read back as a service would.
	got, err := out.Verify(s.public)
	if err != nil || string(got) != string(payload) {
		return fault.Errorf(fault.Verify, "a token of role %s that was signed does not hold", t.role.Name)
	}
	t.keyID = s.public.KeyID
	t.signed, err = out.CompactSerialize()
	return err
}

// answer hands the token out, if its role is still the one that was decided upon.
func (e *Engine) answer(t *issue) (*engine.Answer, error) {
	now, err := e.role(t.role.Name)
	if err != nil {
		return nil, err
	}
	if now.Version != t.role.Version {
		return nil, fault.Errorf(fault.Usage, "%w: token role %s", engine.ErrConflict, t.role.Name)
	}
	return &engine.Answer{
		Data: map[string]any{
			"token": t.signed, "ttl": int64(t.exp.Sub(t.at) / time.Second), "expires": t.exp.Format(time.RFC3339), "id": t.id, "key_id": t.keyID,
		},
		Result: map[string]any{"id": t.id, "key_id": t.keyID},
	}, nil
}
