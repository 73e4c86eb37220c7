package hsm_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// poolRoom is a token with one signing key, over a module that counts its calls
// and spoils one when it is told to.
type poolRoom struct {
	env    *hsmtest.Env
	faults *hsmtest.Faults
	sup    *hsm.Supervisor
	id     hsm.TokenID
	key    hsm.GenerateSpec
}

func newPoolRoom(t *testing.T) *poolRoom {
	t.Helper()
	e := hsmtest.NewStore(t)
	r := &poolRoom{env: e, faults: e.Faults(t)}
	e.Config.Module = r.faults.Module
	e.Supervisor = e.Start(t)
	r.sup = e.Supervisor
	var err error
	if r.id, err = r.sup.InitToken(t.Context(), "work"); err != nil {
		t.Fatal(err)
	}
	r.key = signSpec(t, "k")
	r.key.SessionObject = false
	s := e.Open(t, r.id)
	if _, err := s.Generate(t.Context(), r.key); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *poolRoom) pool(t *testing.T, cfg hsm.PoolConfig) *hsm.Pool {
	t.Helper()
	p, err := hsm.NewPool(t.Context(), r.sup, r.id, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (r *poolRoom) signer(t *testing.T, p *hsm.Pool) *hsm.Key {
	t.Helper()
	k, err := p.Signer(t.Context(), r.key.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// function gives the number of a PKCS#11 function.
func function(t *testing.T, name string) int {
	t.Helper()
	i := slices.Index(hsmtest.Functions(), name)
	if i < 0 {
		t.Fatalf("no function %s", name)
	}
	return i
}

// calls says how often a function was called since the last Reset.
func (r *poolRoom) calls(t *testing.T, name string) int {
	t.Helper()
	n, _ := r.faults.Calls()
	return n[function(t, name)]
}

func digestOf(g, i int) []byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(g)), uint64(i)))
	return sum[:]
}

// load lets 8 goroutines sign, each digest once, until stop is closed or each has
// made limit requests. It fails the test for a signature of anything else than
// what was asked for, and gives the numbers of requests and of their errors.
type load struct {
	asked, good, lost atomic.Int64
	seen              sync.Map // signature -> digest
	wg                sync.WaitGroup
}

func (l *load) run(t *testing.T, k *hsm.Key, limit int, stop <-chan struct{}) {
	pub, ok := k.Public().(*ecdsa.PublicKey)
	if !ok {
		t.Fatal("no ECDSA key")
	}
	for g := range 8 {
		l.wg.Go(func() {
			for i := range limit {
				select {
				case <-stop:
					return
				default:
				}
				digest := digestOf(g, i)
				l.asked.Add(1)
				sig, err := k.SignContext(t.Context(), digest)
				switch {
				case errors.Is(err, hsm.ErrLost):
					l.lost.Add(1)
					continue
				case err != nil:
					t.Error(err)
					return
				}
				l.good.Add(1)
				if !ecdsa.VerifyASN1(pub, digest, sig) {
					t.Error("a signature is not of what was asked for")
				}
				if other, twice := l.seen.LoadOrStore(string(sig), string(digest)); twice {
					t.Errorf("one signature for %x and %x", digest, other)
				}
			}
		})
	}
}

// TestPoolFindsOnce shows that no signature searches the token, that handles are
// found again once after a loss, and that each signature is begun once.
func TestPoolFindsOnce(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{})
	k := r.signer(t, p)
	r.faults.Reset(0, 0, 0)
	var l load
	l.run(t, k, 50, nil)
	l.wg.Wait()
	if n := r.calls(t, "C_FindObjectsInit"); n != 0 {
		t.Errorf("%d searches for %d signatures", n, l.good.Load())
	}
	if n := r.calls(t, "C_SignInit"); n != 400 || l.good.Load() != 400 {
		t.Errorf("%d calls of C_SignInit, %d signatures, want 400", n, l.good.Load())
	}
	if err := syscall.Kill(module(t, r.sup), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for p.Epoch() == 1 {
		<-time.After(time.Millisecond)
	}
	r.faults.Reset(0, 0, 0)
	var again load
	again.run(t, k, 50, nil)
	again.wg.Wait()
	if n := r.calls(t, "C_FindObjectsInit"); n != 1 || again.good.Load() != 400 {
		t.Errorf("%d searches for %d signatures of the second epoch, want 1 for 400", n, again.good.Load())
	}
}

