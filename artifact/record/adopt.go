package record

import (
	"encoding/json"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
)

// AfterDir holds, in the record of a ceremony that adopts or follows one that a person
// called an incident in, the whole record of the void one that Open.After names,
// report.html excepted; what that one kept in its turn lies in it in the same way. So
// the evidence never leaves the record.
const AfterDir = OutputsDir + "/after"

// maxVoids bounds how many void records may lie in one another.
const maxVoids = 32

// Adopts is what a ceremony takes over from void ones: what their records prove, and
// the charter does not know yet. A ceremony that adopts takes over all of it.
type Adopts struct {
	Epochs []AdoptedEpoch `json:"epochs"` // by safe, then by epoch
	Keys   []AdoptedKey   `json:"keys"`   // by id
}

// AdoptedEpoch is an epoch that was dealt in a void ceremony and opens its safe.
type AdoptedEpoch struct {
	Epoch  int    `json:"epoch"`
	Record string `json:"record"` // of the void ceremony that dealt it, 16 hex digits
	Root   string `json:"root"`   // hex tree root that the record ended with
	Safe   string `json:"safe"`
}

// AdoptedKey is a key that a void transfer left in the token of another safe.
type AdoptedKey struct {
	ID     string `json:"id"`
	Record string `json:"record"`
	Root   string `json:"root"`
	Safe   string `json:"safe"` // where it is
}

// Found is a key that a void transfer left in another token, read there again.
type Found struct {
	Arrived []Attribute      `json:"arrived"` // as read by a fresh process
	From    Place            `json:"from"`    // where the charter has it
	Key     anchor.KeyRecord `json:"key"`     // as the charter had it
	Object  string           `json:"object"`  // CKA_ID
	To      Place            `json:"to"`      // where it is
}

func (*Found) entryType() string { return "found" }

// Left is what void ceremonies left and the charter does not know.
type Left struct {
	Epochs []LeftEpoch
	Keys   []LeftKey
}

// LeftEpoch is an epoch with what the void record says of it.
type LeftEpoch struct {
	AdoptedEpoch
	Shares charter.Epoch
	People map[string]*person.Person // its holders, with the keys that signed the receipts
}

// LeftKey is a key with its transfer as the void record tells it.
type LeftKey struct {
	AdoptedKey
	Moved Transferred
}

// Adopts is how an opening entry names it; nil if there is nothing.
func (l *Left) Adopts() *Adopts {
	if len(l.Epochs) == 0 && len(l.Keys) == 0 {
		return nil
	}
	out := &Adopts{Epochs: []AdoptedEpoch{}, Keys: []AdoptedKey{}}
	for i := range l.Epochs {
		out.Epochs = append(out.Epochs, l.Epochs[i].AdoptedEpoch)
	}
	for i := range l.Keys {
		out.Keys = append(out.Keys, l.Keys[i].AdoptedKey)
	}
	return out
}

// Epoch is the last epoch of a safe, the one that opens it.
func (l *Left) Epoch(safe string) (*LeftEpoch, bool) {
	for i := range slices.Backward(l.Epochs) {
		if l.Epochs[i].Safe == safe {
			return &l.Epochs[i], true
		}
	}
	return nil, false
}

// Key is a key that was left elsewhere.
func (l *Left) Key(id string) (*LeftKey, bool) {
	i := slices.IndexFunc(l.Keys, func(k LeftKey) bool { return k.ID == id })
	if i < 0 {
		return nil, false
	}
	return &l.Keys[i], true
}

// Statement is what the charter says of the epoch.
func (e *LeftEpoch) Statement() charter.EpochAdopted {
	return charter.EpochAdopted{Epoch: e.Shares, Record: Origin(e.Record), Root: e.Root}
}

// Statement is what the charter says of the key.
func (k *LeftKey) Statement() charter.KeyAdopted {
	return charter.KeyAdopted{ID: k.ID, Record: Origin(k.Record), Root: k.Root, Safe: k.Safe}
}

