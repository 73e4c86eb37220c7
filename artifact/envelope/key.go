package envelope

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/hex"
	"strings"

	"keyrite/artifact/fault"
)

// ErrWeakKey says that a key is one that anybody can sign for.
var ErrWeakKey = fault.New(fault.Verify, "the key is weak: anybody can sign for it")

// smallOrder are the encodings of Ed25519 points of small order, also those that
// are not canonical, with the sign bit cleared. Under such a key one fixed
// signature holds for many messages, or for all.
func smallOrder() []string {
	ff := strings.Repeat("ff", 30)
	return []string{
		strings.Repeat("00", 32),
		"01" + strings.Repeat("00", 31),
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ec" + ff + "7f", "ed" + ff + "7f", "ee" + ff + "7f",
	}
}

// CheckKey says whether pub may stand for somebody: an Ed25519 key that is not of
// small order, or an ECDSA key on P-256.
func CheckKey(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return ErrKeyType
		}
		k := [ed25519.PublicKeySize]byte(pub)
		k[31] &= 0x7f
		for _, weak := range smallOrder() {
			if hex.EncodeToString(k[:]) == weak {
				return ErrWeakKey
			}
		}
		return nil
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return ErrKeyType
		}
		return nil
	}
	return ErrKeyType
}
