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
	for _, check := range []func() error{c.checkOpenings, c.checkAdmissions, c.keptAdmissions, c.checkKeys, c.checkOrigins, c.checkTransfers, c.checkAdopted, c.checkSpecified, c.checkEnrolled, c.checkEnded, c.checkSuccession, c.checkFloors, c.checkCRLs, c.checkCertificates, c.checkRoot, c.checkTold, c.checkLeft, c.checkRolls} {
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
	if c.Charter, err = charter.Fold(lines, c.Anchors.World, c.Anchors.Vault); err != nil {
		return err
	}
	c.lines = splitLines(lines)
	for _, line := range c.lines {
		typ, err := typeOf(line)
		if err != nil {
			return err
		}
		c.Statements = append(c.Statements, typ)
	}
	if c.Open.Base == nil {
		return nil
	}
	if err := c.loadBase(lines, b); err != nil {
		return err
	}
	return c.loadVoidBefore(lines, 0)
}

// typeOf is the type of a charter statement that was folded.
func typeOf(line []byte) (string, error) {
	env, err := envelope.Parse(line)
	if err != nil {
		return "", err
	}
	var st charter.Statement
	err = jcs.Unmarshal(env.Payload, &st)
	return st.Type, err
}

// checkRoster compares the people who were there with those who founded.
func (c *checker) checkRoster() error {
	if c.base != nil {
		return c.checkPresent()
	}
	g := &c.Charter.Genesis
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
	return c.founding()
}

