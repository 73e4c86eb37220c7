package identity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// hintProcess is what a client gets that would configure who may ask.
const hintProcess = "processes are the charter's: 'keyrite charter propose identity --body FILE'"

// ErrTooManySecrets says that a role has as many secret ids out as it may.
var ErrTooManySecrets = fault.New(fault.Quota, "too many secret ids are out")

// Plan plans what a policy may allow under auth/: secret ids of roles, and tokens of
// others by accessor. Registry is so an engine.Engine, of the place "auth"; logins and
// what a process does with its own token are Login and Self.
func (r *Registry) Plan(q *engine.Request) (*engine.Plan, error) {
	rest := q.Rest
	switch {
	case len(rest) >= 3 && rest[0] == MeansAppRole && rest[1] == "role":
		return r.planRole(q, rest[2], rest[3:])
	case len(rest) == 2 && rest[0] == "token" && q.Method == engine.Write:
		return r.planToken(q, rest[1])
	case len(rest) > 0 && (rest[0] == MeansCertificate || rest[0] == MeansJWT || rest[0] == MeansAppRole || rest[0] == "token"):
		return nil, byCharter("configure " + rest[0])
	}
	return nil, fmt.Errorf("auth: %w", engine.ErrNoPath)
}

func byCharter(what string) error {
	return fault.Hint(fmt.Errorf("%s: %w", what, engine.ErrByCharter), hintProcess)
}

// planToken plans an operation on the token with an accessor.
func (r *Registry) planToken(q *engine.Request, op string) (*engine.Plan, error) {
	if op != "lookup-accessor" && op != "revoke-accessor" {
		return nil, byCharter("token " + op)
	}
	if err := q.Params.Only("accessor"); err != nil {
		return nil, err
	}
	name, err := q.Params.String("accessor")
	if err != nil {
		return nil, err
	}
	if op == "revoke-accessor" {
		return r.revoke(name), nil
	}
	plan, err := r.lookup(name, nil)
	if err == nil {
		plan.Needs = access.Update // it is a write to clients, and to policies
	}
	return plan, err
}

// role is the identity that a role is.
func (r *Registry) role(id string) (*charter.Identity, error) {
	x, ok := r.charter().Access.Identities[id]
	if !ok || x.AppRole == nil {
		return nil, fmt.Errorf("role %.40q: %w", id, engine.ErrNotThere)
	}
	return &x, nil
}

// planRole plans an operation on a role and its secret ids. Whether there is such a
// role is for those to know whom a policy lets ask: it is looked up when the plan is
// made true.
func (r *Registry) planRole(q *engine.Request, role string, op []string) (*engine.Plan, error) {
	plan, err := r.planOfRole(q, role, op)
	if err != nil {
		return nil, err
	}
	apply := plan.Apply
	plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		if _, err := r.role(role); err != nil {
			return nil, err
		}
		return apply(tx)
	}
	return plan, nil
}

func (r *Registry) planOfRole(q *engine.Request, role string, op []string) (*engine.Plan, error) {
	switch {
	case len(op) == 0 && q.Method == engine.Read:
		return r.planRoleRead(role), q.Params.Only()
	case len(op) == 1 && op[0] == "role-id" && q.Method == engine.Read:
		return planRoleID(role), q.Params.Only()
	case len(op) == 1 && op[0] == "secret-id" && q.Method == engine.Write:
		return planNewSecret(q, role)
	case len(op) == 1 && op[0] == "secret-id" && q.Method == engine.List:
		return r.planListSecrets(role), q.Params.Only()
	case len(op) == 2 && op[0] == "secret-id-accessor" && op[1] == "lookup" && q.Method == engine.Write:
		return r.planSecret(q, role, lookupSecret)
	case len(op) == 2 && op[0] == "secret-id-accessor" && op[1] == "destroy" && q.Method == engine.Write:
		return r.planSecret(q, role, destroySecret)
	case len(op) == 0 && q.Method != engine.List, len(op) == 1 && op[0] == "custom-secret-id":
		return nil, byCharter("role " + role)
	}
	return nil, fmt.Errorf("role %s: %w", role, engine.ErrNoPath)
}

// planRoleRead: what the charter says of a role, in the words of clients.
func (r *Registry) planRoleRead(role string) *engine.Plan {
	return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) {
		x, err := r.role(role)
		if err != nil {
			return nil, err
		}
		return &engine.Answer{Data: map[string]any{
			"token_policies": x.Policies, "token_ttl": x.TTL, "token_max_ttl": max(x.TTL, x.MaxTTL),
			"token_bound_cidrs": x.AppRole.Networks, "secret_id_bound_cidrs": x.AppRole.Networks, "bind_secret_id": true,
		}}, nil
	}}
}

// planRoleID: the role id is the identity's id, and no secret.
func planRoleID(role string) *engine.Plan {
	return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) {
		return &engine.Answer{Data: map[string]any{"role_id": role}}, nil
	}}
}

