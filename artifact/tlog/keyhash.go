package tlog

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
)

// Signature types of c2sp.org/signed-note.
const (
	algEd25519     = 0x01
	algCosignature = 0x04 // c2sp.org/tlog-cosignature, Ed25519 over time and note
	algOwn         = 0xff // a type without a byte of its own, told by the text after it
)

// cosignatureP256 is the type of a cosignature by ECDSA P-256, for cards that have
// no Ed25519: what c2sp.org/tlog-cosignature signs, over its SHA-256, as ASN.1 DER.
const cosignatureP256 = "keyrite/cosignature-p256/v1"

// lineHash is the key hash of a signature line, which binds name, kind of
// signature and key.
func lineHash(name string, pub crypto.PublicKey, cosignature bool) (uint32, error) {
	if err := envelope.CheckKey(pub); err != nil {
		return 0, fault.Errorf(fault.Usage, "a checkpoint is signed by an Ed25519 or a P-256 key: %w", err)
	}
	if k, ok := pub.(ed25519.PublicKey); ok {
		if cosignature {
			return keyHash(name, []byte{algCosignature}, k), nil
		}
		return keyHash(name, []byte{algEd25519}, k), nil
	}
	k, _ := pub.(*ecdsa.PublicKey)
	if !cosignature { // type 0x02 of c2sp.org/signed-note hashes the key alone
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return 0, fault.Errorf(fault.Usage, "encode public key: %w", err)
		}
		sum := sha256.Sum256(der)
		return binary.BigEndian.Uint32(sum[:]), nil
	}
	point, err := k.Bytes()
	if err != nil {
		return 0, fault.Errorf(fault.Usage, "encode public key: %w", err)
	}
	return keyHash(name, append([]byte{algOwn}, cosignatureP256...), point), nil
}

func keyHash(name string, typ, pub []byte) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write(typ)
	h.Write(pub)
	return binary.BigEndian.Uint32(h.Sum(nil))
}
