package birthcert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

// MaxBytes bounds a certificate of ours.
const MaxBytes = 8 << 10

// Parse reads a DER certificate; it checks nothing but that it is one.
func Parse(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "certificate of %d bytes is larger than %d", len(der), MaxBytes)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "parse certificate: %w", err)
	}
	return c, nil
}

// ParsePEM reads a file of CERTIFICATE blocks and nothing else, at most 8.
func ParsePEM(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || len(out) == 8 {
			return nil, fault.New(fault.Verify, "not a file of 1 to 8 PEM certificates")
		}
		c, err := Parse(block.Bytes)
		if err != nil {
			return nil, err
		}
		out, data = append(out, c), rest
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Verify, "not a file of 1 to 8 PEM certificates")
	}
	return out, nil
}

// Read finds the Template of profile that gives exactly the bytes of c, signed
// by issuer (nil for a self-signed one), and checks the signature.
func Read(c *x509.Certificate, profile ProfileName, issuer *x509.Certificate) (*Template, error) {
	p, err := ProfileOf(profile)
	if err != nil {
		return nil, err
	}
	if c == nil || (issuer == nil) != p.SelfSigned {
		return nil, fault.Errorf(fault.Verify, "%w %s: certificate or issuer is missing", ErrProfile, profile)
	}
	t, err := templateOf(c, p, issuer)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w %s: %w", ErrProfile, profile, err)
	}
	tbs, err := t.TBS()
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w %s: %w", ErrProfile, profile, err)
	}
	signer := c.RawSubjectPublicKeyInfo
	if issuer != nil {
		signer = issuer.RawSubjectPublicKeyInfo
	}
	again, err := Assemble(tbs, c.Signature)
	if err != nil || !bytes.Equal(again, c.Raw) {
		return nil, fault.Errorf(fault.Verify, "%w %s: it says more or other than the profile allows", ErrProfile, profile)
	}
	if err := CheckSignature(signer, tbs, c.Signature); err != nil {
		return nil, err
	}
	return t, nil
}

// CheckSignature checks an ECDSA P-256 SHA-256 signature of the key spki.
func CheckSignature(spki, tbs, signature []byte) error {
	pub, err := ParseSPKI(spki)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(tbs)
	if !ecdsa.VerifyASN1(pub, sum[:], signature) {
		return ErrSignature
	}
	return nil
}

func templateOf(c *x509.Certificate, p Profile, issuer *x509.Certificate) (*Template, error) {
	t := &Template{Profile: p.Name, NotBefore: c.NotBefore.UTC(), SPKI: c.RawSubjectPublicKeyInfo}
	var err error
	if t.Serial, err = parseCertSerial(c.SerialNumber); err != nil {
		return nil, err
	}
	if len(c.Subject.Organization) != 1 {
		return nil, world.ErrWorld
	}
	t.World = world.World(c.Subject.Organization[0])
	if issuer != nil {
		t.Issuer = IssuerOf(issuer)
	}
	if p.Lifetime != 0 {
		t.NotAfter = c.NotAfter.UTC()
	}
	switch p.Name {
	case FactoryCA:
		t.Grant, err = readGrant(extension(c, OIDFactory()))
	case Device:
		t.DeviceSerial = DeviceSerial(c.Subject.SerialNumber)
		t.Assurance, t.Bundle, err = readDevice(extension(c, OIDDevice()))
	case Relay:
		if len(c.URIs) != 1 {
			return nil, ErrRole
		}
		t.Role, _ = roleOf(c.URIs[0].String())
		t.DNSNames = c.DNSNames
		for _, ip := range c.IPAddresses {
			t.IPs = append(t.IPs, ip.String())
		}
	}
	return t, err
}

func extension(c *x509.Certificate, id asn1.ObjectIdentifier) cryptobyte.String {
	var found []pkix.Extension
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		return nil
	}
	return found[0].Value
}

func readGrant(in cryptobyte.String) (Grant, error) {
	var g Grant
	var seq, factory, product cryptobyte.String
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1(&factory, cbasn1.UTF8String) || !seq.ReadASN1(&product, cbasn1.UTF8String) ||
		!seq.ReadASN1Integer(&g.SerialFrom) || !seq.ReadASN1Integer(&g.SerialTo) {
		return g, fault.New(fault.Verify, "no grant of a factory")
	}
	g.Factory, g.Product = string(factory), string(product)
	return g, nil
}

