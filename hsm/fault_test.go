package hsm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// children lists the module processes of a supervisor.
func children(t *testing.T, pid int) []int {
	t.Helper()
	var out []int
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread ended meanwhile
		}
		for s := range strings.FieldsSeq(string(b)) {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
	}
	return out
}

// module returns the one module process of a supervisor.
func module(t *testing.T, s *hsm.Supervisor) int {
	t.Helper()
	c := children(t, s.PID())
	if len(c) != 1 {
		t.Fatalf("got %d module processes, want 1", len(c))
	}
	return c[0]
}

func signSpec(t *testing.T, label string) hsm.GenerateSpec {
	t.Helper()
	tag, err := hsm.NewTag()
	if err != nil {
		t.Fatal(err)
	}
	return hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, 1), Label: label, SessionObject: true}
}

func class(err error) string {
	var c interface{ FaultClass() string }
	if errors.As(err, &c) {
		return c.FaultClass()
	}
	return ""
}

// TestModuleCrash kills the module process under a stream of requests: every
// caller gets a typed error, none hangs, and the supervisor goes on.
func TestModuleCrash(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV} {
		t.Run(sig.String(), func(t *testing.T) {
			e := hsmtest.New(t)
			s := e.Token(t, "work")
			sp := signSpec(t, "k")
			if _, err := s.Generate(t.Context(), sp); err != nil {
				t.Fatal(err)
			}
			k, err := s.Signer(t.Context(), sp.KeyID)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			started := make(chan struct{}, 1)
			for range 4 {
				wg.Go(func() {
					for n := 0; ; n++ {
						if _, err := k.SignContext(t.Context(), make([]byte, 32)); err != nil {
							if !errors.Is(err, hsm.ErrLost) || class(err) != "token" {
								t.Errorf("got %v (class %s), want session lost", err, class(err))
							}
							return
						}
						if n == 10 {
							select {
							case started <- struct{}{}:
							default:
							}
						}
					}
				})
			}
			<-started
			if err := syscall.Kill(module(t, e.Supervisor), sig); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			<-s.Lost()
			if _, err := s.Random(t.Context(), 8); !errors.Is(err, hsm.ErrLost) {
				t.Errorf("after the crash: %v", err)
			}
			if objs := objects(t, e.Open(t, s.Token())); len(objs) != 0 {
				t.Errorf("%d objects survived their session", len(objs))
			}
		})
	}
}

// TestDeadline stops the module process, as a hung token would: the call
// returns when its time is over and the process is ended.
func TestDeadline(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "work")
	pid := module(t, e.Supervisor)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := s.Random(ctx, 32)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("returned after %v", took)
	}
	if !errors.Is(err, hsm.ErrLost) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want lost by deadline", err)
	}
	if err := s.Close(); err == nil {
		t.Error("close of a lost session says nothing")
	}
	if c := children(t, e.Supervisor.PID()); len(c) != 0 {
		t.Errorf("module processes %v are alive", c)
	}
}

// TestSupervisorEnds shows that nothing outlives the supervisor, nor the
// supervisor its control socket.
func TestSupervisorEnds(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "work")
	pid := module(t, e.Supervisor)
	if err := syscall.Kill(e.Supervisor.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Lost()
	if _, err := e.Supervisor.Open(t.Context(), s.Token()); !errors.Is(err, hsm.ErrLost) {
		t.Errorf("got %v, want lost", err)
	}
	gone(t, pid)

	other := e.Start(t)
	p := other.PID()
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	gone(t, p)
}

func gone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Errorf("process %d is alive", pid)
}

