package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/vault/seal"
)

// What of used tokens is in the store. A key of bucketJobs is
// EXP/HASH: the end of the token in seconds, 12 digits, so that keys are in the order
// of time, and the SHA-256 of issuer and jti. bucketForgot has one value, the highest
// EXP that was cleared: what ends by then may have been used and is refused.
const (
	bucketJobs   = "identity/jwt"
	bucketForgot = "identity/jwt-cleared"
	keyForgot    = "exp"
)

const (
	// keepJobs is for how long a used token is remembered beyond its end: longer than
	// clocks are wrong.
	keepJobs = 24 * time.Hour
	// clearEvery is how often old ones are looked for.
	clearEvery = time.Hour
	// clearAtOnce bounds what one login clears.
	clearAtOnce = 1000
)

// usedJob is a job's token as the store remembers it.
type usedJob struct {
	exp int64
	key string
}

func newUsedJob(issuer, id string, exp int64) *usedJob {
	sum := sha256.Sum256([]byte(issuer + "\x00" + id))
	return &usedJob{exp, fmt.Sprintf("%012d/%x", exp, sum)}
}

// getter is what View and Tx have in common.
type getter interface {
	Get(bucket, key string) ([]byte, error)
}

// unspent says that a token was not used before.
func (u *usedJob) unspent(s getter) error {
	forgot, err := s.Get(bucketForgot, keyForgot)
	if err != nil && !errors.Is(err, seal.ErrNotFound) {
		return err
	}
	if err == nil {
		until, err := strconv.ParseInt(string(forgot), 10, 64)
		if err != nil {
			return fault.Errorf(fault.Verify, "used tokens of jobs: %w", err)
		}
		if u.exp <= until {
			return refuse("it ended so long ago that nobody knows whether it was used")
		}
	}
	_, err = s.Get(bucketJobs, u.key)
	if err == nil {
		return refuse("it was used before")
	}
	if errors.Is(err, seal.ErrNotFound) {
		return nil
	}
	return err
}

// spendJob remembers a token as used, and clears old ones now and then.
func (r *Registry) spendJob(tx *seal.Tx, u *usedJob) error {
	if err := u.unspent(tx); err != nil {
		return err
	}
	if err := tx.Put(bucketJobs, u.key, []byte{}); err != nil {
		return err
	}
	now := r.clock()
	r.mu.Lock()
	due := r.cleared.IsZero() || now.Sub(r.cleared) >= clearEvery
	if due {
		r.cleared = now
	}
	r.mu.Unlock()
	if !due {
		return nil
	}
	more, err := clearJobs(tx, now.Add(-keepJobs).Unix())
	if more { // the next login goes on, so that no issuer is faster than this
		r.mu.Lock()
		r.cleared = time.Time{}
		r.mu.Unlock()
	}
	return err
}

// clearJobs forgets tokens that ended before a time, the oldest first, and says whether
// there are more of them.
func clearJobs(tx *seal.Tx, before int64) (more bool, err error) {
	last := int64(0)
	for i, k := range tx.Keys(bucketJobs, "") {
		digits, _, _ := strings.Cut(k, "/")
		exp, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return false, fault.Errorf(fault.Verify, "used tokens of jobs: %w", err)
		}
		if more = exp < before && i == clearAtOnce; more || exp >= before {
			break
		}
		if err := tx.Delete(bucketJobs, k); err != nil {
			return false, err
		}
		last = exp
	}
	if last == 0 {
		return false, nil
	}
	return more, tx.Put(bucketForgot, keyForgot, strconv.AppendInt(nil, last, 10))
}
