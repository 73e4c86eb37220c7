package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/share"
	"keyrite/artifact/world"
)

// Void is what the record of a void ceremony proves of what it left behind.
type Void struct {
	Verified
	Left Left // also what it was to adopt itself
	// Signed is the conductor of the charter who signed a checkpoint over all of it;
	// empty if there is none. One that was killed has none, and then nobody vouches for
	// what no signature in it is over.
	Signed string
}

// Ref is how the next attempt names it.
func (v *Void) Ref() Ref { return Ref{Record: v.Open.Record, Root: v.Root} }

// Pending is what of it the charter does not know yet. An error says that it does
// not go on where the charter stands.
func (v *Void) Pending(s *charter.State) (Left, error) { return v.Left.in(s) }

// VerifyVoid checks the record of a void ceremony as hard as a closed one, as far as
// it came: order, script, files and people, every signature in it, and the
// checkpoint where there is one; one that was killed has none. lines is the charter,
// which may have grown since. What it left alone moves nothing: an epoch is adopted
// by a ceremony that opens the safe with as many of its shares as it takes.
//
// A ceremony that is not over is an error of class void; one that fell before conductor
// and witnesses were there is ErrFew.
func VerifyVoid(fsys fs.FS, trusted *anchor.Anchors, lines []byte) (*Void, error) {
	return verifyVoid(fsys, trusted, lines, 0)
}

func verifyVoid(fsys fs.FS, trusted *anchor.Anchors, lines []byte, depth int) (*Void, error) {
	if depth > maxVoids {
		return nil, bad("%w: more than %d void records lie in one another", ErrRecord, maxVoids)
	}
	c, err := read(fsys)
	if err != nil {
		return nil, err
	}
	if err := world.Match(trusted.World, c.Open.World); err != nil {
		return nil, err
	}
	if err := c.checkFiles(); err != nil {
		return nil, err
	}
	switch {
	case c.State == "CLOSED" && c.ended:
		return nil, bad("%w: it is closed, not void", ErrRecord)
	case !c.ended:
		return nil, c.checkVoid()
	case c.Open.Base == nil:
		return nil, bad("%w: a genesis continues no vault, and leaves nothing to another one", ErrRecord)
	}
	if err := c.checkSignatures(); err != nil && !isMissing(c.fsys, CheckpointFile) {
		return nil, err
	}
	if err := c.loadVoid(trusted, lines, depth); err != nil {
		return nil, err
	}
	for _, check := range []func() error{c.checkVoidPresent, c.checkAdmissions, c.checkVoidStatements, c.checkVoidShares} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	c.Fell = append(c.fallen(), c.Fell...)
	v := &Void{Verified: c.Verified, Left: c.left, Signed: c.signedInForce()}
	if err := c.leaves(&v.Left); err != nil {
		return nil, err
	}
	return v, nil
}

// signedInForce is the conductor in force whose checkpoint was verified, or empty.
func (c *checker) signedInForce() string {
	log, err := c.conductor()
	if err != nil || c.note == nil || !inForce(c.base, c.People[log.Name], charter.RoleConductor) {
		return ""
	}
	return log.Name
}

// loadVoid folds the charter up to where the void ceremony began, and what it adopted.
func (c *checker) loadVoid(trusted *anchor.Anchors, lines []byte, depth int) error {
	c.Anchors = trusted
	hash, err := trusted.Hash()
	if err != nil {
		return err
	}
	if c.Charter, err = charter.Fold(lines, trusted.World, trusted.Vault); err != nil {
		return err
	}
	if err := c.loadBase(lines, hash); err != nil {
		return err
	}
	c.lines = splitLines(lines)
	return c.loadVoidBefore(lines, depth)
}

// checkVoidPresent wants everybody who was there in the charter; where the script
// changes people, others may have been about to come. Nothing rests on those.
func (c *checker) checkVoidPresent() error {
	if len(c.People) != len(c.Roles) {
		return bad("%w: %d people files, %d people identified", ErrRecord, len(c.People), len(c.Roles))
	}
	count := map[string]int{}
	for name, role := range c.Roles {
		p := c.People[name]
		if p == nil || !c.changesPeople() && !inForce(c.base, p, role) {
			return bad("%w: %.40q is not a %.20s of the charter", ErrRecord, name, role)
		}
		count[role]++
	}
	if count[charter.RoleConductor] != 1 || count[charter.RoleWitness] < minWitnesses {
		return bad("%w: %d conductors and %d witnesses were there", ErrFew, count[charter.RoleConductor], count[charter.RoleWitness])
	}
	return nil
}

