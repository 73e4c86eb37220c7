package hsm

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"io"

	"keyrite/hsm/internal/frame"
)

// CardKey is one P-256 key of a person's card or token, as the card tells it.
type CardKey = frame.CardKey

// CardKeys lists the keys on P-256 that cannot leave the card, by id.
func (s *Session) CardKeys(ctx context.Context) ([]CardKey, error) {
	a, err := s.ask(ctx, frame.Request{Op: frame.OpCardKeys}, "")
	if err != nil {
		return nil, err
	}
	var out []CardKey
	return out, frame.Decode(a.Body, &out)
}

// MakeCardKeys makes a person's two keys in a token that lets its user do so: the
// one with id sign signs, the one with id derive derives. Ids are hex.
func (s *Session) MakeCardKeys(ctx context.Context, label, sign, derive string) error {
	body, err := json.Marshal(frame.CardMake{Label: label, Sign: sign, Derive: derive})
	if err != nil {
		return err
	}
	_, err = s.ask(ctx, frame.Request{Op: frame.OpCardMake, Body: body}, "")
	return err
}

// OnCard uses one key of a card. It is a crypto.Signer for P-256, and a key
// exchanger as in crypto/ecdh.
type OnCard struct {
	sess *Session
	id   string
	pub  *ecdsa.PublicKey
	dh   *ecdh.PublicKey
}

// Use returns the key k of this session's card.
func (s *Session) Use(k CardKey) (*OnCard, error) {
	pub, err := x509.ParsePKIXPublicKey(k.PublicKey)
	if err != nil {
		return nil, &Error{Op: "read key", Token: s.id.Label, Label: k.ID, Class: "verify", Text: err.Error(), cause: err}
	}
	ec, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return nil, &Error{Op: "read key", Token: s.id.Label, Label: k.ID, Class: "verify", Text: "not on P-256"}
	}
	dh, err := ec.ECDH()
	if err != nil {
		return nil, &Error{Op: "read key", Token: s.id.Label, Label: k.ID, Class: "verify", Text: err.Error(), cause: err}
	}
	return &OnCard{s, k.ID, ec, dh}, nil
}

func (k *OnCard) use(op frame.Op, in []byte) ([]byte, error) {
	body, err := json.Marshal(frame.CardUse{ID: k.id, Input: in})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), signTimeout)
	defer cancel()
	a, err := k.sess.ask(ctx, frame.Request{Op: op, Body: body}, k.id)
	if err != nil {
		return nil, err
	}
	return a.Data, nil
}

// Public implements crypto.Signer.
func (k *OnCard) Public() crypto.PublicKey { return k.pub }

// Sign signs a SHA-256 digest, ASN.1. The signature is verified here again.
func (k *OnCard) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, usage("sign", "a card signs a SHA-256 digest")
	}
	sig, err := k.use(frame.OpCardSign, digest)
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(k.pub, digest, sig) {
		return nil, &Error{Op: "sign", Token: k.sess.id.Label, Label: k.id, Class: "verify", Text: "the signature does not verify with the card's public key"}
	}
	return sig, nil
}

// Curve is P-256.
func (k *OnCard) Curve() ecdh.Curve { return ecdh.P256() }

// PublicKey is the public half for key agreement.
func (k *OnCard) PublicKey() *ecdh.PublicKey { return k.dh }

// ECDH agrees on a secret with peer. The caller wipes it.
func (k *OnCard) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	return k.use(frame.OpCardDerive, peer.Bytes())
}
