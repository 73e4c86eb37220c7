package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

const mes = 1001 // the user that the charter knows

// TestEveryCallHasItsEntry: what was done, what was refused and to whom stands in the
// log when the answer is there, without what was secret.
func TestEveryCallHasItsEntry(t *testing.T) {
	b := newBench(t)
	b.open()
	from := b.size()
	for _, c := range []struct {
		name   string
		uid    int
		method engine.Method
		path   string
		body   string
		class  fault.Class
		want   audit.Entry
	}{
		{"write", mes, engine.Write, "kv/data/line1/plc", `{"text":"secret canary"}`, "", audit.Entry{Kind: audit.Request, Identity: "mes", Operation: "update", Path: "kv/data/line1/plc"}},
		{"read", mes, engine.Read, "kv/data/line1/plc", "", "", audit.Entry{Kind: audit.Request, Identity: "mes", Operation: "read", Path: "kv/data/line1/plc"}},
		{"not there", mes, engine.Read, "kv/data/line1/none", "", fault.Policy, audit.Entry{Kind: audit.Refused, Identity: "mes", Operation: "read", Path: "kv/data/line1/none", Class: "policy"}},
		{"not allowed", mes, engine.Read, "kv/data/line2/plc", "", fault.Policy, audit.Entry{Kind: audit.Refused, Identity: "mes", Operation: "read", Path: "kv/data/line2/plc", Class: "policy"}},
		{"unknown", 1002, engine.Read, "kv/data/line1/plc", "", fault.Peer, audit.Entry{Kind: audit.Refused, Operation: "read", Path: "kv/data/line1/plc", Class: "peer"}},
		{"another spelling", mes, engine.Read, "kv/data//line1/plc", "", fault.Usage, audit.Entry{Kind: audit.Refused, Identity: "mes", Operation: "read", Class: "usage"}},
		{"nothing mounted", mes, engine.Read, "secret/data/x", "", fault.Usage, audit.Entry{Kind: audit.Refused, Identity: "mes", Operation: "read", Path: "secret/data/x", Class: "usage"}},
		{"a method that there is not", mes, engine.Delete, "kv/data/line1/plc", "", fault.Usage, audit.Entry{Kind: audit.Refused, Identity: "mes", Operation: "delete", Path: "kv/data/line1/plc", Class: "usage"}},
		{"configuration", mes, engine.Write, "sys/policies/acl/all", `{"policy":"x"}`, fault.Policy, audit.Entry{Kind: audit.Refused, Identity: "mes", Operation: "update", Path: "sys/policies/acl/all", Class: "policy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := b.call(c.uid, c.method, c.path, c.body)
			if fault.ClassOf(err) != c.class {
				t.Fatalf("got %v, want class %q", err, c.class)
			}
			all := b.entries(from)
			if len(all) != 1 {
				t.Fatalf("%d entries", len(all))
			}
			from++
			e := all[0]
			got := audit.Entry{Kind: e.Kind, Identity: e.Identity, Operation: e.Operation, Path: e.Path, Class: e.Class}
			if fmt.Sprint(got) != fmt.Sprint(c.want) || e.Request != r.Request || e.Remote != "192.0.2.7" || e.Charter != b.State.Size() {
				t.Errorf("got %+v, want %+v", e, c.want)
			}
		})
	}
	raw, err := os.ReadFile(b.store().Dir + "/" + seal.FileName)
	b.ok(err)
	if bytes.Contains(raw, []byte("canary")) {
		t.Error("the secret stands in the file")
	}
	for _, e := range b.entries(0) {
		if strings.Contains(fmt.Sprint(e), "canary") {
			t.Errorf("the secret stands in the log: %+v", e)
		}
	}
}

