package unseal_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/vault/seal"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

// counted is who takes what is opened; each is given back once, and never two at once.
type counted struct {
	t            *testing.T
	open, opened atomic.Int64
}

func (c *counted) take(_ context.Context, o *unseal.Opened) (io.Closer, error) {
	if c.open.Add(1) != 1 {
		c.t.Error("two are open at once")
	}
	c.opened.Add(1)
	return &once{c: c, o: o}, nil
}

type once struct {
	c   *counted
	o   *unseal.Opened
	did atomic.Bool
}

// Close finds everything still there.
func (x *once) Close() error {
	if x.did.Swap(true) {
		x.c.t.Error("closed twice")
	}
	x.c.open.Add(-1)
	return x.o.Store.View(func(*seal.View) error { return nil })
}

func below(n int64) int64 {
	x, err := rand.Int(rand.Reader, big.NewInt(n))
	if err != nil {
		return 0
	}
	return x.Int64()
}

// A hundred clients begin, answer, look, drop and seal at once. At every moment one
// vault is open or none, what was opened is closed once, and at the end it opens as if
// nothing had been.
func TestHundredClientsRace(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	c := &counted{t: t}
	a, err := unseal.NewAttempts(v.Unsealing(c.take))
	if err != nil {
		t.Fatal(err)
	}
	v.Open3(t, a, openrequest.Create)
	if err := a.Seal(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answers := make(chan []byte, 1000) // good ones, for others to give again
	expected := func(err error) bool {
		class := fault.ClassOf(err)
		return err == nil || class == fault.Policy || class == fault.Exists || class == fault.Quorum || class == fault.Sealed ||
			errors.Is(err, unseal.ErrBusy) || class == fault.Unreachable || class == fault.Unexpected && ctx.Err() != nil
	}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			for ctx.Err() == nil && c.opened.Load() < 6 {
				if err := act(ctx, t, v, a, i, answers); !expected(err) {
					t.Errorf("client %d: %v (%s)", i, err, fault.ClassOf(err))
				}
			}
		})
	}
	wg.Wait()
	if err := a.Seal(); err != nil {
		t.Error(err)
	}
	a.Wait()
	if c.open.Load() != 0 || !a.Sealed() || len(a.Progress()) != 0 {
		t.Errorf("%d open, %d attempts", c.open.Load(), len(a.Progress()))
	}
	t.Logf("opened %d times", c.opened.Load())
	v.Open3(t, a, openrequest.Unseal)
	if err := a.Seal(); err != nil {
		t.Error(err)
	}
}

// act is one thing that client i does.
func act(ctx context.Context, t *testing.T, v *vaulttest.Vault, a *unseal.Attempts, i int, answers chan []byte) error {
	pause := time.NewTimer(time.Duration(below(20)) * time.Millisecond)
	defer pause.Stop()
	<-pause.C
	switch {
	case i%5 < 2: // operators who go all the way
		x, err := a.New(ctx, unseal.Ask{Operation: openrequest.Unseal, By: []string{"a", "b", "c", "d"}[i%4]})
		if err != nil {
			return err
		}
		for _, n := range []string{"master1", "master3", "master4"} {
			data := v.Answer(t, x.Request, n)
			select {
			case answers <- data:
			default:
			}
			if _, err := a.Answer(ctx, data); err != nil {
				return err
			}
		}
	case i%5 == 2: // who gives again what others gave
		select {
		case data := <-answers:
			_, err := a.Answer(ctx, data)
			return err
		default:
		}
	case i%5 == 3:
		if st := a.Status(); st.Need != 3 {
			t.Errorf("%+v", st)
		}
		if p := a.Progress(); len(p) > 3 && below(10) == 0 {
			return a.Drop(p[0].Attempt)
		}
	case below(100) == 0:
		return a.Seal()
	}
	return nil
}
