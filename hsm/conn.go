package hsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"keyrite/hsm/internal/frame"
)

// conn is the client's end of a data socket. Requests of any number of
// goroutines leave in the order in which they were given; one reader hands the
// answers out.
type conn struct {
	sock  net.Conn
	token TokenID
	kill  func() // ends the module process
	hello chan frame.Response
	done  chan struct{} // closed when the session is over

	mu      sync.Mutex // guards the rest
	last    uint64     // id of the newest request
	written uint64     // id of the newest request that went to the socket
	out     []byte     // encoded requests that wait for the writer
	spare   []byte     // the buffer that was written last
	writing bool
	waiting map[uint64]*pending
	idle    chan struct{} // not nil: closed when nothing waits any more
	over    error
	closed  bool

	// The oldest request without an answer is the one that the module works on,
	// or one of them; it may take as long as its kind allows.
	head  uint64
	since time.Time // when it became that
	watch *time.Timer
	due   time.Time // when watch fires; zero: it does not
}

// pending is a request without an answer.
type pending struct {
	id     uint64
	limit  time.Duration // how long the module may work on it; 0: for ever
	answer chan frame.Response
}

// drop wipes what was answered to a request that nobody waits for any more. It waits
// for the answer, or for the end of the session.
func (p *pending) drop() {
	a := <-p.answer
	clear(a.Data)
}

func newConn(f *os.File, t TokenID, kill func()) (*conn, error) {
	sock, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, &Error{Op: "open", Token: t.Label, Class: "unexpected", Text: err.Error(), cause: err}
	}
	c := &conn{
		sock: sock, token: t, kill: kill, hello: make(chan frame.Response, 1),
		done: make(chan struct{}), waiting: map[uint64]*pending{},
	}
	c.waiting[0] = &pending{answer: c.hello}
	go c.reader()
	return c, nil
}

// greeting waits for the first frame: the login worked, or why not.
func (c *conn) greeting(ctx context.Context) (json.RawMessage, error) {
	select {
	case a, ok := <-c.hello:
		if !ok {
			return nil, lostError("open", c.token, c.cause())
		}
		if a.Fault != nil {
			return nil, fromFault(a.Fault, c.token, "")
		}
		return a.Body, nil
	case <-ctx.Done():
		return nil, lostError("open", c.token, ctx.Err())
	}
}

// call sends one request and waits for its answer. If the context ends under
// it, the module process is ended: nobody else must wait behind a call that
// hangs.
func (c *conn) call(ctx context.Context, q frame.Request, label string) (*frame.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: string(q.Op), Token: c.token.Label, Label: label, Class: "token", Text: err.Error(), cause: err}
	}
	p, err := c.start(&q, 0)
	if errors.Is(err, errTooLong) {
		return nil, usage(string(q.Op), "%v", err)
	}
	if err != nil {
		return nil, lostError(string(q.Op), c.token, err)
	}
	select {
	case a, ok := <-p.answer:
		if !ok {
			return nil, lostError(string(q.Op), c.token, c.cause())
		}
		if a.Fault != nil {
			return nil, fromFault(a.Fault, c.token, label)
		}
		return &a, nil
	case <-ctx.Done():
		c.close(ctx.Err())
		c.kill()
		p.drop()
		if !c.sent(p) {
			return nil, &Error{Op: string(q.Op), Token: c.token.Label, Label: label, Class: "token", Text: ctx.Err().Error(), cause: ctx.Err()}
		}
		return nil, lostError(string(q.Op), c.token, ctx.Err())
	}
}

var errTooLong = errors.New("the request is too long")

// start queues one request and sees that it leaves. After an error it did not.
func (c *conn) start(q *frame.Request, limit time.Duration) (*pending, error) {
	p := &pending{limit: limit, answer: make(chan frame.Response, 1)}
	c.mu.Lock()
	if c.over != nil {
		defer c.mu.Unlock()
		return nil, c.over
	}
	p.id, q.ID = c.last+1, c.last+1
	out, err := frame.AppendRequest(c.out, q)
	if err != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", errTooLong, err)
	}
	c.last, c.out, c.waiting[p.id] = p.id, out, p
	if len(c.waiting) == 1 {
		c.lead(p.id, time.Now())
	}
	if c.writing {
		c.mu.Unlock()
		return p, nil
	}
	c.writing = true
	more := len(c.waiting) > busy || c.write()
	c.mu.Unlock()
	if more {
		go c.drain()
	}
	return p, nil
}

