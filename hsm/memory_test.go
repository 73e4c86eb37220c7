package hsm_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"os"
	"strings"
	"syscall"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/clitest"
)

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
		found := clitest.Holding(t, pid, []byte(canary[len(canary)/2:]))
		secret := 0
		for _, a := range found {
			t.Logf("%s: in %x-%x %s%s", name, a.From, a.To, a.Name, a.Flags)
			if !strings.Contains(a.Flags, " lo ") {
				t.Errorf("%s: the PIN stands in memory that is not locked: %s %s", name, a.Name, a.Flags)
			}
			if strings.Contains(a.Flags, " dd ") {
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
	if found := clitest.Holding(t, pids["supervisor"], []byte(canary)); len(found) != 0 {
		t.Errorf("supervisor: after the wipe the PIN stands in %+v", found)
	}
}

// TestPlaintextInMemory seals and opens a canary through a pool and wipes both. After
// that the canary stands nowhere in this process, neither as it is nor in base64. It is
// looked for under a mask, so that the search itself does not hold it.
func TestPlaintextInMemory(t *testing.T) {
	const mask, length = 0x5a, 300
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	p, err := hsm.NewPool(t.Context(), e.Supervisor, id, hsm.PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	sp := signSpec(t, "seal")
	sp.Template, sp.Algorithm, sp.SessionObject = hsm.Seal, hsm.AES256, false
	if _, err := p.Generate(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	masked := make([]byte, length)
	rand.Read(masked)
	masked[length/2] = 1 ^ mask // not 0, of which there is much
	canary := make([]byte, length)
	for i, b := range masked {
		canary[i] = b ^ mask
	}
	text := make([]byte, base64.StdEncoding.EncodedLen(length))
	base64.StdEncoding.Encode(text, canary)
	for i := range text {
		text[i] ^= mask
	}
	has := func(needle []byte) func([]byte) bool {
		needle = needle[len(needle)/2:] // the first bytes of what was freed are overwritten at once
		return func(b []byte) bool {
			for {
				at := bytes.IndexByte(b, needle[0]^mask)
				if at < 0 || at+len(needle) > len(b) {
					return false
				}
				n := 1
				for n < len(needle) && b[at+n] == needle[n]^mask {
					n++
				}
				if n == len(needle) {
					return true
				}
				b = b[at+1:]
			}
		}
	}
	if len(clitest.SearchMemory(t, os.Getpid(), length, has(masked))) == 0 {
		t.Fatal("the search does not find the canary where it is")
	}
	sealed, err := p.Encrypt(t.Context(), sp.KeyID, canary, nil)
	clear(canary)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		back, err := p.Decrypt(t.Context(), sp.KeyID, sealed, nil)
		if err != nil || len(back) != length {
			t.Fatal(len(back), err)
		}
		clear(back)
	}
	if _, err := p.Random(t.Context(), 16); err != nil { // the frame before is wiped when the next is read
		t.Fatal(err)
	}
	for name, needle := range map[string][]byte{"as it is": masked, "in base64": text} {
		for _, a := range clitest.SearchMemory(t, os.Getpid(), len(needle), has(needle)) {
			t.Errorf("%s it stands in %x-%x %s", name, a.From, a.To, a.Name)
		}
	}
}
