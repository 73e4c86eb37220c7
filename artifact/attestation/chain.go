package attestation

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"time"
	"unicode"

	"keyrite/artifact/fault"
)

// Kinds of vendor roots: of makers of HSMs, and of those who vouch for
// attestation keys of TPMs (the TPM's maker, or an attestation CA that checked the
// endorsement key).
const (
	RootHSM = "hsm"
	RootEK  = "ek"
)

// Root is the certificate of a maker behind whom attestations are accepted.
type Root struct {
	ID          string   `json:"id"`
	Kind        string   `json:"kind"`        // RootHSM or RootEK
	Certificate []byte   `json:"certificate"` // DER, of a CA
	Models      []string `json:"models,omitempty"`
}

const (
	maxChain     = 8       // certificates; the longest known has four
	maxCertBytes = 8 << 10 // DER
	maxModels    = 32
	maxModelLen  = 64 // characters
)

// Check wants a CA certificate of a known kind, in strict DER.
func (r *Root) Check() error {
	if r.Kind != RootHSM && r.Kind != RootEK {
		return bad(ErrEvidence, "vendor root of kind %.40q", r.Kind)
	}
	if len(r.Models) > maxModels || !slices.IsSorted(r.Models) || len(slices.Compact(slices.Clone(r.Models))) != len(r.Models) {
		return bad(ErrEvidence, "models of a vendor root are at most %d, sorted, each once", maxModels)
	}
	for _, m := range r.Models {
		if m == "" || len(m) > maxModelLen || !printable(m) {
			return bad(ErrEvidence, "model %.40q of a vendor root", m)
		}
	}
	c, err := parseCert(r.Certificate)
	if err != nil {
		return err
	}
	if err := checkCA(c, 0); err != nil {
		return bad(ErrEvidence, "vendor root: %w", err)
	}
	return nil
}

func (r *Root) checkModel(model string) error {
	if len(r.Models) > 0 && !slices.Contains(r.Models, model) {
		return bad(ErrModel, "%.80q", model)
	}
	return nil
}

func printable(s string) bool {
	for _, r := range s {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func parseCert(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertBytes {
		return nil, bad(ErrEvidence, "a certificate of %d bytes", len(der))
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: certificate: %w", ErrEvidence, err)
	}
	if !bytes.Equal(c.Raw, der) {
		return nil, bad(ErrEvidence, "a certificate with something behind it")
	}
	return c, nil
}

func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, der := range ders {
		c, err := parseCert(der)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// checkChain finds the root that issued the last certificate and checks each link,
// in the order given and no other. Roots of another kind are not looked at.
func checkChain(chain []*x509.Certificate, roots []Root, kind string, at time.Time) (*Root, error) {
	for i := range roots {
		r := &roots[i]
		if r.Kind != kind {
			continue
		}
		if err := r.Check(); err != nil {
			return nil, err
		}
		top, err := parseCert(r.Certificate)
		if err != nil {
			return nil, err
		}
		if last := chain[len(chain)-1]; !bytes.Equal(last.RawIssuer, top.RawSubject) || last.CheckSignatureFrom(top) != nil {
			continue
		}
		return r, checkLinks(append(slices.Clone(chain), top), at)
	}
	return nil, ErrRoot
}

// checkLinks wants each certificate issued by the next, the last being a root.
func checkLinks(chain []*x509.Certificate, at time.Time) error {
	for i, c := range chain {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return bad(ErrExpired, "%.80q holds from %s to %s", c.Subject.String(), c.NotBefore.UTC().Format(time.DateOnly), c.NotAfter.UTC().Format(time.DateOnly))
		}
		for _, oid := range c.UnhandledCriticalExtensions {
			if i == 0 && oid.Equal(oidSAN()) {
				continue // readTPM reads it; a YubiHSM 2 has none
			}
			return bad(ErrEvidence, "critical extension %s of %.80q is not known", oid, c.Subject.String())
		}
		if i == 0 && c.IsCA {
			return bad(ErrEvidence, "the certificate that vouches is that of a CA")
		}
		if i > 0 {
			if err := checkCA(c, i-1); err != nil {
				return err
			}
		}
		if i+1 == len(chain) {
			return nil
		}
		if next := chain[i+1]; !bytes.Equal(c.RawIssuer, next.RawSubject) || c.CheckSignatureFrom(next) != nil {
			return bad(ErrSignature, "%.80q is not issued by %.80q", c.Subject.String(), next.Subject.String())
		}
	}
	return nil
}

// checkCA wants a certificate that may issue, with below CAs between it and the
// one that vouches.
func checkCA(c *x509.Certificate, below int) error {
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return bad(ErrEvidence, "%.80q is not the certificate of a CA", c.Subject.String())
	}
	if (c.MaxPathLen > 0 || c.MaxPathLenZero) && below > c.MaxPathLen {
		return bad(ErrEvidence, "%.80q may not have %d CAs below it", c.Subject.String(), below)
	}
	return nil
}

func oidSAN() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }
