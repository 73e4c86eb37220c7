package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	mod "golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/internal/durable"
)

// FileName is the store within its folder.
const FileName = "store.db"

// lockName is locked by the process that has the store.
const lockName = "store.lock"

// DefaultWindow is for how long an older copy of the file could be put back
// unnoticed, apart from Strict updates.
const DefaultWindow = time.Second

// DefaultPause is the least time between two advances of the head that nobody waits
// for: the promise of Durable is the window, and an advance for each commit would cost
// as much as the commit. A shorter window has a shorter pause.
const DefaultPause = 100 * time.Millisecond

// Config says where a store is. All but Window, Pause and Now are required.
type Config struct {
	// Dir is the folder of the store.
	Dir string
	// Place is the vault, world and epoch; a store of another is refused.
	Place Place
	// Head keeps the newest head.
	Head Keeper
	// Check opens and reads the file in a process of its own: Guard of this
	// program's own executable.
	Check func(ctx context.Context, path string) (Counted, error)
	// Window bounds how long the head may be behind. Default DefaultWindow.
	Window time.Duration
	// Pause is the least time between two advances that nobody waits for, less than
	// Window. Default DefaultPause, or an eighth of a shorter window.
	Pause time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (c *Config) check() error {
	if err := c.Place.check(); err != nil {
		return err
	}
	if c.Head == nil || c.Check == nil || c.Dir == "" {
		return fault.New(fault.Usage, "a store needs a folder, a keeper of its head and a guard")
	}
	if c.Window < 0 {
		return fault.New(fault.Usage, "the window of the head is negative")
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.Pause == 0 {
		c.Pause = min(DefaultPause, c.Window/8)
	}
	if c.Pause < 0 || c.Pause >= c.Window {
		return fault.New(fault.Usage, "the pause between two heads is not shorter than the window")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// Store is an open store. It may be used by any number of goroutines.
type Store struct {
	db      *bolt.DB
	sealer  *sealer
	place   Place
	keeper  Keeper
	window  time.Duration
	pause   time.Duration
	now     func() time.Time
	updates chan *update
	wake    chan struct{}
	closing chan struct{}
	ended   chan struct{}
	unlock  func()

	headsEnded chan struct{}
	advancing  sync.Mutex // one advance at a time, in the order of the heads

	mu          sync.Mutex // guards the rest
	closed      bool
	broken      error
	state       state
	advanced    int64     // size that the keeper has
	behindSince time.Time // when the keeper first was behind; zero if it is not
	advanceErr  error     // of the last try
}

// open opens the file; another process that has it is an error at once.
func open(path string, readOnly bool) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: 100 * time.Millisecond, ReadOnly: readOnly, FreelistType: bolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fault.Errorf(fault.Sealed, "another process has %s open", path)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.Errorf(fault.Usage, "open the store: %w", err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fault.Errorf(fault.Verify, "open the store: %w: %w", ErrAltered, err)
	case err != nil:
		return nil, fault.Errorf(fault.Storage, "open the store: %w", err)
	}
	return db, nil
}

// Open opens a store: read through by a process of its own, every value opened,
// the whole compared with its state, and its head advanced at the Keeper.
func Open(ctx context.Context, c Config, k *DataKey) (*Store, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	path := filepath.Join(c.Dir, FileName)
	if err := statFile(path); err != nil {
		return nil, err
	}
	unlock, err := lock(c.Dir)
	if err != nil {
		return nil, err
	}
	s, err := openLocked(ctx, c, k, path)
	if err != nil {
		unlock()
		return nil, err
	}
	s.unlock = unlock
	return s, nil
}

// lock takes the folder, before the guard looks at it and until Close.
func lock(dir string) (func(), error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "make the lock of the store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fault.Errorf(fault.Storage, "make the lock of the store: %w", err)
	}
	return durable.Lock(path)
}

func openLocked(ctx context.Context, c Config, k *DataKey, path string) (*Store, error) {
	s, err := openFile(ctx, c, k, path)
	if err != nil {
		return nil, err
	}
	if err = s.recall(); err == nil {
		err = s.advance(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("compare the store with its head: %w", err), s.db.Close())
	}
	go s.commits()
	go s.heads() //nolint:gosec // it lives as long as the store, not as long as its opening
	return s, nil
}

// openFile opens and reads the store, and asks no keeper.
func openFile(ctx context.Context, c Config, k *DataKey, path string) (*Store, error) {
	counted, err := c.Check(ctx, path)
	if err != nil {
		return nil, err
	}
	sl, err := newSealer(k, c.Place)
	if err != nil {
		return nil, err
	}
	db, err := open(path, false)
	if err != nil {
		return nil, err
	}
	s := &Store{
		db: db, sealer: sl, place: c.Place, keeper: c.Head, window: c.Window, pause: c.Pause, now: c.Now,
		updates: make(chan *update, maxGroup), wake: make(chan struct{}, 1),
		closing: make(chan struct{}), ended: make(chan struct{}), headsEnded: make(chan struct{}),
	}
	if err := s.load(counted); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// load reads the state and everything that it sums up.
func (s *Store) load(c Counted) error {
	want, err := s.place.marshal()
	if err != nil {
		return err
	}
	return s.db.View(func(tx *bolt.Tx) error {
		m := tx.Bucket(bucketMeta)
		if m == nil {
			return fault.Errorf(fault.Verify, "this is no store of keyrite: %w", ErrAltered)
		}
		if got := m.Get(keyPlace); string(got) != string(want) {
			return fault.Errorf(fault.Policy, "the store is of another vault, world or epoch: it says %q", got)
		}
		st, err := readState(tx, s.sealer)
		if err != nil {
			return err
		}
		if c.entries != st.size {
			return fmt.Errorf("the log has %d of %d entries: %w", c.entries, st.size, ErrAltered)
		}
		s.state = *st
		return scan(tx, s.sealer, st)
	})
}

// current is the sum after the last commit.
func (s *Store) current() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *Store) setState(st state) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = st
	if s.behindSince.IsZero() {
		s.behindSince = s.now()
	}
}

// Head is the newest head.
func (s *Store) Head() Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.headLocked()
}

