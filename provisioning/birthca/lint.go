package birthca

import (
	"crypto/x509"
	"encoding/asn1"
	"sort"
	"strings"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
)

// notOurs are lints of the sources we use that contradict a device certificate,
// each with the reason. They are left out by name, so a new lint counts.
func notOurs() []string { return nil }

// examine runs zlint, restricted to RFC 5280 and RFC 5480 (the CA/Browser rules
// do not fit certificates without an end), and the lints of our own.
func examine(der []byte, profile birthcert.ProfileName) error {
	found, err := zlintFindings(der)
	if err != nil {
		return err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: Go cannot read it: %w", ErrLint, err)
	}
	for _, l := range ownLints() {
		if l.applies(profile) && !l.holds(c) {
			found = append(found, l.name)
		}
	}
	return verdict(found)
}

func verdict(found []string) error {
	if len(found) == 0 {
		return nil
	}
	sort.Strings(found)
	return fault.Errorf(fault.Verify, "%w: %s", ErrLint, strings.Join(found, ", "))
}

// zlintFindings names everything that zlint has to say against a certificate.
func zlintFindings(der []byte) ([]string, error) {
	zc, err := zx509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: zlint cannot read it: %w", ErrLint, err)
	}
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480},
		ExcludeNames:   notOurs(),
	})
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "choose lints: %w", err)
	}
	var found []string
	for name, r := range zlint.LintCertificateEx(zc, registry).Results {
		if r.Status >= lint.Warn {
			found = append(found, name+" ("+r.Status.String()+")")
		}
	}
	return found, nil
}

type ownLint struct {
	name    string
	applies func(birthcert.ProfileName) bool
	holds   func(*x509.Certificate) bool
}

func all(birthcert.ProfileName) bool              { return true }
func isDevice(p birthcert.ProfileName) bool       { return p == birthcert.Device }
func isCA(p birthcert.ProfileName) bool           { return !isDevice(p) && p != birthcert.Relay }
func isFactoryCA(p birthcert.ProfileName) bool    { return p == birthcert.FactoryCA }
func isBirthForever(p birthcert.ProfileName) bool { return p != birthcert.Relay }

// ownLints are the rules of IEEE 802.1AR and of docs/formats/birthcert.md that
// zlint does not know. They look at the finished certificate through Go's
// reader, so they do not share a mistake with the code that wrote it.
func ownLints() []ownLint {
	return []ownLint{
		{"keyrite_p256_sha256", all, func(c *x509.Certificate) bool {
			return c.PublicKeyAlgorithm == x509.ECDSA && c.SignatureAlgorithm == x509.ECDSAWithSHA256
		}},
		{"keyrite_serial_128_bit", all, func(c *x509.Certificate) bool { return c.SerialNumber.Sign() > 0 && c.SerialNumber.BitLen() == 127 }},
		{"keyrite_world_in_subject", all, func(c *x509.Certificate) bool {
			return len(c.Subject.Organization) == 1 && len(c.Issuer.Organization) == 1 && c.Subject.Organization[0] == c.Issuer.Organization[0]
		}},
		{"keyrite_key_identifiers", all, func(c *x509.Certificate) bool { return len(c.SubjectKeyId) == 20 && len(c.AuthorityKeyId) == 20 }},
		{"keyrite_no_unknown_critical", all, func(c *x509.Certificate) bool { return len(c.UnhandledCriticalExtensions) == 0 }},
		{"keyrite_without_end", isBirthForever, func(c *x509.Certificate) bool { return c.NotAfter.Equal(birthcert.Forever()) }},
		{"keyrite_ca_key_usage", isCA, func(c *x509.Certificate) bool {
			return c.IsCA && c.BasicConstraintsValid && c.KeyUsage == x509.KeyUsageCertSign|x509.KeyUsageCRLSign && (c.MaxPathLen > 0 || c.MaxPathLenZero)
		}},
		{"keyrite_factory_path_length", isFactoryCA, func(c *x509.Certificate) bool { return c.MaxPathLen == 0 && c.MaxPathLenZero }},
		{"keyrite_factory_grant", isFactoryCA, func(c *x509.Certificate) bool { return hasExtension(c, birthcert.OIDFactory(), false) }},
		{"idevid_not_ca", isDevice, func(c *x509.Certificate) bool { return !c.IsCA && c.KeyUsage == x509.KeyUsageDigitalSignature }},
		{"idevid_no_eku", isDevice, func(c *x509.Certificate) bool { return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 }},
		{"idevid_subject", isDevice, func(c *x509.Certificate) bool {
			return c.Subject.SerialNumber != "" && c.Subject.CommonName == "" && len(c.Subject.OrganizationalUnit) == 1
		}},
		{"idevid_hardware_module_name", isDevice, func(c *x509.Certificate) bool {
			return hasExtension(c, asn1.ObjectIdentifier{2, 5, 29, 17}, false) && len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses)+len(c.URIs) == 0
		}},
		{"idevid_birth", isDevice, func(c *x509.Certificate) bool { return hasExtension(c, birthcert.OIDDevice(), false) }},
		{"keyrite_relay_server_only", func(p birthcert.ProfileName) bool { return p == birthcert.Relay }, func(c *x509.Certificate) bool {
			return len(c.ExtKeyUsage) == 1 && c.ExtKeyUsage[0] == x509.ExtKeyUsageServerAuth && len(c.UnknownExtKeyUsage) == 0 && len(c.URIs) == 1
		}},
	}
}

func hasExtension(c *x509.Certificate, id asn1.ObjectIdentifier, critical bool) bool {
	n := 0
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			if e.Critical != critical {
				return false
			}
			n++
		}
	}
	return n == 1
}
