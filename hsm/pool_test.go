package hsm_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// TestPoolFindsOnce shows that no signature searches the token, that handles are
// found again once after a loss, and that each signature is begun once.
func TestPoolFindsOnce(t *testing.T) {
	for _, alg := range poolAlgorithms {
		t.Run(string(alg), func(t *testing.T) {
			r := newPoolRoomOf(t, alg)
			p := r.pool(t, hsm.PoolConfig{})
			k := r.signer(t, p)
			r.faults.Reset(0, 0, 0)
			var l load
			l.run(t, k, 20, nil)
			l.wg.Wait()
			if n := r.calls(t, "C_FindObjectsInit"); n != 0 {
				t.Errorf("%d searches for %d signatures", n, l.good.Load())
			}
			if n := r.calls(t, "C_SignInit"); n != 160 || l.good.Load() != 160 {
				t.Errorf("%d calls of C_SignInit, %d signatures, want 160", n, l.good.Load())
			}
			if err := syscall.Kill(module(t, r.sup), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for p.Epoch() == 1 {
				<-time.After(time.Millisecond)
			}
			r.faults.Reset(0, 0, 0)
			var again load
			again.run(t, k, 20, nil)
			again.wg.Wait()
			if n := r.calls(t, "C_FindObjectsInit"); n != 1 || again.good.Load() != 160 {
				t.Errorf("%d searches for %d signatures of the second epoch, want 1 for 160", n, again.good.Load())
			}
		})
	}
}

// TestPoolKeepsHandles shows that a request which only reads leaves every session the
// handles that it has found, and one that makes a key does not.
func TestPoolKeepsHandles(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{Sessions: 2})
	k := r.signer(t, p)
	sign := func() int {
		r.faults.Reset(0, 0, 0)
		var l load
		l.run(t, k, 50, nil)
		l.wg.Wait()
		return r.calls(t, "C_FindObjectsInit")
	}
	for sign() > 0 { // until both sessions have found it
	}
	for name, read := range map[string]func() error{
		"objects":    func() error { _, err := p.Objects(t.Context()); return err },
		"attributes": func() error { _, err := p.Attributes(t.Context(), r.key.KeyID); return err },
		"look":       func() error { _, err := p.Lookup(t.Context(), r.key.KeyID); return err },
		"sync":       func() error { return p.SyncToken(t.Context()) },
	} {
		if err := read(); err != nil {
			t.Fatal(err)
		}
		if n := sign(); n != 0 {
			t.Errorf("%s: %d searches in the signatures after it", name, n)
		}
	}
	other := signSpec(t, "other")
	other.SessionObject = false
	if _, err := p.Generate(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	searches := 0
	for range 20 { // one of them meets the session that is not the anchor
		searches += sign()
	}
	if searches != 1 {
		t.Errorf("%d searches after a key was made, want 1", searches)
	}
}

// TestPoolAnswersBeforeItGoesOn spoils a request that the module process reads together
// with the one before it: what was done before has left by then. The process is
// stopped until both lie in its socket.
func TestPoolAnswersBeforeItGoesOn(t *testing.T) {
	for _, tc := range []struct {
		name, function string
		nth            int
		action         hsmtest.Action
		next           func(*hsm.Pool, *hsm.Key, hsm.GenerateSpec) error
	}{
		{"a generation crashes", "C_GenerateKeyPair", 1, hsmtest.Crash, generates},
		{"a generation hangs", "C_GenerateKeyPair", 1, hsmtest.Hang, generates},
		{"a signature hangs", "C_SignInit", 2, hsmtest.Hang, func(_ *hsm.Pool, k *hsm.Key, _ hsm.GenerateSpec) error {
			_, err := k.SignContext(context.Background(), digestOf(0, 1))
			return err
		}},
	} {
		for _, sessions := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d sessions", tc.name, sessions), func(t *testing.T) {
				r := newPoolRoom(t)
				p := r.pool(t, hsm.PoolConfig{Sessions: sessions, Use: 2 * time.Second, Change: 2 * time.Second})
				k := r.signer(t, p)
				if _, err := k.SignContext(t.Context(), digestOf(0, 9)); err != nil {
					t.Fatal(err)
				}
				spec := signSpec(t, "other")
				spec.SessionObject = false
				r.faults.Reset(function(t, tc.function), tc.nth, tc.action)
				pid := module(t, r.sup)
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				first, second := make(chan error, 1), make(chan error, 1)
				queued := func(n int) {
					for p.Waiting() != n {
						<-time.After(time.Millisecond)
					}
					<-time.After(20 * time.Millisecond) // from there into the socket
				}
				go func() {
					_, err := k.SignContext(t.Context(), digestOf(0, 0))
					first <- err
				}()
				queued(1)
				go func() { second <- tc.next(p, k, spec) }()
				queued(2)
				if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				made, lost := <-first, <-second
				if sessions > 1 && made != nil { // two signatures side by side: either may have come second
					made, lost = lost, made
				}
				if made != nil || !errors.Is(lost, hsm.ErrLost) {
					t.Errorf("the one that was made: %v; the one that was spoiled: %v", made, lost)
				}
			})
		}
	}
}