// TestPoolKilledUnderLoad kills the module process among the requests of 8
// goroutines: what was under way is lost and not made again, everything else is
// served by the next process, and nothing is signed twice.
func TestPoolKilledUnderLoad(t *testing.T) {
	for _, sessions := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d sessions", sessions), func(t *testing.T) {
			r := newPoolRoom(t)
			p := r.pool(t, hsm.PoolConfig{Sessions: sessions, InFlight: 6})
			k := r.signer(t, p)
			r.faults.Reset(0, 0, 0)
			var l load
			stop := make(chan struct{})
			l.run(t, k, 1<<30, stop)
			for l.good.Load() < 100 {
				<-time.After(time.Millisecond)
			}
			if err := syscall.Kill(module(t, r.sup), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for p.Epoch() == 1 {
				<-time.After(time.Millisecond)
			}
			for from := l.good.Load(); l.good.Load() < from+100; {
				<-time.After(time.Millisecond)
			}
			close(stop)
			l.wg.Wait()
			asked, good, lost, made := l.asked.Load(), l.good.Load(), l.lost.Load(), int64(r.calls(t, "C_SignInit"))
			t.Logf("asked %d, good %d, lost %d, C_SignInit %d", asked, good, lost, made)
			if good+lost != asked || lost > 6 {
				t.Errorf("of %d requests %d are good and %d lost; at most 6 were under way", asked, good, lost)
			}
			if made < good || made > good+lost {
				t.Errorf("%d signatures were made for %d requests that are good and %d that are lost", made, good, lost)
			}
			if p.Epoch() != 2 {
				t.Errorf("epoch %d, want 2", p.Epoch())
			}
		})
	}
}

// TestPoolCrashAndHang spoils one call of the module: the request ends without
// being made again, and the next is good.
func TestPoolCrashAndHang(t *testing.T) {
	for _, tc := range []struct {
		function string
		nth      int // the binding calls C_Sign twice: for the length, then for the signature
		action   hsmtest.Action
	}{
		{"C_SignInit", 1, hsmtest.Crash},
		{"C_Sign", 2, hsmtest.Crash},
		{"C_Sign", 2, hsmtest.Die},
		{"C_SignInit", 1, hsmtest.Hang},
		{"C_Sign", 2, hsmtest.Hang},
		{"C_Sign", 2, hsmtest.Fail},
		{"C_Sign", 2, hsmtest.Lose},
	} {
		t.Run(tc.function+" "+tc.action.String(), func(t *testing.T) {
			r := newPoolRoom(t)
			p := r.pool(t, hsm.PoolConfig{Use: 2 * time.Second})
			k := r.signer(t, p)
			r.faults.Reset(function(t, tc.function), tc.nth, tc.action)
			from := time.Now()
			_, err := k.SignContext(t.Context(), digestOf(0, 0))
			if !errors.Is(err, hsm.ErrLost) || class(err) != "token" {
				t.Errorf("got %v (class %s), want lost", err, class(err))
			}
			if hang := tc.action == hsmtest.Hang; hang != errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a hang is %v: %v", hang, err)
			}
			t.Logf("lost after %v: %v", time.Since(from), err)
			from = time.Now()
			sig, err := k.SignContext(t.Context(), digestOf(0, 1))
			if err != nil || len(sig) == 0 {
				t.Fatalf("the next one: %v", err)
			}
			t.Logf("good again after %v", time.Since(from))
			if n := r.calls(t, "C_SignInit"); n != 2 {
				t.Errorf("%d signatures were begun for 2 requests", n)
			}
			if p.Epoch() != 2 {
				t.Errorf("epoch %d, want 2", p.Epoch())
			}
		})
	}
}

