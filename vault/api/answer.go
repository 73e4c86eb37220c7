package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/node"
	"keyrite/vault/seal"
)

// body is the shape of every answer with data, as clients of HashiCorp Vault read it.
type body struct {
	RequestID     string   `json:"request_id"`
	LeaseID       string   `json:"lease_id"`
	Renewable     bool     `json:"renewable"`
	LeaseDuration int64    `json:"lease_duration"` // seconds
	Data          any      `json:"data"`
	WrapInfo      any      `json:"wrap_info"`
	Warnings      []string `json:"warnings"`
	Auth          *auth    `json:"auth"`
}

// auth is a token, given once.
type auth struct {
	ClientToken   string            `json:"client_token"`
	Accessor      string            `json:"accessor"`
	Policies      []string          `json:"policies"`
	TokenPolicies []string          `json:"token_policies"`
	Metadata      map[string]string `json:"metadata"`
	LeaseDuration int64             `json:"lease_duration"` // seconds
	Renewable     bool              `json:"renewable"`
	EntityID      string            `json:"entity_id"`
	TokenType     string            `json:"token_type"`
	Orphan        bool              `json:"orphan"`
	NumUses       int               `json:"num_uses"`
}

// Errors is the shape of a refusal.
type Errors struct {
	Errors  []string `json:"errors"`
	Keyrite Cause    `json:"keyrite"`
}

// Cause says what clients of HashiCorp Vault do not look at.
type Cause struct {
	Class   fault.Class `json:"class"`
	Hint    string      `json:"hint,omitempty"`
	Request string      `json:"request,omitempty"` // its id in the audit, where it has one
}

// answer writes what a call came to.
func (s *Server) answer(w http.ResponseWriter, r *node.Reply) int {
	a := r.Answer
	if a == nil {
		a = &engine.Answer{}
	}
	if a.Raw != nil {
		return write(w, http.StatusOK, a.ContentType, a.Raw)
	}
	if a.Data == nil && a.Auth == nil && r.Lease == nil && len(a.Warnings) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return http.StatusNoContent
	}
	b := body{RequestID: r.Request, Data: a.Data, Warnings: a.Warnings}
	if l := r.Lease; l != nil {
		b.LeaseID, b.Renewable, b.LeaseDuration = l.ID, l.Renewable, int64(l.TTL.Seconds())
	}
	if x := a.Auth; x != nil {
		b.Auth = &auth{
			ClientToken: string(x.Token.Bytes()), Accessor: x.Accessor, Policies: x.Policies, TokenPolicies: x.Policies,
			Metadata: map[string]string{"identity": x.Identity}, LeaseDuration: int64(x.TTL.Seconds()), Renewable: x.Renewable, TokenType: "service", Orphan: true,
		}
		defer x.Token.Zero()
	}
	status := http.StatusOK
	if a.Gone {
		status = http.StatusNotFound
	}
	return s.encode(w, status, b)
}

// refuse writes an error.
func (s *Server) refuse(w http.ResponseWriter, id string, err error) int {
	class := fault.ClassOf(err)
	if class == fault.Unexpected {
		s.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "a request failed", slog.String("request", id), slog.String("error", err.Error()))
	}
	return s.encode(w, statusOf(err), Errors{Errors: []string{err.Error()}, Keyrite: Cause{Class: class, Hint: fault.HintOf(err), Request: id}})
}

// statusOf is the HTTP status of an error: what clients of HashiCorp Vault expect for
// the same.
func statusOf(err error) int {
	for _, e := range []struct {
		is     error
		status int
	}{
		{errBusy, http.StatusTooManyRequests},
		{seal.ErrStopped, http.StatusServiceUnavailable},
		{seal.ErrUnconfirmed, http.StatusServiceUnavailable},
		{seal.ErrLagging, http.StatusServiceUnavailable},
		{engine.ErrNoPath, http.StatusNotFound},
		{engine.ErrNotThere, http.StatusNotFound},
		{engine.ErrConflict, http.StatusBadRequest},
		{access.ErrPath, http.StatusBadRequest},
	} {
		if errors.Is(err, e.is) {
			return e.status
		}
	}
	switch fault.ClassOf(err) {
	case fault.Usage, fault.Verify, fault.Exists:
		return http.StatusBadRequest
	case fault.Policy, fault.Peer, fault.Quorum:
		return http.StatusForbidden
	case fault.Quota:
		return http.StatusTooManyRequests
	case fault.Sealed, fault.Storage, fault.Token, fault.Unreachable, fault.Interrupted:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// encode writes v as JSON.
func (s *Server) encode(w http.ResponseWriter, status int, v any) int {
	raw, err := json.Marshal(v)
	if err != nil {
		s.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "an answer could not be written as JSON", slog.String("error", err.Error()))
		status, raw = http.StatusInternalServerError, []byte(`{"errors":["the answer could not be written"],"keyrite":{"class":"unexpected"}}`)
	}
	return write(w, status, "application/json", append(raw, '\n'))
}

func write(w http.ResponseWriter, status int, contentType string, raw []byte) int {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	// A client that is gone is told nothing.
	_, _ = w.Write(raw) //nolint:gosec // JSON, certificates and lists, with nosniff: no browser takes them for a page
	return status
}
