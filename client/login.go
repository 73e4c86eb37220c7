package client

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/policy"
	"keyrite/internal/durable"
	"keyrite/wire/control"
)

// LoginOptions of Login.
type LoginOptions struct {
	Access, Account, User string
	Password              []byte
	Anchors               *anchor.Anchors // as they were read aloud
	Succession            []byte          // statement file, nil to go on with the one that is known
	PolicyKey             []byte          // DER SubjectPublicKeyInfo
}

// Login logs in and keeps the login. The anchors, the succession statement and the
// policy key are the user's, from his administrator, never from the relay. What a
// statement once said is not taken back by an older one.
func (h *Home) Login(ctx context.Context, o LoginOptions) (*Session, error) {
	if !nameRE.MatchString(o.Account) || !nameRE.MatchString(o.User) {
		return nil, fault.New(fault.Usage, "account and user are names of a-z, 0-9 and dashes")
	}
	l := login{Access: o.Access, Account: o.Account, Format: formatLogin, PolicyKey: o.PolicyKey, User: o.User, World: o.Anchors.World}
	kept, inForce, err := h.inForce(o.Anchors, o.Succession)
	if err != nil {
		return nil, err
	}
	s, err := h.session(l, inForce)
	if err != nil {
		return nil, err
	}
	in, err := s.control.Login(ctx, o.Account, o.User, o.Password)
	if err != nil {
		return nil, err
	}
	s.login.Token, s.login.Expires, s.control.Token = in.Token, in.Expires, in.Token
	lb, err := jcs.Marshal(s.login)
	if err != nil {
		return nil, err
	}
	if err := h.keep(o.Anchors, kept); err != nil {
		return nil, err
	}
	return s, durable.Replace(filepath.Join(h.dir, loginFile), lb, 0o600)
}

// keep writes the statement, nil for none, and then the anchors that it belongs to: a
// cut between them leaves the login of before, with the statement of its anchors.
func (h *Home) keep(a *anchor.Anchors, kept []byte) error {
	anchors, err := a.Marshal()
	if err != nil {
		return err
	}
	name, err := h.statementFile(a)
	if err != nil {
		return err
	}
	if kept != nil {
		if err := durable.Replace(name, kept, 0o600); err != nil {
			return err
		}
	}
	return durable.Replace(filepath.Join(h.dir, anchorFile), anchors, 0o600)
}

// Logout ends the login here and, if it answers, at the relay.
func (s *Session) Logout(ctx context.Context) error {
	err := s.control.Logout(ctx)
	if rerr := os.Remove(filepath.Join(s.home.dir, loginFile)); rerr != nil {
		return fault.Errorf(fault.Storage, "remove login: %w", rerr)
	}
	if fault.ClassOf(err) == fault.Token {
		return nil // it had ended already
	}
	return err
}

// Gateways lists what the user may see.
func (s *Session) Gateways(ctx context.Context) ([]control.Gateway, error) {
	out, err := s.control.Gateways(ctx)
	if err != nil {
		return nil, err
	}
	return out.Gateways, nil
}

// seen is the highest policy that this machine has seen, by account.
type seen struct {
	Account string `json:"account"`
	Format  string `json:"format"`
	Hash    string `json:"hash"`
	Version int64  `json:"version"`
}

// Policy fetches the account policy and takes it only from the account's own
// key, in force, and never older than one that was seen here.
func (s *Session) Policy(ctx context.Context) (*policy.Policy, error) {
	data, err := s.control.UserPolicy(ctx)
	if err != nil {
		return nil, err
	}
	p, err := policy.Verify(data, s.key, s.anchors.World, s.login.Account)
	if err != nil {
		return nil, err
	}
	if err := p.CheckTime(time.Now()); err != nil {
		return nil, err
	}
	return p, s.remember(p)
}

func (s *Session) remember(p *policy.Policy) error {
	path := filepath.Join(s.home.dir, seenFile)
	var old seen
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fault.Errorf(fault.Storage, "read the last policy seen: %w", err)
	default:
		if err := jcs.Unmarshal(b, &old); err != nil || old.Format != formatSeen {
			return fault.New(fault.Storage, "the record of the last policy seen is damaged")
		}
	}
	if old.Account == p.Account {
		if err := p.CheckNewer(old.Version, old.Hash); err != nil {
			return err
		}
		if p.Version == old.Version {
			return nil
		}
	}
	hash, err := p.Hash()
	if err != nil {
		return err
	}
	b, err = jcs.Marshal(seen{Account: p.Account, Format: formatSeen, Hash: hash, Version: p.Version})
	if err != nil {
		return err
	}
	return durable.Replace(path, b, 0o600)
}

// ParsePolicyKey reads a public policy key, one PEM block.
func ParsePolicyKey(data []byte) ([]byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
		return nil, fault.New(fault.Usage, "the policy key is not one PEM block PUBLIC KEY")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "policy key: %w", err)
	}
	if err := policy.CheckKey(pub); err != nil {
		return nil, fault.Errorf(fault.Usage, "%w", err)
	}
	return block.Bytes, nil
}
