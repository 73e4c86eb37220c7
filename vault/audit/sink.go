package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/vault/seal"
)

// writer is one kind of sink.
type writer interface {
	// write takes leaves, in order, and returns when the sink has them.
	write(ctx context.Context, leaves []numberedLeaf) error
	// check finds out whether the sink is as it was left, when there is nothing to write.
	check() error
	close()
}

type numberedLeaf struct {
	seq uint64
	raw []byte
}

// Limits of one step of a sink.
const (
	sinkBatch   = 256
	sinkTimeout = 10 * time.Second
	sinkRetry   = 2 * time.Second
)

// SinkState is what a status page shows of a sink.
type SinkState struct {
	ID, Kind string
	Cursor   uint64 // entries that it has
	Behind   uint64 // entries that it has not
	// Error is why the last try failed, or that it does not end; nil if it went well.
	// Since is when the trouble began.
	Error error
	Since time.Time
	// Deleted is when it was last noticed, since the vault was opened, that the sink's
	// file was deleted; zero if it was not. The sink goes on in a new one, from entry
	// Lost on: copies of those before are gone.
	Deleted time.Time
	Lost    uint64
}

// Sinks copies the trail to the sinks of the charter. A sink that hangs, is full or
// is gone holds up nobody; it catches up when it works again, from where it was.
// Delivery is at least once: after a crash, or where it hung while it was ended, the last
// lines may come again.
type Sinks struct {
	store *seal.Store
	dir   string
	now   func() time.Time
	log   *slog.Logger
	retry time.Duration // after a failure
	limit time.Duration // of one step
	// open makes the writer of a sink.
	open func(*sink) writer

	setting sync.Mutex // one Set at a time; held while those that end are waited for

	mu      sync.Mutex // guards running
	running map[string]*sink
}

// NewSinks copies from the store. Files, and for each sink the cursor up to which it
// has the trail, lie in dir, which is made for the first. log is the operator's.
func NewSinks(s *seal.Store, dir string, now func() time.Time, log *slog.Logger) *Sinks {
	x := &Sinks{store: s, dir: dir, now: now, log: log, retry: sinkRetry, limit: sinkTimeout, running: map[string]*sink{}}
	x.open = (*sink).writer
	return x
}

// sink is one that is running.
type sink struct {
	charter.AuditSink
	all    *Sinks
	out    writer
	wake   chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}
	saved  uint64 // the cursor as it is kept

	mu    sync.Mutex // guards the rest
	state SinkState
	began time.Time // what is being done; zero between two tries
}

// Set makes the sinks those of the charter: it starts new ones and ends those that
// are no more; Set(nil) ends all. Ended ones are waited for, but for 10 seconds at most:
// one that hangs is left behind, and the operator is told.
func (s *Sinks) Set(want map[string]charter.AuditSink) {
	s.setting.Lock()
	defer s.setting.Unlock()
	s.await(s.others(want))
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range want {
		if s.running[id] == nil {
			s.running[id] = s.start(w)
		}
	}
}

// others takes out those that run and are not wanted, and tells them to end.
func (s *Sinks) others(want map[string]charter.AuditSink) (out []*sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.running {
		if want[id] != x.AuditSink {
			x.cancel()
			out = append(out, x)
			delete(s.running, id)
		}
	}
	return out
}

// await waits for sinks that were told to end.
func (s *Sinks) await(ending []*sink) {
	ctx, cancel := context.WithTimeout(context.Background(), s.limit)
	defer cancel()
	for _, x := range ending {
		select {
		case <-x.ended:
			continue
		case <-ctx.Done():
		}
		select {
		case <-x.ended:
		default:
			s.log.ErrorContext(ctx, "an audit sink hangs and was left behind: what it was given last may come later, and again", slog.String("id", x.ID))
		}
	}
}

// Wake tells the sinks that there are new entries. It never waits.
func (s *Sinks) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.running {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
}

// States tells how each sink is. It never waits.
func (s *Sinks) States() map[string]SinkState {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := uint64(s.store.Head().Size)
	out := map[string]SinkState{}
	for id, x := range s.running {
		st := x.shown()
		st.Behind = size - min(size, st.Cursor)
		out[id] = st
	}
	return out
}

// shown is the state, with what is being done and does not end.
func (x *sink) shown() SinkState {
	x.mu.Lock()
	defer x.mu.Unlock()
	st := x.state
	if x.began.IsZero() {
		return st
	}
	if d := time.Since(x.began); d > x.all.limit {
		st.Error = fault.Errorf(fault.Storage, "it hangs: nothing has come back for %s", d.Round(time.Second))
		if st.Since.IsZero() {
			st.Since = x.all.now().Add(-d)
		}
	}
	return st
}

