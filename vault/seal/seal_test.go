package seal

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mod "golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
)

func TestStoreKeepsWhatItAcknowledged(t *testing.T) {
	b := newBench(t)
	s := b.open(t)
	put(t, s, Durable, "kv", "a", "one")
	put(t, s, Strict, "kv", "b", "two")
	n := put(t, s, Durable, "kv", "a", "three")
	if n != 3 {
		t.Errorf("entry %d, want 3", n)
	}
	if _, err := s.Update(t.Context(), Strict, func(tx *Tx) (any, error) { return "gone", tx.Delete("kv", "b") }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = b.open(t)
	if got := get(t, s, "kv", "a"); got != "three" {
		t.Errorf("a is %q", got)
	}
	err := s.View(func(v *View) error {
		if _, err := v.Get("kv", "b"); !errors.Is(err, ErrNotFound) {
			t.Errorf("what was deleted is there: %v", err)
		}
		if got := v.Keys("kv", ""); !slices.Equal(got, []string{"a"}) {
			t.Errorf("keys are %q", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	for _, clear := range []string{"one", "two", "three"} {
		if bytes.Contains(raw, []byte(clear)) {
			t.Errorf("the value %q stands in the file", clear)
		}
	}
}

// The log that comes out is checked with nothing but its leaves.
func TestLogIsVerifiableOutside(t *testing.T) {
	b := newBench(t)
	s := b.open(t)
	for i := range 37 {
		put(t, s, Durable, "kv", fmt.Sprint(i%5), fmt.Sprint(i))
	}
	var tree tlog.Tree
	seen := map[string]bool{}
	for n := range s.Head().Size {
		raw, err := s.Entry(uint64(n))
		if err != nil {
			t.Fatal(err)
		}
		var l leaf
		if err := jcs.Unmarshal(raw, &l); err != nil || l.Seq != uint64(n) {
			t.Fatalf("entry %d: %v %s", n, err, raw)
		}
		if n > 0 && seen[l.State] {
			t.Errorf("entry %d has the state of another", n)
		}
		seen[l.State] = true
		if err := tree.Append(raw); err != nil {
			t.Fatal(err)
		}
	}
	if tree.Root() != s.Head().Root {
		t.Error("the leaves do not give the head")
	}
	p, err := chain{s}.Prove(11, s.Head().Size)
	if err != nil {
		t.Fatal(err)
	}
	old, err := chain{s}.RootAt(11)
	if err != nil {
		t.Fatal(err)
	}
	if err := mod.CheckTree(p, s.Head().Size, s.Head().Root, 11, old); err != nil {
		t.Error(err)
	}
	if _, err := s.Entry(uint64(s.Head().Size)); !errors.Is(err, ErrNotFound) {
		t.Errorf("an entry beyond the end: %v", err)
	}
}

func TestUpdatesDoNotMix(t *testing.T) {
	b := newBench(t)
	s := b.open(t)
	refuse := errors.New("refused by the caller")
	var wg sync.WaitGroup
	var mu sync.Mutex
	numbers := map[uint64]bool{}
	for w := range 16 {
		wg.Go(func() {
			for i := range 40 {
				n, err := s.Update(t.Context(), Durable, func(tx *Tx) (any, error) {
					had, err := tx.Get("count", "sum")
					if err != nil && !errors.Is(err, ErrNotFound) {
						return nil, err
					}
					next := binary.BigEndian.AppendUint64(nil, 1)
					if had != nil {
						next = binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(had)+1)
					}
					if err := tx.Put("count", "sum", next); err != nil {
						return nil, err
					}
					if i%4 == 3 {
						return nil, refuse
					}
					return map[string]int{"w": w}, nil
				})
				if i%4 == 3 {
					if !errors.Is(err, refuse) {
						t.Errorf("got %v", err)
					}
					continue
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				if numbers[n] {
					t.Errorf("entry %d twice", n)
				}
				numbers[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := binary.BigEndian.Uint64([]byte(get(t, s, "count", "sum"))); got != 16*30 {
		t.Errorf("sum is %d, want %d", got, 16*30)
	}
	if got := s.Head().Size; got != 1+16*30 {
		t.Errorf("%d entries, want %d", got, 1+16*30)
	}
}

func TestUpdateNeedsAPromiseAndNames(t *testing.T) {
	s := newBench(t).open(t)
	ok := func(*Tx) (any, error) { return "x", nil }
	for _, p := range []Promise{0, -1, 3} {
		if _, err := s.Update(t.Context(), p, ok); fault.ClassOf(err) != fault.Usage {
			t.Errorf("promise %d: %v", p, err)
		}
	}
	for _, at := range []slot{{"", "k"}, {"b", ""}, {"b", strings.Repeat("k", MaxNameBytes+1)}} {
		_, err := s.Update(t.Context(), Durable, func(tx *Tx) (any, error) { return "x", tx.Put(at.bucket, at.key, nil) })
		wantClass(t, err, fault.Usage)
	}
	_, err := s.Update(t.Context(), Durable, func(tx *Tx) (any, error) { return "x", tx.Put("b", "k", make([]byte, MaxValueBytes+1)) })
	wantClass(t, err, fault.Usage)
	_, err = s.Update(t.Context(), Durable, func(tx *Tx) (any, error) { return "x", tx.Delete("b", "none") })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("delete of nothing: %v", err)
	}
	if got := s.Head().Size; got != 1 {
		t.Errorf("refused updates left %d entries", got-1)
	}
}

// Every byte of a sealed value counts, and so does its place.
func TestValueOpensInItsPlaceOnly(t *testing.T) {
	k, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Wipe()
	s, err := newSealer(k, testPlace())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.seal("kv", []byte("a/b"), 7, []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	if v, seq, err := s.open("kv", []byte("a/b"), sealed); err != nil || string(v) != "value" || seq != 7 {
		t.Fatalf("%q %d %v", v, seq, err)
	}
	for i := range sealed {
		for bit := range 8 {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1 << bit
			if _, _, err := s.open("kv", []byte("a/b"), bad); !errors.Is(err, ErrAltered) {
				t.Fatalf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	for n := range sealed {
		if _, _, err := s.open("kv", []byte("a/b"), sealed[:n]); !errors.Is(err, ErrAltered) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	for _, at := range []struct{ bucket, key string }{{"kv", "a/c"}, {"kw", "a/b"}, {"kva", "/b"}, {"kv\x00", "a/b"}, {"", ""}} {
		if _, _, err := s.open(at.bucket, []byte(at.key), sealed); !errors.Is(err, ErrAltered) {
			t.Errorf("opened at %q %q", at.bucket, at.key)
		}
	}
	for name, p := range otherPlaces() {
		o, err := newSealer(k, p)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := o.open("kv", []byte("a/b"), sealed); !errors.Is(err, ErrAltered) {
			t.Errorf("opened in another %s", name)
		}
	}
}

func otherPlaces() map[string]Place {
	v, w, e := testPlace(), testPlace(), testPlace()
	v.Vault[31] ^= 1
	w.World = "rehearsal:abcdefgi"
	e.Epoch++
	return map[string]Place{"vault": v, "world": w, "epoch": e}
}

func TestWrappedKey(t *testing.T) {
	k, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Wipe()
	wrapped, err := k.Wrap(testSecret, testPlace())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(wrapped, k.buf.Bytes()) {
		t.Fatal("the key stands in its wrapping")
	}
	got, err := Unwrap(wrapped, testSecret, testPlace())
	if err != nil {
		t.Fatal(err)
	}
	defer got.Wipe()
	if !bytes.Equal(got.buf.Bytes(), k.buf.Bytes()) {
		t.Error("another key came out")
	}
	for i := range wrapped {
		bad := bytes.Clone(wrapped)
		bad[i] ^= 1
		if _, err := Unwrap(bad, testSecret, testPlace()); !errors.Is(err, ErrKey) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	for n := range wrapped {
		if _, err := Unwrap(wrapped[:n], testSecret, testPlace()); !errors.Is(err, ErrKey) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	for name, p := range otherPlaces() {
		if _, err := Unwrap(wrapped, testSecret, p); !errors.Is(err, ErrKey) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	other := append(bytes.Clone(testSecret), 'x')
	if _, err := Unwrap(wrapped, other, testPlace()); !errors.Is(err, ErrKey) {
		t.Errorf("another secret: %v", err)
	}
	_, err = k.Wrap(testSecret[:MinSecretBytes-1], testPlace())
	wantClass(t, err, fault.Usage)
	_, err = k.Wrap(testSecret, Place{})
	if err == nil {
		t.Error("wrapped for no place")
	}
	k.Wipe()
	_, err = k.Wrap(testSecret, testPlace())
	wantClass(t, err, fault.Sealed)
	secret := strings.Trim(fmt.Sprintf("%d", got.buf.Bytes()[:4]), "[]")
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if s := fmt.Sprintf(form, got); strings.Contains(s, secret) || strings.Contains(s, hex.EncodeToString(got.buf.Bytes()[:4])) {
			t.Errorf("a key prints itself with %s: %s", form, s)
		}
	}
}

func TestOtherKeyPlaceOrFileIsRefused(t *testing.T) {
	b := newBench(t)
	other, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Wipe()
	if _, err := Open(t.Context(), b.config(t), other); !errors.Is(err, ErrKey) {
		t.Errorf("another key: %v", err)
	}
	for name, p := range otherPlaces() {
		c := b.config(t)
		c.Place = p
		if _, err := Open(t.Context(), c, b.key); fault.ClassOf(err) != fault.Policy {
			t.Errorf("another %s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Config){
		"no keeper": func(c *Config) { c.Head = nil },
		"no guard":  func(c *Config) { c.Check = nil },
		"no folder": func(c *Config) { c.Dir = "" },
		"no place":  func(c *Config) { c.Place = Place{} },
		"window":    func(c *Config) { c.Window = -1 },
	} {
		c := b.config(t)
		change(&c)
		if s, err := Open(t.Context(), c, b.key); err == nil {
			t.Errorf("%s: opened", name)
			_ = s.Close()
		}
	}
	if err := Create(t.Context(), b.config(t), b.key, "again"); fault.ClassOf(err) != fault.Exists {
		t.Errorf("made anew over another: %v", err)
	}
	s := b.open(t)
	wantClass(t, b.tryOpen(t), fault.Sealed)
	_ = s.Close()
	if err := os.Remove(b.file()); err != nil {
		t.Fatal(err)
	}
	wantClass(t, b.tryOpen(t), fault.Usage)
	if err := os.Symlink("/dev/zero", b.file()); err != nil {
		t.Fatal(err)
	}
	wantClass(t, b.tryOpen(t), fault.Usage)
	if _, err := NewFileKeeper(b.head, "live"); fault.ClassOf(err) != fault.Policy {
		t.Errorf("the head of a live store in a file: %v", err)
	}
}

// A store whose copy runs elsewhere stops as soon as it meets the other's head.
func TestForkStops(t *testing.T) {
	b := newBench(t)
	twin := *b
	twin.dir = filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(twin.dir, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	one, two := b.open(t), twin.open(t)
	put(t, one, Strict, "kv", "a", "one")
	_, err := two.Update(t.Context(), Strict, func(tx *Tx) (any, error) { return "x", tx.Put("kv", "a", []byte("two")) })
	if !errors.Is(err, ErrFork) || !errors.Is(err, ErrUnconfirmed) {
		t.Fatalf("the second history: %v", err)
	}
	wantClass(t, two.View(func(*View) error { return nil }), fault.Storage)
	if _, err := two.Update(t.Context(), Durable, func(*Tx) (any, error) { return "x", nil }); !errors.Is(err, ErrStopped) {
		t.Errorf("it goes on: %v", err)
	}
	put(t, one, Strict, "kv", "a", "three")
}

// fickle is a keeper that can be out of reach.
type fickle struct {
	Keeper
	mu  sync.Mutex
	err error
}

func (f *fickle) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fickle) Advance(ctx context.Context, h Head, c Chain) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return f.Keeper.Advance(ctx, h, c)
}

// clock is a clock that stands until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestKeeperOutOfReach(t *testing.T) {
	b := newBench(t)
	c := b.config(t)
	k := &fickle{Keeper: c.Head}
	cl := &clock{at: time.Unix(1e9, 0)}
	c.Head, c.Window, c.Now = k, time.Hour, cl.now
	s, err := Open(t.Context(), c, b.key)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	down := fault.New(fault.Unreachable, "no route to the witness")
	k.set(down)
	_, err = s.Update(t.Context(), Strict, func(tx *Tx) (any, error) { return "x", tx.Put("kv", "a", []byte("1")) })
	if !errors.Is(err, ErrUnconfirmed) || !errors.Is(err, down) {
		t.Fatalf("strict without the keeper: %v", err)
	}
	put(t, s, Durable, "kv", "b", "2") // within the window
	cl.move(2 * time.Hour)
	_, err = s.Update(t.Context(), Durable, func(tx *Tx) (any, error) { return "x", tx.Put("kv", "c", []byte("3")) })
	if !errors.Is(err, ErrLagging) || errors.Is(err, ErrUnconfirmed) {
		t.Fatalf("after the window: %v", err)
	}
	if h := s.Health(); h.Keeper == nil || h.Behind < time.Hour || h.Advanced >= h.Size {
		t.Errorf("health says %+v", h)
	}
	k.set(nil)
	s.nudge()
	for s.Health().Behind != 0 {
		<-time.After(time.Millisecond) // another goroutine advances it
	}
	put(t, s, Strict, "kv", "c", "4")
	if h := s.Health(); h.Advanced != h.Size || h.Keeper != nil {
		t.Errorf("health says %+v", h)
	}
}
