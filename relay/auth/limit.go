package auth

import (
	"net/netip"
	"sync"
	"time"

	"keyrite/artifact/fault"
)

// Limits on guessing.
const (
	Window      = 15 * time.Minute
	TriesUser   = 10 // failures for one user from keys that never logged in, or from one that did
	TriesSource = 30 // failures from one address (IPv6: one /64)
	maxCounters = 100_000
)

// ErrTries says that too many attempts failed lately.
var ErrTries = fault.New(fault.Quota, "too many failed attempts; wait a quarter of an hour")

// Limiter counts failures in memory. A restart forgets them, which an attacker
// cannot cause.
type Limiter struct {
	now func() time.Time

	mu    sync.Mutex // guards fails
	fails map[string][]time.Time
}

// NewLimiter returns an empty limiter.
func NewLimiter(now func() time.Time) *Limiter {
	return &Limiter{now: now, fails: map[string][]time.Time{}}
}

// Counter is one thing that is counted, with how many failures it may have.
type Counter struct {
	Name string
	Max  int
}

// UserCounter counts for one user. A client key that logged in before has its
// own count, so that others' failures cannot lock it out.
func UserCounter(account, user, key string, known bool) Counter {
	if !known {
		key = "unknown"
	}
	return Counter{"user/" + account + "/" + user + "/" + key, TriesUser}
}

// SourceCounter counts for one network address.
func SourceCounter(addr string) Counter {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		a := ap.Addr().Unmap()
		if a.Is6() {
			if p, err := a.Prefix(64); err == nil {
				return Counter{"net/" + p.String(), TriesSource}
			}
		}
		addr = a.String()
	}
	return Counter{"net/" + addr, TriesSource}
}

// Begin counts an attempt as failed in advance, or refuses it. Counting first
// means that a hundred attempts at the same instant are counted too; Forgive
// takes it back after a success.
func (l *Limiter) Begin(cs ...Counter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.fails) > maxCounters {
		l.sweep(now)
	}
	for _, c := range cs {
		if len(l.recent(c.Name, now)) >= c.Max {
			return ErrTries
		}
	}
	for _, c := range cs {
		l.fails[c.Name] = append(l.fails[c.Name], now)
	}
	return nil
}

// FirstOf says whether this is the first refusal of its kind to a network
// address in a window: that one is written down, so that whoever is refused
// cannot fill the audit trail.
func (l *Limiter) FirstOf(kind, addr string) bool {
	return l.Begin(Counter{"first/" + kind + "/" + SourceCounter(addr).Name, 1}) == nil
}

// Forgive takes back one attempt of each counter.
func (l *Limiter) Forgive(cs ...Counter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range cs {
		if n := len(l.fails[c.Name]); n > 1 {
			l.fails[c.Name] = l.fails[c.Name][:n-1]
		} else {
			delete(l.fails, c.Name)
		}
	}
}

func (l *Limiter) recent(name string, now time.Time) []time.Time {
	f := l.fails[name]
	for len(f) > 0 && now.Sub(f[0]) >= Window {
		f = f[1:]
	}
	if len(f) == 0 {
		delete(l.fails, name)
	} else {
		l.fails[name] = f
	}
	return f
}

func (l *Limiter) sweep(now time.Time) {
	for name := range l.fails {
		l.recent(name, now)
	}
}
