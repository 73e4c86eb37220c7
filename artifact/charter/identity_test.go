package charter_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func jobKey(t *testing.T, k crypto.Signer, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Keys of a CI system are of the kinds that such systems sign with, and of no other.
func TestKeysOfJobs(t *testing.T) {
	v := withAccess(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	rsa1024 := jobKey(t, weak, err)
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	rsa2048 := jobKey(t, good, err)
	good.E = 3
	rsaE3 := jobKey(t, good, nil)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	spki384 := jobKey(t, p384, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	spki224 := jobKey(t, p224, err)
	for name, c := range map[string]struct {
		key  []byte
		good bool
	}{
		"RSA 2048":   {rsa2048, true},
		"P-384":      {spki384, true},
		"P-256":      {v.SPKI("pipeline1"), true},
		"Ed25519":    {v.SPKI("log"), true},
		"RSA 1024":   {rsa1024, false},
		"RSA, e = 3": {rsaE3, false},
		"P-224":      {spki224, false},
		"no key":     {nil, false},
	} {
		j := &charter.JWT{Audience: "keyrite", Claims: map[string]string{}, Issuer: "https://ci.example.com", Keys: []charter.JWTKey{{ID: "1", Key: c.key}}, Subject: "repo:plant"}
		err := v.propose(charter.TypeIdentity, charter.Identity{ID: "x", Policies: []string{"reader"}, TTL: 60, JWT: j})
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRenewalIsBounded(t *testing.T) {
	v := withAccess(t)
	for most, good := range map[int]bool{0: true, 601: true, charter.MaxTTL: true, -1: false, 1: false, 600: false, charter.MaxTTL + 1: false} {
		x := unixIdentity("x", 1001) // tokens of 600 seconds
		x.MaxTTL = most
		if err := v.propose(charter.TypeIdentity, x); (err == nil) != good {
			t.Errorf("max_ttl %d: %v", most, err)
		}
	}
}

// A policy may name those of the vault's own paths that are about others, and nothing
// else there.
func TestPoliciesOverOwnPaths(t *testing.T) {
	v := withAccess(t)
	for path, good := range map[string]bool{
		"auth/approle/role/mes/secret-id": true, "auth/approle/role/+/secret-id": true, "auth/approle/role/*": true,
		"auth/token/lookup-accessor": true, "auth/token/revoke-accessor": true, "sys/leases/revoke/pki/*": true, "sys/leases/revoke-prefix/pki/*": true, "sys/leases/lookup/*": true,
		"auth/*": false, "auth/approle/*": false, "auth/approle/role": false, "auth/approle/roles/x": false, "auth/+/role/mes/secret-id": false,
		"auth/token/*": false, "auth/token/create": false, "auth/token/lookup-accessor/x": false,
		"sys/*": false, "sys/seal": true, "sys/metrics": true, "keyrite/charter": true, "sys/policies/acl/x": true, "sys/seal/x": false, "sys/rekey": false, "sys/leases/*": false, "sys/+/revoke/x": false, "sys/leases": false, "keyrite/x": false, "keyrite/*": false, "keyrite/proposals": true, "keyrite/proposals/*": true, "keyrite/proposals/+/approvals": true, "keyrite/trail": true, "keyrite/trail/x": false, "identity/x": false,
	} {
		p := charter.Policy{ID: "own", Version: 1, Rules: []access.Rule{{Path: path, Can: []access.Capability{access.Update}}}}
		err := v.propose(charter.TypePolicy, p)
		if (err == nil) != good || err != nil && fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", path, err)
		}
	}
}
