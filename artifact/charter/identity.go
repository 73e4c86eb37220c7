package charter

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"maps"
	"net/netip"
	"net/url"
	"slices"

	"keyrite/artifact/fault"
)

// Identity is a process, known by exactly one way of proving itself.
type Identity struct {
	AppRole     *AppRole     `json:"approle,omitempty"`
	Certificate *Certificate `json:"certificate,omitempty"`
	ID          string       `json:"id"`
	JWT         *JWT         `json:"jwt,omitempty"`
	// MaxTTL is until when a token can be renewed, in seconds from its issue: more
	// than TTL, at most 24 hours. Without it tokens of this identity are not renewed.
	MaxTTL   int      `json:"max_ttl,omitempty"`
	Policies []string `json:"policies"` // ids, sorted, at least one
	TTL      int      `json:"ttl"`      // of its tokens, in seconds: 1 to MaxTTL
	Unix     *Unix    `json:"unix,omitempty"`
}

// MaxTTL is the longest life of a token: 24 hours, in seconds.
const MaxTTL = 24 * 60 * 60

// Certificate is a client that shows a TLS certificate of that issuer with that
// URI as its one subject alternative name of the kind.
type Certificate struct {
	CA  []byte `json:"ca"`  // DER
	URI string `json:"uri"` // for example spiffe://example.com/line1/mes
}

// JWT is a job that shows a token of an issuer (RFC 7519), checked offline. Each
// claim must be equal; aud and sub are required.
type JWT struct {
	Audience string            `json:"aud"`
	Claims   map[string]string `json:"claims"` // beside these; may be empty
	Issuer   string            `json:"iss"`
	Keys     []JWTKey          `json:"keys"` // pinned, at least one
	Subject  string            `json:"sub"`
}

// JWTKey is a key of the issuer.
type JWTKey struct {
	ID string `json:"kid"`
	// Key is a DER SubjectPublicKeyInfo. Its kind fixes the algorithm (RFC 7518):
	// RSA of 2,048 to 4,096 bits RS256, P-256 ES256, P-384 ES384, Ed25519 EdDSA.
	Key []byte `json:"key"`
}

// AppRole is a process that shows a role id and a secret id, from named networks
// only. Its secrets are the vault's, never the charter's.
type AppRole struct {
	Networks []string `json:"networks"` // CIDR, sorted, at least one; IPv4 /8, IPv6 /32 or narrower
}

// Unix is a process of this host, known by the kernel's word for its user.
type Unix struct {
	UID int `json:"uid"` // 1 or more: root is not an identity
}

func (s *State) addIdentity(x *Identity) error {
	_, taken := s.Access.Identities[x.ID]
	if err := s.Access.fresh(TypeIdentity, x.ID, taken); err != nil {
		return err
	}
	if x.TTL < 1 || x.TTL > MaxTTL {
		return badAccess(TypeIdentity, x.ID, "tokens live 1 second to 24 hours")
	}
	if x.MaxTTL != 0 && (x.MaxTTL <= x.TTL || x.MaxTTL > MaxTTL) {
		return badAccess(TypeIdentity, x.ID, "tokens are renewed for longer than they live, up to 24 hours, or not at all")
	}
	if !sortedSet(x.Policies) {
		return badAccess(TypeIdentity, x.ID, "it needs a sorted list of distinct policies")
	}
	for _, p := range x.Policies {
		if _, ok := s.Access.Policies[p]; !ok {
			return badAccess(TypeIdentity, x.ID, "there is no policy "+p)
		}
	}
	if err := x.checkProof(); err != nil {
		return err
	}
	for _, o := range s.Access.Identities {
		if o.same(x) {
			return badAccess(TypeIdentity, x.ID, "the same process is known as "+o.ID)
		}
	}
	s.Access.Identities[x.ID] = *x
	return nil
}

