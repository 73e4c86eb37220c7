// Package tuf writes the update repository: TUF metadata that says which
// releases are offered, by whom and how fresh (TUF specification 1.0.31,
// consistent snapshots).
//
// The root is signed in a ceremony by the root token's key and by approvers;
// targets, snapshot and timestamp by keys in the work token. TUF only offers: a
// gateway also wants the release statement, so nothing in this package can make
// an image acceptable. Signing goes through crypto.Signer; the bytes to sign are
// computed here.
package tuf

import (
	"bytes"
	"crypto"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

// Ids of the keys in the charter, each with a signing domain of the same name.
const (
	RootKeyID    = "tuf-root"
	TargetsKeyID = "tuf-targets"
	OnlineKeyID  = "tuf-online" // snapshot and timestamp
)

// MaxRootBytes bounds root metadata.
const MaxRootBytes = 64 << 10

// worldField carries the world in root metadata. In a foreign format the key
// says which world it is; this is for people and for a clear refusal.
const worldField = "x-keyrite-world"

// Classes of refusal.
var (
	// ErrRoot says that root metadata is not that of this charter.
	ErrRoot = fault.New(fault.Verify, "update root does not hold")
	// ErrSigners says that root metadata lacks signatures.
	ErrSigners = fault.New(fault.Quorum, "too few signatures on the update root")
	// ErrRepository says that what is in the repository does not hold.
	ErrRepository = fault.New(fault.Verify, "the update repository was altered")
	// ErrOlder says that the offer would go back.
	ErrOlder = fault.New(fault.Policy, "a release with a higher security version is offered already")
)

// RootKey is a key of the root role.
type RootKey struct {
	Name   string // for people
	Public crypto.PublicKey
}

// RootSpec says what a root is to contain.
type RootSpec struct {
	World   world.World
	Version int64
	Expires time.Time
	Need    int
	Root    []RootKey
	Targets crypto.PublicKey
	Online  crypto.PublicKey

	tokens int // how many of Root are keys of tokens: they stand first, the one in force before its twins
}

// RootOf takes the keys from the charter: the root token's key, its dormant
// twins, and the person key of each charter approver.
//
// As many signatures are needed as there are approvers, at least two. So one
// approver who is lost does not strand the fleet, and no key stands for two
// places of the threshold, for none shares a token or a person with another.
// All approvers together reach the threshold without a token, and two root tokens
// without an approver; therefore a gateway takes a root only if the key in force of
// the root token is among the signers, and beside two tokens a person.
func RootOf(c *charter.State, version int64, expires time.Time) (*RootSpec, error) {
	spec := &RootSpec{World: c.World, Version: version, Expires: expires}
	var keys [3]crypto.PublicKey
	for i, id := range []string{RootKeyID, TargetsKeyID, OnlineKeyID} {
		rec, err := c.Key(id, id)
		if err != nil {
			return nil, err
		}
		if keys[i], err = rec.Key(); err != nil {
			return nil, err
		}
	}
	spec.Root = append(spec.Root, RootKey{RootKeyID, keys[0]}) // first: see tokens
	for _, twin := range c.Dormant(RootKeyID) {
		pub, err := twin.Key()
		if err != nil {
			return nil, err
		}
		spec.Root = append(spec.Root, RootKey{twin.ID, pub})
	}
	spec.tokens = len(spec.Root)
	spec.Targets, spec.Online = keys[1], keys[2]
	set := c.People.Sets.Approvers
	for _, name := range set.Members {
		m, ok := c.People.Person(name)
		if !ok {
			return nil, fault.Errorf(fault.Verify, "approver %s is not in the roster", name)
		}
		spec.Root = append(spec.Root, RootKey{name, m.Person.PublicKey()})
	}
	spec.Need = max(2, len(set.Members))
	return spec, nil
}

// Has says whether pub is one of the root role's keys.
func (s *RootSpec) Has(pub crypto.PublicKey) bool {
	for _, k := range s.Root {
		if p, ok := k.Public.(interface{ Equal(x crypto.PublicKey) bool }); ok && p.Equal(pub) {
			return true
		}
	}
	return false
}

// RootTBS returns the bytes that each root key signs. They are the same for the
// same spec.
func RootTBS(s *RootSpec) ([]byte, error) {
	m, err := build(s)
	if err != nil {
		return nil, err
	}
	return canonical(m.Signed)
}

func build(s *RootSpec) (*metadata.Metadata[metadata.RootType], error) {
	if s.Version < 1 || s.Need < 2 || s.Need > len(s.Root) || s.World.Check() != nil {
		return nil, fault.New(fault.Usage, "an update root needs a version, a world, and a threshold of 2 or more of its keys")
	}
	m := metadata.Root(s.Expires.UTC().Truncate(time.Second))
	m.Signed.Version = s.Version
	m.Signed.ConsistentSnapshot = true
	m.Signed.UnrecognizedFields = map[string]any{worldField: string(s.World)}
	seen := map[string]bool{}
	add := func(pub crypto.PublicKey, role string) error {
		k, err := metadata.KeyFromPublicKey(pub)
		if err != nil {
			return fault.Errorf(fault.Verify, "key of update role %s: %w", role, err)
		}
		if seen[k.Value.PublicKey] && role != metadata.TIMESTAMP {
			return fault.Errorf(fault.Verify, "%w: one key for two places", ErrRoot)
		}
		seen[k.Value.PublicKey] = true
		return m.Signed.AddKey(k, role)
	}
	for _, k := range s.Root {
		if err := add(k.Public, metadata.ROOT); err != nil {
			return nil, err
		}
	}
	m.Signed.Roles[metadata.ROOT].Threshold = s.Need
	for _, r := range []struct {
		role string
		pub  crypto.PublicKey
	}{{metadata.TARGETS, s.Targets}, {metadata.SNAPSHOT, s.Online}, {metadata.TIMESTAMP, s.Online}} {
		if err := add(r.pub, r.role); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// canonical is the form that TUF signs (OLPC canonical JSON).
func canonical(signed any) ([]byte, error) {
	b, err := cjson.EncodeCanonical(signed)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encode TUF metadata: %w", err)
	}
	return b, nil
}

// RootSignature is one signature over RootTBS.
type RootSignature struct {
	Public    crypto.PublicKey
	Signature []byte
}

// SignRoot signs the bytes with one key: Ed25519 as they are, P-256 over their
// SHA-256.
func SignRoot(tbs []byte, key crypto.Signer) (RootSignature, error) {
	sig, err := envelope.SignBytes(key, tbs)
	return RootSignature{key.Public(), sig}, err
}

// Assemble puts the signatures over RootTBS(s) together and returns root metadata
// that meets its own threshold. A signature by any other key, or one that does
// not hold, is refused.
func Assemble(s *RootSpec, sigs []RootSignature) ([]byte, error) {
	m, err := build(s)
	if err != nil {
		return nil, err
	}
	tbs, err := canonical(m.Signed)
	if err != nil {
		return nil, err
	}
	role := m.Signed.Roles[metadata.ROOT]
	allowed, seen := map[string]bool{}, map[string]bool{}
	for _, id := range role.KeyIDs {
		allowed[id] = true
	}
	for _, s := range sigs {
		id, err := keyID(s.Public)
		if err != nil {
			return nil, err
		}
		if !allowed[id] || seen[id] {
			return nil, fault.Errorf(fault.Verify, "%w: signed by a key that is none of its own, or twice", ErrRoot)
		}
		seen[id] = true
		if err := envelope.CheckBytes(s.Public, tbs, s.Signature); err != nil {
			return nil, fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
		}
		m.Signatures = append(m.Signatures, metadata.Signature{KeyID: id, Signature: s.Signature})
	}
	if len(sigs) < role.Threshold {
		return nil, fault.Errorf(fault.Quorum, "%w: %d of the %d needed", ErrSigners, len(sigs), role.Threshold)
	}
	if err := m.VerifyDelegate(metadata.ROOT, m); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
	}
	return m.ToBytes(false)
}

func keyID(pub crypto.PublicKey) (string, error) {
	k, err := metadata.KeyFromPublicKey(pub)
	if err != nil {
		return "", fault.Errorf(fault.Verify, "update key: %w", err)
	}
	return k.ID()
}

// CheckRoot checks that data is root metadata with exactly the keys of the
// charter, signed by its threshold and by the root token's key.
func CheckRoot(data []byte, c *charter.State) error {
	if len(data) > MaxRootBytes {
		return fault.Errorf(fault.Verify, "%w: %d bytes", ErrRoot, len(data))
	}
	m, err := metadata.Root().FromBytes(data)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
	}
	if w, ok := m.Signed.UnrecognizedFields[worldField].(string); ok {
		if err := world.Match(c.World, world.World(w)); err != nil {
			return err
		}
	}
	spec, err := RootOf(c, m.Signed.Version, m.Signed.Expires)
	if err != nil {
		return err
	}
	want, err := RootTBS(spec)
	if err != nil {
		return err
	}
	got, err := canonical(m.Signed)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fault.Errorf(fault.Verify, "%w: its keys or threshold are not those of the charter", ErrRoot)
	}
	if err := m.VerifyDelegate(metadata.ROOT, m); err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
	}
	if !signedByOne(m.Signatures, got, spec.Root[:1]) {
		return fault.Errorf(fault.Quorum, "%w: that of the root token's key %s is missing", ErrSigners, spec.Root[0].Name)
	}
	if spec.tokens > 1 && !signedByOne(m.Signatures, got, spec.Root[spec.tokens:]) {
		return fault.Errorf(fault.Quorum, "%w: that of a person is missing", ErrSigners)
	}
	return nil
}

