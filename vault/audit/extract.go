package audit

import (
	"cmp"
	"context"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/artifact/trail"
)

// Choice says which entries are wanted. A member that is empty excludes nothing.
type Choice struct {
	From, To time.Time // From inclusive, To exclusive
	Identity string
	Path     string // this path and those below it
	Kinds    []trail.Kind
	// Operation is the capability, or what the vault did.
	Operation string
	// Class is that of the error; Fine wants those that went well.
	Class string
	// Peer is where the client was: an address or a network.
	Peer netip.Prefix
}

// Fine is the Class of entries that have none: what they tell of went well.
const Fine = "none"

// all says that every entry is wanted.
func (c *Choice) all() bool {
	return c.From.IsZero() && c.To.IsZero() && c.Identity == "" && c.Path == "" && c.Kinds == nil && c.Operation == "" && c.Class == "" && !c.Peer.IsValid()
}

// wants says whether an entry is among those chosen.
func (c *Choice) wants(e *Entry) bool {
	at, err := time.Parse(time.RFC3339, e.Time)
	switch {
	case err != nil, !c.From.IsZero() && at.Before(c.From), !c.To.IsZero() && !at.Before(c.To):
		return false
	case c.Identity != "" && c.Identity != e.Identity:
		return false
	case c.Path != "" && e.Path != c.Path && !strings.HasPrefix(e.Path, strings.TrimSuffix(c.Path, "/")+"/"):
		return false
	case c.Operation != "" && c.Operation != e.Operation, c.Class != "" && c.Class != cmp.Or(e.Class, Fine):
		return false
	}
	if c.Peer.IsValid() {
		if a, err := netip.ParseAddr(e.Remote); err != nil || !c.Peer.Contains(a) {
			return false
		}
	}
	return c.Kinds == nil || slices.Contains(c.Kinds, e.Kind)
}

// Extract writes the entries chosen among those that the checkpoint states, with
// their proofs: what artifact/trail verifies. A choice of all entries gives the
// whole trail. The note must be one of this log, which the caller made or was
// given by the Keeper; the signers say whose word on it counts.
func (j *Journal) Extract(w io.Writer, note []byte, s trail.Signers, c Choice) (int64, error) {
	o, err := tlog.Open(note, trail.Origin(s.Vault), s.World, s.Log, s.Cosigners)
	if err != nil {
		return 0, err
	}
	h := trail.Header{Vault: s.Vault, World: s.World, Checkpoint: note}
	if c.all() {
		return o.Size, trail.WriteWhole(w, h, o.Size, j.store)
	}
	var numbers []uint64
	for n := range uint64(o.Size) {
		e, err := j.Read(n)
		if err != nil {
			return 0, err
		}
		if c.wants(e) {
			numbers = append(numbers, n)
		}
	}
	if numbers == nil {
		return 0, fault.New(fault.Usage, "no entry of the trail is among those chosen")
	}
	return int64(len(numbers)), trail.WriteSome(w, h, o.Size, j.store, numbers)
}

// Numbered is an entry with its number.
type Numbered struct {
	Seq   uint64
	Entry Entry
}

// Search looks through the newest entries, at most within of them, before number
// before (0: from the end), and returns at most limit that were chosen, newest
// first, with the number at which to go on; 0 when there are no more. Each entry is
// read by itself, so that a long search holds up nothing; it ends with ctx.
func (j *Journal) Search(ctx context.Context, c Choice, before uint64, within, limit int) (found []Numbered, next uint64, err error) {
	size := uint64(j.store.Head().Size)
	if before == 0 || before > size {
		before = size
	}
	for before > 0 && within > 0 && len(found) < limit {
		if err := ctx.Err(); err != nil {
			return nil, 0, fault.Errorf(fault.Interrupted, "search the trail: %w", err)
		}
		before, within = before-1, within-1
		e, err := j.Read(before)
		if err != nil {
			return nil, 0, err
		}
		if c.wants(e) {
			found = append(found, Numbered{before, *e})
		}
	}
	return found, before, nil
}
