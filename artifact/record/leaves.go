package record

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"slices"

	"keyrite/artifact/charter"
)

// leaves is the entry without which a step of a verb did nothing, and what of the
// step the entry must be about. A step that only says that it was done is how a
// record would tell of shares that nobody gave, or of a key that still lives.
func (st *scriptStep) leaves() (typ, about string) {
	switch st.Do {
	case "documents.see":
		return "documents", ""
	case "genesis.sign", "people.change":
		return "statement", ""
	case "succession.sign":
		return "succession", ""
	case "read.aloud":
		return "words", ""
	case "token.init":
		return "token", st.Safe
	case "token.admit":
		return "admission", st.Safe
	case "shares.deal":
		return "dealt", st.Safe
	case "safe.open":
		return "opening", st.Safe
	case "token.pins", "token.repin":
		return "pins-changed", st.Safe
	case "token.destroy":
		return "retired", st.Safe
	case "key.destroy":
		return "retired", st.Key
	case "key.transfer":
		return "transferred", st.Key
	case "key.find":
		return "found", st.Key
	case "cert.issue":
		return "certificate", st.Cert
	case "crl.issue":
		return "crl", st.CRL
	case "medium.in", "medium.out":
		return "medium", st.Medium
	}
	return "", ""
}

// subject is what an entry is about, as a step names it.
func subject(d Data) string {
	switch d := d.(type) {
	case *TokenReady:
		return d.Safe
	case *Admission:
		return d.Safe
	case *Dealt:
		return d.Epoch.Safe
	case *Opening:
		return d.Safe
	case *PINsChanged:
		return d.Safe
	case *Retired:
		if d.Key == "" {
			return d.Safe
		}
		return d.Key
	case *Transferred:
		return d.Key.ID
	case *Found:
		return d.Key.ID
	case *Certificate:
		return d.ID
	case *CRL:
		return d.ID
	case *Medium:
		return d.Name
	}
	return ""
}

// left notes that a step left what it must, and the first one that ended without;
// a closed record has none. A step that a contingency begins again goes on where it
// was, so what it left before stands.
func (f *follower) left(e *Entry, d Data) {
	if f.path == nil || f.path.at == nil || e.Step != f.path.at.ID || f.hollow != nil {
		return
	}
	typ, about := f.path.at.leaves()
	if typ == "" {
		return
	}
	if _, ends := d.(*Done); ends && !f.has[e.Step] {
		f.hollow = bad("%w: entry %d: step %s (%s) is done without an entry %s of %.40q", ErrEntry, e.Seq, e.Step, f.path.at.Do, typ, about)
	} else if e.Type == typ && subject(d) == about {
		if f.has == nil {
			f.has = map[string]bool{}
		}
		f.has[e.Step] = true
	}
}

// checkLeft wants every step to have left what it is for.
func (c *checker) checkLeft() error { return c.follow.hollow }

// checkRolls wants everybody who was identified on the roll of every break.
func (c *checker) checkRolls() error {
	all := map[string]bool{}
	for name := range c.Roles {
		all[name] = true
	}
	for _, names := range c.rolls {
		if !slices.Equal(names, slices.Sorted(mapKeys(all))) {
			return bad("%w: the roll of a break does not name everybody who is there", ErrRecord)
		}
	}
	return nil
}

// checkCertificates wants every certificate that was issued here among the outputs,
// from the issuer that the script names and signed by that issuer's key.
func (c *checker) checkCertificates() error {
	issuers := map[string]string{}
	for _, x := range c.script.Certificates {
		issuers[x.ID] = x.Issuer
	}
	for id, made := range c.certs {
		issuer, ok := c.Charter.Keys[issuers[id]]
		if !ok || made.Issuer != issuer.ID {
			return bad("%w: certificate %.40q is of another issuer than the script says", ErrRecord, id)
		}
		if err := c.mayIssue(issuer.ID); err != nil {
			return err
		}
		data, err := readFile(c.fsys, OutputsDir+"/"+id+".cert.pem", 64<<10)
		if err != nil {
			return err
		}
		b, _ := pem.Decode(data)
		if b == nil {
			return bad("%w: certificate %.40q is not the one made here", ErrRecord, id)
		}
		sum := sha256.Sum256(b.Bytes)
		x, err := x509.ParseCertificate(b.Bytes)
		if err != nil || hex.EncodeToString(sum[:]) != made.SHA256 {
			return bad("%w: certificate %.40q is not the one made here", ErrRecord, id)
		}
		pub, err := issuer.Key()
		if err != nil {
			return err
		}
		if err := (&x509.Certificate{PublicKey: pub}).CheckSignature(x.SignatureAlgorithm, x.RawTBSCertificate, x.Signature); err != nil {
			return bad("%w: certificate %s: %w", ErrRecord, id, err)
		}
	}
	return nil
}

// mayIssue refuses a key that was retired before this ceremony: nothing that it
// signs counts any more.
func (c *checker) mayIssue(id string) error {
	if c.base == nil {
		return nil
	}
	if r, retired := c.base.Retired[id]; retired {
		return bad("%w: key %.40q issued something, and was %s before", ErrRecord, id, r.Reason)
	}
	return nil
}

// inTheirSafes wants every key that was destroyed to have been sought in the token
// that the charter names for it.
func (c *checker) inTheirSafes() error {
	for _, d := range c.destroyed {
		if d.Key != "" && c.base.Keys[d.Key].Token != c.base.Epochs[d.Safe].Token {
			return bad("%w: key %.40q was destroyed in safe %.40q, where it is not", ErrRecord, d.Key, d.Safe)
		}
	}
	return nil
}

// founding wants enough witnesses at a genesis, as at every ceremony.
func (c *checker) founding() error {
	n := 0
	for _, role := range c.Roles {
		if role == charter.RoleWitness {
			n++
		}
	}
	if n < minWitnesses {
		return bad("%w: %d witnesses were there", ErrRecord, n)
	}
	return nil
}
