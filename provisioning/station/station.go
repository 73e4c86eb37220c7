// Package station is the factory's side of provisioning: it imports bundles,
// brings devices to life within their quota, counts each one, and reports.
//
// Everything it knows is one ledger (bbolt) of chained events. A unit goes
// RESERVED → INTENT → ISSUED → CONFIRMED or SCRAPPED, one synced transaction
// each, so that a crash anywhere is taken up where it happened: the same serial
// for the same element, the same to-be-signed bytes signed again, the certificate
// sent once more. Serve speaks the birth dialogue with devices; cmd/keyrite-station
// is its only caller. It must never give a serial to a second element, sign before
// the intent is on disk, or take anything but the key from a request.
package station

import (
	"context"
	"crypto"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/succession"
)

// Classes of refusal.
var (
	ErrQuota    = fault.New(fault.Quota, "the quota is spent")
	ErrNoBundle = fault.New(fault.Policy, "no bundle is open")
	ErrUnit     = fault.New(fault.Policy, "unit is not in a state for that")
	ErrKeyUsed  = fault.New(fault.Policy, "the key is another unit's")
	ErrAnchors  = fault.New(fault.Policy, "the station belongs to other anchors")
)

// Settings are what setup fixed.
type Settings struct {
	CA      []byte `json:"ca"` // SubjectPublicKeyInfo of factory-ca, DER
	Factory string `json:"factory"`
	Module  string `json:"module"`
	Report  []byte `json:"report"` // SubjectPublicKeyInfo of report, DER
	// Sandbox is what SetSandbox changes.
	Sandbox     Sandbox `json:"sandbox,omitzero"`
	Station     string  `json:"station"`
	Tag         string  `json:"tag"` // first half of the keys' CKA_ID
	TokenLabel  string  `json:"token_label"`
	TokenSerial string  `json:"token_serial"`
}

// Sandbox is what the PKCS#11 module may use beside what its own configuration names;
// all of it is optional.
type Sandbox struct {
	Folders []string `json:"folders,omitempty"` // absolute, which it writes to
	// PINCounters is the folder for the counter of wrong PINs, absolute.
	PINCounters string   `json:"pin_counters,omitempty"`
	Sockets     []string `json:"sockets,omitempty"` // "unix", or "tcp:PORT"
}

// trust is what the first import fixed, and later ones may continue.
type trust struct {
	Anchors []byte `json:"anchors"` // file
	Charter []byte `json:"charter"` // file
	// Succession is the statement by which keys of the anchors gave way, if any did.
	Succession []byte `json:"succession,omitempty"`
	TimeFloor  string `json:"time_floor"`
}

var keySettings, keyTrust = []byte("settings"), []byte("trust")

// Ids of the station's keys.
const (
	KeyCA     = "factory-ca"
	KeyReport = "report"
)

// Options are what a Station needs from outside.
type Options struct {
	// Signer gives the key KeyCA or KeyReport. Commands that sign nothing leave
	// it nil.
	Signer func(ctx context.Context, id string) (crypto.Signer, error)
	// Clock is time.Now in programs.
	Clock func() time.Time
}

// Station is an open station. It may be used by several goroutines.
type Station struct {
	Settings Settings

	dir    string
	signer func(ctx context.Context, id string) (crypto.Signer, error)
	clock  func() time.Time
	step   func(string) error // a test makes it fail, as a crash would

	mu      sync.Mutex // guards all below; held over a whole step of a unit
	store   *store
	trust   *trust
	anchors *anchor.Anchors // as they were read aloud
	inForce *anchor.Anchors // under the succession statement
	state   *charter.State
	bundles []*open
}

// open is an imported bundle in use.
type open struct {
	imported
	*bundle.Bundle
	ca    *birthcert.Issuer
	grant birthcert.Grant
	used  int64 // units taken, in whatever state
	over  error // why nothing is born under it any more, although it is open
}

// New makes the ledger of a new station.
func New(dir string, set Settings, o Options) (*Station, error) {
	s := &Station{dir: dir, Settings: set, signer: o.Signer, clock: o.Clock, step: func(string) error { return nil }}
	var err error
	if s.store, err = openStore(dir, true, s.now); err != nil {
		return nil, err
	}
	return s, s.store.update(func(tx *bolt.Tx) error { return s.store.put(tx, bucketMeta, keySettings, set) })
}

// Open opens a station and checks its ledger.
func Open(dir string, o Options) (*Station, error) {
	s := &Station{dir: dir, signer: o.Signer, clock: o.Clock, step: func(string) error { return nil }}
	var err error
	if s.store, err = openStore(dir, false, s.now); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		_ = s.store.close()
		return nil, err
	}
	return s, nil
}

// SetSandbox replaces the sandbox of the module, from the next time that the token is
// opened. It is for an HSM that moved to another port, or a module that was updated.
func (s *Station) SetSandbox(x Sandbox) error {
	set := s.Settings
	set.Sandbox = x
	c := set.hsm("", nil)
	if err := c.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.store.update(func(tx *bolt.Tx) error { return s.store.put(tx, bucketMeta, keySettings, set) })
	if err == nil {
		s.Settings = set
	}
	return err
}

