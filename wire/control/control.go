// Package control is the HTTPS/JSON protocol of the relay's access server: the
// messages, their limits and a client (docs/formats/control.md).
//
// The access server parses with Read and answers with Write; gateways and
// keyrite-connect call the methods of Client. It authenticates nobody: the
// caller brings the TLS configuration, which must verify the server. Nothing in
// an answer may be trusted further than a relay is: policies come signed.
//
// Compatibility: version 1 is spoken for ever, and no member is ever added to it.
package control

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"keyrite/wire/problem"
	"keyrite/wire/strict"
)

// Format of every body.
const Format = "keyrite/control/v1"

// Paths of the calls.
const (
	PathEnrol          = "/v1/gateway/enrol"
	PathGatewaySession = "/v1/gateway/session"
	PathGatewayPolicy  = "/v1/gateway/policy"
	PathTUFMetadata    = "/v1/gateway/tuf/metadata/"
	PathTUFTargets     = "/v1/gateway/tuf/targets/"
	PathLogin          = "/v1/user/login"
	PathLogout         = "/v1/user/logout"
	PathGateways       = "/v1/user/gateways"
	PathUserPolicy     = "/v1/user/policy"
	PathConnect        = "/v1/user/connect"
)

// Limits.
const (
	MaxBodyBytes   = 16 << 10
	MaxHeaderBytes = 16 << 10
	MaxPolicyBytes = 1 << 20 // artifact/policy's own limit
	MaxListBytes   = 4 << 20 // 10,000 gateways
	RequestTimeout = 10 * time.Second
	ALPN           = "http/1.1"
)

// Error is a failure with its class, a word of the exit table.
type Error struct {
	Class string
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// FaultClass is the class for the exit table.
func (e *Error) FaultClass() string { return e.Class }

func errorf(class, format string, args ...any) error {
	return &Error{class, fmt.Errorf(format, args...)}
}

// ErrBody says that a body is not a valid message.
var ErrBody = errors.New("body is not a valid message")

// Enrol asks to join the account that made the activation key.
type Enrol struct {
	ActivationKey string `json:"activation_key"`
	Format        string `json:"format"`
	World         string `json:"world"`
}

// Enrolled is the answer to Enrol.
type Enrolled struct {
	Account   string `json:"account"`
	Format    string `json:"format"`
	Gateway   string `json:"gateway"`
	PolicyKey []byte `json:"policy_key"` // DER SubjectPublicKeyInfo
	World     string `json:"world"`
}

// Empty is a request or answer that says nothing more.
type Empty struct {
	Format string `json:"format"`
	World  string `json:"world"`
}

// Server is a VPN server.
type Server struct {
	Addr string `json:"addr"` // host:port
	ID   string `json:"id"`
}

// Session is leave to open one session with a VPN server.
type Session struct {
	Expires       string `json:"expires"` // of the ticket
	Format        string `json:"format"`
	PolicyVersion int64  `json:"policy_version"`
	Server        Server `json:"server"`
	Ticket        []byte `json:"ticket"`
	World         string `json:"world"`
}

// Login asks for a login token.
type Login struct {
	Account  string `json:"account"`
	Format   string `json:"format"`
	Password string `json:"password"`
	User     string `json:"user"`
	World    string `json:"world"`
}

// LoggedIn is the answer to Login.
type LoggedIn struct {
	Expires string `json:"expires"`
	Format  string `json:"format"`
	Token   string `json:"token"`
	World   string `json:"world"`
}

// Gateway is one line of the list.
type Gateway struct {
	ID     string `json:"id"`
	Online bool   `json:"online"`
}

// Gateways is the list of the account's gateways that the user may see.
type Gateways struct {
	Format   string    `json:"format"`
	Gateways []Gateway `json:"gateways"`
	World    string    `json:"world"`
}

// Connect asks for a session towards a gateway.
type Connect struct {
	Format  string `json:"format"`
	Gateway string `json:"gateway"`
	World   string `json:"world"`
}

// Message is one of the types above.
type Message interface{ check() error }

var (
	idRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	nameRE  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	worldRE = regexp.MustCompile(`^(live|rehearsal:[a-z0-9]{8,32})$`)
	timeRE  = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`)
	tokenRE = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	addrRE  = regexp.MustCompile(`^[A-Za-z0-9.:\[\]-]{3,262}$`)
	keyRE   = regexp.MustCompile(`^[A-Z2-7]{26}$`)
)

// MaxPasswordBytes bounds what is hashed for one login.
const MaxPasswordBytes = 1024

func all(format, world string, more ...bool) error {
	if format != Format || !worldRE.MatchString(world) {
		return errorf("verify", "%w: format or world", ErrBody)
	}
	for _, ok := range more {
		if !ok {
			return errorf("verify", "%w: a member is out of its limits", ErrBody)
		}
	}
	return nil
}

// NormalKey brings an activation key as people type it into its one form.
func NormalKey(s string) string {
	return strings.ToUpper(strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, s))
}

func (m *Enrol) check() error { return all(m.Format, m.World, keyRE.MatchString(m.ActivationKey)) }
func (m *Enrolled) check() error {
	return all(m.Format, m.World, idRE.MatchString(m.Account), idRE.MatchString(m.Gateway), len(m.PolicyKey) > 0 && len(m.PolicyKey) <= 256)
}
func (m *Empty) check() error { return all(m.Format, m.World) }
func (m *Session) check() error {
	return all(m.Format, m.World, timeRE.MatchString(m.Expires), m.PolicyVersion >= 0, addrRE.MatchString(m.Server.Addr), idRE.MatchString(m.Server.ID), len(m.Ticket) > 0)
}

func (m *Login) check() error {
	return all(m.Format, m.World, idRE.MatchString(m.Account), nameRE.MatchString(m.User), len(m.Password) > 0 && len(m.Password) <= MaxPasswordBytes)
}

func (m *LoggedIn) check() error {
	return all(m.Format, m.World, timeRE.MatchString(m.Expires), tokenRE.MatchString(m.Token))
}

func (m *Gateways) check() error {
	for _, g := range m.Gateways {
		if !idRE.MatchString(g.ID) {
			return errorf("verify", "%w: gateway id", ErrBody)
		}
	}
	return all(m.Format, m.World, m.Gateways != nil)
}
func (m *Connect) check() error { return all(m.Format, m.World, idRE.MatchString(m.Gateway)) }

// Parse reads a message.
func Parse(b []byte, m Message) error {
	if err := strict.Unmarshal(b, m); err != nil {
		return errorf("verify", "%w: %w", ErrBody, err)
	}
	return m.check()
}

// Read reads the message in r's body, which must be JSON of a stated length.
func Read(w http.ResponseWriter, r *http.Request, m Message) error {
	if r.Header.Get("Content-Type") != "application/json" || r.ContentLength < 1 || r.ContentLength > MaxBodyBytes {
		return errorf("usage", "%w: application/json of 1 to %d bytes is wanted", ErrBody, MaxBodyBytes)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBodyBytes))
	if err != nil {
		return errorf("unreachable", "read body: %w", err)
	}
	return Parse(b, m)
}

// Write answers with m.
func Write(w http.ResponseWriter, m Message) {
	b, err := strict.Marshal(m)
	if err != nil {
		problem.Write(w, "unexpected", "the answer cannot be written")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b) // the peer sees a short body
}
