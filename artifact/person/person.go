// Package person is who takes part: a public file NAME.person and a private file
// NAME.key under a passphrase.
//
// A person signs with Ed25519, or with ECDSA P-256 where the key is on a card,
// and receives secrets as an age recipient. The key signs only signed notes, DSSE
// envelopes with a payload type per purpose, and TUF root metadata, none of which
// parses as another. This package must never see a key unsealed longer than its
// caller needs it.
//
// Compatibility: docs/formats/person.md, version 1 is read for ever.
package person

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"regexp"

	"filippo.io/age"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/words"
	"keyrite/artifact/world"
)

// Format and KeyFormat name the two files.
const (
	Format    = "keyrite/person/v1"
	KeyFormat = "keyrite/person-key/v1"
)

// Work factors of scrypt (log2 of N) for key files. A rehearsal's people are
// thrown away, and a rehearsal opens their keys a hundred times.
const (
	workLive      = 18 // about a second on a PC, age's default
	workRehearsal = 12
	maxWork       = 22 // above, a file from outside could hang the program
)

// MaxKeyBytes bounds a key file.
const MaxKeyBytes = 4096

// MaxPassphraseBytes and MinPassphraseBytes bound a live person's passphrase.
const (
	MinPassphraseBytes = 12
	MaxPassphraseBytes = 1024
)

var (
	// ErrPassphrase says that a key file did not open.
	ErrPassphrase = fault.New(fault.Token, "wrong passphrase, or not this key file")
	// ErrName says that a name cannot be used.
	ErrName = fault.New(fault.Usage, "a person's name is 1 to 32 of a-z, 0-9 and -, starting with a letter")
)

var nameRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Person is the public half. Exactly one of Ed25519 and P256 is there.
type Person struct {
	Format    string            `json:"format"`
	Ed25519   ed25519.PublicKey `json:"key,omitempty"`  // verification key, 32 bytes
	Name      string            `json:"name"`           // unique among the people of one vault
	P256      []byte            `json:"p256,omitempty"` // verification key of a card: uncompressed point, 65 bytes (SEC 1, Section 2.3.3)
	Recipient string            `json:"recipient"`      // age recipient, X25519 (age1…) or of a card (age1tag1…)
	World     world.World       `json:"world"`
}

// PublicKey returns the verification key: ed25519.PublicKey or *ecdsa.PublicKey
// on P-256. It is nil if Check does not hold.
func (p *Person) PublicKey() crypto.PublicKey {
	switch {
	case len(p.Ed25519) == ed25519.PublicKeySize && len(p.P256) == 0:
		return p.Ed25519
	case len(p.Ed25519) == 0 && len(p.P256) > 0:
		if k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), p.P256); err == nil {
			return k
		}
	}
	return nil
}

// KeyID is the key id of the verification key as in an envelope; empty if Check
// does not hold.
func (p *Person) KeyID() string {
	id, err := envelope.KeyID(p.PublicKey())
	if err != nil {
		return ""
	}
	return id
}

// Equal says whether o is the same person file in every member.
func (p *Person) Equal(o *Person) bool {
	return o != nil && p.Format == o.Format && bytes.Equal(p.Ed25519, o.Ed25519) && p.Name == o.Name &&
		bytes.Equal(p.P256, o.P256) && p.Recipient == o.Recipient && p.World == o.World
}

// Check validates every member.
func (p *Person) Check() error {
	if p.Format != Format {
		return fault.Errorf(fault.Verify, "person file has format %q, not %q", p.Format, Format)
	}
	if !nameRE.MatchString(p.Name) {
		return fault.Errorf(fault.Verify, "%w: %.40q", ErrName, p.Name)
	}
	if err := envelope.CheckKey(p.PublicKey()); err != nil {
		return fault.Errorf(fault.Verify, "person %s: %w", p.Name, err)
	}
	if _, err := ParseRecipient(p.Recipient); err != nil {
		return fault.Errorf(fault.Verify, "person %s: %w", p.Name, err)
	}
	return p.World.Check()
}

// Parse reads a person file.
func Parse(data []byte) (*Person, error) {
	var p Person
	if err := jcs.Unmarshal(data, &p); err != nil {
		return nil, err
	}
	return &p, p.Check()
}

// Marshal returns the person file.
func (p *Person) Marshal() ([]byte, error) { return jcs.Marshal(p) }

// Fingerprint is the SHA-256 of the person file.
func (p *Person) Fingerprint() ([32]byte, error) {
	b, err := p.Marshal()
	return sha256.Sum256(b), err
}

// Words returns the first 16 bytes of the fingerprint as words, to be compared
// aloud. 16 bytes withstand a second-preimage search.
func (p *Person) Words() (string, error) {
	f, err := p.Fingerprint()
	return words.Of(f[:16]), err
}

// Key is a person's private half: unsealed from a file, or a card that is at hand.
type Key struct {
	public   *Person
	signer   crypto.Signer
	identity age.Identity
	release  func()
}

type keyFile struct {
	Format   string      `json:"format"`
	Identity string      `json:"identity"`
	Name     string      `json:"name"`
	Seed     []byte      `json:"seed"`
	World    world.World `json:"world"`
}