// Close gives the ledger free.
func (s *Station) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.close()
}

func (s *Station) load() error {
	return s.store.view(func(tx *bolt.Tx) error {
		set, err := get[Settings](tx, bucketMeta, keySettings)
		if err != nil || set == nil {
			return fault.Hint(fault.Errorf(fault.Verify, "%w: it was not set up to the end", ErrLedger), "remove the state folder and set the station up again; nothing was certified yet")
		}
		s.Settings = *set
		if s.trust, err = get[trust](tx, bucketMeta, keyTrust); err != nil {
			return err
		}
		if s.trust != nil {
			if _, err := s.believe(s.trust.Anchors, s.trust.Charter, nil); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketBundles).ForEach(func(k, _ []byte) error {
			im, err := get[imported](tx, bucketBundles, k)
			if err != nil {
				return err
			}
			return s.use(im)
		}); err != nil {
			return err
		}
		return tx.Bucket(bucketUnits).ForEach(func(k, _ []byte) error {
			u, err := get[Unit](tx, bucketUnits, k)
			if err != nil {
				return err
			}
			for _, b := range s.bundles {
				if b.Seq == u.Seq {
					b.used++
				}
			}
			return nil
		})
	})
}

// believe takes anchors, charter and, beside the statement that is kept, a succession
// statement. It returns the statement in force.
func (s *Station) believe(anchorsFile, charterFile, offered []byte) ([]byte, error) {
	a, err := anchor.Parse(anchorsFile)
	if err != nil {
		return nil, err
	}
	var kept []byte
	if s.trust != nil {
		kept = s.trust.Succession
	}
	statement, inForce, err := succession.Renew(a, kept, offered)
	if err != nil {
		return nil, err
	}
	st, err := charter.Fold(charterFile, a.World, a.Vault)
	if err != nil {
		return nil, err
	}
	s.anchors, s.inForce, s.state = a, inForce, st
	return statement, nil
}

// use takes up an imported bundle. It is verified as it was when it was imported; if a
// key behind it gave way since, its units stay and are reported, and none is added.
func (s *Station) use(im *imported) error {
	_, then, err := succession.Renew(s.anchors, im.Succession, nil)
	if err != nil {
		return err
	}
	b, err := bundle.Verify(im.File, then)
	if err != nil {
		return err
	}
	ca, _, err := b.Chain()
	if err != nil {
		return err
	}
	g, err := b.Grant()
	if err != nil {
		return err
	}
	o := &open{imported: *im, Bundle: b, ca: birthcert.IssuerOf(ca), grant: g}
	s.judge(o)
	s.bundles = append(s.bundles, o)
	return nil
}

// judge holds a bundle against the anchors in force.
func (s *Station) judge(o *open) {
	_, err := bundle.Verify(o.File, s.inForce)
	if o.over = err; err != nil {
		o.over = fault.Hint(fault.Errorf(fault.Policy, "bundle %d was signed by keys that gave way: %w", o.Seq, err), "close it, and import one that headquarters signed with the keys in force")
	}
}

// now is the latest of the clock, every signed time seen and the last event.
func (s *Station) now() time.Time {
	at := s.clock().UTC().Truncate(time.Second)
	if s.trust != nil {
		if floor, err := charter.ParseTime(s.trust.TimeFloor); err == nil && at.Before(floor) {
			at = floor
		}
	}
	if s.store != nil && s.store.at != "" {
		if last, err := charter.ParseTime(s.store.at); err == nil && at.Before(last) {
			at = last
		}
	}
	return at
}

// Anchors is the anchors that the station believes, nil before the first import.
func (s *Station) Anchors() *anchor.Anchors { return s.anchors }

// Import takes a bundle. The first one fixes the anchors; later ones may bring a
// charter that continues the known one, and a succession statement that follows the
// known one. Nothing is written unless all holds.
func (s *Station) Import(file []byte, with Files) (*bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trust != nil && string(s.trust.Anchors) != string(with.Anchors) {
		// Say what is different before saying that something is.
		if a, err := anchor.Parse(with.Anchors); err != nil || a.World != s.anchors.World {
			return nil, fault.Errorf(fault.Policy, "%w: of world %s", ErrAnchors, s.anchors.World)
		}
		return nil, ErrAnchors
	}
	was, wasForce, wasState := s.anchors, s.inForce, s.state
	b, im, err := s.take(file, with, wasState)
	if err != nil {
		s.anchors, s.inForce, s.state = was, wasForce, wasState
		return nil, err
	}
	for _, o := range s.bundles {
		s.judge(o)
	}
	return b, s.use(im)
}

// Files are what a bundle is imported with.
type Files struct {
	Anchors    []byte // file
	Charter    []byte // file
	Succession []byte // statement file; nil keeps the one that is known
}

