package seal

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
	mod "golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/tlog"
)

// hashes reads the stored hashes of the log's tree: 8 bytes number in the order
// of StoredHashIndex, big-endian, to 32 bytes. They need no seal: whatever they
// say is compared with a root that is sealed.
type hashes struct{ b *bolt.Bucket }

// ReadHashes implements tlog.HashReader.
func (r hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		v := r.b.Get(number(uint64(n)))
		if len(v) != len(out[i]) {
			return nil, fmt.Errorf("read hash %d of the log: %w", n, ErrAltered)
		}
		copy(out[i][:], v)
	}
	return out, nil
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// appendLeaf adds the hashes of leaf n to the tree.
func appendLeaf(b *bolt.Bucket, n int64, leaf []byte) error {
	hs, err := mod.StoredHashes(n, leaf, hashes{b})
	if err != nil {
		return err
	}
	at := mod.StoredHashIndex(0, n)
	for i, h := range hs {
		if err := b.Put(number(uint64(at)+uint64(i)), h[:]); err != nil {
			return err
		}
	}
	return nil
}

// rootAt is the root of the first size leaves.
func rootAt(b *bolt.Bucket, size int64) (tlog.Hash, error) {
	return mod.TreeHash(size, hashes{b})
}

// chain is the log of a store as a Keeper asks for it.
type chain struct{ s *Store }

func (c chain) RootAt(size int64) (h tlog.Hash, err error) {
	err = c.s.db.View(func(tx *bolt.Tx) error {
		h, err = rootAt(tx.Bucket(bucketTree), size)
		return err
	})
	return h, err
}

func (c chain) Prove(before, size int64) (p []tlog.Hash, err error) {
	err = c.s.db.View(func(tx *bolt.Tx) error {
		p, err = mod.ProveTree(size, before, hashes{tx.Bucket(bucketTree)})
		return err
	})
	return p, err
}

// checkLeaf compares a leaf with its hash in the tree.
func checkLeaf(b *bolt.Bucket, n int64, leaf []byte) error {
	hs, err := hashes{b}.ReadHashes([]int64{mod.StoredHashIndex(0, n)})
	if err != nil {
		return err
	}
	if hs[0] != tlog.LeafHash(leaf) {
		return fmt.Errorf("compare entry %d with the tree: %w", n, ErrAltered)
	}
	return nil
}
