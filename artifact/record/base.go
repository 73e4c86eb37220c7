package record

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/jcs"
	"keyrite/artifact/share"
)

// Base is the vault that a ceremony continues, as it was loaded: the anchors that
// were trusted, and the charter up to there.
type Base struct {
	Adopts      *Adopts `json:"adopts,omitempty"` // what void ceremonies left, see Adopts
	Anchors     string  `json:"anchors"`          // hex SHA-256 of the anchors file
	CharterHead string  `json:"charter_head"`     // hex tree root
	CharterSize int     `json:"charter_size"`     // statements
	// Fell are the void ceremonies before this one that people called incidents in,
	// newest first; their records lie in this one, see AfterDir.
	Fell []Fallen `json:"fell,omitempty"`
}

// Same says whether two ceremonies continue the same vault, from the same statement
// of its charter, whatever they adopt.
func (b *Base) Same(x *Base) bool {
	return b.Anchors == x.Anchors && b.CharterHead == x.CharterHead && b.CharterSize == x.CharterSize
}

// Opening is a key master's share, given for one step of this attempt.
type Opening struct {
	Envelope envelope.Envelope `json:"envelope"`
	Holder   string            `json:"holder"`
	Safe     string            `json:"safe"`
}

// Operation is the hex SHA-256 of what key masters open a safe for: one step of
// one script in one record.
func Operation(record, scriptHash, step string) (string, error) {
	b, err := jcs.Marshal(map[string]string{"record": record, "script_hash": scriptHash, "step": step})
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// OpeningNonce is the nonce of all openings of one attempt, 32 bytes.
func OpeningNonce(record, attempt string) ([]byte, error) {
	b, err := jcs.Marshal(map[string]string{"attempt": attempt, "record": record})
	sum := sha256.Sum256(append([]byte("keyrite opening nonce v1\n"), b...))
	return sum[:], err
}

// loadBase folds the charter up to where this ceremony began.
func (c *checker) loadBase(lines []byte, trusted string) error {
	b := c.Open.Base
	if b.Anchors != trusted {
		return bad("%w: it was held under other anchors than those you trust", ErrRecord)
	}
	if err := c.Charter.CheckHead(b.CharterSize, b.CharterHead); err != nil {
		return err
	}
	n := 0
	for range b.CharterSize {
		n += strings.IndexByte(string(lines[n:]), '\n') + 1
	}
	var err error
	c.base, err = charter.Fold(lines[:n], c.Anchors.World, c.Anchors.Vault)
	return err
}

// checkOpenings wants every opening to be by share and person key, for the step
// in which it stands, and enough of them wherever a safe was opened.
func (c *checker) checkOpenings() error {
	nonce, err := OpeningNonce(c.Open.Record, c.Open.Attempt)
	if err != nil {
		return err
	}
	for _, o := range c.openings {
		if err := c.checkOpening(&o, nonce); err != nil {
			return bad("%w: entry %d: %w", ErrEntry, o.seq, err)
		}
	}
	for safe, n := range c.epochs {
		if c.base.Epochs[safe].Epoch != n || c.progress[safe] == safeNew {
			return bad("%w: safe %.40q was to be opened with shares of epoch %d", ErrRecord, safe, n)
		}
	}
	for at, holders := range c.opened {
		if need := c.base.Epochs[at.safe].Need; len(holders) < need {
			return bad("%w: step %s opened safe %s with %d shares, %d are needed", ErrRecord, at.step, at.safe, len(holders), need)
		}
	}
	return nil
}

// checkOpening wants the opening to be by share key and by the key of the person
// who holds the share, for the step in which it stands.
func (c *checker) checkOpening(o *given, nonce []byte) error {
	place, pub, err := share.PlaceOf(c.base, o.data.Safe, o.data.Holder)
	if err != nil {
		return err
	}
	p, err := c.holder(o.data.Safe, o.data.Holder)
	if err != nil {
		return err
	}
	op, err := Operation(c.Open.Record, c.Open.ScriptHash, o.step)
	if err != nil {
		return err
	}
	return share.VerifyOpening(&o.data.Envelope, place, pub, p.PublicKey(), op, nonce)
}
