// Package account is what the relay knows about its customers: accounts, users,
// gateway entries with their activation keys, accepted devices and the signed
// account policies.
//
// keyrite-relay admin writes with it, relay/access asks it. Every lookup starts
// from an account or from a verified device, so nothing of one account is
// reachable from another. It can keep a policy and offer it; it must never make
// or change one, for it has no account's key.
package account

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"time"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
	"keyrite/relay/audit"
	"keyrite/relay/store"
	"keyrite/wire/control"
)

// ActivationLifetime is how long an activation key is good.
const ActivationLifetime = 30 * 24 * time.Hour

var (
	// ErrActivation is the one answer to every activation that fails.
	ErrActivation = fault.New(fault.Policy, "the activation key is not valid for this device")
	// ErrNotAccepted says that a genuine-looking device is in no acceptance.
	ErrNotAccepted = fault.New(fault.Policy, "the device is in no acceptance signed by headquarters")
	// ErrNotEnrolled says that a device belongs to no account.
	ErrNotEnrolled = fault.New(fault.Policy, "the device is not enrolled")
	// ErrGateway is the one answer for a gateway that is unknown, off, or of
	// somebody else.
	ErrGateway = fault.New(fault.Policy, "no such gateway in this account")
	// ErrNoPolicy says that an account has no policy yet.
	ErrNoPolicy = fault.New(fault.Policy, "the account has no policy yet")
	// ErrName says that a name cannot be used.
	ErrName = fault.New(fault.Usage, "a name is 1 to 63 of a-z, 0-9 and dashes (users: also dots and underscores), beginning with a letter or digit")
)

var (
	idRE   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
)

// Registry is the whole of it.
type Registry struct {
	DB    *store.DB
	Trail *audit.Trail
	World world.World
	Now   func() time.Time
}

// effect runs change and its audit entry in one transaction.
func (r *Registry) effect(ctx context.Context, e audit.Entry, change func(*store.Tx) error) error {
	if e.Actor == "" {
		e.Actor = "admin"
	}
	e.Result = audit.Done
	return r.DB.Do(ctx, func(tx *store.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		if err := tx.Bump(); err != nil {
			return err
		}
		return r.Trail.Add(tx, e)
	})
}

func (r *Registry) stamp() string { return audit.Stamp(r.Now()) }

// AddAccount adds an account with its policy key, DER SubjectPublicKeyInfo.
func (r *Registry) AddAccount(ctx context.Context, id string, policyKey []byte) error {
	if !idRE.MatchString(id) {
		return ErrName
	}
	pub, err := x509.ParsePKIXPublicKey(policyKey)
	if err != nil {
		return fault.Errorf(fault.Usage, "policy key: %w", err)
	}
	if err := policy.CheckKey(pub); err != nil {
		return fault.Errorf(fault.Usage, "%w", err)
	}
	return r.effect(ctx, audit.Entry{Account: id, Action: "add-account", Object: "policy key " + birthcert.Hash(policyKey)}, func(tx *store.Tx) error {
		return name(tx.AddAccount(store.Account{ID: id, PolicyKey: policyKey, Created: r.stamp()}), "account "+id)
	})
}

// name says what was not found or exists already.
func name(err error, what string) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
		return fault.Errorf(fault.ClassOf(err), "%s: %w", what, err)
	}
	return err
}

// AddUser adds a user with a password hash.
func (r *Registry) AddUser(ctx context.Context, account, user, hash string) error {
	if !nameRE.MatchString(user) {
		return ErrName
	}
	return r.effect(ctx, audit.Entry{Account: account, Action: "add-user", Object: "user " + user}, func(tx *store.Tx) error {
		return name(tx.AddUser(store.User{Account: account, Name: user, Password: hash, Created: r.stamp()}), "user "+user+" of account "+account)
	})
}

// SetPassword changes a password hash and ends the user's logins.
func (r *Registry) SetPassword(ctx context.Context, account, user, hash string) error {
	return r.effect(ctx, audit.Entry{Account: account, Action: "set-password", Object: "user " + user}, func(tx *store.Tx) error {
		return name(tx.SetPassword(account, user, hash), "user "+user)
	})
}

