package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
)

func der64(der []byte) string { return base64.StdEncoding.EncodeToString(der) }

// throwAway is a key of the same kind as the CA's, to make what is examined before the
// CA signs it. It is worth nothing and kept as long as the engine.
func (e *Engine) throwAway(like crypto.PublicKey) (crypto.Signer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var kind string
	var draw func() (crypto.Signer, error)
	switch k := like.(type) {
	case *ecdsa.PublicKey:
		kind = k.Curve.Params().Name
		draw = func() (crypto.Signer, error) { return ecdsa.GenerateKey(k.Curve, rand.Reader) }
	case *rsa.PublicKey:
		kind = fmt.Sprint(k.N.BitLen())
		draw = func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, k.N.BitLen()) }
	default:
		return nil, fault.New(fault.Unexpected, "the CA's key is of a kind that the charter refuses")
	}
	if s, ok := e.proof[kind]; ok {
		return s, nil
	}
	s, err := draw()
	if err != nil {
		return nil, fmt.Errorf("make a throw-away key: %w", err)
	}
	e.proof[kind] = s
	return s, nil
}

// examine holds a certificate, read by Go's own reader, against what was asked for and
// what must be. It returns the bytes that the CA may sign.
func (x *issue) examine(der []byte) ([]byte, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "%w: %w", ErrLint, err)
	}
	var found []string
	for _, l := range []struct {
		name string
		ok   bool
	}{
		{"version_3", c.Version == 3},
		{"number", c.SerialNumber.Cmp(new(big.Int).SetBytes(x.serial[:])) == 0 && c.SerialNumber.BitLen() == 127},
		{"not_ca", !c.IsCA},
		{"key_usage", c.KeyUsage == x509.KeyUsageDigitalSignature},
		{"usages", x.usagesHold(c)},
		{"no_unknown_critical", len(c.UnhandledCriticalExtensions) == 0},
		{"issuer", string(c.RawIssuer) == string(x.issuer.RawSubject) && slices.Equal(c.AuthorityKeyId, x.issuer.SubjectKeyId)},
		{"key_identifiers", len(c.SubjectKeyId) == 20 && len(c.AuthorityKeyId) > 0},
		{"world_in_subject", slices.Equal(c.Subject.Organization, x.issuer.Subject.Organization)},
		{"times", !c.NotBefore.Before(x.issuer.NotBefore) && !c.NotAfter.After(x.issuer.NotAfter) && c.NotAfter.Equal(x.now.Add(x.ttl)) && c.NotBefore.Before(c.NotAfter)},
		{"key_of_the_role", slices.Contains(x.role.KeyTypes, keyType(c.PublicKey))},
		{"names", x.namesHold(c)},
		{"places", slices.Equal(c.CRLDistributionPoints, place(x.role.CRL)) && slices.Equal(c.OCSPServer, place(x.role.OCSP)) && len(c.IssuingCertificateURL) == 0},
	} {
		if !l.ok {
			found = append(found, l.name)
		}
	}
	if len(found) > 0 {
		return nil, fault.Errorf(fault.Unexpected, "%w: %s", ErrLint, strings.Join(found, ", "))
	}
	return c.RawTBSCertificate, nil
}

func (x *issue) usagesHold(c *x509.Certificate) bool {
	if len(c.ExtKeyUsage) != len(x.role.Usages) || len(c.UnknownExtKeyUsage) > 0 {
		return false
	}
	for _, u := range c.ExtKeyUsage {
		name := map[x509.ExtKeyUsage]string{x509.ExtKeyUsageClientAuth: "client", x509.ExtKeyUsageServerAuth: "server"}[u]
		if !slices.Contains(x.role.Usages, name) {
			return false
		}
	}
	return true
}

// namesHold says whether the certificate bears the names that were asked for and each
// is one that the role allows.
func (x *issue) namesHold(c *x509.Certificate) bool {
	n := &names{common: c.Subject.CommonName, dns: c.DNSNames}
	for _, u := range c.URIs {
		n.uris = append(n.uris, u.String())
	}
	for _, ip := range c.IPAddresses {
		a, ok := netip.AddrFromSlice(ip)
		if !ok {
			return false
		}
		n.ips = append(n.ips, a.Unmap())
	}
	if x.role.Relay != "" {
		n.common = "" // what the profile says there is no name of a machine
		if !slices.Equal(n.uris, []string{birthcert.RoleURI(x.role.Relay)}) {
			return false
		}
		n.uris = nil
	}
	n.tidy()
	return len(c.EmailAddresses) == 0 && slices.Equal(n.all(), x.names.all()) && n.check(x.role) == nil
}
