// Package cosigner is the process on another machine that keeps the newest head
// of each log it was told of and puts its cosignature under what continues it,
// never under less and never under another history. The vault's store asks it
// before it acknowledges; any log that speaks the protocol may.
//
// It speaks c2sp.org/tlog-witness (there it is called a witness; here that word
// is kept for people) and gives c2sp.org/tlog-cosignature. It must never answer
// with a cosignature before the new head is durable.
package cosigner

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	mod "golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
)

// Limits of the protocol.
const (
	// MaxRequestBytes bounds a request: 63 hashes and a checkpoint.
	MaxRequestBytes = tlog.MaxCheckpointBytes + 8<<10
	// maxProof is how many hashes a proof may have (tlog-witness).
	maxProof = 63
)

// SizeType is the media type of the answer that names the size that is kept.
const SizeType = "text/x.tlog.size"

// Config says whose logs are cosigned. All but Now are required.
type Config struct {
	// Dir is the state folder. It must exist.
	Dir string
	// Name and Key are the cosigner's own: Ed25519.
	Name string
	Key  crypto.Signer
	// Logs are the known logs by origin, each with the keys that may sign its
	// checkpoints, in the form of signed notes ("name+hash+key").
	Logs map[string][]string
	// Now is the clock of the cosignatures. Default time.Now.
	Now func() time.Time
}

// Cosigner is an http.Handler with one path, /add-checkpoint.
type Cosigner struct {
	name string
	key  crypto.Signer
	now  func() time.Time
	logs map[string]*log
}

// log is one known log. Its lock is held from the comparison with what is kept
// until the new head is durable.
type log struct {
	mu   sync.Mutex // guards the file at path
	path string
	keys note.Verifiers
}

// New checks the configuration and what is kept.
func New(c Config) (*Cosigner, error) {
	if c.Key == nil || c.Name == "" || c.Dir == "" || len(c.Logs) == 0 {
		return nil, fault.New(fault.Usage, "a cosigner needs a folder, a name, a key and logs")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	out := &Cosigner{name: c.Name, key: c.Key, now: c.Now, logs: map[string]*log{}}
	for origin, keys := range c.Logs {
		if origin == "" || strings.ContainsAny(origin, "\n\r") || len(keys) == 0 {
			return nil, fault.Errorf(fault.Usage, "log %q has no name or no key", origin)
		}
		var vs []note.Verifier
		for _, k := range keys {
			v, err := note.NewVerifier(k)
			if err != nil {
				return nil, fault.Errorf(fault.Usage, "key of log %q: %w", origin, err)
			}
			vs = append(vs, v)
		}
		l := &log{path: statePath(c.Dir, origin), keys: note.VerifierList(vs...)}
		if _, err := l.kept(origin); err != nil {
			return nil, err
		}
		out.logs[origin] = l
	}
	return out, nil
}

// ServeHTTP answers one request.
func (c *Cosigner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/add-checkpoint" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "a checkpoint is added by POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxRequestBytes))
	if err != nil {
		http.Error(w, "the request is too long or was cut", http.StatusRequestEntityTooLarge)
		return
	}
	lines, err := c.add(body)
	if a, ok := errors.AsType[*answer](err); ok {
		a.write(w)
		return
	}
	if err != nil {
		http.Error(w, "the new head could not be kept", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(lines)
}

// answer is a refusal of the protocol.
type answer struct {
	status int
	text   string
	size   int64 // with a conflict
	told   bool  // whether the size is
}

func (a *answer) Error() string { return a.text }

func (a *answer) write(w http.ResponseWriter) {
	if !a.told {
		http.Error(w, a.text, a.status)
		return
	}
	w.Header().Set("Content-Type", SizeType)
	w.WriteHeader(a.status)
	fmt.Fprintf(w, "%d\n", a.size)
}

func refuse(status int, text string) error { return &answer{status: status, text: text} }

// request is what stands in a body.
type request struct {
	old   int64
	proof mod.TreeProof
	note  []byte
}

// parse reads a body: "old SIZE", hashes in base64, an empty line, a checkpoint.
func parse(body []byte) (*request, error) {
	bad := refuse(http.StatusBadRequest, "the request is not in the form of tlog-witness")
	head, rest, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return nil, bad
	}
	lines := strings.Split(string(head), "\n")
	size, ok := strings.CutPrefix(lines[0], "old ")
	old, err := strconv.ParseInt(size, 10, 64)
	if !ok || err != nil || old < 0 || strconv.FormatInt(old, 10) != size || len(lines) > maxProof+1 {
		return nil, bad
	}
	q := &request{old: old, note: rest}
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.Strict().DecodeString(l)
		if err != nil || len(h) != 32 {
			return nil, bad
		}
		q.proof = append(q.proof, mod.Hash(h))
	}
	return q, nil
}