// DisableUser switches a user off (ending all logins) or on.
func (r *Registry) DisableUser(ctx context.Context, account, user string, off bool) error {
	return r.effect(ctx, audit.Entry{Account: account, Action: onOff(off) + "-user", Object: "user " + user}, func(tx *store.Tx) error {
		return name(tx.DisableUser(account, user, off), "user "+user)
	})
}

// DisableGateway switches a gateway off or on.
func (r *Registry) DisableGateway(ctx context.Context, account, id string, off bool) error {
	return r.effect(ctx, audit.Entry{Account: account, Action: onOff(off) + "-gateway", Object: "gateway " + id}, func(tx *store.Tx) error {
		return name(tx.DisableGateway(account, id, off), "gateway "+id)
	})
}

// DisableAccount switches a whole account off or on.
func (r *Registry) DisableAccount(ctx context.Context, account string, off bool) error {
	return r.effect(ctx, audit.Entry{Account: account, Action: onOff(off) + "-account"}, func(tx *store.Tx) error {
		return name(tx.DisableAccount(account, off), "account "+account)
	})
}

func onOff(off bool) string {
	if off {
		return "disable"
	}
	return "enable"
}

// RemoveGateway deletes an entry; its device may enrol again, anywhere.
func (r *Registry) RemoveGateway(ctx context.Context, account, id string) error {
	return r.effect(ctx, audit.Entry{Account: account, Action: "remove-gateway", Object: "gateway " + id}, func(tx *store.Tx) error {
		return name(tx.RemoveGateway(account, id), "gateway "+id)
	})
}

// AddGateway adds an entry and returns its activation key, which is shown once
// and stored only as its hash.
func (r *Registry) AddGateway(ctx context.Context, account, id string) (key, expires string, err error) {
	if !idRE.MatchString(id) {
		return "", "", ErrName
	}
	var raw [16]byte
	rand.Read(raw[:])
	key = base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw[:])
	expires = audit.Stamp(r.Now().Add(ActivationLifetime))
	err = r.effect(ctx, audit.Entry{Account: account, Action: "add-gateway", Object: "gateway " + id}, func(tx *store.Tx) error {
		return name(tx.AddGateway(store.Gateway{Account: account, ID: id, Activation: hashKey(key), Expires: expires}), "gateway "+id+" of account "+account)
	})
	return group(key), expires, err
}

// group writes a key in fives, for people.
func group(key string) string {
	var parts []string
	for len(key) > 5 {
		parts, key = append(parts, key[:5]), key[5:]
	}
	return strings.Join(append(parts, key), "-")
}

func hashKey(key string) string {
	sum := sha256.Sum256([]byte("keyrite activation key v1 " + control.NormalKey(key)))
	return hex.EncodeToString(sum[:])
}

func row(d *birthcert.Identity) store.Accepted {
	return store.Accepted{Serial: string(d.DeviceSerial), SPKI: d.SPKIHash, Cert: d.CertHash, Bundle: d.Bundle}
}

// Accepted returns nil if the device stands in an imported acceptance with
// exactly this key, certificate and bundle.
func (r *Registry) Accepted(ctx context.Context, d *birthcert.Identity) error {
	return r.DB.Read(ctx, func(tx *store.Tx) error { return accepted(tx, d) })
}

func accepted(tx *store.Tx, d *birthcert.Identity) error {
	err := tx.IsAccepted(row(d))
	if errors.Is(err, store.ErrNotFound) {
		return ErrNotAccepted
	}
	return err
}

// ImportAcceptance stores the devices of an acceptance of the report with that
// hash, which the caller
// verified. A report or device that was accepted before is refused as a whole.
func (r *Registry) ImportAcceptance(ctx context.Context, report string, data []byte, devices []store.Accepted) error {
	return r.effect(ctx, audit.Entry{Action: "import-acceptance", Object: "report " + report}, func(tx *store.Tx) error {
		err := tx.AddAcceptance(report, data, r.stamp(), devices)
		if errors.Is(err, store.ErrConflict) {
			return fault.New(fault.Policy, "import acceptance: its report, or a device in it, was accepted before")
		}
		return err
	})
}

