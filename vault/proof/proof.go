// Package proof keeps, in the vault's store, who proved his share and when, and which
// challenges of this vault wait for answers. vault/node calls it, each time in the
// transaction of an audit entry.
//
//	c, err := proof.Issue(tx, charter, proof.Ask{Safe: "work", Purpose: "spring"}, now)
//	p, err := share.VerifyProof(data, charter, now) // takes time, and touches no store
//	err = proof.Accept(tx, charter, p, now)         // once, for a challenge of ours
//	err = proof.Opened(tx, charter, safe, epoch, holders, at)
//	safes, err := proof.Safes(view, charter, now)
//
// Nothing here is secret. It must never count a proof that share.VerifyProof did not
// hand out, nor one of an epoch that is not in force.
package proof

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/share"
	"keyrite/vault/seal"
)

// AliveFor is how long a proof counts: a quarter and a day. A vault asks each quarter.
const AliveFor = 92 * 24 * time.Hour

// MaxOpen bounds the challenges that wait for answers, MaxPerIdentity those of one who
// asked, so that nobody keeps the others from asking.
const (
	MaxOpen        = 32
	MaxPerIdentity = 8
)

// How a share was proven.
const (
	ByChallenge = "challenge" // its holder answered a challenge of this vault
	ByOpening   = "opening"   // it opened the vault
	ByDealing   = "dealing"   // its holder signed for it when the epoch was dealt
)

// ErrBusy says that too many challenges wait.
var ErrBusy = fault.New(fault.Quota, "too many challenges wait for answers")

// What the store keeps.
//
//	share-challenges   id → challenge
//	share-proofs       SAFE/EPOCH/HOLDER → proven
const (
	bucketChallenges = "share-challenges"
	bucketProofs     = "share-proofs"
	waitingFormat    = "keyrite/share-waiting/v1"
	provenFormat     = "keyrite/share-proven/v1"
)

// waiting is a challenge as the store has it.
type waiting struct {
	Answered  []string        `json:"answered"` // holders whose proofs were accepted, sorted
	By        string          `json:"by"`       // identity that asked for it
	Challenge share.Challenge `json:"challenge"`
	Format    string          `json:"format"`
}

// proven is the last proof of one share.
type proven struct {
	Format string `json:"format"`
	How    string `json:"how"`
	Index  int    `json:"index"`
	Time   string `json:"time"` // RFC 3339
}

// reader is what seal.Tx and seal.View have in common.
type reader interface {
	Get(bucket, key string) ([]byte, error)
	Keys(bucket, prefix string) []string
}

// Ask says what a challenge is for.
type Ask struct {
	By      string // identity that asks; required
	Safe    string
	Purpose string        // shown to the holders: 1 to 120 printable ASCII characters
	Valid   time.Duration // to share.MaxChallenge; 0: as long as that
}

// Issue makes a challenge of this vault for the epoch in force of a safe. Those that
// nobody may answer any more are forgotten.
func Issue(tx *seal.Tx, st *charter.State, a Ask, now time.Time) (*share.Challenge, error) {
	if a.By == "" {
		return nil, fault.New(fault.Unexpected, "a challenge that nobody asked for")
	}
	if a.Valid == 0 {
		a.Valid = share.MaxChallenge
	}
	c, err := share.NewChallenge(st, a.Safe, a.Purpose, now, a.Valid)
	if err != nil {
		return nil, err
	}
	n, mine, err := forget(tx, st, a.By, now)
	if err != nil {
		return nil, err
	}
	if n >= MaxOpen || mine >= MaxPerIdentity {
		return nil, fault.Hint(fault.Errorf(fault.Quota, "%w: %d, %d of them yours", ErrBusy, n, mine), "wait until they are answered, or expire")
	}
	id, err := c.ID()
	if err != nil {
		return nil, err
	}
	return c, put(tx, bucketChallenges, id, waiting{Answered: []string{}, By: a.By, Challenge: *c, Format: waitingFormat})
}

// forget takes away the challenges that may not be answered any more, and says how many
// are left, and how many of them that identity asked for.
func forget(tx *seal.Tx, st *charter.State, by string, now time.Time) (left, mine int, err error) {
	for _, id := range tx.Keys(bucketChallenges, "") {
		w, err := load(tx, id)
		if err != nil {
			return 0, 0, err
		}
		if w.Challenge.Check(st, now) == nil {
			left++
			if w.By == by {
				mine++
			}
			continue
		}
		if err := tx.Delete(bucketChallenges, id); err != nil {
			return 0, 0, err
		}
	}
	return left, mine, nil
}

