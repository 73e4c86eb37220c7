package charter

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
)

// TypePKIRole is the statement of a kind of certificate that a pki engine issues.
const TypePKIRole = "pki-role"

// PKIRole is a kind of certificate that processes get for themselves. A later
// statement of the same mount and name replaces it. All roles of a mount have the same
// issuer: it is the mount's CA, with one list of what was revoked.
type PKIRole struct {
	Chain    [][]byte `json:"chain,omitempty"` // DER, certificates above Issuer, each the issuer of the one before; given out with its certificates
	CRL      string   `json:"crl,omitempty"`   // URL at which the list of what was revoked is found; stands in its certificates
	DNS      []string `json:"dns"`             // names; one that begins with a dot stands for every name below it; sorted
	Issuer   []byte   `json:"issuer"`          // DER, certificate of Key
	IPs      []string `json:"ips"`             // CIDR blocks; sorted
	Key      string   `json:"key"`             // id of a key record of domain x509
	KeyTypes []string `json:"key_types"`       // of PKIKeyTypes; sorted; the first is made where none is asked for
	MaxLive  int      `json:"max_live"`        // certificates at a time: 1 to MaxPKILive
	MaxTTL   int      `json:"max_ttl"`         // seconds: 1 to MaxPKITTL
	Mount    string   `json:"mount"`
	Name     string   `json:"name"`
	OCSP     string   `json:"ocsp,omitempty"`   // URL of who answers about its certificates; stands in them
	Public   bool     `json:"public,omitempty"` // the mount's list, and answers about single certificates, are for whoever asks
	Relay    string   `json:"relay,omitempty"`  // role of relay servers in their own profile: see docs/formats/birthcert.md
	URIs     []string `json:"uris"`             // URIs; one that ends with a slash stands for every one below it; sorted
	Usages   []string `json:"usages"`           // client, server; sorted
	Version  int      `json:"version"`          // 1, then one more each time
}

// Limits of a role.
const (
	MaxPKITTL   = 30 * 24 * 60 * 60
	MaxPKILive  = 10_000
	maxPKINames = 64
	maxPKIChain = 4 // certificates above the issuer
)

// PKIKeyTypes are the kinds of keys that certificates are given to.
func PKIKeyTypes() []string { return []string{"ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-3072"} }

// The spellings of names. There is none with a wildcard, nor with anything that would
// have to be decoded.
var (
	pkiNameRE = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	pkiURLRE  = regexp.MustCompile(`^https?://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[1-9][0-9]{0,4})?(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$`)
	pkiURIRE  = regexp.MustCompile(`^[a-z][a-z0-9+.-]{1,31}://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$`)
)

