// Package bundle owns the provisioning bundle: the permission that headquarters
// gives to one factory to make so many devices, of one product line, within
// given serials and until a given day.
//
// Headquarters (provisioning/export) makes one and has it signed by both
// provisioning keys; the station and anybody else call Verify. It is readable
// and holds no secret: all keys are born where they stay. It must never be
// usable twice: the sequence and previous hash of a factory's bundles leave one
// successor for each, which CheckFollows demands.
//
// Compatibility: docs/formats/bundle.md, version 1 is read for ever.
package bundle

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Format names the payload; PayloadType is its DSSE payload type.
const (
	Format      = "keyrite/bundle/v1"
	PayloadType = "application/vnd.keyrite.bundle.v1+json"
)

// Need is the number of provisioning keys that sign a bundle: all of SignerIDs.
const Need = 2

// SignerIDs are the ids of the keys that sign bundles.
func SignerIDs() []string { return []string{"provision-a", "provision-b"} }

// MaxQuota bounds the devices of one bundle, so that a report with every
// certificate stays well below the size that a reader accepts.
const MaxQuota = 5000

// MaxDays bounds the validity of a bundle: a lost one must not be good for ever.
const MaxDays = 366

var (
	// ErrBundle says that a bundle contradicts itself.
	ErrBundle = fault.New(fault.Verify, "bundle is not valid")
	// ErrFactory says that a bundle is not for this factory or station.
	ErrFactory = fault.New(fault.Policy, "bundle is for another factory or station")
	// ErrProduct says that a bundle is for another product line.
	ErrProduct = fault.New(fault.Policy, "bundle is for another product line")
	// ErrExpired says that a bundle is not valid at this time.
	ErrExpired = fault.New(fault.Policy, "bundle is not valid at this time")
	// ErrSequence says that a bundle is not the next one.
	ErrSequence = fault.New(fault.Policy, "bundle is not the next one of this factory")
	// ErrRange says that serials lie outside what the charter grants.
	ErrRange = fault.New(fault.Policy, "serials are outside the factory's range")

	hexRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	bidRE = regexp.MustCompile(`^[0-9a-f]{32}$`)
	idRE  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	hwRE  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$`)
)

// Range is a range of device numbers, both ends included.
type Range struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// Charter says which charter headquarters had before it.
type Charter struct {
	Head string `json:"head"` // hex tree root
	Size int    `json:"size"` // statements
}

// Bundle is the payload.
type Bundle struct {
	Assurance birthcert.Assurance `json:"assurance"` // the least that a device must have
	BundleID  string              `json:"bundle_id"` // 32 hex digits, random
	CAChain   [][]byte            `json:"ca_chain"`  // DER: factory CA, birth root
	Charter   Charter             `json:"charter"`
	Factory   string              `json:"factory"`
	Firmware  string              `json:"firmware"` // hex SHA-256 of the image to load; empty if none
	Format    string              `json:"format"`
	Hardware  string              `json:"hardware"`
	NotAfter  string              `json:"not_after"`
	NotBefore string              `json:"not_before"`
	Prev      string              `json:"prev"` // Hash of the factory's bundle before; 64 zeros for the first
	Product   string              `json:"product"`
	Profile   string              `json:"profile"` // birthcert.ProfileHash of the device profile
	Quota     int64               `json:"quota"`   // devices, at most the serials in Ranges
	Ranges    []Range             `json:"ranges"`  // ascending, disjoint
	Seq       int                 `json:"seq"`     // from 1, for each factory
	Stations  []string            `json:"stations"`
	TimeFloor string              `json:"time_floor"` // it is later than this
	Vault     string              `json:"vault"`
	World     world.World         `json:"world"`
}

// NewID returns a random bundle id.
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// FirstPrev is Prev of a factory's first bundle.
func FirstPrev() string { return strings.Repeat("0", 64) }

// Marshal returns the payload to sign.
func (b *Bundle) Marshal() ([]byte, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	return jcs.Marshal(b)
}

// Sign returns the file of b under the provisioning keys.
func Sign(b *Bundle, keys ...crypto.Signer) ([]byte, error) {
	payload, err := b.Marshal()
	if err != nil {
		return nil, err
	}
	env, err := envelope.Sign(PayloadType, payload, keys...)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// Hash is the hex SHA-256 of the payload. The envelope is not hashed, since an
// ECDSA signature can be written in more than one way.
func (b *Bundle) Hash() (string, error) {
	p, err := jcs.Marshal(b)
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:]), err
}

func bad(format string, args ...any) error {
	return fault.Errorf(fault.Verify, "%w: "+format, append([]any{ErrBundle}, args...)...)
}

// Check validates every member by itself.
func (b *Bundle) Check() error {
	if b.Format != Format {
		return bad("format %.40q", b.Format)
	}
	if err := b.World.Check(); err != nil {
		return err
	}
	profile, err := birthcert.ProfileHash(birthcert.Device)
	if err != nil {
		return err
	}
	switch {
	case !hexRE.MatchString(b.Vault), !hexRE.MatchString(b.Charter.Head), b.Charter.Size < 1:
		return bad("vault or charter")
	case !bidRE.MatchString(b.BundleID):
		return bad("bundle id")
	case !idRE.MatchString(b.Factory), !idRE.MatchString(b.Product), !hwRE.MatchString(b.Hardware):
		return bad("factory, product or hardware")
	case b.Firmware != "" && !hexRE.MatchString(b.Firmware):
		return bad("firmware digest")
	case b.Profile != profile:
		return bad("unknown certificate profile %.16q", b.Profile)
	case b.Assurance != birthcert.EKAttested && b.Assurance != birthcert.Unattested:
		return bad("assurance %.40q", string(b.Assurance))
	case len(b.CAChain) != 2:
		return bad("CA chain has %d certificates, not 2", len(b.CAChain))
	case b.Seq < 1, !hexRE.MatchString(b.Prev), (b.Seq == 1) != (b.Prev == FirstPrev()):
		return bad("sequence")
	}
	if err := b.checkStations(); err != nil {
		return err
	}
	if err := b.checkQuota(); err != nil {
		return err
	}
	return b.checkTimes()
}

func (b *Bundle) checkStations() error {
	if len(b.Stations) == 0 || !slices.IsSorted(b.Stations) || len(slices.Compact(slices.Clone(b.Stations))) != len(b.Stations) {
		return bad("stations are not a sorted list without repetition")
	}
	for _, s := range b.Stations {
		if !idRE.MatchString(s) {
			return bad("station %.40q", s)
		}
	}
	// Each of two stations would count for itself; until a bundle splits its
	// quota among them it names one.
	if len(b.Stations) > 1 {
		return bad("a bundle names one station")
	}
	return nil
}

func (b *Bundle) checkQuota() error {
	var sum, last int64
	for _, r := range b.Ranges {
		if r.From <= last || r.To < r.From || r.To > birthcert.MaxNumber {
			return bad("serial ranges are not ascending and disjoint")
		}
		sum, last = sum+r.To-r.From+1, r.To
	}
	if b.Quota < 1 || b.Quota > sum || b.Quota > MaxQuota {
		return bad("quota %d with %d serials (at most %d)", b.Quota, sum, MaxQuota)
	}
	return nil
}

func (b *Bundle) checkTimes() error {
	from, err1 := charter.ParseTime(b.NotBefore)
	to, err2 := charter.ParseTime(b.NotAfter)
	floor, err3 := charter.ParseTime(b.TimeFloor)
	if err1 != nil || err2 != nil || err3 != nil || !to.After(from) || to.Sub(from) > MaxDays*24*time.Hour || floor.After(to) {
		return bad("validity is empty, longer than %d days or not a time", MaxDays)
	}
	return nil
}

// Parse reads the envelope's payload without checking a signature: only for
// showing a file, never for acting on it.
func Parse(data []byte) (*Bundle, *envelope.Envelope, error) {
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, nil, err
	}
	b, err := decode(env.Payload)
	return b, env, err
}

func decode(payload []byte) (*Bundle, error) {
	var b Bundle
	if err := jcs.Unmarshal(payload, &b); err != nil {
		return nil, err
	}
	return &b, b.Check()
}

// Verify reads a bundle file and checks it against the anchors: both
// provisioning keys signed, it is of this world and vault, and its factory CA is
// certified by the birth root for the serials that it gives out.
func Verify(data []byte, a *anchor.Anchors) (*Bundle, error) {
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := world.MatchJSON(a.World, env.Payload); err != nil {
		return nil, err
	}
	keys, err := a.EnvelopeKeys(SignerIDs()...)
	if err != nil {
		return nil, err
	}
	payload, _, err := envelope.Verify(env, PayloadType, keys, Need)
	if err != nil {
		return nil, err
	}
	b, err := decode(payload)
	if err != nil {
		return nil, err
	}
	if err := world.Match(a.World, b.World); err != nil {
		return nil, err
	}
	if b.Vault != a.Vault {
		return nil, fault.Errorf(fault.Policy, "%w: %.16s…, not %.16s…", charter.ErrVault, b.Vault, a.Vault)
	}
	return b, b.checkChain(a)
}

// Grant is the grant of the factory CA in the bundle. Call it after Verify.
func (b *Bundle) Grant() (birthcert.Grant, error) {
	ca, root, err := b.Chain()
	if err != nil {
		return birthcert.Grant{}, err
	}
	t, err := birthcert.Read(ca, birthcert.FactoryCA, root)
	if err != nil {
		return birthcert.Grant{}, err
	}
	return t.Grant, nil
}

// Chain returns factory CA and birth root.
func (b *Bundle) Chain() (ca, root *x509.Certificate, err error) {
	if len(b.CAChain) != 2 {
		return nil, nil, bad("CA chain")
	}
	if ca, err = birthcert.Parse(b.CAChain[0]); err != nil {
		return nil, nil, err
	}
	root, err = birthcert.Parse(b.CAChain[1])
	return ca, root, err
}

func (b *Bundle) checkChain(a *anchor.Anchors) error {
	ca, root, err := b.Chain()
	if err != nil {
		return err
	}
	want, err := a.Certificate("birth-root")
	if err != nil {
		return err
	}
	if !want.Equal(root) {
		return bad("CA chain does not end in the birth root of the anchors")
	}
	g, err := b.Grant()
	if err != nil {
		return err
	}
	if err := birthcert.CheckFactoryCA(ca, root, g); err != nil {
		return err
	}
	return b.checkGrant(g)
}

func (b *Bundle) checkGrant(g birthcert.Grant) error {
	if b.Factory != g.Factory {
		return fault.Errorf(fault.Policy, "%w: %s, and its CA is of %s", ErrFactory, b.Factory, g.Factory)
	}
	if b.Product != g.Product {
		return fault.Errorf(fault.Policy, "%w: %s, and its CA is for %s", ErrProduct, b.Product, g.Product)
	}
	for _, r := range b.Ranges {
		if r.From < g.SerialFrom || r.To > g.SerialTo {
			return fault.Errorf(fault.Policy, "%w: %d to %d is not in %d to %d", ErrRange, r.From, r.To, g.SerialFrom, g.SerialTo)
		}
	}
	return nil
}

// CheckCharter checks a verified bundle against the charter: factory and
// stations are known, the CA is the one recorded, and the charter here is the
// one that headquarters had, or continues it.
func (b *Bundle) CheckCharter(s *charter.State) error {
	if err := s.CheckHead(b.Charter.Size, b.Charter.Head); err != nil {
		return err
	}
	g, ca, err := GrantOf(s, b.Factory)
	if err != nil {
		return err
	}
	if string(ca) != string(b.CAChain[0]) {
		return fault.Errorf(fault.Policy, "%w: the charter has another CA for %s", birthcert.ErrGrant, b.Factory)
	}
	for _, id := range b.Stations {
		if st, ok := s.Stations[id]; !ok || st.Factory != b.Factory {
			return fault.Errorf(fault.Policy, "%w: the charter has no station %s of %s", ErrFactory, id, b.Factory)
		}
	}
	return b.checkGrant(g)
}

// GrantOf returns what the charter grants to a factory, and its CA certificate.
func GrantOf(s *charter.State, factory string) (birthcert.Grant, []byte, error) {
	f, ok := s.Factories[factory]
	if !ok {
		return birthcert.Grant{}, nil, fault.Errorf(fault.Policy, "%w: factory %.40q", charter.ErrUnknown, factory)
	}
	g := birthcert.Grant{Factory: f.ID, Product: f.Product, SerialFrom: f.SerialFrom, SerialTo: f.SerialTo}
	return g, f.CA, nil
}

// CheckStation checks that the bundle is for this factory and station.
func (b *Bundle) CheckStation(factory, station string) error {
	if b.Factory != factory || !slices.Contains(b.Stations, station) {
		return fault.Errorf(fault.Policy, "%w: it names %s/%s, this is %s/%s", ErrFactory, b.Factory, strings.Join(b.Stations, ","), factory, station)
	}
	return nil
}

// CheckTime checks the validity at the given time, which is the later of the
// clock and every signed time seen.
func (b *Bundle) CheckTime(at time.Time) error {
	from, err1 := charter.ParseTime(b.NotBefore)
	to, err2 := charter.ParseTime(b.NotAfter)
	if err1 != nil || err2 != nil {
		return bad("validity is not a time")
	}
	if at.Before(from) || !at.Before(to) {
		return fault.Errorf(fault.Policy, "%w: %s to %s, and it is %s", ErrExpired, b.NotBefore, b.NotAfter, charter.FormatTime(at))
	}
	return nil
}

// CheckFollows checks that the bundle is the successor of the one with that
// sequence and hash; 0 and FirstPrev() before the first.
func (b *Bundle) CheckFollows(lastSeq int, lastHash string) error {
	if b.Seq != lastSeq+1 || b.Prev != lastHash {
		return fault.Errorf(fault.Policy, "%w: it is number %d, and %d is next", ErrSequence, b.Seq, lastSeq+1)
	}
	return nil
}

// Contains says whether number n is in one of the ranges.
func (b *Bundle) Contains(n int64) bool {
	for _, r := range b.Ranges {
		if n >= r.From && n <= r.To {
			return true
		}
	}
	return false
}

// Number returns the i-th number of the ranges, from 0.
func (b *Bundle) Number(i int64) (int64, bool) {
	for _, r := range b.Ranges {
		if i <= r.To-r.From {
			return r.From + i, i >= 0
		}
		i -= r.To - r.From + 1
	}
	return 0, false
}

// Birthday is notBefore of every certificate issued under the bundle: a time
// that headquarters signed, not the station's clock. Call it after Check.
func (b *Bundle) Birthday() time.Time {
	t, err := charter.ParseTime(b.NotBefore)
	if err != nil {
		return time.Time{}
	}
	return t
}
