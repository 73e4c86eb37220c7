// Package audit is the vault's trail: who asked for what, what was decided, and
// what came of it. Each entry is a leaf of the store's log, written in the same
// transaction as the effect it tells of, and an answer leaves only when its entry
// is durable. vault/node writes it; sinks are copies that are made afterwards, and
// can neither hold up a request nor change what stands in the log.
//
// An entry must never hold a secret: engines say which parameters are public.
package audit

import (
	"context"

	"keyrite/vault/seal"
)

// Format names an entry.
const Format = "keyrite/audit/v1"

// Kind says what an entry tells of.
type Kind string

// The kinds.
const (
	Request Kind = "request" // a call that was decided and made; its effect is in the same transaction
	Refused Kind = "refused" // a call that was refused
	Intent  Kind = "intent"  // a call whose effect in the token comes next
	Result  Kind = "result"  // what became of an intent
	Life    Kind = "life"    // the vault itself: opened, sealed, charter taken over, intents looked up
)

// Entry is one entry. Members that do not apply are left out.
type Entry struct {
	Accessor  string         `json:"accessor,omitempty"` // of the caller's token
	Charter   int            `json:"charter"`            // size of the charter that decided
	Class     string         `json:"class,omitempty"`    // of the error; none if it went well
	Error     string         `json:"error,omitempty"`    // as the caller was told
	Format    string         `json:"format"`
	Identity  string         `json:"identity,omitempty"`
	Intent    *uint64        `json:"intent,omitempty"` // number of the entry that this is the result of
	Kind      Kind           `json:"kind"`
	Means     string         `json:"means,omitempty"`
	Operation string         `json:"operation"` // capability, or what the vault did
	Params    map[string]any `json:"params,omitempty"`
	Path      string         `json:"path,omitempty"`
	Remote    string         `json:"remote,omitempty"` // address of the client, without port
	Request   string         `json:"request"`          // id of the call, hex
	Result    map[string]any `json:"result,omitempty"`
	Time      string         `json:"time"` // RFC 3339, UTC, milliseconds
}

// Journal writes entries.
type Journal struct{ store *seal.Store }

// NewJournal is the journal of an open store.
func NewJournal(s *seal.Store) *Journal { return &Journal{s} }

// Do makes one transaction of effect and entry, and returns the entry's number when
// both are durable. effect may be nil; it may complete the entry. Its error leaves
// nothing behind.
func (j *Journal) Do(ctx context.Context, p seal.Promise, e *Entry, effect func(*seal.Tx) error) (uint64, error) {
	return j.store.Update(ctx, p, func(tx *seal.Tx) (any, error) {
		if effect != nil {
			if err := effect(tx); err != nil {
				return nil, err
			}
		}
		e.Format = Format
		return e, nil
	})
}
