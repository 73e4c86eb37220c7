package firmware

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

// MaxProofBytes bounds a log proof: 63 hashes, the note and room for cosigners.
const MaxProofBytes = 16 << 10

const proofHead = "c2sp.org/tlog-proof@v1\n"

// LogOrigin is the name of the release log of a vault. World and vault stand in
// it because the checkpoints of a tiled log have no other place for them.
func LogOrigin(w world.World, vault string) string {
	return "keyrite/release/" + string(w) + "/" + vault
}

// Proof says that a leaf is in the release log (c2sp.org/tlog-proof).
type Proof struct {
	Index      int64
	Hashes     []tlog.Hash
	Checkpoint []byte // signed note
}

// Marshal returns the proof file.
func (p *Proof) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%sindex %d\n", proofHead, p.Index)
	for _, h := range p.Hashes {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteByte('\n')
	b.Write(p.Checkpoint)
	return b.Bytes()
}

// ParseProof reads a proof file. It checks nothing that is signed.
func ParseProof(data []byte) (*Proof, error) {
	if len(data) > MaxProofBytes {
		return nil, fault.Errorf(fault.Verify, "%w: %d bytes", ErrProof, len(data))
	}
	head, note, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok || !bytes.HasPrefix(head, []byte(proofHead)) {
		return nil, fault.Errorf(fault.Verify, "%w: not a c2sp.org/tlog-proof@v1 file", ErrProof)
	}
	lines := strings.Split(string(head[len(proofHead):]), "\n")
	index, isIndex := strings.CutPrefix(lines[0], "index ")
	n, err := strconv.ParseInt(index, 10, 64)
	if !isIndex || err != nil || n < 0 || len(lines) > 64 {
		return nil, fault.Errorf(fault.Verify, "%w: index line", ErrProof)
	}
	p := &Proof{Index: n, Checkpoint: note}
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != len(tlog.Hash{}) {
			return nil, fault.Errorf(fault.Verify, "%w: hash line", ErrProof)
		}
		p.Hashes = append(p.Hashes, tlog.Hash(h))
	}
	if !bytes.Equal(p.Marshal(), data) {
		return nil, fault.Errorf(fault.Verify, "%w: written in another way than the one defined", ErrProof)
	}
	return p, nil
}

// CheckProof checks that the envelope in a bundle is in the release log.
func CheckProof(proof, bundleFile []byte, t *Trust) (*Proof, error) {
	p, err := ParseProof(proof)
	if err != nil {
		return nil, err
	}
	env, err := ParseBundle(bundleFile)
	if err != nil {
		return nil, err
	}
	leaf, err := Leaf(env)
	if err != nil {
		return nil, err
	}
	size, root, err := tlog.OpenBare(p.Checkpoint, LogOrigin(t.World, t.Vault), t.Log)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrProof, err)
	}
	if err := tlog.CheckInclusion(p.Hashes, size, root, p.Index, tlog.LeafHash(leaf)); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrProof, err)
	}
	return p, nil
}
