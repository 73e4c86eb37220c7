package charter

import (
	"bytes"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

// MaxStatements bounds a log.
const MaxStatements = 100_000

// State is what the statements so far amount to.
type State struct {
	Genesis   Genesis
	People    People // in force; the genesis has only the first
	Vault     string
	World     world.World
	Epochs    map[string]Epoch            // in force, by safe
	Keys      map[string]anchor.KeyRecord // by id, all that were ever admitted; see Key
	Retired   map[string]KeyRetired       // by key id
	Receivers map[string]Receiver         // the last one of each safe
	Pipelines map[string]Pipeline
	Factories map[string]Factory
	Stations  map[string]Station
	Relays    map[string]Relay
	Access    Access              // who may ask the vault for what
	Floors    map[string]Floor    // by product
	KV        map[string]KVConfig // by mount; see KVConfig for those without one
	// VendorRoots are the makers whose attestations count, by id; see AttestationRoots.
	VendorRoots map[string]VendorRoot
	TokenRoles  map[string]TokenRole      // by At
	Passwords   map[string]PasswordPolicy // by At
	Transit     map[string]TransitKey     // keys of transit engines, by At
	PKIRoles    map[string]PKIRole        // by At
	Releases    Releases                  // what keys may sign beside statements of ours
	Reminders   map[string]Reminder       // who is told what has to be done next
	Audit       Audit                     // who signs the vault's trail, and who gets copies
	Grants      Grants                    // what is given for a while

	successor  map[string]string         // id → the dormant key that took it over
	pkiIssuers map[string][]byte         // by mount: the first and only one
	lines      map[string][]string       // id → all that ever took it over, in order
	former     map[string]string         // key id → name, of people once in the roster
	gone       []string                  // safes retired, in order
	left       map[string][]anchor.Token // by key id: tokens that it moved out of
	adopted    map[string]int            // epochs taken over from void ceremonies, by safe
	dealt      map[string][]Epoch        // all that a safe has and had, in order
	dealtAt    map[string]time.Time      // when the epoch in force was stated, by safe; not of an adopted one
	tree       tlog.Tree
	last       time.Time
	now        time.Time // of the statement that is being folded in
}

// Fold reads a charter file (one envelope a line) and returns its state. The
// log must belong to world w and vault, the ids that the reader's anchors name.
func Fold(data []byte, w world.World, vault string) (*State, error) {
	if len(data) == 0 || data[len(data)-1] != '\n' {
		return nil, fault.Errorf(fault.Verify, "%w: the file is empty or cut off", ErrChain)
	}
	return (&State{}).continued(data, w, vault)
}

// continued folds whole lines in.
func (s *State) continued(lines []byte, w world.World, vault string) (*State, error) {
	for line := range bytes.Lines(lines) {
		if err := s.Apply(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "charter entry %d: %w", s.tree.Size(), err)
		}
		if s.tree.Size() == 1 {
			if err := world.Match(w, s.World); err != nil {
				return nil, err
			}
			if s.Vault != vault {
				return nil, fault.Errorf(fault.Policy, "%w: %.16s…, not %.16s…", ErrVault, s.Vault, vault)
			}
		}
	}
	return s, nil
}

// Size is the number of statements.
func (s *State) Size() int { return int(s.tree.Size()) }

// Head is the hex tree root over all lines.
func (s *State) Head() string { return tlog.Hex(s.tree.Root()) }

// Epoch returns the shares in force of a safe and its token. A safe that the
// charter does not know is an error of class policy that names those it does.
func (s *State) Epoch(safe string) (Epoch, error) {
	e, ok := s.Epochs[safe]
	if !ok {
		return e, fault.Hint(fault.Errorf(fault.Policy, "the charter knows no safe %.40q", safe), "its safes are: "+strings.Join(slices.Sorted(maps.Keys(s.Epochs)), ", "))
	}
	return e, nil
}

// EpochAt returns an epoch that a safe has or had, by its number. One that is not in
// force opens no token; it may still be needed for what was sealed under it.
func (s *State) EpochAt(safe string, epoch int) (Epoch, error) {
	for _, e := range s.dealt[safe] {
		if e.Epoch == epoch {
			return e, nil
		}
	}
	return Epoch{}, fault.Errorf(fault.Policy, "the charter knows no epoch %d of safe %.40q", epoch, safe)
}

