// Package enginetest runs an engine as the vault does, over a real store and a
// rehearsal world with software keys, for the tests of the engines. Only tests
// import it. It leaves out who asks and what he may: that is the vault's part.
package enginetest

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
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

// Bench is a world with a store and one mount.
type Bench struct {
	World   *artifacttest.World
	Store   *seal.Store
	Journal *audit.Journal
	Host    *engine.Host
	Now     time.Time
	Caller  engine.Caller

	t     testing.TB
	calls int
}

// New makes a world with an engine of that kind at the mount of that name.
func New(t testing.TB, kind, mount string) *Bench {
	t.Helper()
	w := artifacttest.New(t)
	w.Approve(charter.TypeMount, charter.Mount{Engine: kind, ID: mount})
	k, err := seal.NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	dir := t.TempDir()
	keeper, err := seal.NewFileKeeper(filepath.Join(dir, "head"), w.World)
	if err != nil {
		t.Fatal(err)
	}
	c := seal.Config{
		Dir: dir, Place: seal.Place{Vault: [32]byte{1}, World: w.World, Epoch: 1}, Head: keeper,
		Check: func(context.Context, string) error { return nil },
	}
	if err := seal.Create(t.Context(), c, k, map[string]string{"did": "create"}); err != nil {
		t.Fatal(err)
	}
	s, err := seal.Open(t.Context(), c, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &Bench{
		World: w, Store: s, Journal: audit.NewJournal(s), Now: artifacttest.Now(), Caller: engine.Caller{Identity: "tester", Means: "certificate", Bound: true}, t: t,
		Host: &engine.Host{Mount: mount, Charter: func() *charter.State { return w.State }, View: s.View, Public: "https://127.0.0.1:8200"},
	}
}

// Found lets the engine make what the charter wants.
func (b *Bench) Found(e engine.Founder) error {
	_, err := b.Journal.Do(b.t.Context(), seal.Durable, b.entry(audit.Life, trail.OpCharter), func(tx *seal.Tx) error {
		return e.Found(tx, b.World.State, b.Now)
	})
	return err
}

func (b *Bench) entry(k trail.Kind, op string) *audit.Entry {
	b.calls++
	return &audit.Entry{Kind: k, Operation: op, Request: strconv.Itoa(b.calls), Time: trail.FormatTime(b.Now)}
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
	entry := b.entry(audit.Request, string(plan.Needs))
	entry.Path, entry.Params = r.Path.String(), plan.Shown
	if plan.Intent {
		intent := *entry
		intent.Kind = audit.Intent
		n, err := b.Journal.Do(b.t.Context(), seal.Durable, &intent, nil)
		if err != nil {
			return nil, err
		}
		entry.Kind, entry.Intent = audit.Result, &n
	}
	if plan.Work != nil {
		if err := plan.Work(b.t.Context()); err != nil {
			return nil, b.failed(entry, err)
		}
	}
	promise := seal.Durable
	if plan.Strict {
		promise = seal.Strict
	}
	var a *engine.Answer
	_, err = b.Journal.Do(b.t.Context(), promise, entry, func(tx *seal.Tx) error {
		a, err = plan.Apply(tx)
		if a != nil {
			entry.Result = a.Result
		}
		return err
	})
	return a, err
}

// failed writes the result of an intent that came to nothing.
func (b *Bench) failed(e *audit.Entry, cause error) error {
	if e.Intent == nil {
		return cause
	}
	e.Class, e.Error = string(fault.ClassOf(cause)), cause.Error()
	_, err := b.Journal.Do(b.t.Context(), seal.Durable, e, nil)
	return errors.Join(cause, err)
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