// CheckDNS wants a name in its one spelling, and of a length that there may be.
func CheckDNS(name string) error {
	if len(name) > 253 || !pkiNameRE.MatchString(name) || !strings.ContainsFunc(name, func(r rune) bool { return r < '0' || r > '9' && r != '.' }) || isIP(name) {
		return fault.Errorf(fault.Policy, "%.80q is no DNS name in its usual spelling", name)
	}
	return nil
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// CheckURI wants a URI of scheme, host and path in its one spelling.
func CheckURI(uri string) error {
	if len(uri) > 512 || !pkiURIRE.MatchString(uri) {
		return fault.Errorf(fault.Policy, "%.80q is no URI of scheme, host and path in its usual spelling", uri)
	}
	return nil
}

// AllowsDNS says whether a certificate of the role may bear the name: nil if so.
func (r *PKIRole) AllowsDNS(name string) error {
	if err := CheckDNS(name); err != nil {
		return err
	}
	for _, n := range r.DNS {
		if name == n || strings.HasPrefix(n, ".") && strings.HasSuffix(name, n) {
			return nil
		}
	}
	return r.denied(name)
}

// AllowsURI is AllowsDNS for a URI.
func (r *PKIRole) AllowsURI(uri string) error {
	if err := CheckURI(uri); err != nil {
		return err
	}
	for _, u := range r.URIs {
		if uri == u || strings.HasSuffix(u, "/") && strings.HasPrefix(uri, u) {
			return nil
		}
	}
	return r.denied(uri)
}

// AllowsIP is AllowsDNS for an address.
func (r *PKIRole) AllowsIP(a netip.Addr) error {
	for _, block := range r.IPs {
		p, err := netip.ParsePrefix(block)
		if err == nil && a.Zone() == "" && !a.Is4In6() && p.Contains(a) {
			return nil
		}
	}
	return r.denied(a.String())
}

func (r *PKIRole) denied(name string) error {
	return fault.Errorf(fault.Policy, "role %s gives no certificate for %.80q", r.Name, name)
}

// PKIPublic says whether the list of a mount and answers about its certificates are for
// whoever asks: one of its roles in force says so.
func (s *State) PKIPublic(mount string) bool {
	return slices.ContainsFunc(s.PKIRolesAt(mount), func(name string) bool { return s.PKIRoles[At(mount, name)].Public })
}

// PKIRolesAt are the names of a mount's roles, in order.
func (s *State) PKIRolesAt(mount string) []string { return namesAt(s.PKIRoles, mount) }

// PKIChain are the certificates above a mount's issuer, DER, each the issuer of the one
// before: those of the roles that state them. None if no role does.
func (s *State) PKIChain(mount string) [][]byte {
	for _, name := range s.PKIRolesAt(mount) {
		if c := s.PKIRoles[At(mount, name)].Chain; len(c) > 0 {
			return c
		}
	}
	return nil
}

func (s *State) addPKIRole(r *PKIRole) error {
	id := At(r.Mount, r.Name)
	m, ok := s.Access.Mounts[r.Mount]
	had := s.PKIRoles[id]
	switch {
	case !ok || m.Engine != "pki" || !idRE.MatchString(r.Name) || s.Access.ended[TypePKIRole+"/"+id]:
		return badAccess(TypePKIRole, id, "there is no pki engine at that place, or the name is no id or was ended")
	case r.Version != had.Version+1:
		return badAccess(TypePKIRole, id, "the version does not follow")
	case r.MaxTTL < 1 || r.MaxTTL > MaxPKITTL || r.MaxLive < 1 || r.MaxLive > MaxPKILive:
		return badAccess(TypePKIRole, id, "certificates live 1 second to 30 days, 1 to 10,000 at a time")
	}
	if err := r.checkKinds(id); err != nil {
		return err
	}
	if err := r.checkNames(id); err != nil {
		return err
	}
	if err := s.checkCA(r, id); err != nil {
		return err
	}
	for _, name := range s.PKIRolesAt(r.Mount) {
		o := s.PKIRoles[At(r.Mount, name)]
		if o.Key != r.Key || !bytes.Equal(o.Issuer, r.Issuer) {
			return badAccess(TypePKIRole, id, "the mount has another issuer; another issuer wants another mount")
		}
		if name != r.Name && len(o.Chain) > 0 && len(r.Chain) > 0 && !slices.EqualFunc(o.Chain, r.Chain, bytes.Equal) {
			return badAccess(TypePKIRole, id, "another role of the mount has another chain")
		}
	}
	// Also where all roles of a mount were ended: its list is of one issuer for ever.
	if first, ok := s.pkiIssuers[r.Mount]; ok && !bytes.Equal(first, r.Issuer) {
		return badAccess(TypePKIRole, id, "the mount had another issuer")
	}
	s.PKIRoles[id], s.pkiIssuers[r.Mount] = *r, r.Issuer
	return nil
}

func (r *PKIRole) checkKinds(id string) error {
	for _, x := range []struct{ have, of []string }{{r.KeyTypes, PKIKeyTypes()}, {r.Usages, []string{"client", "server"}}} {
		if !sortedSet(x.have) || slices.ContainsFunc(x.have, func(s string) bool { return !slices.Contains(x.of, s) }) {
			return badAccess(TypePKIRole, id, "key_types and usages are sorted lists of distinct ones that there are")
		}
	}
	for _, u := range []string{r.CRL, r.OCSP} {
		if u != "" && checkPlace(u) != nil {
			return badAccess(TypePKIRole, id, "crl and ocsp are URLs with http or https, host and path in their usual spelling")
		}
	}
	if r.Relay == "" {
		return nil
	}
	if r.CRL != "" || r.OCSP != "" {
		return badAccess(TypePKIRole, id, "certificates of relay servers name no place for lists or answers: their profile has none")
	}
	if !slices.Contains([]string{"access", "mailbox", "portal", "vpn"}, r.Relay) || !slices.Equal(r.KeyTypes, []string{"ecdsa-p256"}) || !slices.Equal(r.Usages, []string{"server"}) || len(r.URIs) > 0 {
		return badAccess(TypePKIRole, id, "relay servers have P-256 keys, are servers, and their one URI follows from the role")
	}
	return nil
}

// maxPlaceBytes bounds a URL in a certificate.
const maxPlaceBytes = 256

// checkPlace wants a URL that means one place, without anything to be decoded.
func checkPlace(u string) error {
	at, err := url.Parse(u)
	if err != nil || len(u) > maxPlaceBytes || !pkiURLRE.MatchString(u) || at.String() != u {
		return fault.Errorf(fault.Verify, "%.80q is no URL in its usual spelling", u)
	}
	if port := at.Port(); port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fault.Errorf(fault.Verify, "%.80q has no port that there is", u)
		}
	}
	return nil
}