// Newest is the number of the newest epoch that a safe has or had, 0 if it was never
// dealt.
func (s *State) Newest(safe string) int {
	d := s.dealt[safe]
	if len(d) == 0 {
		return 0
	}
	return d[len(d)-1].Epoch
}

// CheckHead checks that this log, when it had size statements, had that head:
// that it continues the log that somebody else read.
func (s *State) CheckHead(size int, head string) error {
	if size < 1 || size > s.Size() {
		return fault.Errorf(fault.Policy, "charter has %d statements, and this was made under one with %d", s.Size(), size)
	}
	h, err := s.tree.RootAt(int64(size))
	if err != nil {
		return err
	}
	if tlog.Hex(h) != head {
		return fault.Errorf(fault.Verify, "%w: another log of %d statements", ErrChain, size)
	}
	return nil
}

func (s *State) prev() string {
	if s.tree.Size() == 0 {
		return strings.Repeat("0", 64)
	}
	return s.Head()
}

// Propose returns the payload of the next statement, to be signed.
func (s *State) Propose(typ string, body any, at time.Time) ([]byte, error) {
	b, err := jcs.Marshal(body)
	if err != nil {
		return nil, err
	}
	st := Statement{Body: b, Format: Format, Prev: s.prev(), Seq: s.Size(), Time: FormatTime(at), Type: typ, Vault: s.Vault, World: s.World}
	if g, ok := body.(*Genesis); ok {
		if st.Vault, err = g.VaultID(); err != nil {
			return nil, err
		}
		st.World = g.World
	}
	return jcs.Marshal(st)
}

// Apply checks one line and folds it in. After an error the state is useless.
func (s *State) Apply(line []byte) error {
	if s.tree.Size() >= MaxStatements {
		return fault.Errorf(fault.Verify, "%w: more than %d statements", ErrChain, MaxStatements)
	}
	env, err := envelope.Parse(line)
	if err != nil {
		return err
	}
	var st Statement
	if err := jcs.Unmarshal(env.Payload, &st); err != nil {
		return err
	}
	at, err := s.checkPlace(&st)
	if err != nil {
		return err
	}
	if st.Type == TypeGenesis {
		err = s.found(&st, env)
	} else {
		err = s.decide(&st, env)
	}
	if err != nil {
		return err
	}
	s.last = at
	return s.tree.Append(line)
}

func (s *State) checkPlace(st *Statement) (time.Time, error) {
	at, err := ParseTime(st.Time)
	if err != nil {
		return at, err
	}
	first := s.tree.Size() == 0
	switch {
	case st.Format != Format:
		err = fault.Errorf(fault.Verify, "%w: format %.40q", ErrStatement, st.Format)
	case st.Seq != s.Size(), st.Prev != s.prev():
		err = fault.Hint(fault.Errorf(fault.Verify, "%w: it is statement %d of another copy than this one of %d statements", ErrChain, st.Seq, s.Size()),
			"take the newest charter; what was proposed before another statement came into force is proposed anew")
	case first != (st.Type == TypeGenesis), at.Before(s.last):
		err = ErrChain
	case !first && st.Vault != s.Vault:
		err = ErrVault
	case !first:
		err = world.Match(s.World, st.World)
	}
	s.now = at
	return at, err
}

// found takes the genesis statement, signed by everybody it names.
func (s *State) found(st *Statement, env *envelope.Envelope) error {
	g := &s.Genesis
	if err := jcs.Unmarshal(st.Body, g); err != nil {
		return err
	}
	if err := g.Check(); err != nil {
		return err
	}
	id, err := g.VaultID()
	if err != nil {
		return err
	}
	if st.Vault != id || st.World != g.World {
		return fault.Errorf(fault.Verify, "%w: vault id or world does not follow from the genesis", ErrStatement)
	}
	var keys []envelope.Key
	for _, m := range g.Roster {
		keys = append(keys, envelope.Key{Name: m.Person.Name, Public: m.Person.PublicKey()})
	}
	if _, _, err := envelope.Verify(env, PayloadType, keys, len(keys)); err != nil {
		return err
	}
	s.Vault, s.World, s.People = id, g.World, g.People
	s.Receivers, s.Access = map[string]Receiver{}, newAccess()
	s.Releases = newReleases()
	s.Floors, s.KV = map[string]Floor{}, map[string]KVConfig{}
	s.PKIRoles, s.pkiIssuers = map[string]PKIRole{}, map[string][]byte{}
	s.TokenRoles, s.Passwords = map[string]TokenRole{}, map[string]PasswordPolicy{}
	s.Transit, s.lines = map[string]TransitKey{}, map[string][]string{}
	s.Reminders = map[string]Reminder{}
	s.Audit.Sinks, s.Grants = map[string]AuditSink{}, newGrants()
	s.Retired, s.successor, s.former = map[string]KeyRetired{}, map[string]string{}, map[string]string{}
	s.left = map[string][]anchor.Token{}
	s.adopted, s.VendorRoots = map[string]int{}, map[string]VendorRoot{}
	s.dealtAt = map[string]time.Time{}
	s.Epochs, s.Keys, s.Pipelines = map[string]Epoch{}, map[string]anchor.KeyRecord{}, map[string]Pipeline{}
	s.Factories, s.Stations, s.Relays = map[string]Factory{}, map[string]Station{}, map[string]Relay{}
	return nil
}

