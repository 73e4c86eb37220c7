package charter_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

// ca is a CA of the tests.
type ca struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// newCA makes a CA below another, or a root for nil, with a key of its own unless one
// is given; edit may spoil the certificate.
func newCA(t testing.TB, above *ca, key crypto.Signer, name pkix.Name, edit func(*x509.Certificate)) *ca {
	t.Helper()
	if key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = k
	}
	now := artifacttest.Now()
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(now.Unix()), Subject: name, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(9 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: -1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	edit(tpl)
	if above == nil {
		above = &ca{key, tpl}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, above.cert, key.Public(), above.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{key, c}
}

// chained are roles whose issuer is the relay CA's key below a middle and a root that are
// no business of the charter: good ones, and others by what is wrong with them.
func chained(v *vault) (good, bad map[string]charter.PKIRole) {
	as := func(cn string) pkix.Name { return pkix.Name{CommonName: cn} }
	plain := func(*x509.Certificate) {}
	root := newCA(v.t, nil, nil, as("root"), plain)
	middle := newCA(v.t, root, nil, as("middle"), plain)
	below := func(above *ca) *ca {
		return newCA(v.t, above, v.Keys["relay-ca"], pkix.Name{Organization: []string{string(v.World.World)}, CommonName: "plant"}, plain)
	}
	issuer := below(middle)
	role := func(issuer *ca, above ...*ca) charter.PKIRole {
		return plantRole(v, func(r *charter.PKIRole) {
			r.Mount, r.Name, r.Issuer = "pki2", "chained", issuer.cert.Raw
			for _, c := range above {
				r.Chain = append(r.Chain, c.cert.Raw)
			}
		})
	}
	// with is a chain in which the middle was made otherwise.
	with := func(edit func(*x509.Certificate)) charter.PKIRole {
		m := newCA(v.t, root, nil, as("middle"), edit)
		return role(below(m), m, root)
	}
	twin := newCA(v.t, root, nil, as("middle"), func(c *x509.Certificate) { c.SubjectKeyId = middle.cert.SubjectKeyId })
	cut := role(issuer, middle, root)
	cut.Chain[1] = cut.Chain[1][:len(cut.Chain[1])-1]
	self := role(issuer, root)
	self.Issuer = v.Anchors.Certificates["relay-ca"]
	long := []*ca{root}
	for range 4 {
		long = append([]*ca{newCA(v.t, long[0], nil, as("another"), plain)}, long...)
	}
	short := newCA(v.t, nil, nil, as("root"), func(c *x509.Certificate) { c.MaxPathLen = 1 })
	under := newCA(v.t, short, nil, as("middle"), plain)
	good = map[string]charter.PKIRole{
		"chain to a root": role(issuer, middle, root), "chain that ends below the root": role(issuer, middle),
		"chain of paths that are long enough": with(func(c *x509.Certificate) { c.MaxPathLen = 1 }),
	}
	bad = map[string]charter.PKIRole{
		"a chain in another order":        role(issuer, root, middle),
		"a chain with a gap":              role(issuer, root),
		"a chain of a twin":               role(issuer, twin, root),
		"a chain with the issuer in it":   role(issuer, issuer, middle, root),
		"a chain beyond a root":           role(issuer, middle, root, root),
		"a chain above a root":            self,
		"a chain of five":                 role(below(long[0]), long...),
		"a chain of broken bytes":         cut,
		"a chain over no CA":              with(func(c *x509.Certificate) { c.IsCA = false }),
		"a chain over one that signs not": with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }),
		"a chain over a path too short":   role(below(under), under, short),
		"a chain over another key id": role(below(&ca{middle.key, func() *x509.Certificate {
			c := *middle.cert
			c.SubjectKeyId = []byte("another key id")
			return &c
		}()}), middle, root),
	}
	return good, bad
}

// TestPKIChain: the certificates above an issuer are those who issued each other, in that
// order; the roles of a mount have one chain or none, and it is the mount's.
func TestPKIChain(t *testing.T) {
	v := newVault(t)
	v.decide(charter.TypeMount, charter.Mount{Engine: "pki", ID: "pki2"})
	good, bad := chained(v)
	for what, r := range bad {
		if err := v.propose(charter.TypePKIRole, r); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, r := range good {
		if err := v.propose(charter.TypePKIRole, r); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	next := func(role charter.PKIRole, name string, version int, chain [][]byte) charter.PKIRole {
		role.Name, role.Version, role.Chain = name, version, chain
		return role
	}
	r := good["chain to a root"]
	v.decide(charter.TypePKIRole, next(r, "a", 1, nil))
	if got := v.State.PKIChain("pki2"); len(got) != 0 {
		t.Errorf("a chain of %d that nobody stated", len(got))
	}
	v.decide(charter.TypePKIRole, next(r, "b", 1, r.Chain))
	if got := v.State.PKIChain("pki2"); len(got) != 2 {
		t.Errorf("a chain of %d", len(got))
	}
	if err := v.propose(charter.TypePKIRole, next(r, "c", 1, r.Chain[:1])); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a second chain: %v", err)
	}
	v.decide(charter.TypePKIRole, next(r, "c", 1, r.Chain))
	v.decide(charter.TypePKIRole, next(r, "c", 2, nil))
	v.decide(charter.TypePKIRole, next(r, "b", 2, r.Chain[:1]))
	if got := v.State.PKIChain("pki2"); len(got) != 1 {
		t.Errorf("a chain of %d after it was changed", len(got))
	}
}
