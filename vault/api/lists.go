package api

import (
	"net"
	"net/http"
	"strings"

	"keyrite/artifact/fault"
	"keyrite/vault/engine"
)

// Lists is the face for those who check certificates and have no identity: over HTTP
// without TLS, as the URLs in certificates are fetched (RFC 5280, section 8), it hands
// on the lists of what was revoked and answers about single certificates, which are
// signed themselves. It takes nothing that says who asks; what it has is what the
// charter opens to whoever asks.
type Lists struct {
	*Front
	s *Server
}

// Lists is that face of the same vault.
func (s *Server) Lists() *Lists {
	l := &Lists{s: s}
	l.Front = NewFront(http.HandlerFunc(l.serve), s.cfg.Limits, s.cfg.Log)
	return l
}

// Serve answers on a listener without TLS until Shutdown.
func (l *Lists) Serve(on net.Listener) error { return l.servePlain(on) }

func (l *Lists) serve(w http.ResponseWriter, r *http.Request) { l.s.answering(w, l.route, r) }

func (l *Lists) route(w http.ResponseWriter, r *http.Request) int {
	raw, query, err := target(r)
	if err == nil {
		err = OtherOrigin(r)
	}
	if err == nil && !listed(r.Method, raw) {
		err = fault.Errorf(fault.Usage, "%w: here are lists of revoked certificates and answers about single ones, MOUNT/crl and MOUNT/ocsp", engine.ErrNoPath)
	}
	if err == nil && (len(r.Header["X-Vault-Token"]) > 0 || len(r.Header["Authorization"]) > 0) {
		err = fault.New(fault.Policy, "a token is shown where everybody can read it: it is to be revoked, and another one used over TLS")
	}
	if err != nil {
		return l.s.do(w, r, faulty(r, raw, err))
	}
	c := l.s.read(w, r, raw, query)
	defer l.s.give(c.size)
	return l.s.do(w, r, c)
}

// listed says whether a path may be a list or an answer. Whether it is one says the
// engine that the charter mounts there.
func listed(method, path string) bool {
	s := strings.Split(path, "/")
	switch {
	case len(s) < 2:
		return false
	case s[1] == "crl":
		return len(s) == 2 && method == http.MethodGet
	case s[1] == "ocsp":
		return len(s) == 2 && method == http.MethodPost || len(s) > 2 && method == http.MethodGet
	}
	return false
}