// checkNames wants names that mean something, in their one spelling.
func (r *PKIRole) checkNames(id string) error {
	n := len(r.DNS) + len(r.URIs) + len(r.IPs)
	if n == 0 || n > maxPKINames {
		return badAccess(TypePKIRole, id, "no names, or too many")
	}
	for _, l := range [][]string{r.DNS, r.URIs, r.IPs} {
		if len(l) > 0 && !sortedSet(l) {
			return badAccess(TypePKIRole, id, "names stand in sorted lists of distinct ones")
		}
	}
	for _, d := range r.DNS {
		below, all := strings.CutPrefix(d, ".")
		if CheckDNS(below) != nil || all && !strings.Contains(below, ".") {
			return badAccess(TypePKIRole, id, "a DNS name is not in its usual spelling, or a suffix has one label only")
		}
	}
	for _, u := range r.URIs {
		if CheckURI(strings.TrimSuffix(u, "/")) != nil {
			return badAccess(TypePKIRole, id, "a URI is not in its usual spelling")
		}
	}
	for _, b := range r.IPs {
		p, err := netip.ParsePrefix(b)
		if err != nil || p.Masked().String() != b || p.Addr().Is4In6() || p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 32 {
			return badAccess(TypePKIRole, id, "a block of addresses is not in its usual spelling, or wider than /8 (IPv6: /32)")
		}
	}
	return nil
}

// checkCA wants a CA of this world whose key is in force and signs certificates in
// an algorithm that answers about them can be signed in, too.
func (s *State) checkCA(r *PKIRole, id string) error {
	rec, err := s.Key(r.Key, "x509")
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrStatement, err)
	}
	c, err := x509.ParseCertificate(r.Issuer)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: issuer: %w", ErrStatement, err)
	}
	const usage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	switch {
	case !bytes.Equal(c.RawSubjectPublicKeyInfo, rec.Public):
		return badAccess(TypePKIRole, id, "the issuer's certificate is of another key")
	case !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&usage != usage || len(c.SubjectKeyId) == 0:
		return badAccess(TypePKIRole, id, "the issuer is no CA that signs certificates and lists")
	case len(c.Subject.Organization) != 1 || c.Subject.Organization[0] != string(s.World):
		return badAccess(TypePKIRole, id, "the issuer's subject does not name this world")
	case !slices.Contains([]string{anchor.P256, anchor.P384, anchor.RSA3072, anchor.RSA4096}, rec.Algorithm):
		return badAccess(TypePKIRole, id, "no answers about certificates are signed in the issuer's algorithm")
	case r.Relay != "" && rec.Algorithm != anchor.P256:
		return badAccess(TypePKIRole, id, "the issuer of relay servers has a P-256 key")
	}
	return r.checkChain(id, c)
}

// checkChain wants each certificate above the issuer to have signed the one before, and
// nothing above a root.
func (r *PKIRole) checkChain(id string, below *x509.Certificate) error {
	if len(r.Chain) > maxPKIChain {
		return badAccess(TypePKIRole, id, "more certificates above the issuer than four")
	}
	for i, der := range r.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fault.Errorf(fault.Verify, "%w: certificate %d above the issuer: %w", ErrStatement, i+1, err)
		}
		// Below it are the issuer and i more, of which none issued itself.
		short := (c.MaxPathLen > 0 || c.MaxPathLenZero) && c.MaxPathLen < i+1
		switch {
		case bytes.Equal(below.RawSubject, below.RawIssuer):
			return badAccess(TypePKIRole, id, "nothing is above a root")
		case !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0 || short:
			return badAccess(TypePKIRole, id, "a certificate above the issuer is of no CA that may sign the one before it")
		case !bytes.Equal(below.RawIssuer, c.RawSubject) || len(below.AuthorityKeyId) > 0 && !bytes.Equal(below.AuthorityKeyId, c.SubjectKeyId):
			return badAccess(TypePKIRole, id, "the certificates above the issuer are not in the order of who issued whom")
		}
		if err := below.CheckSignatureFrom(c); err != nil {
			return fault.Errorf(fault.Verify, "%w: certificate %d above the issuer did not sign the one before: %w", ErrStatement, i+1, err)
		}
		below = c
	}
	return nil
}
