// Package quorum splits a safe's secret into shares, takes shares back, and
// combines them, always in a short-lived child process.
//
// The parent side (Deal, Receipt, Open) starts the program's own executable with
// the hidden command of Child and talks to it over pipes; secrets, shares and
// PINs exist in the clear only in that child, which is not dumpable, writes no
// core and ends when it has answered. PINs leave it by a descriptor that the
// parent hands on to the HSM's supervisor unread. It is the only importer of
// hashicorp/vault/shamir. It must never combine a share that was not checked
// against the charter first.
package quorum

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"math/big"

	"github.com/hashicorp/vault/shamir"

	"keyrite/artifact/fault"
	"keyrite/artifact/share"
)

// maxSubsets bounds the self-test after dealing.
const maxSubsets = 1000

// mix makes a safe's secret of the HSM's random bytes and the system's, so that
// it is good if either is, and known to nobody who saw only one.
func mix(hsmRandom []byte) ([]byte, error) {
	if len(hsmRandom) != share.SecretBytes {
		return nil, fault.Errorf(fault.Token, "the HSM gave %d random bytes, not %d", len(hsmRandom), share.SecretBytes)
	}
	ikm := make([]byte, 2*share.SecretBytes)
	defer clear(ikm)
	copy(ikm, hsmRandom)
	rand.Read(ikm[share.SecretBytes:])
	secret, err := hkdf.Key(sha256.New, ikm, nil, "keyrite safe secret v1", share.SecretBytes)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "mix the secret: %w", err)
	}
	return secret, nil
}

// split deals secret to n shares of which need combine, and proves it.
func split(secret []byte, n, need int) ([][]byte, error) {
	if need < 2 || need > n || n > 255 {
		return nil, fault.Errorf(fault.Usage, "cannot split for %d of %d", need, n)
	}
	shares, err := shamir.Split(secret, n, need)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "split: %w", err)
	}
	return shares, selfTest(secret, shares, need)
}

// combine rebuilds the secret. The library detects nothing: every share must
// have been checked by its share key before.
func combine(shares [][]byte) ([]byte, error) {
	secret, err := shamir.Combine(shares)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "combine shares: %w", err)
	}
	if len(secret) != share.SecretBytes {
		clear(secret)
		return nil, fault.New(fault.Verify, "combined secret has the wrong length")
	}
	return secret, nil
}

// selfTest combines every subset of need shares, or 1,000 random ones where
// there are more, and compares.
func selfTest(secret []byte, shares [][]byte, need int) error {
	try := func(pick []int) error {
		sub := make([][]byte, len(pick))
		for i, p := range pick {
			sub[i] = shares[p]
		}
		got, err := combine(sub)
		if err != nil {
			return err
		}
		defer clear(got)
		if subtle.ConstantTimeCompare(got, secret) != 1 {
			return fault.New(fault.Unexpected, "shares do not combine to the secret that was split")
		}
		return nil
	}
	count := new(big.Int).Binomial(int64(len(shares)), int64(need))
	if count.Cmp(big.NewInt(maxSubsets)) > 0 {
		for range maxSubsets {
			if err := try(randomSubset(len(shares), need)); err != nil {
				return err
			}
		}
		return nil
	}
	return eachSubset(len(shares), need, try)
}

func eachSubset(n, k int, f func([]int) error) error {
	pick := make([]int, k)
	for i := range pick {
		pick[i] = i
	}
	for {
		if err := f(pick); err != nil {
			return err
		}
		i := k - 1
		for i >= 0 && pick[i] == n-k+i {
			i--
		}
		if i < 0 {
			return nil
		}
		pick[i]++
		for j := i + 1; j < k; j++ {
			pick[j] = pick[j-1] + 1
		}
	}
}

// randomSubset picks k of n by a partial shuffle with the system's randomness.
func randomSubset(n, k int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	for i := range k {
		r, err := rand.Int(rand.Reader, big.NewInt(int64(n-i)))
		if err != nil {
			return all[:k]
		}
		j := i + int(r.Int64())
		all[i], all[j] = all[j], all[i]
	}
	return all[:k]
}
