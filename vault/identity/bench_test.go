package identity_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/internal/redact"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

// bench is a vault with a charter, a store and a registry.
type bench struct {
	*artifacttest.World
	t     testing.TB
	reg   *identity.Registry
	store *seal.Store
	away  *enginetest.Away // keeps its head
	dir   string           // of the store

	mu    sync.Mutex // guards state and now
	state *charter.State
	now   func() time.Time
	ended []string // accessors told to Ended
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{World: artifacttest.New(t), t: t, now: time.Now}
	b.decide(charter.TypeMount, charter.Mount{Engine: "kv", ID: "kv"})
	b.decide(charter.TypePolicy, charter.Policy{ID: "reader", Version: 1, Rules: []access.Rule{{Path: "kv/data/*", Can: []access.Capability{access.Read}}}})
	b.away = &enginetest.Away{}
	b.store, b.dir = newStore(t, b.World, b.away)
	var err error
	b.reg, err = identity.New(identity.Config{
		Charter: b.charter, View: b.store.View,
		Now: func() time.Time { b.mu.Lock(); defer b.mu.Unlock(); return b.now() },
		Ended: func(_ *seal.Tx, accessor string, _ time.Time) error {
			b.ended = append(b.ended, accessor)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// other is a registry of the same charter without a store, for a bubble of synctest.
func (b *bench) other(t *testing.T) *identity.Registry {
	t.Helper()
	r, err := identity.New(identity.Config{Charter: b.charter, View: func(func(*seal.View) error) error { return nil }, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newStore(t testing.TB, w *artifacttest.World, away *enginetest.Away) (*seal.Store, string) {
	t.Helper()
	k, err := seal.NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	keeper, err := seal.NewFileKeeper(filepath.Join(dir, "head"), w.World)
	if err != nil {
		t.Fatal(err)
	}
	away.Keeper = keeper
	// The head may be behind for an hour, whatever the machine does meanwhile.
	c := seal.Config{Dir: dir, Place: seal.Place{Vault: [32]byte{1}, World: w.World, Epoch: 1}, Head: away, Window: time.Hour, Check: func(_ context.Context, path string) (seal.Counted, error) { return seal.Check(path) }}
	if err := seal.Create(t.Context(), c, k, map[string]string{"did": "create"}); err != nil {
		t.Fatal(err)
	}
	s, err := seal.Open(t.Context(), c, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, dir
}

// charter is the one in force: a fold of its own, since the world goes on with its.
func (b *bench) charter() *charter.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// decide appends a statement and takes the charter over.
func (b *bench) decide(typ string, body any) {
	b.t.Helper()
	b.Approve(typ, body)
	s, err := charter.Fold(b.Charter, b.World.World, b.Anchors.Vault)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	b.state = s
	b.mu.Unlock()
	if b.reg != nil {
		b.reg.CharterChanged()
	}
}

func (b *bench) end(id string) {
	b.t.Helper()
	b.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: id, Type: charter.TypeIdentity})
}

// at sets the clock, with its monotonic reading, d from now on.
func (b *bench) at(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := time.Now().Add(d)
	b.now = func() time.Time { return t }
}

func lifeEntry() *audit.Entry {
	return &audit.Entry{Kind: audit.Life, Operation: "charter", Time: trail.FormatTime(time.Now())}
}

// do makes the effect of a plan with its entry in the log.
func (b *bench) do(p *engine.Plan) (*engine.Answer, error) {
	var out *engine.Answer
	promise := seal.Durable
	if p.Strict {
		promise = seal.Strict
	}
	_, err := audit.NewJournal(b.store).Do(context.Background(), promise, &audit.Entry{Kind: audit.Request, Operation: string(p.Needs), Params: p.Shown, Time: trail.FormatTime(time.Now())}, func(tx *seal.Tx) (err error) {
		out, err = p.Apply(tx)
		return err
	})
	return out, err
}

func (b *bench) login(means string, p engine.Params, peer identity.Peer) (*engine.Auth, error) {
	plan, err := b.reg.Login(means, p, peer)
	if err != nil {
		return nil, err
	}
	a, err := b.do(plan)
	if err != nil {
		return nil, err
	}
	return a.Auth, nil
}

func (b *bench) mustLogin(means string, p engine.Params, peer identity.Peer) *engine.Auth {
	b.t.Helper()
	a, err := b.login(means, p, peer)
	if err != nil {
		b.t.Fatalf("login by %s: %v (%s)", means, err, cause(err))
	}
	return a
}

func params(t testing.TB, v any) engine.Params {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var p engine.Params
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// cause is why, as the audit has it.
func cause(err error) string {
	if r, ok := errors.AsType[*identity.Refusal](err); ok {
		return r.Cause()
	}
	return ""
}

// wantRefused checks that the error tells nothing but that it is refused.
func wantRefused(t testing.TB, err error) {
	t.Helper()
	var r *identity.Refusal
	if !errors.As(err, &r) || !errors.Is(err, identity.ErrUnknown) || err.Error() != identity.ErrUnknown.Error() || fault.ClassOf(err) != fault.Peer || fault.HintOf(err) != "" || r.Cause() == "" {
		t.Errorf("%v (class %q, cause %q), want the refusal that everybody gets", err, fault.ClassOf(err), cause(err))
	}
}

func secret(s string) redact.Secret { return *redact.New([]byte(s)) }

func network() identity.Peer { return identity.Peer{Remote: netip.MustParseAddr("10.1.2.3"), UID: -1} }

func withCert(certs ...*x509.Certificate) identity.Peer {
	p := network()
	p.Certificates = certs
	return p
}

func onHost(uid int) identity.Peer { return identity.Peer{UID: uid} }

func unixIdentity(id string, uid int) charter.Identity {
	return charter.Identity{ID: id, Policies: []string{"reader"}, TTL: 600, Unix: &charter.Unix{UID: uid}}
}
