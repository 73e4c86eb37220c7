package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
)

// names are what a certificate stands for.
type names struct {
	common string // one of DNS; may be empty
	dns    []string
	uris   []string
	ips    []netip.Addr
}

// maxNames bounds a certificate.
const maxNames = 32

func (n *names) all() []string {
	out := slices.Concat(n.dns, n.uris)
	for _, a := range n.ips {
		out = append(out, a.String())
	}
	return out
}

// readNames takes the names out of a request; what it does not say is empty.
func readNames(p engine.Params) (*names, error) {
	n := &names{}
	var err error
	if n.common, err = p.String("common_name"); err != nil {
		return nil, err
	}
	if n.dns, err = list(p, "alt_names"); err != nil {
		return nil, err
	}
	if n.common != "" {
		n.dns = append([]string{n.common}, n.dns...)
	}
	if n.uris, err = list(p, "uri_sans"); err != nil {
		return nil, err
	}
	ips, err := list(p, "ip_sans")
	if err != nil {
		return nil, err
	}
	for _, s := range ips {
		a, err := netip.ParseAddr(s)
		if err != nil || a.String() != s {
			return nil, fault.Errorf(fault.Usage, "%.60q is no IP address in its usual spelling", s)
		}
		n.ips = append(n.ips, a)
	}
	n.tidy()
	return n, nil
}

// list reads a list as clients send it: names with commas between them, or a JSON list.
func list(p engine.Params, name string) ([]string, error) {
	if !p.Has(name) {
		return nil, nil
	}
	var out []string
	if err := p.Into(name, &out); err == nil {
		return out, nil
	}
	s, err := p.String(name)
	if err != nil || s == "" {
		return nil, err
	}
	for part := range strings.SplitSeq(s, ",") {
		out = append(out, strings.TrimSpace(part))
	}
	return out, nil
}

// tidy puts names in order and each once.
func (n *names) tidy() {
	slices.Sort(n.dns)
	slices.Sort(n.uris)
	slices.SortFunc(n.ips, netip.Addr.Compare)
	n.dns, n.uris, n.ips = slices.Compact(n.dns), slices.Compact(n.uris), slices.Compact(n.ips)
}

// check holds names against a role.
func (n *names) check(r *charter.PKIRole) error {
	count := len(n.dns) + len(n.uris) + len(n.ips)
	if count == 0 || count > maxNames {
		return fault.Errorf(fault.Usage, "a certificate is for 1 to %d names, this one for %d", maxNames, count)
	}
	if len(n.common) > 64 { // RFC 5280, appendix A.1, ub-common-name
		return fault.New(fault.Usage, "a common name has at most 64 characters; give a longer one as alt_names")
	}
	for _, d := range n.dns {
		if err := r.AllowsDNS(d); err != nil {
			return err
		}
	}
	for _, u := range n.uris {
		if err := r.AllowsURI(u); err != nil {
			return err
		}
	}
	for _, a := range n.ips {
		if err := r.AllowsIP(a); err != nil {
			return err
		}
	}
	return nil
}

func (n *names) netIPs() []net.IP {
	var out []net.IP
	for _, a := range n.ips {
		out = append(out, a.AsSlice())
	}
	return out
}

func (n *names) urls() ([]*url.URL, error) {
	var out []*url.URL
	for _, s := range n.uris {
		u, err := url.Parse(s)
		if err != nil || u.String() != s {
			return nil, fault.Errorf(fault.Usage, "%.80q is no URI in its usual spelling", s)
		}
		out = append(out, u)
	}
	return out, nil
}

// maxRequestBytes bounds a certificate request.
const maxRequestBytes = 16 << 10

// readCSR reads a PKCS #10 request in PEM: its key, possession of which it proves, and
// its names. What else it wants is not looked at, but that it wants to be a CA, or has
// names of a kind that no role gives, is refused: who asks for that should know.
func readCSR(text string) (crypto.PublicKey, *names, error) {
	bad := func(why string) (crypto.PublicKey, *names, error) {
		return nil, nil, fault.Errorf(fault.Usage, "%w: %s", ErrRequest, why)
	}
	if len(text) > maxRequestBytes {
		return bad("it is too long")
	}
	b, rest := pem.Decode([]byte(text))
	if b == nil || len(strings.TrimSpace(string(rest))) > 0 || b.Type != "CERTIFICATE REQUEST" && b.Type != "NEW CERTIFICATE REQUEST" {
		return bad("it is not one PEM block CERTIFICATE REQUEST")
	}
	c, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return bad("it does not parse")
	}
	if err := c.CheckSignature(); err != nil {
		return bad("it does not prove that its sender has the key")
	}
	if len(c.EmailAddresses) > 0 {
		return bad("it has e-mail addresses")
	}
	if err := checkWishes(c); err != nil {
		return nil, nil, err
	}
	n := &names{common: c.Subject.CommonName, dns: c.DNSNames}
	if n.common != "" {
		n.dns = append([]string{n.common}, n.dns...)
	}
	for _, u := range c.URIs {
		n.uris = append(n.uris, u.String())
	}
	for _, ip := range c.IPAddresses {
		a, ok := netip.AddrFromSlice(ip)
		if !ok {
			return bad("it has an IP address that is none")
		}
		n.ips = append(n.ips, a.Unmap())
	}
	n.tidy()
	return c.PublicKey, n, nil
}

var (
	oidBasic = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidSAN   = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// checkWishes refuses a request to be a CA, and names that Go's reader passes over.
func checkWishes(c *x509.CertificateRequest) error {
	for _, x := range c.Extensions {
		switch {
		case x.Id.Equal(oidBasic):
			var b struct {
				CA  bool `asn1:"optional"`
				Len int  `asn1:"optional,default:-1"`
			}
			if rest, err := asn1.Unmarshal(x.Value, &b); err != nil || len(rest) > 0 || b.CA {
				return fault.Errorf(fault.Usage, "%w: it wants to be a CA", ErrRequest)
			}
		case x.Id.Equal(oidSAN):
			var all []asn1.RawValue
			if rest, err := asn1.Unmarshal(x.Value, &all); err != nil || len(rest) > 0 || len(all) != len(c.DNSNames)+len(c.URIs)+len(c.IPAddresses) {
				return fault.Errorf(fault.Usage, "%w: it has names of a kind that is not given", ErrRequest)
			}
		}
	}
	return nil
}

// keyType says what kind a public key is; "" for one that is none of ours.
func keyType(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return "ecdsa-p256"
		case elliptic.P384():
			return "ecdsa-p384"
		}
	case ed25519.PublicKey:
		return "ed25519"
	case *rsa.PublicKey:
		if k.N.BitLen() == 3072 && k.E == 65537 {
			return "rsa-3072"
		}
	}
	return ""
}
