// Package lease keeps what the vault gave out for a time, and ends it: at its time, when
// it is revoked, and when the token or the identity ends under which it was given.
// vault/node enters what engines answer with, and runs the worker while the vault is
// open.
//
// Leases are in the store, each entered in the transaction that gave the thing out and
// taken out in the one in which its engine ends it, so that a kill leaves neither a
// thing without its lease nor an end that was not in the log. What is in memory is an
// index of the store and nothing more. Sealing ends no lease; those whose time came
// meanwhile end at the next start.
//
// This package must never know what an engine gave out, or end what the store does not
// say is due.
package lease

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Limits.
const (
	// MaxLife is the longest life of a lease, with all renewals. One that was given
	// under a token never outlives the token's end.
	MaxLife = 32 * 24 * time.Hour
	// MaxLeases is how many one identity may have.
	MaxLeases = 20_000
	// maxAllLeases bounds the memory: one takes about 500 bytes.
	maxAllLeases = 200_000
)

const (
	// bucketLeases has the leases by id: docs/formats/store.md.
	bucketLeases = "lease"
	// format names a lease in the store.
	format = "keyrite/lease/v1"
)

// Classes of refusal.
var (
	// ErrTooMany says that an identity, or all together, have as many leases as they may.
	ErrTooMany = fault.New(fault.Quota, "too many leases are out")
	// ErrNotRenewed says that a lease ends when it ends.
	ErrNotRenewed = fault.New(fault.Policy, "this lease is not renewed")
)

// Tokens is what a Book needs to know of the tokens that are out; identity.Registry.
type Tokens interface {
	// Gone says that a token has ended, other than by sealing.
	Gone(accessor string) bool
	// End is the moment beyond which a token is not renewed.
	End(accessor string) (time.Time, error)
}

// Config is what a Book needs. All but Log is required.
type Config struct {
	// Charter is the charter in force. It must not be changed.
	Charter func() *charter.State
	// View reads the store at one moment.
	View func(func(*seal.View) error) error
	// Journal writes the entries of what ends by itself.
	Journal *audit.Journal
	// Now is the clock on the wall.
	Now func() time.Time
	// Tokens knows the tokens under which leases are given.
	Tokens Tokens
	// Engine is the engine at a mount; nil if there is none.
	Engine func(mount string) engine.Engine
	// Log is for the operator. Default: nothing is logged.
	Log *slog.Logger
}

// record is a lease as the store has it. Times are in milliseconds since 1970.
type record struct {
	Accessor  string `json:"accessor,omitempty"` // of the token; none where it is the identity's
	Expires   int64  `json:"expires"`
	Format    string `json:"format"`
	Identity  string `json:"identity"`
	Issued    int64  `json:"issued"`
	Most      int64  `json:"most"`             // renewed up to here
	Object    string `json:"object,omitempty"` // for the engine
	Renewable bool   `json:"renewable,omitempty"`
	Renewed   int64  `json:"renewed,omitempty"` // last time
	TTL       int64  `json:"ttl"`               // in milliseconds
}

func (r *record) due(now time.Time) bool { return now.UnixMilli() >= r.Expires }

// getter is what View and Tx have in common.
type getter interface {
	Get(bucket, key string) ([]byte, error)
}

func read(s getter, id string) (*record, error) {
	raw, err := s.Get(bucketLeases, id)
	if err != nil {
		return nil, err
	}
	var r record
	if err := jcs.Unmarshal(raw, &r); err != nil {
		return nil, err
	}
	if r.Format != format {
		return nil, fault.Errorf(fault.Verify, "lease %s is of format %.40q", id, r.Format)
	}
	return &r, nil
}

func write(tx *seal.Tx, id string, r *record) error {
	r.Format = format
	raw, err := jcs.Marshal(r)
	if err != nil {
		return err
	}
	return tx.Put(bucketLeases, id, raw)
}

// Book has the leases of an open vault. It may be used by any number of goroutines.
type Book struct {
	c     Config
	clock *clock
	kick  chan struct{}

	mu    sync.Mutex // guards index
	index index
}