// TestFaultOfTheRequestIsToldToTheKnownOnly: an unknown caller learns nothing of what
// was wrong with what it sent.
func TestFaultOfTheRequestIsToldToTheKnownOnly(t *testing.T) {
	b := newBench(t)
	n := b.open()
	bad := fault.New(fault.Usage, "the body is no JSON")
	_, err := n.Do(t.Context(), Call{Method: engine.Write, RawPath: "kv/data/line1/x", Fault: bad, Peer: identity.Peer{UID: mes}})
	if !errors.Is(err, bad) {
		t.Errorf("known: %v", err)
	}
	for _, path := range []string{"kv/data/line1/x", "auth/cert/login", "%"} {
		_, err = n.Do(t.Context(), Call{Method: engine.Write, RawPath: path, Fault: bad, Peer: identity.Peer{UID: 1}})
		if fault.ClassOf(err) != fault.Peer || errors.Is(err, bad) {
			t.Errorf("unknown at %s: %v", path, err)
		}
	}
}

// TestCharterIsInForceAtOnce: an append is in the file, in the store and in force when
// it returns, engines have founded what it wants in the same transaction, and live
// tokens are judged again.
func TestCharterIsInForceAtOnce(t *testing.T) {
	b := newBench(t)
	n := b.open()
	before := len(b.Charter)
	b.Approve(charter.TypeIdentity, process("scada", 1002))
	b.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeIdentity, ID: "mes"})
	from := b.size()
	st, err := n.Append(t.Context(), bytes.Split(bytes.TrimSuffix(b.Charter[before:], []byte("\n")), []byte("\n")))
	b.ok(err)
	if st.Size() != b.State.Size() || b.inForce().Head() != b.State.Head() {
		t.Errorf("size %d, in force %d", st.Size(), b.inForce().Size())
	}
	if got, _ := os.ReadFile(b.charterFile()); !bytes.Equal(got, b.Charter) {
		t.Error("the file is another")
	}
	if e := b.entries(from); len(e) != 1 || e[0].Kind != audit.Life || e[0].Operation != "charter" {
		t.Errorf("entries %+v", e)
	}
	if got := b.stored("found/kv", "size"); got != fmt.Sprint(st.Size()) {
		t.Errorf("the engine was brought to %s", got)
	}
	if _, err := b.call(mes, engine.Write, "kv/data/line1/x", `{"text":"a"}`); fault.ClassOf(err) != fault.Peer {
		t.Errorf("whose identity was ended: %v", err)
	}
	if _, err := b.call(1002, engine.Write, "kv/data/line1/x", `{"text":"a"}`); err != nil {
		t.Error(err)
	}
}

// TestEndedMountIsCleared: an engine is asked to destroy what ended, also where its
// mount ends in the same append.
func TestEndedMountIsCleared(t *testing.T) {
	b := newBench(t)
	n := b.open()
	before := len(b.Charter)
	b.Approve(charter.TypeMount, charter.Mount{Engine: "kv", ID: "extra"})
	b.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeMount, ID: "extra"})
	st, err := n.Append(t.Context(), b.lines(before))
	b.ok(err)
	if got := b.stored("found/extra", "size"); got != fmt.Sprint(st.Size()) {
		t.Errorf("the engine was brought to %q", got)
	}
	if _, err := b.call(mes, engine.Read, "extra/data/line1/x", ""); err == nil {
		t.Error("it answers")
	}
}

func (b *bench) stored(bucket, key string) string {
	b.t.Helper()
	var out string
	b.ok(b.node.open.store.View(func(v *seal.View) error {
		raw, err := v.Get(bucket, key)
		out = string(raw)
		return err
	}))
	return out
}

// lines gives what was approved since the charter had size bytes.
func (b *bench) lines(since int) [][]byte {
	return bytes.Split(bytes.TrimSuffix(b.Charter[since:], []byte("\n")), []byte("\n"))
}

// TestCharterFileIsFollowed: what 'keyrite charter append' added to the file comes into
// force, and a file that is refused changes nothing and is told of.
func TestCharterFileIsFollowed(t *testing.T) {
	b := newBench(t)
	n := b.open()
	b.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeIdentity, ID: "mes"})
	b.writeCharter()
	await(t, func() bool { return n.Charter().Size() == b.State.Size() })
	if _, err := b.call(mes, engine.Read, "kv/data/line1/x", ""); fault.ClassOf(err) != fault.Peer {
		t.Errorf("whose identity was ended: %v", err)
	}
	if got := b.stored("found/kv", "size"); got != fmt.Sprint(b.State.Size()) {
		t.Errorf("the engine was brought to %s", got)
	}
	size := n.Charter().Size()
	b.ok(os.WriteFile(b.charterFile(), b.Charter[:len(b.Charter)/2], 0o600))
	await(t, func() bool { return n.Status().FileRefused != nil })
	if n.Charter().Size() != size {
		t.Errorf("%d statements in force", n.Charter().Size())
	}
	b.writeCharter()
	await(t, func() bool { return n.Status().FileRefused == nil })
}

