package ceremony

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony/script"
	"keyrite/internal/redact"
)

// One goroutine, serve, owns an attempt: transcript, state, step, time limit and
// terminal. It takes one event after the other: what the work under way asks of
// it, an answer, a signal, a call of an incident, the time limit, the tick that
// looks at clock and media, and the end of the work. The work is a second
// goroutine, which follows the script and changes nothing but through do.

const (
	// tickEvery is how often clock and media are looked at.
	tickEvery = time.Second
	// grace is how long work that was stopped may take to come back. A verb gives
	// up its request to a token at once; longer means that it hangs.
	grace = 30 * time.Second
)

// loop is what serve alone touches.
type loop struct {
	ops     chan func()
	answers chan answer
	left    chan struct{} // closed when nobody serves any more

	cancel    context.CancelFunc // of the work under way
	cause     error              // why it was stopped; the first cause counts
	call      *Call              // an incident that is to be signed once it has come back
	pending   *question          // of the work, asked or about to be
	asking    *asking            // at the terminal now
	doubt     bool               // the word VOID is asked for before anything else
	limit     <-chan time.Time
	stopLimit func()
	hung      <-chan time.Time

	media    map[string]bool // known now
	exchange bool            // a medium may come or go in this step
}

// question is one to the room. ask runs in a goroutine of its own.
type question struct {
	ask   func(ctx context.Context) (any, error)
	reply chan answer
}

// answer is what came of a question.
type answer struct {
	q   *question
	v   any
	err error
}

type asking struct {
	q      *question
	cancel context.CancelFunc
}

var (
	errEnded = fault.New(fault.Interrupted, "the ceremony has ended")
	errHung  = fault.New(fault.Unexpected, "a verb hangs and cannot be stopped")
)

// do has the loop call f, and waits for it. Only the work calls it.
func (r *Run) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case r.ops <- func() { done <- f() }:
		return <-done
	case <-r.left:
		return errEnded
	}
}

// look reads something of the state: through the loop while there is one.
func look[T any](r *Run, f func() T) T {
	var v T
	if r.do(func() error { v = f(); return nil }) != nil {
		return f()
	}
	return v
}

// serve takes events until work has ended, and returns why it ended.
func (r *Run) serve(ctx context.Context, work func(context.Context) error) error {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.cancel, r.cause, r.call, r.hung = cancel, nil, nil, nil
	done := make(chan error, 1)
	go func() { done <- work(wctx) }()
	tick, stopTick := r.Clock.Timer(tickEvery)
	defer func() { stopTick() }()
	var result *error
	for {
		if result != nil && !r.doubt && r.asking == nil {
			return r.over(ctx, *result)
		}
		if r.urgent() {
			continue
		}
		select {
		case op := <-r.ops:
			op()
		case a := <-r.answers:
			r.answered(a)
		case s := <-r.Interrupt:
			r.signal(s)
		case c := <-r.Calls:
			r.takeCall(&c)
		case <-r.limit:
			r.stop(fault.New(fault.Unreachable, "the time limit passed"))
		case <-tick:
			r.watch()
			tick, stopTick = r.Clock.Timer(tickEvery)
		case <-ctx.Done():
			ctx = context.WithoutCancel(ctx)
			r.stop(fault.Errorf(fault.Interrupted, "interrupted: %w", context.Cause(wctx)))
		case <-r.hung:
			return errors.Join(errHung, r.cause)
		case err := <-done:
			result = &err
		}
	}
}

// urgent takes what stops the work before what furthers it.
func (r *Run) urgent() bool {
	select {
	case s := <-r.Interrupt:
		r.signal(s)
	case c := <-r.Calls:
		r.takeCall(&c)
	case <-r.limit:
		r.stop(fault.New(fault.Unreachable, "the time limit passed"))
	default:
		return false
	}
	return true
}

// over is the end of the work: why it was stopped goes before what it says.
func (r *Run) over(ctx context.Context, err error) error {
	r.endLimit()
	if c := r.call; c != nil {
		return r.serve(ctx, func(ctx context.Context) error { return r.called(ctx, c) })
	}
	if r.cause != nil {
		return r.cause
	}
	return err
}

