package auth

import (
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/fault"
)

func TestPasswords(t *testing.T) {
	h := NewHasher(2)
	phc, err := h.Hash(t.Context(), []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(phc, "$argon2id$v=19$m=65536,t=3,p=4$") || strings.Contains(phc, "horse") {
		t.Error(phc)
	}
	for pw, want := range map[string]bool{"correct horse": true, "correct horse ": false, "": false} {
		if got, err := h.Check(t.Context(), phc, []byte(pw)); got != want || err != nil {
			t.Errorf("%q: %v, %v", pw, got, err)
		}
	}
	if ok, err := h.Check(t.Context(), "", make([]byte, 0)); ok || err != nil {
		t.Error("an unknown user logged in", err)
	}
	for _, bad := range []string{"x", "$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA", strings.Replace(phc, "argon2id", "argon2i", 1), phc + "A"} {
		if ok, err := h.Check(t.Context(), bad, []byte("correct horse")); ok || err == nil {
			t.Errorf("%q: %v, %v", bad, ok, err)
		}
	}
	for _, pw := range []string{"", "short", strings.Repeat("x", MaxPasswordBytes+1)} {
		if _, err := h.Hash(t.Context(), []byte(pw)); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%d bytes: %v", len(pw), err)
		}
	}
}

func TestLimiter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	l := NewLimiter(func() time.Time { return now })
	thief, owner := UserCounter("acme", "ann", "k1", false), UserCounter("acme", "ann", "k2", true)
	for i := range TriesUser {
		if err := l.Begin(thief); err != nil {
			t.Fatal(i, err)
		}
	}
	if fault.ClassOf(l.Begin(thief)) != fault.Quota || fault.ClassOf(l.Begin(UserCounter("acme", "ann", "k3", false))) != fault.Quota {
		t.Error("guessing goes on, with the same or another unknown key")
	}
	if err := l.Begin(owner); err != nil {
		t.Error("the owner is locked out:", err)
	}
	l.Forgive(owner)
	now = now.Add(Window)
	if err := l.Begin(thief); err != nil {
		t.Error("locked for ever:", err)
	}
	for addr, want := range map[string]string{"192.0.2.1:1": "net/192.0.2.1", "[2001:db8:0:1::5]:1": "net/2001:db8:0:1::/64", "?": "net/?"} {
		if got := SourceCounter(addr).Name; got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}

// A hundred attempts at the same instant are a hundred attempts.
func TestLimiterCountsParallelAttempts(t *testing.T) {
	l := NewLimiter(time.Now)
	var wg sync.WaitGroup
	var mu sync.Mutex
	let := 0
	for range 100 {
		wg.Go(func() {
			if l.Begin(Counter{"x", TriesUser}) == nil {
				mu.Lock()
				let++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if let != TriesUser {
		t.Errorf("%d attempts", let)
	}
}
