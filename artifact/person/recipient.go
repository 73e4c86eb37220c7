package person

import (
	"crypto/ecdh"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"

	"filippo.io/age"
	"filippo.io/age/tag"
	"filippo.io/hpke"

	"keyrite/artifact/fault"
)

// A recipient on P-256 is for a private half that a card may hold
// (c2sp.org/age, p256tag): HPKE with DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and
// ChaCha20-Poly1305 (RFC 9180).
const (
	tagPrefix = "age1tag1"
	tagStanza = "p256tag"
	tagInfo   = "age-encryption.org/p256tag"
	pointSize = 65 // uncompressed point
)

// ParseRecipient reads where a person's secrets are encrypted to: an X25519
// recipient or one on P-256, each in its one spelling.
func ParseRecipient(s string) (age.Recipient, error) {
	if isTag(s) {
		r, err := tag.ParseRecipient(s)
		if err != nil || r.Hybrid() || r.String() != s {
			return nil, fault.New(fault.Verify, "recipient is not an age recipient on P-256")
		}
		return r, nil
	}
	r, err := age.ParseX25519Recipient(s)
	if err != nil || r.String() != s {
		return nil, fault.New(fault.Verify, "recipient is not an age X25519 recipient")
	}
	return r, nil
}

func isTag(recipient string) bool { return strings.HasPrefix(recipient, tagPrefix) }

// Exchanger is a private key on P-256 that stays where it is.
type Exchanger interface {
	Curve() ecdh.Curve
	PublicKey() *ecdh.PublicKey
	ECDH(peer *ecdh.PublicKey) ([]byte, error)
}

// Identity opens what was encrypted to a recipient on P-256.
type Identity struct {
	key       hpke.PrivateKey
	recipient *tag.Recipient
}

// NewIdentity returns the identity of the private half x, which must be on P-256.
func NewIdentity(x Exchanger) (*Identity, error) {
	if x.Curve() != ecdh.P256() || len(x.PublicKey().Bytes()) != pointSize {
		return nil, fault.New(fault.Verify, "the key for secrets is not on P-256")
	}
	point := x.PublicKey().Bytes()
	compressed := append([]byte{2 | point[pointSize-1]&1}, point[1:33]...) // SEC 1, Section 2.3.3
	r, err := tag.NewClassicRecipient(compressed)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "recipient of the card: %w", err)
	}
	k, err := hpke.NewDHKEMPrivateKey(x)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "identity of the card: %w", err)
	}
	return &Identity{k, r}, nil
}

// Recipient is the public half in its spelling.
func (i *Identity) Recipient() string { return i.recipient.String() }

// Unwrap implements age.Identity.
func (i *Identity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != tagStanza {
			continue
		}
		key, err := i.unwrap(s)
		if !errors.Is(err, age.ErrIncorrectIdentity) {
			return key, err
		}
	}
	return nil, age.ErrIncorrectIdentity
}

func (i *Identity) unwrap(s *age.Stanza) ([]byte, error) {
	if len(s.Args) != 2 || len(s.Body) != 32 {
		return nil, fault.New(fault.Verify, "age file: malformed p256tag stanza")
	}
	b64 := base64.RawStdEncoding.Strict()
	mark, err := b64.DecodeString(s.Args[0])
	enc, err2 := b64.DecodeString(s.Args[1])
	if err != nil || err2 != nil || len(mark) != 4 || len(enc) != pointSize {
		return nil, fault.New(fault.Verify, "age file: malformed p256tag stanza")
	}
	want, err := i.recipient.Tag(enc)
	if err != nil || subtle.ConstantTimeCompare(mark, want) != 1 {
		return nil, age.ErrIncorrectIdentity
	}
	r, err := hpke.NewRecipient(enc, i.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(tagInfo))
	if err != nil { // the card refused or is gone
		return nil, fault.Errorf(fault.ClassOf(err), "derive with the card: %w", err)
	}
	key, err := r.Open(nil, s.Body)
	if err != nil {
		return nil, age.ErrIncorrectIdentity // the tag is short and may be another's
	}
	return key, nil
}
