package pki

import (
	"time"

	"keyrite/vault/seal"
)

// Revoked are the numbers that a list of now would have, one after the other.
func Revoked(e *Engine, s *seal.Store, now time.Time) []byte {
	var out []byte
	_ = s.View(func(v *seal.View) error {
		all, err := e.revocations(v, now)
		for _, x := range all {
			out = append(out, x.serial+" "...)
		}
		return err
	})
	return out
}
