// Package attestation reads what an HSM or a TPM says of a key that was born in
// it, and verifies that a maker whom the vault trusts stands behind it.
//
// Evidence is the file that a ceremony keeps for a key; Verify says what it
// proves. There are two kinds: the attestation certificate of a YubiHSM 2, and
// the structure that TPM2_Certify signs. Verify knows no maker of its own: without
// a root that the charter names, nothing is attested. It must never take a fact
// about a key from anything but what the device signed, and it reads no structure
// leniently: what it does not know, it refuses.
//
// Compatibility: docs/formats/attestation.md, version 1 is read for ever.
package attestation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Format names the evidence file.
const Format = "keyrite/attestation/v1"

// MaxBytes bounds an evidence file: a chain of eight certificates of 4 KiB, in
// base64.
const MaxBytes = 64 << 10

// Kinds of evidence.
const (
	KindYubiHSM = "yubihsm2"
	KindTPM     = "tpm2"
)

// Evidence is the whole file. Of YubiHSM and TPM there is the one that Kind names.
type Evidence struct {
	// Chain leads from the certificate that vouches to one that a root issued, in
	// that order, without the root: each DER. Of a YubiHSM 2 the first is the key's
	// own attestation certificate, of a TPM that of its attestation key.
	Chain  [][]byte    `json:"chain"`
	Format string      `json:"format"`
	Key    string      `json:"key"` // id of the key
	Kind   string      `json:"kind"`
	Record string      `json:"record"` // id of the ceremony record in which it was born
	TPM    *Certified  `json:"tpm,omitempty"`
	World  world.World `json:"world"`
}

// Certified is what TPM2_Certify gave, each in the TPM's own encoding.
type Certified struct {
	Attest    []byte `json:"attest"`    // TPMS_ATTEST
	Public    []byte `json:"public"`    // TPMT_PUBLIC of the key
	Signature []byte `json:"signature"` // TPMT_SIGNATURE of the attestation key over Attest
}

// About is the key that the reader holds and of which the evidence must be.
type About struct {
	Key    string
	Public []byte // DER SubjectPublicKeyInfo
	Record string
	World  world.World
	Time   time.Time // when the evidence was taken: each certificate must have held then
}

// Attested is what verified evidence proves: the key was generated inside the
// device, and the device lets it out under no circumstances.
type Attested struct {
	Kind     string
	Root     string // id of the vendor root
	Model    string
	Device   string // serial number of the device, as its maker writes it
	Firmware string // of the device, when it attested
	Public   []byte // DER SubjectPublicKeyInfo
	Label    string // that the device has for the key, may be empty
	Uses     []Use  // everything that the device lets the key do, sorted
}

// Use is one thing that a key may do.
type Use string

// The uses. What is neither of the two signs or opens something else than what
// its owner asks for.
const (
	Signs Use = "sign"
	Other Use = "other"
)

// Classes of refusal.
var (
	ErrEvidence   = fault.New(fault.Verify, "attestation is not valid")
	ErrSignature  = fault.New(fault.Verify, "attestation is not signed by the device it names")
	ErrKey        = fault.New(fault.Verify, "attestation is of another key")
	ErrBinding    = fault.New(fault.Verify, "attestation was made for another ceremony")
	ErrRoot       = fault.New(fault.Policy, "no vendor root of the charter stands behind the attestation")
	ErrExpired    = fault.New(fault.Policy, "a certificate behind the attestation did not hold at that time")
	ErrModel      = fault.New(fault.Policy, "the vendor root is not for this model of device")
	ErrOrigin     = fault.New(fault.Policy, "the key was not generated in the device")
	ErrExportable = fault.New(fault.Policy, "the device may let the key out")
	ErrUses       = fault.New(fault.Policy, "the device lets the key do more than sign")
)

func bad(sentinel error, format string, args ...any) error {
	return fault.Errorf(fault.ClassOf(sentinel), "%w: "+format, append([]any{sentinel}, args...)...)
}

// Parse reads an evidence file. Nothing in it is verified.
func Parse(data []byte) (*Evidence, error) {
	if len(data) > MaxBytes {
		return nil, bad(ErrEvidence, "the file has more than %d bytes", MaxBytes)
	}
	var e Evidence
	if err := jcs.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	return &e, e.check()
}

// Marshal writes the file.
func (e *Evidence) Marshal() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return jcs.Marshal(e)
}

func (e *Evidence) check() error {
	switch {
	case e.Format != Format:
		return bad(ErrEvidence, "format %.40q", e.Format)
	case e.Key == "" || e.Record == "":
		return bad(ErrEvidence, "it does not say of which key it is")
	case e.Kind != KindYubiHSM && e.Kind != KindTPM:
		return bad(ErrEvidence, "kind %.40q", e.Kind)
	case (e.Kind == KindTPM) != (e.TPM != nil):
		return bad(ErrEvidence, "it has what another kind has, or lacks what its own has")
	case len(e.Chain) == 0 || len(e.Chain) > maxChain:
		return bad(ErrEvidence, "a chain of %d certificates", len(e.Chain))
	}
	return e.World.Check()
}

// Verify says what the evidence proves of the key, judged by the roots of the
// charter. Whether the key may do only what it should is left to CheckSigning.
func Verify(e *Evidence, roots []Root, about About) (*Attested, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if about.Time.IsZero() || len(about.Public) == 0 {
		return nil, fault.New(fault.Unexpected, "attestation judged without a time or a key")
	}
	if err := world.Match(about.World, e.World); err != nil {
		return nil, err
	}
	if e.Key != about.Key || e.Record != about.Record {
		return nil, bad(ErrBinding, "of key %.40q in record %.60q", e.Key, e.Record)
	}
	chain, err := parseChain(e.Chain)
	if err != nil {
		return nil, err
	}
	root, err := checkChain(chain, roots, e.rootKind(), about.Time)
	if err != nil {
		return nil, err
	}
	var a *Attested
	if e.Kind == KindYubiHSM {
		a, err = readYubiHSM(chain)
	} else {
		a, err = e.readTPM(chain[0], about)
	}
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(a.Public, about.Public) {
		return nil, ErrKey
	}
	a.Kind, a.Root = e.Kind, root.ID
	return a, root.checkModel(a.Model)
}

func (e *Evidence) rootKind() string {
	if e.Kind == KindTPM {
		return RootEK
	}
	return RootHSM
}

// CheckSigning wants a key that signs what it is given and does nothing else.
func (a *Attested) CheckSigning() error {
	if len(a.Uses) != 1 || a.Uses[0] != Signs {
		return ErrUses
	}
	return nil
}

// Binding is the qualifying data that a TPM must be given, so that what it signs
// is good for one key of one ceremony: SHA-256, 32 bytes. A YubiHSM 2 takes none.
func Binding(key, record string, w world.World) ([]byte, error) {
	body, err := jcs.Marshal(map[string]any{"key": key, "record": record, "world": w})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("keyrite attestation v1\n"), body...))
	return sum[:], nil
}

func spki(c *x509.Certificate) []byte { return c.RawSubjectPublicKeyInfo }
