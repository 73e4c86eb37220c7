package cosigner

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	mod "golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
)

const testOrigin = "example.com/log"

// room is a cosigner that runs, and a log that it knows.
type room struct {
	dir    string
	key    ed25519.PrivateKey
	vkey   string // of the log
	signer note.Signer
	url    string
	config Config
}

func newRoom(t *testing.T) *room {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &room{dir: t.TempDir(), key: key, vkey: vkey, signer: s}
	r.config = Config{Dir: r.dir, Name: "cosigner1", Key: key, Logs: map[string][]string{testOrigin: {vkey}}}
	r.start(t)
	return r
}

// start starts a cosigner on the folder as it is.
func (r *room) start(t *testing.T) {
	t.Helper()
	c, err := New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	r.url = srv.URL
}

// tree is a log of so many leaves.
func tree(n int, name string) *tlog.Tree {
	t := &tlog.Tree{}
	for i := range n {
		_ = t.Append(fmt.Appendf(nil, "%s %d", name, i))
	}
	return t
}

func (r *room) note(t *testing.T, origin string, size int64, root tlog.Hash) []byte {
	t.Helper()
	n, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))}, r.signer)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func body(old int64, proof []tlog.Hash, note []byte) []byte {
	out := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		out = append(out, base64.StdEncoding.EncodeToString(h[:])+"\n"...)
	}
	return append(append(out, '\n'), note...)
}

func (r *room) post(t *testing.T, b []byte) (int, string, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/add-checkpoint", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(out)
}

