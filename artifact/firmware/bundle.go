package firmware

import (
	"bytes"
	"errors"
	"io"

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

// Open checks the signature of a bundle and returns its statement. The image is
// still to be checked with CheckImage.
func Open(data []byte, t *Trust) (*Statement, error) {
	env, err := ParseBundle(data)
	if err != nil {
		return nil, err
	}
	payload, by, err := envelope.Verify(env, PayloadType, t.keys(), 1)
	if err != nil {
		return nil, otherWorld(env, t, err)
	}
	s, err := ParseStatement(payload)
	if err != nil {
		return nil, err
	}
	if by[0] != KeyID && by[0] != KeyIDOf(s.Predicate.Product) {
		return nil, fault.Errorf(fault.Policy, "%w: %s, and this is %s", ErrProduct, by[0], s.Predicate.Product)
	}
	s.role = by[0]
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
