package actions

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/intake"
	"keyrite/provisioning/birthca"
)

// issueCRL is the verb crl.issue: the list is examined, signed and examined again.
func (a *Actions) issueCRL(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	c, _ := a.script.CRLByID(st.CRL)
	if err := a.mayIssue(c.Issuer); err != nil {
		return err
	}
	issuer, err := a.issuer(c.Issuer)
	if err != nil {
		return err
	}
	list, err := a.revocations(r, c, issuer)
	if err != nil {
		return err
	}
	linted, err := birthca.LintCRL(list, issuer)
	if err != nil {
		return err
	}
	signer, err := a.signer(ctx, c.Issuer)
	if err != nil {
		return err
	}
	der, err := birthca.IssueCRL(ctx, linted, signer)
	if err != nil {
		return err
	}
	a.crls[c.ID] = der
	sum := sha256.Sum256(der)
	r.Console.Say("good", "list "+c.ID+" number "+itoa(int(c.Number))+", "+itoa(len(c.Revoked))+" certificates revoked")
	return r.Record(&record.CRL{ID: c.ID, Issuer: c.Issuer, Number: c.Number, Revoked: len(c.Revoked), SHA256: hex.EncodeToString(sum[:])})
}

// revocations is the list as the script wants it. The list before, which the
// binding may name under the same id, must be of the same issuer and count less;
// what it revoked stays revoked.
func (a *Actions) revocations(r *ceremony.Run, c *script.CRL, issuer *x509.Certificate) (*birthca.CRL, error) {
	from := r.Clock.Now().UTC().Truncate(time.Second)
	list := &birthca.CRL{Number: c.Number, From: from, Until: from.AddDate(0, 0, c.Days)}
	for _, x := range c.Revoked {
		serial, ok := new(big.Int).SetString(x.Serial, 16)
		at, err := time.Parse(time.DateOnly, x.Date)
		if !ok || err != nil {
			return nil, fault.Errorf(fault.Usage, "CRL %s: serial %.50q or its date", c.ID, x.Serial)
		}
		list.Revoked = append(list.Revoked, birthca.Revoked{Serial: serial, At: at, Reason: x.Reason})
	}
	path := a.bind.CRLs[c.ID]
	if path == "" {
		return list, nil
	}
	data, err := intake.Read(a.bind.Path(path), birthca.MaxCRLBytes)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	return list, birthca.CheckNextCRL(data, list, issuer)
}

// issuer returns the certificate of a key that certifies: made here, in the
// anchors in force, or in an earlier ceremony whose record the binding names.
func (a *Actions) issuer(id string) (*x509.Certificate, error) {
	der := a.certs[id]
	if der == nil && a.vault != nil {
		der = a.vault.inForce.Certificates[id]
		if der == nil {
			der = a.vault.issuers[id]
		}
	}
	if der == nil {
		return nil, fault.Hint(fault.Errorf(fault.Policy, "key %s has no certificate in the anchors, nor in a record of the binding", id),
			"name the record of the ceremony that issued it under records")
	}
	return parseCert(der)
}
