package keyspec

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
)

// Hash is the hash whose digest a key of the algorithm signs; 0 for Ed25519,
// which signs messages.
func (a Algorithm) Hash() crypto.Hash {
	switch a {
	case Ed25519:
		return 0
	case ECDSAP384:
		return crypto.SHA384
	}
	return crypto.SHA256
}

// Verify reports whether sig is a signature of in, a digest of the algorithm's hash
// or an Ed25519 message, in the form of crypto.Signer: ASN.1 for curves.
func Verify(a Algorithm, pub crypto.PublicKey, in, sig []byte) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return (a == ECDSAP256 || a == ECDSAP384) && len(in) == a.Hash().Size() && ecdsa.VerifyASN1(pub, in, sig)
	case *rsa.PublicKey:
		return verifyRSA(a, pub, in, sig)
	case ed25519.PublicKey:
		return a == Ed25519 && ed25519.Verify(pub, in, sig)
	}
	return false
}

// verifyRSA reports whether sig is a signature of a SHA-256 digest in the
// algorithm's own padding.
func verifyRSA(a Algorithm, pub *rsa.PublicKey, digest, sig []byte) bool {
	switch a {
	case RSA3072PKCS1, RSA4096PKCS1:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest, sig) == nil
	case RSA3072PSS, RSA4096PSS:
		return rsa.VerifyPSS(pub, crypto.SHA256, digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return false
}
