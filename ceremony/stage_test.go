package ceremony

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/world"
	"keyrite/ceremony/script"
	"keyrite/internal/redact"
)

const smallScript = `format: keyrite/script/v1
kind: genesis
title: Small
purpose: test the engine
summon:
  - {id: "1.1", do: people.identify, title: Who is here, limit: 1m}
run:
  - {id: "1.9", do: genesis.sign, title: Founding, limit: 1m}
  - {id: "2.1", do: token.init, title: First act, limit: 1m, confirm: [witness]}
  - {id: "2.2", do: pause, title: Second act, limit: 1m, confirm: [witness]}
seal:
  - {id: "3.1", do: outputs.write, title: Seal, limit: 1m}
`

// clock is a clock under the test's control. Its timers fire when advance passes
// them.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	mono   time.Duration
	timers map[*timer]bool
}

type timer struct {
	at time.Duration
	c  chan time.Time
}

func (c *clock) Timer(d time.Duration) (<-chan time.Time, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{c.mono + d, make(chan time.Time, 1)}
	if c.timers == nil {
		c.timers = map[*timer]bool{}
	}
	c.timers[t] = true
	return t.c, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.timers, t)
	}
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.mono = c.now.Add(d), c.mono+d
	for t := range c.timers {
		if t.at <= c.mono {
			t.c <- c.now
			delete(c.timers, t)
		}
	}
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) Mono() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.mono }

func (c *clock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// room is the console: everybody answers as the test says, else as planned.
type room struct {
	t          *testing.T
	ask        func(ctx context.Context, p Prompt) (string, *Call, error)
	passphrase func(who string, try int) string
	elsewhere  []string
	tries      map[string]int
	said       []string
}

func (r *room) View(View)                           {}
func (r *room) Count(Count)                         {}
func (r *room) Show(string, int, int, *script.Step) {}
func (r *room) Say(_, text string)                  { r.said = append(r.said, text) }
func (r *room) Elsewhere(who string) bool           { return slices.Contains(r.elsewhere, who) }
func (r *room) Ask(ctx context.Context, p Prompt) (string, *Call, error) {
	if r.ask != nil {
		if a, c, err := r.ask(ctx, p); a != "" || c != nil || err != nil {
			return a, c, err
		}
	}
	return p.Want[0], nil, nil
}

func (r *room) Secret(_ context.Context, who string) (*redact.Secret, error) {
	r.tries[who]++
	if r.passphrase != nil {
		if s := r.passphrase(who, r.tries[who]); s != "" {
			return redact.New([]byte(s)), nil
		}
	}
	return redact.New([]byte("passphrase of " + who)), nil
}

func (r *room) Page(context.Context, string, string, []string) error { return nil }

func (r *room) Documents(context.Context, []string) (map[string]string, error) { return nil, nil }

// acts are verbs that do nothing unless the test says so.
type acts struct {
	do      func(ctx context.Context, r *Run, st *script.Step) error
	cleaned int
	closed  int
}

func (a *acts) Do(ctx context.Context, r *Run, st *script.Step) error {
	if st.Do == "people.identify" {
		for _, p := range r.People {
			f, err := p.Person.Fingerprint()
			if err != nil {
				return err
			}
			if err := r.Record(&record.Identified{Fingerprint: hex.EncodeToString(f[:]), Name: p.Person.Name, Role: p.Role}); err != nil {
				return err
			}
		}
	}
	if a.do != nil {
		return a.do(ctx, r, st)
	}
	return nil
}

func (a *acts) Cleanup(_ context.Context, r *Run) error {
	a.cleaned++
	return r.Record(&record.Cleanup{Burned: []string{}, Destroyed: []string{}, Safe: "root"})
}
func (a *acts) Close() { a.closed++ }

// stage is one attempt with everything faked but record, keys and files.
type stage struct {
	cfg     Config
	clock   *clock
	room    *room
	acts    *acts
	signals chan os.Signal
	calls   chan Call
	disks   atomic.Value // string: names by comma, or "error"
}

func cast(t testing.TB) []Participant {
	t.Helper()
	var out []Participant
	for _, x := range [][2]string{{"conductor", charter.RoleConductor}, {"master1", charter.RoleKeyMaster}, {"witness1", charter.RoleWitness}, {"witness2", charter.RoleWitness}} {
		k, err := person.New(x[0], "rehearsal:abcdefgh")
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := k.Seal([]byte("passphrase of " + x[0]))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Participant{Person: k.Public(), Role: x[1], Key: KeyFile(sealed)})
	}
	return out
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s, err := script.Parse("small.yaml", []byte(smallScript))
	if err != nil {
		t.Fatal(err)
	}
	st := &stage{
		clock: &clock{now: time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)}, room: &room{t: t, tries: map[string]int{}},
		acts: &acts{}, signals: make(chan os.Signal, 4), calls: make(chan Call, 1),
	}
	st.disks.Store("")
	st.cfg = Config{
		Script: s, ScriptBytes: []byte(smallScript), BindHash: strings.Repeat("ab", 32), Dir: filepath.Join(t.TempDir(), "record"),
		World: world.World("rehearsal:abcdefgh"), People: cast(t), Programs: []record.Program{}, Environment: map[string]string{},
		Console: st.room, Clock: st.clock, Actions: st.acts, Interrupt: st.signals, Calls: st.calls, Media: st.media,
	}
	return st
}

