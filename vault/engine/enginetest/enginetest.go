// Package enginetest runs an engine as the vault does, over a real store and a
// rehearsal world with software keys, for the tests of the engines. Only tests
// import it. It leaves out who asks and what he may: that is the vault's part.
package enginetest

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Bench is a world with a store and one mount, or more.
type Bench struct {
	World   *artifacttest.World
	Store   *seal.Store
	Journal *audit.Journal
	Host    *engine.Host
	Dir     string // with the store and what opens it: see Open
	Now     time.Time
	Caller  engine.Caller
	// Rules decide on each request; nil allows all.
	Rules []access.Rule
	// Reached is told how far a call is, at each of the points; nil is nobody.
	Reached func(point string, p *engine.Plan)

	t     testing.TB
	calls atomic.Int64
}

// New makes a world with an engine of that kind at the mount of that name.
func New(t testing.TB, kind, mount string) *Bench {
	t.Helper()
	b := &Bench{World: artifacttest.New(t), Dir: t.TempDir(), Now: artifacttest.Now(), Caller: engine.Caller{Identity: "tester", Means: "certificate", Bound: true}, t: t}
	if err := create(t.Context(), b.Dir); err != nil {
		t.Fatal(err)
	}
	b.Reopen()
	t.Cleanup(func() { _ = b.Store.Close() })
	b.Host = b.Mount(kind, mount)
	return b
}

// Over is a bench over a world and a store that are there, for the engine that the
// charter has at the mount.
func Over(t testing.TB, w *artifacttest.World, s *seal.Store, mount string) *Bench {
	b := &Bench{World: w, Store: s, Journal: audit.NewJournal(s), Now: artifacttest.Now(), Caller: engine.Caller{Identity: "tester", Means: "certificate", Bound: true}, t: t}
	b.Host = b.host(mount)
	return b
}

// Mount puts one more engine into the charter.
func (b *Bench) Mount(kind, mount string) *engine.Host {
	b.t.Helper()
	b.World.Approve(charter.TypeMount, charter.Mount{Engine: kind, ID: mount})
	return b.host(mount)
}

func (b *Bench) host(mount string) *engine.Host {
	view := func(f func(*seal.View) error) error { return b.Store.View(f) }
	return &engine.Host{Mount: mount, Charter: func() *charter.State { return b.World.State }, View: view, Public: "https://127.0.0.1:8200"}
}

// Reopen closes the store, if it is open, and opens it as the next process does.
func (b *Bench) Reopen() {
	b.t.Helper()
	if b.Store != nil {
		if err := b.Store.Close(); err != nil {
			b.t.Fatal(err)
		}
	}
	s, err := Open(b.Dir)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Store, b.Journal = s, audit.NewJournal(s)
}

// Found lets the engine make what the charter wants.
func (b *Bench) Found(e engine.Founder) error {
	_, err := b.Journal.Do(b.t.Context(), seal.Durable, b.entry(audit.Life, trail.OpCharter), func(tx *seal.Tx) error {
		return e.Found(tx, b.World.State, b.Now)
	})
	return err
}

func (b *Bench) entry(k trail.Kind, op string) *audit.Entry {
	return &audit.Entry{Kind: k, Operation: op, Request: strconv.FormatInt(b.calls.Add(1), 10), Time: trail.FormatTime(b.Now)}
}

