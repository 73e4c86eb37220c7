package p11

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// AES-GCM as NIST SP 800-38D has it by default.
const (
	gcmNonce = 12 // bytes
	gcmTag   = 16 // bytes
)

// generateSecret makes a secret key and reads it back.
func (s *session) generateSecret(spec keyspec.Spec) (*frame.KeyState, error) {
	t, err := encodeAll(spec.Request().Secret)
	if err != nil {
		return nil, wrap("generate key", "template", err)
	}
	m, _ := valueOf(mechNames, spec.GenerateMechanism())
	k := &key{algorithm: spec.Algorithm}
	err = s.store.making(s.token.Serial, func() (err error) {
		k.private, err = s.ctx.GenerateKey(s.h, mechanism(uint(m), nil), t)
		return wrap("generate key", "C_GenerateKey", err)
	})
	var st *frame.KeyState
	if err == nil {
		st, err = s.adopt(spec.KeyID, k)
	}
	if err != nil && k.private != 0 {
		// Whatever it is, it is not the key that was asked for.
		_ = s.ctx.DestroyObject(s.h, k.private)
	}
	return st, err
}

// secretState reads every attribute of a secret key.
func (s *session) secretState(k *key) (*frame.KeyState, error) {
	got, err := s.read(k.private, keyspec.SecretReadList())
	if err != nil {
		return nil, err
	}
	alg, known := keyspec.SecretAlgorithmOf(got)
	if !known {
		return nil, faultf("read key", frame.KindVerify, "the secret key is of no algorithm that keys are made with")
	}
	k.algorithm = alg
	return &frame.KeyState{Algorithm: alg, Attributes: keyspec.Pair{Secret: got}}, nil
}

// withSecret leases the key of the algorithm to one use. A handle that is good no
// more is looked up anew once, if nothing was done yet.
func (s *session) withSecret(op string, id keyspec.KeyID, alg keyspec.Algorithm, use func(*key) error) error {
	for {
		_, known := s.keys[id]
		k, err := s.lookup(id)
		if err != nil {
			return err
		}
		if k.algorithm != alg {
			return faultf(op, frame.KindUsage, "the key is an %s key", k.algorithm)
		}
		err = use(k)
		if !known || err == nil || !staleHandle(err) {
			return err
		}
		delete(s.keys, id)
	}
}

// mac authenticates a message.
func (s *session) mac(id keyspec.KeyID, msg []byte) (out []byte, err error) {
	const op = "authenticate"
	if len(msg) == 0 || len(msg) > frame.MaxMessage {
		return nil, faultf(op, frame.KindUsage, "need 1 to %d bytes", frame.MaxMessage)
	}
	err = s.withSecret(op, id, keyspec.HMACSHA256, func(k *key) error {
		if err := s.ctx.SignInit(s.h, mechanism(pkcs11.CKM_SHA256_HMAC, nil), k.private); err != nil {
			return asFault(op, signInit, err)
		}
		out, err = s.ctx.Sign(s.h, msg)
		if err == nil && len(out) != sha256.Size {
			return faultf(op, frame.KindVerify, "the token gave %d bytes", len(out))
		}
		return wrap(op, "C_Sign", err)
	})
	return out, err
}

// gcm runs one operation with the parameters of AES-GCM, whose memory the binding
// wants back.
func gcm(nonce, aad []byte, f func([]*pkcs11.Mechanism, *pkcs11.GCMParams) error) error {
	p := pkcs11.NewGCMParams(nonce, aad, 8*gcmTag)
	defer p.Free()
	return f(mechanism(pkcs11.CKM_AES_GCM, p), p)
}

// encrypt gives nonce, ciphertext and tag. What it gives was decrypted and compared:
// a value that cannot be opened again is lost.
func (s *session) encrypt(id keyspec.KeyID, plain, aad []byte) (out []byte, err error) {
	const op = "encrypt"
	if err := boundSealed(op, len(plain), len(aad)); err != nil {
		return nil, err
	}
	err = s.withSecret(op, id, keyspec.AES256, func(k *key) error {
		nonce := make([]byte, gcmNonce)
		if _, err := rand.Read(nonce); err != nil {
			return wrap(op, "draw nonce", err)
		}
		return gcm(nonce, aad, func(m []*pkcs11.Mechanism, p *pkcs11.GCMParams) error {
			if err := s.ctx.EncryptInit(s.h, m, k.private); err != nil {
				return asFault(op, encryptInit, err)
			}
			text, err := s.ctx.Encrypt(s.h, plain)
			if err != nil {
				return asFault(op, "C_Encrypt", err)
			}
			// Some tokens draw the nonce themselves and tell it here.
			if iv := p.IV(); len(iv) == gcmNonce {
				nonce = iv
			}
			out = append(nonce, text...)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if len(out) != gcmNonce+len(plain)+gcmTag {
		return nil, faultf(op, frame.KindVerify, "the token gave %d bytes for %d", len(out), len(plain))
	}
	back, err := s.decrypt(id, out, aad)
	defer clear(back)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(back, plain) != 1 {
		return nil, faultf(op, frame.KindVerify, "the token does not decrypt what it encrypted")
	}
	return out, nil
}

// decrypt is the inverse of encrypt.
func (s *session) decrypt(id keyspec.KeyID, sealed, aad []byte) (out []byte, err error) {
	const op = "decrypt"
	if err := boundSealed(op, len(sealed)-gcmNonce-gcmTag, len(aad)); err != nil {
		return nil, err
	}
	err = s.withSecret(op, id, keyspec.AES256, func(k *key) error {
		return gcm(sealed[:gcmNonce], aad, func(m []*pkcs11.Mechanism, _ *pkcs11.GCMParams) error {
			if err := s.ctx.DecryptInit(s.h, m, k.private); err != nil {
				return asFault(op, decryptInit, err)
			}
			out, err = s.ctx.Decrypt(s.h, sealed[gcmNonce:])
			if err == nil && len(out) != len(sealed)-gcmNonce-gcmTag {
				clear(out)
				err = errors.New("wrong length")
			}
			return s.notOpened(op, err)
		})
	})
	return out, err
}

// notOpened turns the refusal of a tag into the error of a value that was altered.
// SoftHSM says CKR_GENERAL_ERROR, others what the standard provides.
func (s *session) notOpened(op string, err error) error {
	if err == nil {
		return nil
	}
	f := asFault(op, "C_Decrypt", err)
	switch f.Code {
	case pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_FUNCTION_FAILED, 0:
		return faultf(op, frame.KindVerify, "the value, its associated data or its key is another one: %s", f.Name)
	}
	return f
}

func boundSealed(op string, plain, aad int) error {
	if plain < 1 || plain > frame.MaxSealed || aad > frame.MaxSealed {
		return faultf(op, frame.KindUsage, "need 1 to %d bytes, with at most as many of associated data", frame.MaxSealed)
	}
	return nil
}
