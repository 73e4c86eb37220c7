package seal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

// The buckets of the file. Those of the callers are within values.
var (
	bucketMeta   = []byte("meta")   // "format", "place", "wraps" in clear, "state" sealed
	bucketLog    = []byte("log")    // number → entry, sealed
	bucketTree   = []byte("tree")   // number → hash
	bucketValues = []byte("values") // bucket → key → value, sealed
)

var (
	keyPlace = []byte("place")
	keyState = []byte("state")
)

const storeFormat = "keyrite/store/v1"

// placed is what stands in clear: whose file it is. It is believed only after
// the state was opened with it.
type placed struct {
	Format string      `json:"format"`
	Epoch  uint32      `json:"epoch"`
	Vault  string      `json:"vault"`
	World  world.World `json:"world"`
}

func (p Place) marshal() ([]byte, error) {
	return jcs.Marshal(placed{Format: storeFormat, Epoch: p.Epoch, Vault: hex.EncodeToString(p.Vault[:]), World: p.World})
}

// state is the sum of a store after its last transaction.
//
//	8 bytes   size of the log, big-endian
//	32 bytes  root of the log
//	32 bytes  set hash of all values
type state struct {
	size int64
	root tlog.Hash
	set  setHash
}

const stateBytes = 8 + sha256.Size + sha256.Size

func (st *state) marshal() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, stateBytes), uint64(st.size))
	b = append(b, st.root[:]...)
	return append(b, st.set[:]...)
}

func parseState(b []byte) (*state, error) {
	if len(b) != stateBytes {
		return nil, fmt.Errorf("read the state: %w", ErrAltered)
	}
	st := &state{size: int64(binary.BigEndian.Uint64(b))}
	copy(st.root[:], b[8:])
	copy(st.set[:], b[8+sha256.Size:])
	if st.size < 1 {
		return nil, fmt.Errorf("read the state: %w", ErrAltered)
	}
	return st, nil
}

// leaf is one entry of the log as it is hashed: what the caller says of the
// transaction, and what the store was after it.
type leaf struct {
	Entry json.RawMessage `json:"entry"`
	Seq   uint64          `json:"seq"`
	State string          `json:"state"` // SHA-256 over the set hash, hex
}

// readState opens the state with the key, which proves the key, and compares it
// with the tree.
func readState(tx *bolt.Tx, s *sealer) (*state, error) {
	for _, b := range [][]byte{bucketMeta, bucketLog, bucketTree, bucketValues} {
		if tx.Bucket(b) == nil {
			return nil, fmt.Errorf("open the store: bucket %q is missing: %w", b, ErrAltered)
		}
	}
	raw, _, err := s.open(string(bucketMeta), keyState, tx.Bucket(bucketMeta).Get(keyState))
	if err != nil {
		return nil, fmt.Errorf("open the store: %w, or its state does not hold", ErrKey)
	}
	st, err := parseState(raw)
	if err != nil {
		return nil, err
	}
	root, err := rootAt(tx.Bucket(bucketTree), st.size)
	if err != nil {
		return nil, err
	}
	if root != st.root {
		return nil, fmt.Errorf("compare the log with the state: %w", ErrAltered)
	}
	return st, nil
}

// scan opens every value and compares the set of them with the state. It is
// what finds a value that was taken out, or replaced by its own older form.
func scan(tx *bolt.Tx, s *sealer, st *state) error {
	var sum setHash
	err := tx.Bucket(bucketValues).ForEachBucket(func(name []byte) error {
		return tx.Bucket(bucketValues).Bucket(name).ForEach(func(k, v []byte) error {
			_, seq, err := s.open(string(name), k, v)
			if err != nil {
				return err
			}
			if seq >= uint64(st.size) {
				return altered(string(name), k)
			}
			s.toggle(&sum, string(name), k, v)
			return nil
		})
	})
	if err != nil {
		return err
	}
	if sum != st.set {
		return fmt.Errorf("compare the values with the state: one is missing, added or older: %w", ErrAltered)
	}
	return nil
}
