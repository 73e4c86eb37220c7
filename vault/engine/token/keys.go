package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

const storedFormat = "keyrite/token-key/v1"

// stored is one version of a role's key as it lies in the store, in JCS.
type stored struct {
	Algorithm string `json:"algorithm"`
	Created   string `json:"created"`
	Format    string `json:"format"`
	Public    []byte `json:"public"` // DER SubjectPublicKeyInfo
	Secret    []byte `json:"secret"` // DER PKCS #8
}

// place is the key of a version within the mount's bucket. No name has a "#".
func place(name string, n int) string { return name + "#" + strconv.Itoa(n) }

func parsePlace(at string) (name string, n int) {
	name, num, _ := strings.Cut(at, "#")
	n, err := strconv.Atoi(num)
	if err != nil {
		return name, 0
	}
	return name, n
}

// Found implements engine.Founder: it makes the versions that the charter wants and
// that are not there, and destroys those that it left behind and those of roles that
// it ended. What the charter does not mention is left alone.
func (e *Engine) Found(tx *seal.Tx, c *charter.State, now time.Time) error {
	for _, name := range c.TokenRoleNames(e.host.Mount) {
		k := c.TokenRoles[charter.At(e.host.Mount, name)].Software
		for n := 1; k != nil && n <= k.Versions; n++ {
			if err := e.found(tx, name, n, k, now); err != nil {
				return err
			}
		}
	}
	for _, at := range tx.Keys(e.keys, "") {
		if name, _ := parsePlace(at); c.TokenRoleEnded(charter.At(e.host.Mount, name)) {
			if err := tx.Delete(e.keys, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// found brings one version to what the charter wants.
func (e *Engine) found(tx *seal.Tx, name string, n int, k *charter.TokenKeys, now time.Time) error {
	_, err := tx.Get(e.keys, place(name, n))
	switch {
	case err != nil && !errors.Is(err, seal.ErrNotFound):
		return err
	case n < k.Oldest && err == nil:
		return tx.Delete(e.keys, place(name, n))
	case n < k.Oldest || err == nil:
		return nil
	}
	return e.make(tx, place(name, n), k.Algorithm, now)
}

func (e *Engine) make(tx *seal.Tx, at, algorithm string, now time.Time) error {
	var key crypto.Signer
	var err error
	switch algorithm {
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fault.Errorf(fault.Unexpected, "no keys are made for %q", algorithm)
	}
	if err != nil {
		return fmt.Errorf("make token key %s: %w", at, err)
	}
	s := stored{Algorithm: algorithm, Created: charter.FormatTime(now), Format: storedFormat}
	if s.Public, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return err
	}
	if s.Secret, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return err
	}
	defer clear(s.Secret)
	raw, err := jcs.Marshal(s)
	if err != nil {
		return err
	}
	defer clear(raw)
	return tx.Put(e.keys, at, raw)
}

// load reads one version; its secret must be wiped.
func (e *Engine) load(v *seal.View, role *charter.TokenRole, n int) (*stored, error) {
	raw, err := v.Get(e.keys, place(role.Name, n))
	if errors.Is(err, seal.ErrNotFound) {
		err = fault.Errorf(fault.Unexpected, "version %d of the key of token role %s is in the charter and not in the store", n, role.Name)
	}
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	var s stored
	if err := jcs.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	if s.Format != storedFormat || s.Algorithm != role.Software.Algorithm {
		clear(s.Secret)
		return nil, fault.Errorf(fault.Verify, "version %d of the key of token role %s is of another kind in the store", n, role.Name)
	}
	return &s, nil
}

// signer is what signs the tokens of a role now.
type signer struct {
	key       crypto.Signer
	public    jose.JSONWebKey
	algorithm jose.SignatureAlgorithm
}

// signer finds it, in the store or in the token.
func (e *Engine) signer(ctx context.Context, role *charter.TokenRole) (*signer, error) {
	if role.Software == nil {
		return e.tokenSigner(ctx, role)
	}
	var s *stored
	err := e.host.View(func(v *seal.View) (err error) {
		s, err = e.load(v, role, role.Software.Signing)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer clear(s.Secret)
	k, err := x509.ParsePKCS8PrivateKey(s.Secret)
	if err != nil {
		return nil, fault.New(fault.Verify, "a key in the store is not one") // the cause could show it
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, fault.New(fault.Verify, "a key in the store does not sign")
	}
	pub, err := publicKey(s.Public, s.Algorithm)
	if err != nil {
		return nil, err
	}
	return &signer{key, *pub, jose.SignatureAlgorithm(s.Algorithm)}, nil
}

func (e *Engine) tokenSigner(ctx context.Context, role *charter.TokenRole) (*signer, error) {
	if e.host.Token == nil {
		return nil, fault.New(fault.Sealed, "the token with the key of this role is not open")
	}
	k, rec, err := e.host.Token.Signer(ctx, role.TokenKey)
	if err != nil {
		return nil, err
	}
	if rec.Domain != anchor.DomainJWT {
		return nil, fault.Errorf(fault.Policy, "key %s signs %s, not %s", rec.ID, rec.Domain, anchor.DomainJWT)
	}
	alg := algorithmOf(rec.Algorithm)
	pub, err := publicKey(rec.Public, alg)
	if err != nil {
		return nil, err
	}
	return &signer{k.Within(ctx), *pub, jose.SignatureAlgorithm(alg)}, nil
}

// algorithmOf is the algorithm of RFC 7518 for one of key records.
func algorithmOf(a string) string {
	return map[string]string{
		anchor.P256: "ES256", anchor.P384: "ES384", anchor.Ed25519: "EdDSA",
		anchor.RSA3072: "RS256", anchor.RSA4096: "RS256", anchor.RSA3072PSS: "PS256", anchor.RSA4096PSS: "PS256",
	}[a]
}

// publicKey is a key as others read it. Its id is the thumbprint of RFC 7638.
func publicKey(spki []byte, algorithm string) (*jose.JSONWebKey, error) {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "public half of a token key: %w", err)
	}
	k := &jose.JSONWebKey{Key: pub, Algorithm: algorithm, Use: "sig"}
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "public half of a token key: %w", err)
	}
	k.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	return k, nil
}

// published are the public keys of a role that services may meet.
func (e *Engine) published(v *seal.View, role *charter.TokenRole) ([]jose.JSONWebKey, error) {
	if role.Software == nil {
		rec, err := e.host.Charter().Key(role.TokenKey, anchor.DomainJWT)
		if fault.ClassOf(err) == fault.Policy {
			return nil, nil // retired: nobody shall believe it
		}
		if err != nil {
			return nil, err
		}
		k, err := publicKey(rec.Public, algorithmOf(rec.Algorithm))
		if err != nil {
			return nil, err
		}
		return []jose.JSONWebKey{*k}, nil
	}
	var out []jose.JSONWebKey
	for n := role.Software.Oldest; n <= role.Software.Versions; n++ {
		s, err := e.load(v, role, n)
		if err != nil {
			return nil, err
		}
		clear(s.Secret)
		k, err := publicKey(s.Public, s.Algorithm)
		if err != nil {
			return nil, err
		}
		out = append(out, *k)
	}
	return out, nil
}

var _ engine.Founder = (*Engine)(nil)
