package lease_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/trail"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/lease"
	"keyrite/vault/seal"
)

// things is an engine that gives out things and counts, in the store, how often each
// was ended.
type things struct {
	mu     sync.Mutex // guards broken
	broken map[string]bool
}

func (*things) Plan(*engine.Request) (*engine.Plan, error) { return nil, engine.ErrNoPath }

var errBroken = errors.New("this thing does not end")

func (e *things) End(tx *seal.Tx, object string, _ time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken[object] {
		return errBroken
	}
	n, err := count(tx, object)
	if err != nil {
		return err
	}
	return tx.Put("ended", object, fmt.Append(nil, n+1))
}

func (e *things) setBroken(object string, broken bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = map[string]bool{object: broken}
}

type getter interface {
	Get(bucket, key string) ([]byte, error)
}

func count(s getter, object string) (int, error) {
	raw, err := s.Get("ended", object)
	if errors.Is(err, seal.ErrNotFound) {
		return 0, nil
	}
	var n int
	if err == nil {
		_, err = fmt.Sscan(string(raw), &n)
	}
	return n, err
}

// tokens says which tokens are out, and until when.
type tokens struct {
	mu   sync.Mutex // guards ends
	ends map[string]time.Time
}

func (t *tokens) Gone(a string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	end, ok := t.ends[a]
	return !ok || !time.Now().Before(end)
}

func (t *tokens) End(a string) (time.Time, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if end, ok := t.ends[a]; ok {
		return end, nil
	}
	return time.Time{}, errors.New("no such token")
}

func (t *tokens) set(a string, life time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ends == nil {
		t.ends = map[string]time.Time{}
	}
	t.ends[a] = time.Now().Add(life)
}

func (t *tokens) revoke(a string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ends, a)
}

// bench is a book over a store.
type bench struct {
	t      testing.TB
	store  *seal.Store
	book   *lease.Book
	things *things
	tokens *tokens

	stop func() // ends the worker

	mu    sync.Mutex // guards the rest
	step  time.Duration
	state *charter.State
}

// founded is a charter with the identities "mes" and "job".
func founded(t testing.TB) (*artifacttest.World, *charter.State) {
	t.Helper()
	w := artifacttest.New(t)
	w.Approve(charter.TypeMount, charter.Mount{Engine: "kv", ID: "thing"})
	w.Approve(charter.TypePolicy, charter.Policy{ID: "p", Version: 1, Rules: []access.Rule{{Path: "thing/*", Can: []access.Capability{access.Read}}}})
	for i, id := range []string{"mes", "job"} {
		w.Approve(charter.TypeIdentity, charter.Identity{ID: id, Policies: []string{"p"}, TTL: 600, Unix: &charter.Unix{UID: 1000 + i}})
	}
	return w, fold(t, w)
}

// fold is the charter as it is now, which later statements do not change.
func fold(t testing.TB, w *artifacttest.World) *charter.State {
	t.Helper()
	s, err := charter.Fold(w.Charter, w.World, w.Anchors.Vault)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// without is the charter after an identity was ended.
func without(t testing.TB, w *artifacttest.World, id string) *charter.State {
	t.Helper()
	w.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: id, Type: charter.TypeIdentity})
	return fold(t, w)
}

// newBench is a book over a new store. In a bubble of synctest all of it is made there.
func newBench(t testing.TB, state *charter.State) *bench {
	t.Helper()
	b := &bench{t: t, things: &things{}, tokens: &tokens{}, state: state}
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	k, err := seal.NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	c, err := storeConfig(dir, state.World)
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.Create(t.Context(), c, k, map[string]string{"did": "create"}); err != nil {
		t.Fatal(err)
	}
	if b.store, err = seal.Open(t.Context(), c, k); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.store.Close() })
	b.reopen()
	return b
}

func storeConfig(dir string, w world.World) (seal.Config, error) {
	keeper, err := seal.NewFileKeeper(filepath.Join(dir, "head"), w)
	return seal.Config{Dir: dir, Place: seal.Place{Vault: [32]byte{1}, World: w, Epoch: 1}, Head: keeper, Check: func(_ context.Context, path string) (seal.Counted, error) { return seal.Check(path) }}, err
}

// reopen makes the book anew, as after a restart: no token is known any more.
func (b *bench) reopen() {
	b.t.Helper()
	if b.stop != nil {
		b.stop()
	}
	var err error
	b.book, err = lease.New(lease.Config{
		Charter: b.charter, View: b.store.View, Journal: audit.NewJournal(b.store), Now: b.now, Tokens: b.tokens,
		Engine: func(mount string) engine.Engine {
			if mount == "thing" {
				return b.things
			}
			return nil
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// run starts the worker.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.book.Run(ctx)
	}()
	b.stop = func() { cancel(); <-ended }
}

func (b *bench) charter() *charter.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

func (b *bench) setCharter(s *charter.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = s
}

// now is the clock on the wall, which may have been set.
func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.step)
}

func (b *bench) setClock(step time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.step = step
}

// do makes an effect with its entry.
func (b *bench) do(effect func(*seal.Tx) error) error {
	_, err := audit.NewJournal(b.store).Do(context.Background(), seal.Durable, &audit.Entry{Kind: audit.Request, Operation: "update", Time: trail.FormatTime(time.Now())}, effect)
	return err
}

func (b *bench) path(s string) access.Path {
	b.t.Helper()
	p, err := access.ParsePath(s)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// issue gives a thing out and returns the id of its lease.
func (b *bench) issue(c engine.Caller, object string, ttl time.Duration) *engine.Lease {
	b.t.Helper()
	l := &engine.Lease{TTL: ttl, Renewable: true, Object: object}
	if err := b.do(func(tx *seal.Tx) error { return b.book.Issue(tx, c, b.path("thing/a"), l) }); err != nil {
		b.t.Fatal(err)
	}
	return l
}

func (b *bench) own(c engine.Caller, op, id string, more map[string]any) (*engine.Answer, error) {
	b.t.Helper()
	p := map[string]any{"lease_id": id}
	maps.Copy(p, more)
	plan, err := b.book.Own(c, op, params(b.t, p))
	if err != nil {
		return nil, err
	}
	return b.made(plan)
}

func (b *bench) ask(m engine.Method, path string) (*engine.Answer, error) {
	b.t.Helper()
	plan, err := b.book.Plan(&engine.Request{Method: m, Path: b.path("sys/" + path), Rest: strings.Split(path, "/"), Now: b.now()})
	if err != nil {
		return nil, err
	}
	if plan.Needs == "" {
		b.t.Errorf("%s needs no capability", path)
	}
	return b.made(plan)
}

func (b *bench) made(plan *engine.Plan) (a *engine.Answer, err error) {
	if plan.Work != nil {
		if err := plan.Work(b.t.Context()); err != nil {
			return nil, err
		}
	}
	err = b.do(func(tx *seal.Tx) (err error) {
		a, err = plan.Apply(tx)
		return err
	})
	return a, err
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

// ended is how often a thing was ended.
func (b *bench) ended(object string) int {
	b.t.Helper()
	var n int
	if err := b.store.View(func(v *seal.View) (err error) {
		n, err = count(v, object)
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// leases are those in the store.
func (b *bench) leases() []string {
	b.t.Helper()
	var out []string
	if err := b.store.View(func(v *seal.View) error {
		out = v.Keys("lease", "")
		return nil
	}); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func mes() engine.Caller { return engine.Caller{Identity: "mes", Means: "cert", Bound: true} }

func job(accessor string) engine.Caller {
	return engine.Caller{Identity: "job", Means: "jwt", Accessor: accessor}
}
