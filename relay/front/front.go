// Package front is the one way in which a relay role listens: TLS 1.3 with
// mutual authentication, HTTP/1.1, and limits against peers that are slow, many
// or large.
//
// cmd/keyrite-relay makes one Server for each role. It knows who may shake
// hands through the check it is given, and nothing of what is served.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"keyrite/artifact/fault"
)

// Limits.
const (
	HeaderTimeout  = 10 * time.Second // TLS handshake and request head
	ReadTimeout    = 20 * time.Second // whole request
	IdleTimeout    = 60 * time.Second
	MaxHeaderBytes = 16 << 10
	MaxConns       = 50_000 // of one listener
	MaxPerSource   = 1_000  // many gateways may stand behind one address
)

// Options of a server.
type Options struct {
	Certificate tls.Certificate
	Check       func(tls.ConnectionState) error // who may shake hands; runs on resumed sessions too
	Handler     http.Handler
	Log         *slog.Logger
}

// Server is a listening role.
type Server struct {
	http *http.Server
	ln   net.Listener
}

// Listen opens addr for a role.
func Listen(ctx context.Context, addr string, o Options) (*Server, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "listen on %q: %w", addr, err)
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{o.Certificate},
		ClientAuth: tls.RequireAnyClientCert, VerifyConnection: o.Check,
	}
	srv := &http.Server{
		Handler: headers(o.Handler), ReadHeaderTimeout: HeaderTimeout, ReadTimeout: ReadTimeout, IdleTimeout: IdleTimeout, WriteTimeout: 0,
		MaxHeaderBytes: MaxHeaderBytes, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		// net/http logs each failed handshake, as many as anybody likes to make.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return &Server{http: srv, ln: tls.NewListener(newCapped(ln), conf)}, nil
}

// Addr is where it listens.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Serve serves until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fault.Errorf(fault.Unexpected, "serve: %w", err)
	}
	return nil
}

// Close stops listening and waits for requests under way until ctx ends.
// Connections that a role took over are the role's own.
func (s *Server) Close(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

// headers puts the same security headers on every answer.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// capped is a listener that closes at once what is above its limits.
type capped struct {
	net.Listener

	mu      sync.Mutex // guards total and sources
	total   int
	sources map[string]int
}

func newCapped(ln net.Listener) *capped { return &capped{Listener: ln, sources: map[string]int{}} }

// Accept waits for the next connection within the limits.
func (c *capped) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		src := source(conn.RemoteAddr())
		if c.enter(src) {
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { c.exit(src) })}, nil
		}
		_ = conn.Close()
	}
}

func (c *capped) enter(src string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= MaxConns || c.sources[src] >= MaxPerSource {
		return false
	}
	c.total++
	c.sources[src]++
	return true
}

func (c *capped) exit(src string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.sources[src]--; c.sources[src] <= 0 {
		delete(c.sources, src)
	}
}

// source is the address that is counted: a host, or an IPv6 network of one.
func source(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := ap.Addr().Unmap()
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
