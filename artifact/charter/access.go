package charter

import (
	"crypto/x509"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
)

// Statement types about who asks the vault, and for what.
const (
	TypeMount       = "mount"        // an engine at a place
	TypePolicy      = "policy"       // rules under a name
	TypeIdentity    = "identity"     // a process that may ask
	TypeAccessEnded = "access-ended" // one of these, a host, a vendor root or an audit sink, that is no more
)

// Mount puts an engine at the first segment of paths.
type Mount struct {
	Engine string `json:"engine"` // kv, transit, pki, token or password
	ID     string `json:"id"`     // the segment
}

func engines() []string { return []string{"kv", "password", "pki", "token", "transit"} }

// reserved are first segments that the vault's own API has.
func reserved() []string { return []string{"auth", "cubbyhole", "identity", "keyrite", "sys"} }

// Policy is a list of rules under a name. A later one of the same id replaces it.
type Policy struct {
	ID      string        `json:"id"`
	Rules   []access.Rule `json:"rules"`   // 1 to MaxRules
	Version int           `json:"version"` // 1, then one more each time
}

// MaxRules bounds a policy.
const MaxRules = 256

// Identity is a process, known by exactly one way of proving itself.
type Identity struct {
	AppRole     *AppRole     `json:"approle,omitempty"`
	Certificate *Certificate `json:"certificate,omitempty"`
	ID          string       `json:"id"`
	JWT         *JWT         `json:"jwt,omitempty"`
	Policies    []string     `json:"policies"` // ids, sorted, at least one
	TTL         int          `json:"ttl"`      // of its tokens, in seconds: 1 to MaxTTL
	Unix        *Unix        `json:"unix,omitempty"`
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
	ID  string `json:"kid"`
	Key []byte `json:"key"` // DER SubjectPublicKeyInfo, P-256 or Ed25519
}

// AppRole is a process that shows a role id and a secret id, from named networks
// only. Its secrets are the vault's, never the charter's.
type AppRole struct {
	Networks []string `json:"networks"` // CIDR, sorted, at least one, never all addresses
}

// Unix is a process of this host, known by the kernel's word for its user.
type Unix struct {
	UID int `json:"uid"` // 1 or more: root is not an identity
}

// AccessEnded ends a mount, policy, identity, host, vendor root, audit sink or
// transit key. Its id is not given again.
type AccessEnded struct {
	ID   string `json:"id"`
	Type string `json:"type"` // audit-sink, host, identity, mount, policy, transit-key or vendor-root
}

// Access is the part of the state that says who may ask for what.
type Access struct {
	Mounts     map[string]Mount
	Policies   map[string]Policy
	Identities map[string]Identity
	Hosts      map[string]Host // on which the vault may run
	ended      map[string]bool // type and id
	hostKeys   map[string]bool // DER of every key that was ever a host's
}

func newAccess() Access {
	return Access{map[string]Mount{}, map[string]Policy{}, map[string]Identity{}, map[string]Host{}, map[string]bool{}, map[string]bool{}}
}

// Rules are those of an identity's policies, together. An identity that is not in
// the charter has none, and an error of class policy.
func (s *State) Rules(identity string) ([]access.Rule, error) {
	x, ok := s.Access.Identities[identity]
	if !ok {
		return nil, fault.Errorf(fault.Policy, "%w: identity %.40q", ErrUnknown, identity)
	}
	var out []access.Rule
	for _, p := range x.Policies {
		out = append(out, s.Access.Policies[p].Rules...)
	}
	return out, nil
}

// fresh refuses an id that is taken, was ended, or is none.
func (a *Access) fresh(typ, id string, taken bool) error {
	if taken || a.ended[typ+"/"+id] || !idRE.MatchString(id) {
		return badAccess(typ, id, "the id is taken, was ended or is not an id")
	}
	return nil
}

func badAccess(typ, id, why string) error {
	return fault.Errorf(fault.Verify, "%w: %s %.40q: %s", ErrStatement, typ, id, why)
}

func (s *State) addMount(m *Mount) error {
	_, taken := s.Access.Mounts[m.ID]
	if err := s.Access.fresh(TypeMount, m.ID, taken); err != nil {
		return err
	}
	if !slices.Contains(engines(), m.Engine) || slices.Contains(reserved(), m.ID) {
		return badAccess(TypeMount, m.ID, "no such engine, or a place of the vault's own")
	}
	s.Access.Mounts[m.ID] = *m
	return nil
}

