package hsm_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// area is one mapping of a process.
type area struct {
	from, to uint64
	name     string
	flags    string // VmFlags of /proc/PID/smaps: lo is locked, dd kept out of core files
}

func areas(t *testing.T, pid int) []area {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []area
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var a area
		if n, _ := fmt.Sscanf(sc.Text(), "%x-%x ", &a.from, &a.to); n == 2 {
			if fs := strings.Fields(sc.Text()); len(fs) > 5 {
				a.name = fs[5]
			}
			if strings.Contains(sc.Text(), " r") {
				out = append(out, a)
			}
		} else if v, ok := strings.CutPrefix(sc.Text(), "VmFlags:"); ok && len(out) > 0 {
			out[len(out)-1].flags = " " + strings.TrimSpace(v) + " "
		}
	}
	return out
}

// holding lists the mappings of a process in which the secret stands. Only root can
// look: the process is not dumpable.
func holding(t *testing.T, pid int, secret []byte) []area {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var found []area
	for _, a := range areas(t, pid) {
		const step = 1 << 20
		buf := make([]byte, step+len(secret))
		for at := a.from; at < a.to; at += step {
			n, err := io.NewSectionReader(mem, int64(at), int64(min(uint64(len(buf)), a.to-at))).Read(buf)
			if err != nil && n == 0 {
				break // a guard page, or what the kernel keeps for itself
			}
			if bytes.Contains(buf[:n], secret) {
				found = append(found, a)
				break
			}
		}
	}
	return found
}

// TestPINInMemory plants a canary as user PIN and looks for it in the whole memory
// of both processes, after the login and after it was used: it stands in locked
// pages that no core file takes, and, once wiped, in none of the supervisor's.
func TestPINInMemory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("run as root: nobody else may look")
	}
	const canary = "CANARY7QXZ2MEMORYPROBE4KJ9WVB3TN"
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, canary)
	s := e.Open(t, id)
	sp := signSpec(t, "k")
	sp.Template, sp.SessionObject = hsm.RootSign, false // asks for the PIN once more, for each signature
	if _, err := s.Generate(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	k, err := s.Signer(t.Context(), sp.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.SignContext(t.Context(), make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	pids := map[string]int{"supervisor": e.Supervisor.PID(), "module process": module(t, e.Supervisor)}
	for name, pid := range pids {
		// Its second half: the first bytes of what was freed are overwritten at once.
		found := holding(t, pid, []byte(canary[len(canary)/2:]))
		secret := 0
		for _, a := range found {
			t.Logf("%s: in %x-%x %s%s", name, a.from, a.to, a.name, a.flags)
			if !strings.Contains(a.flags, " lo ") {
				t.Errorf("%s: the PIN stands in memory that is not locked: %s %s", name, a.name, a.flags)
			}
			if strings.Contains(a.flags, " dd ") {
				secret++
			}
		}
		if secret == 0 {
			t.Errorf("%s: the search does not find the PIN where it must be", name)
		}
		if name == "supervisor" && secret != len(found) {
			t.Errorf("%s: the PIN stands outside of its pages", name)
		}
		if err := syscall.Kill(pid, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Supervisor.WipePINs(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if found := holding(t, pids["supervisor"], []byte(canary)); len(found) != 0 {
		t.Errorf("supervisor: after the wipe the PIN stands in %+v", found)
	}
}
