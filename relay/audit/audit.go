// Package audit is the relay's trail of who did or tried what: an append-only
// log in the store, as the leaves of a Merkle tree.
//
// Everything that changes the relay's state calls Add in the same transaction,
// so no effect is without its entry; refusals and sessions use Note. Export and
// Verify serve the operator. An entry must never hold a password, key, token or
// ticket: the fields are names, words and addresses, and nothing free.
//
// The trail shows an honest relay's story and any later change of what was
// exported; a relay in foreign hands can write what it likes from then on.
package audit

import (
	"context"
	"encoding/hex"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/relay/store"
)

// Format of an entry.
const Format = "keyrite/relay-audit/v1"

// Results.
const (
	Done    = "done"
	Refused = "refused"
)

// Entry is one line.
type Entry struct {
	Account string      `json:"account"` // "" where none is known
	Action  string      `json:"action"`  // a word such as "login", "open-flow"
	Actor   string      `json:"actor"`   // "user NAME", "gateway SERIAL", "admin", "relay"
	Class   string      `json:"class"`   // of a refusal
	Format  string      `json:"format"`
	Object  string      `json:"object"` // what it was about
	Result  string      `json:"result"`
	Seq     int64       `json:"seq"`
	Source  string      `json:"source"` // network address, "" on the machine itself
	Time    string      `json:"time"`
	World   world.World `json:"world"`
}

// Trail writes the log of one world.
type Trail struct {
	DB    *store.DB
	World world.World
	Now   func() time.Time
}

// Stamp is a time as the relay writes it.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// maxText bounds each text of an entry, in bytes, so that a peer cannot fill
// the disk with its own names.
const maxText = 200

// hashes reads the stored tree for x/mod's algorithms.
type hashes struct{ tx *store.Tx }

// ReadHashes implements tlog.HashReader.
func (h hashes) ReadHashes(idx []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(idx))
	for i, x := range idx {
		b, err := h.tx.AuditHash(x)
		if err != nil {
			return nil, err
		}
		if len(b) != tlog.HashSize {
			return nil, fault.New(fault.Verify, "audit trail: stored hash has a wrong length")
		}
		out[i] = tlog.Hash(b)
	}
	return out, nil
}

// Add appends e within a transaction.
func (t *Trail) Add(tx *store.Tx, e Entry) error {
	n, err := tx.AuditSize()
	if err != nil {
		return err
	}
	e.Format, e.World, e.Seq, e.Time = Format, t.World, n, Stamp(t.Now())
	for _, s := range []*string{&e.Account, &e.Action, &e.Actor, &e.Class, &e.Object, &e.Source} {
		if len(*s) > maxText {
			*s = (*s)[:maxText]
		}
	}
	line, err := jcs.Marshal(e)
	if err != nil {
		return err
	}
	hs, err := tlog.StoredHashes(n, line, hashes{tx})
	if err != nil {
		return fault.Errorf(fault.Storage, "audit trail: %w", err)
	}
	raw := make([][]byte, len(hs))
	for i := range hs {
		raw[i] = hs[i][:]
	}
	return tx.AddAudit(n, e.Account, line, tlog.StoredHashCount(n), raw)
}

// Note appends e in a transaction of its own. It is not stopped by the end of
// the request that caused it.
func (t *Trail) Note(ctx context.Context, e Entry) error {
	return t.DB.Do(context.WithoutCancel(ctx), func(tx *store.Tx) error { return t.Add(tx, e) })
}

// Head is the size and root of the trail.
type Head struct {
	Size int64
	Root string // hex
}

// page is how many lines are read at a time.
const page = 1000

// Verify recomputes the tree from the lines and compares it with what is
// stored. It returns the head for comparing with one noted before.
func (t *Trail) Verify(ctx context.Context) (Head, error) {
	var head Head
	err := t.DB.Do(ctx, func(tx *store.Tx) error {
		var err error
		head, err = verify(tx)
		return err
	})
	return head, err
}

func verify(tx *store.Tx) (Head, error) {
	var n int64
	for {
		lines, err := tx.AuditLines("", n, page)
		if err != nil {
			return Head{}, err
		}
		for _, line := range lines {
			if err := checkLine(tx, n, line); err != nil {
				return Head{}, err
			}
			n++
		}
		if len(lines) < page {
			break
		}
	}
	root, err := tlog.TreeHash(n, hashes{tx})
	if err != nil {
		return Head{}, fault.Errorf(fault.Verify, "audit trail: %w", err)
	}
	return Head{Size: n, Root: hexOf(root)}, nil
}

func checkLine(tx *store.Tx, n int64, line []byte) error {
	var e Entry
	if err := jcs.Unmarshal(line, &e); err != nil {
		return fault.Errorf(fault.Verify, "audit trail: entry %d: %w", n, err)
	}
	if e.Seq != n {
		return fault.Errorf(fault.Verify, "audit trail: entry %d is missing or out of place", n)
	}
	want, err := tlog.StoredHashes(n, line, hashes{tx})
	if err != nil {
		return fault.Errorf(fault.Verify, "audit trail: entry %d: %w", n, err)
	}
	idx := make([]int64, len(want))
	for i := range idx {
		idx[i] = tlog.StoredHashCount(n) + int64(i)
	}
	have, err := hashes{tx}.ReadHashes(idx)
	if err != nil {
		return err
	}
	for i := range want {
		if have[i] != want[i] {
			return fault.Errorf(fault.Verify, "audit trail: entry %d was changed", n)
		}
	}
	return nil
}

func hexOf(h tlog.Hash) string { return hex.EncodeToString(h[:]) }

// Export calls each with every line, of one account or, with "", of all.
func (t *Trail) Export(ctx context.Context, account string, each func(line []byte) error) error {
	return t.DB.Read(ctx, func(tx *store.Tx) error {
		for from := int64(0); ; {
			lines, err := tx.AuditLines(account, from, page)
			if err != nil {
				return err
			}
			for _, line := range lines {
				var e Entry
				if err := jcs.Unmarshal(line, &e); err != nil {
					return err
				}
				from = e.Seq + 1
				if err := each(line); err != nil {
					return err
				}
			}
			if len(lines) < page {
				return nil
			}
		}
	})
}