// decide takes any later statement, signed by those in force who decide on its type.
func (s *State) decide(st *Statement, env *envelope.Envelope) error {
	if st.Type == TypePeople {
		return decode(st, func(p *People) error { return s.changePeople(p, env) })
	}
	set, err := s.Deciding(st)
	if err != nil {
		return err
	}
	if _, _, err := envelope.Verify(env, PayloadType, s.People.Keys(set), set.Need); err != nil {
		return err
	}
	return deciders()[st.Type](s, st)
}

// deciders fold each type of statement.
func deciders() map[string]func(*State, *Statement) error {
	return map[string]func(*State, *Statement) error{
		TypeEpoch:       decider((*State).addEpoch),
		TypeKey:         decider((*State).admit),
		TypePipeline:    decider((*State).addPipeline),
		TypeFactory:     decider((*State).addFactory),
		TypeStation:     decider((*State).addStation),
		TypeRelay:       decider((*State).addRelay),
		TypeKeyRetired:  decider((*State).retireKey),
		TypeSuccessor:   decider((*State).succeed),
		TypeReceiver:    decider((*State).addReceiver),
		TypeKeyMoved:    decider((*State).moveKey),
		TypeSafeRetired: decider((*State).retireSafe),
		TypeMount:       decider((*State).addMount),
		TypePolicy:      decider((*State).addPolicy),
		TypeIdentity:    decider((*State).addIdentity),

		TypeCertificateRevoked: decider((*State).revokeCertificate),
		TypeAccessEnded:        decider((*State).endAccess),
		TypeHost:               decider((*State).addHost),
		TypeVendorRoot:         decider((*State).addVendorRoot),
		TypePasswordPolicy:     decider((*State).addPasswordPolicy),
		TypeTokenRole:          decider((*State).addTokenRole),
		TypeTransitKey:         decider((*State).addTransitKey),
		TypePKIRole:            decider((*State).addPKIRole),
		TypeReleaseApproved:    (*State).approveRelease,
		TypeFloor:              decider((*State).raise),
		TypeKVConfig:           decider((*State).configureKV),
		TypeAuditLog:           decider((*State).setAuditLog),
		TypeAuditSink:          decider((*State).addAuditSink),
		TypeReminder:           decider((*State).addReminder),

		TypeDelegation:       decider((*State).delegate),
		TypeUnattended:       decider((*State).addUnattended),
		TypeBreakGlass:       decider((*State).addBreakGlass),
		TypeBreakGlassPulled: decider((*State).pull),
		TypeBreakGlassEnded:  decider((*State).endPull),

		TypeEpochAdopted: decider((*State).adoptEpoch),
		TypeKeyAdopted:   decider((*State).adoptKey),
	}
}

func decider[T any](take func(*State, *T) error) func(*State, *Statement) error {
	return func(s *State, st *Statement) error {
		return decode(st, func(v *T) error { return take(s, v) })
	}
}

func (s *State) addPipeline(p *Pipeline) error {
	if len(p.Products) == 0 || slices.ContainsFunc(p.Products, func(x string) bool { return !idRE.MatchString(x) }) {
		return fault.Errorf(fault.Verify, "%w: a pipeline names its products, each an id", ErrStatement)
	}
	if err := checkSPKI(p.Key); err != nil {
		return err
	}
	return put(s.Pipelines, p.ID, *p)
}

func (s *State) addStation(x *Station) error {
	if _, ok := s.Factories[x.Factory]; !ok {
		return fault.Errorf(fault.Verify, "%w: station of unknown factory %.40q", ErrStatement, x.Factory)
	}
	if err := checkSPKI(x.ReportKey); err != nil {
		return err
	}
	return put(s.Stations, x.ID, *x)
}