func await(t testing.TB, f func() bool) {
	t.Helper()
	tick, end := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it did not happen")
		}
	}
}

// TestAppendThatIsRefusedLeavesNothing: neither in the file nor in the store nor in
// force.
func TestAppendThatIsRefusedLeavesNothing(t *testing.T) {
	b := newBench(t)
	n := b.open()
	size, had := b.inForce().Size(), len(b.Charter)
	good := b.Charter
	b.Approve(charter.TypePipeline, charter.Pipeline{ID: "refused", Key: b.SPKI("pipeline1"), Products: []string{"gw100"}})
	refusedByEngine := b.lines(had)
	alone := bytes.Replace(refusedByEngine[0], []byte(`"sig"`), []byte(`"sig "`), 1)
	for name, lines := range map[string][][]byte{
		"by an engine": refusedByEngine, "not signed": {alone}, "twice": {refusedByEngine[0], refusedByEngine[0]},
		"no statement": {[]byte("{}")}, "one of before": {bytes.Split(good, []byte("\n"))[1]}, "nothing": nil,
	} {
		if _, err := n.Append(t.Context(), lines); err == nil {
			t.Errorf("%s: taken over", name)
		}
		if got, _ := os.ReadFile(b.charterFile()); !bytes.Equal(got, good) {
			t.Fatalf("%s: the file has changed", name)
		}
	}
	if b.inForce().Size() != size {
		t.Errorf("size %d", b.inForce().Size())
	}
	b.shut()
	b.open()
	if b.inForce().Size() != size {
		t.Errorf("after a restart: size %d", b.inForce().Size())
	}
}

// TestCharterOfBeforeIsRefused: a file that is shorter than what the store saw, or
// another one, opens nothing; one that is ahead is taken over.
func TestCharterOfBeforeIsRefused(t *testing.T) {
	b := newBench(t)
	n := b.open()
	had := len(b.Charter)
	short := bytes.Clone(b.Charter)
	b.Approve(charter.TypeIdentity, process("scada", 1002))
	_, err := n.Append(t.Context(), b.lines(had))
	b.ok(err)
	b.shut()

	full := bytes.Clone(b.Charter)
	b.ok(os.WriteFile(b.charterFile(), short, 0o600))
	if err := b.tryOpen(); !errors.Is(err, ErrRolledBack) {
		t.Errorf("shorter: %v", err)
	}
	// Another log of the same length, as signed by the same people.
	other := b.fork(short)
	b.ok(os.WriteFile(b.charterFile(), other, 0o600))
	if err := b.tryOpen(); !errors.Is(err, ErrRolledBack) {
		t.Errorf("forked: %v", err)
	}
	if err := os.Remove(b.charterFile()); err != nil {
		t.Fatal(err)
	}
	if err := b.tryOpen(); err == nil {
		t.Error("without a charter it opens")
	}
	b.ok(os.WriteFile(b.charterFile(), full, 0o600))
	b.Approve(charter.TypeIdentity, process("historian", 1003))
	b.writeCharter()
	b.open()
	if b.inForce().Size() != b.State.Size() || b.stored("found/kv", "size") != fmt.Sprint(b.State.Size()) {
		t.Errorf("ahead: %d statements in force", b.inForce().Size())
	}
}

func (b *bench) inForce() *charter.State {
	b.t.Helper()
	st := b.node.Charter()
	if st == nil {
		b.t.Fatal("the vault is sealed")
	}
	return st
}

func (b *bench) tryOpen() error {
	_, shut, err := b.state().open(b.t.Context())
	if err == nil {
		b.ok(shut())
	}
	return err
}

