package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
	"time"

	"keyrite/artifact/fault"
)

func TestClientKeysAreP256OrEd25519(t *testing.T) {
	ec := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak := make(ed25519.PublicKey, ed25519.PublicKeySize)
	weak[0] = 1
	for name, c := range map[string]struct {
		signer crypto.Signer
		public crypto.PublicKey // of the certificate, if another one
		good   bool
	}{
		"P-256":                {ec(elliptic.P256()), nil, true},
		"Ed25519":              {ed, nil, true},
		"P-224":                {ec(elliptic.P224()), nil, false},
		"P-384":                {ec(elliptic.P384()), nil, false},
		"RSA":                  {rsaKey, nil, false},
		"Ed25519, small order": {ed, weak, false},
	} {
		if c.public == nil {
			c.public = c.signer.Public()
		}
		tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, c.public, c.signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ClientKey(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}})
		if c.good && err != nil || !c.good && (!errors.Is(err, ErrClientKey) || fault.ClassOf(err) != fault.Peer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