func readDevice(in cryptobyte.String) (Assurance, string, error) {
	var seq, assurance, bundle cryptobyte.String
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1(&assurance, cbasn1.UTF8String) || !seq.ReadASN1(&bundle, cbasn1.OCTET_STRING) {
		return "", "", fault.New(fault.Verify, "no birth of a device")
	}
	return Assurance(assurance), hex.EncodeToString(bundle), nil
}

// CheckRoot checks that c is a birth root of world w.
func CheckRoot(c *x509.Certificate, w world.World) error {
	t, err := Read(c, BirthRoot, nil)
	if err != nil {
		return err
	}
	return world.Match(w, t.World)
}

// CheckRelayCA checks that c is a relay CA of world w.
func CheckRelayCA(c *x509.Certificate, w world.World) error {
	t, err := Read(c, RelayCA, nil)
	if err != nil {
		return err
	}
	return world.Match(w, t.World)
}

// CheckFactoryCA checks that ca is issued by the birth root for exactly grant.
func CheckFactoryCA(ca, birthRoot *x509.Certificate, grant Grant) error {
	root, err := Read(birthRoot, BirthRoot, nil)
	if err != nil {
		return err
	}
	t, err := Read(ca, FactoryCA, birthRoot)
	if err != nil {
		return err
	}
	if err := world.Match(root.World, t.World); err != nil {
		return err
	}
	if t.Grant != grant {
		return fault.Errorf(fault.Policy, "%w: it says %+v, the charter %+v", ErrGrant, t.Grant, grant)
	}
	return nil
}

// Identity is what a verified birth certificate says.
type Identity struct {
	World        world.World
	Factory      string
	Product      string
	DeviceSerial DeviceSerial
	CertSerial   CertSerial
	Assurance    Assurance
	Bundle       string // id of the provisioning bundle
	SPKIHash     string // hex SHA-256
	CertHash     string // hex SHA-256
}

// VerifyDevice checks that cert is a birth certificate issued by factoryCA under
// birthRoot, within the grant that the charter gives that factory, and returns
// whom it names. Nothing in the chain has an end, so no clock is asked. Whether
// the device was ever accepted, or is revoked, stands elsewhere.
func VerifyDevice(cert, factoryCA, birthRoot *x509.Certificate, grant Grant) (*Identity, error) {
	if err := CheckFactoryCA(factoryCA, birthRoot, grant); err != nil {
		return nil, err
	}
	t, err := Read(cert, Device, factoryCA)
	if err != nil {
		return nil, err
	}
	if err := world.Match(world.World(factoryCA.Subject.Organization[0]), t.World); err != nil {
		return nil, err
	}
	if err := grant.Contains(t.DeviceSerial); err != nil {
		return nil, err
	}
	return &Identity{
		World: t.World, Factory: grant.Factory, Product: grant.Product, DeviceSerial: t.DeviceSerial, CertSerial: t.Serial,
		Assurance: t.Assurance, Bundle: t.Bundle, SPKIHash: Hash(cert.RawSubjectPublicKeyInfo), CertHash: Hash(cert.Raw),
	}, nil
}

// VerifyRelay checks that cert is a relay server's certificate issued by relayCA
// for role, valid at the given time. Host names are the caller's to check.
func VerifyRelay(cert, relayCA *x509.Certificate, role string, at time.Time) error {
	ca, err := Read(relayCA, RelayCA, nil)
	if err != nil {
		return err
	}
	t, err := Read(cert, Relay, relayCA)
	if err != nil {
		return err
	}
	if err := world.Match(ca.World, t.World); err != nil {
		return err
	}
	if t.Role != role {
		return fault.Errorf(fault.Policy, "%w: %s, not %s", ErrRole, t.Role, role)
	}
	if at.Before(t.NotBefore) || at.After(t.NotAfter) {
		return fault.Errorf(fault.Policy, "%w: %s to %s", ErrExpired, t.NotBefore.Format(time.RFC3339), t.NotAfter.Format(time.RFC3339))
	}
	return nil
}