// TestPoolLookup leaves generation and destruction in an unknown state and asks
// what became of them.
func TestPoolLookup(t *testing.T) {
	for _, tc := range []struct {
		name     string
		function string
		nth      int
		action   hsmtest.Action
		destroy  bool
		want     hsm.Outcome
	}{
		{"before generation", "C_GenerateKeyPair", 1, hsmtest.Crash, false, hsm.Absent},
		{"after generation", "C_GenerateKeyPair", 1, hsmtest.Die, false, hsm.Whole},
		{"hang before generation", "C_GenerateKeyPair", 1, hsmtest.Hang, false, hsm.Absent},
		{"before destruction", "C_DestroyObject", 1, hsmtest.Crash, true, hsm.Whole},
		{"between both halves", "C_DestroyObject", 1, hsmtest.Die, true, hsm.Partial},
		{"after destruction", "C_DestroyObject", 2, hsmtest.Die, true, hsm.Absent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newPoolRoom(t)
			p := r.pool(t, hsm.PoolConfig{Change: 2 * time.Second})
			sp := signSpec(t, "second")
			sp.SessionObject = false
			if tc.destroy {
				if _, err := p.Generate(t.Context(), sp); err != nil {
					t.Fatal(err)
				}
			}
			r.faults.Reset(function(t, tc.function), tc.nth, tc.action)
			var err error
			if tc.destroy {
				err = p.DestroyKey(t.Context(), sp.KeyID)
			} else {
				_, err = p.Generate(t.Context(), sp)
			}
			if !errors.Is(err, hsm.ErrLost) {
				t.Fatalf("got %v, want lost", err)
			}
			f, err := p.Lookup(t.Context(), sp.KeyID)
			if err != nil {
				t.Fatal(err)
			}
			if f.Outcome != tc.want || (f.Key != nil) != (tc.want == hsm.Whole) || (len(f.Objects) == 0) != (tc.want == hsm.Absent) {
				t.Errorf("outcome %s with %d objects, want %s", f.Outcome, len(f.Objects), tc.want)
			}
			if n := r.calls(t, tc.function); n != tc.nth {
				t.Errorf("%d calls of %s: the request was made again", n, tc.function)
			}
			other, err := p.Lookup(t.Context(), r.key.KeyID)
			if err != nil || other.Outcome != hsm.Whole {
				t.Errorf("the other key: %+v, %v", other, err)
			}
		})
	}
}

// TestLookupAfterCopy kills a birth session in the copy of its key and looks at
// the token through a pool.
func TestLookupAfterCopy(t *testing.T) {
	for nth, want := range map[int]hsm.Outcome{1: hsm.Partial, 2: hsm.Whole} {
		t.Run(fmt.Sprintf("copy %d", nth), func(t *testing.T) {
			r := newPoolRoom(t)
			s := r.env.Open(t, r.id)
			sp := signSpec(t, "born")
			if _, err := s.Generate(t.Context(), sp); err != nil {
				t.Fatal(err)
			}
			r.faults.Reset(function(t, "C_CopyObject"), nth, hsmtest.Die)
			if _, err := s.CopyToToken(t.Context(), sp); !errors.Is(err, hsm.ErrLost) {
				t.Fatalf("got %v, want lost", err)
			}
			f, err := r.pool(t, hsm.PoolConfig{}).Lookup(t.Context(), sp.KeyID)
			if err != nil || f.Outcome != want {
				t.Errorf("got %+v, %v, want %s", f, err, want)
			}
		})
	}
}

// TestPoolQueue fills a pool whose module does not answer: the queue is bounded,
// what was not sent ends as not done, and all is served when it goes on.
func TestPoolQueue(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{InFlight: 2, Queue: 3, Use: time.Hour})
	k := r.signer(t, p)
	pid := module(t, r.sup)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.faults.Reset(0, 0, 0)
	impatient, leave := context.WithCancel(t.Context())
	errs := make(chan error, 5)
	for i := range 5 {
		ctx := t.Context()
		if i == 4 {
			ctx = impatient
		}
		go func() {
			_, err := k.SignContext(ctx, digestOf(1, i))
			errs <- err
		}()
		for p.Waiting() != i+1 {
			runtime.Gosched()
		}
	}
	_, err := k.SignContext(t.Context(), digestOf(1, 6))
	if !errors.Is(err, hsm.ErrBusy) || class(err) != "sealed" {
		t.Errorf("a full queue: %v (class %s)", err, class(err))
	}
	leave()
	if err := <-errs; !errors.Is(err, hsm.ErrNotDone) || errors.Is(err, hsm.ErrLost) || !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left: %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Errorf("one that waited: %v", err)
		}
	}
	if n := r.calls(t, "C_SignInit"); n != 4 {
		t.Errorf("%d signatures were made, want 4", n)
	}
}