// load reads a challenge of ours; one that is not kept is share.ErrNotOurs.
func load(r reader, id string) (*waiting, error) {
	raw, err := r.Get(bucketChallenges, id)
	if errors.Is(err, seal.ErrNotFound) {
		return nil, share.ErrNotOurs
	}
	if err != nil {
		return nil, err
	}
	var w waiting
	if err := jcs.Unmarshal(raw, &w); err != nil {
		return nil, err
	}
	if w.Format != waitingFormat {
		return nil, fault.Errorf(fault.Verify, "challenge %.16s in the store has format %.40q", id, w.Format)
	}
	return &w, nil
}

// Accept takes a proof that was verified against st, once, for a challenge of ours that
// may be answered now.
func Accept(tx *seal.Tx, st *charter.State, p *share.Proven, now time.Time) error {
	if err := p.Challenge.Check(st, now); err != nil { // the charter may have gone on since
		return fmt.Errorf("proof of %s: %w", p.Holder, err)
	}
	id, err := p.Challenge.ID()
	if err != nil {
		return err
	}
	w, err := load(tx, id)
	if errors.Is(err, share.ErrNotOurs) {
		return fault.Hint(fault.Errorf(fault.Policy, "proof of %s: %w", p.Holder, share.ErrNotOurs),
			"it was issued elsewhere, or every holder answered it: a proof for a challenge of 'keyrite share challenge' is handed to 'keyrite-verify share-proof'")
	}
	if err != nil {
		return err
	}
	if slices.Contains(w.Answered, p.Holder) {
		return fault.Errorf(fault.Policy, "proof of %s: %w", p.Holder, share.ErrReplay)
	}
	w.Answered = append(w.Answered, p.Holder)
	slices.Sort(w.Answered)
	if len(w.Answered) == len(st.Epochs[p.Place.Safe].Shares) {
		err = tx.Delete(bucketChallenges, id)
	} else {
		err = put(tx, bucketChallenges, id, w)
	}
	if err != nil {
		return err
	}
	return prove(tx, p.Place, ByChallenge, now)
}

// Opened keeps that the holders' shares of an epoch opened the vault at that time. An
// epoch that is not in force is passed over.
func Opened(tx *seal.Tx, st *charter.State, safe string, epoch int, holders []string, at time.Time) error {
	e, ok := st.Epochs[safe]
	if !ok || e.Epoch != epoch {
		return nil
	}
	for _, h := range holders {
		p, _, err := share.PlaceIn(st, &e, h)
		if err != nil {
			return err
		}
		if err := prove(tx, p, ByOpening, at); err != nil {
			return err
		}
	}
	return nil
}

// key is where the last proof of a share lies.
func key(p share.Place) string { return fmt.Sprintf("%s/%d/%s", p.Safe, p.Epoch, p.Holder) }

// prove keeps the proof of a share, and forgets those of its safe's epochs before. A
// proof that is older than the one that is kept changes nothing.
func prove(tx *seal.Tx, p share.Place, how string, at time.Time) error {
	inForce := fmt.Sprintf("%s/%d/", p.Safe, p.Epoch)
	for _, k := range tx.Keys(bucketProofs, p.Safe+"/") {
		if strings.HasPrefix(k, inForce) {
			continue
		}
		if err := tx.Delete(bucketProofs, k); err != nil {
			return err
		}
	}
	had, _, err := last(tx, p)
	if err != nil || had.After(at) {
		return err
	}
	return put(tx, bucketProofs, key(p), proven{Format: provenFormat, How: how, Index: p.Index, Time: charter.FormatTime(at)})
}

// last is when and how a share was proven; the zero time if it never was.
func last(r reader, p share.Place) (time.Time, string, error) {
	raw, err := r.Get(bucketProofs, key(p))
	if errors.Is(err, seal.ErrNotFound) {
		return time.Time{}, "", nil
	}
	var x proven
	if err == nil {
		err = jcs.Unmarshal(raw, &x)
	}
	if err != nil {
		return time.Time{}, "", err
	}
	if x.Format != provenFormat || x.Index != p.Index {
		return time.Time{}, "", fault.Errorf(fault.Verify, "proof of %s in the store has format %.40q and is of share %d", p.Holder, x.Format, x.Index)
	}
	at, err := charter.ParseTime(x.Time)
	return at, x.How, err
}

func put(tx *seal.Tx, bucket, key string, v any) error {
	raw, err := jcs.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Put(bucket, key, raw)
}