func (s *Sinks) start(w charter.AuditSink) *sink {
	ctx, cancel := context.WithCancel(context.Background())
	x := &sink{AuditSink: w, all: s, wake: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{})}
	x.out, x.state = s.open(x), SinkState{ID: w.ID, Kind: w.Kind}
	go x.run(ctx)
	return x
}

// writer is what writes to a sink.
func (x *sink) writer() writer {
	if x.Kind == "syslog" {
		return &syslog{address: x.Address, id: x.ID}
	}
	return &file{path: filepath.Join(x.all.dir, x.ID+".jsonl"), deleted: x.deleted}
}

// run copies until it is told to end.
func (x *sink) run(ctx context.Context) {
	defer close(x.ended)
	defer x.out.close()
	tick := time.NewTicker(x.all.retry)
	defer tick.Stop()
	cursor, more, err := uint64(0), false, error(errCursor) // it was not read yet
	for ctx.Err() == nil {
		if cursor, more, err = x.try(ctx, cursor, err); more && err == nil {
			continue
		}
		wake := x.wake
		if err != nil {
			wake = nil // new entries mend nothing
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-tick.C:
		}
	}
}

// try does what is next after last, and keeps how it went: where the cursor could not be
// read that comes first, and after another failure the sink is opened anew.
func (x *sink) try(ctx context.Context, cursor uint64, last error) (_ uint64, more bool, err error) {
	x.begin()
	defer func() { x.note(cursor, err) }()
	if errors.Is(last, errCursor) {
		cursor, err = x.load()
	} else if last != nil {
		x.out.close()
	}
	if err == nil {
		cursor, more, err = x.step(ctx, cursor)
	}
	return cursor, more, err
}

// begin keeps since when something is being done, which may hang.
func (x *sink) begin() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.began = time.Now()
}

// note keeps how what was begun ended.
func (x *sink) note(cursor uint64, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.began, x.state.Cursor, x.state.Error = time.Time{}, cursor, err
	switch {
	case err == nil:
		x.state.Since = time.Time{}
	case x.state.Since.IsZero():
		x.state.Since = x.all.now()
	}
}

// deleted keeps that the sink's file was found deleted.
func (x *sink) deleted() {
	x.mu.Lock()
	lost := x.state.Cursor
	x.state.Deleted, x.state.Lost = x.all.now(), lost
	x.mu.Unlock() // the operator's log may be slow, and States waits for nobody
	x.all.log.LogAttrs(context.Background(), slog.LevelError, "the file of an audit sink was deleted; a new one goes on, without what that one had", slog.String("id", x.ID), slog.Uint64("entries", lost))
}

// step copies one batch, and says whether there is more. Where there is nothing to copy
// it looks after the sink.
func (x *sink) step(ctx context.Context, cursor uint64) (uint64, bool, error) {
	size := uint64(x.all.store.Head().Size)
	var batch []numberedLeaf
	for n := cursor; n < size && len(batch) < sinkBatch; n++ {
		raw, err := x.all.store.Entry(n)
		if err != nil {
			return cursor, false, err
		}
		batch = append(batch, numberedLeaf{n, raw})
	}
	if batch == nil {
		if err := x.out.check(); err != nil || cursor == x.saved {
			return cursor, false, err
		}
		return cursor, false, x.save(cursor)
	}
	ctx, cancel := context.WithTimeout(ctx, x.all.limit)
	defer cancel()
	if err := x.out.write(ctx, batch); err != nil {
		return cursor, false, err
	}
	next := cursor + uint64(len(batch))
	return next, next < size, x.save(next)
}

var errCursor = fault.New(fault.Storage, "the cursor of the audit sink cannot be read")

func (x *sink) cursorPath() string { return filepath.Join(x.all.dir, x.ID+".cursor") }

// load reads how far the sink came. A cursor beyond the trail is one of another
// store.
func (x *sink) load() (uint64, error) {
	if err := os.MkdirAll(x.all.dir, 0o700); err != nil {
		return 0, errors.Join(errCursor, fault.Errorf(fault.Storage, "make the folder of audit sinks: %w", err))
	}
	data, err := intake.Read(x.cursorPath(), 32)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, errors.Join(errCursor, err)
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(data)), 10, 64)
	if err != nil || n > uint64(x.all.store.Head().Size) {
		return 0, errors.Join(errCursor, fault.Hint(fault.Errorf(fault.Storage, "%s says %.20q", x.cursorPath(), data), "remove the file: the whole trail is copied again"))
	}
	x.saved = n
	return n, nil
}

func (x *sink) save(n uint64) error {
	err := durable.Replace(x.cursorPath(), strconv.AppendUint(nil, n, 10), 0o600)
	if err == nil {
		x.saved = n
	}
	return err
}
