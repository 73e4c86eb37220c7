package hsm_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// TestSecondReinitialisationWaits loses the module twice: the first open after it
// works at once, the second is refused with the time left and starts no process.
func TestSecondReinitialisationWaits(t *testing.T) {
	e := hsmtest.NewStore(t)
	e.Config.Reopen = 0 // as programs have it
	e.Supervisor = e.Start(t)
	s := e.Token(t, "work")
	other, err := e.Supervisor.InitToken(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // what ends well is no loss
		if err := e.Open(t, s.Token()).Close(); err != nil {
			t.Fatal(err)
		}
	}
	lose := func(s *hsm.Session) {
		t.Helper()
		if err := syscall.Kill(module(t, e.Supervisor), syscall.SIGSEGV); err != nil {
			t.Fatal(err)
		}
		<-s.Lost()
		if err := s.Close(); err == nil {
			t.Error("the close of a lost session says nothing")
		}
	}
	lose(s)
	start := time.Now()
	s = e.Open(t, s.Token())
	if _, err := s.Random(t.Context(), 8); err != nil || time.Since(start) > 2*time.Second {
		t.Errorf("recovery took %v: %v", time.Since(start), err)
	}
	lose(s)
	_, err = e.Supervisor.Open(t.Context(), s.Token())
	f, ok := errors.AsType[*hsm.Error](err)
	if !ok || !errors.Is(err, hsm.ErrWaiting) || f.Wait <= 0 || f.Wait > 30*time.Second || f.FaultHint() == "" || class(err) != "token" {
		t.Errorf("the second re-initialisation: %#v", err)
	}
	if c := children(t, e.Supervisor.PID()); len(c) != 0 {
		t.Errorf("module processes %v were started", c)
	}
	e.Open(t, other) // another token is none the worse
}

// TestRefusedLoginIsNoLoss: a module that says no is well, however often.
func TestRefusedLoginIsNoLoss(t *testing.T) {
	e := hsmtest.NewStore(t)
	e.Config.Reopen = 0
	e.Supervisor = e.Start(t)
	id := e.Token(t, "work").Token()
	id.Serial = "0000000000000000"
	e.Take(t, e.Supervisor, id, hsm.Current, "12345678", "12345678")
	for range 3 {
		if _, err := e.Supervisor.Open(t.Context(), id); !errors.Is(err, hsm.ErrNotFound) {
			t.Fatal(err)
		}
	}
}
