package script

import "testing"

// The same specifications, with the same hashes, stand in artifact/record: the
// engine writes the hash and the verifier recomputes it. The first is older than
// successors and movable keys, and must keep its hash.
func TestSpecHash(t *testing.T) {
	plain := Usage{Sign: true, Sensitive: true, Destroyable: true}
	all := Usage{true, true, true, true, true, true, true, true, true, true, true, true}
	for _, tt := range []struct {
		key  Key
		want string
	}{
		{Key{ID: "firmware", Safe: "work", Purpose: "signs release statements", Algorithm: "p256", Domain: "dsse", Usage: plain}, "c6f9c67633e147d5ed96a0c61ae2b21db9e0ef3d0f051d7308b53fa9e3512756"},
		{Key{ID: "kek-2", Safe: "work2", Purpose: "wraps", Algorithm: "rsa3072", Domain: "wrap", SuccessorOf: "kek", Movable: true, Usage: all}, "76d9031298fb48cd91bf8ab39537621b83845748cf0e0b513b92ec0024d47966"},
		{Key{ID: "log", Safe: "work", Purpose: "signs the log", Algorithm: "ed25519", Domain: "note", Attestation: "quorum", Usage: plain}, "6be21035071ae17b310000c0a96a92634608cc789cc38cf5b116e04a95bb1a31"},
	} {
		if got := tt.key.SpecHash(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.key.ID, got, tt.want)
		}
	}
}
