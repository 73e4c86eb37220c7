package trail

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

// MaxLineBytes bounds one line of an extract: an entry has at most 1 MiB, its proof
// at most 63 hashes.
const MaxLineBytes = 1<<20 + 8<<10

// Verified is what an extract proves.
type Verified struct {
	Size      int64 // of the log that was signed
	Entries   int64 // in the extract
	Whole     bool
	Cosigners []string
	// Open are the intents without a result, by number; only of a whole extract.
	Open []uint64
}

// Verify reads an extract and checks every line of it against the signers. each is
// called for every entry, in order; what it was told counts only when Verify
// returns nil. The error names the first line that does not hold, counted from 1.
func Verify(r io.Reader, s Signers, each func(seq uint64, e *Entry) error) (*Verified, error) {
	if s.Log.Public == nil || s.Need < 0 || s.Need > len(s.Cosigners) || s.Need == 0 && s.World.IsLive() {
		return nil, fault.New(fault.Policy, "the charter names no log key for the vault's trail, or too few cosigners")
	}
	in := bufio.NewReaderSize(r, 64<<10)
	line, err := readLine(in)
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	var h Header
	if err := jcs.Unmarshal(line, &h); err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	v, err := h.check(s)
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	c := &checker{v: v, size: v.Size, root: v.root, whole: h.Whole, each: each, open: map[uint64]bool{}}
	for n := int64(2); n < h.Entries+2; n++ {
		if line, err = readLine(in); err == nil {
			err = c.line(line)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: %w: there is more than its first line says", h.Entries+2, ErrExtract)
	}
	return c.end()
}

func readLine(in *bufio.Reader) ([]byte, error) {
	var out []byte
	for {
		part, err := in.ReadSlice('\n')
		out = append(out, part...)
		if len(out) > MaxLineBytes {
			return nil, fault.Errorf(fault.Verify, "%w: the line is too long", ErrExtract)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, fault.Errorf(fault.Verify, "%w: it ends here", ErrExtract)
		}
		return out[:len(out)-1], nil
	}
}

// verified is a Verified that is still being made.
type verified struct {
	Verified
	root tlog.Hash
}

func (h *Header) check(s Signers) (*verified, error) {
	if h.Format != ExtractFormat {
		return nil, fault.Errorf(fault.Verify, "%w: format %.40q", ErrExtract, h.Format)
	}
	if err := world.Match(s.World, h.World); err != nil {
		return nil, err
	}
	if h.Vault != s.Vault {
		return nil, fault.Errorf(fault.Policy, "the extract is of another vault: %.16q", h.Vault)
	}
	o, err := tlog.Open(h.Checkpoint, Origin(s.Vault), s.World, s.Log, s.Cosigners)
	if err != nil {
		return nil, err
	}
	if len(o.Cosigners) < s.Need {
		return nil, fault.Errorf(fault.Quorum, "%w: %d of %d", ErrCosigners, len(o.Cosigners), s.Need)
	}
	if h.Entries < 1 || h.Entries > o.Size || h.Whole && h.Entries != o.Size {
		return nil, fault.Errorf(fault.Verify, "%w: %d entries of a log of %d", ErrExtract, h.Entries, o.Size)
	}
	return &verified{Verified{Size: o.Size, Entries: h.Entries, Whole: h.Whole, Cosigners: o.Cosigners}, o.Root}, nil
}

// checker holds each line against the tree.
type checker struct {
	v     *verified
	size  int64
	root  tlog.Hash
	whole bool
	each  func(uint64, *Entry) error
	next  uint64 // the least number that may come
	compact
	open map[uint64]bool // intents without a result so far
}

func (c *checker) line(data []byte) error {
	var l Line
	if err := jcs.Unmarshal(data, &l); err != nil {
		return err
	}
	var leaf Leaf
	if err := jcs.Unmarshal(l.Leaf, &leaf); err != nil {
		return err
	}
	if leaf.Seq < c.next || leaf.Seq >= uint64(c.size) || c.whole && leaf.Seq != c.next {
		return fault.Errorf(fault.Verify, "%w: entry %d is out of order", ErrExtract, leaf.Seq)
	}
	c.next = leaf.Seq + 1
	hash := tlog.LeafHash(l.Leaf)
	if err := c.prove(leaf.Seq, hash, l.Proof); err != nil {
		return err
	}
	var e Entry
	if err := jcs.Unmarshal(leaf.Entry, &e); err != nil {
		return err
	}
	if err := e.Check(); err != nil {
		return err
	}
	if err := c.follow(leaf.Seq, &e); err != nil {
		return err
	}
	return c.each(leaf.Seq, &e)
}

// prove takes the leaf into the tree of a whole extract, or checks its proof.
func (c *checker) prove(n uint64, leaf tlog.Hash, proof [][]byte) error {
	if c.whole {
		if proof != nil {
			return fault.Errorf(fault.Verify, "%w: a whole extract has no proofs", ErrExtract)
		}
		c.add(leaf)
		return nil
	}
	hs := make([]tlog.Hash, len(proof))
	for i, p := range proof {
		if len(p) != len(hs[i]) {
			return fault.Errorf(fault.Verify, "%w: entry %d", ErrProof, n)
		}
		copy(hs[i][:], p)
	}
	if err := tlog.CheckInclusion(hs, c.size, c.root, int64(n), leaf); err != nil {
		return fault.Errorf(fault.Verify, "%w: entry %d", ErrProof, n)
	}
	return nil
}

// follow pairs results with their intents. In an extract of some entries an intent
// may have been left out.
func (c *checker) follow(n uint64, e *Entry) error {
	switch e.Kind {
	case Intent:
		c.open[n] = true
	case Result:
		if *e.Intent >= n || c.whole && !c.open[*e.Intent] {
			return fault.Errorf(fault.Verify, "%w: entry %d is the result of entry %d, which waits for none", ErrExtract, n, *e.Intent)
		}
		delete(c.open, *e.Intent)
	}
	return nil
}

func (c *checker) end() (*Verified, error) {
	if c.whole && !bytes.Equal(c.top(), c.root[:]) {
		return nil, fault.Errorf(fault.Verify, "%w: all entries together do not give the root that was signed", ErrProof)
	}
	if c.whole {
		c.v.Open = slices.Sorted(maps.Keys(c.open))
	}
	return &c.v.Verified, nil
}
