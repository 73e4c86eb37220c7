package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/internal/redact"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

// Call is one request, as it came.
type Call struct {
	Method  engine.Method
	RawPath string // as it came over the wire, nothing decoded, without "/v1/"
	Params  engine.Params
	// Fault is what was wrong with the request before it came here, such as a body that
	// is no JSON. It is refused with it, once it is known who asked.
	Fault error
	// Foreign says that a web page of another origin had a browser make the request: the
	// one whose certificate that shows asks for nothing. It comes with a Fault.
	Foreign bool
	Token   redact.Secret // empty if none was given
	Peer    identity.Peer
}

// Reply is what the caller gets.
type Reply struct {
	Request string // id of the call in the audit
	// Identity is who asked, as the charter knows it; "" if it is not known.
	Identity string
	// Needs is what a rule must give for the call; "" where it is not known.
	Needs   access.Capability
	Answer  *engine.Answer
	Lease   *Lease // nil if nothing was leased
	sealing bool
}

// Lease is a lease that was given.
type Lease struct {
	ID        string
	TTL       time.Duration
	Renewable bool
}

// call is a Call on its way.
type call struct {
	Call
	*vault
	entry  *audit.Entry
	force  *force // that decides
	path   access.Path
	also   access.Path // where the caller must have the same capability; none if empty
	known  bool        // who asks is known
	free   bool        // any known caller may: it is about the caller alone
	caller engine.Caller
	plan   *engine.Plan
	// take replaces the transaction of the plan, for calls that make their own.
	take    func(ctx context.Context, e *audit.Entry) (*engine.Answer, error)
	sealing bool                                     // the vault is sealed once the answer is made
	stale   int                                      // how often it was planned anew
	anybody func(*seal.View) (*engine.Answer, error) // reads what the charter opens to whoever asks, for one who is not known
	// delegation is what lets the caller do it where his rules do not.
	delegation *charter.Delegation
}

// Do takes one call. The answer is durable in the log when it returns, and so is the
// refusal, but for those of unknown callers that came too many at a time, which are
// counted. Errors have the classes of the packages that refused.
func (n *Node) Do(ctx context.Context, c Call) (*Reply, error) {
	v, ctx, leave, err := n.enter(ctx)
	if err != nil {
		n.sealed.add(refusedSealed)
		return nil, err
	}
	r, err := v.do(ctx, c)
	leave()
	if r == nil || !r.sealing {
		return r, err
	}
	if n.cfg.Sealing != nil {
		return r, n.cfg.Sealing()
	}
	return r, n.seal(context.WithoutCancel(ctx))
}

func (v *vault) do(ctx context.Context, c Call) (*Reply, error) {
	x := &call{Call: c, vault: v, force: v.force.Load(), entry: v.newEntry(audit.Request)}
	x.entry.Charter, x.entry.Operation = x.force.charter.Size(), asked(c.Method)
	if c.Peer.Remote.IsValid() {
		x.entry.Remote = c.Peer.Remote.String()
	}
	if err := x.decide(); err != nil {
		return x.reply(nil), x.heard(x.refuse(ctx, err))
	}
	if x.anybody != nil {
		answer, err := x.tellAnybody(ctx)
		return x.reply(answer), x.heard(err)
	}
	answer, err := x.perform(ctx)
	return x.reply(answer), x.heard(err)
}

// heard is an error as its caller may hear it: what is wrong with disk or cosigner, and
// where they are, is nothing for strangers.
func (x *call) heard(err error) error {
	if x.known {
		return err
	}
	for _, is := range []error{seal.ErrStopped, seal.ErrUnconfirmed, seal.ErrLagging} {
		if errors.Is(err, is) {
			return unwritten(is)
		}
	}
	return err
}

func (x *call) reply(a *engine.Answer) *Reply {
	r := &Reply{Request: x.entry.Request, Identity: x.caller.Identity, Answer: a, Lease: given(a), sealing: a != nil && x.sealing}
	if x.plan != nil {
		r.Needs = x.plan.Needs
	}
	return r
}

func (v *vault) newEntry(k trail.Kind) *audit.Entry {
	return &audit.Entry{Kind: k, Request: newID(), Time: trail.FormatTime(v.cfg.Now())}
}

// life is an entry about the vault itself.
func (v *vault) life(what string) *audit.Entry {
	e := v.newEntry(audit.Life)
	e.Operation = what
	if f := v.force.Load(); f != nil {
		e.Charter = f.charter.Size()
	}
	return e
}

// asked is the operation of a call before it is known what it needs.
func asked(m engine.Method) string {
	switch m {
	case engine.Read:
		return string(access.Read)
	case engine.List:
		return string(access.List)
	case engine.Delete:
		return string(access.Delete)
	}
	return string(access.Update)
}

