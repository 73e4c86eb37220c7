// Package succession is the statement by which a key that was lost, compromised
// or retired gives way to another, and a key that was made later becomes known, in
// a field that nobody can touch.
//
// A verifier holds anchors for life. A succession statement, signed in a
// ceremony by the key "succession" of the root token or by its dormant twin,
// says which of the anchored keys have been replaced since, and which keys are
// new. Verify checks it against the anchors, Apply gives the anchors in force. It
// must never be applied without Verify, and never be replaced by one that does not
// Follow it.
//
// One of the two succession keys can put in force only keys that stand dormant
// in the anchors. A key that the anchors do not know takes both, which lie in
// two tokens.
//
// Compatibility: docs/formats/succession.md, version 1 is read for ever.
package succession

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Format names the statement; PayloadType is its DSSE payload type; KeyID is
// the key that signs it.
const (
	Format      = "keyrite/succession/v1"
	PayloadType = "application/vnd.keyrite.succession.v1+json"
	KeyID       = "succession"
)

// MaxBytes bounds a statement file; MaxEntries the replacements in it.
const (
	MaxBytes   = 256 << 10
	MaxEntries = 256
)

// Classes of refusal.
var (
	// ErrStatement says that a statement contradicts itself or the anchors.
	ErrStatement = fault.New(fault.Verify, "succession statement does not hold")
	// ErrOlder says that a later statement was seen already.
	ErrOlder = fault.New(fault.Policy, "an older succession statement than the one in force")
	// ErrNeedsBoth says that one signature is not enough for what it says.
	ErrNeedsBoth = fault.New(fault.Quorum, "a key that the anchors do not know needs both succession keys")
)

var hexRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Entry replaces one key.
type Entry struct {
	From   string           `json:"from"`   // hex SHA-256 of the SubjectPublicKeyInfo of the key replaced
	ID     string           `json:"id"`     // as which it was asked for: "firmware"
	Reason string           `json:"reason"` // one of anchor.Reasons
	To     anchor.KeyRecord `json:"to"`     // from now on in force
}

// Statement is all replacements since the anchors were read aloud, and all keys of
// new roles.
type Statement struct {
	// Added are keys made since for roles that the anchors do not have; each may
	// be replaced later like any other.
	Added []anchor.KeyRecord `json:"added,omitempty"`
	// Certificates of x509 keys that the anchors do not know, DER by key id.
	Certificates map[string][]byte `json:"certificates,omitempty"`
	// Counter is the number of entries, dormant and added keys: it grows with
	// every statement, and nobody can run it up.
	Counter int64 `json:"counter"`
	// Dormant are twins made since, in place of those that were put in force.
	Dormant []anchor.KeyRecord `json:"dormant,omitempty"`
	Entries []Entry            `json:"entries"` // in the order in which they happened
	Format  string             `json:"format"`
	// Prior is the file of the last statement that both succession keys signed,
	// where one of them is enough for this one: it vouches for the keys that
	// the anchors do not know.
	Prior  []byte      `json:"prior,omitempty"`
	Record string      `json:"record"` // id of the ceremony record where it was signed
	Time   string      `json:"time"`   // RFC 3339, UTC, whole seconds
	Vault  string      `json:"vault"`
	World  world.World `json:"world"`

	anchors string // hash of the anchors against which it was verified
	file    []byte
	signers []string
}

// Signers are the keys that signed a verified statement.
func (s *Statement) Signers() []string { return slices.Clone(s.signers) }

// Hash is how an entry names the key that it replaces.
func Hash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// timeFormat is RFC 3339 in UTC with whole seconds.
const timeFormat = "2006-01-02T15:04:05Z"

// New returns the statement that follows prev (nil for the first) with more
// entries and dormant keys. It fills in vault, world, counter and time.
func New(a *anchor.Anchors, prev *Statement, entries []Entry, dormant []anchor.KeyRecord, record string, at time.Time) *Statement {
	s := &Statement{Format: Format, Record: record, Time: at.UTC().Format(timeFormat), Vault: a.Vault, World: a.World}
	if prev != nil {
		s.Entries, s.Dormant, s.Added = slices.Clone(prev.Entries), slices.Clone(prev.Dormant), slices.Clone(prev.Added)
		s.Certificates = maps.Clone(prev.Certificates)
		if s.Prior = prev.Prior; len(prev.signers) > 1 {
			s.Prior = prev.file
		}
	}
	s.Entries, s.Dormant = append(append([]Entry{}, s.Entries...), entries...), append(s.Dormant, dormant...)
	s.Counter = s.count()
	return s
}

