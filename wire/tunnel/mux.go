package tunnel

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"

	"keyrite/wire/problem"
)

// Mux is a session: a leg after its upgrade, carrying streams.
type Mux interface {
	// Open starts a stream towards the other side.
	Open(ctx context.Context) (net.Conn, error)
	// Accept waits for a stream of the other side; an error ends the session.
	Accept() (net.Conn, error)
	// Done is closed when the session has ended.
	Done() <-chan struct{}
	// Close ends the session and all its streams.
	Close() error
}

type yamuxSession struct{ s *yamux.Session }

// openSpare is how far the opener stays below MaxStreams. It sees a stream end
// after the acceptor does, so that one who keeps to this never ends a session.
const openSpare = 16

var (
	errStreams = errors.New("too many streams that have not ended")
	errFlood   = errors.New("the other side opened more streams than it may")
)

func (y yamuxSession) Open(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, errorf(ClassUnreachable, "open stream: %w", err)
	}
	if y.s.NumStreams() >= MaxStreams-openSpare {
		return nil, errorf(ClassQuota, "open stream: %w", errStreams)
	}
	st, err := y.s.OpenStream()
	if err != nil {
		return nil, errorf(ClassUnreachable, "open stream: %w", err)
	}
	return &stream{Stream: st}, nil
}

func (y yamuxSession) Accept() (net.Conn, error) {
	st, err := y.s.AcceptStream()
	if err != nil {
		return nil, errorf(ClassUnreachable, "accept stream: %w", err)
	}
	if y.s.NumStreams() > MaxStreams {
		_ = y.s.Close()
		return nil, errorf(ClassQuota, "accept stream: %w", errFlood)
	}
	return &stream{Stream: st}, nil
}

// stream closes both directions at once. The library's Close ends only ours: it
// goes on to deliver, and to hold up to a window, what the other side sends.
type stream struct {
	*yamux.Stream

	closed  atomic.Bool
	reading sync.Mutex // held by whoever reads
}

func (s *stream) Read(b []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := s.Stream.Read(b)
	if s.closed.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (s *stream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	_ = s.SetReadDeadline(time.Unix(1, 0)) // the reader leaves
	err := s.Stream.Close()
	// What still comes is thrown away until the other side closes too, at most
	// for EndTimeout.
	go func() {
		s.reading.Lock()
		defer s.reading.Unlock()
		_ = s.SetReadDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, s.Stream)
	}()
	return err //nolint:wrapcheck // it is the net.Conn's own error
}

func (y yamuxSession) Done() <-chan struct{} { return y.s.CloseChan() }
func (y yamuxSession) Close() error          { return y.s.Close() }

func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.MaxStreamWindowSize = WindowBytes
	c.KeepAliveInterval = KeepAlive
	c.ConnectionWriteTimeout = AnswerTimeout
	c.StreamOpenTimeout = AnswerTimeout
	c.StreamCloseTimeout = EndTimeout
	// Above MaxStreams: streams beyond the backlog are reset without a trace, those
	// beyond MaxStreams end the session.
	c.AcceptBacklog = MaxStreams + 1
	// What yamux says concerns single streams; both callers see the errors.
	c.LogOutput = io.Discard
	return c
}

// Dial upgrades conn, a TLS connection that the caller authenticated, and
// returns the session. conn belongs to the session from then on and is closed
// when the upgrade fails.
func Dial(ctx context.Context, conn net.Conn, host string, ticket []byte) (Mux, error) {
	m, err := dial(ctx, conn, host, ticket)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return m, nil
}