// New reads the leases of a store.
func New(c Config) (*Book, error) {
	if c.Charter == nil || c.View == nil || c.Journal == nil || c.Now == nil || c.Tokens == nil || c.Engine == nil {
		return nil, fault.New(fault.Usage, "leases need a charter, a store, a journal, a clock, tokens and engines")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	b := &Book{c: c, kick: make(chan struct{}, 1), index: newIndex()}
	newest := int64(0)
	err := c.View(func(v *seal.View) error {
		for _, id := range v.Keys(bucketLeases, "") {
			r, err := read(v, id)
			if err != nil {
				return fmt.Errorf("read lease %s: %w", id, err)
			}
			newest = max(newest, r.Issued, r.Renewed)
			b.index.add(id, item{identity: r.Identity, expires: r.Expires})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	b.clock = newClock(c.Now, time.UnixMilli(newest))
	return b, nil
}

// mountOf is the mount of a lease: the first segment of its id.
func mountOf(id string) string {
	m, _, _ := strings.Cut(id, "/")
	return m
}

// Issue enters what an engine gave out on a path, in the transaction that gives it
// out, and sets the lease's id and the life that it has.
func (b *Book) Issue(tx *seal.Tx, c engine.Caller, p access.Path, l *engine.Lease) error {
	if l.TTL < time.Second || l.ID != "" || c.Identity == "" || p.String() == "" {
		return fault.New(fault.Unexpected, "a lease of nothing, of nobody, or for no time")
	}
	now := b.clock.now()
	if l.Lasting {
		c.Accessor = "" // as if its connection had stood for the caller
	}
	most, err := b.most(c, now)
	if err != nil {
		return err
	}
	var name [16]byte
	rand.Read(name[:])
	id := p.String() + "/" + hex.EncodeToString(name[:])
	if _, err := access.ParsePath(id); err != nil {
		return fmt.Errorf("name the lease: %w", err)
	}
	r := &record{Accessor: c.Accessor, Identity: c.Identity, Issued: now.UnixMilli(), Most: most.UnixMilli(), Object: l.Object, Renewable: l.Renewable, TTL: l.TTL.Milliseconds()}
	r.Expires = min(now.Add(l.TTL).UnixMilli(), r.Most)
	if err := b.room(c.Identity); err != nil {
		return err
	}
	if err := write(tx, id, r); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.index.add(id, item{identity: r.Identity, accessor: r.Accessor, expires: r.Expires})
	l.ID, l.TTL = id, r.left(now)
	return nil
}

// left is for how long a lease lives from now on.
func (r *record) left(now time.Time) time.Duration {
	return max(0, time.Duration(r.Expires-now.UnixMilli())*time.Millisecond)
}

// most is until when a lease of the caller may live.
func (b *Book) most(c engine.Caller, now time.Time) (time.Time, error) {
	most := now.Add(MaxLife)
	if c.Accessor == "" {
		return most, nil
	}
	end, err := b.c.Tokens.End(c.Accessor)
	if err != nil {
		return most, err
	}
	// As a span: the token's end has a monotonic reading, and this clock is another.
	if span := end.Sub(b.c.Now()); span < MaxLife {
		most = now.Add(span)
	}
	return most, nil
}

func (b *Book) room(identity string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.index.count[identity]; n >= MaxLeases || len(b.index.all) >= maxAllLeases {
		return fault.Errorf(fault.Quota, "%w: %d of %s", ErrTooMany, n, identity)
	}
	return nil
}

// end has the engine end a lease, in the transaction of its entry.
func (b *Book) end(tx *seal.Tx, id string, r *record) error {
	if e, ok := b.c.Engine(mountOf(id)).(engine.Ender); ok && r.Object != "" {
		if err := e.End(tx, r.Object, b.clock.now()); err != nil {
			return fmt.Errorf("end lease %s: %w", id, err)
		}
	}
	return tx.Delete(bucketLeases, id)
}

// EndToken makes the leases of a token due, in the transaction that revokes it; the
// worker ends them at once. It is for identity.Config.Ended: what an engine cannot end
// now must not keep a token alive.
func (b *Book) EndToken(tx *seal.Tx, accessor string, _ time.Time) error {
	at := b.clock.now()
	b.mu.Lock()
	ids := b.index.ofToken(accessor, at, maxAtOnce)
	b.mu.Unlock()
	now := at.UnixMilli()
	for _, id := range ids {
		r, err := read(tx, id)
		if errors.Is(err, seal.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if r.Expires = min(r.Expires, now); r.Accessor != accessor {
			continue
		}
		if err := write(tx, id, r); err != nil {
			return err
		}
	}
	b.Kick()
	return nil
}

// Kick has the worker look now: the charter or a token changed.
func (b *Book) Kick() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// Count is how many leases are out, for a status page.
func (b *Book) Count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.index.all)
}

// Run ends what is due until ctx ends. It is called once.
func (b *Book) Run(ctx context.Context) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		b.round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-b.kick:
		}
	}
}
