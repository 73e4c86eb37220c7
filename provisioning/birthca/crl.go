package birthca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"keyrite/artifact/fault"
)

// MaxCRLBytes bounds a revocation list that is read.
const MaxCRLBytes = 4 << 20

// ErrCRL says that a revocation list is not usable.
var ErrCRL = fault.New(fault.Verify, "revocation list is refused")

// CRL is what a certificate revocation list is to say (RFC 5280, Section 5).
type CRL struct {
	Number  int64     // higher than that of every list before
	From    time.Time // thisUpdate
	Until   time.Time // nextUpdate
	Revoked []Revoked
}

// Revoked is one entry.
type Revoked struct {
	Serial *big.Int
	At     time.Time
	Reason string // of Reasons
}

// reasonCodes are those of RFC 5280, Section 5.3.1. "unspecified" is left out of
// the entry, as there is recommended.
func reasonCodes() map[string]int {
	return map[string]int{
		"unspecified": 0, "keyCompromise": 1, "cACompromise": 2, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5,
		"privilegeWithdrawn": 9, "aACompromise": 10,
	}
}

// LintedCRL is the proof that a list was examined before it is signed. Only
// LintCRL makes one.
type LintedCRL struct {
	template *x509.RevocationList
	issuer   *x509.Certificate
	tbs      []byte
}

// LintCRL examines the list that c will become: it signs it with a throw-away key.
func LintCRL(c *CRL, issuer *x509.Certificate) (*LintedCRL, error) {
	alg, err := signatureOf(issuer.PublicKey)
	if err != nil {
		return nil, err
	}
	tpl := &x509.RevocationList{Number: big.NewInt(c.Number), ThisUpdate: c.From.UTC(), NextUpdate: c.Until.UTC(), SignatureAlgorithm: alg}
	for _, x := range c.Revoked {
		code, ok := reasonCodes()[x.Reason]
		if !ok || x.Serial == nil || x.Serial.Sign() < 1 || x.At.After(c.From) {
			return nil, fault.Errorf(fault.Usage, "%w: entry with serial %x", ErrCRL, x.Serial)
		}
		tpl.RevokedCertificateEntries = append(tpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: x.Serial, RevocationTime: x.At.UTC(), ReasonCode: code})
	}
	k, err := throwAwayFor(alg)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, tpl, issuer, k)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%w: %w", ErrCRL, err)
	}
	l, err := examineCRL(der, c, issuer)
	if err != nil {
		return nil, err
	}
	return &LintedCRL{template: tpl, issuer: issuer, tbs: l.RawTBSRevocationList}, nil
}

// IssueCRL signs a linted list, which must be by the issuer's key, and returns
// its DER.
func IssueCRL(ctx context.Context, l *LintedCRL, signer crypto.Signer) ([]byte, error) {
	if l == nil {
		return nil, errNotExamined
	}
	if err := mayIssue(ctx, l.tbs, l.issuer.RawSubjectPublicKeyInfo, signer); err != nil {
		return nil, err
	}
	der, err := x509.CreateRevocationList(rand.Reader, l.template, l.issuer, signer)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "sign revocation list: %w", err)
	}
	got, err := x509.ParseRevocationList(der)
	if err != nil || !bytes.Equal(got.RawTBSRevocationList, l.tbs) {
		return nil, fault.Errorf(fault.Unexpected, "%w: the signed bytes are not the examined ones", ErrLint)
	}
	if err := got.CheckSignatureFrom(l.issuer); err != nil {
		return nil, fault.Errorf(fault.Token, "the token gave a signature that does not hold: %w", err)
	}
	return der, nil
}

// examineCRL runs zlint's rules for lists (RFC 5280) and our own on the finished
// list.
func examineCRL(der []byte, c *CRL, issuer *x509.Certificate) (*x509.RevocationList, error) {
	z, err := zx509.ParseRevocationList(der)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: zlint cannot read it: %w", ErrLint, err)
	}
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480}})
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "choose lints: %w", err)
	}
	var found []string
	for name, r := range zlint.LintRevocationListEx(z, registry).Results {
		if r.Status >= lint.Warn {
			found = append(found, name+" ("+r.Status.String()+")")
		}
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: Go cannot read it: %w", ErrLint, err)
	}
	seen := map[string]bool{}
	for _, e := range l.RevokedCertificateEntries {
		if s := e.SerialNumber.String(); seen[s] {
			found = append(found, "keyrite_crl_entry_twice")
		} else {
			seen[s] = true
		}
	}
	for name, ok := range map[string]bool{
		"keyrite_crl_number":     l.Number != nil && l.Number.IsInt64() && l.Number.Int64() == c.Number && c.Number > 0,
		"keyrite_crl_time":       l.NextUpdate.After(l.ThisUpdate),
		"keyrite_crl_issuer":     bytes.Equal(l.RawIssuer, issuer.RawSubject) && bytes.Equal(l.AuthorityKeyId, issuer.SubjectKeyId) && len(l.AuthorityKeyId) > 0,
		"keyrite_crl_entries":    len(l.RevokedCertificateEntries) == len(c.Revoked),
		"keyrite_crl_may_revoke": issuer.IsCA && issuer.KeyUsage&x509.KeyUsageCRLSign != 0,
	} {
		if !ok {
			found = append(found, name)
		}
	}
	return l, verdict(found)
}

// CheckNextCRL wants c to follow the list before, in DER: of the same issuer, with
// a lower number, and nothing that it revoked forgotten.
func CheckNextCRL(before []byte, c *CRL, issuer *x509.Certificate) error {
	l, err := x509.ParseRevocationList(before)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrCRL, err)
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return fault.Errorf(fault.Verify, "%w: the list before is not by this issuer: %w", ErrCRL, err)
	}
	if l.Number == nil || l.Number.Cmp(big.NewInt(c.Number)) >= 0 {
		return fault.Errorf(fault.Policy, "%w: number %d does not follow %v", ErrCRL, c.Number, l.Number)
	}
	still := map[string]bool{}
	for _, x := range c.Revoked {
		still[x.Serial.String()] = true
	}
	for _, e := range l.RevokedCertificateEntries {
		if !still[e.SerialNumber.String()] {
			return fault.Errorf(fault.Policy, "%w: certificate %x was revoked before and is missing", ErrCRL, e.SerialNumber)
		}
	}
	return nil
}
