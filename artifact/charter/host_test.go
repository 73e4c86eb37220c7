package charter_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func spkiOf(t *testing.T, pub any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func newHostKey(t *testing.T, c elliptic.Curve) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return spkiOf(t, k.Public())
}

// A host is known from its statement to its end, and neither its id nor its key
// comes back.
func TestHosts(t *testing.T) {
	v := newVault(t)
	one, two := newHostKey(t, elliptic.P256()), newHostKey(t, elliptic.P256())
	v.decide(charter.TypeHost, charter.Host{ID: "vault2", Key: two})
	v.decide(charter.TypeHost, charter.Host{ID: "vault1", Key: one})
	keys, err := v.refold().HostKeys()
	if err != nil || len(keys) != 2 || keys[0].Name != "vault1" || keys[1].Name != "vault2" {
		t.Errorf("%v %v", keys, err)
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "vault1", Type: charter.TypeHost})
	if keys, err := v.refold().HostKeys(); err != nil || len(keys) != 1 || keys[0].Name != "vault2" {
		t.Errorf("after the end of one: %v %v", keys, err)
	}
	for name, body := range map[string]charter.Host{
		"an id that was ended": {ID: "vault1", Key: newHostKey(t, elliptic.P256())},
		"a key that was ended": {ID: "vault3", Key: one},
		"an id that is taken":  {ID: "vault2", Key: newHostKey(t, elliptic.P256())},
		"a key that is taken":  {ID: "vault3", Key: two},
	} {
		if err := v.propose(charter.TypeHost, body); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.propose(charter.TypeAccessEnded, charter.AccessEnded{ID: "vault1", Type: charter.TypeHost}); err == nil {
		t.Error("a host ends twice")
	}
}

func TestHostsThatFailClosed(t *testing.T) {
	v := newVault(t)
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := newHostKey(t, elliptic.P256())
	for name, body := range map[string]charter.Host{
		"no id":                   {Key: good},
		"an id in capitals":       {ID: "Vault1", Key: good},
		"no key":                  {ID: "vault1"},
		"no key but bytes":        {ID: "vault1", Key: []byte{1}},
		"trailing bytes":          {ID: "vault1", Key: append(append([]byte{}, good...), 0)},
		"P-384":                   {ID: "vault1", Key: newHostKey(t, elliptic.P384())},
		"Ed25519":                 {ID: "vault1", Key: spkiOf(t, ed)},
		"the key of a pipeline":   {ID: "vault1", Key: v.SPKI("pipeline1")},
		"a key of a token":        {ID: "vault1", Key: v.SPKI("firmware")},
		"the key of a key master": {ID: "vault1", Key: spkiOf(t, v.People["master1"].Public().PublicKey())},
	} {
		if err := v.propose(charter.TypeHost, body); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.try(charter.TypeHost, charter.Host{ID: "vault1", Key: good}, "approver1"); fault.ClassOf(err) != fault.Quorum {
		t.Errorf("by one approver: %v", err)
	}
	v.decide(charter.TypeHost, charter.Host{ID: "vault1", Key: good})
}
