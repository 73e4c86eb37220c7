package remind

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/internal/clitest"
	"keyrite/vault/audit"
	"keyrite/vault/duty"
	"keyrite/vault/seal"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

const day = 24 * time.Hour

// desk is a store with reminders over it, a clock and a list of what is due.
type desk struct {
	*vaulttest.Vault
	t     *testing.T
	store *seal.Store

	mu    sync.Mutex // guards the rest
	at    time.Time
	items []duty.Item
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	v := vaulttest.NewWith(t, nil)
	return &desk{Vault: v, t: t, store: v.Store(), at: artifacttest.Now()}
}

func (d *desk) now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at
}

// due sets what is due, after so much time.
func (d *desk) due(later time.Duration, items ...duty.Item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at, d.items = d.at.Add(later), items
}

func (d *desk) list() ([]duty.Item, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.items, nil
}

// run starts reminders over the store, as a vault does that was opened.
func (d *desk) run(list ...charter.Reminder) *Reminders {
	d.t.Helper()
	r := New(Config{
		World: d.World.World, Vault: d.State.Vault, Store: d.store, Journal: audit.NewJournal(d.store), Items: d.list, Now: d.now,
		Entry: func(op string) *audit.Entry {
			return &audit.Entry{Kind: audit.Life, Operation: op, Time: trail.FormatTime(d.now())}
		},
	})
	r.every, r.retry = time.Hour, 20*time.Millisecond
	want := map[string]charter.Reminder{}
	for _, x := range list {
		want[x.ID] = x
	}
	r.Set(want)
	d.t.Cleanup(func() { r.Set(nil) })
	return r
}

func item(id string, level duty.Level) duty.Item {
	return duty.Item{ID: id, Kind: duty.Bundle, About: "bundle " + id, Level: level, Due: artifacttest.Now().Add(40 * day), Act: "export it"}
}

// TestPick: a thing is told of once for each level that the receiver wants, late again
// each week, a mail once a day; what is not due any more and comes back is told again
// after a day.
func TestPick(t *testing.T) {
	now := artifacttest.Now()
	hook := &reminder{Reminder: charter.Reminder{Kind: "webhook", Level: "soon"}}
	late := &reminder{Reminder: charter.Reminder{Kind: "webhook", Level: "late"}}
	days := &reminder{Reminder: charter.Reminder{Kind: "webhook", Level: "soon", Days: 40}}
	post := &reminder{Reminder: charter.Reminder{Kind: "mail", Level: "soon"}}
	fine, soon, gone := item("a", duty.Fine), item("a", duty.Soon), item("a", duty.Late)
	type step struct {
		after time.Duration
		items []duty.Item
		want  int
	}
	for name, c := range map[string]struct {
		x     *reminder
		steps []step
	}{
		"each level once": {hook, []step{{0, []duty.Item{fine}, 0}, {day, []duty.Item{soon}, 1}, {day, []duty.Item{soon}, 0}, {30 * day, []duty.Item{soon}, 0}, {day, []duty.Item{gone}, 1}, {6 * day, []duty.Item{gone}, 0}, {day, []duty.Item{gone}, 1}, {day, []duty.Item{gone}, 0}, {7 * day, []duty.Item{gone}, 1}}},
		"from late on":    {late, []step{{0, []duty.Item{soon}, 0}, {day, []duty.Item{gone}, 1}, {day, []duty.Item{gone}, 0}}},
		"days ahead":      {days, []step{{-time.Hour, []duty.Item{fine}, 0}, {time.Hour, []duty.Item{fine}, 1}, {day, []duty.Item{fine}, 0}, {day, []duty.Item{soon}, 1}}},
		"comes back":      {hook, []step{{0, []duty.Item{gone}, 1}, {time.Hour, nil, 0}, {time.Hour, []duty.Item{gone}, 0}, {time.Hour, nil, 0}, {25 * time.Hour, nil, 0}, {time.Hour, []duty.Item{gone}, 1}}},
		"renewed":         {hook, []step{{0, []duty.Item{soon}, 1}, {2 * day, []duty.Item{fine}, 0}, {300 * day, []duty.Item{soon}, 1}}},
		"better":          {hook, []step{{0, []duty.Item{gone}, 1}, {day, []duty.Item{soon}, 0}}},
		"a mail a day":    {post, []step{{0, []duty.Item{item("a", duty.Soon)}, 1}, {23 * time.Hour, []duty.Item{item("a", duty.Late), item("b", duty.Late)}, 0}, {time.Hour, []duty.Item{item("a", duty.Late), item("b", duty.Late)}, 2}}},
	} {
		b, at := &book{Told: map[string]told{}}, now
		for i, s := range c.steps {
			at = at.Add(s.after)
			m, next := c.x.pick(s.items, b, at)
			if len(m.items) != s.want {
				t.Errorf("%s, step %d: %d told, want %d (%+v)", name, i, len(m.items), s.want, b)
			}
			b = next
		}
	}
	var many []duty.Item
	for i := range maxItems + 7 {
		many = append(many, item(strings.Repeat("x", i+1), duty.Late))
	}
	m, next := hook.pick(many, &book{Told: map[string]told{}}, now)
	if len(m.items) != maxItems || m.more != 7 || len(next.Told) != maxItems {
		t.Errorf("%d and %d more, %d kept", len(m.items), m.more, len(next.Told))
	}
	if m, _ = hook.pick(many, next, now); len(m.items) != 7 {
		t.Errorf("the rest: %d", len(m.items))
	}
}

