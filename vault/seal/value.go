package seal

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// A sealed value:
//
//	1 byte    version, 1
//	8 bytes   number of the transaction that wrote it, big-endian
//	24 bytes  nonce
//	n bytes   the value, encrypted
//	16 bytes  tag (XChaCha20-Poly1305, draft-irtf-cfrg-xchacha-03)
const (
	valueVersion = 1
	valueHead    = 1 + 8 + chacha20poly1305.NonceSizeX
	valueOver    = valueHead + chacha20poly1305.Overhead
)

// MaxValueBytes bounds one value: bbolt keeps it in consecutive pages, and a
// transaction holds it in memory.
const MaxValueBytes = 16 << 20

// sealer seals and opens the values of one store in one epoch.
type sealer struct {
	aead  cipher.AEAD
	set   []byte // key of the set's hash
	place []byte
}

func newSealer(k *DataKey, p Place) (*sealer, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	vk, err := k.subkey("value", p)
	if err != nil {
		return nil, err
	}
	defer clear(vk)
	a, err := chacha20poly1305.NewX(vk)
	if err != nil {
		return nil, fmt.Errorf("make the value cipher: %w", err)
	}
	set, err := k.subkey("set", p)
	if err != nil {
		return nil, err
	}
	return &sealer{aead: a, set: set, place: p.bytes()}, nil
}

func (s *sealer) bound(bucket string, key []byte, seq uint64) []byte {
	b := parts(s.place, []byte(bucket), key)
	return binary.BigEndian.AppendUint64(b, seq)
}

// seal encrypts a value for its place. The nonce is random: 24 bytes never
// repeat, also where a crash makes the same number be used again.
func (s *sealer) seal(bucket string, key []byte, seq uint64, value []byte) ([]byte, error) {
	out := make([]byte, valueHead, valueOver+len(value))
	out[0] = valueVersion
	binary.BigEndian.PutUint64(out[1:], seq)
	if _, err := rand.Read(out[9:valueHead]); err != nil {
		return nil, err
	}
	return s.aead.Seal(out, out[9:valueHead], value, s.bound(bucket, key, seq)), nil
}

// open decrypts a value that was read at its place, and says which transaction
// wrote it.
func (s *sealer) open(bucket string, key, sealed []byte) (value []byte, seq uint64, err error) {
	if len(sealed) < valueOver || sealed[0] != valueVersion {
		return nil, 0, altered(bucket, key)
	}
	seq = binary.BigEndian.Uint64(sealed[1:])
	value, err = s.aead.Open(nil, sealed[9:valueHead], sealed[valueHead:], s.bound(bucket, key, seq))
	if err != nil {
		return nil, 0, altered(bucket, key)
	}
	return value, seq, nil
}

func altered(bucket string, key []byte) error {
	return fmt.Errorf("read %q in %q: %w", key, bucket, ErrAltered)
}

// setHash is the hash of a set of values that changes with one value in one
// step: the sum without carry of a keyed hash of each member (MSet-XOR-Hash of
// Clarke, Devadas, van Dijk, Gassend and Suh, 2003, over members that occur
// once). It must never be shown: who knows the hashes of single members could
// compose another set with the same sum. What is shown is its SHA-256.
type setHash [sha256.Size]byte

// toggle adds a member that is not in the set, and takes out one that is.
func (s *sealer) toggle(h *setHash, bucket string, key, sealed []byte) {
	m := hmac.New(sha256.New, s.set)
	m.Write(parts([]byte(bucket), key, sealed))
	for i, b := range m.Sum(nil) {
		h[i] ^= b
	}
}
