package anchor_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
)

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ecKey(t *testing.T, c elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keyRecord(t *testing.T, alg, domain string, s crypto.Signer) anchor.KeyRecord {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return anchor.KeyRecord{
		Algorithm: alg, Domain: domain, ID: "k", Public: spki, Record: "keyrite/record/0123456789abcdef",
		SpecHash: strings.Repeat("ab", 32), Token: anchor.Token{Label: "t", Serial: "1"},
	}
}

// TestAlgorithms signs with each algorithm and takes no key or signature of
// another.
func TestAlgorithms(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa3072 := rsaKey(t, 3072)
	msg := []byte("message")
	for _, k := range []struct {
		alg    string
		signer crypto.Signer
	}{
		{anchor.P256, ecKey(t, elliptic.P256())},
		{anchor.P384, ecKey(t, elliptic.P384())},
		{anchor.Ed25519, ed},
		{anchor.RSA3072, rsa3072},
		{anchor.RSA3072PSS, rsa3072},
	} {
		rec := keyRecord(t, k.alg, "x509", k.signer)
		for _, domain := range anchor.Domains() {
			rec.Domain = domain
			if got, want := rec.Check() == nil, slices.Contains(anchor.Algorithms(domain), k.alg); got != want {
				t.Errorf("%s in domain %s: %v", k.alg, domain, rec.Check())
			}
		}
		sig, err := rec.SignBytes(k.signer, msg)
		if err != nil {
			t.Fatal(err)
		}
		if rec.CheckBytes([]byte("other"), sig) == nil {
			t.Errorf("a signature of %s holds for another message", k.alg)
		}
		for _, other := range []string{anchor.P256, anchor.P384, anchor.Ed25519, anchor.RSA3072, anchor.RSA4096, anchor.RSA3072PSS, anchor.RSA4096PSS, "rsa2048", ""} {
			rec := rec
			rec.Domain, rec.Algorithm = "x509", other
			sameKey := strings.TrimSuffix(other, "-pss") == strings.TrimSuffix(k.alg, "-pss")
			if !sameKey && rec.Check() == nil {
				t.Errorf("a key of %s passes as %q", k.alg, other)
			}
			if got := rec.CheckBytes(msg, sig) == nil; got != (other == k.alg) {
				t.Errorf("a signature of %s as %q: %v", k.alg, other, got)
			}
		}
	}
	weak := keyRecord(t, anchor.RSA3072, "x509", rsaKey(t, 2048))
	if weak.Check() == nil {
		t.Error("RSA-2048 passes as rsa3072")
	}
}
