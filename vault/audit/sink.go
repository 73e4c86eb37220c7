package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
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
	// Error is why the last try failed, nil if it did not; Since is when the trouble
	// began.
	Error error
	Since time.Time
}

// Sinks copies the trail to the sinks of the charter. A sink that hangs, is full or
// is gone holds up nobody; it catches up when it works again, from where it was.
// Delivery is at least once: after a crash the last lines may come again.
type Sinks struct {
	store *seal.Store
	dir   string
	now   func() time.Time
	retry time.Duration // after a failure

	mu      sync.Mutex // guards running
	running map[string]*sink
}

// NewSinks copies from the store. Files, and for each sink the cursor up to which it
// has the trail, lie in dir, which must exist.
func NewSinks(s *seal.Store, dir string, now func() time.Time) *Sinks {
	return &Sinks{store: s, dir: dir, now: now, retry: sinkRetry, running: map[string]*sink{}}
}

// sink is one that is running.
type sink struct {
	charter.AuditSink
	all    *Sinks
	out    writer
	wake   chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex // guards the rest
	state SinkState
}

// Set makes the sinks those of the charter: it starts new ones and ends those that
// are no more. Ended ones are waited for; Set(nil) ends all.
func (s *Sinks) Set(want map[string]charter.AuditSink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.running {
		if want[id] == x.AuditSink {
			continue
		}
		x.cancel()
		<-x.ended
		delete(s.running, id)
	}
	for id, w := range want {
		if s.running[id] == nil {
			s.running[id] = s.start(w)
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

// States tells how each sink is.
func (s *Sinks) States() map[string]SinkState {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := uint64(s.store.Head().Size)
	out := map[string]SinkState{}
	for id, x := range s.running {
		x.mu.Lock()
		st := x.state
		x.mu.Unlock()
		st.Behind = size - min(size, st.Cursor)
		out[id] = st
	}
	return out
}

func (s *Sinks) start(w charter.AuditSink) *sink {
	ctx, cancel := context.WithCancel(context.Background())
	x := &sink{AuditSink: w, all: s, wake: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{})}
	x.state = SinkState{ID: w.ID, Kind: w.Kind}
	if w.Kind == "syslog" {
		x.out = &syslog{address: w.Address, id: w.ID}
	} else {
		x.out = &file{path: filepath.Join(s.dir, w.ID+".jsonl")}
	}
	go x.run(ctx)
	return x
}

// run copies until it is told to end.
func (x *sink) run(ctx context.Context) {
	defer close(x.ended)
	defer x.out.close()
	cursor, err := x.load()
	x.note(cursor, err)
	tick := time.NewTicker(x.all.retry)
	defer tick.Stop()
	for {
		more := false
		if err == nil {
			cursor, more, err = x.step(ctx, cursor)
			x.note(cursor, err)
		}
		if more && err == nil && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-x.wake:
		case <-tick.C:
			if err != nil {
				cursor, err = x.again(cursor, err)
			}
		}
	}
}

// again begins after a failure: where the cursor could not be read, with reading it.
func (x *sink) again(cursor uint64, err error) (uint64, error) {
	if errors.Is(err, errCursor) {
		cursor, err = x.load()
		x.note(cursor, err)
		return cursor, err
	}
	x.out.close()
	return cursor, nil
}

// note keeps what States shows.
func (x *sink) note(cursor uint64, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.state.Cursor, x.state.Error = cursor, err
	switch {
	case err == nil:
		x.state.Since = time.Time{}
	case x.state.Since.IsZero():
		x.state.Since = x.all.now()
	}
}

// step copies one batch, and says whether there is more.
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
		return cursor, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, sinkTimeout)
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
	return n, nil
}

func (x *sink) save(n uint64) error {
	return durable.Replace(x.cursorPath(), strconv.AppendUint(nil, n, 10), 0o600)
}

// file appends leaves to a file, one a line. Who moves the file away gets a new
// one, which goes on where the old one ended.
type file struct {
	path string
	f    *os.File
}

func (w *file) close() {
	if w.f != nil {
		_ = w.f.Close()
		w.f = nil
	}
}

func (w *file) write(_ context.Context, leaves []numberedLeaf) error {
	if err := w.open(); err != nil {
		return err
	}
	start, err := w.f.Seek(0, 2)
	if err != nil {
		return fault.Errorf(fault.Storage, "write audit sink: %w", err)
	}
	var b bytes.Buffer
	for _, l := range leaves {
		b.Write(l.raw)
		b.WriteByte('\n')
	}
	_, err = w.f.Write(b.Bytes())
	if err == nil {
		err = w.f.Sync()
	}
	if err != nil {
		_ = w.f.Truncate(start) // no half lines where there was no room for whole ones
		return fault.Errorf(fault.Storage, "write audit sink: %w", err)
	}
	return nil
}

// open opens the file under its name, if it is not the one that is open. A file that
// is none, such as a pipe that nobody reads, is refused at once.
func (w *file) open() error {
	st, err := os.Lstat(w.path)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return fault.Errorf(fault.Storage, "audit sink %q is not a regular file", w.path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fault.Errorf(fault.Storage, "open audit sink: %w", err)
	case err == nil && w.f != nil:
		if have, e := w.f.Stat(); e == nil && os.SameFile(st, have) {
			return nil
		}
	}
	w.close()
	if w.f, err = os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|noFollow, 0o600); err != nil {
		return fault.Errorf(fault.Storage, "open audit sink: %w", err)
	}
	if err := durable.SyncDir(filepath.Dir(w.path)); err != nil {
		w.close()
		return err
	}
	return mend(w.f, w.path)
}

// mend cuts off a last line that a crash left without its end.
func mend(f *os.File, path string) error {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	r, err := os.Open(path)
	if err != nil {
		return fault.Errorf(fault.Storage, "read audit sink: %w", err)
	}
	defer r.Close()
	tail := make([]byte, min(st.Size(), 2<<20))
	if _, err := r.ReadAt(tail, st.Size()-int64(len(tail))); err != nil {
		return fault.Errorf(fault.Storage, "read audit sink: %w", err)
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	if end == len(tail) {
		return nil
	}
	return f.Truncate(st.Size() - int64(len(tail)-end))
}

// decode reads what a syslog line needs of a leaf.
func decode(raw []byte) (*Entry, error) {
	var leaf struct {
		Entry Entry `json:"entry"`
	}
	if err := json.Unmarshal(raw, &leaf); err != nil {
		return nil, fault.Errorf(fault.Verify, "read the trail: %w", err)
	}
	return &leaf.Entry, nil
}
