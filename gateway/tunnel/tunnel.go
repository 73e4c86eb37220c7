// Package tunnel is the gateway's end of flows: it judges each by the account's
// signed policy, shakes hands with the user's own key end to end, and connects
// to the equipment.
//
// gateway/uplink gives it the session with the VPN server. The relay is not
// trusted with anything: what may be reached, by whose key, stands in the policy
// that the account signed; whatever the relay changes or crosses ends in the
// inner handshake. It must never connect anywhere before policy, key and binding
// have been checked, nor to an address outside the LAN side, nor to itself.
package tunnel

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
	wire "keyrite/wire/tunnel"
)

// rejudgeEvery is how often open flows are judged again by the clock; a new
// policy does so at once.
const rejudgeEvery = 5 * time.Second

var (
	errOther   = fault.New(fault.Policy, "the flow is not for this gateway")
	errVersion = fault.New(fault.Policy, "the flow was opened under another version of the account policy")
	errLAN     = fault.New(fault.Policy, "the address is not on the LAN side")
	errFlows   = fault.New(fault.Quota, "too many open flows")
	errDial    = fault.New(fault.Unreachable, "the equipment does not answer")
)

// Config is what the end of flows needs.
type Config struct {
	Keeper   *Keeper
	Identity tls.Certificate // birth certificate and key
	World    world.World
	Gateway  string         // id within the account
	LAN      []netip.Prefix // nothing else is ever connected to
	Now      func() time.Time
	Log      *slog.Logger
	// Refresh asks the relay for a newer policy; it may do nothing.
	Refresh func(context.Context)
	// Dial connects to equipment; nil means the network.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// End serves flows. Make it with New.
type End struct {
	conf Config

	mu    sync.Mutex // guards flows
	flows map[*flow]struct{}
}

// flow is one judged and open flow.
type flow struct {
	ask  policy.Flow
	conn net.Conn

	mu        sync.Mutex // guards the fields below
	equipment net.Conn
	ended     bool
}

// join adds the connection to the equipment, unless the flow was cut meanwhile.
func (f *flow) join(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.equipment = c
	return !f.ended
}

// cut ends a flow. The equipment comes first: closing our end of a stream does
// not stop what the relay still delivers on it, and the relay is not trusted to
// pass the end on.
func (f *flow) cut() {
	f.mu.Lock()
	f.ended = true
	c := f.equipment
	f.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
	_ = f.conn.SetReadDeadline(time.Unix(1, 0))
	// In a goroutine: it writes to a relay that may not read.
	go func() { _ = f.conn.Close() }()
}

// New returns an end without flows.
func New(c Config) *End {
	e := &End{conf: c, flows: map[*flow]struct{}{}}
	if e.conf.Dial == nil {
		e.conf.Dial = dialLAN
	}
	return e
}

// Serve takes flows from a session until it ends, and closes it.
func (e *End) Serve(ctx context.Context, m wire.Mux) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = m.Close() })
	defer stop()
	go e.watch(ctx)
	var wg sync.WaitGroup
	slots := make(chan struct{}, wire.MaxFlows)
	for {
		st, err := m.Accept()
		if err != nil {
			break
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				e.serve(ctx, st)
			})
		default:
			wg.Go(func() { e.refuse(ctx, st, nil, errFlows) })
		}
	}
	_ = m.Close()
	cancel()
	wg.Wait()
}