func (s *State) addRelay(r *Relay) error {
	if r.Role != "access" && r.Role != "vpn" {
		return fault.Errorf(fault.Verify, "%w: relay role %.40q", ErrStatement, r.Role)
	}
	if _, err := x509.ParseCertificate(r.Certificate); err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrStatement, err)
	}
	return put(s.Relays, r.ID, *r)
}

// addEpoch takes the shares of a safe: one for each opener, in order, all
// different and new, in an epoch that follows the one before in the same token.
func (s *State) addEpoch(e *Epoch) error {
	safe, ok := s.People.Safe(e.Safe)
	before, again := s.Epochs[e.Safe]
	if !ok || e.Epoch != before.Epoch+1 || e.Token.Label == "" || e.Token.Serial == "" || again && e.Token != before.Token {
		return fault.Errorf(fault.Verify, "%w: epoch of safe %.40q", ErrStatement, e.Safe)
	}
	if err := checkShares(e, safe); err != nil {
		return err
	}
	if err := unlike(e, &before); err != nil {
		return err
	}
	s.deal(e)
	s.dealtAt[e.Safe] = s.now
	return nil
}

// DealtAt is when the epoch of a safe that is in force was stated, which is done when
// every holder has read his share back and signed for it. It is the zero time for an
// epoch that was adopted from a void ceremony: who read what there is not said here.
func (s *State) DealtAt(safe string) time.Time { return s.dealtAt[safe] }

// deal puts an epoch in force.
func (s *State) deal(e *Epoch) {
	if s.dealt == nil {
		s.dealt = map[string][]Epoch{}
	}
	delete(s.dealtAt, e.Safe)
	s.Epochs[e.Safe], s.dealt[e.Safe] = *e, append(s.dealt[e.Safe], *e)
}

// unlike wants no share of the epoch before in e.
func unlike(e, before *Epoch) error {
	for _, have := range before.Shares {
		for _, sh := range e.Shares {
			if sh.Public.Equal(have.Public) {
				return fault.Errorf(fault.Verify, "%w: epoch %d of safe %s has a share of the one before", ErrStatement, e.Epoch, e.Safe)
			}
		}
	}
	return nil
}

// checkShares wants one share for each opener, in order, all different.
func checkShares(e *Epoch, safe *Safe) error {
	if e.Need != safe.Openers.Need || len(e.Shares) != len(safe.Openers.Members) {
		return fault.Errorf(fault.Verify, "%w: epoch %d of safe %s is not for its openers", ErrStatement, e.Epoch, e.Safe)
	}
	seen := map[string]bool{}
	for i, sh := range e.Shares {
		if sh.Index != i+1 || sh.Holder != safe.Openers.Members[i] || envelope.CheckKey(sh.Public) != nil || seen[string(sh.Public)] {
			return fault.Errorf(fault.Verify, "%w: share %d of safe %s", ErrStatement, i+1, e.Safe)
		}
		seen[string(sh.Public)] = true
	}
	return nil
}

func (s *State) addFactory(f *Factory) error {
	if f.SerialFrom < 1 || f.SerialTo < f.SerialFrom || !idRE.MatchString(f.Product) || f.Evidence == "" {
		return fault.Errorf(fault.Verify, "%w: factory %.40q without product, serial range or evidence", ErrStatement, f.ID)
	}
	if _, err := x509.ParseCertificate(f.CA); err != nil {
		return fault.Errorf(fault.Verify, "%w: factory CA: %w", ErrStatement, err)
	}
	for _, o := range s.Factories {
		if o.Product == f.Product && o.SerialFrom <= f.SerialTo && f.SerialFrom <= o.SerialTo {
			return fault.Errorf(fault.Verify, "%w: serial range of %.40q overlaps that of %s", ErrStatement, f.ID, o.ID)
		}
	}
	return put(s.Factories, f.ID, *f)
}

func decode[T any](st *Statement, then func(*T) error) error {
	var v T
	if err := jcs.Unmarshal(st.Body, &v); err != nil {
		return err
	}
	return then(&v)
}

func put[T any](m map[string]T, id string, v T) error {
	if _, ok := m[id]; ok || !idRE.MatchString(id) {
		return fault.Errorf(fault.Verify, "%w: id %.40q is taken or not an id", ErrStatement, id)
	}
	m[id] = v
	return nil
}
