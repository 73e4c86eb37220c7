package api

import (
	"context"
	"log"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type slogErrors = log.Logger

// Limits bounds what clients may take. Zero values stand for the defaults.
type Limits struct {
	Header time.Duration // until a request's header is there, with the handshake. Default 5 s
	Read   time.Duration // until the whole request is there. Default 20 s
	Write  time.Duration // until the answer is taken, from the end of the header. Default 60 s
	Idle   time.Duration // between two requests. Default 90 s

	HeaderBytes int   // Default 16 KiB
	Bodies      int64 // bytes of all bodies that are held at a time, beyond the first 16 KiB of each. Default 16 MiB
	Connections int   // at a time. Default 1,024
	PerAddress  int   // of them from one address. Default 512
}

func (l Limits) withDefaults() Limits {
	def := func(at *time.Duration, d time.Duration) {
		if *at <= 0 {
			*at = d
		}
	}
	def(&l.Header, 5*time.Second)
	def(&l.Read, 20*time.Second)
	def(&l.Write, time.Minute)
	def(&l.Idle, 90*time.Second)
	if l.HeaderBytes <= 0 {
		l.HeaderBytes = 16 << 10
	}
	if l.Bodies <= 0 {
		l.Bodies = 16 << 20
	}
	if l.Connections <= 0 {
		l.Connections = 1024
	}
	if l.PerAddress <= 0 {
		l.PerAddress = 512
	}
	return l
}

// collectAt is how much garbage there may be for each byte in use, in percent, before it
// is collected. A vault uses about 10 MiB, so Go's own 100 collects all the time for
// little: with 300 a signature costs 7 percent less CPU.
const collectAt = 300

// TuneCollector sets for a process that serves a vault how often it collects garbage,
// unless GOGC in its environment says something else.
func TuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
}

// Bounds of one body, in bytes.
const (
	maxBody      = 1 << 20
	maxBatchBody = 2 << 20  // of the operations of transit that take a batch
	maxBlindBody = 64 << 10 // of a request that shows nothing of who asks: a login
	freeBody     = 16 << 10 // of every request, whatever the others take
)

// budget bounds the bytes of bodies that are in memory together: many clients that each
// send nearly all of a large body must not add up.
type budget struct {
	room atomic.Int64
}

func newBudget(n int64) *budget {
	b := &budget{}
	b.room.Store(n)
	return b
}

// take says whether there is room for n more bytes, and takes it.
func (b *budget) take(n int64) bool {
	if b.room.Add(-n) < 0 {
		b.room.Add(n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.room.Add(n) }

// limitedListener closes connections beyond the limits at once, so that those who are
// there are served.
type limitedListener struct {
	net.Listener
	limits Limits

	mu    sync.Mutex // guards the rest
	all   int
	peers map[netip.Addr]int
}

func limited(l net.Listener, limits Limits) *limitedListener {
	return &limitedListener{Listener: l, limits: limits, peers: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := remote(c.RemoteAddr())
		if !l.enter(from) {
			_ = c.Close()
			continue
		}
		counted := &countedConn{Conn: c}
		counted.leave = sync.OnceFunc(func() { l.leave(from) })
		return counted, nil
	}
}

func (l *limitedListener) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.limits.Connections || from.IsValid() && l.peers[from] >= l.limits.PerAddress {
		return false
	}
	l.all++
	l.peers[from]++
	return true
}

func (l *limitedListener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.peers[from]--; l.peers[from] == 0 {
		delete(l.peers, from)
	}
}

// countedConn is a connection that counts until it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// NetConn is the connection below.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// remote is the address of a peer, the zero value for a Unix socket.
func remote(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap().WithZone("")
}

// uidKey is where the context of a connection has the user at its other end.
type uidKey struct{}

// noUID is the user of a connection that is no Unix socket.
const noUID = -1

// connContext notes who is at the other end of a Unix socket, by the kernel's word from
// when it connected.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if n, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = n.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid := 0 // nobody, as vault/identity has it, if the kernel does not say
	if raw, err := u.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
				uid = int(cred.Uid)
			}
		})
	}
	return context.WithValue(ctx, uidKey{}, uid)
}
