// Package birthcert owns the X.509 certificates of the birth chain and of relay
// servers: what each says, byte for byte, and how it is verified.
//
// A certificate of ours is a pure function of a Template: TBS writes the bytes
// that are signed, and reading one back means finding the Template that gives
// exactly these bytes again. So whatever is not in a profile (another extension,
// order, string type or date) is refused without a rule of its own. Issuers sign
// what TBS gives; gateways, relays, stations and headquarters call VerifyDevice
// or VerifyRelay and nothing else. It must never take a fact about a device from
// anything but the verified certificate, and it knows no private key.
//
// The world stands in the O of every subject, since an X.509 signature covers
// nothing else of ours.
//
// Compatibility: docs/formats/birthcert.md. A profile is never changed, only
// followed by another; certificates of old profiles are read for ever.
package birthcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

// Classes of refusal; the words are the expect: words of the vectors.
var (
	ErrProfile   = fault.New(fault.Verify, "certificate is not of the profile")
	ErrSignature = fault.New(fault.Verify, "certificate is not signed by its issuer")
	ErrRange     = fault.New(fault.Policy, "device serial is outside the factory's range")
	ErrProduct   = fault.New(fault.Policy, "certificate is for another product line")
	ErrGrant     = fault.New(fault.Policy, "factory CA is not the one in the charter")
	ErrExpired   = fault.New(fault.Policy, "certificate is not valid at this time")
	ErrRole      = fault.New(fault.Policy, "certificate is for another role")
	ErrTemplate  = fault.New(fault.Usage, "certificate template is not usable")
	ErrKey       = fault.New(fault.Verify, "public key is not an ECDSA P-256 key in its one encoding")
)

// The arc of our object identifiers. It is 2.25 (ITU-T X.667) followed by the
// first 31 bits of the UUID 3efbf67e-9c09-447f-8c17-cab499a0a82c: Go's reader
// refuses a certificate that has an extension with an arc above 2^31-1, so the
// 128 bits of the UUID do not fit. A verifier looks for these only in
// certificates that chain to our birth root.
func oid(last int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 25, 528350015, last}
}

// OIDFactory is the extension of a factory CA.
func OIDFactory() asn1.ObjectIdentifier { return oid(1) }

// OIDDevice is the extension of a birth certificate.
func OIDDevice() asn1.ObjectIdentifier { return oid(2) }

// OIDHardware is the hwType of our gateways (RFC 4108, Section 5).
func OIDHardware() asn1.ObjectIdentifier { return oid(3) }

// Assurance says what the factory knew about the element that holds the key.
type Assurance string

// The assurance levels.
const (
	// EKAttested: the element proved by a credential of its maker that the key
	// was made inside and cannot leave.
	EKAttested Assurance = "ek-attested"
	// Unattested: the key was made in an element by its own word.
	Unattested Assurance = "element, unattested"
)

// DeviceSerial is the serial of a device: product line and number, such as
// gw100-00000042. It is not the number of its certificate (CertSerial).
type DeviceSerial string