// in returns what of it a charter does not know yet, provided that it goes on where
// the charter stands.
func (l *Left) in(s *charter.State) (Left, error) {
	var out Left
	last := map[string]charter.Epoch{}
	for _, e := range l.Epochs {
		now, ok := last[e.Safe]
		if !ok {
			now, ok = s.Epochs[e.Safe]
		}
		if ok && e.Epoch == now.Epoch {
			if same, err := equal(e.Shares, now); err != nil || !same {
				return Left{}, bad("%w: the charter has another epoch %d of safe %s", ErrRecord, e.Epoch, e.Safe)
			}
		}
		if !ok || e.Epoch <= now.Epoch {
			continue // the safe has ended, or was dealt anew since
		}
		x := e.Statement()
		if err := x.Check(&now); err != nil {
			return Left{}, err
		}
		last[e.Safe] = e.Shares
		out.Epochs = append(out.Epochs, e)
	}
	for _, k := range l.Keys {
		_, retired := s.Retired[k.ID]
		if now, ok := s.Keys[k.ID]; ok && !retired && now.Token == k.Moved.From.Token {
			out.Keys = append(out.Keys, k)
		}
	}
	slices.SortStableFunc(out.Epochs, func(a, b LeftEpoch) int { return strings.Compare(a.Safe, b.Safe) })
	slices.SortFunc(out.Keys, func(a, b LeftKey) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Opens is the state s as a ceremony finds it that adopts l: its safes open for the
// shares that void ceremonies dealt. It is for opening only, and never folded on.
func (l *Left) Opens(s *charter.State) *charter.State {
	out := *s
	out.Epochs = maps.Clone(s.Epochs)
	for _, e := range l.Epochs {
		out.Epochs[e.Safe] = e.Shares
	}
	return &out
}

// ofVoid says whether an output is of the void record that this one keeps; a record
// that keeps none has no such outputs.
func (c *checker) ofVoid(path string) bool {
	return c.Open.Base.keepsVoid() && strings.HasPrefix(path, AfterDir+"/")
}

// keepsVoid says whether the record of the void ceremony before lies in this one.
func (b *Base) keepsVoid() bool { return b != nil && (b.Adopts != nil || len(b.Fell) > 0) }

// loadVoidBefore verifies the void record under AfterDir, takes over what it left, and
// who called the incidents that it and those before it fell by; the opening entry must
// have named all of it and nothing else.
func (c *checker) loadVoidBefore(lines []byte, depth int) error {
	if !c.Open.Base.keepsVoid() {
		return nil
	}
	told, fell := c.Open.Base.Adopts, c.Open.Base.Fell
	sub, err := fs.Sub(c.fsys, AfterDir)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "open %s: %w", AfterDir, err)
	}
	v, err := verifyVoid(sub, c.Anchors, lines, depth+1)
	if err != nil {
		return bad("%w: the void record in it: %w", ErrRecord, err)
	}
	if v.Ref() != *c.Open.After {
		return bad("%w: the void record in it is not the one that it follows", ErrRecord)
	}
	if c.left, err = v.Left.in(c.base); err != nil {
		return err
	}
	if same, err := equal(told, c.left.Adopts()); err != nil || !same {
		return bad("%w: it does not adopt what the void record left", ErrRecord)
	}
	// Records of before incidents were told of say nothing of them.
	if fell != nil && !slices.Equal(fell, v.Fell) {
		return bad("%w: it names other incidents of people than the void records in it", ErrRecord)
	}
	c.Fell, c.base = v.Fell, c.left.Opens(c.base)
	return nil
}

// holder is the person behind a share. Of an adopted epoch it is who signed for the
// share with that very key, and a key master of the charter, before the ceremony or
// after it: a void record brings in nobody.
func (c *checker) holder(safe, name string) (*person.Person, error) {
	e, adopted := c.left.Epoch(safe)
	if !adopted {
		m, ok := c.base.People.Person(name)
		if !ok {
			return nil, bad("%.40q has left", name)
		}
		return &m.Person, nil
	}
	p := e.People[name]
	if p == nil {
		return nil, bad("%.40q signed for no share of epoch %d", name, e.Epoch)
	}
	if inForce(c.base, p, charter.RoleKeyMaster) || inForce(c.Charter, p, charter.RoleKeyMaster) {
		return p, nil
	}
	if now := c.People[name]; c.State == "VOID" && c.changesPeople() && now != nil && now.Equal(p) {
		return p, nil // who was to come; no more follows from it than that he opened
	}
	return nil, bad("%.40q is no key master of the charter with the key that signed for the share", name)
}

