// Package api is the vault's face to programs: the subset of HashiCorp Vault's HTTP
// interface that their clients call, over TLS 1.3 and over a Unix socket, and a few
// paths of our own under /v1/keyrite. cmd/keyrite-vault starts it.
//
// It reads a request strictly, hands it to vault/node, and writes the answer in the
// shape that clients expect. The path is taken as it came over the wire and never
// decoded. It must never decide who may do what, nor answer anything that node did not
// answer, but how the vault is: those few paths are listed in public.go, and the metrics
// of a vault that is sealed or stopped are for whom node.MayWhileSealed lets. Node is told
// of each look at them but sys/health, for its entry in the log.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/node"
)

// Vault is what an API serves.
type Vault interface {
	Do(ctx context.Context, c node.Call) (*node.Reply, error)
	// Looked is told of what is answered without Do.
	Looked(ctx context.Context, l node.Look)
	Status() node.Status
}

// Opening is how far the opening of a sealed vault is, and takes what key masters send.
type Opening interface {
	// Progress never waits.
	Progress() Progress
	// Unseal takes the answer of one key master, as 'keyrite share open' wrote it.
	Unseal(ctx context.Context, p engine.Params) error
}

// Progress is how far an opening is.
type Progress struct {
	Initialized bool // there is a store
	Need, Of    int  // of the safe's shares
	Have        int
	Attempt     string // "" if nobody began
}

// Config says what is served. Vault is required.
type Config struct {
	Vault Vault
	// Opening takes shares; nil refuses them.
	Opening Opening
	// Version is told to clients; it must look like a version of theirs.
	Version string
	// Limits bounds what clients may take. The zero value stands for the defaults.
	Limits Limits
	// Log is for the operator. Default: nothing is logged.
	Log *slog.Logger
	// Metrics counts; nil counts nothing.
	Metrics *Metrics
	// Charter is the newest charter that was verified by the anchors: it says who reads
	// the metrics while the vault is sealed or its store stopped. After an error, and if it
	// is nil, nobody does.
	Charter func() (*charter.State, error)
}

// Server serves one vault.
type Server struct {
	*Front
	cfg Config
}

// New makes a server.
func New(c Config) (*Server, error) {
	if c.Vault == nil {
		return nil, fault.New(fault.Usage, "an API needs a vault")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: c}
	s.Front = NewFront(http.HandlerFunc(s.serve), c.Limits, c.Log)
	return s, nil
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) { s.answering(w, s.route, r) }

// answering has a request answered, with what every answer says to browsers, and counts
// it.
func (s *Server) answering(w http.ResponseWriter, route func(http.ResponseWriter, *http.Request) int, r *http.Request) {
	began := time.Now()
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	status := route(w, r)
	s.cfg.Metrics.request(status, time.Since(began))
}

// route finds out what the request is for, and returns the status that was answered.
func (s *Server) route(w http.ResponseWriter, r *http.Request) int {
	raw, query, err := target(r)
	foreign := OtherOrigin(r)
	if err == nil {
		err = foreign
	}
	var c *call
	if err != nil {
		c = faulty(r, raw, err)
		c.Foreign = foreign != nil
	} else if answer, ok := s.public(r, raw, query); ok {
		return s.tell(w, r, answer)
	} else {
		c = s.read(w, r, raw, query)
	}
	defer s.give(c.size)
	if status, ok := s.figures(w, r, c); ok {
		return status
	}
	return s.do(w, r, c)
}

// faulty is the call of a request that is refused, with its entry.
func faulty(r *http.Request, raw string, err error) *call {
	return &call{Call: node.Call{RawPath: raw, Peer: Peer(r), Fault: err}}
}

// do has a call made and writes what it came to.
func (s *Server) do(w http.ResponseWriter, r *http.Request, call *call) int {
	reply, err := s.cfg.Vault.Do(r.Context(), call.Call)
	call.Token.Zero()
	if err != nil {
		id := ""
		if reply != nil {
			id = reply.Request
		}
		return s.refuse(w, id, err)
	}
	return s.answer(w, reply)
}
