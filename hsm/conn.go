package hsm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"keyrite/hsm/internal/frame"
)

// conn is the client's end of a data socket. Requests of any number of
// goroutines are queued; one writer drains the queue into one write, one
// reader hands the answers out.
type conn struct {
	sock  net.Conn
	token TokenID
	kill  func() // ends the module process
	hello chan frame.Response
	wake  chan struct{}
	done  chan struct{} // closed when the session is over

	mu      sync.Mutex // guards the rest
	last    uint64
	queue   []frame.Request
	waiting map[uint64]chan frame.Response
	over    error
	closed  bool
}

func newConn(f *os.File, t TokenID, kill func()) (*conn, error) {
	sock, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, &Error{Op: "open", Token: t.Label, Class: "unexpected", Text: err.Error(), cause: err}
	}
	c := &conn{
		sock: sock, token: t, kill: kill, hello: make(chan frame.Response, 1),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		waiting: map[uint64]chan frame.Response{},
	}
	c.waiting[0] = c.hello
	go c.reader()
	go c.writer()
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

// call sends one request and waits for its answer.
func (c *conn) call(ctx context.Context, q frame.Request, label string) (*frame.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: string(q.Op), Token: c.token.Label, Label: label, Class: "token", Text: err.Error(), cause: err}
	}
	ch := make(chan frame.Response, 1)
	c.mu.Lock()
	if c.over != nil {
		err := c.over
		c.mu.Unlock()
		return nil, lostError(string(q.Op), c.token, err)
	}
	c.last++
	q.ID = c.last
	c.waiting[q.ID] = ch
	c.queue = append(c.queue, q)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	select {
	case a, ok := <-ch:
		if !ok {
			return nil, lostError(string(q.Op), c.token, c.cause())
		}
		if a.Fault != nil {
			return nil, fromFault(a.Fault, c.token, label)
		}
		return &a, nil
	case <-ctx.Done():
		if c.withdraw(q.ID) {
			return nil, &Error{Op: string(q.Op), Token: c.token.Label, Label: label, Class: "token", Text: ctx.Err().Error(), cause: ctx.Err()}
		}
		c.close(ctx.Err())
		c.kill()
		return nil, lostError(string(q.Op), c.token, ctx.Err())
	}
}

// withdraw takes back a request that was not sent yet.
func (c *conn) withdraw(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range c.queue {
		if q.ID == id {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			delete(c.waiting, id)
			return true
		}
	}
	return false
}

// writer drains the queue; everything that waits leaves in one write.
func (c *conn) writer() {
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		c.mu.Lock()
		batch := c.queue
		c.queue = nil
		c.mu.Unlock()
		var out []byte
		for i := range batch {
			var err error
			if out, err = frame.Append(out, &batch[i]); err != nil {
				c.close(err)
				return
			}
		}
		if len(out) == 0 {
			continue
		}
		if _, err := c.sock.Write(out); err != nil {
			c.close(err)
			return
		}
	}
}

func (c *conn) reader() {
	r := bufio.NewReaderSize(c.sock, 64<<10)
	for {
		var a frame.Response
		if err := frame.Read(r, &a); err != nil {
			c.close(err)
			return
		}
		c.mu.Lock()
		ch := c.waiting[a.ID]
		delete(c.waiting, a.ID)
		c.mu.Unlock()
		if ch == nil {
			c.close(errors.New("an answer to no request"))
			return
		}
		ch <- a
	}
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
	for id, ch := range c.waiting {
		close(ch)
		delete(c.waiting, id)
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
