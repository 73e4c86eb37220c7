package transit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/vault/seal"
)

// Types of keys, as charter.TransitTypes has them; and one that only tokens have.
const (
	typeAES     = "aes256-gcm96"
	typeP256    = "ecdsa-p256"
	typeP384    = "ecdsa-p384"
	typeEd25519 = "ed25519"
	typeHMAC    = "hmac"
	typeRSA     = "rsa-3072"
	typeRSA4096 = "rsa-4096"
)

const (
	storedFormat = "keyrite/transit-version/v1"
	secretBytes  = 32
	rsaBits      = 3072
)

// stored is one version of a software key as it lies in the store, in JCS.
type stored struct {
	Created string `json:"created"` // RFC 3339, UTC, whole seconds
	Format  string `json:"format"`
	MAC     []byte `json:"mac"`              // 32 bytes, for hmac with this key
	Public  []byte `json:"public,omitempty"` // DER SubjectPublicKeyInfo
	Secret  []byte `json:"secret"`           // 32 bytes, or DER PKCS #8
	Type    string `json:"type"`
}

// place is the key of a version within the mount's bucket.
func place(name string, version int) string { return fmt.Sprintf("%s/%d", name, version) }

func (e *Engine) bucket() string { return e.host.Bucket("transit") }
func (e *Engine) uses() string   { return e.host.Bucket("transit-uses") }

// Found implements engine.Founder: it makes the versions that the charter wants
// and that are not there, and destroys those of keys that it ended. What the
// charter does not mention is left alone.
func (e *Engine) Found(tx *seal.Tx, c *charter.State, now time.Time) error {
	for _, name := range c.TransitKeys(e.host.Mount) {
		k := c.Transit[charter.At(e.host.Mount, name)].Software
		for n := 1; k != nil && n <= k.Versions; n++ {
			if _, err := tx.Get(e.bucket(), place(name, n)); !errors.Is(err, seal.ErrNotFound) {
				if err != nil {
					return err
				}
				continue
			}
			if err := e.make(tx, k.Type, place(name, n), now); err != nil {
				return err
			}
		}
	}
	for _, bucket := range []string{e.bucket(), e.uses()} {
		for _, at := range tx.Keys(bucket, "") {
			name, _, _ := cutLast(at)
			if c.TransitEnded(charter.At(e.host.Mount, name)) {
				if err := tx.Delete(bucket, at); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func cutLast(at string) (before, after string, ok bool) {
	for i := len(at) - 1; i >= 0; i-- {
		if at[i] == '/' {
			return at[:i], at[i+1:], true
		}
	}
	return at, "", false
}

// make draws one version.
func (e *Engine) make(tx *seal.Tx, typ, at string, now time.Time) error {
	s := stored{Created: charter.FormatTime(now), Format: storedFormat, MAC: make([]byte, secretBytes), Type: typ}
	rand.Read(s.MAC)
	if err := s.draw(); err != nil {
		return fmt.Errorf("make key %s: %w", at, err)
	}
	defer clear(s.Secret)
	defer clear(s.MAC)
	raw, err := jcs.Marshal(s)
	if err != nil {
		return err
	}
	defer clear(raw)
	return tx.Put(e.bucket(), at, raw)
}

// draw makes the secret of the type.
func (s *stored) draw() error {
	var k crypto.Signer
	var err error
	switch s.Type {
	case typeAES, typeHMAC:
		s.Secret = make([]byte, secretBytes)
		rand.Read(s.Secret)
		return nil
	case typeP256:
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case typeP384:
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case typeEd25519:
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case typeRSA:
		k, err = rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		return fault.Errorf(fault.Unexpected, "no keys of type %q are made", s.Type)
	}
	if err != nil {
		return err
	}
	if s.Secret, err = x509.MarshalPKCS8PrivateKey(k); err != nil {
		return err
	}
	s.Public, err = x509.MarshalPKIXPublicKey(k.Public())
	return err
}

// parseStored reads a version out of the store.
func parseStored(raw []byte) (*stored, error) {
	var s stored
	if err := jcs.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	if s.Format != storedFormat || len(s.MAC) != secretBytes || len(s.Secret) == 0 {
		return nil, fault.Errorf(fault.Verify, "a key in the store has format %.40q, or is not whole", s.Format)
	}
	return &s, nil
}

// signer is the private half.
func (s *stored) signer() (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(s.Secret)
	if err != nil {
		return nil, fault.New(fault.Verify, "a key in the store is not one") // the cause could show it
	}
	signer, ok := k.(crypto.Signer)
	if !ok {
		return nil, fault.New(fault.Verify, "a key in the store does not sign")
	}
	return signer, nil
}

// wipe clears what can be cleared.
func (s *stored) wipe() {
	clear(s.Secret)
	clear(s.MAC)
}
