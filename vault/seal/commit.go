package seal

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// Promise is what an update waits for before it is acknowledged. The zero value
// is none and is refused.
type Promise int

// The promises.
const (
	// Durable: the update is on the disk. A copy of the file from before may
	// still be put back unnoticed for Config.Window.
	Durable Promise = iota + 1
	// Strict: the head outside the file knows of it, too. For charter, approvals,
	// quota, revocation and seal.
	Strict
)

// maxGroup bounds how many updates share one commit.
const maxGroup = 256

// groupDelay is how long a commit waits for more updates, if the one before it was
// shared. Where many ask at once, that makes fewer and larger commits, which cost each
// of them less than it waits; who asks alone does not wait.
const groupDelay = 100 * time.Microsecond

// update is one that waits for its commit.
type update struct {
	promise Promise
	make    func(*Tx) (any, error)
	done    chan outcome // has room for one
	// taken is set once: by the commit that makes the update, or by a caller who
	// gives up before.
	taken atomic.Bool
}

type outcome struct {
	seq uint64
	err error
}

// Update makes one transaction: everything that f changes, and the entry that it
// returns, or nothing. f runs once, alone, and must not block; the entry is
// written as canonical JSON into the log. The result is the entry's number.
//
// An error of f is returned as it is and leaves nothing behind. ErrStopped and
// ErrUnconfirmed say that the change may or may not hold after a restart, ErrLagging
// that it was not made. When
// ctx ends before f is run, it never is, and the error of ctx is returned; later
// it is not looked at.
func (s *Store) Update(ctx context.Context, p Promise, f func(*Tx) (entry any, err error)) (uint64, error) {
	if p != Durable && p != Strict {
		return 0, fault.New(fault.Usage, "an update without a promise")
	}
	u := &update{promise: p, make: f, done: make(chan outcome, 1)}
	select {
	case s.updates <- u:
	case <-s.closing:
		return 0, s.stopped()
	case <-ctx.Done():
		return 0, fmt.Errorf("update the store: %w", ctx.Err())
	}
	select {
	case o := <-u.done:
		return o.seq, o.err
	case <-s.ended:
	case <-ctx.Done():
		if u.taken.CompareAndSwap(false, true) {
			return 0, fmt.Errorf("update the store: %w", ctx.Err())
		}
		// The outcome is known only from the commit.
		select {
		case o := <-u.done:
			return o.seq, o.err
		case <-s.ended:
		}
	}
	select {
	case o := <-u.done:
		return o.seq, o.err
	default:
		return 0, s.stopped() // it came too late to be looked at
	}
}

// commits is the one goroutine that writes.
func (s *Store) commits() {
	defer close(s.ended)
	delay := time.NewTimer(0)
	defer delay.Stop()
	shared := false
	for {
		select {
		case u := <-s.updates:
			if shared {
				delay.Reset(groupDelay)
				<-delay.C
			}
			g := s.gather(u)
			shared = len(g) > 1
			s.group(g)
		case <-s.closing:
			for {
				select {
				case u := <-s.updates:
					u.done <- outcome{err: s.stopped()}
				default:
					return
				}
			}
		}
	}
}

// gather takes what else is waiting: they share one sync of the disk.
func (s *Store) gather(first *update) []*update {
	g := []*update{first}
	for len(g) < maxGroup {
		select {
		case u := <-s.updates:
			g = append(g, u)
		default:
			return g
		}
	}
	return g
}

// member is an update of a group that is to be committed.
type member struct {
	*update
	changes map[slot]change
	entry   json.RawMessage
	seq     uint64
}

// group commits updates together and answers each.
func (s *Store) group(us []*update) {
	// After a failed write bbolt has forgotten pages that the disk may have: one
	// more commit could overwrite what is in use.
	if s.Health().Stopped != nil {
		answer(us, s.stopped())
		return
	}
	if err := s.catchUp(); err != nil {
		answer(us, err)
		return
	}
	members, st, err := s.write(us)
	if err != nil {
		// Whatever it was: nobody knows what the disk has.
		s.stop(err)
		for _, m := range members {
			m.done <- outcome{err: s.stopped()}
		}
		return
	}
	if st == nil {
		return // every one of them failed by itself
	}
	s.setState(*st)
	strict := false
	for _, m := range members {
		if m.promise == Strict {
			strict = true
			continue
		}
		m.done <- outcome{seq: m.seq}
	}
	if !strict {
		s.nudge()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), advanceTimeout)
	defer cancel()
	if err = s.advance(ctx); err != nil {
		err = fmt.Errorf("%w: %w", ErrUnconfirmed, err)
	}
	for _, m := range members {
		if m.promise == Strict {
			m.done <- outcome{seq: m.seq, err: err}
		}
	}
}

