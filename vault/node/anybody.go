package node

import (
	"context"
	"strings"
	"sync"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// ErrTooMany says that strangers ask for more than the vault does for them.
var ErrTooMany = fault.New(fault.Quota, "too many ask at the moment: ask again later")

// What strangers may have, all of them together: answers that are there, and such as the
// token must sign first. Processes that are known are not counted, so that nobody who is
// not can keep the token from them.
const (
	anybodyBurst, anybodyEvery = 400, 5 * time.Millisecond
	signingBurst, signingEvery = 20, 200 * time.Millisecond
)

// pace lets so many pass at once, and one more each time.
type pace struct {
	burst float64
	every time.Duration

	mu   sync.Mutex // guards the rest
	room float64
	at   time.Time // when room was that
}

func newPace(burst float64, every time.Duration, now time.Time) *pace {
	return &pace{burst: burst, every: every, room: burst, at: now}
}

func (p *pace) take(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := now.Sub(p.at); d > 0 {
		p.room = min(p.burst, p.room+d.Seconds()/p.every.Seconds())
		p.at = now
	}
	if p.room < 1 {
		return false
	}
	p.room--
	return true
}

// opened is what reads the answer, where the charter opens a path to whoever asks. Who
// shows a token wants to be known, and is not asked for less than that.
func (x *call) opened() func(*seal.View) (*engine.Answer, error) {
	if x.Fault != nil || x.Token.Len() > 0 {
		return nil
	}
	first, _, _ := strings.Cut(x.path.String(), "/")
	e, ok := x.force.engines[first].(engine.Open)
	if !ok {
		return nil
	}
	return e.Anybody(x.request())
}

// tellAnybody answers a stranger. Like a look at how the vault is it has an entry of its
// own if there are not too many; what the token signs for it always has.
func (x *call) tellAnybody(ctx context.Context) (*engine.Answer, error) {
	now := x.cfg.Now()
	if !x.anybodies.take(now) {
		return nil, x.refuse(ctx, ErrTooMany)
	}
	var a *engine.Answer
	err := x.store.View(func(v *seal.View) (err error) {
		a, err = x.anybody(v)
		return err
	})
	if err != nil {
		return nil, x.refuse(ctx, err)
	}
	if a == nil {
		return x.signForAnybody(ctx, now)
	}
	if x.looks.take() {
		x.writeLook(ctx, x.entry)
	}
	return a, nil
}

// signForAnybody has an answer made that all who ask after that are given.
func (x *call) signForAnybody(ctx context.Context, now time.Time) (*engine.Answer, error) {
	if !x.signings.take(now) {
		return nil, x.refuse(ctx, ErrTooMany)
	}
	if err := x.find(); err != nil {
		return nil, x.refuse(ctx, err)
	}
	if x.plan.Needs != access.Read {
		return nil, x.refuse(ctx, fault.New(fault.Unexpected, "the engine opens to strangers what is more than to read"))
	}
	x.entry.Params = x.plan.Shown
	return x.perform(ctx)
}
