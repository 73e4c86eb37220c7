package hsm

import (
	"context"
	"crypto/hmac"

	"keyrite/hsm/internal/frame"
)

// MaxSealed is how much Encrypt takes at once, in bytes.
const MaxSealed = frame.MaxSealed

// sealedMore is by how much a sealed value is longer, in bytes: nonce and tag.
const sealedMore = 12 + 16

// Encrypt encrypts 1 to MaxSealed bytes with an AES-256 key of the token (AES-GCM,
// NIST SP 800-38D) and binds them to the associated data. It gives nonce (12 bytes),
// ciphertext and tag (16 bytes), after the token has decrypted it again. The nonce
// is random, so a key may encrypt 2^32 values.
func (x *Access) Encrypt(ctx context.Context, id KeyID, plain, aad []byte) ([]byte, error) {
	return x.crypt(ctx, frame.OpEncrypt, id, plain, aad)
}

// Decrypt is the inverse of Encrypt. What was altered, or encrypted under another
// key or with other associated data, is an error of class "verify". The caller
// wipes the result.
func (x *Access) Decrypt(ctx context.Context, id KeyID, sealed, aad []byte) ([]byte, error) {
	return x.crypt(ctx, frame.OpDecrypt, id, sealed, aad)
}

func (x *Access) crypt(ctx context.Context, op frame.Op, id KeyID, in, aad []byte) ([]byte, error) {
	if len(in) > MaxSealed+sealedMore || len(aad) > MaxSealed {
		return nil, usage(string(op), "need at most %d bytes, with at most as many of associated data", MaxSealed)
	}
	a, err := x.ask(ctx, frame.Request{Op: op, Key: &id, Input: in, AAD: aad}, id.String())
	if err != nil {
		return nil, err
	}
	return a.Data, nil
}

// MAC authenticates a message of 1 byte to 1 MiB with an HMAC-SHA-256 key of the
// token.
func (x *Access) MAC(ctx context.Context, id KeyID, msg []byte) ([]byte, error) {
	a, err := x.ask(ctx, frame.Request{Op: frame.OpMAC, Key: &id, Input: msg}, id.String())
	if err != nil {
		return nil, err
	}
	return a.Data, nil
}

// VerifyMAC compares, in constant time, with what the token makes of the message. A
// difference is an error of class "verify".
func (x *Access) VerifyMAC(ctx context.Context, id KeyID, msg, mac []byte) error {
	want, err := x.MAC(ctx, id, msg)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, mac) {
		return &Error{Op: "authenticate", Token: x.id.Label, Label: id.String(), Class: "verify", Text: "the message or its key is another one"}
	}
	return nil
}
