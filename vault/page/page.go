// Package page is the vault's face to people: a few pages for key masters and auditors
// that show what the charter lets them see. cmd/keyrite-vault starts it beside vault/api.
//
// A page is a client within the process: it makes the node.Call that a program would
// make, as whoever asks, and shows the answer; so what he may see is decided in one
// place, and every look has its entry in the trail. Who asks is known by his client
// certificate alone. Without one, and while the vault is sealed, there is the state of
// the seal, which is told to everybody.
//
// A page can propose and never decides. Pages are made by the server, without script and
// without anything from elsewhere. This package must never read the store, judge a rule
// of its own, or show a secret.
//
// To add a page: one file NAME.go with its show function, one NAME.html that defines the
// template NAME, and a line in views.
package page

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/api"
	"keyrite/vault/engine"
	"keyrite/vault/node"
	"keyrite/vault/unseal"
)

// Vault is what the pages are about.
type Vault interface {
	Do(ctx context.Context, c node.Call) (*node.Reply, error)
	// Looked is told of what is shown without Do: the state of the seal.
	Looked(ctx context.Context, l node.Look)
	Status() node.Status
	// Charter is the charter in force, nil while the vault is sealed. It is shown only to
	// whom a call to keyrite/charter was answered.
	Charter() *charter.State
}

// Config says what is shown. All but Limits, Now and Log are required.
type Config struct {
	Vault Vault
	// Progress is how far the opening is, as everybody is told.
	Progress func() api.Progress
	// Attempts are the attempts to open the vault, with who gave a share.
	Attempts func() unseal.Status
	// Charter is the newest charter that was verified by the anchors, while the vault is
	// sealed. After an error nobody is known.
	Charter func() (*charter.State, error)
	// Limits bounds what clients may take. The zero value stands for the defaults.
	Limits api.Limits
	// Now is the clock by which certificates end. Default time.Now.
	Now func() time.Time
	// Log is for the operator. Default: nothing is logged.
	Log *slog.Logger
}

// Server serves the pages.
type Server struct {
	*api.Front
	cfg   Config
	pages *pages
	views []view
}

// view is one page.
type view struct {
	path  string // as it is asked for, "/charter"
	title string
	// menu says whether it stands in the menu of all pages.
	menu bool
	// rule is what it takes to see it, where that is one rule; the overview tells who does
	// not have it. It decides nothing.
	rule access.Rule
	// template shows what show returns; "" for a page that show writes by itself.
	template string
	show     func(x *look) (any, error)
	// act takes a form; nil refuses any.
	act func(x *look) (any, error)
}

// views are all pages but that of the seal, in the order of the menu.
func views() []view {
	reads := func(path string) access.Rule {
		return access.Rule{Can: []access.Capability{access.Read}, Path: path}
	}
	return []view{
		{path: "/", title: "Overview", menu: true, rule: reads(statusPath), template: "overview", show: showOverview},
		{path: "/due", title: "Due", menu: true, rule: reads(duePath), template: "due", show: showDue},
		{path: "/charter", title: "Charter", menu: true, rule: reads(charterPath), template: "charter", show: showCharter},
		{path: "/charter/line", title: "Charter", show: showLine},
		{path: "/proposals", title: "Proposals", menu: true, rule: access.Rule{Can: []access.Capability{access.List}, Path: proposalsPath}, template: "proposals", show: showProposals},
		{path: "/proposals/one", title: "Proposal", template: "proposal", show: showProposal, act: bringApproval},
		{path: "/proposals/file", title: "Proposal", show: showProposalFile},
		{path: "/proposals/new", title: "Propose", template: "draft", show: showDraft, act: propose},
		{path: "/keys", title: "Keys", menu: true, rule: reads(charterPath), template: "keys", show: showKeys},
		{path: "/certificates", title: "Certificates", menu: true, template: "certificates", show: showCertificates},
		{path: "/certificates/one", title: "Certificate", template: "certificate", show: showCertificate},
		{path: "/shares", title: "Shares", menu: true, rule: reads(sharesPath), template: "shares", show: showShares},
		{path: "/shares/challenges", title: "Challenges", template: "challenges", show: showChallenges},
		{path: "/shares/challenge", title: "Challenge", show: showChallenge},
		{path: "/trail", title: "Trail", menu: true, rule: reads(trailPath), template: "trail", show: showTrail},
	}
}