// TestToldSurvives: what was told is in the store with its entry, and a restart repeats
// nothing; what could not be told is told when the receiver is well again.
func TestToldSurvives(t *testing.T) {
	d := newDesk(t)
	h := newHook(t)
	d.due(0, item("a", duty.Soon), item("b", duty.Fine))
	entries := d.store.Health().Size
	r := d.run(h.reminder("hook"))
	h.wait(1)
	if !clitest.Await(5*time.Second, func() bool { return d.store.Health().Size == entries+1 }) {
		t.Fatalf("%d entries", d.store.Health().Size-entries)
	}
	raw, err := d.store.Entry(uint64(entries))
	if err != nil || !strings.Contains(string(raw), `"params":{"id":"hook","items":1,"kind":"webhook"}`) {
		t.Errorf("the entry: %s, %v", raw, err)
	}
	r.Set(nil)
	r = d.run(h.reminder("hook"))
	if !clitest.Await(5*time.Second, func() bool { return !r.States()["hook"].Sent.IsZero() }) || h.count() != 1 {
		t.Errorf("after a restart: %d, %+v", h.count(), r.States())
	}
	h.answer(http.StatusInternalServerError)
	d.due(day, item("a", duty.Late), item("b", duty.Fine))
	r.Wake()
	h.wait(3) // it is tried again
	st := r.States()["hook"]
	if st.Error == nil || fault.ClassOf(st.Error) != fault.Unreachable || st.Since.IsZero() {
		t.Errorf("refused: %+v", st)
	}
	h.answer(http.StatusNoContent)
	if !clitest.Await(10*time.Second, func() bool { return r.States()["hook"].Error == nil }) {
		t.Errorf("well again: %+v", r.States())
	}
	n := h.count()
	r.Wake()
	r.Wake()
	r.Set(nil)
	if h.count() != n {
		t.Errorf("told again: %d, before %d", h.count(), n)
	}
}

// TestEnds: a reminder that was ended tells nothing more, one that was stated anew
// begins at once, and a receiver that hangs holds up neither that nor another one.
func TestEnds(t *testing.T) {
	d := newDesk(t)
	hanging, well := newHook(t), newHook(t)
	hanging.hang()
	d.due(0, item("a", duty.Late))
	r := d.run(hanging.reminder("hangs"), well.reminder("well"))
	well.wait(1)
	hanging.wait(1)
	began := make(chan struct{})
	go func() { r.Set(map[string]charter.Reminder{"new": well.reminder("new")}); close(began) }()
	select {
	case <-began:
	case <-time.After(20 * time.Second):
		t.Fatal("the receiver that hangs holds up the end")
	}
	well.wait(2)
	if st := r.States(); len(st) != 1 || st["new"].ID != "new" {
		t.Errorf("%+v", st)
	}
	d.due(8*day, item("a", duty.Late))
	r.Wake()
	well.wait(3)
}

// TestSealedMeanwhile: without a store nothing is told.
func TestSealedMeanwhile(t *testing.T) {
	d := newDesk(t)
	h := newHook(t)
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	d.due(0, item("a", duty.Late))
	r := d.run(h.reminder("hook"))
	if !clitest.Await(5*time.Second, func() bool { return r.States()["hook"].Error != nil }) || h.count() != 0 {
		t.Errorf("%d told, %+v", h.count(), r.States())
	}
	if err := r.running["hook"].step(context.Background()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a step without a store: %v", err)
	}
}