// busy is how many requests keep the module at work for so long that the next one
// may wait for others to leave with it.
const busy = 8

// write writes what waits. It is called with mu held, which it lets go
// meanwhile, by the one goroutine that set writing; it says whether more came.
func (c *conn) write() (more bool) {
	b, upTo := c.out, c.last
	c.out, c.spare = c.spare[:0], nil
	c.written = upTo // from here on nobody can say that it was not sent
	c.mu.Unlock()
	_, err := c.sock.Write(b)
	clear(b) // it may be what is to be encrypted
	if err != nil {
		c.close(err)
	}
	c.mu.Lock()
	if cap(b) <= maxSpare {
		c.spare = b
	}
	more = err == nil && len(c.out) > 0
	c.writing = more
	return more
}

// maxSpare bounds the buffer that is kept, in bytes.
const maxSpare = 64 << 10

// drain goes on writing for a caller that has an answer of its own to wait for. It
// lets those run first that are about to ask.
func (c *conn) drain() {
	runtime.Gosched()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.write() {
	}
}

// sent reports whether a request of an ended conn may have reached the module.
func (c *conn) sent(p *pending) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.id <= c.written
}

// lead makes a request the one whose time runs. mu is held.
func (c *conn) lead(id uint64, now time.Time) {
	c.head, c.since = id, now
	p := c.waiting[id]
	if p == nil || p.limit == 0 {
		return
	}
	// A watch that fires early looks again, which is cheaper than to set it for
	// every request.
	if due := now.Add(p.limit); c.due.IsZero() || due.Before(c.due) {
		c.arm(due, p.limit)
	}
}

// arm sets the watch. mu is held.
func (c *conn) arm(due time.Time, in time.Duration) {
	c.due = due
	if c.watch == nil {
		c.watch = time.AfterFunc(in, c.overdue)
		return
	}
	c.watch.Reset(in)
}

// overdue ends the session if the request at the head has had its time.
func (c *conn) overdue() {
	c.mu.Lock()
	c.due = time.Time{}
	p := c.waiting[c.head]
	if c.closed || p == nil || p.limit == 0 {
		c.mu.Unlock()
		return
	}
	if left := p.limit - time.Since(c.since); left > 0 {
		c.arm(time.Now().Add(left), left)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.close(context.DeadlineExceeded)
	c.kill()
}

func (c *conn) reader() {
	r := frame.NewStream(c.sock)
	for {
		var a frame.Response
		if err := r.Response(&a); err != nil {
			c.close(err)
			return
		}
		c.mu.Lock()
		p := c.waiting[a.ID]
		delete(c.waiting, a.ID)
		if p != nil && a.ID == c.head && len(c.waiting) > 0 {
			id := c.head + 1
			for c.waiting[id] == nil {
				id++
			}
			c.lead(id, time.Now())
		}
		c.rest()
		c.mu.Unlock()
		if p == nil {
			c.close(errors.New("an answer to no request"))
			return
		}
		p.answer <- a
	}
}

// rest closes idle when nothing waits any more. mu is held.
func (c *conn) rest() {
	if c.idle != nil && len(c.waiting) == 0 {
		close(c.idle)
		c.idle = nil
	}
}

// drained takes no further request, and gives a channel that is closed when every
// request has its answer or the session is over: each has its time.
func (c *conn) drained() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over == nil {
		c.over = errClosed
	}
	ch := make(chan struct{})
	c.idle = ch
	c.rest()
	return ch
}

// close ends the session and fails everything that waits. The module process
// ends by itself when it sees the socket close, unless it hangs in a call.
func (c *conn) close(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if cause == nil {
		cause = errClosed
	}
	if c.over == nil {
		c.over = cause
	}
	for id, p := range c.waiting {
		close(p.answer)
		delete(c.waiting, id)
	}
	clear(c.out)
	c.out = nil
	c.rest()
	if c.watch != nil {
		c.watch.Stop()
	}
	c.sock.Close()
	close(c.done)
}

// shutdown closes in good order: no new request, wait for nothing.
func (c *conn) shutdown() error {
	c.mu.Lock()
	lost := c.over
	c.mu.Unlock()
	c.close(errClosed)
	if lost != nil && !errors.Is(lost, errClosed) {
		return lostError("close", c.token, lost)
	}
	return nil
}

func (c *conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.over, io.EOF) {
		return nil
	}
	return c.over
}
