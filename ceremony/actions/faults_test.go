package actions

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/console"
	"keyrite/ceremony/script"
	"keyrite/hsm/hsmtest"
	"keyrite/vault/quorum"
)

// tinyScript is a genesis of one safe and two keys: every kind of request, few
// of each. @LIMIT@ is every step's time limit.
const tinyScript = `format: keyrite/script/v1
kind: genesis
title: Faults
purpose: spoil one request
pins: {keyrite: @KEYRITE@, hsmd: @HSMD@, module: @MODULE@}
environment: {network: any, swap: any}
roles: {conductor: 1, conductor_operates: true, key_masters: {need: 2, of: 2}, witnesses: 2, approvers: {need: 2, of: 2}}
safes: [{name: work, token: @TOKEN@}]
keys:
  - {id: birth-root, safe: work, purpose: root, algorithm: p256, domain: x509, usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: true, destroyable: true}}
  - {id: firmware, safe: work, purpose: releases, algorithm: p256, domain: dsse, usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: false, destroyable: true}}
certificates: [{id: birth-root, profile: birth-root, key: birth-root, issuer: birth-root}]
summon:
  - {id: "1.1", do: environment.check, title: a, limit: @LIMIT@}
  - {id: "1.2", do: people.identify, title: a, limit: @LIMIT@}
run:
  - {id: "2.1", do: genesis.sign, title: a, limit: @LIMIT@}
  - {id: "3.1", do: token.init, safe: work, title: a, limit: @LIMIT@}
  - {id: "3.2", do: token.admit, safe: work, title: a, limit: @LIMIT@}
  - {id: "3.3", do: shares.deal, safe: work, title: a, limit: @LIMIT@}
  - {id: "3.4", do: shares.receipts, safe: work, title: a, limit: @LIMIT@}
  - {id: "3.5", do: token.pins, safe: work, title: a, limit: @LIMIT@}
  - {id: "5.1", do: key.generate, key: birth-root, title: a, limit: @LIMIT@}
  - {id: "5.2", do: key.generate, key: firmware, title: a, limit: @LIMIT@}
  - {id: "6.1", do: cert.issue, cert: birth-root, title: a, limit: @LIMIT@}
  - {id: "7.1", do: charter.append, title: a, limit: @LIMIT@}
seal:
  - {id: "8.1", do: keys.store, safe: work, title: a, limit: @LIMIT@}
  - {id: "8.3", do: keys.prove, safe: work, title: a, limit: @LIMIT@}
  - {id: "8.5", do: outputs.write, title: a, limit: @LIMIT@}
  - {id: "8.6", do: read.aloud, title: a, limit: @LIMIT@}
`

// stand is a store, a fault module over it, and few people, whose keys were
// unlocked once for all ceremonies.
type stand struct {
	*house
	faults   *hsmtest.Faults
	programs []record.Program
	armed    []int // calls of each function before ARMED, in a run without a fault
	closed   []int // before CLOSED: what is spoiled later changes nothing
	total    []int // and in all
}

func newStand(t testing.TB) *stand {
	t.Helper()
	h := newHouse(t)
	st := &stand{house: h, faults: h.env.Faults(t)}
	programs, err := Programs(h.env.Config.HSMD, st.faults.Module)
	if err != nil {
		t.Fatal(err)
	}
	st.programs = programs
	bind := "format: keyrite/bind/v1\nworld: " + testWorld + "\nmodule: " + st.faults.Module +
		"\nsandbox: {folders: [" + h.env.Dir + "], state_dir: " + h.env.Config.StateDir + "}\ntokens: {work: fresh}\nshares: shares\npeople:\n"
	for name, role := range map[string]string{
		"conductor": charter.RoleConductor, "master1": charter.RoleKeyMaster, "master2": charter.RoleKeyMaster,
		"witness1": charter.RoleWitness, "witness2": charter.RoleWitness, "approver1": charter.RoleApprover, "approver2": charter.RoleApprover,
	} {
		bind += fmt.Sprintf("  - {person: %s.person, key: %s.key, role: %s}\n", name, name, role)
	}
	h.write(t, "bind-faults.yaml", []byte(bind))
	return st
}

