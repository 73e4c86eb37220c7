package hsm

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"keyrite/hsm/internal/frame"
)

// PoolConfig says how much a Pool takes on and how long things may take. Zero
// values stand for the defaults.
type PoolConfig struct {
	// Sessions is how many requests the module works on at a time, each in a
	// PKCS#11 session of its own. Default 1, which costs the least CPU time; a
	// network HSM wants as many as it has units. At most 64.
	Sessions int
	// InFlight is how many requests the module process is given at a time; they
	// share its fate. Default 32, at least Sessions.
	InFlight int
	// Queue is how many more may wait. Default 1,024.
	Queue int
	// Use, Change, Look and Open are the deadlines of the kinds of request: use of
	// a key; generation and destruction; reading; start of a module process with
	// its login. A request waits no longer than its deadline, and the module may
	// work on it no longer than that once more, or its process is ended.
	// Defaults: 5 s, 60 s, 30 s, 30 s.
	Use, Change, Look, Open time.Duration
}

// maxPoolRequests bounds InFlight and Queue.
const maxPoolRequests = 1 << 16

func (c PoolConfig) withDefaults() (PoolConfig, error) {
	for _, d := range []struct {
		at   *int
		want int
	}{{&c.Sessions, 1}, {&c.InFlight, max(32, c.Sessions)}, {&c.Queue, 1024}} {
		if *d.at == 0 {
			*d.at = d.want
		}
	}
	for _, d := range []struct {
		at   *time.Duration
		want time.Duration
	}{{&c.Use, 5 * time.Second}, {&c.Change, time.Minute}, {&c.Look, 30 * time.Second}, {&c.Open, 30 * time.Second}} {
		if *d.at == 0 {
			*d.at = d.want
		}
		if *d.at < 0 {
			return c, usage("open pool", "a deadline is negative")
		}
	}
	if c.Sessions < 1 || c.Sessions > frame.MaxSessions || c.InFlight < c.Sessions || c.InFlight > maxPoolRequests || c.Queue < 1 || c.Queue > maxPoolRequests {
		return c, usage("open pool", "%d sessions, %d requests in flight, %d in the queue: out of bounds", c.Sessions, c.InFlight, c.Queue)
	}
	return c, nil
}

// Pool is one token for programs that run for long. It may be used by any number
// of goroutines. When the module process crashes, hangs or loses the token, the
// pool starts another one and goes on:
//
//   - a request that did not reach the process goes on in the next one;
//   - a request that did is not made a second time. Its error wraps ErrLost, and
//     for generation and destruction Lookup tells what became of it;
//   - a request that cannot be sent before its deadline ends with ErrNotDone;
//   - a second start within half a minute has to wait (ErrWaiting). Meanwhile
//     requests whose deadline comes first end with ErrNotDone at once;
//   - after a refused PIN nothing is tried again: every request ends with ErrPIN or
//     ErrLocked until the pool is closed. So it is with a module or a library of it
//     that is another file than at first, or a token with other firmware: what was
//     admitted is not what would be used.
//
// A context that ends takes its caller out of the wait; what the module works on
// for him goes on, and nobody else is disturbed.
//
// Ceremonies use a Session: the keys born in one die with it, so its end is
// an incident and nothing to recover from.
type Pool struct {
	*Access
	sup    *Supervisor
	cfg    PoolConfig
	slots  chan struct{} // one element for each request at the module process
	queued atomic.Int64  // requests in here, those at the module too
	end    context.CancelFunc
	over   <-chan struct{} // closed by end
	done   chan struct{}   // closed when the keeper has ended

	mu      sync.Mutex // guards the rest
	sess    *Session   // nil while there is none to send to
	epoch   uint64
	changed chan struct{} // closed at each change of the rest
	trouble error         // why there is no session
	final   bool          // there will be none
	until   time.Time     // before which none will be tried
}

// NewPool opens the token, whose user PIN the supervisor must hold. The pool ends
// by Close; the supervisor stays.
func NewPool(ctx context.Context, sup *Supervisor, t TokenID, cfg PoolConfig) (*Pool, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	opening, cancel := context.WithTimeout(ctx, cfg.Open)
	defer cancel()
	sess, err := sup.open(opening, t, cfg.Sessions)
	if err != nil {
		return nil, err
	}
	p := &Pool{
		sup: sup, cfg: cfg, slots: make(chan struct{}, cfg.InFlight), done: make(chan struct{}),
		sess: sess, epoch: 1, changed: make(chan struct{}),
	}
	p.Access = &Access{id: t, hello: sess.hello, ask: p.ask, lasting: true}
	own, end := context.WithCancel(context.WithoutCancel(ctx))
	p.end, p.over = end, own.Done()
	go p.keep(own, sess)
	return p, nil
}

// Epoch counts the module processes of this pool. Handles of keys hold for one
// epoch and are found again in the next.
func (p *Pool) Epoch() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

