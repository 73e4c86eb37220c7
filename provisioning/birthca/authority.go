package birthca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
)

// Authority is the certificate of a certification authority that is not of the
// birth chain: it says what its script says, and its names bear no world. Every
// field but the last three is as stated; the zero value of a list or address
// leaves the extension out.
type Authority struct {
	CommonName, Organization, Country string

	Signature           x509.SignatureAlgorithm
	NotBefore, NotAfter time.Time
	PathLength          int // -1: no limit
	KeyUsage            x509.KeyUsage
	ExtKeyUsage         []x509.ExtKeyUsage
	Policies            []x509.OID

	CRLURL, IssuerURL, OCSPURL string

	SubjectKeyID []byte            // nil: RFC 7093, Section 2, method 1
	SPKI         []byte            // of the subject
	Issuer       *x509.Certificate // nil: itself
}

// LintedAuthority is the proof that an authority's certificate was examined
// before it is signed. Only LintAuthority makes one.
type LintedAuthority struct {
	template Authority
	serial   birthcert.CertSerial
	tbs      []byte
}

// PreviewAuthority examines what a will become, before its key exists.
func PreviewAuthority(a Authority) error {
	k, err := throwAwayFor(a.Signature)
	if err != nil {
		return err
	}
	if a.SPKI, err = x509.MarshalPKIXPublicKey(k.Public()); err != nil {
		return fault.Errorf(fault.Unexpected, "encode throw-away key: %w", err)
	}
	_, err = LintAuthority(a)
	return err
}

// StandIn is a certificate that stands for the issuer of a before it is known: it
// signs as a says and outlives it.
func StandIn(a Authority) (*x509.Certificate, error) {
	k, err := throwAwayFor(a.Signature)
	if err != nil {
		return nil, err
	}
	a.CommonName, a.PathLength, a.Issuer, a.SubjectKeyID = "preview of an issuer", -1, nil, nil
	if a.SPKI, err = x509.MarshalPKIXPublicKey(k.Public()); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encode throw-away key: %w", err)
	}
	der, err := a.create(birthcert.NewCertSerial(), k)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "read throw-away certificate: %w", err)
	}
	return c, nil
}

// LintAuthority examines the certificate that a will become: the same bytes but
// for the signature, and in a root but for the key, since only a certificate
// that verifies under its own key is read as a root.
func LintAuthority(a Authority) (*LintedAuthority, error) {
	l := &LintedAuthority{template: a, serial: birthcert.NewCertSerial()}
	k, err := throwAwayFor(a.Signature)
	if err != nil {
		return nil, err
	}
	der, err := a.create(l.serial, k)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrLint, err)
	}
	l.tbs = c.RawTBSCertificate
	if a.Issuer == nil {
		stand := a
		if stand.SPKI, err = x509.MarshalPKIXPublicKey(k.Public()); err != nil {
			return nil, fault.Errorf(fault.Unexpected, "encode throw-away key: %w", err)
		}
		if der, err = stand.create(l.serial, k); err != nil {
			return nil, err
		}
	}
	return l, a.examine(der)
}

// IssueAuthority signs a linted certificate and returns its DER: the bytes that
// were examined, signed by the issuer's key, read back and examined again.
func IssueAuthority(ctx context.Context, l *LintedAuthority, signer crypto.Signer) ([]byte, error) {
	if l == nil {
		return nil, errNotExamined
	}
	issuer := l.template.SPKI
	if l.template.Issuer != nil {
		issuer = l.template.Issuer.RawSubjectPublicKeyInfo
	}
	if err := mayIssue(ctx, l.tbs, issuer, signer); err != nil {
		return nil, err
	}
	der, err := l.template.create(l.serial, signer)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrLint, err)
	}
	if !bytes.Equal(c.RawTBSCertificate, l.tbs) {
		return nil, fault.Errorf(fault.Unexpected, "%w: the signed bytes are not the examined ones", ErrLint)
	}
	by := &x509.Certificate{PublicKey: signer.Public(), PublicKeyAlgorithm: c.PublicKeyAlgorithm}
	if l.template.Issuer != nil {
		by = l.template.Issuer
	}
	if err := by.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		return nil, fault.Errorf(fault.Token, "the token gave a signature that does not hold: %w", err)
	}
	return der, l.template.examine(der)
}

// throwAwayFor makes a key that signs as the issuer will.
func throwAwayFor(alg x509.SignatureAlgorithm) (crypto.Signer, error) {
	var k crypto.Signer
	var err error
	switch alg {
	case x509.ECDSAWithSHA256:
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case x509.ECDSAWithSHA384:
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case x509.SHA256WithRSA:
		k, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		return nil, fault.Errorf(fault.Usage, "authorities are not signed with %s", alg)
	}
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make throw-away key: %w", err)
	}
	return k, nil
}

// signatureOf says how a key signs: each has one hash.
func signatureOf(pub crypto.PublicKey) (x509.SignatureAlgorithm, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P256() {
			return x509.ECDSAWithSHA256, nil
		} else if pub.Curve == elliptic.P384() {
			return x509.ECDSAWithSHA384, nil
		}
	case *rsa.PublicKey:
		return x509.SHA256WithRSA, nil
	}
	return 0, fault.Errorf(fault.Usage, "a %T signs no certificates here", pub)
}

