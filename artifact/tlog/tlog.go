// Package tlog is the log under records, charters and releases: a Merkle tree
// (RFC 6962) over leaves of canonical JSON, with checkpoints as C2SP signed
// notes and cosignatures on them.
//
// Append builds a tree; Checkpoint states it; Sign and Cosign put a person's or
// a log's key under it; Open reads a checkpoint and takes only the signers it
// was given. It does no I/O. It must never accept a note whose signature lines
// it does not know entirely, because an unknown line is room for a message that
// nobody checked.
//
// Compatibility: c2sp.org/tlog-checkpoint, c2sp.org/signed-note (Ed25519,
// signature type 0x01, and ECDSA P-256, type 0x02) and c2sp.org/tlog-cosignature
// (Ed25519, type 0x04; for ECDSA P-256 a type of our own under 0xff).
package tlog

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/fault"
)

// Hash is a SHA-256 tree or leaf hash.
type Hash = tlog.Hash

// Hex returns h in lower-case hex.
func Hex(h Hash) string { return hex.EncodeToString(h[:]) }

// ParseHex is the inverse of Hex.
func ParseHex(s string) (Hash, error) {
	var h Hash
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != s {
		return h, fault.New(fault.Verify, "hash is not 64 lower-case hex digits")
	}
	return Hash(b), nil
}

// LeafHash is the hash of one leaf (RFC 6962, Section 2.1).
func LeafHash(leaf []byte) Hash { return tlog.RecordHash(leaf) }

// Tree is an append-only tree in memory. The zero value is the empty tree. It
// keeps 64 bytes a leaf and is for one goroutine.
type Tree struct {
	chunks [][]Hash // hashes in the order of tlog.StoredHashIndex, never copied
	stored int64    // how many
	size   int64
	buf    []byte
}

// chunkHashes is the length of a chunk: 2 MiB.
const chunkHashes = 1 << 16

func (t *Tree) at(i int64) Hash { return t.chunks[i/chunkHashes][i%chunkHashes] }

func (t *Tree) store(h Hash) {
	if t.stored%chunkHashes == 0 {
		t.chunks = append(t.chunks, nil) // grows on its own, most trees are small
	}
	last := &t.chunks[len(t.chunks)-1]
	*last = append(*last, h)
	t.stored++
}

// Clone is a tree of the same leaves, to which others are appended than to t.
func (t *Tree) Clone() Tree {
	c := *t
	c.chunks, c.buf = slices.Clone(t.chunks), slices.Clone(t.buf)
	if last := len(c.chunks) - 1; last >= 0 {
		c.chunks[last] = slices.Clip(c.chunks[last]) // what is appended to it goes elsewhere
	}
	return c
}

// ReadHashes implements tlog.HashReader.
func (t *Tree) ReadHashes(indexes []int64) ([]Hash, error) {
	out := make([]Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= t.stored {
			return nil, fault.New(fault.Unexpected, "tree hash out of range")
		}
		out[i] = t.at(x)
	}
	return out, nil
}

// Append adds one leaf.
func (t *Tree) Append(leaf []byte) error {
	t.buf = append(append(t.buf[:0], 0), leaf...) // RFC 6962: 0x00 before a leaf
	h := Hash(sha256.Sum256(t.buf))
	t.store(h)
	// A leaf with an odd number completes a node of each level until an even one.
	for level, n := 0, t.size; n&1 == 1; level, n = level+1, n>>1 {
		h = tlog.NodeHash(t.at(tlog.StoredHashIndex(level, n-1)), h)
		t.store(h)
	}
	t.size++
	return nil
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Root is the root hash of the whole tree.
func (t *Tree) Root() Hash {
	h, err := tlog.TreeHash(t.size, t)
	if err != nil { // ReadHashes holds every hash below size
		return Hash{}
	}
	return h
}

// RootAt is the root hash when the tree had size leaves.
func (t *Tree) RootAt(size int64) (Hash, error) {
	if size < 0 || size > t.size {
		return Hash{}, fault.New(fault.Usage, "the tree never had that size")
	}
	h, err := tlog.TreeHash(size, t)
	if err != nil {
		return h, fault.Errorf(fault.Unexpected, "hash tree: %w", err)
	}
	return h, nil
}

// Prove returns the inclusion proof of leaf n in the tree of the first size
// leaves.
func (t *Tree) Prove(n, size int64) ([]Hash, error) {
	if n < 0 || n >= size || size > t.size {
		return nil, fault.New(fault.Usage, "no such leaf in the tree")
	}
	p, err := tlog.ProveRecord(size, n, t)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "prove leaf: %w", err)
	}
	return p, nil
}

// CheckInclusion checks that leaf n with hash leaf is in the tree of size leaves
// with that root (RFC 6962, Section 2.1.1).
func CheckInclusion(proof []Hash, size int64, root Hash, n int64, leaf Hash) error {
	if n < 0 || n >= size {
		return fault.New(fault.Verify, "leaf number is outside the tree")
	}
	if err := tlog.CheckRecord(slices.Clone(proof), size, root, n, leaf); err != nil {
		return fault.New(fault.Verify, "inclusion proof does not hold")
	}
	return nil
}
