// Package vpn is the VPN role: it joins a user's session with the session of
// one gateway of the same account and copies what it cannot read.
//
// cmd/keyrite-relay gives it a ticket checker and three questions to ask (which
// policy, is this session still in force, write this down); it imports neither
// account nor store, so that it can run on a machine that has no database. It
// must never route across accounts: the route table is looked up by the account
// of the ticket first.
//
// Presence lives here, in memory, and nowhere else. No lock of it is
// ever held together with another.
package vpn

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/relay/ticket"
	"keyrite/wire/problem"
	"keyrite/wire/tunnel"
)

// MaxSessions of one server. An idle one costs some 60 KiB.
const MaxSessions = 20_000

// MaxUserSessions of one user, who has one for each gateway that he works on.
const MaxUserSessions = 16

// OpenSession is the action of a request for a session, refused ones included.
const OpenSession = "open-session"

// Event is something to be written down.
type Event struct {
	Account, Actor, Action, Object, Class, Source string
}

// Config is what a VPN server needs to know.
type Config struct {
	Tickets *ticket.Checker
	// Policy returns the account's policy in force, or nil if it has none.
	Policy func(ctx context.Context, account string) (*policy.Policy, error)
	// Live returns nil while the login or gateway entry of a ticket is in force.
	Live func(ctx context.Context, t *ticket.Ticket) error
	// Note writes an event down. A flow or session whose beginning cannot be
	// written down does not begin.
	Note func(ctx context.Context, e Event) error
	// Key returns the thumbprint of the key behind a leg's certificate.
	Key func(r *http.Request) (string, error)
	Now func() time.Time
	Log *slog.Logger
}

// Server is a VPN server. Make it with New.
type Server struct {
	conf Config

	mu       sync.Mutex                     // guards the fields below
	routes   map[string]map[string]*session // account, gateway
	sessions map[*session]struct{}
	closing  bool

	// Added to under mu and only while not closing.
	flows, running sync.WaitGroup
}

// New returns a server with nobody on it.
func New(c Config) *Server {
	return &Server{conf: c, routes: map[string]map[string]*session{}, sessions: map[*session]struct{}{}}
}

// session is a leg after its upgrade.
type session struct {
	ticket *ticket.Ticket
	mux    tunnel.Mux
	source string

	mu    sync.Mutex // guards the fields below
	flows map[*flow]struct{}
	cut   bool
}

// cutNow marks a session as cut and says whether it was not yet.
func (s *session) cutNow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.cut
	s.cut = true
	return !was
}

func (s *session) actor() string {
	if s.ticket.Kind == ticket.KindGateway {
		return "gateway " + s.ticket.Gateway
	}
	return "user " + s.ticket.User
}

func (s *session) event(action, object string) Event {
	return Event{Account: s.ticket.Account, Actor: s.actor(), Action: action, Object: object, Source: s.source}
}

// ServeHTTP takes upgrades and refuses everything else.
func (v *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != tunnel.Path || !tunnel.IsUpgrade(r) {
		problem.Write(w, "usage", "this server takes upgrades to flow mode only")
		return
	}
	t, err := v.admit(r)
	if err != nil {
		problem.Write(w, string(fault.ClassOf(err)), "the session is refused")
		return
	}
	mux, err := tunnel.Accept(w, r)
	if err != nil {
		v.conf.Log.InfoContext(r.Context(), "upgrade failed", slog.Any("error", err))
		return
	}
	v.run(context.WithoutCancel(r.Context()), &session{ticket: t, mux: mux, source: r.RemoteAddr, flows: map[*flow]struct{}{}})
}

// admit uses up the ticket of a request and writes down what came of it.
func (v *Server) admit(r *http.Request) (*ticket.Ticket, error) {
	ctx := r.Context()
	e := Event{Action: OpenSession, Source: r.RemoteAddr}
	key, err := v.conf.Key(r)
	if err == nil {
		e.Actor = "key " + key
		var data []byte
		if data, err = tunnel.Ticket(r); err == nil {
			var t *ticket.Ticket
			if t, err = v.conf.Tickets.Use(data, key); err == nil {
				s := &session{ticket: t}
				e.Account, e.Actor, e.Object = t.Account, s.actor(), "gateway "+t.Gateway
				if err = v.conf.Live(ctx, t); err == nil {
					return t, v.conf.Note(ctx, e)
				}
			}
		}
	}
	e.Class = string(fault.ClassOf(err))
	if nerr := v.conf.Note(ctx, e); nerr != nil {
		v.conf.Log.ErrorContext(ctx, "audit entry lost", slog.Any("error", nerr))
	}
	v.conf.Log.InfoContext(ctx, "session refused", slog.Any("error", err))
	return nil, err
}

