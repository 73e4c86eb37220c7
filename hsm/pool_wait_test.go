package hsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

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
