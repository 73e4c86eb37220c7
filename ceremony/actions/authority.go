package actions

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"path/filepath"
	"time"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/intake"
	"keyrite/provisioning/birthca"
)

// profileCA is the profile of authorities that are not of the birth chain.
const profileCA = "ca"

// rehearsedFor is how long a rehearsal's certificate of an authority is good: it
// bears the names of the real one, and must not outlive the exercise.
const rehearsedFor = 30 * 24 * time.Hour

func signatures() map[string]x509.SignatureAlgorithm {
	return map[string]x509.SignatureAlgorithm{"ecdsa-sha256": x509.ECDSAWithSHA256, "ecdsa-sha384": x509.ECDSAWithSHA384, "rsa-sha256": x509.SHA256WithRSA}
}

// authority is the certificate as the script wants it, without subject and issuer.
func (a *Actions) authority(r *ceremony.Run, c *script.Certificate) (birthca.Authority, error) {
	ca := &c.CA
	from, to, err := ca.Window()
	if err != nil {
		return birthca.Authority{}, fault.Errorf(fault.Usage, "certificate %s: %w", c.ID, err)
	}
	if !r.World.IsLive() {
		from = r.Clock.Now().UTC().Truncate(time.Second)
		to = from.Add(rehearsedFor)
	}
	out := birthca.Authority{
		CommonName: ca.CommonName, Organization: ca.Organization, Country: ca.Country, Signature: signatures()[ca.Signature],
		NotBefore: from, NotAfter: to, PathLength: ca.PathLength, CRLURL: ca.CRLURL, IssuerURL: ca.IssuerURL, OCSPURL: ca.OCSPURL,
	}
	for _, u := range ca.KeyUsages {
		out.KeyUsage |= map[string]x509.KeyUsage{"cert-sign": x509.KeyUsageCertSign, "crl-sign": x509.KeyUsageCRLSign, "digital-signature": x509.KeyUsageDigitalSignature}[u]
	}
	for _, u := range ca.ExtKeyUsages {
		out.ExtKeyUsage = append(out.ExtKeyUsage, map[string]x509.ExtKeyUsage{"server-auth": x509.ExtKeyUsageServerAuth, "client-auth": x509.ExtKeyUsageClientAuth}[u])
	}
	for _, p := range ca.Policies {
		oid, err := x509.ParseOID(p)
		if err != nil {
			return out, fault.Errorf(fault.Usage, "certificate %s: policy %.60q: %w", c.ID, p, err)
		}
		out.Policies = append(out.Policies, oid)
	}
	if ca.SubjectKeyID != "" {
		out.SubjectKeyID, err = hex.DecodeString(ca.SubjectKeyID)
	}
	return out, err
}

// previewAuthority examines the certificate before any key exists; the public key
// that the binding names for it must be there.
func (a *Actions) previewAuthority(r *ceremony.Run, c *script.Certificate) error {
	t, err := a.authority(r, c)
	if err != nil {
		return err
	}
	if c.Key == "" {
		if _, err := a.subject(c); err != nil {
			return err
		}
	}
	if c.Issuer == c.Key {
		return birthca.PreviewAuthority(t)
	}
	if t.Issuer, err = birthca.StandIn(t); err != nil {
		return err
	}
	return birthca.PreviewAuthority(t)
}

// issueAuthority makes one certificate: linted, signed by the issuer's key, linted
// again.
func (a *Actions) issueAuthority(ctx context.Context, r *ceremony.Run, c *script.Certificate) error {
	t, err := a.authority(r, c)
	if err != nil {
		return err
	}
	if t.SPKI, err = a.subject(c); err != nil {
		return err
	}
	if c.Issuer != c.Key {
		if err := a.mayIssue(c.Issuer); err != nil {
			return err
		}
		if t.Issuer, err = a.issuer(c.Issuer); err != nil {
			return err
		}
		if !r.World.IsLive() && t.NotAfter.After(t.Issuer.NotAfter) {
			t.NotAfter = t.Issuer.NotAfter // a rehearsal's issuer began its 30 days before
		}
	}
	linted, err := birthca.LintAuthority(t)
	if err != nil {
		return err
	}
	signer, err := a.signer(ctx, c.Issuer)
	if err != nil {
		return err
	}
	der, err := birthca.IssueAuthority(ctx, linted, signer)
	if err != nil {
		return err
	}
	a.certs[c.ID] = der
	x, err := parseCert(der)
	if err != nil {
		return err
	}
	r.Console.Say("good", "certificate "+c.ID+" for "+x.Subject.String()+", until "+x.NotAfter.Format(time.DateOnly))
	return r.Record(&record.Certificate{ID: c.ID, Issuer: c.Issuer, Linted: "before and after", SHA256: birthcert.Hash(der), Subject: x.Subject.String()})
}

// subject is the public key of a certificate: born here, of a request, or of a PEM
// file that the binding names.
func (a *Actions) subject(c *script.Certificate) ([]byte, error) {
	switch {
	case c.Key != "":
		k, ok := a.keys[c.Key]
		if !ok {
			return nil, fault.Errorf(fault.Usage, "key %s was not made", c.Key)
		}
		return k.rec.Public, nil
	case c.CSR != "":
		return a.request(c.CSR)
	}
	path, ok := a.bind.Keys[c.Public]
	if !ok {
		return nil, fault.Errorf(fault.Usage, "the binding names no key %q", c.Public)
	}
	data, err := intake.Read(a.bind.Path(path), maxInputBytes)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		return nil, fault.Errorf(fault.Usage, "key %q is not one PEM block PUBLIC KEY", path)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "key %q: %w", path, err)
	}
	good := false
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		good = pub.Curve == elliptic.P256() || pub.Curve == elliptic.P384()
	case *rsa.PublicKey:
		good = pub.N.BitLen() >= 3072 && pub.E == 65537
	}
	if !good {
		return nil, fault.Errorf(fault.Policy, "key %q is not on P-256 or P-384, nor RSA of at least 3,072 bits", path)
	}
	return block.Bytes, nil
}

// keep remembers the certificates of a verified record that are of keys of the
// charter: a root that was made after the genesis is not in the anchors.
func (v *vault) keep(dir string, rec *record.Verified) error {
	if rec.Succession != nil {
		v.counted = max(v.counted, rec.Succession.Counter)
	}
	for _, c := range rec.Certificates {
		k, ok := v.state.Keys[c.ID]
		if !ok {
			continue
		}
		data, err := intake.Read(filepath.Join(dir, record.OutputsDir, c.ID+".cert.pem"), maxInputBytes)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(data)
		if block == nil || birthcert.Hash(block.Bytes) != c.SHA256 {
			return fault.Errorf(fault.Verify, "record %q: certificate %s changed since it was verified", dir, c.ID)
		}
		x, err := parseCert(block.Bytes)
		if err != nil {
			return err
		}
		if string(x.RawSubjectPublicKeyInfo) != string(k.Public) {
			continue
		}
		if v.issuers == nil {
			v.issuers = map[string][]byte{}
		}
		v.issuers[c.ID] = block.Bytes
	}
	return nil
}
