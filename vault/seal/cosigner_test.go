package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/vault/cosigner"
)

// away is a cosigner on "another machine", and who asks it.
type away struct {
	server *httptest.Server
	keeper CosignerConfig
	serve  atomic.Pointer[http.Handler]
}

func newAway(t *testing.T) *away {
	t.Helper()
	_, log, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := note.NewEd25519VerifierKey("vault1", log.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	place := testPlace()
	c, err := cosigner.New(cosigner.Config{
		Dir: t.TempDir(), Name: "cosigner1", Key: key,
		Logs: map[string][]string{"keyrite/store/" + hex.EncodeToString(place.Vault[:]): {vkey}},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &away{}
	a.answer(c)
	a.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*a.serve.Load()).ServeHTTP(w, r) }))
	t.Cleanup(a.server.Close)
	client := a.server.Client()
	client.Timeout = 5 * time.Second
	a.keeper = CosignerConfig{URL: a.server.URL, Client: client, Cosigner: tlog.Signer{Name: "cosigner1", Public: pub}, LogName: "vault1", LogKey: log}
	return a
}

func (a *away) answer(h http.Handler) { a.serve.Store(&h) }

func (a *away) new(t *testing.T) *CosignerKeeper {
	t.Helper()
	k, err := NewCosignerKeeper(a.keeper)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// awayBench is a store whose head is kept there.
func awayBench(t *testing.T, a *away) (*bench, func() (*Store, *CosignerKeeper, error)) {
	t.Helper()
	k, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	b := &bench{dir: t.TempDir(), head: filepath.Join(t.TempDir(), "none"), key: k, place: testPlace()}
	config := func(keeper Keeper) Config {
		c := b.config(t)
		c.Head = keeper
		return c
	}
	if err := Create(t.Context(), config(a.new(t)), k, "create"); err != nil {
		t.Fatal(err)
	}
	return b, func() (*Store, *CosignerKeeper, error) {
		keeper := a.new(t) // a process that starts knows nothing of the last one
		s, err := Open(t.Context(), config(keeper), k)
		return s, keeper, err
	}
}

func TestHeadAtACosigner(t *testing.T) {
	a := newAway(t)
	b, open := awayBench(t, a)
	var copies [][]byte
	for i := range 12 {
		s, keeper, err := open()
		if err != nil {
			t.Fatal(err)
		}
		for j := range i {
			put(t, s, Durable, "kv", fmt.Sprint(j), "x")
		}
		put(t, s, Strict, "kv", "last", fmt.Sprint(i))
		if !bytes.Contains(keeper.Checkpoint(), []byte("\n— cosigner1 ")) {
			t.Errorf("no cosignature:\n%s", keeper.Checkpoint())
		}
		if at := keeper.Vouched(); time.Since(at).Abs() > time.Hour {
			t.Errorf("the cosigner vouches for %v", at)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(b.file())
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, raw)
	}
	for i, raw := range copies {
		if err := os.WriteFile(b.file(), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, err := open()
		if i == len(copies)-1 {
			if err != nil {
				t.Fatalf("the newest copy: %v", err)
			}
			_ = s.Close()
		} else if !errors.Is(err, ErrBehind) {
			t.Errorf("copy %d: %v", i, err)
		}
	}
}

// An older store is not taken back where the cosigner has more, by no rehead either, which
// leaves it as it was; and with a new cosigner only if it is the one that is named.
func TestCosignerLost(t *testing.T) {
	a := newAway(t)
	b, open := awayBench(t, a)
	older, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := open()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, Strict, "kv", "lost", "x")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.file(), older, 0o600); err != nil {
		t.Fatal(err)
	}
	rehead := func() error {
		c := b.config(t)
		c.Head = a.new(t)
		return Rehead(t.Context(), c, b.key, "rehead")
	}
	for range 3 {
		if err := rehead(); !errors.Is(err, ErrBehind) || !strings.Contains(fault.HintOf(err), "docs/operations/vault.md") {
			t.Errorf("rehead: %v", err)
		}
	}
	lost, named := a.keeper, newAway(t)
	a.keeper.URL, a.keeper.Client = named.keeper.URL, named.keeper.Client // it answers, with its own key
	a.keeper.LogName, a.keeper.LogKey = named.keeper.LogName, named.keeper.LogKey
	if _, _, err := open(); fault.ClassOf(err) != fault.Peer {
		t.Errorf("one that nobody named: %v", err)
	}
	if err := rehead(); fault.ClassOf(err) != fault.Peer {
		t.Errorf("rehead to one that nobody named: %v", err)
	}
	a.keeper.Cosigner = named.keeper.Cosigner
	s, _, err = open()
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Head().Size; n != 1 {
		t.Errorf("%d entries, as if a rehead that was refused had written one", n)
	}
	put(t, s, Strict, "kv", "a", "new")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	a.keeper = lost
	if _, _, err := open(); err == nil {
		t.Error("the one of before takes another history")
	}
}

