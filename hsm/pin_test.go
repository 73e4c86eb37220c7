package hsm_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// TestOldPINsRefused opens the token with the PINs in force and not with
// others, each tried once by a supervisor that knows nothing else.
func TestOldPINsRefused(t *testing.T) {
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	// A second change needs the SO PIN again, as it comes from the shares.
	e.Take(t, e.Supervisor, id, hsm.Current, newSO, newUser)
	e.SetPINs(t, id, newSO+"2", newUser+"2")
	for _, tc := range []struct {
		name, user string
		ok         bool
	}{{"in force", newUser + "2", true}, {"earlier", newUser, false}, {"never", strings.Repeat("A", 32), false}} {
		t.Run(tc.name, func(t *testing.T) {
			sup := e.Start(t)
			e.Take(t, sup, id, hsm.Current, newSO, tc.user)
			_, err := sup.Open(t.Context(), id)
			if tc.ok != (err == nil) {
				t.Fatalf("got %v", err)
			}
			if err != nil && (!errors.Is(err, hsm.ErrPIN) || class(err) != "token") {
				t.Errorf("got %v (class %s), want a PIN error", err, class(err))
			}
		})
	}
}

// TestChangeNeedsBoth refuses a change without the PINs for it, and leaves
// the token as it was.
func TestChangeNeedsBoth(t *testing.T) {
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Supervisor.ChangePINs(t.Context(), id); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("change without next PINs: %v", err)
	}
	e.SetPINs(t, id, newSO, newUser)
	// The SO PIN did not stay.
	e.Take(t, e.Supervisor, id, hsm.Next, newUser, newSO)
	if err := e.Supervisor.ChangePINs(t.Context(), id); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("change without the SO PIN in force: %v", err)
	}
	e.Open(t, id)
	if err := e.Supervisor.WipePINs(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Supervisor.Open(t.Context(), id); !errors.Is(err, hsm.ErrPIN) {
		t.Errorf("open after wipe: %v", err)
	}
}

// TestPINFile takes the user PIN from a file that only its owner can read.
func TestPINFile(t *testing.T) {
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	path := filepath.Join(t.TempDir(), "pin")
	for _, tc := range []struct {
		name, text string
		mode       os.FileMode
		class      string
	}{
		{"good", newUser + "\n", 0o600, ""},
		{"readable by the group", newUser + "\n", 0o640, "policy"},
		{"empty", "", 0o600, "usage"},
		{"two lines", newUser + "\nx\n", 0o600, "usage"},
		{"too long", strings.Repeat("1", 300), 0o600, "usage"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := errors.Join(os.WriteFile(path, []byte(tc.text), 0o600), os.Chmod(path, tc.mode)); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			sup := e.Start(t)
			err = sup.TakeUserPIN(t.Context(), id, f)
			if class(err) != tc.class || (tc.class == "") != (err == nil) {
				t.Fatalf("got %v (class %q), want class %q", err, class(err), tc.class)
			}
			if err != nil {
				return
			}
			s, err := sup.Open(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPINNowhere looks for the PINs in the command line and environment of
// every process, and in what this program could learn by itself.
func TestPINNowhere(t *testing.T) {
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	e.Open(t, id)
	if c := children(t, e.Supervisor.PID()); len(c) != 1 {
		t.Fatalf("module processes: %v", c)
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		for _, f := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(filepath.Join(p, f))
			if err != nil {
				continue // ended, or not ours
			}
			for _, pin := range []string{newSO, newUser} {
				if bytes.Contains(b, []byte(pin)) {
					t.Errorf("PIN in %s/%s", p, f)
				}
			}
		}
	}
	for _, pid := range append(children(t, e.Supervisor.PID()), e.Supervisor.PID()) {
		hardened(t, pid)
	}
}

// hardened checks what the kernel says about a process that knows PINs.
func hardened(t *testing.T, pid int) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	limits, err := os.ReadFile(filepath.Join(dir, "limits"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max core file size") {
			if f := strings.Fields(line); f[4] != "0" || f[5] != "0" {
				t.Errorf("process %d may write core files: %s", pid, line)
			}
		}
	}
	env, err := os.ReadFile(filepath.Join(dir, "environ"))
	if err != nil {
		t.Fatal(err)
	}
	for kv := range strings.SplitSeq(strings.TrimRight(string(env), "\x00"), "\x00") {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "PATH", "GOTRACEBACK", "SOFTHSM2_CONF":
		default:
			t.Errorf("process %d has %s in its environment", pid, name)
		}
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmLck:"); ok && strings.TrimSpace(v) == "0 kB" {
			t.Errorf("process %d has no locked memory", pid)
		}
	}
}