// headLocked is Head; the caller holds mu.
func (s *Store) headLocked() Head {
	return Head{Vault: s.place.Vault, World: s.place.World, Size: s.state.size, Root: s.state.root}
}

// advance brings the keeper to the newest head.
func (s *Store) advance(ctx context.Context) error {
	s.advancing.Lock()
	defer s.advancing.Unlock()
	s.mu.Lock()
	h := s.headLocked()
	taken := s.now()
	done := s.advanced == h.Size
	s.mu.Unlock()
	if done {
		return nil
	}
	err := s.keeper.Advance(ctx, h, chain{s})
	s.mu.Lock()
	s.advanceErr = err
	if err == nil {
		s.advanced = h.Size
		s.behindSince = time.Time{}
		if s.state.size > h.Size {
			s.behindSince = taken // what came since is not older than that
		}
	}
	s.mu.Unlock()
	if errors.Is(err, ErrBehind) || errors.Is(err, ErrFork) {
		s.stop(err) // somebody else goes on with a copy of this store
	}
	return err
}

// stop ends all service; the first reason stays.
func (s *Store) stop(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = err
	}
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
}

// stopped is the error of whoever comes after the end.
func (s *Store) stopped() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return fmt.Errorf("%w: %w", ErrStopped, s.broken)
	}
	return fault.New(fault.Sealed, "the store is closed")
}

// serving is nil until the store was closed or stopped.
func (s *Store) serving() error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return s.stopped()
	}
	return nil
}

// View gives f the store at one moment. Nothing is served after a failed write.
func (s *Store) View(f func(*View) error) error {
	if err := s.serving(); err != nil {
		return err
	}
	return s.db.View(func(tx *bolt.Tx) error {
		return f(&View{reader{tx.Bucket(bucketValues), s.sealer}})
	})
}

// Entry returns entry n of the log as it was hashed. Like View it serves nothing
// after the end.
func (s *Store) Entry(n uint64) ([]byte, error) {
	if err := s.serving(); err != nil {
		return nil, err
	}
	var out []byte
	if n >= uint64(s.current().size) {
		return nil, ErrNotFound
	}
	err := s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketLog).Get(number(n))
		var seq uint64
		var err error
		if out, seq, err = s.sealer.open(string(bucketLog), number(n), v); err != nil || seq != n {
			return altered(string(bucketLog), number(n))
		}
		return checkLeaf(tx.Bucket(bucketTree), int64(n), out)
	})
	return out, err
}

// Prove proves that entry n is in the log of the first size entries (RFC 6962,
// section 2.1.1).
func (s *Store) Prove(n uint64, size int64) (p []tlog.Hash, err error) {
	if err := s.serving(); err != nil {
		return nil, err
	}
	if size < 1 || size > s.current().size || n >= uint64(size) {
		return nil, ErrNotFound
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		p, err = mod.ProveRecord(size, int64(n), hashes{tx.Bucket(bucketTree)})
		return err
	})
	return p, err
}

// Health is what a status page needs to know of a store.
type Health struct {
	Size     int64         // entries
	Advanced int64         // entries that the keeper of the head knows
	Behind   time.Duration // for how long it has been behind; 0 if it is not
	Keeper   error         // of the last try to reach it
	Stopped  error         // why nothing is served; nil if it is
}

// Health tells how the store is.
func (s *Store) Health() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := Health{Size: s.state.size, Advanced: s.advanced, Keeper: s.advanceErr, Stopped: s.broken}
	if !s.behindSince.IsZero() {
		h.Behind = s.now().Sub(s.behindSince)
	}
	return h
}

// Close ends the store in good order: what waits is refused, the head is
// advanced once more.
func (s *Store) Close() error {
	s.mu.Lock()
	broken := s.broken
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	<-s.ended
	<-s.headsEnded
	var err error
	if broken == nil {
		ctx, cancel := context.WithTimeout(context.Background(), advanceTimeout)
		defer cancel()
		err = s.advance(ctx)
	}
	err = errors.Join(err, s.db.Close())
	s.unlock()
	return err
}