// enter lists a session; a gateway's new one takes the place of its old one.
func (v *Server) enter(s *session) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closing || len(v.sessions) >= MaxSessions {
		return false
	}
	if s.ticket.Kind == ticket.KindUser && v.sessionsOf(s.ticket) >= MaxUserSessions {
		return false
	}
	v.sessions[s] = struct{}{}
	v.running.Add(1)
	if s.ticket.Kind == ticket.KindGateway {
		of := v.routes[s.ticket.Account]
		if of == nil {
			of = map[string]*session{}
			v.routes[s.ticket.Account] = of
		}
		if old := of[s.ticket.Gateway]; old != nil {
			// In a goroutine: closing waits for the peer, and we hold the lock.
			go func() { _ = old.mux.Close() }()
		}
		of[s.ticket.Gateway] = s
	}
	return true
}

// sessionsOf counts the sessions of a ticket's user. The caller holds v.mu.
func (v *Server) sessionsOf(t *ticket.Ticket) int {
	n := 0
	for s := range v.sessions {
		if s.ticket.Kind == ticket.KindUser && s.ticket.Account == t.Account && s.ticket.User == t.User {
			n++
		}
	}
	return n
}

func (v *Server) leave(s *session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.sessions, s)
	of := v.routes[s.ticket.Account]
	if s.ticket.Kind == ticket.KindGateway && of[s.ticket.Gateway] == s {
		delete(of, s.ticket.Gateway)
		if len(of) == 0 {
			delete(v.routes, s.ticket.Account)
		}
	}
}

// route returns the gateway's session, looked up within the account only.
func (v *Server) route(account, gateway string) *session {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.routes[account][gateway]
}

// Route returns the session of a gateway of the account, or nil.
func (v *Server) Route(account, gateway string) tunnel.Mux {
	if s := v.route(account, gateway); s != nil {
		return s.mux
	}
	return nil
}

// Online says whether a gateway of the account is connected here.
func (v *Server) Online(account, gateway string) bool { return v.route(account, gateway) != nil }

// run serves a session until it ends.
func (v *Server) run(ctx context.Context, s *session) {
	defer s.mux.Close()
	if !v.enter(s) {
		return
	}
	defer v.running.Done()
	defer v.leave(s)
	// What was revoked between the check of the ticket and now is seen here;
	// what is revoked later, by Rejudge.
	if v.conf.Live(ctx, s.ticket) != nil {
		return
	}
	for {
		st, err := s.mux.Accept()
		if err != nil {
			break
		}
		if s.ticket.Kind != ticket.KindUser {
			_ = st.Close()
			break // gateways open no streams; one that does has lost its session
		}
		if !v.begin() {
			_ = st.Close()
			continue
		}
		go func() {
			defer v.flows.Done()
			v.flow(ctx, s, st)
		}()
	}
	if err := v.conf.Note(ctx, s.event("close-session", "gateway "+s.ticket.Gateway)); err != nil {
		v.conf.Log.ErrorContext(ctx, "audit entry lost", slog.Any("error", err))
	}
}

// begin counts a flow, unless the server is closing.
func (v *Server) begin() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closing {
		return false
	}
	v.flows.Add(1)
	return true
}

// Close takes no new sessions, waits for open flows until ctx ends, and closes
// what is left. Nothing of it runs when it returns.
func (v *Server) Close(ctx context.Context) {
	v.mu.Lock()
	v.closing = true
	v.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		v.flows.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	for _, s := range v.all() {
		_ = s.mux.Close()
	}
	<-idle
	v.running.Wait()
}

func (v *Server) all() []*session {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]*session, 0, len(v.sessions))
	for s := range v.sessions {
		out = append(out, s)
	}
	return out
}
