package hsm

import (
	"context"
	"crypto"
	"crypto/rsa"
	"io"
	"time"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// signTimeout bounds a signature asked for through crypto.Signer, which has
// no context.
const signTimeout = 30 * time.Second

// Key signs with one key of a session or pool. It is a crypto.Signer.
type Key struct {
	token *Access
	st    KeyState
}

// Signer looks the key up and returns it as a crypto.Signer. It takes the digest
// of Algorithm.Hash, for an Ed25519 key the message with crypto.Hash(0), and
// gives ASN.1 for curves. An RSA key made for PSS wants *rsa.PSSOptions, any
// other refuses them.
func (x *Access) Signer(ctx context.Context, id KeyID) (*Key, error) {
	st, err := x.Attributes(ctx, id)
	if err != nil {
		return nil, err
	}
	if st.PublicKey == nil {
		return nil, usage("sign", "an %s key makes no signatures", st.Algorithm)
	}
	return &Key{token: x, st: *st}, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.st.PublicKey }

// State returns the key as it was read when it was looked up.
func (k *Key) State() KeyState { return k.st }

// Sign implements crypto.Signer. The randomness is the token's own.
func (k *Key) Sign(_ io.Reader, in []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := k.takes(opts); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), signTimeout)
	defer cancel()
	return k.SignContext(ctx, in)
}

// Within returns the key as a crypto.Signer whose signatures are given up when ctx
// ends, for those who sign through others that know no context: a token that hangs
// must not outlast whoever was told to stop.
func (k *Key) Within(ctx context.Context) crypto.Signer {
	return within{k, func(in []byte) ([]byte, error) { return k.SignContext(ctx, in) }}
}

type within struct {
	key  *Key
	sign func(in []byte) ([]byte, error)
}

// Public returns the public key.
func (w within) Public() crypto.PublicKey { return w.key.Public() }

// Sign implements crypto.Signer.
func (w within) Sign(_ io.Reader, in []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := w.key.takes(opts); err != nil {
		return nil, err
	}
	return w.sign(in)
}

// takes wants the one hash and padding of the key.
func (k *Key) takes(opts crypto.SignerOpts) error {
	if opts == nil || opts.HashFunc() != k.st.Algorithm.Hash() {
		return usage("sign", "hash function %v is not for an %s key", opts, k.st.Algorithm)
	}
	_, pss := opts.(*rsa.PSSOptions)
	if pss != (k.st.Algorithm == RSA3072PSS || k.st.Algorithm == RSA4096PSS) {
		return usage("sign", "an %s key has one padding only", k.st.Algorithm)
	}
	return nil
}

// SignContext signs a digest, with Ed25519 a message. The signature is verified
// here, with the public key read when the key was looked up: outside of the
// process in which the module runs.
func (k *Key) SignContext(ctx context.Context, in []byte) ([]byte, error) {
	id := k.st.KeyID
	a, err := k.token.ask(ctx, frame.Request{Op: frame.OpSign, Key: &id, Input: in}, id.String())
	if err != nil {
		return nil, err
	}
	if !keyspec.Verify(k.st.Algorithm, k.st.PublicKey, in, a.Data) {
		return nil, &Error{Op: "sign", Token: k.token.id.Label, Label: id.String(), Class: "verify", Text: "the signature does not verify with the key's public half"}
	}
	return a.Data, nil
}