func (s *State) addPolicy(p *Policy) error {
	had := s.Access.Policies[p.ID] // version 0 if there is none
	if err := s.Access.fresh(TypePolicy, p.ID, false); err != nil {
		return err
	}
	if p.Version != had.Version+1 || p.Version < 1 {
		return badAccess(TypePolicy, p.ID, "the version does not follow")
	}
	if len(p.Rules) == 0 || len(p.Rules) > MaxRules {
		return badAccess(TypePolicy, p.ID, "no rules, or too many")
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if err := r.Check(); err != nil {
			return fault.Errorf(fault.Verify, "%w: policy %.40q: %w", ErrStatement, p.ID, err)
		}
		mount, _, _ := strings.Cut(r.Path, "/")
		if _, ok := s.Access.Mounts[mount]; !ok {
			return badAccess(TypePolicy, p.ID, "there is no engine at "+mount)
		}
	}
	s.Access.Policies[p.ID] = *p
	return nil
}

func (s *State) addIdentity(x *Identity) error {
	_, taken := s.Access.Identities[x.ID]
	if err := s.Access.fresh(TypeIdentity, x.ID, taken); err != nil {
		return err
	}
	if x.TTL < 1 || x.TTL > MaxTTL {
		return badAccess(TypeIdentity, x.ID, "tokens live 1 second to 24 hours")
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

// sortedSet says whether a list is not empty, sorted and distinct, without an
// empty member.
func sortedSet(l []string) bool {
	return len(l) > 0 && l[0] != "" && slices.IsSorted(l) && len(slices.Compact(slices.Clone(l))) == len(l)
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
	u, err := url.Parse(c.URI)
	if err != nil || u.Scheme == "" || u.Host == "" || u.String() != c.URI || len(c.URI) > 512 || !ca.IsCA || !ca.BasicConstraintsValid {
		return badAccess("client certificate", c.URI, "its issuer is no CA, or it is no absolute URI in its usual spelling")
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
		if err := checkSPKI(k.Key); err != nil {
			return err
		}
	}
	return nil
}

func (r *AppRole) check() error {
	if !sortedSet(r.Networks) {
		return badAccess("role", "", "it needs a sorted list of distinct networks")
	}
	for _, n := range r.Networks {
		p, err := netip.ParsePrefix(n)
		if err != nil || p.Masked().String() != n || p.Bits() == 0 {
			return badAccess("network", n, "it is no CIDR block in its usual spelling, or all addresses")
		}
	}
	return nil
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

// endAccess ends one. A policy that an identity has, and a mount that a policy
// names or that has keys, stay until those are ended.
func (s *State) endAccess(e *AccessEnded) error {
	there := false
	switch e.Type {
	case TypeIdentity:
		_, there = s.Access.Identities[e.ID]
		delete(s.Access.Identities, e.ID)
	case TypePolicy:
		_, there = s.Access.Policies[e.ID]
		for _, x := range s.Access.Identities {
			if slices.Contains(x.Policies, e.ID) {
				return badAccess(TypePolicy, e.ID, "identity "+x.ID+" has it")
			}
		}
		delete(s.Access.Policies, e.ID)
	case TypeMount:
		_, there = s.Access.Mounts[e.ID]
		for _, p := range s.Access.Policies {
			for _, r := range p.Rules {
				if first, _, _ := strings.Cut(r.Path, "/"); first == e.ID {
					return badAccess(TypeMount, e.ID, "policy "+p.ID+" names it")
				}
			}
		}
		if keys := s.TransitKeys(e.ID); len(keys) > 0 {
			return badAccess(TypeMount, e.ID, "it has the key "+keys[0])
		}
		delete(s.Access.Mounts, e.ID)
		s.unmount(e.ID)
	case TypeTransitKey:
		there = s.endTransitKey(e.ID)
	case TypeHost:
		_, there = s.Access.Hosts[e.ID]
		delete(s.Access.Hosts, e.ID)
	case TypeVendorRoot:
		_, there = s.VendorRoots[e.ID]
		delete(s.VendorRoots, e.ID)
	case TypeAuditSink:
		_, there = s.Audit.Sinks[e.ID]
		delete(s.Audit.Sinks, e.ID)
	}
	if !there {
		return badAccess(e.Type, e.ID, "there is none to end")
	}
	s.Access.ended[e.Type+"/"+e.ID] = true
	return nil
}