// Add brings in keys of roles that the anchors do not have.
func (s *Statement) Add(keys ...anchor.KeyRecord) {
	s.Added = append(s.Added, keys...)
	s.Counter = s.count()
}

// count is what the counter must say.
func (s *Statement) count() int64 { return int64(len(s.Entries) + len(s.Dormant) + len(s.Added)) }

// Certify adds the certificate of a key that the anchors do not know, in DER.
func (s *Statement) Certify(id string, der []byte) {
	if s.Certificates == nil {
		s.Certificates = map[string][]byte{}
	}
	s.Certificates[id] = der
}

// Sign signs the statement with each signer in turn and returns the file. What
// Verify would refuse is not signed.
func (s *Statement) Sign(a *anchor.Anchors, signers ...crypto.Signer) ([]byte, error) {
	if _, err := s.effect(a); err != nil {
		return nil, err
	}
	if len(signers) > 1 {
		s.Prior = nil // two signatures need nobody to vouch for them
	}
	env, err := envelope.SignJSON(PayloadType, s, signers...)
	if err != nil {
		return nil, err
	}
	data, err := env.Marshal()
	if err != nil {
		return nil, err
	}
	_, err = Verify(data, a)
	return data, err
}

// keys are those that may sign: the succession key of the anchors and its twin.
func keys(a *anchor.Anchors) ([]envelope.Key, error) {
	if len(a.Former) > 0 {
		return nil, fault.New(fault.Unexpected, "a succession is verified against the anchors as they were read aloud")
	}
	out, err := a.EnvelopeKeys(KeyID)
	if err != nil {
		return nil, fault.Hint(err, "these anchors name no succession key: their genesis made none, and their keys can only be replaced by new anchors")
	}
	if twin := a.Dormant(KeyID); twin != nil {
		pub, err := twin.Key()
		if err != nil {
			return nil, err
		}
		out = append(out, envelope.Key{Name: twin.ID, Public: pub})
	}
	return out, nil
}

// Verify reads a statement and checks it against the anchors as they were read
// aloud (not against effective ones).
func Verify(data []byte, a *anchor.Anchors) (*Statement, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "%w: %d bytes", ErrStatement, len(data))
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := world.MatchJSON(a.World, env.Payload); err != nil {
		return nil, err
	}
	may, err := keys(a)
	if err != nil {
		return nil, err
	}
	payload, names, err := envelope.Verify(env, PayloadType, may, 1)
	if err != nil {
		return nil, err
	}
	var s Statement
	if err := jcs.Unmarshal(payload, &s); err != nil {
		return nil, err
	}
	if err := world.Match(a.World, s.World); err != nil {
		return nil, err
	}
	if s.Vault != a.Vault {
		return nil, fault.Errorf(fault.Policy, "succession of another vault: %.16s…, not %.16s…", s.Vault, a.Vault)
	}
	if _, err := s.effect(a); err != nil {
		return nil, err
	}
	if err := s.checkSigners(a, names); err != nil {
		return nil, err
	}
	s.signers, s.file = names, bytes.Clone(data)
	s.anchors, err = a.Hash()
	return &s, err
}

