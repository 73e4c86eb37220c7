package supervise

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"keyrite/hsm/internal/frame"
)

var token = frame.Token{Label: "work", Serial: "0123"}

// at is a clock that only the test moves.
type at struct{ t time.Time }

func (c *at) now() time.Time          { return c.t }
func (c *at) forward(d time.Duration) { c.t = c.t.Add(d) }

func newAt() *at { return &at{time.Unix(1_800_000_000, 0)} }

func pass(t *testing.T, b *breaker) uint64 {
	t.Helper()
	g, err := b.admit(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// refused wants an open to be refused with this many seconds left.
func refused(t *testing.T, b *breaker, seconds int64) {
	t.Helper()
	_, err := b.admit(t.Context(), token)
	f, ok := errors.AsType[*frame.Fault](err)
	if !ok || f.Kind != frame.KindWaiting || f.WaitMS != seconds*1000 || f.Hint == "" {
		t.Fatalf("got %v, want a wait of %d s", err, seconds)
	}
}

func TestBreaker(t *testing.T) {
	clock := newAt()
	b := newBreaker(30*time.Second, clock.now)
	first := pass(t, b)
	b.opened(token, first)
	if g := pass(t, b); g != first {
		t.Fatalf("a further open of a healthy token is generation %d", g)
	}
	b.ended(token, first, false)
	if g := pass(t, b); g != first {
		t.Fatal("an end in good order counts as a loss")
	}

	b.ended(token, first, true)
	second := pass(t, b) // the first re-initialisation is never refused
	b.opened(token, second)
	if second == first {
		t.Fatal("the open after a loss is no re-initialisation")
	}
	b.ended(token, first, true) // what the re-initialisation made good already
	if g := pass(t, b); g != second {
		t.Fatal("the late end of an old process counts as a new loss")
	}

	clock.forward(10 * time.Second)
	b.ended(token, second, true)
	refused(t, b, 20)
	clock.forward(19*time.Second + time.Millisecond)
	refused(t, b, 1)
	if _, err := b.admit(t.Context(), frame.Token{Label: "other"}); err != nil {
		t.Errorf("another token waits too: %v", err)
	}
	clock.forward(time.Second)
	third := pass(t, b)
	b.ended(token, third, true) // the probe dies before it says a word
	refused(t, b, 30)
	clock.forward(30 * time.Second)
	fourth := pass(t, b)
	b.opened(token, fourth)
	clock.forward(time.Hour)
	b.ended(token, fourth, true)
	b.opened(token, pass(t, b))
}

// While one process tries, nobody else does; those who came meanwhile get what
// it found out.
func TestBreakerHalfOpen(t *testing.T) {
	for _, works := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker(30*time.Second, time.Now)
			b.ended(token, pass(t, b), true)
			probe := pass(t, b)
			got := make(chan error, 3)
			for range 3 {
				go func() {
					_, err := b.admit(t.Context(), token)
					got <- err
				}()
			}
			synctest.Wait()
			if len(got) != 0 {
				t.Fatal("an open passed beside the probe")
			}
			short, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := b.admit(short, token); err == nil {
				t.Error("a wait outlived its context")
			}
			if works {
				b.opened(token, probe)
			} else {
				b.ended(token, probe, true)
			}
			for range 3 {
				err := <-got
				f, _ := errors.AsType[*frame.Fault](err)
				if works != (err == nil) || !works && f.Kind != frame.KindWaiting {
					t.Errorf("the probe works %v, and another open: %v", works, err)
				}
			}
		})
	}
}