func generates(p *hsm.Pool, _ *hsm.Key, spec hsm.GenerateSpec) error {
	_, err := p.Generate(context.Background(), spec)
	return err
}

// TestPoolKilledUnderLoad kills the module process among the requests of 8
// goroutines: what was under way is lost and not made again, everything else is
// served by the next process, and nothing is signed twice.
func TestPoolKilledUnderLoad(t *testing.T) {
	type room struct {
		alg      hsm.Algorithm
		sessions int
	}
	rooms := []room{{hsm.ECDSAP256, 1}}
	for _, alg := range poolAlgorithms {
		rooms = append(rooms, room{alg, 4})
	}
	for _, x := range rooms {
		t.Run(fmt.Sprintf("%s, %d sessions", x.alg, x.sessions), func(t *testing.T) {
			r := newPoolRoomOf(t, x.alg)
			p := r.pool(t, hsm.PoolConfig{Sessions: x.sessions, InFlight: 6})
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
	type spoiled struct {
		alg      hsm.Algorithm
		function string
		nth      int // the binding calls C_Sign twice: for the length, then for the signature
		action   hsmtest.Action
	}
	cases := []spoiled{
		{hsm.ECDSAP256, "C_SignInit", 1, hsmtest.Crash},
		{hsm.ECDSAP256, "C_Sign", 2, hsmtest.Die},
		{hsm.ECDSAP256, "C_Sign", 2, hsmtest.Hang},
		{hsm.ECDSAP256, "C_Sign", 2, hsmtest.Fail},
	}
	for _, alg := range poolAlgorithms {
		cases = append(cases, spoiled{alg, "C_SignInit", 1, hsmtest.Hang}, spoiled{alg, "C_Sign", 2, hsmtest.Crash}, spoiled{alg, "C_Sign", 2, hsmtest.Lose})
	}
	for _, tc := range cases {
		t.Run(fmt.Sprintf("%s %s %s", tc.alg, tc.function, tc.action), func(t *testing.T) {
			r := newPoolRoomOf(t, tc.alg)
			p := r.pool(t, hsm.PoolConfig{Use: 2 * time.Second})
			k := r.signer(t, p)
			r.faults.Reset(function(t, tc.function), tc.nth, tc.action)
			from := time.Now()
			_, err := k.SignContext(t.Context(), inputOf(tc.alg, 0, 0))
			if !errors.Is(err, hsm.ErrLost) || class(err) != "token" {
				t.Errorf("got %v (class %s), want lost", err, class(err))
			}
			if hang := tc.action == hsmtest.Hang; hang != errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a hang is %v: %v", hang, err)
			}
			t.Logf("lost after %v: %v", time.Since(from), err)
			from = time.Now()
			sig, err := k.SignContext(t.Context(), inputOf(tc.alg, 0, 1))
			if err != nil || !holds(tc.alg, k.Public(), inputOf(tc.alg, 0, 1), sig) {
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
