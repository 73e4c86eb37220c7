package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sort"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/share"
	"keyrite/artifact/tlog"
)

// checkClosed checks everything that only a closed record has.
func (c *checker) checkClosed(trusted *anchor.Anchors) error {
	if !c.ended {
		return bad("%w: the transcript has no end", ErrRecord)
	}
	if len(c.Incidents) > 0 {
		return bad("%w: it closed in spite of an incident", ErrRecord)
	}
	if err := c.checkSignatures(); err != nil {
		return err
	}
	if err := c.loadOutputs(trusted); err != nil {
		return err
	}
	if err := c.checkRoster(); err != nil {
		return err
	}
	if err := c.checkStatements(); err != nil {
		return err
	}
	if err := c.checkShares(); err != nil {
		return err
	}
	for _, check := range []func() error{c.checkKeys, c.checkSpecified, c.checkTold} {
		if err := check(); err != nil {
			return err
		}
	}
	c.missing()
	return nil
}

func (c *checker) loadOutputs(trusted *anchor.Anchors) error {
	data, err := readFile(c.fsys, OutputsDir+"/anchors.json", 1<<20)
	if err != nil {
		return err
	}
	if c.Anchors, err = anchor.Parse(data); err != nil {
		return err
	}
	a, err := c.Anchors.Hash()
	if err != nil {
		return err
	}
	b, err := trusted.Hash()
	if err != nil {
		return err
	}
	if a != b {
		return bad("%w: its anchors are not the ones you trust", ErrRecord)
	}
	lines, err := readFile(c.fsys, OutputsDir+"/charter.jsonl", 64<<20)
	if err != nil {
		return err
	}
	c.Charter, err = charter.Fold(lines, c.Anchors.World, c.Anchors.Vault)
	return err
}

// checkRoster compares the people who were there with those who founded.
func (c *checker) checkRoster() error {
	g := &c.Charter.Genesis
	c.genesis = g
	if g.ScriptHash != c.Open.ScriptHash {
		return bad("%w: the charter was founded under another script", ErrRecord)
	}
	hash, err := g.RosterHash()
	if err != nil {
		return err
	}
	if hash != c.Anchors.RosterHash || len(g.Roster) != len(c.People) || len(g.Roster) != len(c.Roles) {
		return bad("%w: the people in the record are not those of the charter", ErrRecord)
	}
	for _, m := range g.Roster {
		p := c.People[m.Person.Name]
		if p == nil || c.Roles[p.Name] != m.Role || !p.Equal(&m.Person) {
			return bad("%w: %s in the record is not the one in the charter", ErrRecord, m.Person.Name)
		}
	}
	return nil
}