// New makes a server.
func New(c Config) (*Server, error) {
	if c.Vault == nil || c.Progress == nil || c.Attempts == nil || c.Charter == nil {
		return nil, fault.New(fault.Usage, "pages need a vault, its charter and how far its opening is")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{cfg: c, views: views()}
	var err error
	if s.pages, err = newPages(); err != nil {
		return nil, err
	}
	s.Front = api.NewFront(http.HandlerFunc(s.serve), c.Limits, c.Log)
	return s, nil
}

// csp lets a page use the one style sheet and send forms to itself; it runs nothing,
// loads nothing, and nobody frames it.
const csp = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func headers(h http.Header) {
	for name, v := range map[string]string{
		"Content-Security-Policy": csp, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
		"Permissions-Policy": "camera=(), geolocation=(), microphone=()",
	} {
		h.Set(name, v)
	}
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	headers(w.Header())
	raw, tail, _ := strings.Cut(r.RequestURI, "?") // nothing is decoded: pages have one spelling
	x := &look{s: s, w: w, r: r, peer: api.Peer(r), state: s.cfg.Vault.Status()}
	x.view = s.find(raw)
	if err := api.OtherOrigin(r); err != nil {
		x.foreign(err)
		return
	}
	switch {
	case raw == stylePath:
		s.style(w, r)
	case x.view == nil:
		x.trouble(http.StatusNotFound, "There is no such page.", "")
	case len(x.peer.Certificates) == 0 || x.state.Sealed:
		x.seal("")
	default:
		s.open(x, x.view, tail)
	}
}

func (s *Server) find(path string) *view {
	for i := range s.views {
		if s.views[i].path == path {
			return &s.views[i]
		}
	}
	return nil
}

// errNoForm says that a page takes no form.
var errNoForm = fault.New(fault.Usage, "this page takes no form")

// open answers whoever shows a certificate to an open vault. What is refused before a call
// was made has its entry, too.
func (s *Server) open(x *look, v *view, tail string) {
	do := v.action(x.r.Method)
	var data any
	err := errNoForm
	if do != nil {
		if x.query, err = query(tail); err == nil {
			data, err = do(x)
		}
	}
	if err != nil && !x.asked {
		err = x.refused(err, false)
	}
	switch {
	case errors.Is(err, errNoForm):
		x.w.Header().Set("Allow", "GET, HEAD")
		x.trouble(http.StatusMethodNotAllowed, "This page takes no form.", "")
	case errors.Is(err, errAnswered), err == nil && v.template == "":
	case err == nil:
		x.render(http.StatusOK, v.title, v.template, data)
	default:
		x.failed(err)
	}
}

// action is what the page does with a method, nil if nothing.
func (v *view) action(method string) func(*look) (any, error) {
	switch method {
	case http.MethodGet, http.MethodHead:
		return v.show
	case http.MethodPost:
		return v.act
	}
	return nil
}

// errAnswered says that a page has written its answer.
var errAnswered = fault.New(fault.Usage, "answered")

// failed shows why there is no page.
func (x *look) failed(err error) {
	var r *refusal
	switch class := fault.ClassOf(err); {
	case errors.Is(err, node.ErrSealed):
		x.state = x.s.cfg.Vault.Status()
		x.seal("")
	case class == fault.Peer:
		x.seal("The certificate that your browser showed is of no identity in the charter, or does not count any more.")
	case errors.As(err, &r):
		x.render(http.StatusForbidden, x.view.title, "refused", r)
	case errors.Is(err, engine.ErrNotThere), errors.Is(err, engine.ErrNoPath):
		x.trouble(http.StatusNotFound, "It is not in the vault.", "")
	case class == fault.Usage:
		x.trouble(http.StatusBadRequest, err.Error(), fault.HintOf(err))
	case x.identity == "":
		x.s.cfg.Log.LogAttrs(x.r.Context(), slog.LevelError, "a stranger could not be answered", slog.String("error", err.Error()))
		x.trouble(http.StatusServiceUnavailable, "The vault cannot answer now.", "")
	case class == fault.Policy, class == fault.Quota, class == fault.Quorum, class == fault.Verify:
		x.trouble(http.StatusForbidden, err.Error(), fault.HintOf(err))
	default:
		x.s.cfg.Log.LogAttrs(x.r.Context(), slog.LevelError, "a page could not be made", slog.String("path", x.entryPath()), slog.String("error", err.Error()))
		x.trouble(http.StatusServiceUnavailable, err.Error(), fault.HintOf(err))
	}
}

// trouble shows a message, and a hint what to do if there is one.
func (x *look) trouble(status int, message, hint string) {
	x.render(status, "Not possible", "trouble", struct{ Message, Hint string }{message, hint})
}

// foreign answers a request that another web page had a browser make. Who followed a
// link is let in by his own click, so that nothing is asked of the vault in his name
// before; anything else is refused, with its entry.
func (x *look) foreign(why error) {
	h := x.r.Header
	if x.r.Method == http.MethodGet && h.Get("Sec-Fetch-Mode") == "navigate" && h.Get("Sec-Fetch-Dest") == "document" && x.view != nil {
		x.s.cfg.Vault.Looked(x.r.Context(), node.Look{Operation: string(access.Read), Path: x.entryPath(), Peer: x.peer})
		x.render(http.StatusOK, "From another site", "door", x.r.RequestURI)
		return
	}
	switch err := x.refused(why, true); {
	case errors.Is(err, why), errors.Is(err, node.ErrSealed), fault.ClassOf(err) == fault.Peer:
		x.trouble(http.StatusForbidden, why.Error(), "")
	default: // its entry could not be written
		x.failed(err)
	}
}

// query reads the parameters of an address: each once.
func query(tail string) (url.Values, error) {
	q, err := url.ParseQuery(tail)
	if err != nil {
		return nil, fault.New(fault.Usage, "the address is not in the usual spelling")
	}
	for k, v := range q {
		if len(v) != 1 {
			return nil, fault.Errorf(fault.Usage, "%.40q stands twice in the address", k)
		}
	}
	return q, nil
}

// only refuses parameters that the page does not have.
func (x *look) only(names ...string) error {
	known := map[string]bool{}
	for _, n := range names {
		known[n] = true
	}
	for k := range x.query {
		if !known[k] {
			return fault.Errorf(fault.Usage, "parameter %.40q is not known here", k)
		}
	}
	return nil
}

// number is a parameter that is a whole number from 0 to most; def if it is not there.
func (x *look) number(name string, def, most int) (int, error) {
	v := x.query.Get(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > most {
		return 0, fault.Errorf(fault.Usage, "%s is a number from 0 to %d", name, most)
	}
	return n, nil
}
