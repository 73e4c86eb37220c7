package node

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// away is a keeper that can be out of reach.
type away struct {
	seal.Keeper
	mu   sync.Mutex
	gone bool
	fall func() // called once, when it is next asked in vain for a log longer than size
	size int64
}

func (k *away) set(gone bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = gone
}

func (k *away) setFall(size int64, fall func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fall, k.size = fall, size
}

func (k *away) Advance(ctx context.Context, h seal.Head, c seal.Chain) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gone {
		if k.fall != nil && h.Size > k.size {
			k.fall()
			k.fall = nil
		}
		return fault.New(fault.Unreachable, "no route to the cosigner")
	}
	return k.Keeper.Advance(ctx, h, c)
}

// openAway opens the vault with such a keeper and a clock that is set; the head may be an
// hour behind.
func (b *bench) openAway() (*Node, *away, *clocks) {
	b.t.Helper()
	c := b.store()
	keeper := &away{Keeper: c.Head}
	clock := &clocks{host: time.Now()}
	c.Head, c.Now, c.Window = keeper, clock.now, time.Hour
	n, shut, err := b.state().openWith(b.t.Context(), b.state().config(), c)
	b.ok(err)
	b.node, b.shut = n, sync.OnceFunc(func() { _ = shut() })
	b.t.Cleanup(b.shut)
	return n, keeper, clock
}

// TestTakeoverWhileNothingIsWritten: a charter that could not be written, since the head
// is behind, is not in force either, neither from a caller nor from the file, and comes
// into force when it can be.
func TestTakeoverWhileNothingIsWritten(t *testing.T) {
	b := newBench(t)
	n, keeper, clock := b.openAway()

	keeper.set(true)
	_, err := b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"x"}`)
	b.ok(err) // within the window
	clock.set(clock.now().Add(2*time.Hour), time.Time{})
	size, before := n.Charter().Size(), len(b.Charter)
	file, err := os.ReadFile(b.charterFile())
	b.ok(err)
	b.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "mes", Type: charter.TypeIdentity})
	if _, err := n.Append(t.Context(), b.lines(before)); !errors.Is(err, seal.ErrLagging) {
		t.Fatalf("appended: %v", err)
	}
	after, err := os.ReadFile(b.charterFile())
	b.ok(err)
	if n.Charter().Size() != size || string(after) != string(file) {
		t.Errorf("a charter of %d is in force, the file has %d bytes more", n.Charter().Size(), len(after)-len(file))
	}
	b.writeCharter() // as others append to it
	n.open.follow(t.Context())
	if n.Charter().Size() != size {
		t.Error("the file's charter is in force, and nothing was written")
	}
	keeper.set(false)
	n.open.follow(t.Context())
	if n.Charter().Size() != size+1 {
		t.Errorf("the charter of %d statements is not taken over once it can be", size+1)
	}
	if _, err := b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"y"}`); err == nil {
		t.Error("whose identity ended may still write")
	}
}

// TestNothingIsDecidedBehindATakeover: what comes after the transaction of a takeover
// and before its charter is in force is refused, not decided by the charter before.
func TestNothingIsDecidedBehindATakeover(t *testing.T) {
	b := newBench(t)
	b.open()
	v := b.node.open
	v.coming.Store(int64(v.charter().Size()) + 1)
	if _, err := b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"x"}`); !errors.Is(err, ErrTakingOver) {
		t.Errorf("decided: %v", err)
	}
	v.coming.Store(int64(v.charter().Size()))
	_, err := b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"x"}`)
	b.ok(err)
}

// taken is whether the engine has something as taken.
func (b *bench) taken(key string) (yes bool) {
	b.t.Helper()
	b.ok(b.node.open.store.View(func(v *seal.View) error {
		_, err := v.Get("taken/kv", key)
		yes = err == nil
		return nil
	}))
	return yes
}

// TestUnconfirmedIntentIsUndone: where the head does not get to know of an intent the
// work is never done, and what was taken is given back, at once or, while nothing can be
// written, as soon as something can; the log says so. Work that was done gives nothing
// back.
func TestUnconfirmedIntentIsUndone(t *testing.T) {
	b := newBench(t)
	n, keeper, clock := b.openAway()
	worked := n.open.force.Load().engines["kv"].(*notes).worked
	undone := func(from int64, path string) {
		t.Helper()
		got := b.entries(from)
		last := got[len(got)-1]
		if last.Kind != audit.Result || last.Path != path || last.Class != string(fault.Unreachable) || last.Result["undone"] != path {
			t.Errorf("the log ends with %+v", last)
		}
		open, err := n.open.journal.Open()
		if err != nil || len(open) > 0 || worked.Load() != 0 || b.taken(path) {
			t.Errorf("%d open intents, %d worked, taken: %v, %v", len(open), worked.Load(), b.taken(path), err)
		}
	}
	from := b.size()
	keeper.set(true)
	if _, err := b.call(1001, engine.Write, "kv/data/line1/a", `{"text":"worked"}`); !errors.Is(err, seal.ErrUnconfirmed) {
		t.Fatalf("asked while the head is out of reach: %v", err)
	}
	undone(from, "kv/data/line1/a")

	from = b.size()
	keeper.setFall(from, func() { clock.set(clock.now().Add(2*time.Hour), time.Time{}) }) // until the undo is written
	if _, err := b.call(1001, engine.Write, "kv/data/line1/b", `{"text":"worked"}`); !errors.Is(err, seal.ErrLagging) {
		t.Fatalf("asked while the head falls behind: %v", err)
	}
	if !b.taken("kv/data/line1/b") || n.Status().Owed != 1 {
		t.Errorf("nothing can be written: taken %v, owed %d", b.taken("kv/data/line1/b"), n.Status().Owed)
	}
	keeper.set(false)
	_, err := b.call(1001, engine.Write, "kv/data/line1/c", `{"text":"x"}`) // the head is reached again
	b.ok(err)
	for deadline := time.Now().Add(time.Minute); n.Status().Owed > 0 && time.Now().Before(deadline); {
		<-time.After(10 * time.Millisecond)
	}
	undone(from, "kv/data/line1/b")

	if _, err := b.call(1001, engine.Write, "kv/data/line1/b", `{"text":"broken"}`); fault.ClassOf(err) != fault.Token {
		t.Fatalf("the work failed: %v", err)
	}
	if !b.taken("kv/data/line1/b") || worked.Load() != 1 {
		t.Error("the work was begun, and what it took is given back")
	}
}

// TestStatusSaysWhy: whoever may ask for the status learns why the head is behind.
func TestStatusSaysWhy(t *testing.T) {
	b := newBench(t)
	b.Approve(charter.TypePolicy, charter.Policy{ID: "looks", Version: 1, Rules: []access.Rule{{Path: "keyrite/status", Can: []access.Capability{access.Read}}}})
	b.Approve(charter.TypeIdentity, charter.Identity{ID: "auditor", Policies: []string{"looks"}, TTL: 60, Unix: &charter.Unix{UID: 1002}})
	b.writeCharter()
	_, keeper, _ := b.openAway()
	keeper.set(true)
	_, _ = b.call(1001, engine.Write, "kv/data/line1/a", `{"text":"worked"}`)
	r, err := b.call(1002, engine.Read, "keyrite/status", "")
	b.ok(err)
	store, _ := r.Answer.Data.(map[string]any)["store"].(map[string]any)
	if store["keeper"] != "no route to the cosigner" {
		t.Errorf("store: %v", store)
	}
}