// create builds the certificate and has it signed.
func (a *Authority) create(serial birthcert.CertSerial, signer crypto.Signer) ([]byte, error) {
	pub, err := x509.ParsePKIXPublicKey(a.SPKI)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "subject key: %w", err)
	}
	ski := a.SubjectKeyID
	if ski == nil {
		if ski, err = subjectKeyID(a.SPKI); err != nil {
			return nil, err
		}
	}
	t := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:]), SignatureAlgorithm: a.Signature,
		Subject:   pkix.Name{CommonName: a.CommonName, Organization: []string{a.Organization}, Country: []string{a.Country}},
		NotBefore: a.NotBefore, NotAfter: a.NotAfter, BasicConstraintsValid: true, IsCA: true, MaxPathLen: a.PathLength, MaxPathLenZero: a.PathLength == 0,
		KeyUsage: a.KeyUsage, ExtKeyUsage: a.ExtKeyUsage, Policies: a.Policies, SubjectKeyId: ski,
		CRLDistributionPoints: list(a.CRLURL), IssuingCertificateURL: list(a.IssuerURL), OCSPServer: list(a.OCSPURL),
	}
	parent := t
	if a.Issuer != nil {
		// The key of the parent is the signer's: create also serves the lint.
		p := *a.Issuer
		p.PublicKey = nil
		parent = &p
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, signer)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "make certificate: %w", err)
	}
	return der, nil
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// subjectKeyID is RFC 7093, Section 2, method 1: the first 160 bits of the
// SHA-256 of the subjectPublicKey bits.
func subjectKeyID(spki []byte) ([]byte, error) {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(spki, &info); err != nil || len(rest) > 0 {
		return nil, fault.Errorf(fault.Verify, "subject key cannot be read")
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}

// examine runs zlint, restricted as for our own profiles, and reads the
// certificate back: it says what was asked and nothing besides.
func (a *Authority) examine(der []byte) error {
	found, err := zlintFindings(der)
	if err != nil {
		return err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: Go cannot read it: %w", ErrLint, err)
	}
	return verdict(append(found, a.differences(c)...))
}

// differences names each member that differs from what was asked.
func (a *Authority) differences(c *x509.Certificate) []string {
	pathLength := c.MaxPathLen
	if pathLength == 0 && !c.MaxPathLenZero {
		pathLength = -1
	}
	key := false
	switch pub := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		key = pub.Curve == elliptic.P256() || pub.Curve == elliptic.P384()
	case *rsa.PublicKey:
		key = pub.N.BitLen() >= 3072 && pub.E == 65537
	}
	extensions := 3 // basic constraints, key usage, subject key identifier
	for _, there := range []bool{a.Issuer != nil, len(a.ExtKeyUsage) > 0, len(a.Policies) > 0, a.CRLURL != "", a.IssuerURL != "" || a.OCSPURL != ""} {
		if there {
			extensions++
		}
	}
	var out []string
	for _, x := range []struct {
		name  string
		holds bool
	}{
		{"keyrite_ca_key", key},
		{"keyrite_ca_signature", c.SignatureAlgorithm == a.Signature},
		{"keyrite_serial_128_bit", c.SerialNumber.Sign() > 0 && c.SerialNumber.BitLen() == 127},
		{"keyrite_ca_subject", c.Subject.CommonName == a.CommonName && len(c.Subject.Names) == 3 && len(a.Country) == 2},
		{"keyrite_key_identifiers", len(c.SubjectKeyId) > 0 && (a.Issuer == nil || len(c.AuthorityKeyId) > 0)},
		{"keyrite_ca_window", c.NotBefore.Equal(a.NotBefore) && c.NotAfter.Equal(a.NotAfter) && a.NotBefore.Before(a.NotAfter)},
		{"keyrite_ca_constraints", c.IsCA && c.BasicConstraintsValid && pathLength == a.PathLength},
		{"keyrite_ca_usage", c.KeyUsage == a.KeyUsage && c.KeyUsage&x509.KeyUsageCertSign != 0},
		{"keyrite_ca_extended_usage", slices.Equal(c.ExtKeyUsage, a.ExtKeyUsage) && len(c.UnknownExtKeyUsage) == 0},
		{"keyrite_ca_policies", slices.EqualFunc(c.Policies, a.Policies, func(x, y x509.OID) bool { return x.Equal(y) })},
		{"keyrite_ca_addresses", slices.Equal(c.CRLDistributionPoints, list(a.CRLURL)) && slices.Equal(c.IssuingCertificateURL, list(a.IssuerURL)) && slices.Equal(c.OCSPServer, list(a.OCSPURL))},
		{"keyrite_ca_extensions", len(c.Extensions) == extensions && len(c.UnhandledCriticalExtensions) == 0},
		{"keyrite_ca_follows_issuer", a.Issuer == nil || bytes.Equal(c.RawIssuer, a.Issuer.RawSubject) && bytes.Equal(c.AuthorityKeyId, a.Issuer.SubjectKeyId) && !c.NotAfter.After(a.Issuer.NotAfter) && a.Issuer.IsCA},
	} {
		if !x.holds {
			out = append(out, x.name)
		}
	}
	return out
}
