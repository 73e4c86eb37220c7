package p11

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
	"keyrite/internal/secmem"
)

// Pool holds the sessions of one login. Each is leased to one goroutine at a
// time: two in one session crash SoftHSM. Each keeps the handles that it has
// found until the process ends; a new process is a new epoch, with new handles.
//
// It is exported for the bench, which measures it without a socket.
type Pool struct {
	anchor *session      // holds the login; alone in changing the token
	all    []*session    // the anchor first
	free   chan *session // those that nobody has leased
}

// OpenPool loads a module and logs in to a token, as a module process does. Only the
// bench calls it: every program asks keyrite-hsmd.
func OpenPool(module, label, serial string, pin *secmem.Buffer, sessions int) (*Pool, error) {
	job := frame.Job{Purpose: frame.ForOpen, Module: module, Token: frame.Token{Label: label, Serial: serial}}
	m, st, err := start(job)
	if err != nil {
		return nil, err
	}
	s, err := m.login(job, st, frame.PINs{frame.UserPIN: pin})
	if err != nil {
		return nil, err
	}
	return newPool(s, sessions)
}

// newPool opens n-1 sessions beside the one that is logged in; the login holds
// for all of them (PKCS#11 2.40, Section 2.6.8).
func newPool(anchor *session, n int) (*Pool, error) {
	if n < 1 || n > frame.MaxSessions {
		return nil, faultf("open session", frame.KindUsage, "need 1 to %d sessions", frame.MaxSessions)
	}
	p := &Pool{anchor: anchor, all: []*session{anchor}, free: make(chan *session, n)}
	for len(p.all) < n {
		h, err := anchor.ctx.OpenSession(anchor.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return nil, asFault("open session", "C_OpenSession", err)
		}
		s := *anchor
		s.h, s.keys, s.cards, s.store = h, map[keyspec.KeyID]*key{}, nil, anchor.store.another()
		p.all = append(p.all, &s)
	}
	for _, s := range p.all {
		p.free <- s
	}
	return p, nil
}

// Sign leases a session and signs with the key: a digest, with Ed25519 a message.
// The signature is verified.
func (p *Pool) Sign(id keyspec.KeyID, in []byte) ([]byte, error) {
	s := <-p.free
	defer func() { p.free <- s }()
	return s.sign(id, in)
}

// SignUnverified is Sign for a caller that verifies by itself.
func (p *Pool) SignUnverified(id keyspec.KeyID, in []byte) ([]byte, error) {
	s := <-p.free
	defer func() { p.free <- s }()
	return s.signOnly(id, in)
}

// concurrent says that a request changes nothing in the token and leaves the
// handles of other sessions alone.
func concurrent(op frame.Op) bool {
	switch op {
	case frame.OpSign, frame.OpMAC, frame.OpEncrypt, frame.OpDecrypt, frame.OpRandom:
		return true
	}
	return false
}

// changes says that a request may have changed which keys the token has.
func changes(op frame.Op) bool {
	switch op {
	case frame.OpRead, frame.OpLook, frame.OpObjects, frame.OpHealth, frame.OpSync, frame.OpCardKeys, frame.OpCardSign, frame.OpCardDerive:
		return false
	}
	return !concurrent(op)
}

// forget drops the handles of every session but the anchor, which keeps its own
// in order: a request has changed what is in the token.
func (p *Pool) forget() {
	for _, s := range p.all[1:] {
		clear(s.keys)
	}
}

// lost reports whether a request was answered with the loss of token or session.
func (p *Pool) lost() bool {
	return slices.ContainsFunc(p.all, func(s *session) bool { return s.lost })
}

// held is how long an answer may wait for others to leave with it, as long as requests
// are served; patience is how long where one hangs or is slow. A timer that fires more
// often would cost more than it saves.
const (
	held     = time.Millisecond
	patience = 20 * time.Millisecond
)

// outbox gathers answers, so that many leave in one write.
type outbox struct {
	w    io.Writer
	late *time.Timer // ends the wait of answers behind a request that takes long

	mu    sync.Mutex // guards the rest
	buf   []byte
	since time.Time // when the first of them was put in
	armed bool      // late is set
	err   error     // of the last write
}

func newOutbox(w io.Writer) *outbox {
	o := &outbox{w: w}
	o.late = time.AfterFunc(time.Hour, o.overdue)
	o.late.Stop()
	return o
}

// put adds the answer to a request that was begun at that time. It leaves at once
// if nothing follows that could go with it, if others have waited for long, or if
// the module is slow, so that waiting for the next would take long.
func (o *outbox) put(a *frame.Response, begun time.Time, last bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	b, err := frame.AppendResponse(o.buf, a)
	if err != nil {
		if b, err = frame.AppendResponse(o.buf, &frame.Response{ID: a.ID, Fault: faultf("request", frame.KindInternal, "the answer is too long")}); err != nil {
			return err
		}
	}
	o.buf = b
	clear(a.Data) // it may be what was decrypted; its copy is wiped when it has left
	now := time.Now()
	if o.since.IsZero() {
		o.since = now
	}
	if !last && now.Sub(o.since) < held && now.Sub(begun) < held {
		if !o.armed {
			o.armed = true
			o.late.Reset(patience)
		}
		return nil
	}
	return o.flush()
}

// leave makes everything leave before a request that may take long or end this
// process: what is done must not become unknown by what comes after it.
func (o *outbox) leave() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.flush()
}

