package node

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// clocks are the host's clock and that of the cosigner, which tests move.
type clocks struct {
	mu            sync.Mutex
	host, outside time.Time
}

func (c *clocks) set(host, outside time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.host, c.outside = host, outside
}

func (c *clocks) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.host
}

// vouching keeps the head and says what time it is outside.
type vouching struct {
	seal.Keeper
	c *clocks
}

func (k vouching) Vouched() time.Time {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.c.outside
}

// openWith opens the vault with those clocks.
func (b *bench) openWith(c *clocks) {
	b.t.Helper()
	cfg, store := b.state().config(), b.store()
	cfg.Now, store.Head = c.now, vouching{store.Head, c}
	n, shut, err := b.state().openWith(b.t.Context(), cfg, store)
	b.ok(err)
	b.shut = sync.OnceFunc(func() { b.ok(shut()) })
	b.t.Cleanup(b.shut)
	b.node = n
}

// mes writes to a path that its policy says nothing about.
func (b *bench) mes(path string) error {
	_, err := b.call(1001, engine.Write, path, `{"text":"x"}`)
	return err
}

// operations counts the entries of an operation.
func (b *bench) operations(op string) (n int) {
	b.t.Helper()
	for _, e := range b.entries(0) {
		if e.Operation == op {
			n++
		}
	}
	return n
}

