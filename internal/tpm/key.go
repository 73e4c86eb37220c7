package tpm

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// SigningKey is the public area of a key that was born in its TPM, never leaves it, and
// is good for nothing but ECDSA over P-256 with SHA-256.
func SigningKey() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
	}
}

// Signing is the command that signs a SHA-256 digest with a SigningKey.
func Signing(digest []byte) tpm2.Sign {
	return tpm2.Sign{
		Digest: tpm2.TPM2BDigest{Buffer: digest},
		InScheme: tpm2.TPMTSigScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
		},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
	}
}

// Signature is what Signing gave, in DER. It is checked before it is given out: a
// disturbed TPM must not leak a faulty one (ErrFaulty).
func Signature(r *tpm2.SignResponse, pub *ecdsa.PublicKey, digest []byte) ([]byte, error) {
	sig, err := r.Signature.Signature.ECDSA()
	if err != nil {
		return nil, wrap("read the signature", err)
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer),
	})
	if err != nil || !ecdsa.VerifyASN1(pub, digest, der) {
		return nil, ErrFaulty
	}
	return der, nil
}

// Key is a SigningKey with an authorisation value of its own, kept by the TPM until its
// owner removes it or the TPM is cleared.
type Key struct {
	Handle uint32           // persistent, in the owner's range, 0x81000000 to 0x817fffff
	Public *ecdsa.PublicKey // that it must have; not needed to make or remove it
}

// MakeKey makes a new key at the place of x, whose authorisation will be auth, and
// returns its public half. It needs the authorisation of the owner, which is empty on
// most machines. A key that is there already is ErrDefined.
func (d *Device) MakeKey(x Key, auth, owner []byte) (*ecdsa.PublicKey, error) {
	x.Public = nil // of the one before
	defer d.enter()()
	if _, _, err := d.readKey(x); !errors.Is(err, ErrMissing) {
		if err == nil || errors.Is(err, ErrForeign) {
			err = fmt.Errorf("key %#x: %w", x.Handle, ErrDefined)
		}
		return nil, err
	}
	err := d.storage(owner, func(srk *tpm2.CreatePrimaryResponse, public *tpm2.TPMTPublic) error {
		made, err := tpm2.Create{
			ParentHandle: tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: secret(nil, srk, public, true)},
			InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: auth}}},
			InPublic:     tpm2.New2B(SigningKey()),
		}.Execute(d.w)
		if err != nil {
			return wrap("make a key", err)
		}
		loaded, err := tpm2.Load{
			ParentHandle: tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16)},
			InPrivate:    made.OutPrivate, InPublic: made.OutPublic,
		}.Execute(d.w)
		if err != nil {
			return wrap("load a key", err)
		}
		err = d.evict(tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, x, owner)
		_, flushErr := tpm2.FlushContext{FlushHandle: loaded.ObjectHandle}.Execute(d.w)
		return errors.Join(err, wrap("let go of a key", flushErr))
	})
	if err != nil {
		return nil, err
	}
	pub, _, err := d.readKey(x)
	return pub, err
}

// RemoveKey removes what is at the place of x, whatever it is. Nothing there is
// ErrMissing.
func (d *Device) RemoveKey(x Key, owner []byte) error {
	defer d.enter()()
	_, name, err := d.readKey(x)
	if err != nil && !errors.Is(err, ErrForeign) {
		return err
	}
	return d.evict(tpm2.NamedHandle{Handle: tpm2.TPMHandle(x.Handle), Name: name}, x, owner)
}

// evict makes a loaded key persistent, or removes a persistent one.
func (d *Device) evict(o tpm2.NamedHandle, x Key, owner []byte) error {
	_, err := tpm2.EvictControl{
		Auth:         tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(owner))},
		ObjectHandle: &o, PersistentHandle: tpm2.TPMHandle(x.Handle),
	}.Execute(d.w)
	return wrap(fmt.Sprintf("keep or remove key %#x", x.Handle), err)
}

// readKey reads the public half, and computes the name that sessions authenticate. What
// is not a SigningKey, or not the one that x says, is ErrForeign; its name is returned.
func (d *Device) readKey(x Key) (*ecdsa.PublicKey, tpm2.TPM2BName, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(x.Handle)}.Execute(d.w)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, tpm2.TPM2BName{}, fmt.Errorf("key %#x: %w", x.Handle, ErrMissing)
	}
	if err != nil {
		return nil, tpm2.TPM2BName{}, wrap("read a key's public area", err)
	}
	foreign := fmt.Errorf("key %#x: %w", x.Handle, ErrForeign)
	have, err := r.OutPublic.Contents()
	if err != nil {
		return nil, r.Name, foreign
	}
	name, err := tpm2.ObjectName(have)
	if err != nil || string(name.Buffer) != string(r.Name.Buffer) {
		return nil, r.Name, foreign
	}
	want := SigningKey()
	want.Unique = have.Unique
	if wantName, err := tpm2.ObjectName(&want); err != nil || string(wantName.Buffer) != string(name.Buffer) {
		return nil, *name, foreign
	}
	k, err := tpm2.Pub(*have)
	pub, ok := k.(*ecdsa.PublicKey)
	if err != nil || !ok || x.Public != nil && !x.Public.Equal(pub) {
		return nil, *name, foreign
	}
	return pub, *name, nil
}

// Sign signs a SHA-256 digest with the key and returns the signature in DER. A key that
// is not there is ErrMissing, another one ErrForeign, a wrong authorisation ErrRefused.
func (d *Device) Sign(x Key, auth, digest []byte) ([]byte, error) {
	if len(digest) != sha256.Size || x.Public == nil {
		return nil, &Error{"unexpected", "a key in a TPM signs SHA-256 digests only, and must be known"}
	}
	defer d.enter()()
	pub, name, err := d.readKey(x)
	if err != nil {
		return nil, err
	}
	cmd := Signing(digest)
	cmd.KeyHandle = tpm2.AuthHandle{Handle: tpm2.TPMHandle(x.Handle), Name: name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(auth))}
	r, err := cmd.Execute(d.w)
	if err != nil {
		return nil, wrap(fmt.Sprintf("sign with key %#x", x.Handle), err)
	}
	return Signature(r, pub, digest)
}
