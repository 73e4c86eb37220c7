package record

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"math/big"
	"slices"

	"keyrite/artifact/anchor"
	"keyrite/artifact/succession"
)

// ends is what a ceremony ends or replaces.
type ends struct {
	doomed      *Intent // announced, not yet destroyed
	destroyed   []*Retired
	crls        map[string]*CRL
	successions []*Succession
}

// announcedEnd checks the intent of a destruction: of a key of a safe that is open,
// or of a whole token, for which the shares were given once more.
func (c *checker) announcedEnd(d *Intent) error {
	if c.progress[d.Safe] != safeOpened || c.tokens[d.Safe] != d.Token || (d.Key == "") != (c.do == "token.destroy") || d.Key == "" && d.Object != "" {
		return bad("%w: destruction in safe %.40q is announced otherwise than it is done", ErrEntry, d.Safe)
	}
	if d.Key == "" && len(c.opened[opening{d.Safe, c.step}]) == 0 {
		return bad("%w: the token of safe %.40q is erased without its shares", ErrEntry, d.Safe)
	}
	c.doomed = d
	return nil
}

// retired takes a destruction: it was announced right before, and nothing is left.
func (c *checker) retired(d *Retired) error {
	i := c.doomed
	if i == nil || i.Key != d.Key || i.Safe != d.Safe || i.Object != d.Object || d.Left != 0 {
		return bad("%w: destruction of %.40q in safe %.40q was not announced, or left %d objects", ErrEntry, d.Key, d.Safe, d.Left)
	}
	c.doomed = nil
	c.destroyed = append(c.destroyed, d)
	return nil
}

func (c *checker) crl(d *CRL) error {
	if c.crls == nil {
		c.crls = map[string]*CRL{}
	}
	if c.crls[d.ID] != nil {
		return bad("%w: revocation list %.40q twice", ErrEntry, d.ID)
	}
	c.crls[d.ID] = d
	return nil
}

func (c *checker) succession(d *Succession) error {
	if len(c.successions) > 0 {
		return bad("%w: a second succession statement", ErrEntry)
	}
	c.successions = append(c.successions, d)
	return nil
}

// retires says whether a safe that was there at the beginning has ended.
func (c *checker) retires(safe string) bool {
	_, was := c.base.People.Safe(safe)
	_, still := c.Charter.People.Safe(safe)
	return was && !still
}

// checkEnded compares what the charter ended with the script and with what was
// destroyed: all of it, and nothing besides.
func (c *checker) checkEnded() error {
	if c.base == nil {
		return nil
	}
	if c.doomed != nil {
		return bad("%w: the destruction of %.40q was announced and not done", ErrRecord, c.doomed.Key)
	}
	want := map[string]string{} // key → reason
	for _, d := range c.destroyed {
		if d.Key != "" {
			want[d.Key] = "destroyed"
		}
	}
	for _, x := range c.script.Successions {
		want[x.ID] = x.Reason
		by := c.Charter.Keys[x.By]
		now, err := c.Charter.Key(by.SuccessorOf, by.Domain)
		if err != nil || now.ID != x.By {
			return bad("%w: %.40q does not stand for %.40q in the charter", ErrRecord, x.By, x.ID)
		}
	}
	for id, r := range c.Charter.Retired {
		if old, before := c.base.Retired[id]; before && old == r {
			continue
		}
		if want[id] != r.Reason || r.Record != Origin(c.Open.Record) {
			return bad("%w: key %s is %s in the charter, and was not here", ErrRecord, id, r.Reason)
		}
		delete(want, id)
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if _, before := c.base.Retired[id]; !before {
			return bad("%w: key %s ended, and the charter does not say so", ErrRecord, id)
		}
	}
	if err := c.inTheirSafes(); err != nil {
		return err
	}
	return c.checkSafesEnded()
}

// checkSafesEnded wants every safe that ended to have been erased here, or lost
// with the last of its keys.
func (c *checker) checkSafesEnded() error {
	erased := map[string]bool{}
	for _, d := range c.destroyed {
		if d.Key == "" {
			erased[d.Safe] = true
		}
	}
	for _, s := range c.base.People.Safes {
		if erased[s.Name] != c.retires(s.Name) && (erased[s.Name] || !c.lost(s.Name)) {
			return bad("%w: safe %s ended otherwise than the transcript tells", ErrRecord, s.Name)
		}
	}
	return nil
}

// lost says whether the script calls a key of that safe lost.
func (c *checker) lost(safe string) bool {
	for _, x := range c.script.Successions {
		if k := c.base.Keys[x.ID]; x.Reason == "lost" && k.Token == c.base.Epochs[safe].Token {
			return true
		}
	}
	return false
}

// checkSuccession verifies the statement among the outputs against the anchors
// and the script.
func (c *checker) checkSuccession() error {
	path := OutputsDir + "/succession.json"
	_, written := c.outputs[path]
	if len(c.successions) == 0 && !written {
		return nil
	}
	if len(c.successions) == 0 || !written {
		return bad("%w: a succession statement that was not signed here, or is missing", ErrRecord)
	}
	e := c.successions[0]
	data, err := readFile(c.fsys, path, succession.MaxBytes)
	if err != nil {
		return err
	}
	s, err := succession.Verify(data, c.Anchors)
	if err != nil {
		return bad("%w: its succession statement: %w", ErrRecord, err)
	}
	eff, err := succession.Apply(c.Anchors, s)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	if hex.EncodeToString(sum[:]) != e.SHA256 || s.Counter != e.Counter || !slices.Equal(s.Signers(), e.Signers) || s.Record != Origin(c.Open.Record) {
		return bad("%w: the succession statement is not the one signed here", ErrRecord)
	}
	told := maps.Clone(e.Replaced)
	for _, x := range c.script.Successions {
		k := c.Charter.Keys[x.By]
		now, _, err := eff.Key(k.SuccessorOf, k.Domain)
		if err != nil {
			continue // a key that the anchors do not know: the charter replaces it
		}
		if now.ID != x.By || told[k.SuccessorOf] != x.By || !sameKey(*now, k) {
			return bad("%w: the succession statement does not put %s in force", ErrRecord, x.By)
		}
		delete(told, k.SuccessorOf)
	}
	if len(told) > 0 || !c.nothingElse(s) {
		return bad("%w: the succession statement says more than the script", ErrRecord)
	}
	c.Succession = s
	return c.checkNewInField(s, e)
}

