package hsm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/hsm/keyspec"
)

// spoiled is a file token behind a module in which one call can be spoiled.
type spoiled struct {
	*fileToken
	faults *hsmtest.Faults
	sup    *hsm.Supervisor
}

func newSpoiled(t *testing.T) *spoiled {
	t.Helper()
	f := newFileToken(t)
	x := &spoiled{fileToken: f, faults: f.Faults(t)}
	f.Config.Module = x.faults.Module
	x.sup = f.Start(t)
	f.Take(t, x.sup, f.id, hsm.Current, newSO, newUser)
	return x
}

func (x *spoiled) open(t *testing.T) *hsm.Session {
	t.Helper()
	s, err := x.sup.Open(t.Context(), x.id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// stored makes a key in the token, with a process of its own.
func stored(t *testing.T, sup *hsm.Supervisor, id hsm.TokenID, label string) (hsm.GenerateSpec, *hsm.KeyState) {
	t.Helper()
	sp := signSpec(t, label)
	sp.SessionObject = false
	s, err := sup.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Generate(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return sp, k
}

func sign(t *testing.T, s *hsm.Session, sp hsm.GenerateSpec) error {
	t.Helper()
	return signWithin(t.Context(), s, sp)
}

func signWithin(ctx context.Context, s *hsm.Session, sp hsm.GenerateSpec) error {
	k, err := s.Signer(ctx, sp.KeyID)
	if err != nil {
		return err
	}
	_, err = k.SignContext(ctx, make([]byte, 32))
	return err
}

// TestFiveThousandSessions fills a module process with sessions, as a program that
// leaks them would: the one that keyrite uses works, and all of them end with it.
func TestFiveThousandSessions(t *testing.T) {
	x := newSpoiled(t)
	sp, _ := stored(t, x.sup, x.id, "k")
	x.faults.Reset(call(t, "C_OpenSession"), 1, hsmtest.Crowd)
	s := x.open(t)
	if err := sign(t, s, sp); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if c := children(t, x.sup.PID()); len(c) != 0 {
		t.Errorf("module processes %v are alive", c)
	}
	// A module that gives no more sessions says so, and the next one is as good.
	x.faults.ResetCode(call(t, "C_OpenSession"), 1, hsmtest.Fail, hsmtest.SessionCount)
	if _, err := x.sup.Open(t.Context(), x.id); err == nil || class(err) != "token" {
		t.Errorf("at the limit: %v (class %s)", err, class(err))
	}
	mustSign(t, x.open(t), sp)
}

// TestLongSessionsLeaveNothing opens and closes 5,000 sessions one after the other,
// and looks for descriptors and processes that stay.
func TestLongSessionsLeaveNothing(t *testing.T) {
	long(t)
	sessionsLeaveNothing(t, 5000)
	t.Log("long: sessions opened and closed: 5000 of 5000")
}

// TestSessionsLeaveNothing does so with a few.
func TestSessionsLeaveNothing(t *testing.T) { sessionsLeaveNothing(t, 20) }

func sessionsLeaveNothing(t *testing.T, rounds int) {
	f := newFileToken(t)
	f.opens(t, "before")
	fds := func(pid int) int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	mine, its := fds(os.Getpid()), fds(f.Supervisor.PID())
	for i := range rounds {
		f.opens(t, fmt.Sprint(i))
	}
	// The runtime may open one for itself meanwhile.
	if now := fds(f.Supervisor.PID()); now > its+1 {
		t.Errorf("the supervisor has %d descriptors, %d before", now, its)
	}
	if now := fds(os.Getpid()); now > mine+1 {
		t.Errorf("the client has %d descriptors, %d before", now, mine)
	}
	if c := children(t, f.Supervisor.PID()); len(c) != 0 {
		t.Errorf("module processes %v are alive", c)
	}
}

// TestTokenFolderMovedAway takes the folder of an open token away and brings it
// back: typed errors meanwhile, everything as before afterwards.
func TestTokenFolderMovedAway(t *testing.T) {
	f := newFileToken(t)
	sp, k := stored(t, f.Supervisor, f.id, "k")
	s := f.Open(t, f.id)
	if err := sign(t, s, sp); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(f.file(t))
	away := filepath.Join(f.Dir, "away")
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	if err := sign(t, s, sp); err != nil && class(err) != "token" && class(err) != "verify" {
		t.Errorf("a running session: %v (class %s)", err, class(err))
	}
	if _, err := f.Supervisor.Open(t.Context(), f.id); !errors.Is(err, hsm.ErrNotFound) || class(err) != "token" {
		t.Errorf("open: %v (class %s)", err, class(err))
	}
	if _, err := f.Supervisor.Health(t.Context(), f.id); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("health: %v", err)
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	mustSign(t, f.Open(t, f.id), sp)
	if _, err := f.Supervisor.Health(t.Context(), f.id, expect(sp, k)); err != nil {
		t.Error(err)
	}
}

// TestOtherProcessDestroysTheKey: the session that had it says so, and never signs
// with anything else; a key of the same id that comes later is found.
func TestOtherProcessDestroysTheKey(t *testing.T) {
	f := newFileToken(t)
	sp, _ := stored(t, f.Supervisor, f.id, "k")
	s := f.Open(t, f.id)
	k, err := s.Signer(t.Context(), sp.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Open(t, f.id).DestroyKey(t.Context(), sp.KeyID); err != nil {
		t.Fatal(err)
	}
	if sig, err := k.SignContext(t.Context(), make([]byte, 32)); err == nil || class(err) != "token" {
		t.Errorf("signed %x, %v (class %s)", sig, err, class(err))
	}
	other := f.Open(t, f.id)
	if _, err := other.Generate(t.Context(), hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: sp.KeyID, Label: "k"}); err != nil {
		t.Fatal(err)
	}
	// The signer was for the old key; whoever asks anew gets the new one.
	if sig, err := k.SignContext(t.Context(), make([]byte, 32)); err == nil {
		t.Errorf("a signer of a destroyed key gave %x", sig)
	}
	mustSign(t, f.Open(t, f.id), sp)
}

// TestManyProcessesStartAtOnce: SoftHSM alone loses some of them at the start.
func TestManyProcessesStartAtOnce(t *testing.T) {
	f := newFileToken(t)
	var wg sync.WaitGroup
	for range 3 {
		sup := f.Start(t)
		f.Take(t, sup, f.id, hsm.Current, newSO, newUser)
		for range 2 {
			wg.Go(func() {
				for range 3 {
					s, err := sup.Open(t.Context(), f.id)
					if err != nil {
						t.Error(err)
						return
					}
					tag, err := hsm.NewTag()
					if err != nil {
						t.Error(err)
						return
					}
					_, err = s.Generate(t.Context(), hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, 1), Label: "k" + tag.String()[:16]})
					if err := errors.Join(err, s.Close()); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	h, err := f.Supervisor.Health(t.Context(), f.id)
	if err != nil {
		t.Error(err)
		for _, x := range h.Findings {
			t.Logf("%+v", x)
		}
		for p, b := range f.keyFiles(t) {
			t.Logf("%s %d bytes", filepath.Base(p), len(b))
		}
	}
	if len(h.Keys) != 18 || h.Objects != 36 {
		t.Errorf("%d keys, %d objects, want 18 and 36", len(h.Keys), h.Objects)
	}
}

// TestAbandonedOperation leaves a C_SignInit without its C_Sign: the session is not
// used again, since every later C_SignInit would say OPERATION_ACTIVE.
func TestAbandonedOperation(t *testing.T) {
	x := newSpoiled(t)
	sp, _ := stored(t, x.sup, x.id, "k")
	for _, tc := range []struct {
		name, function string
		code           uint32
	}{
		// The call never reaches SoftHSM, where the operation stays active.
		{"the signature was not made", "C_Sign", 5}, // CKR_GENERAL_ERROR
		{"one is active already", "C_SignInit", hsmtest.OperationActive},
		{"a search is active already", "C_FindObjectsInit", hsmtest.OperationActive},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := x.open(t)
			x.faults.ResetCode(call(t, tc.function), 1, hsmtest.Fail, tc.code)
			err := sign(t, s, sp)
			if err != nil && !errors.Is(err, hsm.ErrLost) { // not known to be spoiled yet
				err = sign(t, s, sp)
			}
			if !errors.Is(err, hsm.ErrLost) || class(err) != "token" {
				t.Errorf("got %v (class %s)", err, class(err))
			}
			<-s.Lost()
			if err := sign(t, s, sp); !errors.Is(err, hsm.ErrLost) {
				t.Errorf("the same session goes on: %v", err)
			}
			mustSign(t, x.open(t), sp)
		})
	}
}

// TestFinalizeUnderLoad lets another thread finalise the module in the middle of
// signatures, which crashes SoftHSM, or now and then hangs it: whoever waits gets a
// typed error, at the latest when his time is over, and the next process signs.
func TestFinalizeUnderLoad(t *testing.T) {
	x := newSpoiled(t)
	sp, _ := stored(t, x.sup, x.id, "k")
	outcomes := map[string]int{}
	for _, function := range []string{"C_SignInit", "C_Sign", "C_GetAttributeValue", "C_FindObjects", "C_GenerateRandom"} {
		s := x.open(t)
		x.faults.Reset(call(t, function), 1, hsmtest.Finalize)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := s.Random(ctx, 16)
		if err == nil {
			err = signWithin(ctx, s, sp)
		}
		cancel()
		if err == nil || class(err) != "token" {
			t.Errorf("%s: %v (class %s)", function, err, class(err))
		}
		outcomes[fmt.Sprint(errors.Is(err, hsm.ErrLost))]++
		mustSign(t, x.open(t), sp)
	}
	t.Logf("lost: %v", outcomes)
}

// TestCloseUnderLoad closes a session in which others sign: each gets a signature
// or a typed error, and the process ends well.
func TestCloseUnderLoad(t *testing.T) {
	f := newFileToken(t)
	sp, _ := stored(t, f.Supervisor, f.id, "k")
	for range 5 {
		s := f.Open(t, f.id)
		var wg sync.WaitGroup
		started := make(chan struct{}, 8)
		for range 8 {
			wg.Go(func() {
				for n := 0; ; n++ {
					if err := sign(t, s, sp); err != nil {
						if !errors.Is(err, hsm.ErrLost) {
							t.Errorf("got %v, want session lost", err)
						}
						return
					}
					if n == 3 {
						started <- struct{}{}
					}
				}
			})
		}
		for range 8 {
			<-started
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
	if c := children(t, f.Supervisor.PID()); len(c) != 0 {
		t.Errorf("module processes %v are alive", c)
	}
}

// TestHangInEachFunction stops each function of PKCS#11 that a life of a token
// calls: the caller is back at his deadline, the process is ended, and a fresh one
// does the work.
func TestHangInEachFunction(t *testing.T) {
	x := newSpoiled(t)
	sp, _ := stored(t, x.sup, x.id, "k")
	life := func(ctx context.Context) error {
		s, err := x.sup.Open(ctx, x.id)
		if err != nil {
			return err
		}
		born := signSpec(t, "b")
		_, err = s.Random(ctx, 16)
		if err == nil {
			_, err = s.Generate(ctx, born)
		}
		if err == nil {
			_, err = s.CopyToToken(ctx, born)
		}
		if err == nil {
			err = s.SyncToken(ctx)
		}
		if err == nil {
			err = signWithin(ctx, s, sp)
		}
		if err == nil {
			_, err = s.DestroyTagged(ctx, born.KeyID.Tag(), true)
		}
		return errors.Join(err, s.Close())
	}
	x.faults.Reset(0, 0, 0)
	if err := life(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls, _ := x.faults.Calls()
	hung := []string{}
	for i, name := range hsmtest.Functions() {
		if calls[i] == 0 {
			continue
		}
		hung = append(hung, name)
		x.faults.Reset(i, 1, hsmtest.Hang)
		// The caller's time is over as soon as the call hangs.
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for ctx.Err() == nil {
				if _, done := x.faults.Calls(); done {
					cancel()
				}
				<-time.After(time.Millisecond)
			}
		}()
		err := life(ctx)
		cancel()
		if _, done := x.faults.Calls(); !done {
			t.Errorf("%s was not called", name)
		}
		// What hangs after the last answer is ended by Close, and said.
		if err == nil || class(err) != "token" {
			t.Errorf("%s: %v (class %s)", name, err, class(err))
		}
		if err := sign(t, x.open(t), sp); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
		clean(t, x.open(t), sp)
	}
	t.Logf("%d functions: %v", len(hung), hung)
	for _, must := range []string{"C_Initialize", "C_Login", "C_OpenSession", "C_GenerateKeyPair", "C_CopyObject", "C_SignInit", "C_Sign", "C_DestroyObject", "C_FindObjects", "C_Finalize"} {
		if !slices.Contains(hung, must) {
			t.Errorf("%s is no part of the test", must)
		}
	}
}

// clean removes everything but one key.
func clean(t *testing.T, s *hsm.Session, keep hsm.GenerateSpec) {
	t.Helper()
	for _, o := range objects(t, s) {
		if id, err := keyspec.ParseKeyID(o.ID); err == nil && id != keep.KeyID {
			if _, err := s.DestroyTagged(t.Context(), id.Tag(), true); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestTaintedNamesWhatStays: an object that refuses to go is named.
func TestTaintedNamesWhatStays(t *testing.T) {
	x := newSpoiled(t)
	sp, _ := stored(t, x.sup, x.id, "k")
	s := x.open(t)
	x.faults.Reset(call(t, "C_DestroyObject"), 1, hsmtest.Fail)
	d, err := s.DestroyTagged(t.Context(), sp.KeyID.Tag(), true)
	if err == nil || class(err) != "token" || d == nil || len(d.Tainted) != 1 || d.Tainted[0].ID != sp.KeyID.String() || len(d.Objects) != 1 {
		t.Errorf("got %+v, %v", d, err)
	}
	if d, err = x.open(t).DestroyTagged(t.Context(), sp.KeyID.Tag(), true); err != nil || len(d.Tainted) != 0 || len(d.Objects) != 1 {
		t.Errorf("the second time: %+v, %v", d, err)
	}
}