// checkVoidStatements wants what was stated to be of types that the kind makes. The
// statements themselves are part of nothing; where they were written out they must
// be those.
func (c *checker) checkVoidStatements() error {
	k := kinds()[c.Open.Kind]
	for i, s := range c.stmts {
		if s.Seq != c.base.Size()+i || !slices.Contains(k.statements, s.Type) {
			return bad("%w: statement %d of type %.40q", ErrRecord, s.Seq, s.Type)
		}
		if s.Seq >= len(c.lines) {
			continue
		}
		if sum := sha256.Sum256(c.lines[s.Seq]); hex.EncodeToString(sum[:]) == s.LineHash {
			return fault.Hint(bad("%w: the charter holds statement %d, which was made in this void ceremony", ErrRecord, s.Seq), "give the charter of the last ceremony that closed")
		}
	}
	path := OutputsDir + "/charter.jsonl"
	if _, written := c.outputs[path]; !written {
		return nil
	}
	lines, err := readFile(c.fsys, path, 64<<20)
	if err != nil {
		return err
	}
	s, err := charter.Fold(lines, c.Anchors.World, c.Anchors.Vault)
	if err != nil {
		return err
	}
	if err := s.CheckHead(c.Open.Base.CharterSize, c.Open.Base.CharterHead); err != nil {
		return err
	}
	c.lines = splitLines(lines)
	return c.checkStatements()
}

func splitLines(file []byte) [][]byte {
	return bytes.Split(bytes.TrimSuffix(file, []byte("\n")), []byte("\n"))
}

// checkVoidShares checks every opening and every receipt, and that what was dealt
// follows what was in force.
func (c *checker) checkVoidShares() error {
	nonce, err := OpeningNonce(c.Open.Record, c.Open.Attempt)
	if err != nil {
		return err
	}
	for safe, n := range c.epochs {
		if c.base.Epochs[safe].Epoch != n || c.base.Epochs[safe].Token != c.tokens[safe] {
			return bad("%w: safe %.40q was to be opened with shares of epoch %d, or in another token", ErrRecord, safe, n)
		}
	}
	for _, o := range c.openings {
		if err := c.checkOpening(&o, nonce); err != nil {
			return bad("%w: entry %d: %w", ErrEntry, o.seq, err)
		}
	}
	for _, l := range c.received {
		if r, ok := l.Data.(*Receipt); ok {
			if err := c.checkReceipt(r, c.dealt[r.Safe]); err != nil {
				return fault.Errorf(fault.Verify, "%w: entry %d: %w", ErrEntry, l.Seq, err)
			}
		}
	}
	return nil
}

// checkReceipt checks the receipt for a share of an epoch that was dealt here.
func (c *checker) checkReceipt(r *Receipt, e charter.Epoch) error {
	p := c.People[r.Holder]
	for _, sh := range e.Shares {
		if sh.Holder != r.Holder || p == nil {
			continue
		}
		place := share.Place{Epoch: e.Epoch, Holder: sh.Holder, Index: sh.Index, Safe: e.Safe, Vault: c.base.Vault, World: c.base.World}
		_, err := share.VerifyReceipt(&r.Envelope, place, sh.Public, p.PublicKey())
		return err
	}
	return bad("%.40q has a receipt and no share, or was not there", r.Holder)
}

// leaves adds what the ceremony itself left to what it was to adopt.
func (c *checker) leaves(l *Left) error {
	for _, e := range c.lastCleanups() {
		epoch, err := c.leftInForce(e)
		if err != nil {
			return err
		}
		if epoch != nil {
			l.Epochs = append(slices.Clone(l.Epochs), *epoch)
		}
		for _, kept := range e.Kept {
			k, err := c.leftKey(e, kept)
			if err != nil {
				return err
			}
			l.Keys = append(slices.Clone(l.Keys), *k)
		}
	}
	return nil
}

