// Package control is how the commands of keyrite-vault talk to the vault that runs on
// the same host: HTTP with JSON over a Unix socket in the state folder. It is there
// while the vault is sealed and while nothing else can be served.
//
// Server answers; Client asks. Whoever asks is known by the kernel's word: the user
// that the vault runs as, or root. This package must never listen anywhere else, and
// nothing secret goes over the socket: shares come encrypted.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/vault/audit"
	"keyrite/vault/duty"
	"keyrite/vault/unseal"
)

// SocketName is the socket within the state folder.
const SocketName = "control.sock"

// Paths of the socket.
const (
	pathStatus   = "/v1/status"
	pathAttempts = "/v1/attempts"
	pathAnswers  = "/v1/answers"
	pathSeal     = "/v1/seal"
	pathAudit    = "/v1/audit"
)

// maxBody bounds a request; an answer is the largest.
const maxBody = 4 * openrequest.MaxBytes

// Status is what the vault says of itself.
type Status struct {
	unseal.Status
	World    string   `json:"world"`
	Vault    string   `json:"vault"`
	Host     string   `json:"host"`
	HostOK   bool     `json:"host_in_charter"` // whether key masters' programs know this host
	Safe     string   `json:"safe"`
	Charter  int      `json:"charter"` // statements in force
	Serving  any      `json:"serving,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Due      Due      `json:"due"`
}

// Due is in short what has to be done next.
type Due struct {
	Soon  int         `json:"soon"`
	Late  int         `json:"late"`
	Next  []duty.Item `json:"next"`            // what is most urgent; nothing that is fine
	Error string      `json:"error,omitempty"` // why it could not be looked up
}

// newAttempt is the body of a request for one.
type newAttempt struct {
	Operation string `json:"operation"`
	Seconds   int64  `json:"seconds"` // 0: as configured
}

// Server answers on the socket.
type Server struct {
	Attempts *unseal.Attempts
	// Status completes what the vault says of itself.
	Status func() Status
	// Fresh is called before anything is asked of people: it takes over a newer
	// charter, if there is one.
	Fresh func() error
	// Sealed is called when somebody had it sealed, after he was told; the process
	// then ends or starts anew.
	Sealed func()
	// Audit writes an extract of the trail.
	Audit func(ctx context.Context, w io.Writer, c audit.Choice) (int64, error)
}

// Listen makes the socket in the state folder, in place of one that was left by a
// process that is gone; the caller has the folder's lock.
func Listen(ctx context.Context, dir string) (net.Listener, error) {
	short, done, err := shortPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(short); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Errorf(fault.Storage, "remove the old control socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", short)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "make the control socket: %w", err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // its short name will mean another file then
	}
	if err := os.Chmod(short, 0o600); err != nil {
		return nil, errors.Join(fault.Errorf(fault.Storage, "protect the control socket: %w", err), l.Close())
	}
	return l, nil
}

// shortPath names the socket in fewer than the 108 bytes that there are for it
// (unix(7)), whatever the folder's name.
func shortPath(dir string) (string, func(), error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, fault.Errorf(fault.Usage, "open the state folder: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), SocketName), func() { _ = d.Close() }, nil
}

// Path is the socket's name as it is shown.
func Path(dir string) string { return filepath.Join(dir, SocketName) }

// Serve answers until the listener is closed by Shutdown of the server returned.
func (s *Server) Serve(l net.Listener) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathStatus, s.status)
	mux.HandleFunc("POST "+pathAttempts, s.begin)
	mux.HandleFunc("POST "+pathAttempts+"/{id}/retry", s.retry)
	mux.HandleFunc("DELETE "+pathAttempts+"/{id}", s.drop)
	mux.HandleFunc("POST "+pathAnswers, s.answer)
	mux.HandleFunc("POST "+pathSeal, s.seal)
	mux.HandleFunc("POST "+pathAudit, s.audit)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	go func() { _ = h.Serve(&guarded{l}) }() // it ends with the listener, which is how it is told to
	return h
}

// guarded takes connections of this user and of root only.
type guarded struct{ net.Listener }

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if peer(c) == nil {
			return c, nil
		}
		_ = c.Close()
	}
}

// peer refuses a connection of another user.
func peer(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fault.New(fault.Peer, "not a Unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return fault.Errorf(fault.Peer, "who asks: %w", err)
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || cerr != nil {
		return fault.Errorf(fault.Peer, "who asks: %w", errors.Join(err, cerr))
	}
	if uid := int(cred.Uid); uid != 0 && uid != os.Geteuid() {
		return fault.Errorf(fault.Peer, "user %d is neither root nor the user of the vault", uid)
	}
	return nil
}

type problem struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		v = map[string]problem{"error": {string(fault.ClassOf(err)), err.Error(), fault.HintOf(err)}}
	}
	_ = json.NewEncoder(w).Encode(v) // who hung up learns nothing
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) { reply(w, s.Status(), nil) }

func (s *Server) begin(w http.ResponseWriter, r *http.Request) {
	var q newAttempt
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		reply(w, nil, fault.Errorf(fault.Usage, "read the request: %w", err))
		return
	}
	x, err := s.new(r.Context(), q)
	reply(w, x, err)
}

// new looks whether anything could be opened before people are asked.
func (s *Server) new(ctx context.Context, q newAttempt) (*unseal.Begun, error) {
	if err := s.Fresh(); err != nil {
		return nil, err
	}
	if err := s.Attempts.Look(ctx); err != nil {
		return nil, err
	}
	return s.Attempts.New(ctx, unseal.Ask{Operation: q.Operation, By: "operator", Valid: time.Duration(q.Seconds) * time.Second})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		reply(w, nil, fault.Errorf(fault.Usage, "read the answer: %w", err))
		return
	}
	p, err := s.Attempts.Answer(r.Context(), data)
	reply(w, p, err)
}

func (s *Server) retry(w http.ResponseWriter, r *http.Request) {
	p, err := s.Attempts.Retry(r.Context(), r.PathValue("id"))
	reply(w, p, err)
}

func (s *Server) drop(w http.ResponseWriter, r *http.Request) {
	reply(w, struct{}{}, s.Attempts.Drop(r.PathValue("id")))
}

func (s *Server) seal(w http.ResponseWriter, _ *http.Request) {
	reply(w, struct{}{}, s.Attempts.Seal())
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	s.Sealed()
}

// audit streams an extract. What goes wrong once it began ends the connection, so that
// nobody takes a part for the whole.
func (s *Server) audit(w http.ResponseWriter, r *http.Request) {
	var c audit.Choice
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		reply(w, nil, fault.Errorf(fault.Usage, "read the request: %w", err))
		return
	}
	out := &begun{ResponseWriter: w}
	_, err := s.Audit(r.Context(), out, c)
	switch {
	case err != nil && !out.begun:
		reply(w, nil, err)
	case err != nil:
		hangUp(w)
	}
}

// hangUp ends the connection within an answer.
func hangUp(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
}

// begun knows whether anything was written.
type begun struct {
	http.ResponseWriter
	begun bool
}

// Write implements io.Writer.
func (b *begun) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.Header().Set("Content-Type", extractType)
	}
	return b.ResponseWriter.Write(p)
}

// extractType is the media type of an extract.
const extractType = "application/jsonl"

// validID says whether id may stand in a path of the socket.
func validID(id string) bool {
	return len(id) == 2*openrequest.AttemptBytes && strings.Trim(id, "0123456789abcdef") == ""
}