// TestPoolLeaver leaves the wait for a request that the module works on: nobody
// else is disturbed, and the place at the module is free again when it is done.
func TestPoolLeaver(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{InFlight: 1, Use: time.Hour})
	k := r.signer(t, p)
	pid := module(t, r.sup)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	go func() {
		_, err := k.SignContext(ctx, digestOf(2, 0))
		errs <- err
	}()
	for p.Waiting() != 1 {
		runtime.Gosched()
	}
	for !atModule(t, pid) { // the request has left
		runtime.Gosched()
	}
	leave()
	if err := <-errs; !errors.Is(err, hsm.ErrLost) || !errors.Is(err, context.Canceled) {
		t.Errorf("the leaver: %v", err)
	}
	go func() {
		_, err := k.SignContext(t.Context(), digestOf(2, 1))
		errs <- err
	}()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; err != nil {
		t.Errorf("the next: %v", err)
	}
	if p.Epoch() != 1 || module(t, r.sup) != pid {
		t.Error("the module process was ended for one that left")
	}
}

// TestPoolToldToWait loses the module twice: the second start has to wait, and a
// request that cannot wait that long is told so at once.
func TestPoolToldToWait(t *testing.T) {
	r := newPoolRoom(t)
	r.env.Config.Reopen = 0 // as programs have it: half a minute
	r.sup = r.env.Start(t)
	r.env.SetPINs(t, r.id, newSO, newUser)
	r.env.Take(t, r.sup, r.id, hsm.Current, newSO, newUser)
	p := r.pool(t, hsm.PoolConfig{Use: 5 * time.Second})
	k := r.signer(t, p)
	for epoch := uint64(1); epoch <= 2; epoch++ {
		for p.Epoch() != epoch {
			<-time.After(time.Millisecond)
		}
		if _, err := k.SignContext(t.Context(), digestOf(3, 0)); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(module(t, r.sup), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	// What is sent before the loss is seen is lost; then nothing is sent.
	var err error
	for range 100 {
		if _, err = k.SignContext(t.Context(), digestOf(3, 1)); !errors.Is(err, hsm.ErrLost) {
			break
		}
	}
	var e *hsm.Error
	if !errors.Is(err, hsm.ErrNotDone) || !errors.Is(err, hsm.ErrWaiting) || !errors.As(err, &e) || e.Wait <= 0 || e.Hint == "" {
		t.Errorf("got %v", err)
	}
	if p.Epoch() != 2 {
		t.Errorf("epoch %d: the module was started anew", p.Epoch())
	}
}

// TestPoolPINChanged changes the PIN behind the pool and kills its process: the
// old PIN is tried once and never again.
func TestPoolPINChanged(t *testing.T) {
	r := newPoolRoom(t)
	r.env.SetPINs(t, r.id, newSO, newUser)
	p := r.pool(t, hsm.PoolConfig{})
	k := r.signer(t, p)
	other := r.env.Start(t)
	r.env.Take(t, other, r.id, hsm.Current, newSO, newUser)
	r.env.Take(t, other, r.id, hsm.Next, "another-officer", "another-user")
	if err := other.ChangePINs(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
	r.faults.Reset(0, 0, 0)
	if err := syscall.Kill(module(t, r.sup), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 3 {
		for {
			if _, err = k.SignContext(t.Context(), digestOf(4, 0)); !errors.Is(err, hsm.ErrLost) {
				break
			}
		}
		if !errors.Is(err, hsm.ErrNotDone) || !errors.Is(err, hsm.ErrPIN) || class(err) != "token" {
			t.Errorf("got %v (class %s)", err, class(err))
		}
	}
	if n := r.calls(t, "C_Login"); n != 1 {
		t.Errorf("the PIN was tried %d times", n)
	}
}

// TestPoolOtherModule puts another module in the place of the one that the pool
// began with, and kills its process.
func TestPoolOtherModule(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{})
	k := r.signer(t, p)
	other, err := os.ReadFile(hsmtest.Module(t))
	if err != nil {
		t.Fatal(err)
	}
	// Under a new inode, as an update does: the old one is mapped.
	if err := errors.Join(os.WriteFile(r.env.Dir+"/new.so", other, 0o700), os.Rename(r.env.Dir+"/new.so", r.faults.Module)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(module(t, r.sup), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err = k.SignContext(t.Context(), digestOf(8, 0)); !errors.Is(err, hsm.ErrLost) {
			break
		}
	}
	if !errors.Is(err, hsm.ErrNotDone) || !errors.Is(err, hsm.ErrRefused) || class(err) != "policy" {
		t.Errorf("got %v (class %s)", err, class(err))
	}
}

// TestPoolTokenAway moves the token's folder away and back: its keys are found
// again, and meanwhile nothing hangs.
func TestPoolTokenAway(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{})
	k := r.signer(t, p)
	if _, err := k.SignContext(t.Context(), digestOf(5, 0)); err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(r.env.TokenDir, "*-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	if err := os.Rename(dirs[0], r.env.Dir+"/away"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignContext(t.Context(), digestOf(5, 1)); err == nil {
		t.Error("a token that is not there signed")
	}
	if err := os.Rename(r.env.Dir+"/away", dirs[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignContext(t.Context(), digestOf(5, 2)); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

// TestPoolKeyDestroyed has another process destroy the key.
func TestPoolKeyDestroyed(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{})
	k := r.signer(t, p)
	if err := r.env.Open(t, r.id).DestroyKey(t.Context(), r.key.KeyID); err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignContext(t.Context(), digestOf(6, 0)); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("got %v, want not found", err)
	}
	if p.Epoch() != 1 {
		t.Error("the module was started anew for a key that is gone")
	}
}

// TestPoolRefuses what it must not do.
func TestPoolRefuses(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{})
	born := signSpec(t, "born")
	if _, err := p.Generate(t.Context(), born); class(err) != "usage" {
		t.Errorf("a session object in a pool: %v", err)
	}
	for name, cfg := range map[string]hsm.PoolConfig{
		"sessions": {Sessions: 65}, "negative": {Sessions: -1}, "few in flight": {Sessions: 4, InFlight: 2},
		"queue": {Queue: -1}, "deadline": {Use: -1}, "giant queue": {Queue: 1 << 30},
	} {
		if _, err := hsm.NewPool(t.Context(), r.sup, r.id, cfg); class(err) != "usage" {
			t.Errorf("%s: %v", name, err)
		}
	}
	k := r.signer(t, p)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.SignContext(over, digestOf(7, 0)); !errors.Is(err, hsm.ErrNotDone) {
		t.Errorf("a context that is over: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignContext(t.Context(), digestOf(7, 1)); !errors.Is(err, hsm.ErrNotDone) {
		t.Errorf("after Close: %v", err)
	}
}

// TestPoolLeavesNothing counts goroutines and processes after a pool that lost a
// process, was left by callers and was closed under load.
func TestPoolLeavesNothing(t *testing.T) {
	r := newPoolRoom(t)
	before := ours(t)
	p := r.pool(t, hsm.PoolConfig{Sessions: 2, InFlight: 2})
	k := r.signer(t, p)
	var l sync.WaitGroup
	for g := range 8 {
		l.Go(func() {
			for i := 0; ; i++ {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%5)*time.Millisecond)
				_, err := k.SignContext(ctx, digestOf(g, i))
				cancel()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, hsm.ErrLost) {
					if !errors.Is(err, hsm.ErrNotDone) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	if err := syscall.Kill(module(t, r.sup), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for p.Epoch() == 1 {
		<-time.After(time.Millisecond)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	l.Wait()
	var left string
	for range 500 { // a goroutine that was told to end needs a moment
		if left = ours(t); len(left) <= len(before) {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if len(left) > len(before) {
		t.Errorf("goroutines are left:\n%s", left)
	}
	if c := children(t, r.sup.PID()); len(c) != 0 {
		t.Errorf("module processes %v are left", c)
	}
}

// ours gives the stacks of the goroutines that package hsm started.
func ours(t *testing.T) string {
	t.Helper()
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if i := strings.LastIndex(g, "created by keyrite/hsm."); i >= 0 {
			out = append(out, g[i:])
		}
	}
	return strings.Join(out, "\n")
}

// atModule reports whether something lies in a socket of the process that it has
// not read: it is stopped.
func atModule(t *testing.T, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(") T "))
}
