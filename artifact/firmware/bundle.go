package firmware

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io"

	"keyrite/artifact/anchor"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// BundleMediaType is that of a Sigstore bundle v0.3 (sigstore/protobuf-specs).
const BundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// MaxBundleBytes bounds a bundle.
const MaxBundleBytes = 64 << 10

// KeyID and LogKeyID are the ids of the keys in the anchors, DomainDSSE and
// DomainNote what they sign.
const (
	KeyID      = "firmware"
	LogKeyID   = "log"
	domainDSSE = "dsse"
	domainNote = "note"
)

// bundle is the part of the Sigstore bundle that we write, and so all of it that
// we read: content DSSE, a public key named by its hint, no entry of a public
// transparency log (ours has its own proof file).
type bundle struct {
	Envelope  envelope.Envelope `json:"dsseEnvelope"`
	MediaType string            `json:"mediaType"`
	Material  material          `json:"verificationMaterial"`
}

type material struct {
	PublicKey   hint       `json:"publicKey"`
	TlogEntries []struct{} `json:"tlogEntries"`
}

type hint struct {
	Hint string `json:"hint"` // the envelope's keyid
}

// NewBundle returns the bundle file of a signed statement.
func NewBundle(env *envelope.Envelope) ([]byte, error) {
	if len(env.Signatures) != 1 {
		return nil, ErrBundle
	}
	return jcs.Marshal(bundle{
		Envelope: *env, MediaType: BundleMediaType,
		Material: material{PublicKey: hint{env.Signatures[0].KeyID}, TlogEntries: []struct{}{}},
	})
}

// ParseBundle returns the envelope of a bundle file. It checks no signature.
func ParseBundle(data []byte) (*envelope.Envelope, error) {
	if len(data) > MaxBundleBytes {
		return nil, fault.Errorf(fault.Verify, "%w: %d bytes", ErrBundle, len(data))
	}
	var b bundle
	if err := jcs.Unmarshal(data, &b); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrBundle, err)
	}
	e := &b.Envelope
	if b.MediaType != BundleMediaType || b.Material.TlogEntries == nil || len(b.Material.TlogEntries) != 0 ||
		len(e.Signatures) != 1 || e.Signatures[0].KeyID != b.Material.PublicKey.Hint || e.PayloadType != PayloadType {
		return nil, ErrBundle
	}
	return e, nil
}

// Trust is what a verifier holds: one world, one vault, the firmware key, and
// the release log's key.
type Trust struct {
	World    world.World
	Vault    string           // hex vault id
	Firmware crypto.PublicKey // ECDSA P-256
	// Log is needed for .krf files and log proofs only.
	Log ed25519.PublicKey
	// Gone and Dormant make a refusal clear: the firmware keys that gave way to
	// this one, and the one that may follow it. Neither is believed.
	Gone    []envelope.Key
	Dormant []envelope.Key
}

// TrustOf takes the two keys from an anchors file.
func TrustOf(a *anchor.Anchors) (*Trust, error) {
	_, fw, err := a.Key(KeyID, domainDSSE)
	if err != nil {
		return nil, err
	}
	_, l, err := a.Key(LogKeyID, domainNote)
	if err != nil {
		return nil, err
	}
	pub, ok := l.(ed25519.PublicKey)
	if !ok {
		return nil, fault.New(fault.Verify, "the log key of the anchors is not Ed25519")
	}
	t := &Trust{World: a.World, Vault: a.Vault, Firmware: fw, Log: pub}
	for i := range a.Former {
		if err := t.mention(&t.Gone, &a.Former[i].Key); err != nil {
			return nil, err
		}
	}
	if k := a.Dormant(KeyID); k != nil {
		err = t.mention(&t.Dormant, k)
	}
	return t, err
}

func (t *Trust) mention(list *[]envelope.Key, k *anchor.KeyRecord) error {
	if k.Role() != KeyID {
		return nil
	}
	pub, err := k.Key()
	*list = append(*list, envelope.Key{Name: k.ID, Public: pub})
	return err
}

// Open checks the signature of a bundle and returns its statement. The image is
// still to be checked with CheckImage.
func Open(data []byte, t *Trust) (*Statement, error) {
	env, err := ParseBundle(data)
	if err != nil {
		return nil, err
	}
	payload, _, err := envelope.Verify(env, PayloadType, []envelope.Key{{Name: KeyID, Public: t.Firmware}}, 1)
	if err != nil {
		return nil, otherWorld(env, t, err)
	}
	s, err := ParseStatement(payload)
	if err != nil {
		return nil, err
	}
	if err := world.Match(t.World, s.Predicate.World); err != nil {
		return nil, err
	}
	if s.Predicate.Vault != t.Vault {
		return nil, fault.Errorf(fault.Policy, "release of another vault: %.16s…, not %.16s…", s.Predicate.Vault, t.Vault)
	}
	return s, nil
}

// otherWorld gives the refusal of an unknown key the better reason if the
// statement, unverified, says that it belongs to another world, or if it was signed
// by a firmware key that is not in force any more or not yet. It only ever
// turns one refusal into another.
func otherWorld(env *envelope.Envelope, t *Trust, err error) error {
	if !errors.Is(err, envelope.ErrUnknown) {
		return err
	}
	s, perr := ParseStatement(env.Payload)
	if perr != nil {
		return err
	}
	if werr := world.Match(t.World, s.Predicate.World); werr != nil {
		return werr
	}
	if _, by, gerr := envelope.Verify(env, PayloadType, t.Gone, 1); gerr == nil {
		return fault.Hint(fault.Errorf(fault.Policy, "%w: %s", ErrGone, by[0]), "do not install it: have the release signed again by the key in force")
	}
	if _, by, derr := envelope.Verify(env, PayloadType, t.Dormant, 1); derr == nil {
		return fault.Hint(fault.Errorf(fault.Verify, "%w: %s is dormant in these anchors", err, by[0]), "if it was put in force since, pass the statement that says so: --succession FILE")
	}
	return err
}

// Verify checks a bundle and, streaming, the image that it is about.
func Verify(image io.Reader, data []byte, t *Trust) (*Statement, error) {
	s, err := Open(data, t)
	if err != nil {
		return nil, err
	}
	if err := s.CheckImage(image); err != nil {
		return nil, err
	}
	return s, nil
}

// Leaf is the entry of a release in the release log: the signed envelope, so
// that who watches the log needs nothing else to check what was released.
func Leaf(env *envelope.Envelope) ([]byte, error) { return env.Marshal() }

// Exported is a statement's signature in the three files that openssl takes.
type Exported struct {
	PAE       []byte // the bytes signed
	Signature []byte // ASN.1 DER
}

// Export returns what a bundle's signature covers, for other tools. It checks
// nothing: use Open first.
func Export(data []byte) (*Exported, error) {
	env, err := ParseBundle(data)
	if err != nil {
		return nil, err
	}
	return &Exported{PAE: envelope.PAE(env.PayloadType, env.Payload), Signature: bytes.Clone(env.Signatures[0].Sig)}, nil
}
