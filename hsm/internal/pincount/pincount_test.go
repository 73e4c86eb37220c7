package pincount

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newCounter(t *testing.T) (*Counter, *clock) {
	t.Helper()
	k := &clock{time.Unix(1_800_000_000, 0)}
	return &Counter{Dir: t.TempDir(), Serial: "a/b\n1", Now: k.now}, k
}

// wrong gives one wrong PIN and wants to be let.
func wrong(t *testing.T, c *Counter, w Who) {
	t.Helper()
	if err := c.Begin(w, false); err != nil {
		t.Fatal(err)
	}
}

func waits(t *testing.T, c *Counter, want time.Duration) {
	t.Helper()
	err := c.Begin(User, false)
	e, ok := errors.AsType[*WaitError](err)
	if !ok || e.Left != want {
		t.Fatalf("got %v, want a wait of %v", err, want)
	}
}

// Three wrong PINs at once, then one after each wait, and after ten none.
func TestLimit(t *testing.T) {
	c, k := newCounter(t)
	for range 3 {
		wrong(t, c, User)
	}
	total := time.Duration(0)
	for n := 3; n < Limit; n++ {
		wait := 30 * time.Second << (n - 3)
		waits(t, c, wait)
		k.t = k.t.Add(wait - time.Second)
		waits(t, c, time.Second)
		wrong(t, c, SO) // has a counter of its own
		if err := c.Good(SO); err != nil {
			t.Fatal(err)
		}
		k.t = k.t.Add(time.Second)
		wrong(t, c, User)
		total += wait
	}
	k.t = k.t.Add(1000 * time.Hour)
	if err := c.Begin(User, false); !errors.Is(err, ErrSpent) {
		t.Errorf("the eleventh try: %v", err)
	}
	if total < time.Hour {
		t.Errorf("ten tries take %v", total)
	}
	s, err := c.Reset(7, "typed the old one")
	if err != nil || len(s.Resets) != 1 || s.Resets[0] != (Reset{k.t.UTC(), 7, "typed the old one", Limit, 0}) {
		t.Fatalf("%+v, %v", s, err)
	}
	wrong(t, c, User)
}

// A right PIN forgets the wrong ones and leaves no file.
func TestGood(t *testing.T) {
	c, _ := newCounter(t)
	wrong(t, c, User)
	wrong(t, c, User)
	if err := c.Good(User); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(c.Dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	// What the token did not judge is given back, and no more than that.
	wrong(t, c, User)
	wrong(t, c, User)
	if err := c.GiveBack(User); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Load(); err != nil || s.User.Wrong != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A token that remembers a wrong PIN which nobody here gave it.
func TestLow(t *testing.T) {
	c, _ := newCounter(t)
	if err := c.Begin(User, true); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Load(); err != nil || s.User.Wrong != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

// The clock set back makes nobody wait for years, and lets nobody try sooner.
func TestClockSetBack(t *testing.T) {
	c, k := newCounter(t)
	for range 3 {
		wrong(t, c, User)
	}
	k.t = k.t.Add(-24 * 365 * time.Hour)
	waits(t, c, 30*time.Second)
	k.t = k.t.Add(29 * time.Second)
	waits(t, c, time.Second)
	k.t = k.t.Add(time.Second)
	wrong(t, c, User)
}

// Whatever is wrong with the file, no try is made, and a reset helps.
func TestDamaged(t *testing.T) {
	c, _ := newCounter(t)
	wrong(t, c, User)
	good, err := os.ReadFile(c.Path())
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(c.Path())
		if err := errors.Join(os.WriteFile(c.Path(), b, 0o600), os.Chmod(c.Path(), mode)); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string) {
		t.Helper()
		if err := c.Begin(User, false); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if err := c.Good(User); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: forgotten: %v", what, err)
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		put(b, 0o600)
		refused("byte " + string(rune('0'+i%10)))
	}
	for n := range good {
		put(good[:n], 0o600)
		refused("cut")
	}
	put(append(bytes.Clone(good), '\n'), 0o600)
	refused("a byte more")
	put(good, 0o622)
	refused("world-writable")
	other := &Counter{Dir: t.TempDir(), Serial: "other", Now: c.Now}
	wrong(t, other, User)
	foreign, err := os.ReadFile(other.Path())
	if err != nil {
		t.Fatal(err)
	}
	put(foreign, 0o600)
	refused("another token's")
	target := filepath.Join(t.TempDir(), "x")
	if err := errors.Join(os.WriteFile(target, good, 0o600), os.Remove(c.Path()), os.Symlink(target, c.Path())); err != nil {
		t.Fatal(err)
	}
	refused("a link")
	if s, err := c.Reset(0, "power cut"); err != nil || s.Resets[0].User != -1 {
		t.Errorf("%+v, %v", s, err)
	}
	wrong(t, c, User)
}

// A folder that is not there, or that does not take a file, allows no try.
func TestUnwritable(t *testing.T) {
	c, _ := newCounter(t)
	c.Dir = filepath.Join(c.Dir, "missing")
	if err := c.Begin(User, false); err == nil {
		t.Error("a try without a counter")
	}
	if _, err := c.Lock(); err == nil {
		t.Error("a lock without a folder")
	}
	c.Dir = "/proc" // where even root makes no file
	if err := c.Begin(User, false); err == nil {
		t.Error("a try without a counter")
	}
}

// Many at once never have more than the limit allows.
func TestTogether(t *testing.T) {
	c, _ := newCounter(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	tries := 0
	for range 8 {
		wg.Go(func() {
			release, err := c.Lock()
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			if c.Begin(User, false) == nil {
				mu.Lock()
				defer mu.Unlock()
				tries++
			}
		})
	}
	wg.Wait()
	if tries != free {
		t.Errorf("%d tries at once", tries)
	}
}

// Resets do not pile up without end.
func TestResetsAreBounded(t *testing.T) {
	c, _ := newCounter(t)
	for range maxResets + 5 {
		if _, err := c.Reset(0, string(bytes.Repeat([]byte("x"), MaxReason))); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := c.Load(); err != nil || len(s.Resets) != maxResets {
		t.Errorf("%d resets, %v", len(s.Resets), err)
	}
}

// Of two PINs of which the token has one, the first may be refused without a wait
// before the second; that one counts. Without Restore the second would wait, each
// time anew.
func TestRestore(t *testing.T) {
	c, k := newCounter(t)
	for range 3 {
		wrong(t, c, User)
	}
	waits(t, c, 30*time.Second)
	k.t = k.t.Add(30 * time.Second)
	s, err := c.Load()
	if err != nil {
		t.Fatal(err)
	}
	before := s.Of(User)
	wrong(t, c, User)
	waits(t, c, time.Minute)
	if err := c.Restore(User, before); err != nil {
		t.Fatal(err)
	}
	wrong(t, c, User)
	waits(t, c, time.Minute)
	if s, err = c.Load(); err != nil || s.User.Wrong != 4 || s.SO.Wrong != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}