func TestForkMeetsTheCosigner(t *testing.T) {
	a := newAway(t)
	b, open := awayBench(t, a)
	raw, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := open()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, Strict, "kv", "a", "one")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The copy of before goes on without being able to ask, and then asks.
	if err := os.WriteFile(b.file(), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	c := b.config(t)
	alone, err := Open(t.Context(), c, b.key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		put(t, alone, Strict, "kv", "a", fmt.Sprint(i))
	}
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(); !errors.Is(err, ErrFork) {
		t.Errorf("another history: %v", err)
	}
}

// anyChain proves anything, for answers that do not look at the proof.
type anyChain struct{}

func (anyChain) RootAt(int64) (tlog.Hash, error)       { return tlog.Hash{}, nil }
func (anyChain) Prove(_, _ int64) ([]tlog.Hash, error) { return nil, nil }

// Whatever comes back, nothing counts as kept without the cosignature.
func TestCosignerThatMisbehaves(t *testing.T) {
	a := newAway(t)
	_, open := awayBench(t, a)
	s, keeper, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := keeper.Checkpoint()
	reply := func(status int, kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			fmt.Fprint(w, text)
		}
	}
	good := *a.serve.Load()
	h := s.Head()
	h.Size++ // not asked for before
	for name, c := range map[string]struct {
		handler http.Handler
		class   fault.Class
	}{
		"nothing":            {reply(200, "text/plain", ""), fault.Peer},
		"another line":       {reply(200, "text/plain", "— cosigner1 AAAA\n"), fault.Peer},
		"old cosignature":    {reply(200, "text/plain", string(before[bytes.Index(before, []byte("— cosigner1")):])), fault.Peer},
		"page":               {reply(200, "text/html", "<html>"), fault.Peer},
		"redirect to itself": {http.RedirectHandler("/add-checkpoint", http.StatusTemporaryRedirect), fault.Unreachable},
		"busy":               {reply(503, "text/plain", "later"), fault.Unreachable},
		"unknown":            {reply(404, "text/plain", "no"), fault.Policy},
		"conflict, no size":  {reply(409, "text/plain", "12\n"), fault.Unreachable},
		"conflict, not one":  {reply(409, cosigner.SizeType, "many\n"), fault.Unreachable},
		"beyond":             {reply(409, cosigner.SizeType, "1000000\n"), fault.Verify},
		"unprocessable":      {reply(422, "text/plain", "no"), fault.Verify},
	} {
		a.answer(c.handler)
		err := keeper.Advance(t.Context(), h, anyChain{})
		if fault.ClassOf(err) != c.class {
			t.Errorf("%s: class %q, want %q: %v", name, fault.ClassOf(err), c.class, err)
		}
		if !bytes.Equal(keeper.Checkpoint(), before) {
			t.Errorf("%s: counts as kept", name)
		}
	}
	a.answer(good)
	put(t, s, Strict, "kv", "a", "after all of that")
}

func TestCosignerConfigIsChecked(t *testing.T) {
	a := newAway(t)
	for name, change := range map[string]func(*CosignerConfig){
		"plain http":  func(c *CosignerConfig) { c.URL = "http://cosigner.example.com/" },
		"by name":     func(c *CosignerConfig) { c.URL = "http://localhost:1/" },
		"no host":     func(c *CosignerConfig) { c.URL = "https:///x" },
		"other":       func(c *CosignerConfig) { c.URL = "ftp://127.0.0.1/" },
		"no client":   func(c *CosignerConfig) { c.Client = nil },
		"no timeout":  func(c *CosignerConfig) { c.Client = &http.Client{} },
		"no log key":  func(c *CosignerConfig) { c.LogKey = nil },
		"no cosigner": func(c *CosignerConfig) { c.Cosigner = tlog.Signer{} },
	} {
		c := a.keeper
		change(&c)
		if _, err := NewCosignerKeeper(c); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}
