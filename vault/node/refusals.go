package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

// How many refusals of unknown callers have an entry of their own, and how many looks at
// the paths that need no caller: a flood of them must not fill the disk. The rest is
// counted, and each minute has one entry that says how many it was: of each kind at most
// 1,500 entries an hour, about 1 MiB.
const (
	refusalBurst  = 64
	refusalEvery  = 3 * time.Second // one more entry
	summaryPeriod = time.Minute
)

// refusals decides which refusals of unknown callers are written one by one; another
// one of them decides it for looks, so that neither hides the other.
type refusals struct {
	now     func() time.Time
	entries *pace

	mu    sync.Mutex // guards the rest
	left  uint64     // out of the log since the last summary
	total uint64
	from  time.Time // of the first that was left out since then
}

func newRefusals(now func() time.Time) *refusals {
	return &refusals{now: now, entries: newPace(refusalBurst, refusalEvery, now())}
}

// take says whether one more refusal has an entry of its own; if not, it counts it.
func (r *refusals) take() bool {
	if r.entries.take(r.now()) {
		return true
	}
	r.miss()
	return false
}

// miss counts one that has no entry, or whose entry could not be written.
func (r *refusals) miss() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == 0 {
		r.from = r.now()
	}
	r.left++
	r.total++
}

func (r *refusals) leftOut() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// drain gives what was left out since the last time.
func (r *refusals) drain() (n uint64, from time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, from = r.left, r.from
	r.left = 0
	return n, from
}

// followPeriod is how often the charter file is looked at: a change that others append
// holds within a second.
const followPeriod = 250 * time.Millisecond

// housekeeping is what an open vault does by itself, until it is sealed.
func (v *vault) housekeeping() {
	defer close(v.counted)
	summaries, follows := time.NewTicker(summaryPeriod), time.NewTicker(followPeriod)
	defer summaries.Stop()
	defer follows.Stop()
	for {
		select {
		case <-v.ctx.Done():
			v.summary()
			v.settle(context.WithoutCancel(v.ctx))
			return
		case <-summaries.C:
			v.summary()
			v.tellPulled(v.ctx)
			v.expire(v.ctx)
		case <-follows.C:
			v.follow(v.ctx)
			v.settle(v.ctx)
		}
	}
}

// summary writes one entry for each kind of which anything was left out.
func (v *vault) summary() {
	v.summarize(v.refused, "unknown callers", "peer")
	v.summarize(v.looks, "looks", "")
}

// summarize writes how many of a kind have no entry of their own. Where it cannot, they
// stand in the operator's log.
func (v *vault) summarize(r *refusals, what, class string) {
	n, from := r.drain()
	if n == 0 {
		return
	}
	e := v.life(what)
	if class != "" {
		e.Kind, e.Class = audit.Refused, class
	}
	e.Result = map[string]any{"from": trail.FormatTime(from), "left_out": n}
	if _, err := v.journal.Do(context.WithoutCancel(v.ctx), seal.Durable, e, nil); err != nil {
		v.cfg.Log.ErrorContext(v.ctx, "calls without an entry could not be counted in the log", slog.String("operation", what), slog.Uint64("left_out", n), slog.String("error", err.Error()))
	}
}