// viewer tells when the ceremony enters a state.
type viewer struct {
	ceremony.Console
	state  string
	enters func(state string)
}

func (v *viewer) View(x ceremony.View) {
	if x.State != v.state && v.enters != nil {
		v.enters(x.State)
	}
	v.state = x.State
}

// opened is the key of a person who unlocked it once, before all ceremonies.
type opened struct {
	handle []byte
	key    *person.Key
}

func (o *opened) Unlock(context.Context, ceremony.Ask) (k *person.Key, err error) {
	o.key, err = person.FromHandle(o.handle)
	return o.key, err
}

func (o *opened) Lock() {
	if o.key != nil {
		o.key.Zero()
		o.key = nil
	}
}

// unlocked replaces everybody's file by the key that was in it.
func (s *stand) unlocked(t testing.TB, people []ceremony.Participant) {
	t.Helper()
	for i := range people {
		h, err := s.people[people[i].Person.Name].Handle()
		if err != nil {
			t.Fatal(err)
		}
		people[i].Key = &opened{handle: h}
	}
}

// try runs the tiny genesis with label.
func (s *stand) try(t *testing.T, label string, action hsmtest.Action, enters func(state string)) (string, error) {
	t.Helper()
	return s.found(t, label, tinyScript, action, enters)
}

// found runs a genesis like the tiny one with label.
func (s *stand) found(t testing.TB, label, text string, action hsmtest.Action, enters func(state string)) (string, error) {
	t.Helper()
	return s.perform(t, attempt{name: label, text: strings.ReplaceAll(text, "@TOKEN@", label), action: action, enters: enters, bind: func(b *Bind) { b.Shares = "shares-" + label }})
}

// attempt is one ceremony at a stand.
type attempt struct {
	name   string // of the record's folder, after record-
	text   string // of the script
	file   string // of the binding, default bind-faults.yaml
	action hsmtest.Action
	enters func(state string)
	bind   func(*Bind)
}

// learn counts the calls of a ceremony that nothing spoils.
func (s *stand) learn(state string) {
	switch state {
	case "ARMED":
		s.armed, _ = s.faults.Calls()
	case "CLOSED":
		s.closed, _ = s.faults.Calls()
	}
}

func (s *stand) perform(t testing.TB, a attempt) (string, error) {
	t.Helper()
	programs := s.programs
	text := strings.NewReplacer("@KEYRITE@", programs[0].SHA256, "@HSMD@", programs[1].SHA256, "@MODULE@", programs[2].SHA256, "@LIMIT@", stepLimit.String()).Replace(a.text)
	sc, err := script.Parse("tiny.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if a.file == "" {
		a.file = "bind-faults.yaml"
	}
	bind := s.bind(t, a.file)
	a.bind(bind)
	people, err := bind.Participants(sc)
	if err != nil {
		t.Fatal(err)
	}
	s.unlocked(t, people)
	answers, err := console.LoadAnswers(s.path("answers.yaml"), console.NewLine(io.Discard, nil))
	if err != nil {
		t.Fatal(err)
	}
	self, err := quorum.Self()
	if err != nil {
		t.Fatal(err)
	}
	acts, err := New(sc, bind, self, s.env.Config.HSMD)
	if err != nil {
		t.Fatal(err)
	}
	clock := ceremony.SystemClock()
	if a.action == hsmtest.Hang {
		clock = &hasty{clock, func() bool { _, done := s.faults.Calls(); return done }}
	}
	dir := s.path("record-" + a.name)
	_, err = ceremony.Execute(context.Background(), ceremony.Config{
		Script: sc, ScriptBytes: []byte(text), BindHash: bind.Hash(), Dir: dir, World: bind.World, People: people, Programs: programs,
		Environment: map[string]string{}, Console: &viewer{answers, "", a.enters}, Clock: clock, Actions: acts, Base: acts.Base(),
	})
	return dir, err
}