// serve is the life of one flow (docs/formats/tunnel.md, 3).
func (e *End) serve(ctx context.Context, st net.Conn) {
	defer func() { _ = st.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer stop()
	_ = st.SetDeadline(time.Now().Add(wire.AnswerTimeout))
	raw, err := wire.ReadMessage(st)
	if err != nil {
		return
	}
	o, err := wire.ParseOpen(raw)
	if err == nil {
		err = e.judgeOpen(ctx, o)
	}
	if err != nil {
		e.refuse(ctx, st, o, err)
		return
	}
	if wire.WriteAnswer(st, wire.Accepted()) != nil {
		return
	}
	f := &flow{ask: policy.Flow{User: o.User, Gateway: e.conf.Gateway, Addr: o.AddrPort().Addr(), Port: o.Port}, conn: st}
	inner, err := wire.GatewayEnd(ctx, st, raw, e.conf.Identity, func(thumb string) error {
		f.ask.Key = thumb
		return e.judge(f.ask)
	})
	if err != nil {
		e.note(ctx, o, "flow refused", err)
		return
	}
	e.connect(ctx, o, f, inner)
}

// connect judges once more, now listed so that a policy that changes from here
// on finds the flow, connects and copies.
func (e *End) connect(ctx context.Context, o *wire.Open, f *flow, inner *tls.Conn) {
	defer func() { _ = inner.Close() }()
	e.add(f)
	defer e.remove(f)
	_ = f.conn.SetDeadline(time.Now().Add(wire.AnswerTimeout))
	equipment, err := e.dial(ctx, f.ask)
	if err != nil {
		e.note(ctx, o, "flow refused", err)
		_ = wire.WriteAnswer(inner, wire.Refuse(string(fault.ClassOf(err)), sentence(err)))
		return
	}
	_ = f.conn.SetReadDeadline(time.Time{}) // before the flow can be cut, which sets one
	if !f.join(equipment) || wire.WriteAnswer(inner, wire.Accepted()) != nil {
		_ = equipment.Close()
		return
	}
	_ = f.conn.SetWriteDeadline(time.Time{})
	e.note(ctx, o, "flow opened", nil)
	wire.Splice(inner, equipment)
	e.note(ctx, o, "flow closed", nil)
}

func (e *End) dial(ctx context.Context, f policy.Flow) (net.Conn, error) {
	if err := e.judge(f); err != nil {
		return nil, err
	}
	to := netip.AddrPortFrom(f.Addr, uint16(f.Port)) // the policy's ports are at most 65535
	ctx, cancel := context.WithTimeout(ctx, wire.DialTimeout)
	defer cancel()
	c, err := e.conf.Dial(ctx, to)
	if err != nil && fault.ClassOf(err) == fault.Unexpected {
		err = fault.Errorf(fault.Unreachable, "%w: %w", errDial, err)
	}
	return c, err
}

// judgeOpen judges what the open message says, before any key is known: some
// key of the user must be permitted.
func (e *End) judgeOpen(ctx context.Context, o *wire.Open) error {
	if err := world.Match(e.conf.World, world.World(o.World)); err != nil {
		return err
	}
	if o.Gateway != e.conf.Gateway {
		return errOther
	}
	if o.PolicyVersion > e.conf.Keeper.Version() {
		e.conf.Refresh(ctx)
	}
	p := e.conf.Keeper.Current()
	if p == nil || p.Version != o.PolicyVersion {
		return errVersion
	}
	u, ok := p.User(o.User)
	if !ok || len(u.Keys) == 0 {
		return policy.ErrDenied
	}
	return e.judge(policy.Flow{User: o.User, Key: u.Keys[0], Gateway: o.Gateway, Addr: o.AddrPort().Addr(), Port: o.Port})
}

// judge is the one decision: policy, then LAN side.
func (e *End) judge(f policy.Flow) error {
	if err := policy.Decide(e.conf.Keeper.Current(), f, e.conf.Now()); err != nil {
		return err
	}
	if !slices.ContainsFunc(e.conf.LAN, func(p netip.Prefix) bool { return p.Contains(f.Addr) }) {
		return errLAN
	}
	return nil
}

// dialLAN connects to equipment, and never to an address of the gateway itself:
// what listens there is for its owner, not for whom a policy lets to the LAN.
func dialLAN(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "list own addresses: %w", err)
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err != nil || p.Addr() == to.Addr() {
			return nil, errLAN
		}
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, fault.Errorf(fault.Unreachable, "%w: %w", errDial, err)
	}
	return c, nil
}

func (e *End) add(f *flow) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flows[f] = struct{}{}
}

func (e *End) remove(f *flow) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.flows, f)
}

// Rejudge asks again for every open flow and cuts what is no longer permitted.
func (e *End) Rejudge(ctx context.Context) {
	for _, f := range e.list() {
		if err := e.judge(f.ask); err != nil {
			e.conf.Log.InfoContext(ctx, "flow cut", slog.String("user", f.ask.User), slog.String("addr", f.ask.Addr.String()), slog.Any("error", err))
			f.cut()
		}
	}
}

func (e *End) list() []*flow {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*flow, 0, len(e.flows))
	for f := range e.flows {
		out = append(out, f)
	}
	return out
}

func (e *End) watch(ctx context.Context) {
	t := time.NewTicker(rejudgeEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			e.Rejudge(ctx)
		}
	}
}

// Open is how many flows are open.
func (e *End) Open() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.flows)
}

func (e *End) refuse(ctx context.Context, st net.Conn, o *wire.Open, why error) {
	e.note(ctx, o, "flow refused", why)
	_ = st.SetDeadline(time.Now().Add(wire.AnswerTimeout))
	_ = wire.WriteAnswer(st, wire.Refuse(string(fault.ClassOf(why)), sentence(why)))
	_ = st.Close()
}

// sentence is what the other side may read: the fixed text of a refusal of
// policy, and for the rest no more than the class says.
func sentence(err error) string {
	switch fault.ClassOf(err) {
	case fault.Policy, fault.Quota:
		return err.Error()
	case fault.Unreachable:
		return errDial.Error()
	case fault.Verify:
		return "the message is not valid"
	}
	return "the gateway cannot serve this now"
}

// note writes a flow down for the gateway's owner. What came from outside was
// checked for form by then, or is not shown.
func (e *End) note(ctx context.Context, o *wire.Open, what string, err error) {
	attrs := []slog.Attr{slog.String("event", what)}
	if o != nil && o.Check() == nil {
		attrs = append(attrs, slog.String("flow", o.Flow), slog.String("user", o.User), slog.String("to", o.AddrPort().String()), slog.Int64("policy_version", o.PolicyVersion))
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	e.conf.Log.LogAttrs(ctx, slog.LevelInfo, "flow", attrs...)
}
