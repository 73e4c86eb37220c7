package keyspec

import (
	"crypto"
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

// VerifyRSA reports whether sig is a signature of a SHA-256 digest in the
// algorithm's own padding.
func VerifyRSA(a Algorithm, pub *rsa.PublicKey, digest, sig []byte) bool {
	switch a {
	case RSA3072PKCS1, RSA4096PKCS1:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest, sig) == nil
	case RSA3072PSS, RSA4096PSS:
		return rsa.VerifyPSS(pub, crypto.SHA256, digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return false
}