func (s *stage) media() ([]string, error) {
	switch d := s.disks.Load(); d {
	case "":
		return nil, nil
	case "error":
		return nil, fault.New(fault.Storage, "no /sys")
	default:
		return strings.Split(d.(string), ","), nil
	}
}

func (s *stage) run(t *testing.T) error {
	t.Helper()
	_, err := Execute(context.Background(), s.cfg)
	return err
}

func at(step, who string, f func() (string, *Call)) func(context.Context, Prompt) (string, *Call, error) {
	return func(_ context.Context, p Prompt) (string, *Call, error) {
		if p.Step == step && p.Who == who {
			a, c := f()
			return a, c, nil
		}
		return "", nil, nil
	}
}

func doing(do string, f func(ctx context.Context, r *Run) error) func(context.Context, *Run, *script.Step) error {
	return func(ctx context.Context, r *Run, st *script.Step) error {
		if st.Do == do {
			return f(ctx, r)
		}
		return nil
	}
}

func checkVoid(t *testing.T, s *stage, err error, cause fault.Class, text string) {
	t.Helper()
	var c interface{ FaultCause() string }
	if fault.ClassOf(err) != fault.Void || !errors.As(err, &c) || c.FaultCause() != string(cause) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v (class %s)", err, fault.ClassOf(err))
	}
	if !strings.Contains(fault.HintOf(err), "--after "+s.cfg.Dir) {
		t.Errorf("hint %q", fault.HintOf(err))
	}
	st, err := ReadState(s.cfg.Dir)
	if err != nil || st.State != "VOID" || !st.Ended || !strings.Contains(st.Cause, text) {
		t.Errorf("state %+v, %v", st, err)
	}
	if s.acts.cleaned != 1 || s.acts.closed != 1 {
		t.Errorf("cleaned %d times, closed %d times", s.acts.cleaned, s.acts.closed)
	}
	v, err := record.Read(os.DirFS(s.cfg.Dir))
	if fault.ClassOf(err) != fault.Void || v == nil || len(v.Incidents) != 1 {
		t.Errorf("the void record reads as %v", err)
	}
	// It never goes on, and the next attempt is another folder (R-CER-15).
	again := *s
	if err := again.run(t); fault.ClassOf(err) != fault.Void || !strings.Contains(err.Error(), "cannot go on") {
		t.Errorf("a second run into the folder: %v", err)
	}
}
