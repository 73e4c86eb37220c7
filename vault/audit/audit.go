// Package audit writes and reads the vault's trail: who asked for what, what was
// decided, and what came of it. Each entry is a leaf of the store's log, written in
// the same transaction as the effect it tells of, and an answer leaves only when its
// entry is durable. vault/node writes it; sinks are copies that are made afterwards,
// and can neither hold up a request nor change what stands in the log.
//
// An entry must never hold a secret: engines say which parameters are public. What
// an entry looks like outside is artifact/trail's.
package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/trail"
	"keyrite/vault/seal"
)

// Entry is one entry of the trail.
type Entry = trail.Entry

// The kinds of entries.
const (
	Request = trail.Request
	Refused = trail.Refused
	Intent  = trail.Intent
	Result  = trail.Result
	Life    = trail.Life
)

// bucketOpen has the number of each intent that has no result yet.
const bucketOpen = "audit/open"

// ErrResult says that a result is of an intent that waits for none.
var ErrResult = fault.New(fault.Unexpected, "a result without its intent")

// Journal writes entries.
type Journal struct {
	store *seal.Store
	tell  func() // after each entry; nil if nobody wants to know
}

// NewJournal is the journal of an open store.
func NewJournal(s *seal.Store) *Journal { return &Journal{store: s} }

// Tell has f called after each entry. It is set before the journal is used by several
// goroutines, and f must not wait.
func (j *Journal) Tell(f func()) { j.tell = f }

// Do makes one transaction of effect and entry, and returns the entry's number when
// both are durable. effect may be nil; it may complete the entry. Its error leaves
// nothing behind.
//
// An Intent is kept as open until the Result that names it.
func (j *Journal) Do(ctx context.Context, p seal.Promise, e *Entry, effect func(*seal.Tx) error) (uint64, error) {
	n, err := j.store.Update(ctx, p, func(tx *seal.Tx) (any, error) {
		if effect != nil {
			if err := effect(tx); err != nil {
				return nil, err
			}
		}
		e.Format = trail.Format
		if err := e.Check(); err != nil {
			return nil, fault.Errorf(fault.Unexpected, "write the audit trail: %w", err)
		}
		if err := follow(tx, e); err != nil {
			return nil, err
		}
		return e, nil
	})
	if err == nil && j.tell != nil {
		j.tell()
	}
	return n, err
}

// follow keeps the list of open intents.
func follow(tx *seal.Tx, e *Entry) error {
	switch e.Kind {
	case trail.Intent:
		if e.Request == "" {
			return fault.New(fault.Unexpected, "an intent without the id of its call")
		}
		raw, err := jcs.Marshal(e)
		if err != nil {
			return err
		}
		return tx.Put(bucketOpen, number(tx.Seq()), raw)
	case trail.Result:
		if err := tx.Delete(bucketOpen, number(*e.Intent)); err != nil {
			return errors.Join(ErrResult, err)
		}
	}
	return nil
}

// number is the key of an entry: in the order of the log.
func number(n uint64) string { return fmt.Sprintf("%016x", n) }

// Open is an intent without a result.
type Open struct {
	Seq   uint64
	Entry Entry
}

// Open lists the intents that have no result: after a start, those whose outcome is
// unknown until somebody looks it up and writes it.
func (j *Journal) Open() ([]Open, error) {
	var out []Open
	err := j.store.View(func(v *seal.View) error {
		for _, k := range v.Keys(bucketOpen, "") {
			n, err := strconv.ParseUint(k, 16, 64)
			if err != nil {
				return fault.Errorf(fault.Verify, "open intent %q: %w", k, err)
			}
			raw, err := v.Get(bucketOpen, k)
			if err != nil {
				return err
			}
			o := Open{Seq: n}
			if err := jcs.Unmarshal(raw, &o.Entry); err != nil {
				return err
			}
			out = append(out, o)
		}
		return nil
	})
	return out, err
}

// Health is that of the store under the trail.
func (j *Journal) Health() seal.Health { return j.store.Health() }

// Read returns entry n.
func (j *Journal) Read(n uint64) (*Entry, error) {
	raw, err := j.store.Entry(n)
	if err != nil {
		return nil, err
	}
	var leaf trail.Leaf
	if err := jcs.Unmarshal(raw, &leaf); err != nil {
		return nil, err
	}
	var e Entry
	return &e, jcs.Unmarshal(leaf.Entry, &e)
}