// checkNewInField wants the statement to tell of every key that was made here, as
// what it is, and the transcript to say so.
func (c *checker) checkNewInField(s *succession.Statement, e *Succession) error {
	here := func(list []anchor.KeyRecord) []string {
		var ids []string
		for i := range list {
			if _, made := c.stored[list[i].ID]; made {
				ids = append(ids, list[i].ID)
			}
		}
		slices.Sort(ids)
		return ids
	}
	var roles []string
	for id, k := range c.stored {
		if k.Key.SuccessorOf == "" {
			roles = append(roles, id)
		}
	}
	slices.Sort(roles)
	if added := here(s.Added); !slices.Equal(added, roles) || !slices.Equal(added, e.Added) || !slices.Equal(here(s.Dormant), e.Dormant) {
		return bad("%w: the succession statement does not tell of the keys that were made here", ErrRecord)
	}
	return nil
}

// nothingElse says whether every entry of a succession statement was called for by
// the script, or is of an earlier ceremony: then the key that it replaces was
// retired before. Every key that it names must be the charter's.
func (c *checker) nothingElse(s *succession.Statement) bool {
	for i := range s.Entries {
		e := &s.Entries[i]
		if !c.charters(e.To) {
			return false
		}
		called := false
		for id, k := range c.base.Keys {
			if succession.Hash(k.Public) != e.From {
				continue
			}
			_, before := c.base.Retired[id]
			called = called || before
			for _, x := range c.script.Successions {
				called = called || x.ID == id && x.By == e.To.ID && x.Reason == e.Reason
			}
		}
		if !called {
			return false
		}
	}
	for _, k := range slices.Concat(s.Dormant, s.Added) {
		if !c.charters(k) {
			return false
		}
	}
	return true
}

// charters says whether a key of the statement is the charter's. Where it lies may
// have changed since an earlier statement named it.
func (c *checker) charters(k anchor.KeyRecord) bool {
	now, ok := c.Charter.Keys[k.ID]
	if _, before := c.base.Keys[k.ID]; before {
		k.Token = now.Token
	}
	return ok && sameKey(now, k)
}

// sameSerials says whether a list revokes what the script says, and nothing else.
func sameSerials(l *x509.RevocationList, want []string) bool {
	var got, hexes []string
	for _, e := range l.RevokedCertificateEntries {
		got = append(got, e.SerialNumber.Text(16))
	}
	for _, w := range want {
		n, ok := new(big.Int).SetString(w, 16)
		if !ok {
			return false
		}
		hexes = append(hexes, n.Text(16))
	}
	slices.Sort(got)
	slices.Sort(hexes)
	return slices.Equal(got, hexes)
}

// checkCRLs compares the revocation lists among the outputs with the script and
// with their issuers.
func (c *checker) checkCRLs() error {
	if len(c.crls) != len(c.script.CRLs) {
		return bad("%w: the script has %d revocation lists, %d were issued", ErrRecord, len(c.script.CRLs), len(c.crls))
	}
	for _, x := range c.script.CRLs {
		e := c.crls[x.ID]
		data, err := readFile(c.fsys, OutputsDir+"/"+x.ID+".crl.pem", 4<<20)
		if err != nil {
			return err
		}
		b, rest := pem.Decode(data)
		if e == nil || b == nil || b.Type != "X509 CRL" || len(rest) > 0 {
			return bad("%w: revocation list %s is not the one issued", ErrRecord, x.ID)
		}
		l, err := x509.ParseRevocationList(b.Bytes)
		if err != nil {
			return bad("%w: revocation list %s: %w", ErrRecord, x.ID, err)
		}
		sum := sha256.Sum256(b.Bytes)
		if hex.EncodeToString(sum[:]) != e.SHA256 || e.Issuer != x.Issuer || e.Number != x.Number || l.Number == nil || l.Number.Int64() != x.Number ||
			len(l.RevokedCertificateEntries) != len(x.Revoked) || e.Revoked != len(x.Revoked) {
			return bad("%w: revocation list %s is not the one that the script calls for", ErrRecord, x.ID)
		}
		var serials []string
		for _, y := range x.Revoked {
			serials = append(serials, y.Serial)
		}
		if !sameSerials(l, serials) {
			return bad("%w: revocation list %s revokes other certificates than the script says", ErrRecord, x.ID)
		}
		if err := c.signedBy(l, x.Issuer); err != nil {
			return bad("%w: revocation list %s: %w", ErrRecord, x.ID, err)
		}
	}
	return nil
}

// signedBy checks a list's signature with the issuer's key in the charter.
func (c *checker) signedBy(l *x509.RevocationList, issuer string) error {
	if err := c.mayIssue(issuer); err != nil {
		return err
	}
	rec := c.Charter.Keys[issuer]
	return rec.CheckBytes(l.RawTBSRevocationList, l.Signature)
}