var (
	serialRE  = regexp.MustCompile(`^([a-z][a-z0-9-]{0,31})-([0-9]{8,18})$`)
	productRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	bundleRE  = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// MakeDeviceSerial writes number n of a product line.
func MakeDeviceSerial(product string, n int64) DeviceSerial {
	return DeviceSerial(fmt.Sprintf("%s-%08d", product, n))
}

// Split returns product line and number.
func (s DeviceSerial) Split() (product string, n int64, err error) {
	m := serialRE.FindStringSubmatch(string(s))
	if m == nil {
		return "", 0, fault.Errorf(fault.Verify, "device serial %.60q is not PRODUCT-NUMBER", string(s))
	}
	n, err = strconv.ParseInt(m[2], 10, 64)
	if err != nil || n < 1 || MakeDeviceSerial(m[1], n) != s {
		return "", 0, fault.Errorf(fault.Verify, "device serial %.60q is not PRODUCT-NUMBER", string(s))
	}
	return m[1], n, nil
}

// CertSerial is the number of a certificate: 128 bits, positive, written as 32
// hex digits.
type CertSerial [16]byte

// NewCertSerial returns a random certificate number. The first bit is 0
// (positive) and the second 1 (always 16 octets, RFC 5280 allows 20).
func NewCertSerial() CertSerial {
	var s CertSerial
	rand.Read(s[:])
	s[0] = s[0]&0x7f | 0x40
	return s
}

// String is the lower-case hex form.
func (s CertSerial) String() string { return hex.EncodeToString(s[:]) }

// Check says whether s is a number that NewCertSerial could give.
func (s CertSerial) Check() error {
	if s[0]&0xc0 != 0x40 {
		return fault.Errorf(fault.Verify, "%w: certificate number is not a positive 128-bit number", ErrProfile)
	}
	return nil
}

func parseCertSerial(n *big.Int) (CertSerial, error) {
	var s CertSerial
	if n == nil || n.Sign() <= 0 || n.BitLen() > 127 {
		return s, fault.Errorf(fault.Verify, "%w: certificate number is not a positive 128-bit number", ErrProfile)
	}
	n.FillBytes(s[:])
	return s, s.Check()
}

// ParseCertSerial reads the form that String gives.
func ParseCertSerial(s string) (CertSerial, error) {
	var out CertSerial
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(out) || hex.EncodeToString(b) != s {
		return out, fault.Errorf(fault.Verify, "certificate number %.40q is not 32 hex digits", s)
	}
	copy(out[:], b)
	return out, out.Check()
}

// ReadCertSerial is the number of a certificate.
func ReadCertSerial(c *x509.Certificate) (CertSerial, error) { return parseCertSerial(c.SerialNumber) }

// Grant is what the charter lets a factory do. It stands in the extension of
// the factory CA's certificate too, and both must agree.
type Grant struct {
	Factory    string // id
	Product    string
	SerialFrom int64
	SerialTo   int64 // inclusive
}

// Check validates the members.
func (g Grant) Check() error {
	if !productRE.MatchString(g.Factory) || !productRE.MatchString(g.Product) || g.SerialFrom < 1 || g.SerialTo < g.SerialFrom || g.SerialTo > MaxNumber {
		return fault.Errorf(fault.Usage, "%w: grant of factory %.40q", ErrTemplate, g.Factory)
	}
	return nil
}

// MaxNumber is the highest number of a device, exact in every JSON reader.
const MaxNumber = 1 << 52

// Contains says whether s is of the grant's product line and range.
func (g Grant) Contains(s DeviceSerial) error {
	product, n, err := s.Split()
	if err != nil {
		return err
	}
	if product != g.Product {
		return fault.Errorf(fault.Policy, "%w: %s, not %s", ErrProduct, product, g.Product)
	}
	if n < g.SerialFrom || n > g.SerialTo {
		return fault.Errorf(fault.Policy, "%w: %s is not in %d to %d", ErrRange, s, g.SerialFrom, g.SerialTo)
	}
	return nil
}

// Template is everything a certificate says. Which members a profile uses
// stands in Profiles; the others must be empty.
type Template struct {
	Profile   ProfileName
	World     world.World
	Serial    CertSerial
	NotBefore time.Time // whole seconds
	NotAfter  time.Time // zero where the profile is for ever
	SPKI      []byte    // DER, P-256: all that is taken from a CSR
	Issuer    *Issuer   // nil for a self-signed certificate

	Grant Grant // factory CA

	DeviceSerial DeviceSerial // device
	Assurance    Assurance    // device
	Bundle       string       // device: id of the provisioning bundle, 32 hex digits

	Role     string   // relay: "access", "vpn"
	DNSNames []string // relay
	IPs      []string // relay: textual, canonical
}

// Issuer is what a certificate takes from the certificate of its issuer.
type Issuer struct {
	Subject []byte // raw DER Name
	KeyID   []byte // subject key identifier
	SPKI    []byte
}

// IssuerOf reads a CA certificate as an issuer.
func IssuerOf(ca *x509.Certificate) *Issuer {
	return &Issuer{Subject: ca.RawSubject, KeyID: ca.SubjectKeyId, SPKI: ca.RawSubjectPublicKeyInfo}
}

// ParseSPKI returns the P-256 key in der and refuses every other key and every
// other encoding of it.
func ParseSPKI(der []byte) (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, ErrKey
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, ErrKey
	}
	again, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil || string(again) != string(der) {
		return nil, ErrKey
	}
	return pub, nil
}

// KeyID is the subject key identifier of a key: the first 160 bits of the
// SHA-256 of the subjectPublicKey bits (RFC 7093, Section 2, method 1).
func KeyID(spki []byte) ([]byte, error) {
	pub, err := ParseSPKI(spki)
	if err != nil {
		return nil, err
	}
	point, err := pub.Bytes()
	if err != nil {
		return nil, ErrKey
	}
	sum := sha256.Sum256(point)
	return sum[:20], nil
}

// Hash is the hex SHA-256 of a certificate or SubjectPublicKeyInfo.
func Hash(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// RoleURI is the SAN URI of a relay role.
func RoleURI(role string) string { return rolePrefix + role }

const rolePrefix = "keyrite:relay:"

func roleOf(uri string) (string, bool) { return strings.CutPrefix(uri, rolePrefix) }