// take checks and stores what is imported.
func (s *Station) take(file []byte, with Files, before *charter.State) (*bundle.Bundle, *imported, error) {
	statement, err := s.believe(with.Anchors, with.Charter, with.Succession)
	if err != nil {
		return nil, nil, err
	}
	b, err := s.admit(file, before)
	if err != nil {
		return nil, nil, err
	}
	hash, err := b.Hash()
	if err != nil {
		return nil, nil, err
	}
	im := &imported{Closed: []byte{}, File: file, BundleHash: hash, Succession: statement}
	t := &trust{Anchors: with.Anchors, Charter: with.Charter, Succession: statement, TimeFloor: s.raise(b.TimeFloor)}
	err = s.store.update(func(tx *bolt.Tx) error {
		if err := s.store.put(tx, bucketMeta, keyTrust, t); err != nil {
			return err
		}
		return s.store.put(tx, bucketBundles, number(uint64(b.Seq)), im)
	})
	if err != nil {
		return nil, nil, err
	}
	s.trust = t
	return b, im, nil
}

func (s *Station) raise(floor string) string {
	if s.trust != nil && s.trust.TimeFloor > floor { // one form, so order as text is order in time
		return s.trust.TimeFloor
	}
	return floor
}

// admit checks a bundle against everything the station knows.
func (s *Station) admit(file []byte, before *charter.State) (*bundle.Bundle, error) {
	b, err := bundle.Verify(file, s.inForce)
	if err != nil {
		return nil, err
	}
	if before != nil {
		if err := s.state.CheckHead(before.Size(), before.Head()); err != nil {
			return nil, err
		}
	}
	if err := b.CheckStation(s.Settings.Factory, s.Settings.Station); err != nil {
		return nil, err
	}
	if err := b.CheckCharter(s.state); err != nil {
		return nil, err
	}
	ca, _, err := b.Chain()
	if err != nil {
		return nil, err
	}
	if string(ca.RawSubjectPublicKeyInfo) != string(s.Settings.CA) || string(s.state.Stations[s.Settings.Station].ReportKey) != string(s.Settings.Report) {
		return nil, fault.Errorf(fault.Policy, "%w: its CA or report key is not in this station's token", bundle.ErrFactory)
	}
	if b.Assurance == birthcert.EKAttested {
		return nil, fault.New(fault.Policy, "bundle demands attested elements, which this station cannot attest")
	}
	seq, prev := 0, bundle.FirstPrev()
	if n := len(s.bundles); n > 0 {
		seq, prev = s.bundles[n-1].Seq, s.bundles[n-1].BundleHash
	}
	if err := b.CheckFollows(seq, prev); err != nil {
		return nil, err
	}
	for _, have := range s.bundles {
		if overlap(have.Ranges, b.Ranges) {
			return nil, fault.Errorf(fault.Policy, "%w: serials of bundle %d again", bundle.ErrRange, have.Seq)
		}
	}
	at := s.now()
	if floor, err := charter.ParseTime(b.TimeFloor); err == nil && at.Before(floor) {
		at = floor
	}
	return b, b.CheckTime(at)
}

func overlap(a, b []bundle.Range) bool {
	for _, x := range a {
		for _, y := range b {
			if x.From <= y.To && y.From <= x.To {
				return true
			}
		}
	}
	return false
}

// Bundle describes what was imported.
type Bundle struct {
	*bundle.Bundle
	Used   int64
	Closed bool
}

// Bundles returns every bundle, in order.
func (s *Station) Bundles() []Bundle {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Bundle
	for _, b := range s.bundles {
		out = append(out, Bundle{b.Bundle, b.used, len(b.Closed) > 0})
	}
	return out
}

// Units returns every unit, by serial.
func (s *Station) Units() ([]*Unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units(func(*Unit) bool { return true })
}

func (s *Station) units(want func(*Unit) bool) ([]*Unit, error) {
	var out []*Unit
	err := s.store.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketUnits).ForEach(func(k, _ []byte) error {
			u, err := get[Unit](tx, bucketUnits, k)
			if err == nil && want(u) {
				out = append(out, u)
			}
			return err
		})
	})
	slices.SortFunc(out, func(a, b *Unit) int { return cmpSerial(a.DeviceSerial, b.DeviceSerial) })
	return out, err
}

func cmpSerial(a, b birthcert.DeviceSerial) int {
	_, x, err := a.Split()
	_, y, err2 := b.Split()
	if err != nil || err2 != nil || x == y {
		return 0
	}
	if x < y {
		return -1
	}
	return 1
}

// CheckToken checks that the token in reach holds the keys that setup made.
func (s *Station) CheckToken(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, want := range map[string][]byte{KeyCA: s.Settings.CA, KeyReport: s.Settings.Report} {
		k, err := s.signer(ctx, id)
		if err != nil {
			return err
		}
		spki, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil || string(spki) != string(want) {
			return fault.Errorf(fault.Token, "the token holds another key as %s than this station was set up with", id)
		}
	}
	return nil
}