// CheckName says whether a person can have that name.
func CheckName(name string) error {
	if !nameRE.MatchString(name) {
		return fault.Errorf(fault.Usage, "%w, not %.40q", ErrName, name)
	}
	return nil
}

// New makes a person of world w.
func New(name string, w world.World) (*Key, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := w.Check(); err != nil {
		return nil, err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make age identity: %w", err)
	}
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make key: %w", err)
	}
	return assemble(name, w, priv, id), nil
}

func assemble(name string, w world.World, priv ed25519.PrivateKey, id *age.X25519Identity) *Key {
	pub := bytes.Clone(priv[ed25519.SeedSize:])
	return &Key{signer: priv, identity: id, public: &Person{
		Format: Format, Ed25519: pub, Name: name, Recipient: id.Recipient().String(), World: w,
	}}
}

// Card is the key of a person whose private half stays where it is: signer and
// identity ask the card, release lets go of it and is called by Zero; it may be
// nil. The signer must be for p's verification key.
func Card(p *Person, signer crypto.Signer, identity age.Identity, release func()) (*Key, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	id, err := envelope.KeyID(signer.Public())
	if err != nil || id != p.KeyID() {
		return nil, fault.Errorf(fault.Verify, "the card holds another key than that of %s", p.Name)
	}
	return &Key{public: p, signer: signer, identity: identity, release: release}, nil
}

// Public returns the public half.
func (k *Key) Public() *Person { return k.public }

// Signer signs as the person: Ed25519 (RFC 8032) or ECDSA P-256 (FIPS 186-5).
func (k *Key) Signer() crypto.Signer { return k.signer }

// Identity opens what was encrypted to the person.
func (k *Key) Identity() age.Identity { return k.identity }

// OnCard says that the key is not in this process, but on a card or token.
func (k *Key) OnCard() bool {
	_, ok := k.signer.(ed25519.PrivateKey)
	return !ok
}

// Zero wipes the signing key, or lets go of the card. What age keeps cannot be wiped, so programs open
// keys in short-lived processes.
func (k *Key) Zero() {
	if p, ok := k.signer.(ed25519.PrivateKey); ok {
		clear(p)
	}
	if k.release != nil {
		k.release()
		k.release = nil
	}
}

// Handle returns the unsealed key for a child process of the caller, which takes
// it with FromHandle. It goes over a pipe only and never to disk; the caller wipes
// it. A card's key has none and is class usage: it never leaves the card.
func (k *Key) Handle() ([]byte, error) {
	priv, ok := k.signer.(ed25519.PrivateKey)
	id, ok2 := k.identity.(*age.X25519Identity)
	if !ok || !ok2 {
		return nil, fault.Errorf(fault.Usage, "the key of %s is on a card and stays there", k.public.Name)
	}
	seed := priv.Seed()
	defer clear(seed)
	return jcs.Marshal(keyFile{KeyFormat, id.String(), k.public.Name, seed, k.public.World})
}

// FromHandle takes what Handle gave. The bytes may be wiped afterwards.
func FromHandle(handle []byte) (*Key, error) {
	var f keyFile
	if err := jcs.Unmarshal(handle, &f); err != nil {
		return nil, err
	}
	return f.key()
}

// Seal returns the key file: an age file under the passphrase. A live person's
// passphrase must have at least MinPassphraseBytes, and nobody's is a word that calls
// an incident when it is typed in a ceremony.
func (k *Key) Seal(passphrase []byte) ([]byte, error) {
	if bytes.Equal(passphrase, []byte("incident")) || bytes.Equal(passphrase, []byte("!")) {
		return nil, fault.New(fault.Usage, "the word incident and the sign ! are no passphrase: typed in a ceremony they call an incident")
	}
	work := workRehearsal
	if k.public.World.IsLive() {
		work = workLive
		if len(passphrase) < MinPassphraseBytes {
			return nil, fault.Errorf(fault.Usage, "a live person's passphrase needs at least %d characters", MinPassphraseBytes)
		}
	}
	plain, err := k.Handle()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	rcpt, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "passphrase: %w", err)
	}
	rcpt.SetWorkFactor(work)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, rcpt)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encrypt key file: %w", err)
	}
	return out.Bytes(), nil
}

// Open opens a key file. A wrong passphrase is ErrPassphrase (class token).
func Open(data, passphrase []byte) (*Key, error) {
	id, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, ErrPassphrase
	}
	id.SetMaxWorkFactor(maxWork)
	r, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) || errors.Is(err, age.ErrIncorrectIdentity) {
			return nil, ErrPassphrase
		}
		return nil, fault.Errorf(fault.Verify, "key file is damaged: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, MaxKeyBytes))
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "key file is damaged: %w", err)
	}
	defer clear(plain)
	return FromHandle(plain)
}

func (f *keyFile) key() (*Key, error) {
	defer clear(f.Seed)
	if f.Format != KeyFormat || len(f.Seed) != ed25519.SeedSize {
		return nil, fault.New(fault.Verify, "key file is of another format")
	}
	id, err := age.ParseX25519Identity(f.Identity)
	if err != nil {
		return nil, fault.New(fault.Verify, "key file holds no age identity")
	}
	k := assemble(f.Name, f.World, ed25519.NewKeyFromSeed(f.Seed), id)
	return k, k.public.Check()
}