// checkSigners refuses a succession key that the statement itself retires, and
// wants both for what the anchors do not know.
func (s *Statement) checkSigners(a *anchor.Anchors, names []string) error {
	for _, e := range s.Entries {
		if e.ID == KeyID && slices.Contains(names, formerName(a, e.From)) {
			return fault.Errorf(fault.Verify, "%w: signed by the succession key that it replaces", ErrStatement)
		}
	}
	known := slices.Clone(a.Successors)
	vouched := 0 // for so many dormant and added keys
	if s.Prior != nil {
		prior, err := Verify(s.Prior, a)
		if err != nil {
			return fault.Errorf(fault.ClassOf(err), "its prior statement: %w", err)
		}
		if len(prior.signers) < 2 || len(names) > 1 {
			return fault.Errorf(fault.Verify, "%w: a prior statement with one signature, or beside two", ErrStatement)
		}
		if err := s.Follow(prior); err != nil {
			return err
		}
		vouched = len(prior.Dormant) + len(prior.Added)
		known = append(known, prior.Dormant...)
		for i := range prior.Entries {
			known = append(known, prior.Entries[i].To)
		}
	}
	if len(names) > 1 || len(s.Dormant)+len(s.Added) == vouched && s.onlyKnown(known) {
		return nil
	}
	return fault.Hint(ErrNeedsBoth, "open both root safes and sign with both, or publish new anchors")
}

func formerName(a *anchor.Anchors, hash string) string {
	for _, list := range [][]anchor.KeyRecord{a.Keys, a.Successors} {
		for i := range list {
			if Hash(list[i].Public) == hash {
				return list[i].ID
			}
		}
	}
	return ""
}

// onlyKnown says whether every key put in force is one of known.
func (s *Statement) onlyKnown(known []anchor.KeyRecord) bool {
	for i := range s.Entries {
		if !slices.ContainsFunc(known, func(k anchor.KeyRecord) bool { return same(&k, &s.Entries[i].To) }) {
			return false
		}
	}
	return true
}

func same(x, y *anchor.KeyRecord) bool {
	a, err := jcs.Marshal(x)
	if err != nil {
		return false
	}
	b, err := jcs.Marshal(y)
	return err == nil && bytes.Equal(a, b)
}

// Apply returns the anchors in force under a verified statement.
func Apply(a *anchor.Anchors, s *Statement) (*anchor.Anchors, error) {
	hash, err := a.Hash()
	if err != nil {
		return nil, err
	}
	if s.anchors != hash {
		return nil, fault.New(fault.Unexpected, "a succession statement is applied that was not verified against these anchors")
	}
	return s.effect(a)
}

// Effective reads an anchors file and, unless it is nil, a succession statement,
// and returns the anchors in force.
func Effective(anchors, statement []byte) (*anchor.Anchors, error) {
	a, err := anchor.Parse(anchors)
	if err != nil || statement == nil {
		return a, err
	}
	s, err := Verify(statement, a)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "succession: %w", err)
	}
	return Apply(a, s)
}

// Renew is for whoever keeps a statement beside the anchors: it returns the statement
// that is in force after another one was offered, and the anchors under it. Either may
// be nil. A statement that does not go further than the one kept is refused, unless it
// is that very one.
func Renew(a *anchor.Anchors, kept, offered []byte) (statement []byte, inForce *anchor.Anchors, err error) {
	var before *Statement
	if kept != nil {
		if before, err = Verify(kept, a); err != nil {
			return nil, nil, fault.Errorf(fault.ClassOf(err), "the succession statement that is kept: %w", err)
		}
	}
	if offered == nil || bytes.Equal(kept, offered) {
		if before == nil {
			return nil, a, nil
		}
		inForce, err = Apply(a, before)
		return kept, inForce, err
	}
	s, err := Verify(offered, a)
	if err == nil {
		err = s.Follow(before)
	}
	if err != nil {
		return nil, nil, fault.Errorf(fault.ClassOf(err), "succession: %w", err)
	}
	inForce, err = Apply(a, s)
	return offered, inForce, err
}

// effect walks the entries over the anchors.
func (s *Statement) effect(a *anchor.Anchors) (*anchor.Anchors, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	out := *a
	for i := range s.Added {
		if k := &s.Added[i]; k.SuccessorOf != "" || len(a.Roles(k.ID)) > 0 {
			return nil, fault.Errorf(fault.Verify, "%w: %.40q is no key of a new role", ErrStatement, k.ID)
		}
	}
	out.Keys, out.Certificates = append(slices.Clone(a.Keys), s.Added...), maps.Clone(a.Certificates)
	out.Successors = append(slices.Clone(a.Successors), s.Dormant...)
	for id, der := range s.Certificates {
		if _, twice := out.Certificates[id]; twice {
			return nil, fault.Errorf(fault.Verify, "%w: certificate %.40q is in the anchors", ErrStatement, id)
		}
		out.Certificates[id] = der
	}
	for i := range s.Entries {
		if err := replace(&out, &s.Entries[i]); err != nil {
			return nil, err
		}
	}
	if err := out.Check(); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrStatement, err)
	}
	return &out, nil
}

