package node

import (
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/internal/redact"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

// MayWhileSealed says which identity asks a vault that is sealed or whose store stopped,
// and whether the charter st, which was verified from the anchors, lets it do that at a
// path: by the same judge of certificates and of rules as in an open vault. There are no
// tokens, and what is given for a while does not count here: nothing could count its uses.
// An error is a refusal, whatever identity stands beside it.
func MayWhileSealed(st *charter.State, p identity.Peer, path string, can access.Capability, now func() time.Time) (string, error) {
	who, err := identity.New(identity.Config{
		Charter: func() *charter.State { return st }, Now: now,
		View: func(func(*seal.View) error) error { return ErrSealed },
	})
	if err != nil {
		return "", err
	}
	c, err := who.Caller(redact.Secret{}, p)
	if err != nil {
		return "", err
	}
	rules, err := st.Rules(c.Identity)
	if err != nil {
		return "", err
	}
	at, err := access.ParsePath(path)
	if err != nil {
		return "", err
	}
	return c.Identity, rules.Decide(at, can)
}