// fork is the charter in data with another statement than the one that was appended.
func (b *bench) fork(data []byte) []byte {
	w := *b.World
	st, err := charter.Fold(data, b.World.World, b.State.Vault)
	b.ok(err)
	w.State, w.Charter = st, bytes.Clone(data)
	w.Approve(charter.TypeIdentity, process("intruder", 1009))
	return w.Charter
}

// TestIntentsAreLookedUp: one that has its result is closed; one that was cut off is
// told of when the vault is opened, once.
func TestIntentsAreLookedUp(t *testing.T) {
	b := newBench(t)
	n := b.open()
	from := b.size()
	_, err := b.call(mes, engine.Write, "kv/data/line1/x", `{"text":"intend"}`)
	b.ok(err)
	e := b.entries(from)
	if len(e) != 2 || e[0].Kind != audit.Intent || e[1].Kind != audit.Result || e[1].Intent == nil || *e[1].Intent != uint64(from) || e[0].Request != e[1].Request {
		t.Fatalf("entries %+v", e)
	}
	x := &call{vault: n.open, entry: n.open.newEntry(audit.Request), plan: &engine.Plan{}}
	x.entry.Operation = "update"
	x.entry.Path, x.entry.Identity = "kv/data/line1/cut", "mes"
	b.ok(x.intend(t.Context()))
	b.shut()
	b.open()
	last := b.entries(b.size() - 2)
	if last[0].Kind != audit.Result || last[0].Class != "interrupted" || last[0].Request != x.entry.Request || last[0].Path != "kv/data/line1/cut" || b.node.Status().Intents != 1 {
		t.Errorf("entries %+v", last)
	}
	b.shut()
	b.open()
	if b.node.Status().Intents != 0 {
		t.Error("it is told of again")
	}
}

// TestWhatIsTakenWithTheIntent: an engine takes something before it works, in the
// transaction of the intent; where it cannot, nothing is done, and the trail says why.
func TestWhatIsTakenWithTheIntent(t *testing.T) {
	b := newBench(t)
	b.open()
	from := b.size()
	_, err := b.call(mes, engine.Write, "kv/data/line1/x", `{"text":"reserve"}`)
	b.ok(err)
	if _, err := b.call(mes, engine.Write, "kv/data/line1/x", `{"text":"reserve"}`); fault.ClassOf(err) != fault.Quota {
		t.Errorf("taken twice: %v", err)
	}
	var kinds []string
	for _, e := range b.entries(from) {
		kinds = append(kinds, string(e.Kind)+e.Class)
	}
	if want := []string{"intent", "result", "refusedquota"}; !slices.Equal(kinds, want) {
		t.Errorf("entries %q, want %q", kinds, want)
	}
}

