package hsm_test

import (
	"errors"
	"os/exec"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// However far a change of PINs came, it can be put back with the PINs of both
// epochs, or finished with those of the new one alone; then one epoch opens the
// token and the other does not. pkcs11-tool (OpenSC) makes the half-way states.
func TestSettleAfterABrokenChange(t *testing.T) {
	tool, err := exec.LookPath("pkcs11-tool")
	if err != nil {
		t.Fatal("pkcs11-tool is missing: scripts/setup installs it")
	}
	const oldSO, oldUser = newSO, newUser
	const nextSO, nextUser = newSO + "N", newUser + "N"
	tests := []struct {
		name     string
		so, user bool // changed
		finish   bool // with the next PINs only
		refused  bool
	}{
		{"nothing changed, put back", false, false, false, false},
		{"SO changed, put back", true, false, false, false},
		{"both changed, put back", true, true, false, false},
		{"SO changed, finished", true, false, true, false},
		{"both changed, finished", true, true, true, false},
		{"nothing changed, not to be finished", false, false, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := hsmtest.New(t)
			id, err := e.Supervisor.InitToken(t.Context(), "work")
			if err != nil {
				t.Fatal(err)
			}
			e.SetPINs(t, id, oldSO, oldUser)
			run := func(args ...string) {
				t.Helper()
				cmd := exec.Command(tool, append([]string{"--module", e.Config.Module, "--token-label", "work", "--login", "--login-type", "so"}, args...)...)
				cmd.Env = []string{"SOFTHSM2_CONF=" + e.Conf}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			if tt.so {
				run("--so-pin", oldSO, "--change-pin", "--new-pin", nextSO)
			}
			if tt.user {
				run("--so-pin", nextSO, "--init-pin", "--new-pin", nextUser)
			}
			sup := e.Start(t)
			want, gone := oldUser, nextUser
			if tt.finish {
				want, gone = nextUser, oldUser
				e.Take(t, sup, id, hsm.Current, nextSO, nextUser)
			} else {
				e.Take(t, sup, id, hsm.Current, oldSO, oldUser)
				e.Take(t, sup, id, hsm.Next, nextSO, nextUser)
			}
			if err := sup.SettlePINs(t.Context(), id); tt.refused {
				if !errors.Is(err, hsm.ErrPIN) {
					t.Fatalf("finished what had not begun: %v", err)
				}
				want, gone = oldUser, nextUser
			} else if err != nil {
				t.Fatal(err)
			}
			for pin, opens := range map[string]bool{want: true, gone: false} {
				x := e.Start(t)
				e.Take(t, x, id, hsm.Current, "unused-so-pin", pin)
				s, err := x.Open(t.Context(), id)
				if opens != (err == nil) {
					t.Errorf("PIN that opens %v: %v", opens, err)
				}
				if err == nil {
					_ = s.Close()
				}
			}
		})
	}
}

// Two SO PINs of which the token has neither count as a wrong PIN each time, until
// neither reaches the token: settling is no way to guess.
func TestSettleCountsWrongPINs(t *testing.T) {
	c := newCounted(t, false)
	settle := func() error {
		sup := c.Start(t)
		defer sup.Close()
		c.Take(t, sup, c.id, hsm.Current, "WRONGSOWRONGSO", newUser)
		c.Take(t, sup, c.id, hsm.Next, "WRONGSOWRONGSON", newUser)
		return sup.SettlePINs(t.Context(), c.id)
	}
	for _, want := range []int{2, 3} { // the first time the token remembers one of its own
		if err := settle(); !errors.Is(err, hsm.ErrPIN) {
			t.Fatalf("to be %d: %v", want, err)
		}
		if got, err := c.Start(t).PINCounter(t.Context(), c.id); err != nil || got.SO != want {
			t.Fatalf("got %+v, %v, want %d", got, err, want)
		}
	}
	before := c.logins(t)
	if err := settle(); !errors.Is(err, hsm.ErrWaiting) || c.logins(t) != before {
		t.Errorf("after three: %v, %d PINs reached the token", err, c.logins(t)-before)
	}
}

// Without PINs for it, or with an open session, nothing is settled.
func TestSettleNeedsThePINsInForce(t *testing.T) {
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	if err := e.Supervisor.SettlePINs(t.Context(), id); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("without the SO PIN: %v", err)
	}
	e.Take(t, e.Supervisor, id, hsm.Current, newSO, newUser)
	s, err := e.Supervisor.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Supervisor.SettlePINs(t.Context(), id); err == nil {
		t.Error("settled under an open session")
	}
	_ = s.Close()
	if err := e.Supervisor.SettlePINs(t.Context(), id); err != nil {
		t.Error(err)
	}
}
