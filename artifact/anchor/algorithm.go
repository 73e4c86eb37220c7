package anchor

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
)

// Algorithms of keys, as scripts and key records name them. An RSA key has one
// padding for life; without a suffix that is PKCS#1 v1.5.
const (
	P256       = "p256"
	P384       = "p384"
	Ed25519    = "ed25519"
	RSA3072    = "rsa3072"
	RSA4096    = "rsa4096"
	RSA3072PSS = "rsa3072-pss"
	RSA4096PSS = "rsa4096-pss"
)

// exponent is the only public exponent that a key of ours has.
const exponent = 65537

// Algorithms are those that keys of a domain may have. Our own formats know
// P-256 and Ed25519 alone; the others are for certificates and for the formats of
// other people's loaders.
func Algorithms(domain string) []string {
	switch domain {
	case "x509", "cms", "fit", "raw-image", "tsa", DomainJWT, DomainGeneral: // other programs define and check their bytes
		return []string{P256, P384, Ed25519, RSA3072, RSA4096, RSA3072PSS, RSA4096PSS}
	}
	return []string{P256, Ed25519}
}

// checkAlgorithm says whether pub is a key of the algorithm that nobody else can
// sign for.
func checkAlgorithm(alg string, pub crypto.PublicKey) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return alg == P256 && pub.Curve == elliptic.P256() || alg == P384 && pub.Curve == elliptic.P384()
	case ed25519.PublicKey:
		return alg == Ed25519 && envelope.CheckKey(pub) == nil
	case *rsa.PublicKey:
		bits := map[string]int{RSA3072: 3072, RSA3072PSS: 3072, RSA4096: 4096, RSA4096PSS: 4096}[alg]
		return bits == pub.N.BitLen() && pub.E == exponent
	}
	return false
}

// SignerOpts is what a crypto.Signer of an algorithm is handed beside the digest;
// its hash is 0 where the message itself is signed.
func SignerOpts(alg string) crypto.SignerOpts {
	switch alg {
	case Ed25519:
		return crypto.Hash(0)
	case P384:
		return crypto.SHA384
	case RSA3072PSS, RSA4096PSS:
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	return crypto.SHA256
}

func digest(alg string, msg []byte) []byte {
	h := SignerOpts(alg).HashFunc()
	if h == 0 {
		return msg
	}
	w := h.New()
	w.Write(msg)
	return w.Sum(nil)
}

// SignBytes signs msg with the key of the record, in the record's algorithm.
func (k *KeyRecord) SignBytes(s crypto.Signer, msg []byte) ([]byte, error) {
	sig, err := s.Sign(rand.Reader, digest(k.Algorithm, msg), SignerOpts(k.Algorithm))
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "sign with %s: %w", k.ID, err)
	}
	return sig, nil
}

// CheckBytes is the counterpart of SignBytes; nil means the signature holds.
func (k *KeyRecord) CheckBytes(msg, sig []byte) error {
	pub, err := k.Key()
	if err != nil {
		return err
	}
	if !checkAlgorithm(k.Algorithm, pub) {
		return envelope.ErrKeyType
	}
	d, ok := digest(k.Algorithm, msg), false
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(pub, d, sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(pub, msg, sig)
	case *rsa.PublicKey:
		if pss, is := SignerOpts(k.Algorithm).(*rsa.PSSOptions); is {
			ok = rsa.VerifyPSS(pub, crypto.SHA256, d, sig, pss) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(pub, crypto.SHA256, d, sig) == nil
		}
	}
	if !ok {
		return envelope.ErrSignature
	}
	return nil
}