// stop ends the work under way. Nothing that it still wants is done or recorded.
func (r *Run) stop(cause error) {
	if r.cause != nil {
		return
	}
	if r.step != "" {
		cause = fault.Errorf(fault.ClassOf(cause), "step %s (%s): %w", r.step, r.title, cause)
	}
	r.cause, r.doubt = cause, false
	r.hung, _ = r.Clock.Timer(grace)
	r.endLimit()
	r.refuse(cause)
	r.cancel()
}

// refuse takes the question under way back.
func (r *Run) refuse(err error) {
	if r.pending != nil {
		r.pending.reply <- answer{err: err}
		r.pending = nil
	}
	if r.asking != nil {
		r.asking.cancel()
	}
}

// acting says whether an incident counts now.
func (r *Run) acting() bool {
	return r.state == "ARMED" || r.state == "RUNNING" || r.state == "SEALING"
}

// signal decides on a signal: before ARMED it ends the command; later SIGINT asks
// for the word VOID, and a closed terminal asks nobody. On the way to VOID, and
// once the transcript is closed, it only takes a question back.
func (r *Run) signal(s os.Signal) {
	switch {
	case r.voiding || r.state == "CLOSED":
		r.refuse(fault.Errorf(fault.Interrupted, "interrupted in state %s", r.state))
	case !r.acting():
		r.stop(fault.Errorf(fault.Interrupted, "interrupted in state %s", r.state))
	case s != syscall.SIGINT:
		r.stop(fault.Errorf(fault.Interrupted, "interrupted (signal: %s)", s))
	case r.doubt || r.cause != nil:
	default:
		r.doubt = true
		if r.asking != nil {
			r.asking.cancel() // it is asked again if the ceremony goes on
		} else {
			r.present()
		}
	}
}

// takeCall takes an incident that somebody calls at any time.
func (r *Run) takeCall(c *Call) {
	if r.voiding || r.state == "CLOSED" || r.cause != nil {
		return
	}
	r.call = c
	r.stop(ErrIncident)
}

// put asks a question of the work.
func (r *Run) put(q *question) {
	if r.cause != nil {
		q.reply <- answer{err: r.cause}
		return
	}
	r.pending = q
	r.present()
}

// present asks what must be asked next, once the terminal is free.
func (r *Run) present() {
	q := r.pending
	if r.doubt {
		step := r.step
		q = &question{ask: func(ctx context.Context) (any, error) { return r.askVoid(ctx, step) }}
	}
	if q == nil || r.asking != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.asking = &asking{q, cancel}
	go func() {
		v, err := q.ask(ctx)
		select {
		case r.answers <- answer{q, v, err}:
		case <-r.left:
		}
	}()
}

// askVoid asks whether an interrupt was meant.
func (r *Run) askVoid(ctx context.Context, step string) (any, error) {
	a, c, err := r.room.Ask(ctx, Prompt{Step: step, Who: "operator", Text: "Interrupting makes the whole ceremony void. Type VOID to do it, anything else to go on.", Want: []string{"go on", "VOID"}})
	return reply{a, c}, err
}

// answered takes what the room answered.
func (r *Run) answered(a answer) {
	r.asking.cancel()
	mine := r.asking.q == r.pending && r.pending != nil
	r.asking = nil
	x, isReply := a.v.(reply)
	switch {
	case r.cause != nil:
		return
	case mine && r.doubt && (a.err != nil || !isReply || x.call == nil):
		// Taken back: the word VOID is asked for first.
	case mine:
		r.doubt = false // an incident called at the same moment goes first
		r.pending.reply <- a
		r.pending = nil
	case r.doubt:
		r.doubted(x, a.err)
	}
	r.present()
}

// doubted takes the answer about VOID.
func (r *Run) doubted(x reply, err error) {
	r.doubt = false
	switch {
	case err == nil && x.call != nil:
		r.takeCall(x.call)
	case err == nil && x.answer != "VOID":
		r.room.Say("", "going on")
	default:
		r.stop(fault.Errorf(fault.Interrupted, "interrupted (signal: %s)", syscall.SIGINT))
	}
}

