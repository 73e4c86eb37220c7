package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/internal/secmem"
)

// KeyBytes is the length of a data key.
const KeyBytes = chacha20poly1305.KeySize

// MinSecretBytes is the least length of a secret that a data key is wrapped
// under: that of a safe's root secret.
const MinSecretBytes = 32

// Place is where a data key belongs: a vault of a world, and the epoch of the
// safe whose secret opens it. It is bound into every value and every wrapping.
type Place struct {
	Vault [32]byte // vault id
	World world.World
	Epoch uint32 // from 1, counted per safe
}

func (p Place) check() error {
	if err := p.World.Check(); err != nil {
		return err
	}
	if p.Vault == [32]byte{} || p.Epoch == 0 {
		return fault.New(fault.Usage, "a store belongs to a vault and to an epoch of its safe")
	}
	return nil
}

// bytes is the place in the form that is bound, each part with its length.
func (p Place) bytes() []byte {
	b := parts([]byte(p.World), p.Vault[:])
	return binary.BigEndian.AppendUint32(b, p.Epoch)
}

// parts joins byte strings so that no two lists give the same bytes.
func parts(list ...[]byte) []byte {
	var out []byte
	for _, p := range list {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

// DataKey is the key of one store in one epoch.
type DataKey struct{ buf *secmem.Buffer }

// NewDataKey draws a data key. It must be wiped.
func NewDataKey() (*DataKey, error) {
	return fillKey(func(page []byte) error {
		_, err := rand.Read(page)
		return err
	})
}

// fillKey makes a data key whose bytes never lie elsewhere.
func fillKey(f func(page []byte) error) (*DataKey, error) {
	buf, err := secmem.New()
	if err != nil {
		return nil, err
	}
	err = buf.Fill(func(page []byte) (int, error) { return KeyBytes, f(page[:KeyBytes]) })
	if err != nil {
		buf.Wipe()
		return nil, err
	}
	return &DataKey{buf}, nil
}

// Wipe ends the key. A nil or wiped key is fine.
func (k *DataKey) Wipe() {
	if k != nil {
		k.buf.Wipe()
	}
}

// subkey derives the key for one use (HKDF, RFC 5869, with SHA-256).
func (k *DataKey) subkey(use string, p Place) ([]byte, error) {
	b := k.buf.Bytes()
	if len(b) != KeyBytes {
		return nil, fault.New(fault.Sealed, "the data key is wiped")
	}
	return hkdf.Key(sha256.New, b, p.bytes(), "keyrite store "+use+" v1", KeyBytes)
}

// wrapKey is the key-encryption key that follows from a safe's secret.
func wrapKey(secret []byte, p Place) (cipher.AEAD, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if len(secret) < MinSecretBytes {
		return nil, fault.New(fault.Usage, "the secret is too short to wrap a key under")
	}
	kek, err := hkdf.Key(sha256.New, secret, p.bytes(), "keyrite seal wrap v1", KeyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive the wrapping key: %w", err)
	}
	defer clear(kek)
	return chacha20poly1305.NewX(kek)
}

// Wrap encrypts the data key under the root secret of a safe, so that a quorum
// and the file restore the vault on a new token. Form: 24 bytes nonce, 32 bytes
// key, 16 bytes tag (XChaCha20-Poly1305).
func (k *DataKey) Wrap(secret []byte, p Place) ([]byte, error) {
	a, err := wrapKey(secret, p)
	if err != nil {
		return nil, err
	}
	b := k.buf.Bytes()
	if len(b) != KeyBytes {
		return nil, fault.New(fault.Sealed, "the data key is wiped")
	}
	nonce := make([]byte, a.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return a.Seal(nonce, nonce, b, p.bytes()), nil
}

// Unwrap is the inverse of Wrap. A secret or place that is not the one it was
// wrapped for gives ErrKey.
func Unwrap(wrapped, secret []byte, p Place) (*DataKey, error) {
	a, err := wrapKey(secret, p)
	if err != nil {
		return nil, err
	}
	if len(wrapped) != a.NonceSize()+KeyBytes+a.Overhead() {
		return nil, ErrKey
	}
	return fillKey(func(page []byte) error {
		n := a.NonceSize()
		if _, err := a.Open(page[:0], wrapped[:n], wrapped[n:], p.bytes()); err != nil {
			return ErrKey
		}
		return nil
	})
}