// checkProof wants exactly one way of proving who it is, and that one whole.
func (x *Identity) checkProof() error {
	n := 0
	var err error
	if x.Certificate != nil {
		n, err = n+1, x.Certificate.check()
	}
	if x.JWT != nil && err == nil {
		n, err = n+1, x.JWT.check()
	}
	if x.AppRole != nil && err == nil {
		n, err = n+1, x.AppRole.check()
	}
	if x.Unix != nil && err == nil {
		n++
		if x.Unix.UID < 1 {
			err = badAccess("user", "", "root is not an identity")
		}
	}
	if err == nil && n != 1 {
		err = badAccess("", "", "one way of proving itself is needed")
	}
	if err != nil {
		return fault.Errorf(fault.Verify, "identity %.40q: %w", x.ID, err)
	}
	return nil
}

func (c *Certificate) check() error {
	ca, err := x509.ParseCertificate(c.CA)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: issuer of client certificates: %w", ErrStatement, err)
	}
	if !ca.IsCA || !ca.BasicConstraintsValid || ca.KeyUsage&x509.KeyUsageCertSign == 0 {
		return badAccess("client certificate", c.URI, "its issuer says of itself that it is no CA, or has no key usage keyCertSign")
	}
	u, err := url.Parse(c.URI)
	if err != nil || u.Scheme == "" || u.Host == "" || u.String() != c.URI || len(c.URI) > 512 {
		return badAccess("client certificate", c.URI, "it is no absolute URI in its usual spelling, such as spiffe://plant.example/mes")
	}
	return nil
}

func (j *JWT) check() error {
	if j.Issuer == "" || j.Audience == "" || j.Subject == "" || len(j.Keys) == 0 || j.Claims == nil {
		return badAccess("token", j.Issuer, "iss, aud, sub, claims and keys are needed")
	}
	for k, v := range j.Claims {
		if k == "" || v == "" || slices.Contains([]string{"iss", "aud", "sub", "exp", "nbf", "iat", "jti"}, k) {
			return badAccess("token", j.Issuer, "a claim is empty, or has a place of its own")
		}
	}
	seen := map[string]bool{}
	for _, k := range j.Keys {
		if k.ID == "" || seen[k.ID] {
			return badAccess("token", j.Issuer, "key ids are empty or repeated")
		}
		seen[k.ID] = true
		if err := k.check(); err != nil {
			return err
		}
	}
	return nil
}

// check wants a key of a kind that has one algorithm.
func (k *JWTKey) check() error {
	pub, err := x509.ParsePKIXPublicKey(k.Key)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: key of a token's issuer: %w", ErrStatement, err)
	}
	good := false
	switch p := pub.(type) {
	case *rsa.PublicKey:
		good = p.N.BitLen() >= 2048 && p.N.BitLen() <= 4096 && p.E == 65537
	case *ecdsa.PublicKey:
		good = p.Curve == elliptic.P256() || p.Curve == elliptic.P384()
	case ed25519.PublicKey:
		good = true
	}
	if !good {
		return badAccess("token", k.ID, "its issuer's key is none of RSA of 2,048 to 4,096 bits, P-256, P-384, Ed25519")
	}
	return nil
}

func (r *AppRole) check() error {
	if !sortedSet(r.Networks) {
		return badAccess("role", "", "it needs a sorted list of distinct networks")
	}
	for _, n := range r.Networks {
		p, err := netip.ParsePrefix(n)
		if err != nil || p.Masked().String() != n || p.Bits() < minBits(p) {
			return badAccess("network", n, "it is no CIDR block in its usual spelling, or too wide")
		}
	}
	return nil
}

// minBits bounds a network, so that a few of them are never all addresses: /8 is
// the widest private one (RFC 1918), /32 what a registry gives to a provider.
func minBits(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 8
	}
	return 32
}

// same says whether both would be proved by the same process.
func (x *Identity) same(o *Identity) bool {
	switch {
	case x.Certificate != nil && o.Certificate != nil:
		return x.Certificate.URI == o.Certificate.URI
	case x.JWT != nil && o.JWT != nil:
		return x.JWT.Issuer == o.JWT.Issuer && x.JWT.Audience == o.JWT.Audience && x.JWT.Subject == o.JWT.Subject && maps.Equal(x.JWT.Claims, o.JWT.Claims)
	case x.Unix != nil && o.Unix != nil:
		return x.Unix.UID == o.Unix.UID
	}
	return false
}