// replace takes one key out of force and the next one in.
func replace(a *anchor.Anchors, e *Entry) error {
	i := slices.IndexFunc(a.Keys, func(k anchor.KeyRecord) bool { return k.Role() == e.ID })
	if i < 0 {
		return fault.Errorf(fault.Verify, "%w: no key %.40q is in force", ErrStatement, e.ID)
	}
	old := a.Keys[i]
	if Hash(old.Public) != e.From {
		return fault.Errorf(fault.Verify, "%w: another key %s is in force than the one it replaces", ErrStatement, e.ID)
	}
	if e.To.SuccessorOf != e.ID || e.To.Domain != old.Domain || e.To.Algorithm != old.Algorithm {
		return fault.Errorf(fault.Verify, "%w: %.40q is no successor of %s", ErrStatement, e.To.ID, e.ID)
	}
	if old.Domain == "x509" && a.Certificates[old.ID] != nil && a.Certificates[e.To.ID] == nil {
		return fault.Errorf(fault.Verify, "%w: %s has no certificate", ErrStatement, e.To.ID)
	}
	a.Keys[i] = e.To
	a.Successors = slices.DeleteFunc(a.Successors, func(k anchor.KeyRecord) bool { return same(&k, &e.To) })
	a.Former = append(slices.Clone(a.Former), anchor.Former{Key: old, Reason: e.Reason})
	return nil
}

// check validates the members by themselves.
func (s *Statement) check() error {
	at, err := time.Parse(timeFormat, s.Time)
	switch {
	case s.Format != Format, err != nil, at.UTC().Format(timeFormat) != s.Time, s.Record == "" || len(s.Record) > 64:
		return fault.Errorf(fault.Verify, "%w: format, time or record", ErrStatement)
	case s.Entries == nil || len(s.Entries)+len(s.Added) == 0 || s.count() > MaxEntries:
		return fault.Errorf(fault.Verify, "%w: %d entries", ErrStatement, s.count())
	case s.Counter != s.count():
		return fault.Errorf(fault.Verify, "%w: it counts %d, and says %d things", ErrStatement, s.Counter, s.count())
	}
	for i := range s.Entries {
		e := &s.Entries[i]
		if !hexRE.MatchString(e.From) || !slices.Contains(anchor.Reasons(), e.Reason) {
			return fault.Errorf(fault.Verify, "%w: entry %d", ErrStatement, i)
		}
	}
	return nil
}

// Follow checks that s may take the place of prev: it counts further and takes
// nothing back. The very same statement is ErrOlder too.
func (s *Statement) Follow(prev *Statement) error {
	if prev == nil {
		return nil
	}
	if s.Counter <= prev.Counter {
		return fault.Errorf(fault.Policy, "%w: %d, and %d is in force", ErrOlder, s.Counter, prev.Counter)
	}
	mine, err := history(s, prev)
	if err != nil {
		return err
	}
	theirs, err := history(prev, prev)
	if err != nil {
		return err
	}
	if !bytes.Equal(mine, theirs) {
		return fault.Errorf(fault.Verify, "%w: it takes back what an earlier one said", ErrStatement)
	}
	return nil
}

// history is what a statement says in its first entries, dormant and added keys, as
// many of each as of has; nil if it does not have so many.
func history(s, of *Statement) ([]byte, error) {
	entries, dormant, added := len(of.Entries), len(of.Dormant), len(of.Added)
	if len(s.Entries) < entries || len(s.Dormant) < dormant || len(s.Added) < added {
		return nil, nil
	}
	return jcs.Marshal(struct {
		A []anchor.KeyRecord `json:"a"`
		D []anchor.KeyRecord `json:"d"`
		E []Entry            `json:"e"`
	}{append([]anchor.KeyRecord{}, s.Added[:added]...), append([]anchor.KeyRecord{}, s.Dormant[:dormant]...), append([]Entry{}, s.Entries[:entries]...)})
}