// overdue makes leave what has waited for long, since the request after it hangs or
// is slow.
func (o *outbox) overdue() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.armed = false
	if len(o.buf) == 0 {
		return
	}
	if time.Since(o.since) < held {
		o.armed = true
		o.late.Reset(patience)
		return
	}
	_ = o.flush() // the next answer hears of it
}

func (o *outbox) flush() error {
	if o.err != nil || len(o.buf) == 0 {
		return o.err
	}
	_, o.err = o.w.Write(o.buf)
	clear(o.buf)
	o.buf, o.since = o.buf[:0], time.Time{}
	return o.err
}

// inbox is where requests come from.
type inbox struct {
	*frame.Stream
	fd int32 // of the socket, or -1
}

func newInbox(rw io.ReadWriter) *inbox {
	i := &inbox{frame.NewStream(rw), -1}
	if f, ok := rw.(interface{ Fd() uintptr }); ok {
		i.fd = int32(f.Fd())
	}
	return i
}

// end makes the next read end.
func (i *inbox) end() {
	if i.fd >= 0 {
		_ = unix.Shutdown(int(i.fd), unix.SHUT_RDWR)
	}
}

// more reports whether another request is there, read already or not: one look at
// the socket costs less than to wake the client for a single answer.
func (i *inbox) more() bool {
	if i.Buffered() || i.fd < 0 {
		return i.Buffered()
	}
	p := []unix.PollFd{{Fd: i.fd, Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents == unix.POLLIN
}

// slice is how long serve goes on without the scheduler of Go, which takes the
// processor of a goroutine that it has not seen for 10 ms, in the middle of a call of
// the module, and then looks 50,000 times a second whether to do so again.
const slice = 4 * time.Millisecond

// serve answers requests until the socket closes. Answers are gathered and
// written when nothing more is waiting to be read.
func (p *Pool) serve(rw io.ReadWriter) error {
	r, out := newInbox(rw), newOutbox(rw)
	if len(p.all) > 1 {
		return p.serveMany(r, out)
	}
	yielded := time.Now()
	for {
		var q frame.Request
		if err := r.Request(&q); err != nil {
			return ended(err)
		}
		if !concurrent(q.Op) {
			if err := out.leave(); err != nil {
				return err
			}
		}
		begun := time.Now()
		if begun.Sub(yielded) > slice {
			runtime.Gosched()
			yielded = begun
		}
		a, fatal := p.anchor.answer(&q)
		if err := out.put(a, begun, !r.more() || fatal != nil); err != nil {
			return err
		}
		if fatal != nil {
			return fatal
		}
	}
}

// ended is nil where the other end closed between two requests.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// take waits for n idle lanes, or for the failure of one.
func (l *lanes) take(n int) ([]*lane, bool) {
	out := make([]*lane, 0, n)
	for len(out) < n {
		select {
		case x := <-l.idle:
			out = append(out, x)
		case <-l.broken:
			return nil, false
		}
	}
	return out, true
}

// lane is a session with a thread of its own: some modules keep state per thread.
type lane struct {
	*session
	todo chan *frame.Request
}

// lanes serve requests side by side.
type lanes struct {
	pool   *Pool
	out    *outbox
	idle   chan *lane
	stop   func() // makes the reader's next read end
	quit   chan struct{}
	broken chan struct{} // closed when a lane has failed
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the rest
	more  bool       // a request waits for a lane
	fatal error
}

// serveMany is serve with several sessions. Requests that change the token have
// it to themselves.
func (p *Pool) serveMany(r *inbox, out *outbox) error {
	l := &lanes{pool: p, out: out, idle: make(chan *lane, len(p.all)), stop: r.end, quit: make(chan struct{}), broken: make(chan struct{})}
	for _, s := range p.all {
		n := &lane{session: s, todo: make(chan *frame.Request)}
		l.wg.Go(func() { l.run(n) })
		l.idle <- n
	}
	err := l.read(r)
	close(l.quit)
	l.wg.Wait() // for those that are still at work: nothing is finalised under them
	return errors.Join(l.fatal, err)
}

func (l *lanes) waits(more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.more = more
}

// read gives each request to a lane that is idle.
func (l *lanes) read(r *inbox) error {
	for {
		var q frame.Request
		if err := r.Request(&q); err != nil {
			return ended(err)
		}
		l.waits(true)
		want := 1
		if !concurrent(q.Op) {
			want = cap(l.idle)
		}
		taken, ok := l.take(want)
		if !ok {
			return nil // a session failed, and fail has said why
		}
		if concurrent(q.Op) {
			l.waits(r.more())
			taken[0].todo <- &q
			continue
		}
		if err := l.out.leave(); err != nil {
			return err
		}
		begun := time.Now()
		a, fatal := l.pool.anchor.answer(&q)
		if changes(q.Op) {
			l.pool.forget()
		}
		l.waits(r.more())
		err := l.out.put(a, begun, !r.more() || fatal != nil)
		for _, n := range taken {
			l.idle <- n
		}
		if err := errors.Join(fatal, err); err != nil {
			return err
		}
	}
}

func (l *lanes) run(n *lane) {
	runtime.LockOSThread()
	for {
		var q *frame.Request
		select {
		case q = <-n.todo:
		case <-l.quit:
			return
		}
		begun := time.Now()
		a, fatal := n.answer(q)
		if err := errors.Join(fatal, l.out.put(a, begun, l.last() || fatal != nil)); err != nil {
			l.fail(err)
			return // this session is not used again
		}
		l.idle <- n
	}
}

func (l *lanes) last() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.more
}

// fail makes the reader end.
func (l *lanes) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		close(l.broken)
	}
	l.fatal = errors.Join(l.fatal, err)
	l.stop()
}
