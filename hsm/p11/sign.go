package p11

import (
	"crypto"
	"crypto/ecdsa"
	"slices"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// sign signs and verifies: what does not verify with the public key of the pair
// is no signature.
func (s *session) sign(id keyspec.KeyID, in []byte) ([]byte, error) {
	k, raw, err := s.use(id, in)
	if err != nil {
		return nil, err
	}
	return checked(k, in, raw)
}

// signOnly signs for the client, which verifies each signature itself: it does so
// with the public key that it looked up, outside of the process in which the
// maker's code runs, and doing it here as well would cost half of the rate.
func (s *session) signOnly(id keyspec.KeyID, in []byte) ([]byte, error) {
	k, raw, err := s.use(id, in)
	if err != nil {
		return nil, err
	}
	return encodeSignature(k, raw)
}

// use finds the key, by its handle where it is known, and makes it sign. A handle
// that is good no more, because another process destroyed the key or its token was
// away for a while, is forgotten and the key looked up once: nothing was signed.
func (s *session) use(id keyspec.KeyID, in []byte) (*key, []byte, error) {
	_, known := s.keys[id]
	k, err := s.lookup(id)
	if err != nil {
		return nil, nil, err
	}
	raw, err := s.rawSign(k, in)
	if known && err != nil && staleHandle(err) {
		delete(s.keys, id)
		if k, err = s.lookup(id); err != nil {
			return nil, nil, err
		}
		raw, err = s.rawSign(k, in)
	}
	return k, raw, err
}

// staleHandle is the first call of a use saying that there is no such key.
func staleHandle(err error) bool {
	f := asFault("sign", "", err)
	first := f.Text == signInit || f.Text == encryptInit || f.Text == decryptInit
	return first && (f.Code == pkcs11.CKR_OBJECT_HANDLE_INVALID || f.Code == pkcs11.CKR_KEY_HANDLE_INVALID)
}

// The calls that a use of a key begins with.
const (
	signInit    = "C_SignInit"
	encryptInit = "C_EncryptInit"
	decryptInit = "C_DecryptInit"
)

func (s *session) signWith(k *key, in []byte) ([]byte, error) {
	raw, err := s.rawSign(k, in)
	if err != nil {
		return nil, err
	}
	return checked(k, in, raw)
}

func (s *session) rawSign(k *key, in []byte) ([]byte, error) {
	mech, data, err := signing(k.algorithm, in)
	if err != nil {
		return nil, err
	}
	if k.loginPerUse {
		s.perUse.Lock() // it writes to the token's files, as any login may
		defer s.perUse.Unlock()
	}
	if err := s.ctx.SignInit(s.h, mech, k.private); err != nil {
		return nil, asFault("sign", signInit, err)
	}
	if k.loginPerUse {
		s.spoiled = true
		if err := s.enter(pkcs11.CKU_CONTEXT_SPECIFIC, false, false, s.pin, s.cut, "C_Login for this signature"); err != nil {
			return nil, err
		}
		s.spoiled = false // C_Sign ends the operation, whatever it answers
	}
	raw, err := s.ctx.Sign(s.h, data)
	return raw, wrap("sign", "C_Sign", err)
}

// digestInfo is what stands before a SHA-256 digest in a PKCS#1 v1.5 signature:
// RFC 8017, Section 9.2, note 1.
var digestInfo = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}

// signing gives the mechanism of an algorithm and what it is handed: a digest is
// always made in Go, since that is the only portable way.
func signing(alg keyspec.Algorithm, in []byte) ([]*pkcs11.Mechanism, []byte, error) {
	want := crypto.SHA256.Size()
	var code uint
	var param any
	switch alg {
	case keyspec.Ed25519:
		if len(in) <= frame.MaxMessage {
			return mechanism(ckmEDDSA, nil), in, nil
		}
	case keyspec.ECDSAP256:
		code = pkcs11.CKM_ECDSA
	case keyspec.ECDSAP384:
		code, want = pkcs11.CKM_ECDSA, crypto.SHA384.Size()
	case keyspec.RSA3072PKCS1, keyspec.RSA4096PKCS1:
		code = pkcs11.CKM_RSA_PKCS
	case keyspec.RSA3072PSS, keyspec.RSA4096PSS:
		code, param = pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, uint(want))
	}
	if code == 0 || len(in) != want {
		return nil, nil, faultf("sign", frame.KindUsage, "%d bytes are no input for an %s key", len(in), alg)
	}
	if code == pkcs11.CKM_RSA_PKCS {
		in = append(slices.Clone(digestInfo), in...)
	}
	return mechanism(code, param), in, nil
}

// checked verifies a signature and gives it in the form of crypto.Signer.
func checked(k *key, in, raw []byte) ([]byte, error) {
	sig, err := encodeSignature(k, raw)
	if err != nil {
		return nil, err
	}
	if !keyspec.Verify(k.algorithm, k.pub, in, sig) {
		return nil, faultf("sign", frame.KindVerify, "the token's signature does not verify with its public key")
	}
	return sig, nil
}

// encodeSignature gives a signature the form of crypto.Signer: ASN.1 for curves.
func encodeSignature(k *key, raw []byte) ([]byte, error) {
	pub, ok := k.pub.(*ecdsa.PublicKey)
	if !ok {
		return raw, nil
	}
	half := (pub.Curve.Params().BitSize + 7) / 8
	if len(raw) != 2*half {
		return nil, faultf("sign", frame.KindVerify, "the token's signature does not verify with its public key: it has %d bytes", len(raw))
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addUnsigned(b, raw[:half])
		addUnsigned(b, raw[half:])
	})
	return b.Bytes()
}

// addUnsigned adds the big-endian bytes of a positive number as an INTEGER.
func addUnsigned(b *cryptobyte.Builder, n []byte) {
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) {
		if n[0] >= 0x80 {
			b.AddUint8(0)
		}
		b.AddBytes(n)
	})
}