// TestDelegation: so many uses, to the one, of the one path, until its end by any
// clock; also uses that come to nothing count, and a restart gives none back.
func TestDelegation(t *testing.T) {
	b := newBench(t)
	now := artifacttest.Now().Add(time.Minute)
	b.Approve(charter.TypeDelegation, charter.Delegation{
		Can: access.Update, Expires: charter.FormatTime(now.Add(time.Hour)), ID: "night", Identity: "mes", Path: "kv/data/line2/plc", Uses: 3,
	})
	b.writeCharter()
	c := &clocks{host: now, outside: now}
	b.openWith(c)
	b.ok(b.mes("kv/data/line2/plc"))
	for _, path := range []string{"kv/data/line2/plc2", "kv/data/line2", "kv/data/line2/plc/x"} {
		if err := b.mes(path); !errors.Is(err, access.ErrDenied) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := b.call(1001, engine.Read, "kv/data/line2/plc", ""); !errors.Is(err, access.ErrDenied) {
		t.Errorf("another capability: %v", err)
	}
	b.ok(b.mes("kv/data/line1/plc")) // what its own policy gives uses nothing
	if _, err := b.call(1001, engine.Write, "kv/data/line2/plc", `{"text":"x","batch_input":[{},{}]}`); !errors.Is(err, access.ErrDenied) {
		t.Errorf("many operations for one use: %v", err)
	}
	b.shut()
	b.openWith(c)
	b.ok(b.mes("kv/data/line2/plc"))
	for name, at := range map[string][2]time.Duration{"the host's": {time.Hour, 0}, "the cosigner's": {0, time.Hour}} {
		c.set(now.Add(at[0]), now.Add(at[1]))
		if err := b.mes("kv/data/line2/plc"); !errors.Is(err, access.ErrDenied) {
			t.Errorf("after its end by %s clock: %v", name, err)
		}
	}
	c.set(now, now)
	b.ok(b.mes("kv/data/line2/plc"))
	if err := b.mes("kv/data/line2/plc"); !errors.Is(err, ErrSpent) || fault.ClassOf(err) != fault.Quota {
		t.Errorf("the fourth use: %v", err)
	}
	if n := b.operations("delegation"); n != 3 {
		t.Errorf("%d entries of uses", n)
	}
	if e := b.entries(b.size() - 1)[0]; e.Kind != audit.Refused || e.Class != "quota" {
		t.Errorf("the fourth use left %+v", e)
	}
}

// TestNobodyVouches: a live vault whose head is kept where nobody vouches for a time, as
// in a TPM, refuses what is delegated, and says that it does.
func TestNobodyVouches(t *testing.T) {
	b := newBench(t)
	b.Approve(charter.TypeDelegation, charter.Delegation{
		Can: access.Update, Expires: charter.FormatTime(time.Now().Add(time.Hour)), ID: "night", Identity: "mes", Path: "kv/data/line2/plc", Uses: 3,
	})
	b.writeCharter()
	told := func(w world.World) ([]duty.Item, error) {
		t.Helper()
		n, shut, err := b.state().openWith(t.Context(), b.state().config(), b.store())
		b.ok(err)
		defer func() { b.ok(shut()) }()
		b.node, n.open.cfg.World = n, w // a live charter cannot be founded in a test
		items, err := n.Due()
		b.ok(err)
		return slices.DeleteFunc(slices.Clone(items), func(x duty.Item) bool { return x.Kind != duty.Unvouched }), b.mes("kv/data/line2/plc")
	}
	if items, err := told(world.Live); !errors.Is(err, access.ErrDenied) || len(items) != 1 || items[0].ID != "unvouched/delegation/night" || items[0].Level != duty.Late {
		t.Errorf("live: %v, %+v", err, items)
	}
	if items, err := told(b.World.World); err != nil || len(items) != 0 {
		t.Errorf("in a rehearsal: %v, %+v", err, items)
	}
}

// TestDelegationsAtOnce: callers at the same time do not have more uses together.
func TestDelegationsAtOnce(t *testing.T) {
	b := newBench(t)
	now := artifacttest.Now().Add(time.Minute)
	b.Approve(charter.TypeDelegation, charter.Delegation{
		Can: access.Update, Expires: charter.FormatTime(now.Add(time.Hour)), ID: "night", Identity: "mes", Path: "kv/data/line2/plc", Uses: 5,
	})
	b.writeCharter()
	b.openWith(&clocks{host: now, outside: now})
	errs := make(chan error, 40)
	for range cap(errs) {
		go func() { errs <- b.mes("kv/data/line2/plc") }()
	}
	good := 0
	for range cap(errs) {
		switch err := <-errs; {
		case err == nil:
			good++
		case !errors.Is(err, ErrSpent):
			t.Error(err)
		}
	}
	if good != 5 {
		t.Errorf("%d uses of 5", good)
	}
}

// pullGlass founds a vault whose break-glass lets mes write anywhere in kv an hour
// after it was pulled.
func pullGlass(t *testing.T) (*bench, *clocks, time.Time) {
	b := newBench(t)
	b.Approve(charter.TypeBreakGlass, charter.BreakGlass{
		Delay: 3600, Duration: 600, ID: "emergency", Identity: "mes", People: charter.Set{Need: 2, Members: []string{"master1", "witness1"}},
		Rules: []access.Rule{{Can: []access.Capability{access.Update}, Path: "kv/data/*"}},
	})
	b.writeCharter()
	now := artifacttest.Now().Add(24 * time.Hour)
	c := &clocks{host: now, outside: now}
	b.openWith(c)
	return b, c, now
}

// pull has the break-glass pulled, by a statement that says it was long ago.
func (b *bench) pull() {
	b.t.Helper()
	before := len(b.Charter)
	b.SignedBy(charter.TypeBreakGlassPulled, charter.BreakGlassPulled{ID: "emergency", Reason: "line 1 stands still", Times: 1}, "master1", "witness1")
	_, err := b.node.Append(b.t.Context(), b.lines(before))
	b.ok(err)
}

// TestBreakGlassOpensByBothClocks: an hour after others knew, whatever its statement
// says, by the host's clock and by theirs, and for as long as it was to.
func TestBreakGlassOpensByBothClocks(t *testing.T) {
	b, c, now := pullGlass(t)
	if err := b.mes("kv/data/line2/plc"); !errors.Is(err, access.ErrDenied) {
		t.Fatalf("not pulled: %v", err)
	}
	b.pull()
	try := func(host, outside time.Duration, want bool) {
		t.Helper()
		c.set(now.Add(host), now.Add(outside))
		err := b.mes("kv/data/line2/plc")
		if (err == nil) != want {
			t.Errorf("after %v and %v: %v", host, outside, err)
		}
	}
	hour := time.Hour
	try(0, 0, false)
	try(hour, 0, false) // the host's clock alone was set forward
	try(0, hour, false)
	try(hour-time.Second, hour-time.Second, false)
	try(hour, hour, true)
	try(hour+9*time.Minute, hour+9*time.Minute, true)
	try(hour+10*time.Minute, hour+9*time.Minute, false)
	try(hour+9*time.Minute, hour+10*time.Minute, false)
	c.set(now.Add(hour), now.Add(hour))
	for _, path := range []string{"kv/metadata/line2", "sys/seal"} {
		if err := b.mes(path); err == nil {
			t.Errorf("%s is open, too", path)
		}
	}
	if b.operations("break-glass") == 0 || b.operations("break-glass known") != 1 {
		t.Error("it was not told of in the log")
	}
	// What was decided by it says so.
	used := slices.ContainsFunc(b.entries(0), func(e audit.Entry) bool {
		return e.Kind == audit.Request && e.Path == "kv/data/line2/plc" && fmt.Sprint(e.Params["break_glass"]) == "[emergency]"
	})
	if !used {
		t.Error("no entry says that it was used")
	}
}

// TestBreakGlassSurvivesARestart with the time that it had, and ends when the approvers
// say so.
func TestBreakGlassSurvivesARestart(t *testing.T) {
	b, c, now := pullGlass(t)
	b.pull()
	b.shut()
	c.set(now.Add(time.Hour), now.Add(time.Hour))
	b.openWith(c)
	b.ok(b.mes("kv/data/line2/plc"))
	before := len(b.Charter)
	b.Approve(charter.TypeBreakGlassEnded, charter.BreakGlassEnded{ID: "emergency", Times: 1})
	_, err := b.node.Append(t.Context(), b.lines(before))
	b.ok(err)
	if err := b.mes("kv/data/line2/plc"); !errors.Is(err, access.ErrDenied) {
		t.Errorf("ended by the approvers: %v", err)
	}
}

// TestBreakGlassWithoutACosigner never opens: nobody else knows of it.
func TestBreakGlassWithoutACosigner(t *testing.T) {
	b, c, now := pullGlass(t)
	c.set(now, time.Time{}) // it never answered
	b.pull()
	c.set(now.Add(time.Hour), time.Time{})
	if err := b.mes("kv/data/line2/plc"); !errors.Is(err, access.ErrDenied) {
		t.Errorf("nobody knows of it: %v", err)
	}
	c.set(now.Add(time.Hour), now.Add(time.Hour)) // it answers at last
	b.node.open.tellPulled(t.Context())
	if err := b.mes("kv/data/line2/plc"); !errors.Is(err, access.ErrDenied) {
		t.Errorf("known just now: %v", err)
	}
	c.set(now.Add(2*time.Hour), now.Add(2*time.Hour))
	b.ok(b.mes("kv/data/line2/plc"))
}
