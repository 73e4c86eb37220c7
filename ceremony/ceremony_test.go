package ceremony

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
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

// clock is a clock under the test's control.
type clock struct {
	mu   sync.Mutex
	now  time.Time
	mono time.Duration
}

func (c *clock) Now() time.Time      { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
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
		acts: &acts{}, signals: make(chan os.Signal, 4),
	}
	st.cfg = Config{
		Script: s, ScriptBytes: []byte(smallScript), BindHash: strings.Repeat("ab", 32), Dir: filepath.Join(t.TempDir(), "record"),
		World: world.World("rehearsal:abcdefgh"), People: cast(t), Programs: []record.Program{}, Environment: map[string]string{},
		Console: st.room, Clock: st.clock, Actions: st.acts, Interrupt: st.signals,
	}
	return st
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

// Whatever is not planned makes the ceremony void, from ARMED on, and the record
// says so and why (R-CER-14, R-CER-15).
func TestEveryCauseEndsVoid(t *testing.T) {
	tests := []struct {
		name  string
		edit  func(s *stage)
		cause fault.Class
		text  string
	}{
		{"wrong answer three times", func(s *stage) {
			s.room.ask = at("2.1", "witness2", func() (string, *Call) { return "no", nil })
		}, fault.Policy, "witness2 did not answer yes in 3 tries"},
		{"wrong passphrase three times", func(s *stage) {
			s.room.passphrase = func(who string, _ int) string {
				if who == "conductor" {
					return "wrong"
				}
				return ""
			}
		}, fault.Token, "conductor: wrong passphrase"},
		{"a verb fails", func(s *stage) {
			s.acts.do = doing("token.init", func(context.Context, *Run) error { return fault.New(fault.Token, "the token is gone") })
		}, fault.Token, "step 2.1 (First act): the token is gone"},
		{"the clock jumps ahead", func(s *stage) {
			s.acts.do = doing("token.init", func(context.Context, *Run) error { s.clock.jump(time.Hour); return nil })
		}, fault.Unexpected, "the clock jumped by 1h0m0s"},
		{"the clock jumps back", func(s *stage) {
			s.acts.do = doing("pause", func(context.Context, *Run) error { s.clock.jump(-3 * time.Second); return nil })
		}, fault.Unexpected, "the clock jumped by -3s"},
		{"a signed incident", func(s *stage) {
			s.room.ask = at("2.2", "witness1", func() (string, *Call) { return "", &Call{"witness1", "bag 7 is open"} })
		}, fault.Void, "incident called by witness1: bag 7 is open"},
		{"an incident by a stranger, unsigned", func(s *stage) {
			s.room.ask = at("2.2", "witness1", func() (string, *Call) { return "", &Call{"nobody", "I object"} })
		}, fault.Void, "incident called by nobody, unsigned"},
		{"an incident in bytes that are no text, and far too many", func(s *stage) {
			s.room.ask = at("2.2", "witness1", func() (string, *Call) {
				return "", &Call{"witness1", "\xff\xfe" + strings.Repeat("long ", 40_000)}
			})
		}, fault.Void, "incident called by witness1"},
		{"Ctrl-C confirmed", func(s *stage) {
			s.acts.do = doing("token.init", func(context.Context, *Run) error { s.signals <- syscall.SIGINT; return nil })
			s.room.ask = func(_ context.Context, p Prompt) (string, *Call, error) {
				if p.Who == "operator" {
					return "VOID", nil, nil
				}
				return "", nil, nil
			}
		}, fault.Interrupted, "interrupted"},
		{"Ctrl-C and nobody to ask", func(s *stage) {
			s.acts.do = doing("token.init", func(context.Context, *Run) error { s.signals <- syscall.SIGINT; return nil })
			s.room.ask = func(_ context.Context, p Prompt) (string, *Call, error) {
				if p.Who == "operator" {
					return "", nil, errors.New("no terminal")
				}
				return "", nil, nil
			}
		}, fault.Interrupted, "interrupted"},
		{"the terminal is closed", func(s *stage) {
			s.acts.do = doing("pause", func(context.Context, *Run) error { s.signals <- syscall.SIGHUP; return nil })
		}, fault.Interrupted, "hangup"},
		{"an output that is there already", func(s *stage) {
			s.acts.do = doing("outputs.write", func(_ context.Context, r *Run) error {
				return errors.Join(r.Output("outputs/x", []byte("1")), r.Output("outputs/x", []byte("2")))
			})
		}, fault.Exists, "already exists"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			tt.edit(s)
			err := s.run(t)
			checkVoid(t, s, err, tt.cause, tt.text)
		})
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

// What people predictably do is planned, and recorded.
func TestPlannedMissesGoOn(t *testing.T) {
	s := newStage(t)
	s.room.passphrase = func(who string, try int) string {
		if try < 3 {
			return "wrong"
		}
		return ""
	}
	asked := 0
	s.room.ask = func(_ context.Context, p Prompt) (string, *Call, error) {
		switch {
		case p.Who == "operator":
			return "go on", nil, nil
		case p.Step == "2.1" && p.Who == "witness1":
			if asked++; asked < 3 {
				return "what?", nil, nil
			}
		}
		return "", nil, nil
	}
	s.acts.do = doing("pause", func(context.Context, *Run) error { s.signals <- syscall.SIGINT; return nil })
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(s.cfg.Dir, record.TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	// Two wrong answers, and the conductor's two wrong passphrases; who cosigns
	// does so after the end, where nothing may be written.
	if n := strings.Count(string(data), `"type":"miss"`); n != 2+2 {
		t.Errorf("%d misses are recorded", n)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, `"type":"end"`) {
		t.Errorf("the last entry is %s", last)
	}
	if st, err := ReadState(s.cfg.Dir); err != nil || st.State != "CLOSED" || !st.Ended {
		t.Errorf("%+v, %v", st, err)
	}
}

// Before ARMED nothing counts.
func TestBeforeArmedNothingIsVoid(t *testing.T) {
	tests := []struct {
		name  string
		edit  func(s *stage)
		class fault.Class
	}{
		{"Ctrl-C", func(s *stage) {
			s.acts.do = doing("people.identify", func(context.Context, *Run) error { s.signals <- syscall.SIGINT; return nil })
		}, fault.Interrupted},
		{"a verb fails", func(s *stage) {
			s.acts.do = doing("people.identify", func(context.Context, *Run) error { return fault.New(fault.Policy, "no") })
		}, fault.Policy},
		{"an incident is called", func(s *stage) {
			s.room.ask = at("1.1", "conductor", func() (string, *Call) { return "", &Call{"witness1", "too early"} })
		}, fault.Void},
		{"the clock is set", func(s *stage) {
			s.acts.do = doing("people.identify", func(context.Context, *Run) error { s.clock.jump(time.Hour); return nil })
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			tt.edit(s)
			err := s.run(t)
			if fault.ClassOf(err) != tt.class {
				t.Errorf("got %v (class %s)", err, fault.ClassOf(err))
			}
			if s.acts.cleaned != 0 || s.acts.closed != 1 {
				t.Errorf("cleaned %d times, closed %d times", s.acts.cleaned, s.acts.closed)
			}
			if st, err := ReadState(s.cfg.Dir); err != nil || tt.class != "" && st.State != "SUMMONED" {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
}

// A step that takes too long is an incident, whether a person or a verb is slow.
func TestTimeLimit(t *testing.T) {
	for _, slow := range []string{"person", "verb"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				if slow == "person" {
					s.room.ask = func(ctx context.Context, p Prompt) (string, *Call, error) {
						if p.Step == "2.2" && p.Who == "witness1" {
							<-ctx.Done()
							return "", nil, ctx.Err()
						}
						return "", nil, nil
					}
				} else {
					s.acts.do = doing("pause", func(ctx context.Context, _ *Run) error { <-ctx.Done(); return ctx.Err() })
				}
				checkVoid(t, s, s.run(t), fault.Unreachable, "the time limit of 1m0s passed")
			})
		})
	}
}

// A full disk after ARMED voids; the room for the end was reserved before.
func TestFullDisk(t *testing.T) {
	dir := tinyDisk(t)
	s := newStage(t)
	s.cfg.Dir = filepath.Join(dir, "record")
	s.acts.do = func(_ context.Context, r *Run, st *script.Step) error {
		if st.Do != "token.init" {
			return nil
		}
		fill(t, filepath.Join(dir, "ballast"))
		return r.Output("outputs/charter.jsonl", make([]byte, 64<<10))
	}
	err := s.run(t)
	checkVoid(t, s, err, fault.Storage, "no space left")

	// No room at all: nothing is armed, class storage.
	s = newStage(t)
	s.cfg.Dir = filepath.Join(dir, "second")
	err = s.run(t)
	if fault.ClassOf(err) != fault.Storage || s.acts.cleaned != 0 {
		t.Errorf("on a full disk: %v (class %s)", err, fault.ClassOf(err))
	}
}

// tinyDisk mounts 8 MiB. Without the right to mount it is an error, not a skip:
// the test machine has it.
func tinyDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 16, 4096} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// A second process on a record that is being made is turned away.
func TestOneProcessPerRecord(t *testing.T) {
	s := newStage(t)
	other := newStage(t)
	other.cfg.Dir = s.cfg.Dir
	s.acts.do = doing("token.init", func(context.Context, *Run) error {
		if err := other.run(t); fault.ClassOf(err) != fault.Sealed {
			t.Errorf("second run: %v", err)
		}
		if err := Recover(context.Background(), s.cfg.Dir, s.clock, nil, true); fault.ClassOf(err) != fault.Sealed {
			t.Errorf("recover: %v", err)
		}
		return nil
	})
	if err := s.run(t); err != nil {
		t.Error(err)
	}
	if err := other.run(t); fault.ClassOf(err) != fault.Exists {
		t.Errorf("a run into a closed record: %v", err)
	}
}

// A ceremony that was killed after any of its entries, or in the middle of one,
// is taken to VOID, or left alone when nothing had been done (R-CER-15).
func TestRecoverAfterAnyEntry(t *testing.T) {
	s := newStage(t)
	s.room.elsewhere = []string{"witness1", "witness2", "master1"}
	s.acts.do = func(_ context.Context, r *Run, st *script.Step) error {
		switch st.Do {
		case "genesis.sign":
			return r.Record(&record.Statement{Type: "genesis", Signers: []string{}})
		case "token.init":
			if err := r.Record(&record.Intent{Effect: "init-token", Safe: "root"}); err != nil {
				return err
			}
			return r.Record(&record.TokenReady{Safe: "root"})
		case "outputs.write":
			return r.Output("outputs/words", []byte("words"))
		}
		return nil
	}
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(s.cfg.Dir, record.TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	lines = lines[:len(lines)-1]
	for n := 1; n <= len(lines); n++ {
		for _, torn := range []int{0, 17} {
			t.Run(fmt.Sprintf("entry %d torn %d", n, torn), func(t *testing.T) { killedAfter(t, s.cfg.Dir, lines, n, torn) })
		}
	}
}

func killedAfter(t *testing.T, from string, lines []string, n, torn int) {
	dir := filepath.Join(t.TempDir(), "record")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(lines[:n], "")
	if n < len(lines) {
		text += lines[n][:torn]
	}
	// What a kill leaves beside the transcript: no checkpoint, and a half-written file.
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, record.TranscriptFile), []byte(text), 0o600),
		os.Remove(filepath.Join(dir, record.CheckpointFile)),
		os.WriteFile(filepath.Join(dir, record.OutputsDir, ".words.0123456789abcdef"), []byte("wo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before, err := ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	clk := &clock{now: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)}
	err = Recover(context.Background(), dir, clk, nil, true)
	if !before.armed() {
		if fault.ClassOf(err) != fault.Usage {
			t.Errorf("in %s: %v", before.State, err)
		}
		return
	}
	if fault.ClassOf(err) != fault.Void {
		t.Fatalf("in %s: %v", before.State, err)
	}
	st, err := ReadState(dir)
	if err != nil || st.State != "VOID" || !st.Ended {
		t.Fatalf("%+v, %v", st, err)
	}
	if v, err := record.Read(os.DirFS(dir)); fault.ClassOf(err) != fault.Void || len(v.Incidents) != 1 {
		t.Errorf("the record reads as %v", err)
	}
	// Twice changes nothing.
	if err := Recover(context.Background(), dir, clk, nil, true); fault.ClassOf(err) != fault.Void {
		t.Errorf("recovered again: %v", err)
	}
	if again, err := ReadState(dir); err != nil || again.Root != st.Root {
		t.Error("a second recovery wrote something")
	}
}
