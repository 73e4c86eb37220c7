package vpn

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/relay/firewall"
	"keyrite/wire/tunnel"
)

// flow is one stream of a user's session and, once the gateway has one, its
// counterpart.
type flow struct {
	user net.Conn
	open *tunnel.Open

	mu       sync.Mutex // guards the fields below
	gateway  net.Conn
	cut      bool
	accepted bool // the user was, or is being, told that it is open
}

// join adds the gateway's stream, unless the flow was cut meanwhile.
func (f *flow) join(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gateway = c
	return !f.cut
}

// cutNow marks a flow as cut and says whether it was not yet.
func (f *flow) cutNow() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.cut
	f.cut = true
	return !was
}

// accept says that the user is told now that the flow is open, unless it was cut.
func (f *flow) accept() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut {
		return errCut
	}
	f.accepted = true
	return nil
}

// drop ends a flow that was cut. One that still waits for its answer carries nothing
// yet: it gets the answer first, from whoever serves it.
func (f *flow) drop() {
	f.mu.Lock()
	accepted, g := f.accepted, f.gateway
	f.mu.Unlock()
	if accepted {
		f.end()
	} else if g != nil {
		_ = g.Close() // whose answer it waits for
	}
}

// wasCut is errCut for a flow that was cut, and why otherwise.
func (f *flow) wasCut(why error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut {
		return errCut
	}
	return why
}

// end closes both streams.
func (f *flow) end() {
	f.mu.Lock()
	f.cut = true
	g := f.gateway
	f.mu.Unlock()
	_ = f.user.Close()
	if g != nil {
		_ = g.Close()
	}
}

var (
	errOffline = fault.New(fault.Unreachable, "the gateway is not connected")
	errFlows   = fault.New(fault.Quota, "too many open flows")
)

// add lists a flow within the limit of its session.
func (s *session) add(f *flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.flows) >= tunnel.MaxFlows {
		return false
	}
	s.flows[f] = struct{}{}
	return true
}

func (s *session) remove(f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flows, f)
}

func (s *session) list() []*flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*flow, 0, len(s.flows))
	for f := range s.flows {
		out = append(out, f)
	}
	return out
}

// flow serves one stream of a user.
func (v *Server) flow(ctx context.Context, s *session, st net.Conn) {
	f := &flow{user: st}
	defer f.end()
	_ = st.SetDeadline(time.Now().Add(tunnel.AnswerTimeout))
	raw, err := tunnel.ReadMessage(st)
	if err != nil {
		return
	}
	if f.open, err = tunnel.ParseOpen(raw); err != nil {
		v.refuse(ctx, s, f, err)
		return
	}
	// Listed before it is judged: a policy that changes from here on finds it.
	if !s.add(f) {
		v.refuse(ctx, s, f, errFlows)
		return
	}
	defer s.remove(f)
	g, err := v.judge(ctx, s, f)
	if err != nil {
		v.refuse(ctx, s, f, err)
		return
	}
	gs, err := v.joinGateway(ctx, g, f, raw)
	if err != nil {
		v.refuse(ctx, s, f, f.wasCut(err))
		return
	}
	defer g.remove(f)
	if err := v.conf.Note(ctx, s.event("open-flow", object(f))); err != nil {
		v.refuse(ctx, s, f, fault.Errorf(fault.Storage, "%w", err))
		return
	}
	if err := f.accept(); err != nil {
		v.answer(f, err) // that it was cut is written down
		return
	}
	if tunnel.WriteAnswer(st, tunnel.Accepted()) != nil {
		return
	}
	_ = st.SetDeadline(time.Time{})
	_ = gs.SetDeadline(time.Time{})
	tunnel.Splice(st, gs)
	if err := v.conf.Note(ctx, s.event("close-flow", object(f))); err != nil {
		v.conf.Log.ErrorContext(ctx, "audit entry lost", slog.Any("error", err))
	}
}

// judge asks the firewall and looks the gateway up in the session's account.
func (v *Server) judge(ctx context.Context, s *session, f *flow) (*session, error) {
	p, err := v.conf.Policy(ctx, s.ticket.Account)
	if err != nil {
		return nil, err
	}
	if err := firewall.Decide(s.ticket, f.open, p, v.conf.Now()); err != nil {
		return nil, err
	}
	g := v.route(s.ticket.Account, f.open.Gateway)
	if g == nil {
		return nil, errOffline
	}
	return g, nil
}

