// Package password is the vault's engine for passwords that it makes itself: for
// machines and services that know nothing better than a password.
//
//	MOUNT/policy/NAME/generate  read: a password of the policy, which is not kept
//	MOUNT/password/PATH         write: makes a named one, {"policy": NAME}; read; delete
//	MOUNT/password              list, and below a path
//	MOUNT/rotate/PATH           write: the next version
//	MOUNT/rollback/PATH         write: {"version": N}, the next version is that one again
//	MOUNT/history/PATH          read: which versions there are, or one of them (?version=N)
//	MOUNT/policy, …/policy/NAME list, read; the charter changes them (password-policy)
//
// Every password that fits a policy is as likely as any other. Earlier versions have
// a path of their own, so that a policy can give the newest alone. Who rotates sees
// nothing: he reads, if he may.
//
// A password that is due is rotated in the transaction in which it is next read: before
// that nobody could set it anywhere, and nobody gets one that is overdue. It must never
// be changed otherwise without a call to do so, nor stand in the audit.
package password

import (
	"context"
	"strings"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Engine is the engine at one mount.
type Engine struct {
	host            *engine.Host
	records, values string // buckets
}

// New makes the engine of a mount.
func New(h *engine.Host) *Engine {
	return &Engine{host: h, records: h.Bucket("password-record"), values: h.Bucket("password-value")}
}

// call is a request that was read.
type call struct {
	*engine.Request
	path string // of the password, without mount and operation
}

// Plan reads a request.
func (e *Engine) Plan(r *engine.Request) (*engine.Plan, error) {
	if len(r.Rest) == 0 {
		return nil, engine.ErrNoPath
	}
	c := &call{r, strings.Join(r.Rest[1:], "/")}
	if r.Rest[0] == "policy" {
		return e.planPolicy(c)
	}
	if c.path == "" && (r.Rest[0] != "password" || r.Method != engine.List) {
		return nil, engine.ErrNoPath
	}
	type way struct {
		op     string
		method engine.Method
	}
	plan, ok := map[way]func(*call) (*engine.Plan, error){
		{"password", engine.Read}:   e.planRead,
		{"password", engine.Write}:  e.planCreate,
		{"password", engine.Delete}: e.planDelete,
		{"password", engine.List}:   e.planList,
		{"rotate", engine.Write}:    e.planRotate,
		{"rollback", engine.Write}:  e.planRollback,
		{"history", engine.Read}:    e.planHistory,
	}[way{r.Rest[0], r.Method}]
	if !ok {
		return nil, engine.ErrNoPath
	}
	return plan(c)
}

// planPolicy is whatever is below "policy".
func (e *Engine) planPolicy(c *call) (*engine.Plan, error) {
	rest := c.Rest[1:]
	switch {
	case len(rest) == 0 && c.Method == engine.List:
		return e.planPolicies(c)
	case len(rest) == 1 && c.Method == engine.Read:
		return e.planReadPolicy(c)
	case len(rest) == 1 && c.Method != engine.List:
		return nil, fault.Hint(engine.ErrByCharter, "keyrite charter propose password-policy --body FILE, with mount "+e.host.Mount+" and name "+rest[0])
	case len(rest) == 2 && rest[1] == "generate" && c.Method == engine.Read:
		return e.planGenerate(c)
	}
	return nil, engine.ErrNoPath
}

// policy is a policy as the charter has it now.
func (e *Engine) policy(name string) (*charter.PasswordPolicy, error) {
	p, ok := e.host.Charter().Passwords[charter.At(e.host.Mount, name)]
	if !ok {
		return nil, fault.Errorf(fault.Policy, "%w: password policy %.40q", engine.ErrNotThere, name)
	}
	return &p, nil
}

func (e *Engine) planPolicies(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.List, Apply: func(*seal.Tx) (*engine.Answer, error) {
		names := e.host.Charter().PasswordPolicyNames(e.host.Mount)
		if len(names) == 0 {
			return nil, engine.ErrNotThere
		}
		return &engine.Answer{Data: map[string]any{"keys": names}}, nil
	}}, nil
}

// worth is a policy and what its passwords are worth.
type worth struct {
	*charter.PasswordPolicy
	Bits int `json:"bits"`
}

func (e *Engine) planReadPolicy(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	var found *engine.Answer
	work := func(context.Context) error { // it counts, which takes milliseconds
		p, err := e.policy(c.Rest[1])
		if err != nil {
			return err
		}
		found = &engine.Answer{Data: worth{p, p.Bits()}}
		return nil
	}
	apply := func(*seal.Tx) (*engine.Answer, error) { return found, nil }
	return &engine.Plan{Needs: access.Read, Work: work, Apply: apply}, nil
}

// planGenerate makes a password that nobody keeps but who asked.
func (e *Engine) planGenerate(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) {
		p, err := e.policy(c.Rest[1])
		if err != nil {
			return nil, err
		}
		pw, err := generate(p)
		if err != nil {
			return nil, err
		}
		return &engine.Answer{
			Data: map[string]any{"password": string(pw), "policy_version": p.Version}, Result: map[string]any{"policy_version": p.Version},
		}, nil
	}}, nil
}
