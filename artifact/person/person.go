// Package person is who takes part: a public file NAME.person and a private file
// NAME.key under a passphrase.
//
// A person signs with Ed25519 and receives secrets as an age recipient. The key
// signs only signed notes, DSSE envelopes with a payload type per purpose, and
// TUF root metadata, none of which parses as another. This package must never
// see a key unsealed longer than its caller needs it.
//
// Compatibility: docs/formats/person.md, version 1 is read for ever.
package person

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
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

// Person is the public half.
type Person struct {
	Format    string            `json:"format"`
	Key       ed25519.PublicKey `json:"key"`       // Ed25519 verification key, 32 bytes
	Name      string            `json:"name"`      // unique among the people of one vault
	Recipient string            `json:"recipient"` // age X25519 recipient
	World     world.World       `json:"world"`
}

// Check validates every member.
func (p *Person) Check() error {
	if p.Format != Format {
		return fault.Errorf(fault.Verify, "person file has format %q, not %q", p.Format, Format)
	}
	if !nameRE.MatchString(p.Name) {
		return fault.Errorf(fault.Verify, "%w: %.40q", ErrName, p.Name)
	}
	if err := envelope.CheckKey(p.Key); err != nil {
		return fault.Errorf(fault.Verify, "person %s: %w", p.Name, err)
	}
	r, err := age.ParseX25519Recipient(p.Recipient)
	if err != nil || r.String() != p.Recipient {
		return fault.Errorf(fault.Verify, "person %s: recipient is not an age X25519 recipient", p.Name)
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

// Key is a person's private half.
type Key struct {
	public   *Person
	private  ed25519.PrivateKey
	identity *age.X25519Identity
}

type keyFile struct {
	Format   string      `json:"format"`
	Identity string      `json:"identity"`
	Name     string      `json:"name"`
	Seed     []byte      `json:"seed"`
	World    world.World `json:"world"`
}

// New makes a person of world w.
func New(name string, w world.World) (*Key, error) {
	if !nameRE.MatchString(name) {
		return nil, ErrName
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
	return &Key{private: priv, identity: id, public: &Person{
		Format: Format, Key: pub, Name: name, Recipient: id.Recipient().String(), World: w,
	}}
}

// Public returns the public half.
func (k *Key) Public() *Person { return k.public }

// Signer signs as the person (Ed25519, RFC 8032).
func (k *Key) Signer() crypto.Signer { return k.private }

// Identity opens what was encrypted to the person.
func (k *Key) Identity() age.Identity { return k.identity }

// Zero wipes the signing key. What age keeps cannot be wiped, so programs open
// keys in short-lived processes.
func (k *Key) Zero() { clear(k.private) }

// Seal returns the key file: an age file under the passphrase. A live person's
// passphrase must have at least MinPassphraseBytes.
func (k *Key) Seal(passphrase []byte) ([]byte, error) {
	work := workRehearsal
	if k.public.World.IsLive() {
		work = workLive
		if len(passphrase) < MinPassphraseBytes {
			return nil, fault.Errorf(fault.Usage, "a live person's passphrase needs at least %d characters", MinPassphraseBytes)
		}
	}
	plain, err := jcs.Marshal(keyFile{KeyFormat, k.identity.String(), k.public.Name, k.private.Seed(), k.public.World})
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
	var f keyFile
	if err := jcs.Unmarshal(plain, &f); err != nil {
		return nil, err
	}
	return f.key()
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