// head is what a checkpoint says, whatever extension lines it has.
type head struct {
	origin string
	size   int64
	root   tlog.Hash
}

// parseHead reads the text of a note as a checkpoint (c2sp.org/tlog-checkpoint).
func parseHead(text string) (*head, error) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return nil, fault.New(fault.Verify, "not a checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	root, err2 := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || err2 != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] || len(root) != 32 {
		return nil, fault.New(fault.Verify, "not a checkpoint")
	}
	return &head{origin: lines[0], size: size, root: tlog.Hash(root)}, nil
}

// add checks a request and returns the cosignature.
func (c *Cosigner) add(body []byte) ([]byte, error) {
	q, err := parse(body)
	if err != nil {
		return nil, err
	}
	origin, _, _ := strings.Cut(string(q.note), "\n")
	l := c.logs[origin]
	if l == nil {
		return nil, refuse(http.StatusNotFound, "this log is not known here")
	}
	n, err := note.Open(q.note, l.keys)
	if err != nil {
		return nil, refuse(http.StatusForbidden, "no signature of a known key of this log holds")
	}
	h, err := parseHead(n.Text)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the note is not a checkpoint")
	}
	if q.old > h.size {
		return nil, refuse(http.StatusBadRequest, "the old size is over that of the checkpoint")
	}
	return c.advance(l, q, h, n)
}

// advance compares with what is kept, keeps the new head and signs it.
func (c *Cosigner) advance(l *log, q *request, h *head, n *note.Note) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	had, err := l.kept(h.origin)
	if err != nil {
		return nil, err
	}
	if q.old != had.size {
		return nil, &answer{status: http.StatusConflict, text: "another size is kept", size: had.size, told: true}
	}
	if err := continues(had, h, q.proof); err != nil {
		return nil, err
	}
	// Only the lines that were checked are signed along, and one cosignature.
	n.UnverifiedSigs = nil
	checked, err := note.Sign(n)
	if err != nil {
		return nil, err
	}
	signed, err := tlog.Cosign(checked, c.name, c.key, c.now())
	if err != nil {
		return nil, err
	}
	if err := l.keep(signed); err != nil {
		return nil, err
	}
	return bytes.TrimPrefix(signed, checked), nil
}

// continues says whether the log of next begins with that of had.
func continues(had, next *head, proof mod.TreeProof) error {
	bad := refuse(http.StatusUnprocessableEntity, "the proof does not hold: this is another history")
	switch {
	case had.size == next.size && had.size > 0:
		if had.root != next.root {
			return &answer{status: http.StatusConflict, text: "another root is kept for this size", size: had.size, told: true}
		}
		if len(proof) != 0 {
			return bad
		}
	case had.size == 0:
		if len(proof) != 0 || next.size == 0 && next.root != tlog.Hash(emptyRoot) {
			return bad
		}
	default:
		if mod.CheckTree(proof, next.size, next.root, had.size, had.root) != nil {
			return bad
		}
	}
	return nil
}