// count learns how often each function is called.
func (s *stand) count(t *testing.T) {
	t.Helper()
	s.faults.Reset(0, 0, 0)
	dir, err := s.try(t, "whole", 0, s.learn)
	if err != nil {
		t.Fatal(err)
	}
	s.total, _ = s.faults.Calls()
	s.empty(t)
	if v, err := record.VerifyOwn(os.DirFS(dir)); v == nil || fault.ClassOf(err) != fault.Quorum { // witness2 cosigns elsewhere
		t.Fatalf("without a fault: %v", err)
	}
}

// empty removes every token.
func (s *stand) empty(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(s.env.TokenDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.env.TokenDir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// hasty lets the time limit of a step, which is minutes, pass as soon as a call
// hangs.
type hasty struct {
	ceremony.Clock
	hangs func() bool
}

// stepLimit is that of every step of tinyScript.
const stepLimit = 5 * time.Minute

func (c *hasty) Timer(d time.Duration) (<-chan time.Time, func()) {
	if d < time.Minute {
		return c.Clock.Timer(d)
	}
	fired, stopped := make(chan time.Time, 1), make(chan struct{})
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stopped:
				return
			case now := <-tick.C:
				if c.hangs() {
					fired <- now
					return
				}
			}
		}
	}()
	return fired, sync.OnceFunc(func() { close(stopped) })
}

// spoil runs a genesis with one call spoiled, and wants it void and cleaned.
func (s *stand) spoil(t *testing.T, sp spoiling) {
	t.Helper()
	name := sp.String()
	label := strings.ToLower(strings.ReplaceAll(name, "_", ""))
	s.faults.Reset(sp.function, sp.n, sp.action)
	dir, err := s.try(t, label, sp.action, nil)
	if _, done := s.faults.Calls(); !done {
		t.Errorf("%s: the call never came: %v", name, err)
		return
	}
	defer s.empty(t)
	if fault.ClassOf(err) != fault.Void {
		t.Errorf("%s: the outcome is %v (%s)", name, err, fault.ClassOf(err))
		return
	}
	v, err := record.Read(os.DirFS(dir))
	if v == nil || v.State != "VOID" || fault.ClassOf(err) != fault.Void {
		t.Errorf("%s: the record reads as %v", name, err)
		return
	}
	s.cleaned(t, name, v)
	for _, d := range []string{dir, s.path("shares-" + label)} {
		if err := os.RemoveAll(d); err != nil {
			t.Error(err)
		}
	}
}

// cleaned wants every token of the attempt named in the record, and any object
// that is still in the store admitted.
func (s *stand) cleaned(t *testing.T, name string, v *record.Verified) {
	t.Helper()
	begun, named := false, (*record.Cleanup)(nil)
	for _, l := range v.Timeline {
		switch d := l.Data.(type) {
		case *record.Intent:
			begun = true
		case *record.Cleanup:
			named = d
		}
	}
	if begun && (named == nil || named.Tainted == "") {
		t.Errorf("%s: the token is not named: %+v", name, named)
		return
	}
	objects := 0
	tokens, err := filepath.Glob(filepath.Join(s.env.TokenDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range tokens {
		files, err := filepath.Glob(filepath.Join(dir, "*.object"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if filepath.Base(f) != "token.object" {
				objects++
			}
		}
	}
	if objects > 0 && (named == nil || named.Left == 0) {
		t.Errorf("%s: %d objects are left in the store, and the record says %+v", name, objects, named)
	}
}

// Every kind of request of a genesis is spoiled once: it fails, hangs, or crashes
// the module, in turn. The outcome is VOID, and no object of the attempt is left
// unless the record names its token as never to be used again (R-CER-14, R-CER-15).
func TestEachKindOfRequestSpoiled(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.count(t)
	actions := []hsmtest.Action{hsmtest.Fail, hsmtest.Crash, hsmtest.Hang}
	kinds := 0
	for i := range s.total {
		if n := s.total[i] - s.armed[i]; n > 0 {
			s.spoil(t, spoiling{i, s.armed[i] + (n+1)/2, actions[kinds%len(actions)]})
			kinds++
		}
	}
	if kinds < 20 {
		t.Errorf("only %d kinds of requests were seen", kinds)
	}
}
