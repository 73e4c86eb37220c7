package lease

import (
	"sync"
	"time"
)

// clock is the wall's clock for things that are kept across restarts. It never goes
// back: a clock that is set back makes no lease longer, neither while the vault runs
// nor, since it begins no earlier than the newest lease, when it starts. It follows a
// clock that is set forward, as leases that end too early are the lesser harm.
type clock struct {
	wall    func() time.Time
	started time.Time // with its monotonic reading

	mu   sync.Mutex // guards the rest
	base time.Time  // what this clock showed …
	at   time.Duration
}

func newClock(wall func() time.Time, notBefore time.Time) *clock {
	return &clock{wall: wall, started: time.Now(), base: notBefore.Round(0)}
}

func (c *clock) now() time.Time {
	wall, since := c.wall().Round(0), time.Since(c.started)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.base.Add(since - c.at)
	if wall.After(now) {
		now = wall
	}
	c.base, c.at = now, since
	return now
}
