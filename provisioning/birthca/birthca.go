// Package birthca issues the certificates of the birth chain and of relay
// servers: for the ceremony (birth root, relay CA, factory CA, relay server) and
// for the factory's station (birth certificates).
//
// The order is always the same and cannot be cut short: a Template, made by the
// issuer from what the charter or the bundle says; Lint, which signs the same
// to-be-signed bytes with a throw-away key and examines that certificate; Issue,
// which demands the lint's result, lets the real key sign those very bytes,
// reads the certificate back and examines it again. It must never take anything
// from a certificate request but the public key (CVE-2024-33897).
package birthca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
)

// MaxRequestBytes bounds a certificate request.
const MaxRequestBytes = 8 << 10

var (
	// ErrLint says that an examination of a certificate found a fault.
	ErrLint = fault.New(fault.Verify, "certificate does not pass its lints")
	// ErrRequest says that a certificate request is not usable.
	ErrRequest = fault.New(fault.Verify, "certificate request is refused")
	// ErrOtherKey says that the signing key is not the issuer's.
	ErrOtherKey = fault.New(fault.Policy, "the signing key is not the issuer's key")

	errNotExamined = fault.Errorf(fault.Usage, "%w: it was not examined", ErrLint)
)

// Linted is the proof that a certificate was examined before it is signed. Only
// Lint makes one.
type Linted struct {
	template birthcert.Template
	tbs      []byte
}

// TBS is the to-be-signed bytes, for a ledger that records them first.
func (l *Linted) TBS() []byte { return bytes.Clone(l.tbs) }

// Preview examines what a template will become, before its key exists: it puts a
// throw-away key in the place of t.SPKI. A ceremony calls it before it makes the
// first key.
func Preview(t birthcert.Template) error {
	k, err := throwAway()
	if err != nil {
		return err
	}
	if t.SPKI, err = x509.MarshalPKIXPublicKey(k.Public()); err != nil {
		return fault.Errorf(fault.Unexpected, "encode throw-away key: %w", err)
	}
	_, err = Lint(t)
	return err
}

// Lint examines the certificate that t will become.
func Lint(t birthcert.Template) (*Linted, error) {
	tbs, err := t.TBS()
	if err != nil {
		return nil, err
	}
	k, err := throwAway()
	if err != nil {
		return nil, err
	}
	der, err := sign(tbs, k)
	if err != nil {
		return nil, err
	}
	if err := examine(der, t.Profile); err != nil {
		return nil, err
	}
	return &Linted{template: t, tbs: tbs}, nil
}

func throwAway() (crypto.Signer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make throw-away key: %w", err)
	}
	return k, nil
}

// Issue signs a linted certificate and returns its DER. The signer must be the
// key of the issuer that the template names, or of the subject if self-signed.
func Issue(ctx context.Context, l *Linted, signer crypto.Signer) ([]byte, error) {
	if l == nil {
		return nil, errNotExamined
	}
	issuer := l.template.SPKI
	if l.template.Issuer != nil {
		issuer = l.template.Issuer.SPKI
	}
	if err := mayIssue(ctx, l.tbs, issuer, signer); err != nil {
		return nil, err
	}
	der, err := sign(l.tbs, signer)
	if err != nil {
		return nil, err
	}
	c, err := birthcert.Parse(der)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(c.RawTBSCertificate, l.tbs) {
		return nil, fault.Errorf(fault.Unexpected, "%w: the signed bytes are not the examined ones", ErrLint)
	}
	if err := birthcert.CheckSignature(issuer, c.RawTBSCertificate, c.Signature); err != nil {
		return nil, fault.Errorf(fault.Token, "the token gave a signature that does not hold: %w", err)
	}
	return der, examine(der, l.template.Profile)
}

// mayIssue is what must hold before a key signs: the bytes were examined, and the
// signer is the issuer's key.
func mayIssue(ctx context.Context, tbs, issuer []byte, signer crypto.Signer) error {
	if len(tbs) == 0 {
		return errNotExamined
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil || !bytes.Equal(spki, issuer) {
		return ErrOtherKey
	}
	return nil
}

func sign(tbs []byte, signer crypto.Signer) ([]byte, error) {
	sum := sha256.Sum256(tbs)
	sig, err := signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "sign certificate: %w", err)
	}
	return birthcert.Assemble(tbs, sig)
}

// CheckRequest reads a PKCS#10 request, DER or one PEM block, and returns its
// public key, the only thing it is asked for. The key must be P-256 and the
// request signed with it (proof of possession). Names and attributes in the
// request are neither read nor refused: they decide nothing.
func CheckRequest(csr []byte) (spki []byte, err error) {
	if len(csr) > MaxRequestBytes {
		return nil, fault.Errorf(fault.Verify, "%w: %d bytes are more than %d", ErrRequest, len(csr), MaxRequestBytes)
	}
	if block, rest := pem.Decode(csr); block != nil {
		if block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fault.Errorf(fault.Verify, "%w: not one PEM block CERTIFICATE REQUEST", ErrRequest)
		}
		csr = block.Bytes
	}
	// Not x509.ParseCertificateRequest: it reads the subject and extensions,
	// where a hostile request could make the reader fail or disagree with
	// another reader. RFC 2986, Section 4.
	var r struct {
		Info      asn1.RawValue
		Algorithm struct{ OID asn1.ObjectIdentifier }
		Signature asn1.BitString
	}
	var info struct {
		Version    int
		Subject    asn1.RawValue
		SPKI       asn1.RawValue
		Attributes asn1.RawValue `asn1:"optional,tag:0"`
	}
	if rest, err := asn1.Unmarshal(csr, &r); err != nil || len(rest) != 0 {
		return nil, fault.Errorf(fault.Verify, "%w: not a PKCS#10 request", ErrRequest)
	}
	if rest, err := asn1.Unmarshal(r.Info.FullBytes, &info); err != nil || len(rest) != 0 || info.Version != 0 {
		return nil, fault.Errorf(fault.Verify, "%w: not a PKCS#10 request", ErrRequest)
	}
	if !r.Algorithm.OID.Equal(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}) {
		return nil, fault.Errorf(fault.Verify, "%w: not signed with ecdsa-with-SHA256", ErrRequest)
	}
	spki = bytes.Clone(info.SPKI.FullBytes)
	if err := birthcert.CheckSignature(spki, r.Info.FullBytes, r.Signature.RightAlign()); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: no proof that its sender holds the key: %w", ErrRequest, err)
	}
	return spki, nil
}

// NewRequest returns a PEM PKCS#10 request for the key of signer. Its name is
// for the people who carry the file.
func NewRequest(name string, signer crypto.Signer) ([]byte, error) {
	tpl := &x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA256}
	tpl.Subject.CommonName = name
	der, err := x509.CreateCertificateRequest(rand.Reader, tpl, signer)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "make certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}
