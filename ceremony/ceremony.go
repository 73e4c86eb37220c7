// Package ceremony runs a script step by step before people, writes the record,
// and makes the whole attempt void on anything that was not planned.
//
// Run executes one attempt. The verbs are Actions, bound in ceremony/actions;
// this package knows no HSM. Clock and Console are given. From ARMED on every
// error, whoever causes it, leads to INVALID, CLEANUP and VOID; there is no
// resume. It must never do an effect before its intent is durable, and never
// write a secret into the record.
package ceremony

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/world"
	"keyrite/ceremony/script"
	"keyrite/internal/durable"
	"keyrite/internal/redact"
)

// Clock is the time. Mono never goes back and counts from an arbitrary start.
type Clock interface {
	Now() time.Time
	Mono() time.Duration
	// Timer fires once, after d of Mono; stop takes it back.
	Timer(d time.Duration) (fired <-chan time.Time, stop func())
}

// SystemClock is the time of this computer.
func SystemClock() Clock { return systemClock{time.Now()} }

type systemClock struct{ start time.Time }

func (systemClock) Now() time.Time { return time.Now().Round(0) } // wall clock only

func (c systemClock) Mono() time.Duration { return time.Since(c.start) }

func (systemClock) Timer(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// maxClockDrift is how far wall clock and monotonic clock may part.
const maxClockDrift = 2 * time.Second

// reserveBytes is the room kept for the transcript up to VOID, taken when the
// ceremony is armed, so that a full disk cannot stop the record.
const reserveBytes = 4 << 20

// Prompt is a question to one person.
type Prompt struct {
	Step string
	Who  string // name
	Role string
	Text string
	Want []string // answers that go on; the first is what Enter means
}

// Call is an incident called by a person.
type Call struct{ By, Reason string }

// View is what the room may know of the attempt at any moment. All of it is public.
type View struct {
	Title, Kind, Record string
	World               world.World
	State               string
	Entries             int64
	Root                string // the running hash, in hex
}

// Count is how far a group is with what a step needs of it.
type Count struct {
	What string   // a plural: "receipts", "signatures"
	Done []string // names, in order
	Need int      // how many it takes
	Of   int      // how many could
}

// Console is the room: what it sees and what it answers.
type Console interface {
	// View renews what is public of the attempt; it comes with every entry.
	View(v View)
	// Count says who has done a part of the open step.
	Count(c Count)
	// Show opens a step. n and of count the steps of the whole script.
	Show(phase string, n, of int, st *script.Step)
	// Say tells the room something; level is "", "good" or "bad".
	Say(level, text string)
	// Ask waits for an answer, or for a Call of an incident by anybody.
	Ask(ctx context.Context, p Prompt) (string, *Call, error)
	// Secret asks a person for the passphrase of his key.
	Secret(ctx context.Context, who string) (*redact.Secret, error)
	// Elsewhere says who will cosign on a machine of his own.
	Elsewhere(who string) bool
	// Page shows code as a QR code, if there is one, and rows below it. It returns
	// once somebody has read them, or at once where they stay in sight.
	Page(ctx context.Context, title, code string, rows []string) error
	// Documents says which identity documents were seen: name → kind.
	Documents(ctx context.Context, names []string) (map[string]string, error)
}

// Actions are the verbs.
type Actions interface {
	Do(ctx context.Context, r *Run, st *script.Step) error
	// Cleanup destroys everything that this attempt made, and records it.
	Cleanup(ctx context.Context, r *Run) error
	Close()
}

// Config is one attempt.
type Config struct {
	Script      *script.Script
	ScriptBytes []byte
	BindHash    string
	Dir         string // record folder, new; an attempt there that stopped before ARMED gives way, as Dir.early-N
	World       world.World
	After       *record.Ref  // the void attempt before
	Base        *record.Base // the vault that it continues, nil for a genesis
	Rehearsal   *record.Ref  // live only
	People      []Participant
	Programs    []record.Program
	Environment map[string]string
	Console     Console
	Clock       Clock
	Actions     Actions
	Interrupt   <-chan os.Signal         // SIGINT, SIGTERM, SIGHUP
	Calls       <-chan Call              // incidents called while nobody is asked; nil if that cannot be
	Media       func() ([]string, error) // what could carry data in or out: see Media; nil if it is not watched
	Random      io.Reader                // every random byte of engine and actions; nil is crypto/rand
}

// Run is an attempt under way; Actions record through it.
type Run struct {
	Config
	ID      string // record id, 16 hex digits
	Attempt string // tag of the attempt's objects, 16 hex digits

	loop
	room    Console // Config.Console; the work sees it through the loop
	title   string  // of the step under way
	log     *durable.Append
	tr      *record.Transcript
	state   string
	step    string
	wall    time.Time
	mono    time.Duration
	tries   int  // of the step under way
	voiding bool // on the way to VOID
	ended   bool // the end entry is written
	n, of   int
	outputs []string
	held    map[string]*person.Key // unlocked, until the attempt ends
}

// ErrNoTerminal says that a question had nobody to answer it; consoles return it.
var ErrNoTerminal = fault.New(fault.Usage, "there is no terminal to ask at")

// ErrIncident is the cause of every VOID that a person called.
var ErrIncident = fault.New(fault.Void, "incident")

// voidError is a void ceremony with what caused it.
type voidError struct {
	cause error
	dir   string
	left  []string // what it left that the charter does not know
}

// voided is a void ceremony, with what its record says that it left.
func voided(cause error, dir string) error {
	e := &voidError{cause: cause, dir: dir}
	if st, err := ReadState(dir); err == nil {
		e.left = st.TellLeft(dir)
	}
	return e
}

func (e *voidError) Error() string {
	return "the ceremony is void: " + e.cause.Error()
}
func (e *voidError) Unwrap() error      { return e.cause }
func (e *voidError) FaultClass() string { return string(fault.Void) }
func (e *voidError) FaultCause() string { return string(fault.ClassOf(e.cause)) }
func (e *voidError) FaultHint() string {
	if len(e.left) > 0 {
		return strings.Join(e.left, " ")
	}
	return "nothing of this attempt may be used; find the cause, then start again from step 1 in another record folder with --after " + e.dir
}

// Execute runs the attempt to its end. A nil error means CLOSED.
func Execute(ctx context.Context, cfg Config) (*Run, error) {
	r, err := start(cfg)
	if err != nil {
		cfg.Actions.Close()
		return nil, err
	}
	defer r.log.Close()
	defer cfg.Actions.Close()
	defer r.lock()
	defer close(r.left)
	if err := r.serve(ctx, r.summon); err != nil {
		return r, early(err)
	}
	err = r.serve(ctx, r.armed)
	if err != nil && r.state == "SUMMONED" { // no room for the record: nothing was done
		return r, err
	}
	if err == nil {
		err = r.serve(ctx, r.close)
	}
	if err != nil {
		return r, r.void(ctx, err)
	}
	return r, nil
}

// randomID is 16 hex digits.
func (cfg *Config) randomID() (string, error) {
	var b [8]byte
	if _, err := io.ReadFull(cfg.Random, b[:]); err != nil {
		return "", fault.Errorf(fault.Unexpected, "read random bytes: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// start makes the record folder and its first entries.
func start(cfg Config) (*Run, error) {
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	id, err := cfg.randomID()
	if err != nil {
		return nil, err
	}
	attempt, err := cfg.randomID()
	if err != nil {
		return nil, err
	}
	if err := cfg.makeRoom(); err != nil {
		return nil, err
	}
	for _, d := range []string{cfg.Dir, filepath.Join(cfg.Dir, record.PeopleDir), filepath.Join(cfg.Dir, record.OutputsDir)} {
		if err := durable.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := durable.WriteNew(filepath.Join(cfg.Dir, record.ScriptFile), cfg.ScriptBytes, 0o644); err != nil {
		return nil, err
	}
	log, _, err := durable.OpenAppend(filepath.Join(cfg.Dir, record.TranscriptFile))
	if err != nil {
		return nil, err
	}
	r := &Run{Config: cfg, ID: id, Attempt: attempt, room: cfg.Console, log: log, tr: record.NewTranscript(), state: "DRAFT", wall: cfg.Clock.Now(), mono: cfg.Clock.Mono(), held: map[string]*person.Key{}}
	r.ops, r.answers, r.left = make(chan func()), make(chan answer), make(chan struct{})
	r.Console = seats{r}
	if err := r.startMedia(); err != nil {
		_ = log.Close()
		return nil, err
	}
	for _, ph := range cfg.Script.Phases() {
		r.of += len(ph.Steps)
	}
	mode := "rehearsal"
	if cfg.World.IsLive() {
		mode = "live"
	}
	err = r.write(&record.Open{
		After: cfg.After, Attempt: r.Attempt, Base: cfg.Base, BindHash: cfg.BindHash, Environment: cfg.Environment, Format: record.Format, Kind: cfg.Script.Kind, Mode: mode,
		Programs: cfg.Programs, Record: r.ID, Rehearsal: cfg.Rehearsal, ScriptHash: cfg.Script.Hash(), Title: cfg.Script.Title, World: cfg.World,
	})
	if err == nil {
		err = r.change("LINTED", "")
	}
	if err == nil && cfg.Rehearsal != nil {
		err = r.change("REHEARSED", "")
	}
	if err != nil {
		_ = log.Close()
		return nil, err
	}
	return r, nil
}

// write makes one entry durable.
func (r *Run) write(d record.Data) error {
	now, mono := r.Clock.Now(), r.Clock.Mono()
	if err := r.checkClock(now, mono); err != nil {
		if !r.voiding && r.acting() {
			return err
		}
		r.wall = now.Add(-(mono - r.mono)) // before ARMED, and in the clean-up, a clock may be set
	}
	line, err := r.tr.Next(r.step, d, now, mono-r.mono)
	if err != nil {
		return err
	}
	if err := r.log.Line(line); err != nil {
		return err
	}
	_, _, err = r.tr.Take(line)
	_, r.ended = d.(*record.End)
	r.view(d)
	return err
}

// view shows the room the state and the hash that the entry d led to.
func (r *Run) view(d record.Data) {
	if r.room == nil { // recover has no room
		return
	}
	state := r.state
	if s, ok := d.(*record.State); ok {
		state = s.State
	}
	r.room.View(View{Title: r.Script.Title, Kind: r.Script.Kind, Record: r.ID, World: r.World, State: state, Entries: r.tr.Size(), Root: rootHex(r.tr)})
}

// Root and Size state the transcript so far; the root is the running hash.
func (r *Run) Root() string { return look(r, func() string { return rootHex(r.tr) }) }

// Size is the number of entries.
func (r *Run) Size() int64 { return look(r, r.tr.Size) }

// Step is the id of the open step, "" between steps.
func (r *Run) Step() string { return look(r, func() string { return r.step }) }

// State is the state of the attempt.
func (r *Run) State() string { return look(r, func() string { return r.state }) }

// change takes the attempt to another state.
func (r *Run) change(state, cause string) error {
	if err := r.write(&record.State{Cause: cause, State: state}); err != nil {
		return err
	}
	r.state = state
	return nil
}

// enter is change for the work.
func (r *Run) enter(state, cause string) error {
	return r.do(func() error {
		if r.cause != nil {
			return r.cause
		}
		return r.change(state, cause)
	})
}

// Output writes a public file into the record and lists it.
func (r *Run) Output(path string, data []byte) error {
	sum := sha256.Sum256(data)
	if err := durable.WriteNew(filepath.Join(r.Dir, filepath.FromSlash(path)), data, 0o644); err != nil {
		return err
	}
	r.outputs = append(r.outputs, path)
	return r.Record(&record.Output{Path: path, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))})
}