// Enrol gives the entry of an activation key to a device.
func (r *Registry) Enrol(ctx context.Context, key string, d *birthcert.Identity, source string) (*store.Gateway, error) {
	var g store.Gateway
	e := audit.Entry{Action: "enrol", Actor: "gateway " + string(d.DeviceSerial), Object: "key " + d.SPKIHash, Source: source}
	err := r.DB.Do(ctx, func(tx *store.Tx) error {
		if err := accepted(tx, d); err != nil {
			return err
		}
		if err := tx.Enrol(hashKey(key), string(d.DeviceSerial), d.SPKIHash, r.stamp()); err != nil {
			if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
				return ErrActivation
			}
			return err
		}
		var err error
		if g, err = tx.GatewayBySPKI(d.SPKIHash); err != nil {
			return err
		}
		e.Account, e.Result = g.Account, audit.Done
		return r.Trail.Add(tx, e)
	})
	if err == nil {
		return &g, nil
	}
	e.Result, e.Class = audit.Refused, string(fault.ClassOf(err))
	return nil, errors.Join(err, r.Trail.Note(ctx, e))
}

// GatewayOf returns the entry of an accepted, enrolled device that is not off.
func (r *Registry) GatewayOf(ctx context.Context, d *birthcert.Identity) (*store.Gateway, error) {
	var g store.Gateway
	err := r.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if err := accepted(tx, d); err != nil {
			return err
		}
		g, err = tx.GatewayBySPKI(d.SPKIHash)
		return err
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && (g.Disabled || g.Serial != string(d.DeviceSerial)) {
		return nil, ErrNotEnrolled
	}
	return &g, err
}

// GatewayLive returns nil if the gateway id of account is enrolled with this
// key and not off.
func (r *Registry) GatewayLive(ctx context.Context, account, id, spki string) error {
	var g store.Gateway
	err := r.DB.Read(ctx, func(tx *store.Tx) (err error) {
		g, err = tx.Gateway(account, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && (g.Disabled || g.SPKI != spki) {
		return ErrGateway
	}
	return err
}

// Gateways lists the account's entries.
func (r *Registry) Gateways(ctx context.Context, account string) ([]store.Gateway, error) {
	var gs []store.Gateway
	err := r.DB.Read(ctx, func(tx *store.Tx) (err error) {
		gs, err = tx.Gateways(account)
		return err
	})
	return gs, err
}

// SetPolicy checks a signed policy against the account's key and stores it, if
// its version is higher than the one in force.
func (r *Registry) SetPolicy(ctx context.Context, account string, data []byte) (*policy.Policy, error) {
	var p *policy.Policy
	err := r.DB.Do(ctx, func(tx *store.Tx) error {
		a, err := tx.Account(account)
		if err != nil {
			return name(err, "account "+account)
		}
		if p, err = verify(data, a, r.World); err != nil {
			return err
		}
		old, err := tx.Policy(account)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := p.CheckNewer(old.Version, old.Hash); err != nil {
			return err
		}
		hash, err := p.Hash()
		if err != nil || p.Version == old.Version {
			return err // the very same policy again changes nothing
		}
		if err := tx.AddPolicy(store.Policy{Account: account, Version: p.Version, Hash: hash, Data: data}); err != nil {
			return err
		}
		if err := tx.Bump(); err != nil {
			return err
		}
		return r.Trail.Add(tx, audit.Entry{Account: account, Action: "set-policy", Actor: "admin", Object: "policy " + hash, Result: audit.Done})
	})
	return p, err
}

func verify(data []byte, a store.Account, w world.World) (*policy.Policy, error) {
	pub, err := policyKey(a.PolicyKey)
	if err != nil {
		return nil, err
	}
	return policy.Verify(data, pub, w, a.ID)
}

func policyKey(der []byte) (crypto.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "stored policy key: %w", err)
	}
	return pub, nil
}

// Policy returns the account's policy in force and its signed bytes. It is
// verified anew each time: a changed database denies, it does not permit.
func (r *Registry) Policy(ctx context.Context, account string) (*policy.Policy, []byte, error) {
	var a store.Account
	var row store.Policy
	err := r.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if a, err = tx.Account(account); err != nil {
			return err
		}
		row, err = tx.Policy(account)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, ErrNoPolicy
	}
	if err != nil {
		return nil, nil, err
	}
	p, err := verify(row.Data, a, r.World)
	if err != nil {
		return nil, nil, err
	}
	return p, row.Data, nil
}
