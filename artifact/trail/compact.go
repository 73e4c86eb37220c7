package trail

import (
	"math/bits"
	"slices"

	mod "golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/tlog"
)

// compact is the tree over the leaves so far, as the roots of its perfect subtrees,
// the largest first: 32 bytes for each bit of its size that is 1 (the compact form
// of RFC 6962's MTH).
type compact struct {
	n     uint64
	roots []tlog.Hash
}

// add appends one leaf.
func (r *compact) add(leaf tlog.Hash) {
	h := leaf
	for range bits.TrailingZeros64(r.n + 1) {
		last := len(r.roots) - 1
		h = mod.NodeHash(r.roots[last], h)
		r.roots = r.roots[:last]
	}
	r.roots = append(r.roots, h)
	r.n++
}

// top is the root hash; nil for no leaves.
func (r *compact) top() []byte {
	if len(r.roots) == 0 {
		return nil
	}
	h := r.roots[len(r.roots)-1]
	for _, left := range slices.Backward(r.roots[:len(r.roots)-1]) {
		h = mod.NodeHash(left, h)
	}
	return h[:]
}
