package actions

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"time"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/world"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/intake"
	"keyrite/provisioning/birthca"
)

func parseCert(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "read back certificate: %w", err)
	}
	return c, nil
}

// request reads the public key of a certificate request of the binding.
func (a *Actions) request(name string) ([]byte, error) {
	path, ok := a.bind.Requests[name]
	if !ok {
		return nil, fault.Errorf(fault.Usage, "the binding names no request %q", name)
	}
	data, err := intake.Read(a.bind.Path(path), maxInputBytes)
	if err != nil {
		return nil, err
	}
	return birthca.CheckRequest(data)
}

func (a *Actions) publicKey(name string) ([]byte, error) {
	path, ok := a.bind.Keys[name]
	if !ok {
		return nil, fault.Errorf(fault.Usage, "the binding names no key %q", name)
	}
	data, err := intake.Read(a.bind.Path(path), maxInputBytes)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		return nil, fault.Errorf(fault.Usage, "key %q is not one PEM block PUBLIC KEY", path)
	}
	if _, err := birthcert.ParseSPKI(block.Bytes); err != nil {
		return nil, err
	}
	return block.Bytes, nil
}

// template is the certificate as the script and the charter want it; nothing of
// a request but its key enters.
func (a *Actions) template(r *ceremony.Run, c *script.Certificate) birthcert.Template {
	from := r.Clock.Now().UTC().Truncate(time.Second)
	t := birthcert.Template{
		Profile: birthcert.ProfileName(c.Profile), World: r.World, Serial: birthcert.NewCertSerial(),
		NotBefore: from,
	}
	if c.Days > 0 {
		t.NotAfter = from.Add(time.Duration(c.Days) * 24 * time.Hour)
	}
	switch t.Profile {
	case birthcert.FactoryCA:
		for _, f := range a.script.Factories {
			if f.ID == c.Factory {
				t.Grant = birthcert.Grant{Factory: f.ID, Product: f.Product, SerialFrom: f.SerialFrom, SerialTo: f.SerialTo}
			}
		}
	case birthcert.Relay:
		t.Role = c.Role
		t.DNSNames, t.IPs = splitNames(c.Names)
	}
	return t
}

// previewCertificates examines every certificate before the first key is made,
// with throw-away keys in the places of those to come.
func (a *Actions) previewCertificates(r *ceremony.Run) error {
	for i := range a.script.Certificates {
		c := &a.script.Certificates[i]
		if c.Profile == profileCA {
			if err := a.previewAuthority(r, c); err != nil {
				return fault.Errorf(fault.ClassOf(err), "certificate %s: %w", c.ID, err)
			}
			continue
		}
		t := a.template(r, c)
		if c.CSR != "" {
			if _, err := a.request(c.CSR); err != nil {
				return fault.Errorf(fault.ClassOf(err), "certificate %s: %w", c.ID, err)
			}
			var err error
			if t.Issuer, err = previewIssuer(r.World); err != nil {
				return err
			}
		}
		if err := birthca.Preview(t); err != nil {
			return fault.Errorf(fault.ClassOf(err), "certificate %s: %w", c.ID, err)
		}
	}
	for _, s := range a.script.Stations {
		if _, err := a.request(s.ReportKey); err != nil {
			return err
		}
	}
	for _, p := range a.script.Pipelines {
		if _, err := a.publicKey(p.Key); err != nil {
			return err
		}
	}
	r.Console.Say("good", itoa(len(a.script.Certificates))+" certificates pass their lints, before any key exists")
	return nil
}

// issue makes one certificate: linted, signed by the born key, linted again.
func (a *Actions) issue(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	id := st.Cert
	c, _ := a.script.CertByID(id)
	if c.Profile == profileCA {
		return a.issueAuthority(ctx, r, c)
	}
	t := a.template(r, c)
	var err error
	if c.CSR != "" {
		if t.SPKI, err = a.request(c.CSR); err != nil {
			return err
		}
		if err := a.mayIssue(c.Issuer); err != nil {
			return err
		}
		issuer, err := a.issuer(c.Issuer)
		if err != nil {
			return err
		}
		t.Issuer = birthcert.IssuerOf(issuer)
	} else {
		t.SPKI = a.keys[c.Key].rec.Public
	}
	linted, err := birthca.Lint(t)
	if err != nil {
		return err
	}
	signer, err := a.signer(ctx, c.Issuer)
	if err != nil {
		return err
	}
	der, err := birthca.Issue(ctx, linted, signer)
	if err != nil {
		return err
	}
	a.certs[id] = der
	x, err := parseCert(der)
	if err != nil {
		return err
	}
	r.Console.Say("good", "certificate "+id+" for "+x.Subject.String())
	return r.Record(&record.Certificate{ID: id, Issuer: c.Issuer, Linted: "before and after", SHA256: birthcert.Hash(der), Subject: x.Subject.String()})
}

// splitNames sorts a relay's names into DNS names and IP addresses.
func splitNames(names []string) (dns, ips []string) {
	for _, n := range names {
		if _, err := netip.ParseAddr(n); err == nil {
			ips = append(ips, n)
		} else {
			dns = append(dns, n)
		}
	}
	return dns, ips
}

// previewIssuer stands for an issuer that does not exist yet.
func previewIssuer(w world.World) (*birthcert.Issuer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make throw-away key: %w", err)
	}
	name := pkix.Name{Organization: []string{string(w)}, CommonName: "preview"}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte("preview of an issuer")}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make throw-away certificate: %w", err)
	}
	c, err := parseCert(der)
	if err != nil {
		return nil, err
	}
	return birthcert.IssuerOf(c), nil
}