// checkStatements wants the charter to be what was loaded and what was stated
// here, each statement of a type that this kind of ceremony makes.
func (c *checker) checkStatements() error {
	first := 0
	if c.base != nil {
		first = c.base.Size()
	}
	if len(c.lines)-first != len(c.stmts) {
		return bad("%w: %d charter statements are new, the transcript has %d", ErrRecord, len(c.lines)-first, len(c.stmts))
	}
	k := kinds()[c.Open.Kind]
	for i, s := range c.stmts {
		line := c.lines[first+i]
		if sum := sha256.Sum256(line); s.Seq != first+i || hex.EncodeToString(sum[:]) != s.LineHash {
			return bad("%w: charter statement %d is not the one in the transcript", ErrRecord, first+i)
		}
		if !slices.Contains(k.statements, s.Type) {
			return bad("%w: a ceremony of kind %s states nothing of type %.40q", ErrRecord, c.Open.Kind, s.Type)
		}
		if err := c.checkTellsStatement(s, line); err != nil {
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
	for _, l := range c.received {
		r, ok := l.Data.(*Receipt)
		if !ok {
			continue
		}
		place, pub, err := share.PlaceOf(c.Charter, r.Safe, r.Holder)
		if err != nil {
			return err
		}
		p := c.People[r.Holder]
		if p == nil {
			return bad("%w: entry %d: %.40q gave a receipt and was not there", ErrEntry, l.Seq, r.Holder)
		}
		if _, err := share.VerifyReceipt(&r.Envelope, place, pub, p.PublicKey()); err != nil {
			return fault.Errorf(fault.Verify, "%w: entry %d: %w", ErrEntry, l.Seq, err)
		}
	}
	for _, s := range c.Charter.People.Safes {
		got, done := c.dealt[s.Name], c.progress[s.Name] == safePINs || c.progress[s.Name] == safeRepinned
		if c.base != nil && got.Epoch == 0 { // not dealt here: as it was
			got, done = c.base.Epochs[s.Name], c.progress[s.Name] == safeNew || c.progress[s.Name] == safeOpened
		}
		same, err := equal(got, c.Charter.Epochs[s.Name])
		if err != nil || !same || !done || c.Charter.Stale(s.Name) {
			return bad("%w: shares of safe %s in the charter are not those dealt", ErrRecord, s.Name)
		}
	}
	return c.checkTokens()
}

// checkTokens wants every safe that was opened in the token that the charter
// names for it.
func (c *checker) checkTokens() error {
	for safe, t := range c.tokens {
		if c.base != nil && c.retires(safe) && c.base.Epochs[safe].Token == t {
			continue // it ended here
		}
		if _, ok := c.Charter.People.Safe(safe); !ok || c.Charter.Epochs[safe].Token != t {
			return bad("%w: safe %.40q is in another token than the charter says", ErrRecord, safe)
		}
	}
	return nil
}

func equal(a, b any) (bool, error) {
	x, err := jcs.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := jcs.Marshal(b)
	return bytes.Equal(x, y), err
}

// checkKeys wants every key of anchors and charter born, stored and proven here,
// and none besides; in a later ceremony every key that the charter gained.
func (c *checker) checkKeys() error {
	if c.base != nil {
		return c.checkNewKeys()
	}
	told := slices.Concat(c.Anchors.Keys, c.Anchors.Successors)
	if len(c.born) != len(c.stored) || len(c.stored) != len(c.proven) || len(c.stored) != len(c.Charter.Keys) || len(c.stored) != len(told) || len(c.Anchors.Former) > 0 {
		return bad("%w: %d keys born, %d stored, %d proven, %d in the charter, %d in the anchors", ErrRecord,
			len(c.born), len(c.stored), len(c.proven), len(c.Charter.Keys), len(told))
	}
	for i, k := range told {
		if dormant := i >= len(c.Anchors.Keys); dormant != (k.SuccessorOf != "") {
			return bad("%w: key %s is dormant and told as in force, or the other way round", ErrRecord, k.ID)
		}
		if c.stored[k.ID].Key.ID == "" || !sameKey(c.stored[k.ID].Key, k) || !sameKey(c.Charter.Keys[k.ID], k) {
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

func sameKey(a, b anchor.KeyRecord) bool {
	same, err := equal(a, b)
	return err == nil && same
}

// checkNewKeys wants the keys that the charter gained to be those that were born,
// stored and proven here, and all others as they were.
func (c *checker) checkNewKeys() error {
	gained := 0
	for id, k := range c.Charter.Keys {
		made := c.stored[id].Key
		if old, ok := c.base.Keys[id]; ok {
			if t, ok := c.moved[id]; ok {
				old.Token = t.To.Token // whether it went there is checked by checkTransfers
			}
			if f, ok := c.found[id]; ok {
				old.Token = f.To.Token // and by checkAdopted
			}
			if made.ID != "" || !sameKey(old, k) {
				return bad("%w: key %s was there before and is another now", ErrRecord, id)
			}
			continue
		}
		gained++
		if made.ID == "" || !sameKey(made, k) {
			return bad("%w: key %s in the charter is not the one made", ErrRecord, id)
		}
	}
	if gained != len(c.born) || gained != len(c.stored) || gained+len(c.moved)+len(c.found) != len(c.proven) {
		return bad("%w: %d keys born, %d stored, %d proven, %d new in the charter", ErrRecord, len(c.born), len(c.stored), len(c.proven), gained)
	}
	return nil
}

// missing lists who has yet to cosign: all witnesses who were there, and of the
// openers of each safe that was made, opened or dealt as many as must agree.
func (c *checker) missing() {
	has := map[string]bool{}
	for _, n := range c.Cosigners {
		has[n] = true
	}
	want := map[string]bool{}
	for name, role := range c.Roles {
		if role == charter.RoleWitness && !has[name] {
			want[name] = true
		}
	}
	agree := func(s charter.Set) {
		n := 0
		for _, m := range s.Members {
			if has[m] || want[m] {
				n++
			}
		}
		for _, m := range s.Members {
			if n < s.Need && !has[m] && !want[m] && c.Roles[m] != "" {
				want[m] = true
				n++
			}
		}
	}
	for _, s := range c.Charter.People.Safes {
		if c.base == nil || c.dealt[s.Name].Epoch > 0 {
			agree(s.Openers)
		}
	}
	for at, holders := range c.opened {
		agree(charter.Set{Members: holders, Need: c.base.Epochs[at.safe].Need})
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