// Waiting is how many requests the pool has taken on that have no answer yet.
func (p *Pool) Waiting() int { return int(p.queued.Load()) }

// Close ends what waits with ErrNotDone, lets the module finish what it has, as far
// as its deadline allows, and ends its process.
func (p *Pool) Close() error {
	p.end()
	<-p.done
	return nil
}

func (p *Pool) limit(op frame.Op) time.Duration {
	switch op {
	case frame.OpSign, frame.OpMAC, frame.OpEncrypt, frame.OpDecrypt, frame.OpRandom:
		return p.cfg.Use
	case frame.OpRead, frame.OpObjects, frame.OpLook, frame.OpCertificates:
		return p.cfg.Look
	}
	return p.cfg.Change
}

// ask makes one request.
func (p *Pool) ask(ctx context.Context, q frame.Request, label string) (*frame.Response, error) {
	w := &wait{pool: p, op: string(q.Op), label: label, limit: p.limit(q.Op)}
	if err := ctx.Err(); err != nil {
		return nil, w.notDone("its time was over before it began", err)
	}
	defer p.queued.Add(-1)
	if p.queued.Add(1) > int64(p.cfg.InFlight+p.cfg.Queue) {
		return nil, &Error{Op: w.op, Token: p.id.Label, Label: label, Class: "sealed", Text: "not done: too many requests wait for this token", Hint: "ask again in a moment, or let fewer ask at a time", kind: ErrBusy}
	}
	w.until = time.Now().Add(w.limit)
	if err := w.slot(ctx); err != nil {
		return nil, err
	}
	for {
		s, err := w.session(ctx)
		if err != nil {
			<-p.slots
			return nil, err
		}
		sent, err := s.conn.start(&q, w.limit)
		if errors.Is(err, errTooLong) {
			<-p.slots
			return nil, usage(w.op, "%v", err)
		}
		if err != nil {
			p.lose(s) // it ended before this was sent
			continue
		}
		a, again, err := w.answer(ctx, s, sent)
		if again {
			continue
		}
		return a, err
	}
}

// wait is one request on its way.
type wait struct {
	pool      *Pool
	op, label string
	limit     time.Duration
	until     time.Time // when it is not sent any more
}

func (w *wait) notDone(why string, cause error) error {
	return notDone(w.op, w.pool.id, w.label, why, cause)
}

func (w *wait) late(cause error) error {
	if cause == nil {
		cause = context.DeadlineExceeded
	}
	return w.notDone("its time was over before it could be sent", cause)
}

// slot waits for room at the module process.
func (w *wait) slot(ctx context.Context) error {
	select {
	case w.pool.slots <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(time.Until(w.until))
	defer t.Stop()
	select {
	case w.pool.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return w.late(ctx.Err())
	case <-t.C:
		return w.late(nil)
	case <-w.pool.over:
		return w.notDone("the pool is closed", errClosed)
	}
}

// session gives the one in force, or waits for the next.
func (w *wait) session(ctx context.Context) (*Session, error) {
	p := w.pool
	for {
		p.mu.Lock()
		s, changed, trouble, until, final := p.sess, p.changed, p.trouble, p.until, p.final
		p.mu.Unlock()
		switch {
		case final:
			return nil, w.notDone("the token cannot be opened", trouble)
		case s != nil:
			return s, nil
		case until.After(w.until):
			return nil, w.notDone("the token has to be left alone for longer than this may wait", trouble)
		}
		t := time.NewTimer(time.Until(w.until))
		select {
		case <-changed:
			t.Stop()
			continue
		case <-ctx.Done():
			t.Stop()
			return nil, w.late(errors.Join(ctx.Err(), trouble))
		case <-t.C:
			return nil, w.late(errors.Join(context.DeadlineExceeded, trouble))
		}
	}
}

// answer waits for what was sent, and gives the slot back. It says again where
// the request did not leave after all; then the slot is kept.
func (w *wait) answer(ctx context.Context, s *Session, sent *pending) (_ *frame.Response, again bool, _ error) {
	p := w.pool
	select {
	case a, ok := <-sent.answer:
		if !ok && !s.conn.sent(sent) {
			p.lose(s)
			return nil, true, nil
		}
		<-p.slots
		switch {
		case !ok:
			p.lose(s)
			return nil, false, lostError(w.op, p.id, s.conn.cause())
		case a.Fault != nil:
			if a.Fault.Kind == frame.KindLost {
				p.lose(s)
			}
			return nil, false, fromFault(a.Fault, p.id, w.label)
		}
		return &a, false, nil
	case <-ctx.Done():
		go func() {
			sent.drop() // within its deadline, and until then it has its slot
			<-p.slots
		}()
		return nil, false, &Error{
			Op: w.op, Token: p.id.Label, Label: w.label, Class: "token", kind: ErrLost, cause: ctx.Err(),
			Text: "no answer in time; the outcome is unknown, look it up by id",
		}
	}
}