// newID is the id of a call: 16 random bytes in hex.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// decide finds out who asks for what, and whether he may. It changes nothing.
func (x *call) decide() error {
	path, bad := access.ParsePath(x.RawPath)
	if bad == nil {
		x.path, x.entry.Path = path, path.String()
		if means, ok := loginPath(path); ok && x.Fault == nil {
			return x.login(means)
		}
	}
	var err error
	if x.caller, err = x.ident.Caller(x.Token, x.Peer); err != nil {
		if bad == nil {
			x.anybody = x.opened()
		}
		if x.anybody != nil {
			x.entry.Operation = string(access.Read)
			return nil
		}
		return err
	}
	x.known = true
	x.entry.Identity, x.entry.Means, x.entry.Accessor = x.caller.Identity, x.caller.Means, x.caller.Accessor
	switch {
	case bad != nil:
		return bad
	case x.Fault != nil:
		return x.Fault
	}
	return x.planned()
}

// planned has the plan made and decides about it.
func (x *call) planned() error {
	if err := x.find(); err != nil {
		return err
	}
	x.entry.Operation, x.entry.Params = string(x.plan.Needs), x.plan.Shown
	if x.free {
		return nil
	}
	return x.allowed(x.force)
}

// allowed asks the rules that the caller has under f.
func (x *call) allowed(f *force) error {
	rules, err := f.charter.Rules(x.caller.Identity)
	if err != nil {
		return fault.Errorf(fault.Policy, "%w: %w", access.ErrDenied, err)
	}
	all, ids := rules, []string(nil)
	if len(f.charter.Grants.Pulled) > 0 {
		var extra []access.Rule
		extra, ids = x.emergency(f, x.caller.Identity)
		more, err := access.Compile(extra)
		if err != nil {
			return fault.Errorf(fault.Policy, "%w: %w", access.ErrDenied, err)
		}
		all = access.Join(rules, more)
	}
	if x.also != (access.Path{}) {
		if err := all.Decide(x.also, x.plan.Needs); err != nil {
			return err
		}
	}
	refused := all.Decide(x.path, x.plan.Needs)
	if refused == nil {
		if len(ids) > 0 && rules.Decide(x.path, x.plan.Needs) != nil {
			x.entry.Params = withMember(x.entry.Params, "break_glass", ids)
		}
		return nil
	}
	if x.delegation != nil { // spent already, under the charter before
		if d, ok := f.charter.Grants.Delegations[x.delegation.ID]; ok && d == *x.delegation {
			return nil
		}
		return refused
	}
	if x.delegation = x.delegated(f, rules); x.delegation == nil {
		return refused
	}
	x.entry.Params = withMember(x.entry.Params, "delegation", x.delegation.ID)
	return nil
}

// withMember is m with one more member; m itself may be the engine's.
func withMember(m map[string]any, name string, v any) map[string]any {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]any{}
	}
	out[name] = v
	return out
}

// find has the plan of the call made.
func (x *call) find() error {
	segments := strings.Split(x.path.String(), "/")
	if ownFirst(segments[0]) {
		return x.own(segments)
	}
	e, ok := x.force.engines[segments[0]]
	if !ok {
		return fault.Errorf(fault.Usage, "%w: nothing is mounted at %q", engine.ErrNoPath, segments[0])
	}
	var err error
	x.plan, err = e.Plan(x.request())
	if err == nil && (x.plan == nil || x.plan.Apply == nil || x.plan.Needs == "") {
		return fault.New(fault.Unexpected, "the engine made half a plan")
	}
	return err
}

// request is the call as engines are given it.
func (x *call) request() *engine.Request {
	return &engine.Request{
		Caller: x.caller, Method: x.Method, Path: x.path, Rest: strings.Split(x.path.String(), "/")[1:], Params: x.Params, Now: x.cfg.Now(),
	}
}

// loginPath says whether a path is auth/MEANS/login, by which a token is asked for.
func loginPath(p access.Path) (means string, ok bool) {
	s := strings.Split(p.String(), "/")
	if len(s) == 3 && s[0] == "auth" && s[2] == "login" && s[1] != "token" {
		return s[1], true
	}
	return "", false
}

func (x *call) login(means string) error {
	x.entry.Operation, x.entry.Means = "login", means
	if x.Method != engine.Write {
		return engine.ErrNoPath
	}
	var err error
	if x.plan, err = x.ident.Login(means, x.Params, x.Peer); err != nil {
		return err
	}
	x.entry.Params = x.plan.Shown
	return nil
}

// refuse writes the entry of a refusal and returns why. Where the entry cannot be
// written that is the answer.
func (x *call) refuse(ctx context.Context, why error) error {
	if (!x.known || x.Foreign) && !x.refused.take() {
		return why
	}
	e := x.entry
	e.Kind, e.Class, e.Error, e.Result = audit.Refused, string(fault.ClassOf(why)), shown(why), nil
	blame(e, why)
	if _, err := x.journal.Do(context.WithoutCancel(ctx), seal.Durable, e, nil); err != nil {
		return unwritten(err)
	}
	return why
}

// blame adds what the caller is not told.
func blame(e *audit.Entry, why error) {
	var c *identity.Refusal
	if !errors.As(why, &c) {
		return
	}
	e.Identity, e.Accessor = c.Identity(), c.Accessor()
	e.Result = map[string]any{"cause": cut(c.Cause())}
}

