package seal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/fault"
)

// slow is a keeper that answers only when it is let.
type slow struct {
	Keeper
	asked, answer chan struct{}
}

func (k *slow) Advance(ctx context.Context, h Head, c Chain) error {
	select {
	case k.asked <- struct{}{}:
	default:
	}
	select {
	case <-k.answer:
		return k.Keeper.Advance(ctx, h, c)
	case <-ctx.Done():
		return fault.Errorf(fault.Unreachable, "ask: %w", ctx.Err())
	}
}

// TestHangingKeeper: while the Keeper hangs, which is no error yet, the window is
// the window: what comes after it waits for the Keeper.
func TestHangingKeeper(t *testing.T) {
	b := newBench(t)
	c := b.config(t)
	k := &slow{Keeper: c.Head, asked: make(chan struct{}, 1), answer: make(chan struct{}, 100)}
	cl := &clock{at: time.Unix(1e9, 0)}
	k.answer <- struct{}{} // for the opening
	c.Head, c.Window, c.Now = k, time.Hour, cl.now
	s, err := Open(t.Context(), c, b.key)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	<-k.asked
	put(t, s, Durable, "kv", "a", "1") // whose head is on its way, and stays there
	<-k.asked
	cl.move(2 * time.Hour)
	done := make(chan error, 1)
	go func() {
		_, err := s.Update(context.WithoutCancel(t.Context()), Durable, func(tx *Tx) (any, error) { return "x", tx.Put("kv", "b", nil) })
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("written after the window, with the head %d of %d: %v", s.Health().Advanced, s.Health().Size, err)
	case <-time.After(50 * time.Millisecond): // a wrong store is quicker, a right one is never
	}
	for range 10 {
		k.answer <- struct{}{}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestCallerGivesUp: whoever gives up before his update is made gets it never, and
// is not kept waiting; one whose update is made gets the outcome.
func TestCallerGivesUp(t *testing.T) {
	b := newBench(t)
	s := b.open(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	inMake, cancelFirst := context.WithCancel(t.Context())
	go func() {
		_, err := s.Update(inMake, Durable, func(tx *Tx) (any, error) {
			close(begun)
			<-goOn
			return "first", tx.Put("kv", "first", nil)
		})
		first <- err
	}()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancelFirst()
	second := make(chan error, 1)
	go func() {
		_, err := s.Update(ctx, Durable, func(tx *Tx) (any, error) { return "second", tx.Put("kv", "second", nil) })
		second <- err
	}()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("gave up: %v", err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("was made: %v", err)
	}
	err := s.View(func(v *View) error {
		if got := v.Keys("kv", ""); len(got) != 1 || got[0] != "first" {
			t.Errorf("the store has %q", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestEntriesTakenOut: an entry that is missing from the log is found at the start
// and before a resealing, not only when somebody reads it.
func TestEntriesTakenOut(t *testing.T) {
	for name, change := range map[string]func(*bolt.Bucket) error{
		"the first":     func(l *bolt.Bucket) error { return l.Delete(number(0)) },
		"one between":   func(l *bolt.Bucket) error { return l.Delete(number(2)) },
		"the last":      func(l *bolt.Bucket) error { return l.Delete(number(4)) },
		"all":           func(l *bolt.Bucket) error { return emptied(l) },
		"one too many":  func(l *bolt.Bucket) error { return l.Put(number(5), l.Get(number(4))) },
		"another's key": func(l *bolt.Bucket) error { return l.Put([]byte("x"), l.Get(number(4))) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			s := b.open(t)
			for _, k := range []string{"a", "b", "c", "d"} {
				put(t, s, Durable, "kv", k, "v")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			alter(t, b.file(), func(tx *bolt.Tx) error { return change(tx.Bucket(bucketLog)) })
			if err := b.tryOpen(t); !errors.Is(err, ErrAltered) {
				t.Errorf("opened: %v", err)
			}
			to := b.place
			to.Epoch++
			if err := Reseal(t.Context(), b.config(t), b.key, to, b.key); !errors.Is(err, ErrAltered) {
				t.Errorf("resealed: %v", err)
			}
		})
	}
}

func emptied(b *bolt.Bucket) error {
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.First() {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// TestNothingAfterTheEnd: a store that is closed serves neither values nor entries.
func TestNothingAfterTheEnd(t *testing.T) {
	b := newBench(t)
	s := b.open(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Entry(0)
	wantClass(t, err, fault.Sealed)
	wantClass(t, s.View(func(*View) error { return nil }), fault.Sealed)
}

// TestCreateThatFails: what the guard finds leaves nothing, and a second creation
// beside a store, or while one is in use, touches nothing.
func TestCreateThatFails(t *testing.T) {
	b := newBench(t)
	wantClass(t, Create(t.Context(), b.config(t), b.key, "again"), fault.Exists)
	b.open(t)
	wantClass(t, Create(t.Context(), b.config(t), b.key, "again"), fault.Sealed)

	c := b.config(t)
	c.Dir = filepath.Join(t.TempDir(), "other")
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.Check = Guard(filepath.Join(c.Dir, "no such program"))
	wantClass(t, Create(t.Context(), c, b.key, "first"), fault.Storage)
	if _, err := os.Lstat(filepath.Join(c.Dir, FileName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left a store: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(c.Dir, FileName+".new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it left a beginning of one: %v", err)
	}
}

// TestGuardSaysWhy: what is not the file's fault is not called an alteration.
func TestGuardSaysWhy(t *testing.T) {
	b := newBench(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	check := func(program string) error {
		_, err := Guard(program)(t.Context(), b.file())
		return err
	}
	wantClass(t, check("/no/such/program"), fault.Storage)
	if err := check("/bin/true"); !errors.Is(err, ErrAltered) {
		t.Errorf("a program that counts nothing: %v", err)
	}
	s := b.open(t)
	wantClass(t, check(exe), fault.Sealed) // in use
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.file(), make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(exe); !errors.Is(err, ErrAltered) {
		t.Errorf("zeros: %v", err)
	}
}
