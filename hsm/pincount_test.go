package hsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/hsm/internal/pincount"
)

const wrongUser = "WRONGWRONGWRONG"

// counted is a token whose wrong PINs are counted, behind a module that counts
// the logins that reach it, or SoftHSM itself.
type counted struct {
	*hsmtest.Env
	faults *hsmtest.Faults // nil for SoftHSM itself
	id     hsm.TokenID
}

func newCounted(t *testing.T, direct bool) *counted {
	t.Helper()
	c := &counted{Env: hsmtest.New(t)}
	var err error
	if c.id, err = c.Supervisor.InitToken(t.Context(), "work"); err != nil {
		t.Fatal(err)
	}
	c.SetPINs(t, c.id, newSO, newUser)
	if !direct {
		c.faults = c.Faults(t)
		c.Config.Module = c.faults.Module
	}
	return c
}

// try opens the token once, by a program of its own.
func (c *counted) try(t *testing.T, user string) error {
	t.Helper()
	sup, err := hsm.Start(t.Context(), c.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer sup.Close()
	c.Take(t, sup, c.id, hsm.Current, newSO, user)
	s, err := sup.Open(t.Context(), c.id)
	if err == nil {
		err = s.Close()
	}
	if err != nil && strings.Contains(err.Error(), user) {
		t.Errorf("the error shows the PIN: %v", err)
	}
	return err
}

// age makes the last try an hour older, as the clock does.
func (c *counted) age(t *testing.T) {
	t.Helper()
	k := pincount.Counter{Dir: c.TokenDir, Serial: c.id.Serial, Now: time.Now}
	s, err := k.Load()
	if err != nil {
		t.Fatal(err)
	}
	n := s.User.Wrong
	if err := os.Remove(k.Path()); err != nil {
		t.Fatal(err)
	}
	back := time.Duration(0)
	k.Now = func() time.Time { back += time.Hour; return time.Now().Add(back - time.Duration(n+1)*time.Hour) }
	for range n {
		if err := k.Begin(pincount.User, false); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *counted) logins(t *testing.T) int {
	t.Helper()
	calls, _ := c.faults.Calls()
	return calls[slices.Index(hsmtest.Functions(), "C_Login")]
}

// Twelve wrong PINs, as long apart as one likes: ten reach the token, SoftHSM
// locks nothing, and we do. The right PIN gets no further then, until a person
// resets the counter; it is not tried during a wait either.
func TestOwnLimitOfWrongPINs(t *testing.T) {
	for _, direct := range []bool{true, false} {
		t.Run(map[bool]string{true: "SoftHSM", false: "another module in between"}[direct], func(t *testing.T) {
			c := newCounted(t, direct)
			for i := range 12 {
				err := c.try(t, wrongUser)
				if i < pincount.Limit && !errors.Is(err, hsm.ErrPIN) || i >= pincount.Limit && !errors.Is(err, hsm.ErrLocked) {
					t.Fatalf("wrong PIN %d: %v", i+1, err)
				}
				if f, _ := errors.AsType[*hsm.Error](err); f.FaultHint() == "" || f.Class != "token" {
					t.Errorf("wrong PIN %d: class %s, no hint", i+1, f.Class)
				}
				if i >= 2 && i < pincount.Limit-1 {
					f, _ := errors.AsType[*hsm.Error](c.try(t, newUser))
					if !errors.Is(f, hsm.ErrWaiting) || f.Wait < 29*time.Second || f.Class != "token" || f.FaultHint() == "" {
						t.Fatalf("the right PIN after %d wrong ones: %v, wait %v", i+1, f, f.Wait)
					}
				}
				c.age(t)
			}
			if err := c.try(t, newUser); !errors.Is(err, hsm.ErrLocked) {
				t.Errorf("the right PIN after too many wrong ones: %v", err)
			}
			if c.faults != nil && c.logins(t) != pincount.Limit {
				t.Errorf("%d PINs reached the token", c.logins(t))
			}
			sup := c.Start(t)
			if _, err := sup.ResetPINCounter(t.Context(), c.id, ""); err == nil {
				t.Error("a reset without a reason")
			}
			if got, err := sup.ResetPINCounter(t.Context(), c.id, "audit 7"); err != nil || got.User != 0 || got.Resets[0].User != pincount.Limit {
				t.Fatalf("%+v, %v", got, err)
			}
			if err := c.try(t, newUser); err != nil {
				t.Fatal(err)
			}
			got, err := sup.PINCounter(t.Context(), c.id)
			if err != nil || got.User != 0 || len(got.Resets) != 1 || got.Resets[0].Reason != "audit 7" {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// A right PIN ends the count and leaves no file but the lock.
func TestRightPINEndsTheCount(t *testing.T) {
	c := newCounted(t, false)
	for range 4 {
		for range 2 {
			if err := c.try(t, wrongUser); !errors.Is(err, hsm.ErrPIN) {
				t.Fatal(err)
			}
		}
		if err := c.try(t, newUser); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(c.TokenDir, ".*.pins")); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// A module that dies or hangs with the PIN in its hands has used a try up; one
// that fails for another reason has not.
func TestTryIsCountedBeforeItIsMade(t *testing.T) {
	login := slices.Index(hsmtest.Functions(), "C_Login")
	for _, tc := range []struct {
		action hsmtest.Action
		want   int
	}{{hsmtest.Crash, 1}, {hsmtest.Die, 1}, {hsmtest.Fail, 0}} {
		t.Run(tc.action.String(), func(t *testing.T) {
			c := newCounted(t, false)
			c.faults.Reset(login, 1, tc.action)
			if err := c.try(t, newUser); err == nil {
				t.Fatal("the login worked")
			}
			got, err := c.Start(t).PINCounter(t.Context(), c.id)
			if err != nil || got.User != tc.want {
				t.Errorf("counted %+v, %v, want %d", got, err, tc.want)
			}
			if err := c.try(t, newUser); err != nil {
				t.Error(err)
			}
		})
	}
}

// Programs that try at the same time share one limit.
func TestTriesAtOnce(t *testing.T) {
	c := newCounted(t, false)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() { _ = c.try(t, wrongUser) })
	}
	wg.Wait()
	if n := c.logins(t); n != 3 {
		t.Errorf("%d wrong PINs reached the token at once", n)
	}
}

// A counter that cannot be believed lets no PIN through, and the error says what
// to do.
func TestDamagedCounter(t *testing.T) {
	c := newCounted(t, false)
	k := pincount.Counter{Dir: c.TokenDir, Serial: c.id.Serial}
	if err := os.WriteFile(k.Path(), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.try(t, newUser); class(err) != "verify" || !strings.Contains(hint(err), "--reset") {
		t.Errorf("got %v of class %s, hint %q", err, class(err), hint(err))
	}
	if n := c.logins(t); n != 0 {
		t.Errorf("%d PINs reached the token", n)
	}
	sup := c.Start(t)
	if got, err := sup.PINCounter(t.Context(), c.id); err != nil || got.Damaged == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := sup.ResetPINCounter(t.Context(), c.id, "the disk was full"); err != nil {
		t.Fatal(err)
	}
	if err := c.try(t, newUser); err != nil {
		t.Error(err)
	}
}

func hint(err error) string {
	f, _ := errors.AsType[*hsm.Error](err)
	if f == nil {
		return ""
	}
	return f.FaultHint()
}

// A token that is no file, here a card, has its counter in the state folder. Where
// that cannot be kept, no PIN reaches it.
func TestNoCounterNoTry(t *testing.T) {
	r := hsmtest.NewCardReader(t)
	card := hsmtest.NewPIVCard(t)
	r.Insert(t, card)
	dir := filepath.Join(t.TempDir(), "state")
	try := func(t *testing.T, state, pin string) error {
		t.Helper()
		cfg := r.Config
		cfg.StateDir = state
		s, err := hsm.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		id := r.Token(t, s)
		userPIN(t, s, id, pin)
		_, err = s.Open(t.Context(), id)
		return err
	}
	for _, tc := range []struct {
		name, class string
		spoil       func(dir string) error
	}{
		{"no folder", "storage", nil},
		{"a file in its place", "policy", func(dir string) error { return os.WriteFile(dir, nil, 0o600) }},
		{"everybody may write", "policy", func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) }},
		{"another user's", "policy", func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 12345)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			state := "/proc/keyrite"
			if tc.spoil != nil {
				state = filepath.Join(t.TempDir(), "state")
				if err := tc.spoil(state); err != nil {
					t.Fatal(err)
				}
			}
			err := try(t, state, "999999")
			if class(err) != tc.class || hint(err) == "" || card.Wrong != 0 {
				t.Errorf("got %v of class %s, want %s with a hint; %d PINs reached the card", err, class(err), tc.class, card.Wrong)
			}
		})
	}
	if err := try(t, dir, "999999"); !errors.Is(err, hsm.ErrPIN) || card.Wrong != 1 {
		t.Fatalf("%v; %d PINs reached the card", err, card.Wrong)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*.pins")); err != nil || len(left) != 1 {
		t.Errorf("the counter is not in the state folder: %v", left)
	}
	if err := try(t, dir, hsmtest.PIVPIN); err != nil {
		t.Error(err)
	}
}
