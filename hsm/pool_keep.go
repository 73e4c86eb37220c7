package hsm

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Delays between attempts to open a token that is not there.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
)

// lose takes a session that is no good out of use; the keeper does the rest.
func (p *Pool) lose(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sess != s {
		return
	}
	p.sess, p.trouble = nil, nil
	p.change()
}

// change tells everybody who waits. mu is held.
func (p *Pool) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// keep sees to it that there is a session, until the pool is closed.
func (p *Pool) keep(ctx context.Context, s *Session) {
	defer close(p.done)
	for s != nil {
		p.used(ctx, s)
		p.lose(s)
		// What it works on may still end well; after that it has nothing that a
		// log-out could save, and one that is sick may hang in it.
		<-s.conn.drained()
		if ctx.Err() == nil {
			s.kill()
		}
		_ = s.Close()
		s = p.reopen(ctx)
	}
}

// used waits until the session is out of use or the pool is closed.
func (p *Pool) used(ctx context.Context, s *Session) {
	for {
		p.mu.Lock()
		now, changed := p.sess, p.changed
		p.mu.Unlock()
		if now != s {
			return
		}
		select {
		case <-changed:
		case <-s.Lost():
			return
		case <-ctx.Done():
			p.give(nil, &Error{Op: "use pool", Token: p.id.Label, Class: "token", Text: "the pool is closed", cause: errClosed}, true)
			return
		}
	}
}

// give sets the session in force, or why there is none; what is final stays.
func (p *Pool) give(s *Session, trouble error, final bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.final {
		return
	}
	p.sess, p.trouble, p.final, p.until = s, trouble, final, time.Time{}
	if e, ok := errors.AsType[*Error](trouble); ok && e.Wait > 0 {
		p.until = time.Now().Add(e.Wait)
	}
	if s != nil {
		p.epoch++
	}
	p.change()
}

// reopen opens the token again, as often as it takes, and returns nil when that
// cannot be.
func (p *Pool) reopen(ctx context.Context) *Session {
	delay := firstRetry
	for {
		opening, cancel := context.WithTimeout(ctx, p.cfg.Open)
		s, err := p.sup.open(opening, p.id, p.cfg.Sessions)
		cancel()
		if err == nil {
			err = p.same(s)
			if err == nil && ctx.Err() == nil {
				p.give(s, nil, false)
				return s
			}
			_ = s.Close()
		}
		if ctx.Err() != nil {
			err = &Error{Op: "use pool", Token: p.id.Label, Class: "token", Text: "the pool is closed", cause: errClosed}
		}
		if ctx.Err() != nil || hopeless(err) || p.sup.ended() {
			p.give(nil, err, true)
			return nil
		}
		p.give(nil, err, false)
		pause := delay
		if e, ok := errors.AsType[*Error](err); ok && e.Wait > 0 {
			pause = e.Wait
		}
		delay = min(2*delay, lastRetry)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		case <-p.sup.gone:
			t.Stop()
		}
	}
}

// same refuses a module or token that is not the one that the pool began with.
func (p *Pool) same(s *Session) error {
	was, is := p.hello, s.hello
	t := is.Token
	t.PINCountLow, t.PINLocked = was.Token.PINCountLow, was.Token.PINLocked // they change by use
	if t == was.Token && is.Module.SHA256 == was.Module.SHA256 && slices.Equal(is.Module.Libraries, was.Module.Libraries) &&
		slices.Equal(is.Module.Configuration, was.Module.Configuration) {
		return nil
	}
	return &Error{
		Op: "open token anew", Token: p.id.Label, Class: "policy", kind: ErrRefused,
		Text: "module, libraries or token are not those that the pool began with",
		Hint: "if they were updated on purpose: admit them, then start the program again",
	}
}

// hopeless says that a further attempt would do harm or no good: a PIN that was
// refused is never tried again.
func hopeless(err error) bool {
	for _, e := range []error{ErrPIN, ErrLocked, ErrRefused, ErrAmbiguous} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
