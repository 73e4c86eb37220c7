// Package token is the vault's engine for short-lived tokens with which processes
// prove to other services who they are (RFC 7519, signed as RFC 7515 has it).
//
//	MOUNT/token/NAME                        write: a token of the role, {"ttl": …} if shorter
//	MOUNT/role/NAME                         read; the charter changes it (token-role)
//	MOUNT/role                              list
//	MOUNT/jwks                              read: the keys (RFC 7517) of all roles of the mount
//	MOUNT/.well-known/openid-configuration  read: where they are (OpenID Connect Discovery 1.0)
//
// What a token says stands in the charter, but for the id of the caller, the time and
// a random number: a caller can make it shorter and nothing else. Its key is made by
// Found and lies in the store, or is a key of the charter in the work token.
//
// It must never sign what a caller composed, nor for a caller without an id. A token
// cannot be called back: it lives an hour at most, and services forget the keys of a
// role that ended.
//
// Compatibility: ES256, ES384, EdDSA, RS256 and PS256; docs/operations/vault-token.md.
package token

import (
	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Engine is the engine at one mount.
type Engine struct {
	host *engine.Host
	keys string // bucket
}

// New makes the engine of a mount.
func New(h *engine.Host) *Engine { return &Engine{host: h, keys: h.Bucket("token-key")} }

// Plan reads a request.
func (e *Engine) Plan(r *engine.Request) (*engine.Plan, error) {
	type way struct {
		op     string
		parts  int
		method engine.Method
	}
	if len(r.Rest) == 0 {
		return nil, engine.ErrNoPath
	}
	w := way{r.Rest[0], len(r.Rest), r.Method}
	if w.op == "role" && w.parts == 2 && r.Method != engine.Read && r.Method != engine.List {
		return nil, fault.Hint(engine.ErrByCharter, "keyrite charter propose token-role --body FILE, with mount "+e.host.Mount+" and name "+r.Rest[1])
	}
	if w.op == ".well-known" && (w.parts != 2 || r.Rest[1] != "openid-configuration") {
		return nil, engine.ErrNoPath
	}
	plan, ok := map[way]func(*engine.Request) (*engine.Plan, error){
		{"token", 2, engine.Write}:      e.planIssue,
		{"role", 2, engine.Read}:        e.planRole,
		{"role", 1, engine.List}:        e.planRoles,
		{"jwks", 1, engine.Read}:        e.planJWKS,
		{".well-known", 2, engine.Read}: e.planDiscovery,
	}[w]
	if !ok {
		return nil, engine.ErrNoPath
	}
	return plan(r)
}

// role is a role as the charter has it now.
func (e *Engine) role(name string) (charter.TokenRole, error) {
	r, ok := e.host.Charter().TokenRoles[charter.At(e.host.Mount, name)]
	if !ok {
		return r, fault.Errorf(fault.Policy, "%w: token role %.40q", engine.ErrNotThere, name)
	}
	return r, nil
}

func (e *Engine) planRole(r *engine.Request) (*engine.Plan, error) {
	if err := r.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) {
		role, err := e.role(r.Rest[1])
		if err != nil {
			return nil, err
		}
		return &engine.Answer{Data: role}, nil
	}}, nil
}

func (e *Engine) planRoles(r *engine.Request) (*engine.Plan, error) {
	if err := r.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.List, Apply: func(*seal.Tx) (*engine.Answer, error) {
		names := e.host.Charter().TokenRoleNames(e.host.Mount)
		if len(names) == 0 {
			return nil, engine.ErrNotThere
		}
		return &engine.Answer{Data: map[string]any{"keys": names}}, nil
	}}, nil
}
