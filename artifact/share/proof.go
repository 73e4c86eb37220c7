package share

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Formats of the proof that a share is alive.
const (
	ChallengeFormat = "keyrite/share-challenge/v1"
	ProofFormat     = "keyrite/share-proof/v1"
	ProofType       = "application/vnd.keyrite.share-proof.v1+json"
)

// MaxChallenge is how long a challenge may be answered.
const MaxChallenge = 7 * 24 * time.Hour

// clockSkew is by how much the clocks of challenger and holder may differ.
const clockSkew = 10 * time.Minute

// MaxProofBytes bounds a challenge or proof file.
const MaxProofBytes = 16 << 10

var (
	// ErrChallenge says that a challenge is not one that may be answered.
	ErrChallenge = fault.New(fault.Policy, "the challenge may not be answered")
	// ErrReplay says that a proof was accepted before.
	ErrReplay = fault.New(fault.Policy, "this proof was accepted before")
	// ErrNotOurs says that the challenge was not issued here.
	ErrNotOurs = fault.New(fault.Policy, "no challenge of this ledger")
)

var purposeRE = regexp.MustCompile(`^[!-~]([ -~]{0,118}[!-~])?$`)

// Challenge asks every holder of a safe to prove his share. It is bound to the
// vault and epoch and holds no secret.
type Challenge struct {
	Epoch   int         `json:"epoch"`
	Expires string      `json:"expires"` // RFC 3339, at most MaxChallenge after Issued
	Format  string      `json:"format"`
	Issued  string      `json:"issued"`
	Nonce   []byte      `json:"nonce"`   // 32 random bytes
	Purpose string      `json:"purpose"` // 1 to 120 printable ASCII characters
	Safe    string      `json:"safe"`
	Vault   string      `json:"vault"`
	World   world.World `json:"world"`
}

// NewChallenge makes a challenge for the epoch in force of a safe.
func NewChallenge(s *charter.State, safe, purpose string, now time.Time, valid time.Duration) (*Challenge, error) {
	e, err := s.Epoch(safe)
	if err != nil {
		return nil, err
	}
	if valid <= 0 || valid > MaxChallenge {
		return nil, fault.New(fault.Usage, "a challenge is good for at most 7 days")
	}
	if !purposeRE.MatchString(purpose) {
		return nil, fault.New(fault.Usage, "a purpose is 1 to 120 printable ASCII characters")
	}
	c := &Challenge{
		Epoch: e.Epoch, Expires: charter.FormatTime(now.Add(valid)), Format: ChallengeFormat, Issued: charter.FormatTime(now),
		Nonce: make([]byte, 32), Purpose: purpose, Safe: safe, Vault: s.Vault, World: s.World,
	}
	rand.Read(c.Nonce)
	return c, nil
}

// ParseChallenge reads a challenge and checks its own sense.
func ParseChallenge(data []byte) (*Challenge, error) {
	var c Challenge
	if err := jcs.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	_, _, err := c.times()
	return &c, err
}

// Marshal returns the challenge file.
func (c *Challenge) Marshal() ([]byte, error) { return jcs.Marshal(c) }

// ID is the hex SHA-256 of the challenge file.
func (c *Challenge) ID() (string, error) {
	b, err := c.Marshal()
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

func (c *Challenge) times() (issued, expires time.Time, err error) {
	if c.Format != ChallengeFormat || len(c.Nonce) != 32 || !purposeRE.MatchString(c.Purpose) || c.Epoch < 1 || len(c.Vault) != 64 || c.Safe == "" {
		return issued, expires, fault.New(fault.Verify, "challenge is incomplete or of another format")
	}
	if err := c.World.Check(); err != nil {
		return issued, expires, err
	}
	if issued, err = charter.ParseTime(c.Issued); err == nil {
		expires, err = charter.ParseTime(c.Expires)
	}
	if err == nil && (!expires.After(issued) || expires.Sub(issued) > MaxChallenge) {
		err = fault.New(fault.Verify, "challenge is good for longer than 7 days")
	}
	return issued, expires, err
}

// Check says whether the challenge may be answered, or its answer accepted, at time
// now: it is of this vault and world, of the epoch in force, and not expired.
func (c *Challenge) Check(s *charter.State, now time.Time) error {
	issued, expires, err := c.times()
	if err != nil {
		return err
	}
	if err := world.Match(s.World, c.World); err != nil {
		return err
	}
	e := s.Epochs[c.Safe]
	switch {
	case c.Vault != s.Vault:
		return fault.Errorf(fault.Policy, "%w: it is of another vault", ErrChallenge)
	case e.Epoch == 0:
		return fault.Errorf(fault.Policy, "%w: the charter knows no safe %.40q", ErrChallenge, c.Safe)
	case c.Epoch != e.Epoch:
		return fault.Errorf(fault.Policy, "%w: epoch %d of safe %s is in force, not %d", ErrChallenge, e.Epoch, c.Safe, c.Epoch)
	case now.After(expires):
		return fault.Errorf(fault.Policy, "%w: it expired at %s", ErrChallenge, c.Expires)
	case issued.After(now.Add(clockSkew)):
		return fault.Errorf(fault.Policy, "%w: it was issued in the future, at %s", ErrChallenge, c.Issued)
	}
	return nil
}

// Proof says that the holder of Place had his share when he saw the challenge.
type Proof struct {
	Challenge Challenge `json:"challenge"`
	Format    string    `json:"format"`
	Place     Place     `json:"place"`
}

// Proven is a proof whose signatures hold.
type Proven struct {
	Challenge *Challenge
	Holder    string
	Place     Place
	Envelope  *envelope.Envelope // the proof itself
}

// VerifyProof checks a proof at time now: signed by share key and person key of a
// holder of the epoch in force, for a challenge that may be answered now. Whether
// the challenge is ours, and the proof new, is the Ledger's to say.
func VerifyProof(data []byte, s *charter.State, now time.Time) (*Proven, error) {
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	var p Proof // only to find the keys; read again below, once they hold
	if err := jcs.Unmarshal(env.Payload, &p); err != nil {
		return nil, err
	}
	if p.Format != ProofFormat {
		return nil, fault.Errorf(fault.Verify, "proof has format %.60q", p.Format)
	}
	if err := p.Challenge.Check(s, now); err != nil {
		return nil, err
	}
	want, shareKey, err := PlaceOf(s, p.Challenge.Safe, p.Place.Holder)
	if err != nil {
		return nil, err
	}
	m, ok := s.People.Person(p.Place.Holder)
	if !ok {
		return nil, fault.Errorf(fault.Policy, "%.40q is not in the charter", p.Place.Holder)
	}
	if err := verifyProof(env, want, shareKey, m.Person.PublicKey(), &p); err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "proof of %s: %w", want.Holder, err)
	}
	return &Proven{&p.Challenge, want.Holder, want, env}, nil
}

func verifyProof(env *envelope.Envelope, want Place, shareKey ed25519.PublicKey, personKey crypto.PublicKey, p *Proof) error {
	*p = Proof{}
	if err := verify(env, ProofType, p, shareKey, personKey); err != nil {
		return err
	}
	if p.Place != want {
		return fault.New(fault.Verify, "it is for another share")
	}
	return nil
}