// unwritten is the error of a call whose entry could not be written.
func unwritten(err error) error { return fmt.Errorf("write the audit entry: %w", err) }

// maxShown bounds the text of an error in the log, in bytes.
const maxShown = 512

// shown is an error as the caller is told, without what could be long.
func shown(err error) string { return cut(err.Error()) }

func cut(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return s
}

// perform makes what was decided, and its entries.
func (x *call) perform(ctx context.Context) (*engine.Answer, error) {
	if x.take != nil {
		a, err := x.take(ctx, x.entry)
		switch {
		case errors.Is(err, seal.ErrStopped), errors.Is(err, seal.ErrUnconfirmed), errors.Is(err, seal.ErrLagging):
			return nil, unwritten(err)
		case err != nil:
			return nil, x.refuse(ctx, err)
		}
		return a, nil
	}
	if err := x.spend(ctx); err != nil {
		return nil, err
	}
	if x.plan.Intent {
		if err := x.intend(ctx); err != nil {
			return nil, err
		}
		// From here on what becomes of it is written whether the client waits or not.
		ctx = context.WithoutCancel(ctx)
	}
	if x.plan.Work != nil {
		if err := x.plan.Work(ctx); err != nil {
			return nil, x.failed(ctx, err)
		}
	}
	return x.finish(ctx)
}

// promise is what the entries of the call wait for.
func (x *call) promise() seal.Promise {
	if x.plan.Strict {
		return seal.Strict
	}
	return seal.Durable
}

// finish is the transaction of effect and entry.
func (x *call) finish(ctx context.Context) (*engine.Answer, error) {
	var answer *engine.Answer
	var refused error
	_, err := x.journal.Do(ctx, x.promise(), x.entry, func(tx *seal.Tx) error {
		answer, refused = x.apply(tx)
		return refused
	})
	switch {
	case x.outdated(refused):
		return x.anew(ctx)
	case refused != nil:
		return nil, x.failed(ctx, refused)
	case err != nil:
		return nil, unwritten(err)
	}
	return answer, nil
}

// maxStale bounds how often a call is planned anew.
const maxStale = 3

// outdated says whether a call that was refused is to be planned anew. One that took
// something already, of a delegation or with an intent, is not.
func (x *call) outdated(refused error) bool {
	return errors.Is(refused, engine.ErrStale) && x.known && x.stale < maxStale && x.delegation == nil && x.entry.Intent == nil
}

// anew plans and decides once more, by what the store has now. Nothing was written.
func (x *call) anew(ctx context.Context) (*engine.Answer, error) {
	x.stale++
	x.entry.Params, x.entry.Result = nil, nil
	if err := x.planned(); err != nil {
		return nil, x.refuse(ctx, err)
	}
	return x.perform(ctx)
}

// still decides once more where a charter came into force since the decision.
//
// Behind a transaction that takes a charter over, and before that charter is in force,
// nothing is decided: it would be by the one before.
func (x *call) still() error {
	if f := x.vault.force.Load(); x.known && x.coming.Load() != int64(f.charter.Size()) {
		return ErrTakingOver
	}
	if f := x.vault.force.Load(); f != x.force && x.known {
		return x.again(f)
	}
	return nil
}

// apply is what is done within the transaction.
func (x *call) apply(tx *seal.Tx) (*engine.Answer, error) {
	if err := x.still(); err != nil {
		return nil, err
	}
	a, err := x.plan.Apply(tx)
	if err != nil {
		return nil, err
	}
	if a == nil {
		a = &engine.Answer{}
	}
	if a.Auth != nil {
		x.entry.Identity, x.entry.Accessor = a.Auth.Identity, a.Auth.Accessor
	}
	x.entry.Result = a.Result
	return a, x.leaseOf(tx, a)
}

// again decides under the charter that is in force now.
func (x *call) again(f *force) error {
	first, _, _ := strings.Cut(x.path.String(), "/")
	if x.force.engines[first] != f.engines[first] {
		return fault.Errorf(fault.Policy, "%w: the charter took %q away", access.ErrDenied, first)
	}
	if _, err := f.charter.Rules(x.caller.Identity); err != nil {
		return fault.Errorf(fault.Policy, "%w: %w", access.ErrDenied, err)
	}
	if x.free {
		return nil
	}
	return x.allowed(f)
}

// failed writes the entry of a call that was allowed and came to nothing, and gives back
// what was taken for it, where that is surely right.
func (x *call) failed(ctx context.Context, why error) error {
	if x.entry.Intent == nil {
		return x.refuse(ctx, why)
	}
	e := x.entry
	e.Class, e.Error, e.Result = string(fault.ClassOf(why)), shown(why), nil
	o := owed{e, x.plan.Undo}
	err := x.nothing(context.WithoutCancel(ctx), o)
	if errors.Is(err, seal.ErrLagging) { // nothing of it is in the store
		x.owe(o)
	}
	if err != nil {
		return unwritten(err)
	}
	return why
}
