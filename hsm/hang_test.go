package hsm_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// TestLongHangInEachKindOfRequest stops each function of PKCS#11 that a kind of
// request calls. Nobody gives a deadline but the pool: the request ends at that of
// its kind, while those of the other kinds are far away, and the next one is good.
func TestLongHangInEachKindOfRequest(t *testing.T) { long(t); hangInEachKind(t, all) }

// TestHangInEachKindOfRequest does so with the first function of each kind.
func TestHangInEachKindOfRequest(t *testing.T) { hangInEachKind(t, 1) }

func hangInEachKind(t *testing.T, sample int) {
	r := newPoolRoom(t)
	const soon, far = time.Second, 5 * time.Minute
	idle := hsm.PoolConfig{Use: far, Change: far, Look: far, Open: far}
	use, change, look, open := idle, idle, idle, idle
	use.Use, change.Change, look.Look, open.Open = soon, soon, soon, soon
	ctx, done := t.Context(), 0
	for _, kind := range []struct {
		name      string
		cfg       hsm.PoolConfig
		functions []string
		ask       func(p *hsm.Pool, n int) error
	}{
		{"use", use, []string{"C_Sign", "C_SignInit"}, func(p *hsm.Pool, n int) error {
			_, err := r.signer(t, p).SignContext(ctx, digestOf(0, n))
			return err
		}},
		{"use", use, []string{"C_GenerateRandom"}, func(p *hsm.Pool, _ int) error {
			_, err := p.Random(ctx, 16)
			return err
		}},
		{"change", change, []string{"C_GenerateKeyPair", "C_DestroyObject"}, func(p *hsm.Pool, _ int) error {
			sp := signSpec(t, "second")
			sp.SessionObject = false
			if _, err := p.Generate(ctx, sp); err != nil {
				return err
			}
			return p.DestroyKey(ctx, sp.KeyID)
		}},
		{"look", look, []string{"C_FindObjects", "C_FindObjectsInit", "C_FindObjectsFinal", "C_GetAttributeValue"}, func(p *hsm.Pool, _ int) error {
			_, err := p.Objects(ctx)
			return err
		}},
		{"open", open, []string{"C_Login", "C_Initialize", "C_GetInfo", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession"}, nil},
	} {
		for i, name := range kind.functions {
			if sample != all && i >= sample {
				break
			}
			done++
			hang := func() { r.faults.Reset(call(t, name), 1, hsmtest.Hang) }
			if kind.ask == nil {
				hang()
				if _, err := hsm.NewPool(ctx, r.sup, r.id, kind.cfg); !errors.Is(err, context.DeadlineExceeded) || class(err) != "token" {
					t.Errorf("%s in %s: %v (class %s)", name, kind.name, err, class(err))
				}
				kind.cfg.Open = far
				if _, err := r.pool(t, kind.cfg).Random(ctx, 16); err != nil {
					t.Errorf("after %s in %s: %v", name, kind.name, err)
				}
				kind.cfg.Open = soon
				continue
			}
			p := r.pool(t, kind.cfg)
			hang()
			if err := kind.ask(p, i); !errors.Is(err, hsm.ErrLost) || !errors.Is(err, context.DeadlineExceeded) || class(err) != "token" {
				t.Errorf("%s in %s: %v (class %s)", name, kind.name, err, class(err))
			}
			if _, hung := r.faults.Calls(); !hung {
				t.Errorf("%s is not called in %s", name, kind.name)
			}
			if _, err := p.Objects(ctx); err != nil {
				t.Errorf("after %s in %s: %v", name, kind.name, err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			// What was left by a generation that nobody heard of.
			clean(t, r.env.Open(t, r.id), r.key)
		}
	}
	if sample == all {
		t.Logf("long: a hang in each function of each kind of request: %d of %d", done, done)
	}
}