// planNewSecret plans a secret id for some logins, one if the request does not say
// more, and for some time.
func planNewSecret(q *engine.Request, role string) (*engine.Plan, error) {
	if err := q.Params.Only("num_uses", "ttl"); err != nil {
		return nil, err
	}
	uses, err := q.Params.Int("num_uses")
	if err != nil {
		return nil, err
	}
	ttl, err := q.Params.Duration("ttl")
	if err != nil {
		return nil, err
	}
	if !q.Params.Has("num_uses") {
		uses = 1
	}
	if !q.Params.Has("ttl") {
		ttl = defaultSecretTTL
	}
	if uses < 1 || uses > maxSecretUses || ttl < time.Second || ttl > maxSecretTTL {
		return nil, fault.Errorf(fault.Usage, "a secret id is for 1 to %d logins and 1 second to %v; nothing is for ever", maxSecretUses, maxSecretTTL)
	}
	secret := encodeSecret(SecretPrefix)
	h, err := hashSecret(SecretPrefix, secret)
	if err != nil {
		return nil, err
	}
	name := accessorOf(h)
	rec := &secretID{By: q.Caller.Identity, Expires: q.Now.Add(ttl).Unix(), Hash: hex.EncodeToString(h[:]), Issued: q.Now.Unix(), Uses: int(uses)}
	data := map[string]any{"secret_id": string(secret.Bytes()), "secret_id_accessor": name, "secret_id_num_uses": int(uses), "secret_id_ttl": int(ttl / time.Second)}
	return &engine.Plan{
		Needs: access.Update, Shown: map[string]any{"role": role, "num_uses": int(uses), "ttl": int(ttl / time.Second)},
		Apply: func(tx *seal.Tx) (*engine.Answer, error) {
			if err := roomForSecret(tx, role, q.Now.Unix()); err != nil {
				return nil, err
			}
			if err := putSecret(tx, secretKey(role, name), rec); err != nil {
				return nil, err
			}
			return &engine.Answer{Data: data, Result: map[string]any{"accessor": name}}, nil
		},
	}, nil
}

// roomForSecret clears what is over once a role has as many as it may.
func roomForSecret(tx *seal.Tx, role string, now int64) error {
	keys := tx.Keys(bucketSecrets, role+"/")
	if len(keys) < maxSecrets {
		return nil
	}
	left := len(keys)
	for _, k := range keys {
		_, accessor := roleOf(k)
		s, err := readSecret(tx, role, accessor)
		if err != nil {
			return err
		}
		if now < s.Expires {
			continue
		}
		if err := tx.Delete(bucketSecrets, k); err != nil {
			return err
		}
		left--
	}
	if left >= maxSecrets {
		return fault.Errorf(fault.Quota, "%w: %d of role %s", ErrTooManySecrets, left, role)
	}
	return nil
}

func (r *Registry) planListSecrets(role string) *engine.Plan {
	return &engine.Plan{Needs: access.List, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		names := []string{}
		for _, k := range tx.Keys(bucketSecrets, role+"/") {
			_, accessor := roleOf(k)
			names = append(names, accessor)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("secret ids of role %s: %w", role, engine.ErrNotThere)
		}
		return &engine.Answer{Data: map[string]any{"keys": names}}, nil
	}}
}

// planSecret plans an operation on the secret id with an accessor.
func (r *Registry) planSecret(q *engine.Request, role string, do func(*seal.Tx, string, string, *secretID) (*engine.Answer, error)) (*engine.Plan, error) {
	if err := q.Params.Only("secret_id_accessor"); err != nil {
		return nil, err
	}
	name, err := q.Params.String("secret_id_accessor")
	if err != nil {
		return nil, err
	}
	if raw, err := hex.DecodeString(name); err != nil || len(raw) != 16 || hex.EncodeToString(raw) != name {
		return nil, fault.Errorf(fault.Usage, "%.40q is no accessor of a secret id", name)
	}
	return &engine.Plan{
		Needs: access.Update, Strict: true, Shown: map[string]any{"role": role, "accessor": name},
		Apply: func(tx *seal.Tx) (*engine.Answer, error) {
			s, err := readSecret(tx, role, name)
			if errors.Is(err, seal.ErrNotFound) {
				err = engine.ErrNotThere
			}
			if err != nil {
				return nil, fmt.Errorf("secret id %s of role %s: %w", name, role, err)
			}
			return do(tx, role, name, s)
		},
	}, nil
}

func lookupSecret(_ *seal.Tx, _, name string, s *secretID) (*engine.Answer, error) {
	at := func(sec int64) string { return time.Unix(sec, 0).UTC().Format(time.RFC3339) }
	return &engine.Answer{Data: map[string]any{
		"secret_id_accessor": name, "secret_id_num_uses": s.Uses, "secret_id_ttl": s.Expires - s.Issued,
		"creation_time": at(s.Issued), "expiration_time": at(s.Expires), "issued_by": s.By,
	}}, nil
}

func destroySecret(tx *seal.Tx, role, name string, _ *secretID) (*engine.Answer, error) {
	return &engine.Answer{}, tx.Delete(bucketSecrets, secretKey(role, name))
}

// Found takes away the secret ids of roles that the charter ended. It is called in the
// transaction that takes a charter over, and may be called again.
func (r *Registry) Found(tx *seal.Tx, c *charter.State, _ time.Time) error {
	for _, k := range tx.Keys(bucketSecrets, "") {
		role, _ := roleOf(k)
		if x, ok := c.Access.Identities[role]; ok && x.AppRole != nil {
			continue
		}
		if err := tx.Delete(bucketSecrets, k); err != nil {
			return err
		}
	}
	return nil
}
