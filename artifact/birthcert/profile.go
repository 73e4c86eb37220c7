package birthcert

import (
	"crypto/x509"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// ProfileName names a profile.
type ProfileName string

// The profiles.
const (
	BirthRoot ProfileName = "birth-root"
	RelayCA   ProfileName = "relay-ca"
	FactoryCA ProfileName = "factory-ca"
	Relay     ProfileName = "relay"
	Device    ProfileName = "device"
)

// Profile is one row of the table of what we issue. Every certificate is v3,
// signed with ecdsa-with-SHA256 over a P-256 key, has a 128-bit number, subject
// and authority key identifiers, and a critical key usage.
type Profile struct {
	Name       ProfileName   `json:"name"`
	SelfSigned bool          `json:"self_signed"`
	CA         bool          `json:"ca"`
	PathLen    int           `json:"path_len"` // of a CA
	KeyUsage   x509.KeyUsage `json:"key_usage"`
	ServerAuth bool          `json:"server_auth"` // extended key usage; otherwise there is none
	Lifetime   time.Duration `json:"lifetime_ns"` // the longest; 0 means 99991231235959Z (IEEE 802.1AR, 8.7)
}

// Profiles returns the table.
func Profiles() []Profile {
	const ca = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return []Profile{
		{Name: BirthRoot, SelfSigned: true, CA: true, PathLen: 1, KeyUsage: ca},
		{Name: FactoryCA, CA: true, PathLen: 0, KeyUsage: ca},
		{Name: Device, KeyUsage: x509.KeyUsageDigitalSignature},
		{Name: RelayCA, SelfSigned: true, CA: true, PathLen: 0, KeyUsage: ca},
		{Name: Relay, KeyUsage: x509.KeyUsageDigitalSignature, ServerAuth: true, Lifetime: 30 * 24 * time.Hour},
	}
}

// ProfileOf returns the row of that name.
func ProfileOf(n ProfileName) (Profile, error) {
	for _, p := range Profiles() {
		if p.Name == n {
			return p, nil
		}
	}
	return Profile{}, fault.Errorf(fault.Usage, "%w: profile %.40q", ErrTemplate, string(n))
}

// ProfileHash is the hex SHA-256 of the profile's row in canonical JSON: what a
// bundle names, so that a station that would issue otherwise refuses it.
func ProfileHash(n ProfileName) (string, error) {
	p, err := ProfileOf(n)
	if err != nil {
		return "", err
	}
	b, err := jcs.Marshal(p)
	return Hash(b), err
}

// Forever is the notAfter of a certificate without an end.
func Forever() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

var dnsRE = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// roles of relay servers; later ones are added here.
func roles() []string { return []string{"access", "vpn", "portal", "mailbox"} }

// Check says whether a certificate can be made from t, key and issuer included.
func (t *Template) Check() error {
	p, err := ProfileOf(t.Profile)
	if err != nil {
		return err
	}
	if err := t.World.Check(); err != nil {
		return err
	}
	if err := t.Serial.Check(); err != nil {
		return err
	}
	if _, err := ParseSPKI(t.SPKI); err != nil {
		return err
	}
	if p.SelfSigned != (t.Issuer == nil) {
		return fault.Errorf(fault.Usage, "%w: issuer of a %s", ErrTemplate, p.Name)
	}
	if t.Issuer != nil && string(t.Issuer.SPKI) == string(t.SPKI) {
		return fault.Errorf(fault.Usage, "%w: subject and issuer have the same key", ErrTemplate)
	}
	if err := t.checkTimes(p); err != nil {
		return err
	}
	return t.checkMembers()
}

func (t *Template) checkTimes(p Profile) error {
	bad := func(why string) error {
		return fault.Errorf(fault.Usage, "%w: %s", ErrTemplate, why)
	}
	switch y := t.NotBefore.Year(); {
	case t.NotBefore.Nanosecond() != 0 || t.NotAfter.Nanosecond() != 0:
		return bad("times are in whole seconds")
	case y < 2020 || y > 2199:
		return bad("notBefore is not in this age")
	case p.Lifetime == 0 && !t.NotAfter.IsZero():
		return bad("the profile has no end, yet the template does")
	case p.Lifetime != 0 && (!t.NotAfter.After(t.NotBefore) || t.NotAfter.Sub(t.NotBefore) > p.Lifetime):
		return bad("lifetime is empty or longer than the profile's")
	}
	return nil
}

// checkMembers wants the members of the profile and no others.
func (t *Template) checkMembers() error {
	rest := *t
	var err error
	switch t.Profile {
	case FactoryCA:
		err = t.Grant.Check()
		rest.Grant = Grant{}
	case Device:
		_, _, err = t.DeviceSerial.Split()
		if err == nil && (t.Assurance != EKAttested && t.Assurance != Unattested || !bundleRE.MatchString(t.Bundle)) {
			err = fault.Errorf(fault.Usage, "%w: assurance or bundle id", ErrTemplate)
		}
		rest.DeviceSerial, rest.Assurance, rest.Bundle = "", "", ""
	case Relay:
		err = t.checkRelay()
		rest.Role, rest.DNSNames, rest.IPs = "", nil, nil
	}
	if err == nil && (rest.Grant != Grant{} || rest.DeviceSerial != "" || rest.Assurance != "" || rest.Bundle != "" || rest.Role != "" || rest.DNSNames != nil || rest.IPs != nil) {
		err = fault.Errorf(fault.Usage, "%w: members that a %s does not have", ErrTemplate, t.Profile)
	}
	return err
}

func (t *Template) checkRelay() error {
	if !slices.Contains(roles(), t.Role) || len(t.DNSNames)+len(t.IPs) == 0 || len(t.DNSNames)+len(t.IPs) > 32 {
		return fault.Errorf(fault.Usage, "%w: a relay has a role and 1 to 32 names", ErrTemplate)
	}
	for _, n := range t.DNSNames {
		if !dnsRE.MatchString(n) || len(n) > 253 {
			return fault.Errorf(fault.Usage, "%w: DNS name %.60q", ErrTemplate, n)
		}
	}
	for _, s := range t.IPs {
		if a, err := netip.ParseAddr(s); err != nil || a.String() != s || a.Zone() != "" || a.Is4In6() {
			return fault.Errorf(fault.Usage, "%w: IP address %.60q", ErrTemplate, s)
		}
	}
	return nil
}
