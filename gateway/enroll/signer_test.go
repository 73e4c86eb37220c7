package enroll_test

import (
	"crypto"
	"crypto/ecdsa"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"
)

func tufSigner(t *testing.T, k crypto.Signer) signature.Signer {
	t.Helper()
	s, err := signature.LoadECDSASigner(k.(*ecdsa.PrivateKey), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
