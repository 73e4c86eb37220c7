package main

import (
	"crypto/rand"
	"math/big"
	"os"
	"testing"
	"time"

	"keyrite/artifact/openrequest"
)

// killAtRandom opens and seals a vault again and again, and kills it with signal 9 at
// some moment from the last share on: whatever it was about, the next process opens, or
// makes, the vault.
func killAtRandom(t *testing.T, times int) {
	t.Helper()
	h := newHouse(t)
	h.host()
	created := 0
	for i := range times {
		s := h.serve()
		operation := openrequest.Unseal
		if !h.status().Created {
			operation = openrequest.Create
		}
		for _, n := range []string{"a.request", "a.1", "a.2", "a.3"} {
			_ = os.Remove(h.path(n))
		}
		h.vault(0, "unseal", "--new-attempt", "--operation", operation, "--out", "a.request")
		for n, who := range []string{"master1", "master2", "master3"} {
			if code, text := h.answer("a.request", who, []string{"a.1", "a.2", "a.3"}[n]); code != 0 {
				t.Fatalf("exit %d: %s", code, text)
			}
		}
		h.vault(0, "unseal", "--answer", "a.1", "--answer", "a.2")
		last := h.command("keyrite-vault", "unseal", "--answer", "a.3", "--bind", "vault.yaml", "--state-dir", "state")
		if err := last.Start(); err != nil {
			t.Fatal(err)
		}
		ms, err := rand.Int(rand.Reader, big.NewInt(int64(100+200*(i%8))))
		if err != nil {
			t.Fatal(err)
		}
		timer := time.NewTimer(time.Duration(ms.Int64()) * time.Millisecond)
		<-timer.C
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = s.cmd.Wait()
		_ = last.Wait()
		h.alone(0)
		if operation == openrequest.Create {
			created++
		}
	}
	s := h.serve()
	operation := openrequest.Unseal
	if !h.status().Created {
		operation = openrequest.Create
	}
	h.open(operation, "master5", "master4", "master3")
	s.stop()
	t.Logf("%d times killed, %d of them while the store was made", times, created)
}

func TestKilledWhileItOpens(t *testing.T) { killAtRandom(t, 10) }

func TestLongKilledWhileItOpens(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: opens and kills a vault 300 times")
	}
	killAtRandom(t, 300)
}
