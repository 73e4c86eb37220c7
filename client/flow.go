package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/netip"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/wire/tunnel"
)

// ErrDevice says that the policy has no such device behind the gateway.
var ErrDevice = fault.New(fault.Policy, "the account policy has no such device behind this gateway")

// Link is a connection to one gateway through the relay. It opens a session
// when it needs one, and another when that was lost. It is safe for several
// goroutines.
type Link struct {
	s       *Session
	gateway string

	mu     sync.Mutex // guards the fields below; held while a session is opened
	mux    tunnel.Mux
	policy *policy.Policy
}

// Link prepares a connection to a gateway and opens the first session, so that
// whatever stands against it is said before anybody waits for it.
func (s *Session) Link(ctx context.Context, gateway string) (*Link, error) {
	p, err := s.Policy(ctx)
	if err != nil {
		return nil, err
	}
	l := &Link{s: s, gateway: gateway, policy: p}
	_, _, err = l.session(ctx)
	return l, err
}

// Device returns where the policy says that a device of this gateway is, with
// its first port, or with port if that is not 0.
func (l *Link) Device(name string, port int) (netip.AddrPort, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.policy.Device(name)
	if !ok || d.Gateway != l.gateway {
		return netip.AddrPort{}, fault.Errorf(fault.Policy, "%w: %.64q", ErrDevice, name)
	}
	a, err := policy.CheckAddr(d.Addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if port == 0 {
		port = d.Ports[0].First
	}
	if port < 1 || port > 65535 {
		return netip.AddrPort{}, fault.Errorf(fault.Usage, "%d is not a port", port)
	}
	return netip.AddrPortFrom(a, uint16(port)), nil
}

// session returns the open session with the policy it belongs to.
func (l *Link) session(ctx context.Context) (tunnel.Mux, *policy.Policy, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mux != nil {
		select {
		case <-l.mux.Done():
			l.mux = nil
		default:
			return l.mux, l.policy, nil
		}
	}
	in, err := l.s.control.Connect(ctx, l.gateway)
	if err != nil {
		return nil, nil, err
	}
	if in.PolicyVersion != l.policy.Version {
		if l.policy, err = l.s.Policy(ctx); err != nil {
			return nil, nil, err
		}
	}
	conf, err := l.s.tls("vpn", in.Server.Addr)
	if err != nil {
		return nil, nil, fault.Errorf(fault.Verify, "the access server names no usable VPN server: %w", err)
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: tunnel.UpgradeTimeout}, Config: conf}
	c, err := d.DialContext(ctx, "tcp", in.Server.Addr)
	if err != nil {
		return nil, nil, fault.Errorf(dialClass(err), "connect to VPN server %s: %w", in.Server.Addr, err)
	}
	l.mux, err = tunnel.Dial(ctx, c, in.Server.Addr, in.Ticket)
	return l.mux, l.policy, err
}

func dialClass(err error) fault.Class {
	if c := fault.ClassOf(err); c != fault.Unexpected {
		return c
	}
	return fault.Unreachable
}

// Open opens one flow to an address behind the gateway. The relay and the
// gateway both decide; a refusal has the class of the one who refused. If the
// policy changed meanwhile, it is fetched and the flow tried once more.
func (l *Link) Open(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	m, p, err := l.session(ctx)
	if err != nil {
		return nil, err
	}
	c, err := l.open(ctx, m, p, to)
	if fault.ClassOf(err) != fault.Policy {
		return c, err
	}
	newer, perr := l.s.Policy(ctx)
	if perr != nil || newer.Version == p.Version {
		return c, err
	}
	l.mu.Lock()
	l.policy = newer
	l.mu.Unlock()
	return l.open(ctx, m, newer, to)
}

func (l *Link) open(ctx context.Context, m tunnel.Mux, p *policy.Policy, to netip.AddrPort) (net.Conn, error) {
	var id [16]byte
	rand.Read(id[:])
	o := tunnel.Open{
		Addr: to.Addr().String(), Flow: hex.EncodeToString(id[:]), Format: tunnel.FormatOpen, Gateway: l.gateway, PolicyVersion: p.Version,
		Port: int(to.Port()), Proto: "tcp", User: l.s.login.User, World: string(l.s.anchors.World),
	}
	raw, err := o.Marshal()
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%w", err)
	}
	want, err := p.GatewayKey(l.gateway)
	if err != nil {
		return nil, err
	}
	st, err := m.Open(ctx)
	if err != nil {
		return nil, err
	}
	if err := begin(st, raw); err != nil {
		_ = st.Close()
		return nil, err
	}
	return tunnel.UserEnd(ctx, st, raw, l.s.home.cert, want)
}

// begin sends the open message and waits for the relay's answer, which may
// itself wait for the gateway's.
func begin(st net.Conn, raw []byte) error {
	_ = st.SetDeadline(time.Now().Add(2 * tunnel.AnswerTimeout))
	if err := tunnel.WriteMessage(st, raw); err != nil {
		return err
	}
	a, err := tunnel.ReadAnswer(st)
	if err != nil {
		return err
	}
	_ = st.SetDeadline(time.Time{})
	return a.Err()
}

// Close ends the session and its flows.
func (l *Link) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mux != nil {
		_ = l.mux.Close()
	}
}