// joinGateway opens the flow's stream on the gateway's session, sends the open
// message as it came, and waits for the answer.
func (v *Server) joinGateway(ctx context.Context, g *session, f *flow, raw []byte) (net.Conn, error) {
	if !g.add(f) {
		return nil, errFlows
	}
	c, err := g.mux.Open(ctx)
	if err != nil {
		g.remove(f)
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(tunnel.AnswerTimeout))
	err = errCut
	if f.join(c) {
		err = ask(c, raw)
	}
	if err != nil {
		_ = c.Close()
		g.remove(f)
		return nil, err
	}
	return c, nil
}

var errCut = fault.New(fault.Policy, "the flow was cut")

func ask(c net.Conn, raw []byte) error {
	if err := tunnel.WriteMessage(c, raw); err != nil {
		return err
	}
	a, err := tunnel.ReadAnswer(c)
	if err != nil {
		return err
	}
	return a.Err()
}

func object(f *flow) string {
	if f.open == nil {
		return "malformed open message"
	}
	return fmt.Sprintf("flow %s to %s behind gateway %s", f.open.Flow, f.open.AddrPort(), f.open.Gateway)
}

// refuse writes down that a flow is refused, and answers.
func (v *Server) refuse(ctx context.Context, s *session, f *flow, why error) {
	e := s.event("open-flow", object(f))
	e.Class = string(fault.ClassOf(why))
	if err := v.conf.Note(ctx, e); err != nil {
		v.conf.Log.ErrorContext(ctx, "audit entry lost", slog.Any("error", err))
	}
	v.answer(f, why)
}

// answer tells the user why there is no flow, in a sentence that is ours or the
// gateway's fixed one.
func (v *Server) answer(f *flow, why error) {
	class, text := string(fault.ClassOf(why)), why.Error()
	if class == tunnel.ClassUnexpected || class == string(fault.Storage) {
		text = "the relay cannot serve this now"
	}
	_ = f.user.SetDeadline(time.Now().Add(tunnel.AnswerTimeout))
	_ = tunnel.WriteAnswer(f.user, tunnel.Refuse(class, text))
}

// Rejudge asks again, for every session whether it is in force and for every
// open flow whether the policy of now permits it, and cuts what is not. Call it
// whenever accounts or policies changed, and now and then because time passes.
func (v *Server) Rejudge(ctx context.Context) {
	policies := map[string]*policy.Policy{}
	for _, s := range v.all() {
		if err := v.conf.Live(ctx, s.ticket); err != nil {
			// In a goroutine, as below: ending waits for a peer that may not read,
			// and must not delay what others have lost.
			if !s.cutNow() {
				continue
			}
			go func() { _ = s.mux.Close() }()
			v.cut(ctx, s.event("cut-session", "gateway "+s.ticket.Gateway), err)
			continue
		}
		v.rejudgeFlows(ctx, s, policies)
	}
}

func (v *Server) rejudgeFlows(ctx context.Context, s *session, policies map[string]*policy.Policy) {
	for _, f := range s.list() {
		if s.ticket.User == "" || f.open == nil {
			continue // a gateway's list holds flows that are judged at their user
		}
		p, ok := policies[s.ticket.Account]
		if !ok {
			var err error
			if p, err = v.conf.Policy(ctx, s.ticket.Account); err != nil {
				v.conf.Log.ErrorContext(ctx, "policy cannot be read; its flows are cut", slog.Any("error", err))
				p = nil
			}
			policies[s.ticket.Account] = p
		}
		if err := firewall.Still(s.ticket, f.open, p, v.conf.Now()); err != nil && f.cutNow() {
			go f.drop()
			v.cut(ctx, s.event("cut-flow", object(f)), err)
		}
	}
}

func (v *Server) cut(ctx context.Context, e Event, why error) {
	e.Class = string(fault.ClassOf(why))
	if err := v.conf.Note(ctx, e); err != nil {
		v.conf.Log.ErrorContext(ctx, "audit entry lost", slog.Any("error", err))
	}
}
