// Package keyspec says what a key in a token must look like: its id, its
// template, and every attribute it must show when it is read back. Package
// hsm uses it to judge what a token answers, hsm/p11 to build what it asks
// for, so the two cannot drift apart. It never talks to a token.
//
// There are no defaults in it. PKCS#11 leaves the value of an omitted
// attribute to the maker of the token, so each one is stated at birth and
// compared afterwards; one that a token does not report fails the comparison.
package keyspec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Algorithm names the kind of a key. An RSA key has one padding for all
// its life: CKA_ALLOWED_MECHANISMS holds one mechanism.
type Algorithm string

// The algorithms that templates exist for, each with what it signs.
const (
	ECDSAP256    Algorithm = "ecdsa-p256"     // a SHA-256 digest, with CKM_ECDSA
	ECDSAP384    Algorithm = "ecdsa-p384"     // a SHA-384 digest, with CKM_ECDSA
	Ed25519      Algorithm = "ed25519"        // the message itself, with CKM_EDDSA
	RSA3072PKCS1 Algorithm = "rsa-3072-pkcs1" // a SHA-256 digest, with CKM_RSA_PKCS
	RSA4096PKCS1 Algorithm = "rsa-4096-pkcs1"
	RSA3072PSS   Algorithm = "rsa-3072-pss" // a SHA-256 digest, with CKM_RSA_PKCS_PSS and a salt of 32 bytes
	RSA4096PSS   Algorithm = "rsa-4096-pss"

	// Secret keys, each with its one mechanism.
	AES256     Algorithm = "aes-256"      // CKM_AES_GCM, nonce of 12 bytes, tag of 16
	HMACSHA256 Algorithm = "hmac-sha-256" // CKM_SHA256_HMAC, of a message
)

// Algorithms lists those there are, in order.
func Algorithms() []Algorithm { return slices.Sorted(maps.Keys(families())) }

// Template names a set of usage attributes.
type Template string

// The templates.
const (
	// Sign may sign and nothing else.
	Sign Template = "sign"
	// RootSign is Sign with a login for each single signature
	// (CKA_ALWAYS_AUTHENTICATE).
	RootSign Template = "root-sign"
	// Movable is Sign for a key that will travel once: it may leave the token
	// wrapped under a key that the SO made trusted, and no other way. Ed25519
	// has no such template: no module that was tried wraps it.
	Movable Template = "movable"
	// TransportUnwrap receives: an RSA-3072 pair whose private half unwraps one
	// kind of key, by OAEP, and does nothing else. It is always direct.
	TransportUnwrap Template = "transport-unwrap"
	// Seal is an AES-256 key that encrypts and decrypts with CKM_AES_GCM and does
	// nothing else: it never wraps, so what it decrypts is never a key of the token.
	// It is always direct.
	Seal Template = "seal"
	// MAC is an HMAC-SHA-256 key that authenticates and does nothing else. It is
	// always direct.
	MAC Template = "mac"
)

// Stage is the place of a key between birth and rest; it decides TOKEN,
// MODIFIABLE and COPYABLE.
type Stage string

// The stages.
const (
	// Born: a session object that dies with its session, still copyable.
	Born Stage = "born"
	// Stored: the copy of a born key in the token. COPYABLE stays true,
	// because SoftHSM refuses to change it in a copy; admission proves that a
	// copy of an unmodifiable key cannot gain an attribute.
	Stored Stage = "stored"
	// Direct: born in the token at once, neither modifiable nor copyable.
	Direct Stage = "direct"
	// Moved: unwrapped from another token and copied into this one. It says so
	// itself: it is neither local nor always sensitive nor never extractable.
	Moved Stage = "moved"
)

// Spec asks for one key: a pair, or a secret key.
type Spec struct {
	Template  Template  `json:"template"`
	Algorithm Algorithm `json:"algorithm"`
	KeyID     KeyID     `json:"key_id"`
	// Label becomes CKA_LABEL: the name of the key, 1 to 32 of [a-z0-9-].
	Label string `json:"label"`
	// SessionObject asks for a born key; without it the key is direct.
	SessionObject bool `json:"session_object"`
}

// Stage returns the stage in which the key comes into being.
func (s Spec) Stage() Stage {
	if s.SessionObject {
		return Born
	}
	return Direct
}

// Check reports what is wrong with the request before any token sees it.
func (s Spec) Check() error {
	if want, secret := secretTemplates()[s.Algorithm]; secret || s.Template == Seal || s.Template == MAC {
		if !secret || s.Template != want || s.SessionObject {
			return errors.New("an aes-256 key is for seal, an hmac-sha-256 key for mac, both born in the token")
		}
		return s.checkNames()
	}
	f, ok := families()[s.Algorithm]
	if !ok {
		return fmt.Errorf("algorithm %q is not known", s.Algorithm)
	}
	switch s.Template {
	case Sign, RootSign:
	case Movable:
		if s.Algorithm == Ed25519 {
			return errors.New("an ed25519 key cannot be movable: tokens do not wrap it")
		}
	case TransportUnwrap:
		if f.bits != 3072 || s.SessionObject {
			return errors.New("a transport key is RSA-3072, born in the token")
		}
	default:
		return fmt.Errorf("template %q is not known", s.Template)
	}
	return s.checkNames()
}

func (s Spec) checkNames() error {
	if s.KeyID == (KeyID{}) {
		return errors.New("key id is all zero")
	}
	return CheckLabel(s.Label)
}

// Secret says that the spec asks for a secret key, which has no public half.
func (s Spec) Secret() bool {
	_, ok := secretTemplates()[s.Algorithm]
	return ok
}

// CheckLabel reports whether a label may be given to a key or a token.
// 32 bytes is the length of the label field of CK_TOKEN_INFO.
func CheckLabel(s string) error {
	if s == "" || len(s) > 32 {
		return fmt.Errorf("label %q: need 1 to 32 characters", s)
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("label %q: only a-z, 0-9 and - may stand in it", s)
		}
	}
	return nil
}