// leftInForce is the epoch that a clean-up says is in force, if it was dealt here.
// Before the PINs changed as many as it takes of those of before gave their shares
// for just that, and every holder signed for the new one.
func (c *checker) leftInForce(e *Cleanup) (*LeftEpoch, error) {
	before, dealt := c.base.Epochs[e.Safe], c.dealt[e.Safe]
	if e.InForce == "" || e.InForce == nameOf(e.Safe, before.Epoch) {
		return nil, nil //nolint:nilnil // no epoch of this ceremony is in force, and that is no error
	}
	p := c.progress[e.Safe]
	switch {
	case c.epochs[e.Safe] == 0 || e.InForce != nameOf(e.Safe, dealt.Epoch) || p != safeRepinning && p != safeRepinned:
		return nil, bad("%w: the clean-up says that %.60q opens, and no PINs were announced to change for it", ErrRecord, e.InForce)
	case e.Tainted != "" || slices.Contains(e.Burned, e.InForce):
		return nil, bad("%w: the clean-up of safe %.40q contradicts itself", ErrRecord, e.Safe)
	}
	agreed := slices.ContainsFunc(c.script.Run, func(st scriptStep) bool {
		return st.Do == "token.repin" && st.Safe == e.Safe && len(c.opened[opening{e.Safe, st.ID}]) >= before.Need
	})
	if !agreed {
		return nil, bad("%w: the PINs of safe %s changed without the %d shares in force", ErrRecord, e.Safe, before.Need)
	}
	if !c.changesPeople() {
		set := c.openersOf(e.Safe)
		if dealt.Need != set.Need || len(dealt.Shares) != len(set.Members) || slices.ContainsFunc(dealt.Shares, func(s charter.Share) bool { return !slices.Contains(set.Members, s.Holder) }) {
			return nil, bad("%w: epoch %d of safe %s was dealt to others than its openers", ErrRecord, dealt.Epoch, e.Safe)
		}
	}
	out := &LeftEpoch{AdoptedEpoch{dealt.Epoch, c.Open.Record, c.Root, e.Safe}, dealt, map[string]*person.Person{}}
	for _, sh := range dealt.Shares {
		out.People[sh.Holder] = c.People[sh.Holder] // allReceipts and checkReceipt: everybody signed
	}
	x := out.Statement()
	return out, x.Check(&before)
}

// leftKey is a key that a clean-up kept: it was proven where it went, both ends
// signed for it, and its destruction where it was had been announced.
func (c *checker) leftKey(e *Cleanup, kept string) (*LeftKey, error) {
	id, object, _ := strings.Cut(kept, " ")
	t, ok := c.moved[id]
	if !ok || t.Object != object || t.To.Safe != e.Safe || !c.proven[id] || !slices.Contains(c.leaving[t.From], object) || e.Tainted != "" {
		return nil, bad("%w: key %.60q was kept, and was not proven where it is before it was destroyed where it was", ErrRecord, kept)
	}
	if !c.leftHome(&t) {
		return nil, bad("%w: key %s is not the one of the charter, or left another token", ErrRecord, id)
	}
	if err := c.checkReceipts(&t); err != nil {
		return nil, err
	}
	return &LeftKey{AdoptedKey{id, c.Open.Record, c.Root, t.To.Safe}, t}, nil
}

// lastCleanups are the last one of each safe: where the ceremony could not put a
// token back, recover cleaned all of them once more.
func (c *checker) lastCleanups() []*Cleanup {
	var out []*Cleanup
	for i, e := range c.cleanups {
		if !slices.ContainsFunc(c.cleanups[i+1:], func(x *Cleanup) bool { return x.Safe == e.Safe }) {
			out = append(out, e)
		}
	}
	return out
}

func (c *checker) openersOf(safe string) charter.Set {
	if s, ok := c.base.People.Safe(safe); ok {
		return s.Openers
	}
	return charter.Set{}
}

func nameOf(safe string, epoch int) string { return safe + "/" + strconv.Itoa(epoch) }