func (c *checker) checkStatements() error {
	lines, err := readFile(c.fsys, OutputsDir+"/charter.jsonl", 64<<20)
	if err != nil {
		return err
	}
	all := bytes.Split(bytes.TrimSuffix(lines, []byte("\n")), []byte("\n"))
	if len(all) != len(c.stmts) {
		return bad("%w: %d charter statements, the transcript has %d", ErrRecord, len(all), len(c.stmts))
	}
	for i, s := range c.stmts {
		if sum := sha256.Sum256(all[i]); s.Seq != i || hex.EncodeToString(sum[:]) != s.LineHash {
			return bad("%w: charter statement %d is not the one in the transcript", ErrRecord, i)
		}
		if err := c.checkTellsStatement(s, all[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkTellsStatement compares what the transcript says of a statement with the
// statement: its type, and who signed it.
func (c *checker) checkTellsStatement(s Statement, line []byte) error {
	env, err := envelope.Parse(line)
	if err != nil {
		return err
	}
	var st charter.Statement
	if err := jcs.Unmarshal(env.Payload, &st); err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, sig := range env.Signatures {
		ids[sig.KeyID] = true
	}
	for _, name := range s.Signers {
		p := c.People[name]
		if p == nil {
			return bad("%w: charter statement %d has a signer who was not there", ErrRecord, s.Seq)
		}
		delete(ids, p.KeyID())
	}
	if st.Type != s.Type || len(ids) > 0 || len(s.Signers) != len(env.Signatures) {
		return bad("%w: the transcript tells charter statement %d otherwise than it is", ErrRecord, s.Seq)
	}
	return nil
}

func (c *checker) checkShares() error {
	for _, l := range c.Timeline {
		r, ok := l.Data.(*Receipt)
		if !ok {
			continue
		}
		place, pub, err := share.PlaceOf(c.Charter, r.Safe, r.Holder)
		if err != nil {
			return err
		}
		if _, err := share.VerifyReceipt(&r.Envelope, place, pub, c.People[r.Holder].PublicKey()); err != nil {
			return fault.Errorf(fault.Verify, "%w: entry %d: %w", ErrEntry, l.Seq, err)
		}
	}
	for _, s := range c.genesis.Safes {
		want, err := jcs.Marshal(c.Charter.Epochs[s.Name])
		if err != nil {
			return err
		}
		got, err := jcs.Marshal(c.dealt[s.Name])
		if err != nil || !bytes.Equal(got, want) || c.progress[s.Name] != safePINs {
			return bad("%w: shares of safe %s in the charter are not those dealt", ErrRecord, s.Name)
		}
	}
	return nil
}

// checkKeys wants every key of anchors and charter born, stored and proven here,
// and none besides.
func (c *checker) checkKeys() error {
	if len(c.Anchors.Successors) > 0 {
		return bad("%w: its anchors name successors, which this kind of ceremony does not make", ErrRecord)
	}
	if len(c.born) != len(c.stored) || len(c.stored) != len(c.proven) || len(c.stored) != len(c.Charter.Keys) || len(c.stored) != len(c.Anchors.Keys) {
		return bad("%w: %d keys born, %d stored, %d proven, %d in the charter, %d in the anchors", ErrRecord,
			len(c.born), len(c.stored), len(c.proven), len(c.Charter.Keys), len(c.Anchors.Keys))
	}
	for i := range c.Anchors.Keys {
		k := c.Anchors.Keys[i]
		if c.stored[k.ID].Key.ID == "" || !equalRecord(c.stored[k.ID].Key, k) || !equalRecord(c.Charter.Keys[k.ID], k) {
			return bad("%w: key %s in the anchors is not the one made", ErrRecord, k.ID)
		}
	}
	for id, der := range c.Anchors.Certificates {
		if sum := sha256.Sum256(der); c.certs[id].SHA256 != hex.EncodeToString(sum[:]) {
			return bad("%w: certificate %s is not the one issued", ErrRecord, id)
		}
	}
	return nil
}

func equalRecord(a, b anchor.KeyRecord) bool {
	x, err := jcs.Marshal(a)
	if err != nil {
		return false
	}
	y, err := jcs.Marshal(b)
	return err == nil && bytes.Equal(x, y)
}

// missing lists who has yet to cosign: all witnesses, and of each safe's openers
// as many as must agree.
func (c *checker) missing() {
	has := map[string]bool{}
	for _, n := range c.Cosigners {
		has[n] = true
	}
	want := map[string]bool{}
	for _, m := range c.genesis.Roster {
		if m.Role == charter.RoleWitness && !has[m.Person.Name] {
			want[m.Person.Name] = true
		}
	}
	for _, s := range c.genesis.Safes {
		n := 0
		for _, m := range s.Openers.Members {
			if has[m] {
				n++
			}
		}
		for _, m := range s.Openers.Members {
			if n >= s.Openers.Need {
				break
			}
			if !has[m] {
				want[m] = true
				n++
			}
		}
	}
	for n := range want {
		c.Missing = append(c.Missing, n)
	}
	sort.Strings(c.Missing)
}

// Cosign adds a person's cosignature to the checkpoint of a closed record as it
// was verified, and returns the new checkpoint file. Nothing is read again, so
// nothing else can be slipped under the signature.
func Cosign(v *Verified, k *person.Key, at time.Time) ([]byte, error) {
	if v == nil || v.State != "CLOSED" {
		return nil, ErrVoid
	}
	p := v.People[k.Public().Name]
	if p == nil || !p.Equal(k.Public()) {
		return nil, fault.Errorf(fault.Policy, "%s did not take part in this ceremony", k.Public().Name)
	}
	if slices.Contains(v.Cosigners, p.Name) || v.Roles[p.Name] == charter.RoleConductor {
		return nil, fault.Errorf(fault.Exists, "%s has signed this record already", p.Name)
	}
	return tlog.Cosign(v.note, p.Name, k.Signer(), at)
}
