package identity

import (
	"net/netip"
	"sync"
	"time"
)

// Slowing down whoever guesses secret ids. They have 256 random bits, so this keeps
// the trail and the processor from being filled, not the secret from being guessed;
// the limits are therefore low enough that nobody can keep a role from logging in.
const (
	freeTries   = 5 // wrong ones in a row before the first wait
	maxRoleWait = 10 * time.Second
	maxAddrWait = 5 * time.Minute
	forgetTries = 15 * time.Minute // after the last wrong one
	maxSuspects = 10_000
)

// backOff counts wrong tries by name: of a role, or of an address.
type backOff struct {
	mu    sync.Mutex // guards tries
	tries map[string]*suspect
}

type suspect struct {
	wrong int
	last  time.Time
	until time.Time
}

func byRole(id string) string { return "role " + id }

// byAddress is one IPv4 address or the /64 of an IPv6 address, which one host has
// whole.
func byAddress(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return "network " + p.String()
		}
	}
	return "address " + a.String()
}

// wait is for how long the names must not try, at most.
func (b *backOff) wait(now time.Time, names ...string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	longest := time.Duration(0)
	for _, n := range names {
		if s := b.tries[n]; s != nil {
			longest = max(longest, s.until.Sub(now))
		}
	}
	return longest
}

// wrong counts a wrong try; each after the free ones doubles the wait, up to most.
func (b *backOff) wrong(now time.Time, name string, most time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.tries[name]
	if s == nil || now.Sub(s.last) > forgetTries {
		b.room(now)
		s = &suspect{}
		b.tries[name] = s
	}
	s.wrong++
	s.last = now
	if over := s.wrong - freeTries; over > 0 {
		s.until = now.Add(min(most, time.Second<<min(over-1, 20)))
	}
}

// room makes place for one more; b.mu is held.
func (b *backOff) room(now time.Time) {
	if b.tries == nil {
		b.tries = map[string]*suspect{}
	}
	if len(b.tries) < maxSuspects {
		return
	}
	for n, s := range b.tries {
		if now.Sub(s.last) > forgetTries {
			delete(b.tries, n)
		}
	}
	for n := range b.tries {
		if len(b.tries) < maxSuspects {
			return
		}
		delete(b.tries, n)
	}
}

// right forgets what was wrong before.
func (b *backOff) right(names ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range names {
		delete(b.tries, n)
	}
}