// TestHalfCopies kills the module process while it copies a key into the
// token, at many moments: a fresh process always gets the token clean.
func TestHalfCopies(t *testing.T) {
	e := hsmtest.New(t)
	id := e.Token(t, "work").Token()
	ctx := t.Context()
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	seen := map[string]int{}
	for round := range rounds {
		s := e.Open(t, id)
		sp := signSpec(t, "k")
		if _, err := s.Generate(ctx, sp); err != nil {
			t.Fatal(err)
		}
		var pid int
		for _, c := range children(t, e.Supervisor.PID()) {
			pid = max(pid, c) // the youngest
		}
		// At the moment when the first or the second object file appears, and
		// a little later each time.
		go func() {
			for until := time.Now().Add(time.Second); objectFiles(t, e.TokenDir) < 1+round%2 && time.Now().Before(until); {
			}
			for until := time.Now().Add(time.Duration(round/2) * 4 * time.Microsecond); time.Now().Before(until); {
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}()
		_, err := s.CopyToToken(ctx, sp)
		<-s.Lost()
		files := objectFiles(t, e.TokenDir)
		fresh := e.Open(t, id)
		d, derr := fresh.DestroyTagged(ctx, sp.KeyID.Tag(), true)
		if derr != nil {
			t.Fatal(derr)
		}
		seen[fmt.Sprintf("copied=%v files=%d objects=%d empty=%d", err == nil, files, len(d.Objects), len(d.EmptyFiles))]++
		if len(d.Remaining) != 0 {
			t.Errorf("round %d: %d objects remain: %+v", round, len(d.Remaining), d.Remaining)
		}
		if err := fresh.Close(); err != nil {
			t.Fatal(err)
		}
		if objs := objects(t, e.Open(t, id)); len(objs) != 0 || objectFiles(t, e.TokenDir) != 0 {
			t.Errorf("round %d: %d objects, %d files after cleaning", round, len(objs), objectFiles(t, e.TokenDir))
		}
	}
	t.Log(seen)
}

// TestDebrisSwept removes an object file of 0 bytes, which no PKCS#11 call
// can see, and leaves the objects of other attempts alone.
func TestDebrisSwept(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "work")
	keep, drop := signSpec(t, "keep"), signSpec(t, "drop")
	for _, sp := range []hsm.GenerateSpec{keep, drop} {
		sp.SessionObject = false
		if _, err := s.Generate(t.Context(), sp); err != nil {
			t.Fatal(err)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(e.TokenDir, "*-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	const name = "00000000-0000-0000-0000-000000000001"
	for _, ext := range []string{".object", ".lock"} {
		if err := os.WriteFile(filepath.Join(dirs[0], name+ext), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := e.Open(t, s.Token()).DestroyTagged(t.Context(), drop.KeyID.Tag(), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Objects) != 2 || len(d.Remaining) != 2 || len(d.EmptyFiles) != 1 || d.EmptyFiles[0] != name+".object" {
		t.Errorf("destroyed %d, remaining %d, empty files %v", len(d.Objects), len(d.Remaining), d.EmptyFiles)
	}
	mustSign(t, e.Open(t, s.Token()), keep)
}

func objectFiles(t *testing.T, tokenDir string) int {
	t.Helper()
	fs, err := filepath.Glob(filepath.Join(tokenDir, "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range fs {
		if filepath.Base(f) != "token.object" {
			n++
		}
	}
	return n
}

// TestTokenFileRestored cuts token.object to nothing, as a login that was
// killed does, with the copy of that login beside it.
func TestTokenFileRestored(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "work")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fs, err := filepath.Glob(filepath.Join(e.TokenDir, "*", "token.object"))
	if err != nil || len(fs) != 1 {
		t.Fatal(fs, err)
	}
	if copies, _ := filepath.Glob(filepath.Join(e.TokenDir, ".keyrite-*.copy")); len(copies) != 0 {
		t.Errorf("copies are left after a good login: %v", copies)
	}
	orig, err := os.ReadFile(fs[0])
	if err != nil {
		t.Fatal(err)
	}
	uuid := filepath.Base(filepath.Dir(fs[0]))
	cp := filepath.Join(e.TokenDir, ".keyrite-"+uuid+".copy")
	if err := errors.Join(os.WriteFile(cp, orig, 0o600), os.Truncate(fs[0], 0)); err != nil {
		t.Fatal(err)
	}
	again := e.Open(t, s.Token())
	if _, err := again.Random(t.Context(), 8); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(cp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy is still there: %v", err)
	}

	// A copy beside a whole original is destroyed and changes nothing.
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cp, []byte("an older epoch"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Open(t, s.Token())
	if _, err := os.Stat(cp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy is still there: %v", err)
	}
}

// TestHammer lets goroutines share one session.
func TestHammer(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "work")
	sp := signSpec(t, "k")
	if _, err := s.Generate(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	k, err := s.Signer(t.Context(), sp.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				sum := sha256.Sum256([]byte{byte(g), byte(i)})
				if _, err := k.SignContext(t.Context(), sum[:]); err != nil {
					t.Error(err)
					return
				}
				if i%10 == 0 {
					if _, err := s.Objects(t.Context()); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
