package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"io"
	"time"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// signTimeout bounds a signature asked for through crypto.Signer, which has
// no context.
const signTimeout = 30 * time.Second

// Key signs with one key of a session. It is a crypto.Signer.
type Key struct {
	sess *Session
	st   KeyState
}

// Signer looks the key up and returns it as a crypto.Signer. It takes the digest
// of Algorithm.Hash, for an Ed25519 key the message with crypto.Hash(0), and
// gives ASN.1 for curves. An RSA key made for PSS wants *rsa.PSSOptions, any
// other refuses them.
func (s *Session) Signer(ctx context.Context, id KeyID) (*Key, error) {
	st, err := s.Attributes(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Key{sess: s, st: *st}, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.st.PublicKey }

// State returns the key as it was read when it was looked up.
func (k *Key) State() KeyState { return k.st }

// Sign implements crypto.Signer. The randomness is the token's own.
func (k *Key) Sign(_ io.Reader, in []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != k.st.Algorithm.Hash() {
		return nil, usage("sign", "hash function %v is not for an %s key", opts, k.st.Algorithm)
	}
	_, pss := opts.(*rsa.PSSOptions)
	if pss != (k.st.Algorithm == RSA3072PSS || k.st.Algorithm == RSA4096PSS) {
		return nil, usage("sign", "an %s key has one padding only", k.st.Algorithm)
	}
	ctx, cancel := context.WithTimeout(context.Background(), signTimeout)
	defer cancel()
	return k.SignContext(ctx, in)
}

// SignContext signs a digest, with Ed25519 a message. The signature was
// verified where it was made and is verified again here, with the public key
// read when the key was looked up.
func (k *Key) SignContext(ctx context.Context, in []byte) ([]byte, error) {
	id := k.st.KeyID
	a, err := k.sess.conn.call(ctx, frame.Request{Op: frame.OpSign, Key: &id, Input: in}, id.String())
	if err != nil {
		return nil, err
	}
	ok := false
	switch pub := k.st.PublicKey.(type) {
	case *ecdsa.PublicKey:
		ok = len(in) == k.st.Algorithm.Hash().Size() && ecdsa.VerifyASN1(pub, in, a.Data)
	case *rsa.PublicKey:
		ok = keyspec.VerifyRSA(k.st.Algorithm, pub, in, a.Data)
	case ed25519.PublicKey:
		ok = ed25519.Verify(pub, in, a.Data)
	}
	if !ok {
		return nil, &Error{Op: "sign", Token: k.sess.id.Label, Label: id.String(), Class: "verify", Text: "the signature does not verify with the key's public half"}
	}
	return a.Data, nil
}