// beginLimit starts the time limit of a step.
func (r *Run) beginLimit(d time.Duration) {
	r.endLimit()
	r.limit, r.stopLimit = r.Clock.Timer(d)
}

func (r *Run) endLimit() {
	if r.stopLimit != nil {
		r.stopLimit()
	}
	r.limit, r.stopLimit = nil, nil
}

// watch looks at clock and media.
func (r *Run) watch() {
	if r.voiding || !r.acting() {
		return
	}
	if err := r.checkClock(r.Clock.Now(), r.Clock.Mono()); err != nil {
		r.stop(err)
		return
	}
	if err := r.checkMedia(); err != nil {
		r.stop(err)
	}
}

// seats is the room as the work sees it: everything goes through the loop.
type seats struct{ r *Run }

func (s seats) via(f func(c Console)) {
	_ = s.r.do(func() error { f(s.r.room); return nil }) // who has ended says nothing more
}

func (s seats) View(v View)           { s.via(func(c Console) { c.View(v) }) }
func (s seats) Count(n Count)         { s.via(func(c Console) { c.Count(n) }) }
func (s seats) Say(level, txt string) { s.via(func(c Console) { c.Say(level, txt) }) }
func (s seats) Show(phase string, n, of int, st *script.Step) {
	s.via(func(c Console) { c.Show(phase, n, of, st) })
}

func (s seats) Elsewhere(who string) (yes bool) {
	s.via(func(c Console) { yes = c.Elsewhere(who) })
	return yes
}

func (s seats) Ask(ctx context.Context, p Prompt) (string, *Call, error) {
	x, err := await(ctx, s.r, func(ctx context.Context) (reply, error) {
		a, c, err := s.r.room.Ask(ctx, p)
		return reply{a, c}, err
	})
	return x.answer, x.call, err
}

func (s seats) Secret(ctx context.Context, who string) (*redact.Secret, error) {
	return await(ctx, s.r, func(ctx context.Context) (*redact.Secret, error) { return s.r.room.Secret(ctx, who) })
}

func (s seats) Page(ctx context.Context, title, code string, rows []string) error {
	_, err := await(ctx, s.r, func(ctx context.Context) (any, error) { return nil, s.r.room.Page(ctx, title, code, rows) })
	return err
}

func (s seats) Documents(ctx context.Context, names []string) (map[string]string, error) {
	return await(ctx, s.r, func(ctx context.Context) (map[string]string, error) { return s.r.room.Documents(ctx, names) })
}

// reply is the answer to a Prompt.
type reply struct {
	answer string
	call   *Call
}

// await asks the room and waits for what comes of it.
func await[T any](ctx context.Context, r *Run, ask func(context.Context) (T, error)) (T, error) {
	var none T
	q := &question{reply: make(chan answer, 1), ask: func(ctx context.Context) (any, error) { return ask(ctx) }}
	if err := r.do(func() error { r.put(q); return nil }); err != nil {
		return none, err
	}
	select {
	case a := <-q.reply:
		v, _ := a.v.(T)
		return v, a.err
	case <-ctx.Done():
		_ = r.do(func() error { r.refuse(ctx.Err()); return nil })
		return none, ctx.Err()
	case <-r.left:
		return none, errEnded
	}
}

// checkClock wants wall clock and monotonic clock to go alike.
func (r *Run) checkClock(now time.Time, mono time.Duration) error {
	drift := now.Sub(r.wall) - (mono - r.mono)
	if drift <= maxClockDrift && drift >= -maxClockDrift {
		return nil
	}
	return fault.Errorf(fault.Unexpected, "the clock jumped by %s", drift.Round(time.Millisecond))
}

// Record makes one entry durable. A clock that jumped is an error, and so is
// everything once the work was stopped.
func (r *Run) Record(d record.Data) error {
	return r.do(func() error {
		if r.cause != nil {
			return r.cause
		}
		return r.write(d)
	})
}