// changesPeople says whether people come and go by the script.
func (c *checker) changesPeople() bool {
	return slices.ContainsFunc(c.script.Run, func(st scriptStep) bool { return st.Do == "people.change" })
}

// checkAdopted wants the charter to say of every epoch and key that was adopted what
// the void records prove, and of no other, and every key to have been found here.
func (c *checker) checkAdopted() error {
	if c.base == nil {
		return nil
	}
	var epochs, keys []any
	for _, e := range c.left.Epochs {
		if !c.mayAdopt(e.Safe) {
			return bad("%w: the script does not say that safe %s may adopt an epoch", ErrRecord, e.Safe)
		}
		epochs = append(epochs, e.Statement())
	}
	for _, k := range c.left.Keys {
		keys = append(keys, k.Statement())
		f, ok := c.found[k.ID]
		if !ok || !c.proven[k.ID] || !c.leftHome(&Transferred{Key: f.Key, From: f.From, To: f.To}) || f.Object != k.Moved.Object || f.From != k.Moved.From || f.To != k.Moved.To || !slices.Contains(c.gone[f.From], f.Object) {
			return bad("%w: key %s was not found where the void transfer left it, or is still where it was", ErrRecord, k.ID)
		}
	}
	if len(c.found) != len(keys) {
		return bad("%w: %d keys were found, %d were left elsewhere", ErrRecord, len(c.found), len(keys))
	}
	for _, x := range []struct {
		typ  string
		want []any
	}{{charter.TypeEpochAdopted, epochs}, {charter.TypeKeyAdopted, keys}} {
		got, err := c.stated(x.typ)
		if err != nil {
			return err
		}
		if len(got) != len(x.want) {
			return bad("%w: %d statements %s, and %d were left", ErrRecord, len(got), x.typ, len(x.want))
		}
		for i := range got {
			want, err := jcs.Marshal(x.want[i])
			if err != nil {
				return err
			}
			if string(got[i]) != string(want) {
				return bad("%w: statement %s is not what the void record proves", ErrRecord, x.typ)
			}
		}
	}
	return nil
}

// mayAdopt says whether the script lets a safe adopt.
func (c *checker) mayAdopt(safe string) bool {
	for _, x := range c.script.Safes {
		if x.Name == safe {
			return x.Adopts
		}
	}
	return false
}

// stated are the bodies of the new statements of a type, in order.
func (c *checker) stated(typ string) ([]json.RawMessage, error) {
	var out []json.RawMessage
	for i, s := range c.stmts {
		if s.Type != typ {
			continue
		}
		env, err := envelope.Parse(c.lines[c.base.Size()+i])
		if err != nil {
			return nil, err
		}
		var st charter.Statement
		if err := jcs.Unmarshal(env.Payload, &st); err != nil {
			return nil, err
		}
		out = append(out, st.Body)
	}
	return out, nil
}

// foundKey takes a key that was read where a void transfer left it.
func (c *checker) foundKey(f *Found) error {
	if err := f.Key.Check(); err != nil {
		return err
	}
	id := f.Key.ID
	_, twice := c.found[id]
	switch {
	case twice, f.From.Safe == f.To.Safe, f.From.Token == f.To.Token:
		return bad("%w: key %s found twice, or where it was", ErrEntry, id)
	case !opens(c.progress[f.From.Safe]) || !opens(c.progress[f.To.Safe]) || c.tokens[f.From.Safe] != f.From.Token || c.tokens[f.To.Safe] != f.To.Token:
		return bad("%w: key %s found in a safe that is not open", ErrEntry, id)
	}
	c.found[id] = *f
	return shows("key "+id+" where it was found", f.Arrived, "private", arrivedAttributes())
}
