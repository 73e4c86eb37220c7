package supervise

import (
	"context"
	"fmt"
	"sync"
	"time"

	"keyrite/hsm/internal/frame"
)

// breaker is the circuit breaker: after the loss of a module process that had a
// token open, the next one for that token is started at once, and the one after
// that not before the window has passed. Modules whose session died recover when
// they are initialised anew, so one start is worth it; a start that did not help
// is not repeated in a loop, for that keeps a sick HSM from its own recovery.
//
//	closed     nothing is lost: every open passes
//	open       lost, and the last re-initialisation is younger than the window:
//	           every open is refused with the time left
//	half-open  one process was started after a loss and has not said yet that it
//	           has the token open: further opens wait for its word
type breaker struct {
	window time.Duration
	now    func() time.Time // monotonic

	mu     sync.Mutex // guards tokens and every circuit
	tokens map[frame.Token]*circuit
}

// circuit is the state of one token.
type circuit struct {
	generation uint64        // counts re-initialisations; processes carry it
	lost       bool          // a process of this generation was lost, none was started since
	last       time.Time     // of the last re-initialisation, zero if there was none
	probe      chan struct{} // not nil while half-open; closed by the probe's word or end
}

func newBreaker(window time.Duration, now func() time.Time) *breaker {
	return &breaker{window: window, now: now, tokens: map[frame.Token]*circuit{}}
}

// circuit finds one; mu must be held.
func (b *breaker) circuit(t frame.Token) *circuit {
	if b.tokens[t] == nil {
		b.tokens[t] = &circuit{}
	}
	return b.tokens[t]
}

// admit lets one open pass and returns the generation that its process belongs
// to, or says how long to wait.
func (b *breaker) admit(ctx context.Context, t frame.Token) (uint64, error) {
	for {
		b.mu.Lock()
		c := b.circuit(t)
		probe := c.probe
		if probe == nil {
			defer b.mu.Unlock()
			return b.pass(c)
		}
		b.mu.Unlock()
		select {
		case <-probe:
		case <-ctx.Done():
			return 0, lost("the module is being started anew for this token and has not answered; nothing was done")
		}
	}
}

// pass decides where no probe is under way; mu must be held.
func (b *breaker) pass(c *circuit) (uint64, error) {
	if !c.lost {
		return c.generation, nil
	}
	now := b.now()
	if left := b.window - now.Sub(c.last); !c.last.IsZero() && left > 0 {
		return 0, waiting(left)
	}
	c.generation++
	c.lost, c.last, c.probe = false, now, make(chan struct{})
	return c.generation, nil
}

// opened is the word of a process that it has the token open.
func (b *breaker) opened(t frame.Token, generation uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(b.circuit(t), generation)
}

// ended is the end of a process. One of an earlier generation changes nothing:
// what it lost was made good by the re-initialisation since.
func (b *breaker) ended(t frame.Token, generation uint64, lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.circuit(t)
	if lost && generation == c.generation {
		c.lost = true
	}
	b.settle(c, generation)
}

// settle ends the half-open state; mu must be held.
func (b *breaker) settle(c *circuit, generation uint64) {
	if generation == c.generation && c.probe != nil {
		close(c.probe)
		c.probe = nil
	}
}

// waiting is the refusal of an open circuit, in whole seconds rounded up.
func waiting(left time.Duration) *frame.Fault {
	seconds := int64((left + time.Second - 1) / time.Second)
	f := fault(frame.KindWaiting, "token", fmt.Sprintf("the module was started anew for this token a moment ago and was lost again; nothing is tried for another %d s", seconds))
	f.Hint = "look at the HSM, its cable and its service; then ask again after that time"
	f.WaitMS = seconds * 1000
	return f
}
