// Package envelope reads, writes and verifies DSSE envelopes (secure-systems-lab
// dsse v1.0.2), the one wrapping of signed statements in keyrite.
//
// Use Sign or Add to sign, Verify to check. Verify takes the closed list of keys
// that may sign and the number of distinct ones needed; a signature by any other
// key, a repeated one or one that does not hold makes the whole envelope
// invalid, because a reader must never wonder which of them count. It must never
// look at the payload before the signatures hold.
//
// Compatibility: the envelope is the DSSE JSON envelope in canonical JSON with
// standard base64; keyid is the lower-case hex SHA-256 of the key's DER
// SubjectPublicKeyInfo and is required.
package envelope

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// Classes of refusal; the words are the expect: words of the vectors.
var (
	ErrSignature = fault.New(fault.Verify, "signature does not hold")
	ErrUnknown   = fault.New(fault.Verify, "signed by a key that may not sign this")
	ErrTwice     = fault.New(fault.Verify, "the same key signed twice")
	ErrType      = fault.New(fault.Verify, "payload type is not the one expected")
	ErrQuorum    = fault.New(fault.Quorum, "too few signatures")
	ErrKeyType   = fault.New(fault.Verify, "key type is not Ed25519 or ECDSA P-256")
)

// Signature is one signature of an envelope.
type Signature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

// Envelope is a DSSE envelope.
type Envelope struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []Signature `json:"signatures"`
}

// Key is a public key that may sign, with the name shown to people.
type Key struct {
	Name   string
	Public crypto.PublicKey
}

// KeyID returns the lower-case hex SHA-256 of pub's SubjectPublicKeyInfo.
func KeyID(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fault.Errorf(fault.Verify, "encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// PAE returns the bytes that a signature covers (DSSE pre-authentication
// encoding).
func PAE(payloadType string, payload []byte) []byte { return dsse.PAE(payloadType, payload) }

// Sign wraps payload and signs it with each signer in turn.
func Sign(payloadType string, payload []byte, signers ...crypto.Signer) (*Envelope, error) {
	e := &Envelope{Payload: payload, PayloadType: payloadType, Signatures: []Signature{}}
	for _, s := range signers {
		if err := e.Add(s); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// SignJSON is Sign of the canonical JSON of v (RFC 8785).
func SignJSON(payloadType string, v any, signers ...crypto.Signer) (*Envelope, error) {
	payload, err := jcs.Marshal(v)
	if err != nil {
		return nil, err
	}
	return Sign(payloadType, payload, signers...)
}

// Add appends a signature by s. A key that has signed already is refused.
func (e *Envelope) Add(s crypto.Signer) error {
	id, err := KeyID(s.Public())
	if err != nil {
		return err
	}
	for _, have := range e.Signatures {
		if have.KeyID == id {
			return ErrTwice
		}
	}
	sig, err := SignBytes(s, PAE(e.PayloadType, e.Payload))
	if err != nil {
		return err
	}
	e.Signatures = append(e.Signatures, Signature{KeyID: id, Sig: sig})
	return nil
}

// Marshal returns the canonical encoding of the envelope.
func (e *Envelope) Marshal() ([]byte, error) { return jcs.Marshal(e) }

// Parse reads an envelope in canonical form. It checks no signature.
func Parse(data []byte) (*Envelope, error) {
	var e Envelope
	if err := jcs.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	if e.PayloadType == "" || len(e.Signatures) == 0 {
		return nil, fault.New(fault.Verify, "envelope without payload type or signature")
	}
	return &e, nil
}

// Verify checks that e has the payload type, that every signature on it holds
// and is by one of keys, each once, and that they are at least need. It returns
// the payload and the names of those who signed, in the order of the envelope.
// A need below 1 is refused.
func Verify(e *Envelope, payloadType string, keys []Key, need int) ([]byte, []string, error) {
	if need < 1 {
		return nil, nil, fault.New(fault.Unexpected, "verification with a threshold below 1")
	}
	if e.PayloadType != payloadType {
		return nil, nil, fault.Errorf(fault.Verify, "%w: %q, not %q", ErrType, e.PayloadType, payloadType)
	}
	byID := make(map[string]Key, len(keys))
	for _, k := range keys {
		id, err := KeyID(k.Public)
		if err != nil {
			return nil, nil, err
		}
		byID[id] = k
	}
	pae := PAE(e.PayloadType, e.Payload)
	seen := map[string]bool{}
	names := []string{}
	for _, s := range e.Signatures {
		k, ok := byID[s.KeyID]
		if !ok {
			return nil, nil, fault.Errorf(fault.Verify, "%w: key %.16q", ErrUnknown, s.KeyID)
		}
		if seen[s.KeyID] {
			return nil, nil, fault.Errorf(fault.Verify, "%w: %s", ErrTwice, k.Name)
		}
		seen[s.KeyID] = true
		if err := CheckBytes(k.Public, pae, s.Sig); err != nil {
			return nil, nil, fault.Errorf(fault.Verify, "%s: %w", k.Name, err)
		}
		names = append(names, k.Name)
	}
	if len(names) < need {
		return nil, nil, fault.Errorf(fault.Quorum, "%w: %d of %d needed", ErrQuorum, len(names), need)
	}
	return bytes.Clone(e.Payload), names, nil
}

// SignBytes signs msg with an Ed25519 key (RFC 8032, pure) or an ECDSA P-256 key
// (over its SHA-256, ASN.1 DER). A crypto.MessageSigner gets the message itself,
// since somebody may have to read it.
func SignBytes(s crypto.Signer, msg []byte) ([]byte, error) {
	if m, ok := s.(crypto.MessageSigner); ok {
		sig, err := m.SignMessage(rand.Reader, msg, crypto.Hash(0))
		return sig, wrapSign(err)
	}
	switch pub := s.Public().(type) {
	case ed25519.PublicKey:
		sig, err := s.Sign(rand.Reader, msg, crypto.Hash(0))
		return sig, wrapSign(err)
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return nil, ErrKeyType
		}
		sum := sha256.Sum256(msg)
		sig, err := s.Sign(rand.Reader, sum[:], crypto.SHA256)
		return sig, wrapSign(err)
	}
	return nil, ErrKeyType
}

func wrapSign(err error) error {
	if err == nil {
		return nil
	}
	return fault.Errorf(fault.ClassOf(err), "sign: %w", err)
}

// CheckBytes is the counterpart of SignBytes; nil means the signature holds.
func CheckBytes(pub crypto.PublicKey, msg, sig []byte) error {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		if len(pub) == ed25519.PublicKeySize && ed25519.Verify(pub, msg, sig) {
			return nil
		}
		return ErrSignature
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return ErrKeyType
		}
		sum := sha256.Sum256(msg)
		if ecdsa.VerifyASN1(pub, sum[:], sig) {
			return nil
		}
		return ErrSignature
	}
	return ErrKeyType
}