// A log that nobody here wrote gets its cosignatures, and checks them.
func TestTesseraTakesTheCosignatures(t *testing.T) {
	r := newRoom(t)
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	w, err := tessera.NewWitness(vkeyOf(t, "cosigner1", r.key.Public().(ed25519.PublicKey)), u)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	driver, err := posix.New(ctx, posix.Config{Path: filepath.Join(t.TempDir(), "log")})
	if err != nil {
		t.Fatal(err)
	}
	a, down, reader, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(r.signer).WithBatching(1, 50*time.Millisecond).WithCheckpointInterval(100*time.Millisecond).
		WithWitnesses(tessera.NewWitnessGroup(1, w), &tessera.WitnessOptions{Timeout: 20 * time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	var last tessera.Index
	for i := range 5 {
		if last, err = a.Add(ctx, tessera.NewEntry(fmt.Appendf(nil, "leaf %d", i)))(); err != nil {
			t.Fatal(err)
		}
	}
	if err := down(ctx); err != nil { // waits for the checkpoint over the last leaf
		t.Fatal(err)
	}
	cp, err := reader.ReadCheckpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(cp, []byte("\n— cosigner1 ")) || last.Index != 4 {
		t.Errorf("the log's checkpoint has no cosignature:\n%s", cp)
	}
	kept, err := os.ReadFile(statePath(r.dir, testOrigin))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(kept, []byte(testOrigin+"\n5\n")) {
		t.Errorf("kept is\n%s", kept)
	}
}

// vkeyOf is a cosigner's key in the form of signed notes (type 0x04), made with
// nothing of ours.
func vkeyOf(t *testing.T, name string, pub ed25519.PublicKey) string {
	t.Helper()
	// The verifier of tessera takes the key as type 0x01 and computes the hash of
	// the cosignature from it.
	v, err := note.NewEd25519VerifierKey(name, pub)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestGrowth(t *testing.T) {
	r := newRoom(t)
	log := tree(40, "leaf")
	had := int64(0)
	for _, size := range []int64{1, 2, 2, 3, 7, 8, 8, 40} {
		root, err := log.RootAt(size)
		if err != nil {
			t.Fatal(err)
		}
		var proof []tlog.Hash
		if had > 0 && had < size {
			if proof, err = mod.ProveTree(size, had, log); err != nil {
				t.Fatal(err)
			}
		}
		if status, _, text := r.post(t, body(had, proof, r.note(t, testOrigin, size, root))); status != http.StatusOK || !strings.HasPrefix(text, "— cosigner1 ") {
			t.Fatalf("to %d: %d %s", size, status, text)
		}
		had = size
		r.start(t) // what is kept outlives the process
	}
}

func TestRefusals(t *testing.T) {
	r := newRoom(t)
	log, other := tree(20, "leaf"), tree(20, "other")
	at := func(l *tlog.Tree, n int64) tlog.Hash {
		h, err := l.RootAt(n)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	proof := func(l *tlog.Tree, from, to int64) []tlog.Hash {
		p, err := mod.ProveTree(to, from, l)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if status, _, text := r.post(t, body(0, nil, r.note(t, testOrigin, 10, at(log, 10)))); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	foreign := newRoom(t)
	good := r.note(t, testOrigin, 15, at(log, 15))
	for _, c := range []struct {
		name   string
		body   []byte
		status int
	}{
		{"smaller", body(10, nil, r.note(t, testOrigin, 9, at(log, 9))), http.StatusBadRequest},
		{"smaller with its own old size", body(5, proof(log, 5, 9), r.note(t, testOrigin, 9, at(log, 9))), http.StatusConflict},
		{"another old size", body(9, proof(log, 9, 15), good), http.StatusConflict},
		{"old size zero", body(0, nil, good), http.StatusConflict},
		{"same size, another root", body(10, nil, r.note(t, testOrigin, 10, at(other, 10))), http.StatusConflict},
		{"same size with a proof", body(10, proof(log, 9, 10), r.note(t, testOrigin, 10, at(log, 10))), http.StatusUnprocessableEntity},
		{"no proof", body(10, nil, good), http.StatusUnprocessableEntity},
		{"proof of another log", body(10, proof(other, 10, 15), good), http.StatusUnprocessableEntity},
		{"another history", body(10, proof(other, 10, 15), r.note(t, testOrigin, 15, at(other, 15))), http.StatusUnprocessableEntity},
		{"proof of another step", body(10, proof(log, 9, 15), good), http.StatusUnprocessableEntity},
		{"proof and one more", body(10, append(proof(log, 10, 15), at(log, 1)), good), http.StatusUnprocessableEntity},
		{"unknown log", body(0, nil, r.note(t, "example.com/other", 15, at(log, 15))), http.StatusNotFound},
		{"another key of the same name", body(10, proof(log, 10, 15), foreign.note(t, testOrigin, 15, at(log, 15))), http.StatusForbidden},
		{"no signature", body(10, proof(log, 10, 15), bytes.SplitAfter(good, []byte("\n\n"))[0]), http.StatusForbidden},
		{"altered root", body(10, proof(log, 10, 15), bytes.Replace(good, []byte("\n15\n"), []byte("\n16\n"), 1)), http.StatusForbidden},
		{"empty", nil, http.StatusBadRequest},
		{"no old line", good, http.StatusBadRequest},
		{"old with zeros", bytes.Replace(body(10, nil, good), []byte("old 10"), []byte("old 010"), 1), http.StatusBadRequest},
		{"old negative", bytes.Replace(body(10, nil, good), []byte("old 10"), []byte("old -10"), 1), http.StatusBadRequest},
		{"hash cut", bytes.Replace(body(10, proof(log, 10, 15), good), []byte("=\n"), []byte("\n"), 1), http.StatusBadRequest},
		{"64 hashes", body(10, make([]tlog.Hash, 64), good), http.StatusBadRequest},
		{"too long", append(body(10, proof(log, 10, 15), good), make([]byte, MaxRequestBytes)...), http.StatusRequestEntityTooLarge},
	} {
		status, kind, text := r.post(t, c.body)
		if status != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, status, c.status, text)
		}
		if c.status == http.StatusConflict && (kind != SizeType || text != "10\n") {
			t.Errorf("%s: the conflict says %q of %q", c.name, text, kind)
		}
		if strings.Contains(text, "— ") {
			t.Errorf("%s: refused with a signature: %s", c.name, text)
		}
	}
	if status, _, text := r.post(t, body(10, proof(log, 10, 15), good)); status != http.StatusOK {
		t.Fatalf("the good one after all of them: %d %s", status, text)
	}
}

// Of many that advance at once from the same size, to different histories, one
// goes through.
func TestOneHistoryWins(t *testing.T) {
	r := newRoom(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for i := range 16 {
		name := fmt.Sprintf("history %d", i%4)
		l := tree(5, name)
		n := r.note(t, testOrigin, 5, l.Root())
		wg.Go(func() {
			if status, _, _ := r.post(t, body(0, nil, n)); status == http.StatusOK {
				mu.Lock()
				won[name]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("cosigned: %v", won)
	}
}

func TestWhatIsKeptMustBeReadable(t *testing.T) {
	r := newRoom(t)
	if status, _, text := r.post(t, body(0, nil, r.note(t, testOrigin, 5, tree(5, "x").Root()))); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	path := statePath(r.dir, testOrigin)
	for _, bad := range []string{"", "x", "example.com/other\n5\nAAAA\n\n", testOrigin + "\n-5\n" + strings.Repeat("A", 43) + "=\n\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(r.config); err == nil {
			t.Errorf("started over %q", bad)
		}
		if status, _, text := r.post(t, body(0, nil, r.note(t, testOrigin, 6, tree(6, "x").Root()))); status != http.StatusServiceUnavailable {
			t.Errorf("over %q: %d %s", bad, status, text)
		}
	}
	for name, change := range map[string]func(*Config){
		"no folder":        func(c *Config) { c.Dir = "" },
		"no key":           func(c *Config) { c.Key = nil },
		"no name":          func(c *Config) { c.Name = "" },
		"no logs":          func(c *Config) { c.Logs = nil },
		"bad key":          func(c *Config) { c.Logs = map[string][]string{"x": {"y"}} },
		"log without keys": func(c *Config) { c.Logs = map[string][]string{"x": nil} },
	} {
		c := r.config
		change(&c)
		if _, err := New(c); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOtherPathsAndMethods(t *testing.T) {
	r := newRoom(t)
	for path, want := range map[string]int{"/": http.StatusNotFound, "/add-checkpoint/": http.StatusNotFound, "/add-checkpoint": http.StatusMethodNotAllowed} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("old 0\n\nexample.com/log\n1\n" + strings.Repeat("A", 43) + "=\n\n— x AAAA\n"))
	f.Add([]byte("old 5\n" + strings.Repeat("A", 43) + "=\n\nx\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parse(b)
		if err != nil {
			return
		}
		if again := body(q.old, q.proof, q.note); !bytes.Equal(again, b) {
			t.Errorf("%q re-encodes to %q", b, again)
		}
		if h, err := parseHead(string(q.note)); err == nil && (h.size < 0 || h.origin == "") {
			t.Errorf("head %+v", h)
		}
	})
}
