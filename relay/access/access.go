// Package access is the access role: it authenticates devices and users,
// decides who may ask for what, and places sessions on VPN servers
// (docs/formats/control.md).
//
// Every call is one row of Routes, with who may call it; a path without a row
// is refused. What a user may reach is the account policy's word, which this
// role can offer and narrow, never widen.
package access

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/relay/account"
	"keyrite/relay/audit"
	"keyrite/relay/auth"
	"keyrite/relay/store"
	"keyrite/relay/ticket"
	"keyrite/wire/control"
	"keyrite/wire/problem"
)

// Who may call a route.
type Who int

// The callers, from the weakest proof to the strongest.
const (
	Accepted Who = iota + 1 // a device in an acceptance
	Enrolled                // the same, with an entry in an account
	Key                     // whoever holds a client key
	User                    // the same, logged in with it
)

// Placement is a VPN server as the access role sees it.
type Placement struct {
	Server control.Server
	Online func(account, gateway string) bool
}

// Server is the role.
type Server struct {
	World    world.World
	Devices  *auth.Devices
	Logins   *auth.Logins
	Registry *account.Registry
	Trail    *audit.Trail
	Tickets  *ticket.Issuer
	Place    Placement
	TUF      *os.Root // metadata/ and targets/, or nil
	Limiter  *auth.Limiter
	Now      func() time.Time
	Log      *slog.Logger
}

// caller is who calls, as far as the route's Who asks.
type caller struct {
	device  *birthcert.Identity
	gateway *store.Gateway
	key     string
	user    *auth.Session
}

// Route is one call.
type Route struct {
	Method, Path string // a path that ends in a slash is a prefix
	Who          Who
	serve        func(*Server, http.ResponseWriter, *http.Request, *caller) error
}

// Routes is the whole interface.
func Routes() []Route {
	return []Route{
		{http.MethodPost, control.PathEnrol, Accepted, (*Server).enrol},
		{http.MethodPost, control.PathGatewaySession, Enrolled, (*Server).gatewaySession},
		{http.MethodGet, control.PathGatewayPolicy, Enrolled, (*Server).gatewayPolicy},
		{http.MethodGet, control.PathTUFMetadata, Enrolled, (*Server).tuf},
		{http.MethodGet, control.PathTUFTargets, Enrolled, (*Server).tuf},
		{http.MethodPost, control.PathLogin, Key, (*Server).login},
		{http.MethodPost, control.PathLogout, User, (*Server).logout},
		{http.MethodGet, control.PathGateways, User, (*Server).gateways},
		{http.MethodGet, control.PathUserPolicy, User, (*Server).userPolicy},
		{http.MethodPost, control.PathConnect, User, (*Server).connect},
	}
}

var errRoute = fault.New(fault.Usage, "there is no such call")

// ServeHTTP finds the route, finds out who calls, and answers.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, rt := range Routes() {
		prefix := strings.HasSuffix(rt.Path, "/") && strings.HasPrefix(r.URL.Path, rt.Path)
		if rt.Method != r.Method || rt.Path != r.URL.Path && !prefix || r.URL.RawQuery != "" {
			continue
		}
		c, err := s.who(r, rt.Who)
		if err == nil {
			err = rt.serve(s, w, r, c)
		}
		if err != nil {
			s.refuse(w, r, err)
		}
		return
	}
	s.refuse(w, r, errRoute)
}