// Request makes one of a path without the mount and a body that becomes JSON; nil
// is none.
func (b *Bench) Request(m engine.Method, path string, body any) *engine.Request {
	b.t.Helper()
	p, err := access.ParsePath(b.Host.Mount + "/" + path)
	if err != nil {
		b.t.Fatal(err)
	}
	r := &engine.Request{Caller: b.Caller, Method: m, Path: p, Rest: strings.Split(path, "/"), Now: b.Now}
	if body != nil {
		raw, err := json.Marshal(body)
		if err == nil {
			err = json.Unmarshal(raw, &r.Params)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return r
}

// Do makes a request: planned, its intent written, worked, applied with its entry.
func (b *Bench) Do(e engine.Engine, m engine.Method, path string, body any) (*engine.Answer, error) {
	b.t.Helper()
	return b.Run(e, b.Request(m, path, body))
}

// Run is Do for a request that is made already.
func (b *Bench) Run(e engine.Engine, r *engine.Request) (*engine.Answer, error) {
	plan, err := e.Plan(r)
	if err != nil {
		return nil, err
	}
	if plan.Needs == "" || plan.Apply == nil {
		return nil, errors.New("the plan needs nothing, or does nothing")
	}
	if b.Rules != nil {
		if err := access.Decide(b.Rules, r.Path, plan.Needs); err != nil {
			return nil, err
		}
	}
	b.reached(Planned, plan)
	entry := b.entry(audit.Request, string(plan.Needs))
	entry.Path, entry.Params = r.Path.String(), plan.Shown
	if plan.Intent {
		intent := *entry
		intent.Kind = audit.Intent
		taken := promise(plan)
		if plan.Reserve != nil {
			taken = seal.Strict
		}
		n, err := b.Journal.Do(b.t.Context(), taken, &intent, plan.Reserve)
		if err != nil && !errors.Is(err, seal.ErrUnconfirmed) {
			return nil, err
		}
		entry.Kind, entry.Intent = audit.Result, &n
		if err != nil {
			b.reached(Unconfirmed, plan)
			return nil, b.failed(entry, plan, err)
		}
	}
	b.reached(Reserved, plan)
	if plan.Work != nil {
		if err := plan.Work(b.t.Context()); err != nil {
			return nil, b.failed(entry, plan, err)
		}
	}
	b.reached(Worked, plan)
	var a *engine.Answer
	_, err = b.Journal.Do(b.t.Context(), promise(plan), entry, func(tx *seal.Tx) error {
		a, err = plan.Apply(tx)
		if a != nil {
			entry.Result = a.Result
		}
		return err
	})
	if err != nil {
		return nil, b.failed(entry, plan, err)
	}
	b.reached(Applied, plan)
	return a, nil
}

func (b *Bench) reached(point string, p *engine.Plan) {
	if b.Reached != nil {
		b.Reached(point, p)
	}
}

func promise(p *engine.Plan) seal.Promise {
	if p.Strict {
		return seal.Strict
	}
	return seal.Durable
}

// failed writes the result of an intent that came to nothing, with what is given back.
func (b *Bench) failed(e *audit.Entry, p *engine.Plan, cause error) error {
	if e.Intent == nil {
		return cause
	}
	e.Class, e.Error = string(fault.ClassOf(cause)), cause.Error()
	_, err := b.Journal.Do(b.t.Context(), seal.Durable, e, func(tx *seal.Tx) (err error) {
		if p.Undo != nil {
			e.Result, err = p.Undo(tx)
		}
		return err
	})
	b.reached(Undone, p)
	return errors.Join(cause, err)
}

// Call is Do of a path with its mount and a body that is JSON; "" is none.
func (b *Bench) Call(e engine.Engine, m engine.Method, path, body string) (*engine.Answer, error) {
	b.t.Helper()
	return b.Run(e, b.Whole(m, path, body))
}

// Whole is Request of a path with its mount and a body that is JSON; "" is none.
func (b *Bench) Whole(m engine.Method, path, body string) *engine.Request {
	b.t.Helper()
	p, err := access.ParsePath(path)
	if err != nil {
		b.t.Fatal(err)
	}
	r := &engine.Request{Caller: b.Caller, Method: m, Path: p, Rest: strings.Split(path, "/")[1:], Now: b.Now}
	if body != "" {
		if err := json.Unmarshal([]byte(body), &r.Params); err != nil {
			b.t.Fatal(err)
		}
	}
	return r
}

// Must is Call that has to go well; what it answers is JSON.
func (b *Bench) Must(e engine.Engine, m engine.Method, path, body string) string {
	b.t.Helper()
	a, err := b.Call(e, m, path, body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", path, body, err)
	}
	return JSON(b.t, a.Data)
}

// Look is Call that only reads, without an entry: for tests that make many.
func (b *Bench) Look(e engine.Engine, path, body string) (*engine.Answer, error) {
	b.t.Helper()
	p, err := e.Plan(b.Whole(engine.Read, path, body))
	if err != nil {
		return nil, err
	}
	if p.Work != nil {
		if err := p.Work(b.t.Context()); err != nil {
			return nil, err
		}
	}
	return p.Apply(nil)
}

// Audit is the whole log as text, to look for what must not be in it.
func (b *Bench) Audit() string {
	b.t.Helper()
	var out strings.Builder
	for n := range b.Store.Head().Size {
		raw, err := b.Store.Entry(uint64(n))
		if err != nil {
			b.t.Fatal(err)
		}
		out.Write(append(raw, '\n'))
	}
	return out.String()
}

// JSON is what a client reads of an answer; "" without content.
func JSON(t testing.TB, data any) string {
	t.Helper()
	if data == nil {
		return ""
	}
	out, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Data is what a client reads under "data".
func Data(t testing.TB, a *engine.Answer) map[string]any {
	t.Helper()
	raw, err := json.Marshal(a.Data)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