func answer(us []*update, err error) {
	for _, u := range us {
		u.done <- outcome{err: err}
	}
}

// write makes the updates and commits those that succeed. Those that fail are
// answered at once. The returned state is nil if there was nothing to commit;
// the members are those whose outcome hangs on the error.
func (s *Store) write(us []*update) (members []*member, st *state, err error) {
	tx, err := s.db.Begin(true)
	if err != nil {
		for _, u := range us {
			members = append(members, &member{update: u})
		}
		return members, nil, err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	over := map[slot]change{}
	for _, u := range us {
		if !u.taken.CompareAndSwap(false, true) {
			continue // its caller gave up
		}
		t := &Tx{reader: reader{tx.Bucket(bucketValues), s.sealer}, seq: uint64(s.current().size) + uint64(len(members)), over: over, changes: map[slot]change{}}
		entry, err := u.make(t)
		var raw []byte
		if err == nil {
			raw, err = jcs.Marshal(entry)
		}
		if err != nil {
			u.done <- outcome{err: err}
			continue
		}
		maps.Copy(over, t.changes)
		members = append(members, &member{update: u, changes: t.changes, entry: raw})
	}
	if len(members) == 0 {
		return nil, nil, nil
	}
	next := s.current()
	if err := s.put(tx, members, &next); err != nil {
		return members, nil, err
	}
	return members, &next, tx.Commit()
}

// put writes the members and the state after them.
func (s *Store) put(tx *bolt.Tx, members []*member, st *state) error {
	for _, m := range members {
		m.seq = uint64(st.size)
		if err := s.sealer.apply(tx.Bucket(bucketValues), m.seq, m.changes, &st.set); err != nil {
			return err
		}
		if err := s.sealer.log(tx, m.seq, m.entry, st.set); err != nil {
			return err
		}
		st.size++
	}
	return s.sealer.putState(tx, st)
}

// log appends one entry.
func (s *sealer) log(tx *bolt.Tx, seq uint64, entry json.RawMessage, set setHash) error {
	raw, err := jcs.Marshal(leaf{Entry: entry, Seq: seq, State: set.shown()})
	if err != nil {
		return err
	}
	sealed, err := s.seal(string(bucketLog), number(seq), seq, raw)
	if err != nil {
		return err
	}
	b := tx.Bucket(bucketLog)
	b.FillPercent = 1 // it only grows at its end
	if err := b.Put(number(seq), sealed); err != nil {
		return err
	}
	t := tx.Bucket(bucketTree)
	t.FillPercent = 1
	return appendLeaf(t, int64(seq), raw)
}

func (s *sealer) putState(tx *bolt.Tx, st *state) error {
	root, err := rootAt(tx.Bucket(bucketTree), st.size)
	if err != nil {
		return err
	}
	st.root = root
	sealed, err := s.seal(string(bucketMeta), keyState, uint64(st.size), st.marshal())
	if err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyState, sealed)
}

// catchUp waits for the Keeper where the head has been behind for too long, and
// refuses where it cannot be reached: the promise of Durable is that only Window
// can be lost, also while a Keeper hangs.
func (s *Store) catchUp() error {
	s.mu.Lock()
	since := s.behindSince
	s.mu.Unlock()
	if since.IsZero() || s.now().Sub(since) < s.window {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), advanceTimeout)
	defer cancel()
	if err := s.advance(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrLagging, err)
	}
	return nil
}

// heads is the goroutine that advances the head after Durable updates, and tries
// again where it failed.
func (s *Store) heads() {
	defer close(s.headsEnded)
	tick := time.NewTicker(s.window / 2)
	defer tick.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-s.wake:
		case <-tick.C:
		case <-s.closing:
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), advanceTimeout)
		_ = s.advance(ctx) // kept in the store and told by Health
		cancel()
		pause.Reset(s.pause)
		select {
		case <-pause.C:
		case <-s.closing:
			return
		}
	}
}

// advanceTimeout bounds one try to reach a Keeper.
const advanceTimeout = 10 * time.Second

func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