// signedByOne says whether one of keys signed tbs.
func signedByOne(sigs []metadata.Signature, tbs []byte, keys []RootKey) bool {
	for _, k := range keys {
		id, err := keyID(k.Public)
		if err != nil {
			continue
		}
		for _, s := range sigs {
			if s.KeyID == id && envelope.CheckBytes(k.Public, tbs, s.Signature) == nil {
				return true
			}
		}
	}
	return false
}

// RootVersion reads the version of root metadata, checking nothing else.
func RootVersion(data []byte) (int64, error) {
	m, err := metadata.Root().FromBytes(data)
	if err != nil || m.Signed.Version < 1 {
		return 0, fault.Errorf(fault.Verify, "%w: it cannot be read: %w", ErrRoot, err)
	}
	return m.Signed.Version, nil
}

// CheckNext checks that whoever trusts the root before will take next: it is the
// next version, signed by the threshold of both.
func CheckNext(before, next []byte) error {
	old, err := metadata.Root().FromBytes(before)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
	}
	m, err := metadata.Root().FromBytes(next)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
	}
	if m.Signed.Version != old.Signed.Version+1 {
		return fault.Errorf(fault.Policy, "%w: version %d does not follow %d", ErrRoot, m.Signed.Version, old.Signed.Version)
	}
	if err := old.VerifyDelegate(metadata.ROOT, m); err != nil {
		return fault.Errorf(fault.Quorum, "%w: those who trust the root before would refuse it: %w", ErrSigners, err)
	}
	return nil
}