func dial(ctx context.Context, conn net.Conn, host string, ticket []byte) (Mux, error) {
	defer deadline(ctx, conn, UpgradeTimeout)()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+Path, http.NoBody)
	if err != nil {
		return nil, errorf(ClassUnexpected, "upgrade: %w", err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Token)
	req.Header.Set("Authorization", Scheme+" "+base64.StdEncoding.EncodeToString(ticket))
	req.Header.Set("User-Agent", "keyrite")
	if err := req.Write(conn); err != nil {
		return nil, errorf(ClassUnreachable, "upgrade: %w", err)
	}
	// The limit holds for the answer's head only; the reader below is replaced.
	head := &io.LimitedReader{R: conn, N: MaxHeaderBytes}
	br := bufio.NewReaderSize(head, 4096)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, errorf(ClassUnreachable, "upgrade: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	if !strings.EqualFold(resp.Header.Get("Upgrade"), Token) {
		return nil, errorf(ClassVerify, "upgrade: %w: the server chose another protocol", ErrMessage)
	}
	s, err := yamux.Client(rest(conn, br), muxConfig())
	if err != nil {
		return nil, errorf(ClassUnexpected, "upgrade: %w", err)
	}
	return yamuxSession{s}, nil
}

// rest gives back conn with the bytes that br read ahead.
func rest(conn net.Conn, br *bufio.Reader) net.Conn {
	n := br.Buffered()
	if n == 0 {
		return conn
	}
	ahead, _ := br.Peek(n) // buffered already, so it cannot fail
	return &prefixed{Conn: conn, ahead: append([]byte(nil), ahead...)}
}

type prefixed struct {
	net.Conn
	ahead []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.ahead) > 0 {
		n := copy(b, p.ahead)
		p.ahead = p.ahead[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// refusal turns a problem+json answer into an error of its class.
func refusal(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxMessageBytes))
	if err != nil {
		return errorf(ClassUnreachable, "upgrade: %w", err)
	}
	p, err := problem.Parse(b)
	if err != nil {
		return errorf(ClassUnreachable, "upgrade: the server answered %d without a reason", resp.StatusCode)
	}
	return fmt.Errorf("upgrade: %w", p)
}

// IsUpgrade says whether r asks for flow mode.
func IsUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 &&
		strings.EqualFold(r.Header.Get("Upgrade"), Token) && strings.EqualFold(r.Header.Get("Connection"), "Upgrade")
}

// Ticket returns the ticket of an upgrade request.
func Ticket(r *http.Request) ([]byte, error) {
	all := r.Header.Values("Authorization")
	if len(all) != 1 {
		return nil, errorf(ClassPolicy, "upgrade without a ticket")
	}
	text, ok := strings.CutPrefix(all[0], Scheme+" ")
	t, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(t) == 0 {
		return nil, errorf(ClassPolicy, "upgrade without a ticket")
	}
	return t, nil
}

// Accept answers 101 to a request that the caller has authorised and returns
// the session. It takes over the connection also when it fails.
func Accept(w http.ResponseWriter, r *http.Request) (Mux, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, errorf(ClassUnexpected, "upgrade: %w", err)
	}
	defer deadline(r.Context(), conn, UpgradeTimeout)()
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", Token)
	if err != nil {
		_ = conn.Close()
		return nil, errorf(ClassUnreachable, "upgrade: %w", err)
	}
	s, err := yamux.Server(rest(conn, rw.Reader), muxConfig())
	if err != nil {
		_ = conn.Close()
		return nil, errorf(ClassUnexpected, "upgrade: %w", err)
	}
	return yamuxSession{s}, nil
}

// deadline bounds what happens on c until the returned function is called, by
// limit and by ctx.
func deadline(ctx context.Context, c net.Conn, limit time.Duration) func() { //nolint:unparam // two limits that happen to be equal
	at := time.Now().Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(at) {
		at = d
	}
	_ = c.SetDeadline(at)
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			_ = c.SetDeadline(time.Time{})
		}
	}
}

// Splice copies bytes both ways until both directions have ended or one failed,
// then closes both ends. Where an end can close one direction (TLS, TCP), the
// end of the other's data is passed on as that.
func Splice(a, b io.ReadWriteCloser) {
	done := make(chan struct{}, 2)
	one := func(dst, src io.ReadWriteCloser) {
		_, err := io.Copy(dst, src)
		half, ok := dst.(interface{ CloseWrite() error })
		if err != nil || !ok || half.CloseWrite() != nil {
			_, _ = a.Close(), b.Close()
		}
		done <- struct{}{}
	}
	go one(a, b)
	one(b, a)
	<-done
	<-done
	_, _ = a.Close(), b.Close()
}