// TestFloodOfUnknownCallers: their refusals are written one by one up to a bound, and
// counted beyond it.
func TestFloodOfUnknownCallers(t *testing.T) {
	b := newBench(t)
	n := b.open()
	from := b.size()
	const flood = 500
	var wg sync.WaitGroup
	for range flood / 50 {
		wg.Go(func() {
			for range 50 {
				if _, err := b.call(1, engine.Read, "kv/data/line1/plc", ""); fault.ClassOf(err) != fault.Peer {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	written := b.size() - from
	left := n.Status().LeftOut
	if uint64(written)+left != flood || written > refusalBurst+flood/10 {
		t.Errorf("%d written, %d left out", written, left)
	}
	v := n.open
	v.summary()
	v.summary() // nothing more to say
	e := b.entries(from + written)
	if len(e) != 1 || e[0].Kind != audit.Refused || e[0].Result["left_out"] != float64(left) {
		t.Errorf("entries %+v", e)
	}
	// Who is known is written always.
	from = b.size()
	for range 2 * refusalBurst {
		_, err := b.call(mes, engine.Read, "kv/data/line2/plc", "")
		if !errors.Is(err, access.ErrDenied) {
			t.Fatal(err)
		}
	}
	if b.size()-from != 2*refusalBurst {
		t.Errorf("%d entries", b.size()-from)
	}
}

func TestRefusalsComeBackWithTime(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := newRefusals(func() time.Time { return now })
	for r.take() {
	}
	now = now.Add(10 * refusalEvery)
	n := 0
	for r.take() {
		n++
	}
	if n != 10 {
		t.Errorf("%d entries after the time of 10", n)
	}
}

// TestSeal: calls under way end, then nothing is served, and it can be opened again.
func TestSeal(t *testing.T) {
	b := newBench(t)
	n := b.open()
	r, err := b.call(mes, engine.Write, "auth/unix/login", "")
	b.ok(err)
	token := r.Answer.Auth.Token
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				_, err := b.call(mes, engine.Write, "kv/data/line1/plc", `{"text":"a"}`)
				if err == nil || errors.Is(err, context.Canceled) {
					continue
				}
				if !errors.Is(err, ErrSealed) {
					t.Errorf("got %v", err)
				}
				return
			}
		})
	}
	b.shut()
	wg.Wait()
	if !n.Status().Sealed {
		t.Errorf("status %+v", n.Status())
	}
	if _, err := n.Append(t.Context(), nil); !errors.Is(err, ErrSealed) {
		t.Errorf("append: %v", err)
	}
	b.open()
	if _, err := b.node.Open(t.Context(), Opened{}); !errors.Is(err, ErrOpen) {
		t.Errorf("opened twice: %v", err)
	}
	_, err = b.node.Do(t.Context(), Call{Method: engine.Read, RawPath: "auth/token/lookup-self", Token: token, Peer: identity.Peer{UID: mes}})
	if fault.ClassOf(err) != fault.Peer {
		t.Errorf("with a token of before: %v", err)
	}
	_, err = b.call(mes, engine.Write, "kv/data/line1/plc", `{"text":"b"}`)
	b.ok(err)
	e := b.entries(b.size() - 4)
	if e[0].Operation != "seal" || e[1].Operation != "serve" || e[3].Kind != audit.Request {
		t.Errorf("entries %+v", e)
	}
}

// TestSealByAClient: the entry is written, then the vault is sealed, before the answer.
func TestSealByAClient(t *testing.T) {
	b := newBench(t)
	b.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 2, Rules: []access.Rule{{Path: "sys/seal", Can: []access.Capability{access.Update}}}})
	b.writeCharter()
	n := b.open()
	if _, err := b.call(1002, engine.Write, "sys/seal", ""); fault.ClassOf(err) != fault.Peer || n.Status().Sealed {
		t.Fatalf("unknown: %v", err)
	}
	if _, err := b.call(mes, engine.Write, "sys/seal", ""); err != nil || !n.Status().Sealed {
		t.Fatalf("%v, status %+v", err, n.Status())
	}
}

// forkedHead is a keeper that says, once it is told to, that another copy of the store
// went on: what a store does after it is what it does after a failed sync.
type forkedHead struct {
	seal.Keeper
	mu     sync.Mutex
	forked bool
}

func (k *forkedHead) Advance(ctx context.Context, h seal.Head, c seal.Chain) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.forked {
		return seal.ErrFork
	}
	return k.Keeper.Advance(ctx, h, c)
}

// TestStoreThatStopped: nothing is answered any more, the status says why, and the
// vault can be sealed.
func TestStoreThatStopped(t *testing.T) {
	b := newBench(t)
	c := b.store()
	k := &forkedHead{Keeper: c.Head}
	c.Head = k
	n, shut, err := b.state().openWith(t.Context(), b.state().config(), c)
	b.ok(err)
	b.node = n
	k.mu.Lock()
	k.forked = true
	k.mu.Unlock()
	b.Approve(charter.TypeIdentity, process("scada", 1002))
	_, _ = n.Append(t.Context(), b.lines(bytes.LastIndexByte(b.Charter[:len(b.Charter)-1], '\n')+1)) // strict: the head is asked
	if _, err := b.call(mes, engine.Write, "kv/data/line1/plc", `{"text":"a"}`); !errors.Is(err, seal.ErrStopped) {
		t.Errorf("write: %v", err)
	}
	if _, err := b.call(mes, engine.Read, "kv/data/line2/plc", ""); !errors.Is(err, seal.ErrStopped) {
		t.Errorf("refusal that cannot be written: %v", err)
	}
	if st := n.Status(); !errors.Is(st.Store.Stopped, seal.ErrFork) || st.Sealed {
		t.Errorf("status %+v", st)
	}
	b.ok(shut())
}