// refuse answers with the class and one of our fixed sentences; anything
// longer or internal stays in the log.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	class := fault.ClassOf(err)
	var detail string
	switch class {
	case fault.Unexpected, fault.Storage:
		s.Log.ErrorContext(r.Context(), "call failed", slog.String("path", r.URL.Path), slog.Any("error", err))
		detail = "the relay cannot serve this now"
	default:
		detail = err.Error()
		s.Log.InfoContext(r.Context(), "call refused", slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	problem.Write(w, string(class), detail)
}

// who proves the caller as far as want asks. It runs for every request, not
// only for every connection, so what is revoked ends with the next call.
func (s *Server) who(r *http.Request, want Who) (*caller, error) {
	ctx := r.Context()
	c := &caller{}
	var err error
	switch want {
	case Accepted, Enrolled:
		if c.device, err = s.Devices.Device(r.TLS); err != nil {
			return nil, err
		}
		if want == Accepted {
			return c, s.Registry.Accepted(ctx, c.device)
		}
		c.gateway, err = s.Registry.GatewayOf(ctx, c.device)
		return c, err
	case Key, User:
		if c.key, err = auth.ClientKey(r.TLS); err != nil || want == Key {
			return c, err
		}
		all := r.Header.Values("Authorization")
		if len(all) != 1 {
			return nil, auth.ErrToken
		}
		token, ok := strings.CutPrefix(all[0], "Bearer ")
		if !ok {
			return nil, auth.ErrToken
		}
		c.user, err = s.Logins.Session(ctx, token, c.key)
		return c, err
	}
	return nil, errRoute
}

func (s *Server) checkWorld(w string) error { return world.Match(s.World, world.World(w)) }

func (s *Server) enrol(w http.ResponseWriter, r *http.Request, c *caller) error {
	var in control.Enrol
	if err := control.Read(w, r, &in); err != nil {
		return err
	}
	if err := s.checkWorld(in.World); err != nil {
		return err
	}
	// Counted for the device only: who shares its address cannot lock it out.
	tries := auth.Counter{Name: "enrol/" + c.device.SPKIHash, Max: auth.TriesUser}
	if err := s.Limiter.Begin(tries); err != nil {
		return err
	}
	g, err := s.Registry.Enrol(r.Context(), in.ActivationKey, c.device, r.RemoteAddr)
	if err != nil {
		return err
	}
	s.Limiter.Forgive(tries)
	control.Write(w, &control.Enrolled{Account: g.Account, Format: control.Format, Gateway: g.ID, PolicyKey: g.AccountPolicyKey, World: string(s.World)})
	return nil
}

// empty reads a body that says nothing but format and world.
func (s *Server) empty(w http.ResponseWriter, r *http.Request) error {
	var in control.Empty
	if err := control.Read(w, r, &in); err != nil {
		return err
	}
	return s.checkWorld(in.World)
}

func (s *Server) gatewaySession(w http.ResponseWriter, r *http.Request, c *caller) error {
	if err := s.empty(w, r); err != nil {
		return err
	}
	return s.session(r.Context(), w, ticket.Ticket{Account: c.gateway.Account, Gateway: c.gateway.ID, Key: c.device.SPKIHash, Kind: ticket.KindGateway})
}

// session answers with a ticket for the VPN server.
func (s *Server) session(ctx context.Context, w http.ResponseWriter, t ticket.Ticket) error {
	p, _, err := s.Registry.Policy(ctx, t.Account)
	switch {
	case err == nil:
		t.PolicyVersion = p.Version
	case t.Kind != ticket.KindGateway || fault.ClassOf(err) != fault.Policy:
		return err // a gateway may come online before there is a policy
	}
	t.Audience = s.Place.Server.ID
	data, exp, err := s.Tickets.Issue(t)
	if err != nil {
		return err
	}
	control.Write(w, &control.Session{Expires: exp, Format: control.Format, PolicyVersion: t.PolicyVersion, Server: s.Place.Server, Ticket: data, World: string(s.World)})
	return nil
}

func (s *Server) gatewayPolicy(w http.ResponseWriter, r *http.Request, c *caller) error {
	return s.policy(r.Context(), w, c.gateway.Account)
}

func (s *Server) userPolicy(w http.ResponseWriter, r *http.Request, c *caller) error {
	return s.policy(r.Context(), w, c.user.Account)
}

func (s *Server) policy(ctx context.Context, w http.ResponseWriter, of string) error {
	_, data, err := s.Registry.Policy(ctx, of)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) //nolint:gosec // signed JSON that the reader checks, sent as JSON with nosniff: no page
	return nil
}

