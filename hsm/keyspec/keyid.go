package keyspec

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// A Tag names one attempt of one ceremony. Every object made in that attempt
// carries it as the first 8 bytes of its CKA_ID, so a later process can find
// and destroy all of them without having kept a list.
type Tag [8]byte

// NewTag returns a random tag.
func NewTag() (Tag, error) {
	var t Tag
	if _, err := rand.Read(t[:]); err != nil {
		return Tag{}, fmt.Errorf("draw attempt tag: %w", err)
	}
	return t, nil
}

// ParseTag reads the form that String prints.
func ParseTag(s string) (Tag, error) {
	var t Tag
	if err := parseHex(t[:], s); err != nil {
		return Tag{}, fmt.Errorf("attempt tag: %w", err)
	}
	return t, nil
}

// String gives 16 lower-case hex digits.
func (t Tag) String() string { return hex.EncodeToString(t[:]) }

// MarshalText lets a tag stand in JSON as its hex form.
func (t Tag) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (t *Tag) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTag(string(b))
	return err
}

// A KeyID is the CKA_ID of a key pair: attempt tag, then the
// number of the key in the attempt, 8 bytes big-endian.
type KeyID [16]byte

// NewKeyID returns the id of key number n of the attempt.
func NewKeyID(t Tag, n uint64) KeyID {
	var k KeyID
	copy(k[:8], t[:])
	binary.BigEndian.PutUint64(k[8:], n)
	return k
}

// ParseKeyID reads the form that String prints.
func ParseKeyID(s string) (KeyID, error) {
	var k KeyID
	if err := parseHex(k[:], s); err != nil {
		return KeyID{}, fmt.Errorf("key id: %w", err)
	}
	return k, nil
}

// Tag returns the attempt in which the key was made.
func (k KeyID) Tag() Tag { return Tag(k[:8]) }

// String gives 32 lower-case hex digits.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// MarshalText lets an id stand in JSON as its hex form.
func (k KeyID) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (k *KeyID) UnmarshalText(b []byte) (err error) {
	*k, err = ParseKeyID(string(b))
	return err
}

var errHex = errors.New("not lower-case hex of the right length")

func parseHex(dst []byte, s string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(dst) || hex.EncodeToString(b) != s {
		return errHex
	}
	copy(dst, b)
	return nil
}