func (s *Server) login(w http.ResponseWriter, r *http.Request, c *caller) error {
	var in control.Login
	if err := control.Read(w, r, &in); err != nil {
		return err
	}
	if err := s.checkWorld(in.World); err != nil {
		return err
	}
	token, exp, err := s.Logins.Login(r.Context(), auth.Attempt{Account: in.Account, User: in.User, Password: []byte(in.Password), Key: c.key, Source: r.RemoteAddr})
	if err != nil {
		return err
	}
	control.Write(w, &control.LoggedIn{Expires: exp, Format: control.Format, Token: token, World: string(s.World)})
	return nil
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request, c *caller) error {
	if err := s.empty(w, r); err != nil {
		return err
	}
	if err := s.Logins.Logout(r.Context(), c.user, r.RemoteAddr); err != nil {
		return err
	}
	control.Write(w, &control.Empty{Format: control.Format, World: string(s.World)})
	return nil
}

func (s *Server) gateways(w http.ResponseWriter, r *http.Request, c *caller) error {
	p, _, err := s.Registry.Policy(r.Context(), c.user.Account)
	if err != nil {
		return err
	}
	all, err := s.Registry.Gateways(r.Context(), c.user.Account)
	if err != nil {
		return err
	}
	out := control.Gateways{Format: control.Format, Gateways: []control.Gateway{}, World: string(s.World)}
	for _, g := range all {
		if !g.Disabled && p.Sees(c.user.User, c.key, g.ID, s.Now()) {
			out.Gateways = append(out.Gateways, control.Gateway{ID: g.ID, Online: s.Place.Online(g.Account, g.ID)})
		}
	}
	control.Write(w, &out)
	return nil
}

var errOffline = fault.New(fault.Unreachable, "the gateway is not connected")

func (s *Server) connect(w http.ResponseWriter, r *http.Request, c *caller) error {
	var in control.Connect
	if err := control.Read(w, r, &in); err != nil {
		return err
	}
	if err := s.checkWorld(in.World); err != nil {
		return err
	}
	e := audit.Entry{Account: c.user.Account, Action: "connect", Actor: "user " + c.user.User, Object: "gateway " + in.Gateway, Source: r.RemoteAddr, Result: audit.Done}
	err := s.mayConnect(r.Context(), c, in.Gateway)
	if err != nil {
		e.Result, e.Class = audit.Refused, string(fault.ClassOf(err))
	}
	if nerr := s.Trail.Note(r.Context(), e); nerr != nil {
		return nerr
	}
	if err != nil {
		return err
	}
	return s.session(r.Context(), w, ticket.Ticket{Account: c.user.Account, Gateway: in.Gateway, Key: c.key, Kind: ticket.KindUser, Login: c.user.ID, User: c.user.User})
}

// mayConnect gives one and the same answer for a gateway that does not exist,
// is another account's, or is not for this user.
func (s *Server) mayConnect(ctx context.Context, c *caller, gateway string) error {
	p, _, err := s.Registry.Policy(ctx, c.user.Account)
	if err != nil {
		return err
	}
	want, err := p.GatewayKey(gateway)
	if err != nil || !p.Sees(c.user.User, c.key, gateway, s.Now()) {
		return account.ErrGateway
	}
	if err := s.Registry.GatewayLive(ctx, c.user.Account, gateway, want); err != nil {
		return err
	}
	if !s.Place.Online(c.user.Account, gateway) {
		return errOffline
	}
	return nil
}

// tufName is a path below metadata/ or targets/: plain segments, none of which
// can walk.
var tufName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$`)

// maxTUFName bounds the name of a repository file, in bytes.
const maxTUFName = 300

var errTUF = fault.New(fault.Policy, "there is no such file in the update repository")

// tuf serves the update repository read-only. It is served to enrolled gateways
// to spare the network, not to keep it secret; what is in it is signed.
func (s *Server) tuf(w http.ResponseWriter, r *http.Request, _ *caller) error {
	path, ok := strings.CutPrefix(r.URL.Path, strings.TrimSuffix(control.PathTUFMetadata, "metadata/"))
	_, name, _ := strings.Cut(path, "/")
	if !ok || s.TUF == nil || len(name) > maxTUFName || !tufName.MatchString(name) {
		return errTUF
	}
	f, err := s.TUF.Open(path)
	if err != nil {
		return errTUF
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return errTUF
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", st.ModTime(), f)
	return nil
}

// Check is for front.Options: which certificates may shake hands.
func (s *Server) Check(cs tls.ConnectionState) error { return s.Devices.Check(cs) }
