package unseal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/trail"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/vault/audit"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
	"keyrite/vault/worktoken"
)

// Opened is what a quorum opened. Attempts closes it.
type Opened struct {
	Operation string
	Epoch     int      // of the safe's shares that opened it
	Holders   []string // whose they were
	At        time.Time
	// Pool is the open work token, and Token its keys by their names in the charter.
	Pool  *hsm.Pool
	Token *worktoken.Token
	// Store is the open store. Its newest entry says who opened it.
	Store *seal.Store

	key   *seal.DataKey
	kept  *quorum.Kept // for a restart; nil if nothing was to be kept
	place seal.Place
	sup   *hsm.Supervisor
	user  io.Closer
}

// close undoes the opening, in the order in which things depend on each other.
func (o *Opened) close() error {
	var errs []error
	if o.user != nil {
		errs = append(errs, o.user.Close())
	}
	if o.Store != nil {
		errs = append(errs, o.Store.Close())
	}
	if o.Pool != nil {
		errs = append(errs, o.Pool.Close())
	}
	if o.sup != nil {
		errs = append(errs, o.sup.Close())
	}
	o.key.Wipe()
	for i, err := range errs {
		if err != nil {
			return joinErrors(err, errs[i+1:]...)
		}
	}
	return nil
}

// mayAsk refuses an operation that has nothing to work on.
func (a *Attempts) mayAsk(operation string, st *charter.State) error {
	sealed := a.Sealed()
	switch operation {
	case openrequest.Create:
		if a.created() {
			return fault.Hint(fault.New(fault.Exists, "the vault has a store; a store is never made anew over another"), "the operation is unseal")
		}
	case openrequest.Unseal, openrequest.Rehead:
		if !sealed {
			return ErrOpen
		}
		if a.reseals(operation) {
			return a.mayReseal(st)
		}
		if _, err := a.loadKey(st, st.Epochs[a.c.Safe]); err != nil {
			return err
		}
		if !a.created() {
			return fault.Hint(fault.New(fault.Usage, "the vault has no store"), "the operation is create; if there was a store, bring it back from its backup")
		}
	case openrequest.Reseal:
		return a.mayReseal(st)
	case openrequest.Carry:
		return a.mayCarry(st)
	default:
		return fault.Errorf(fault.Usage, "there is no operation %.40q; there are %v", operation, openrequest.Operations())
	}
	return nil
}

// open makes the vault open with what an attempt has. The caller holds x.mu.
func (a *Attempts) open(ctx context.Context, x *attempt, st *charter.State) error {
	a.gate.Lock()
	defer a.gate.Unlock()
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := a.enter(x, st, cancel); err != nil {
		return err
	}
	defer a.leave()
	if x.request.Operation == openrequest.Carry {
		return a.carry(ctx, x, st)
	}
	o, err := a.openToken(ctx, x, st)
	if err != nil {
		return err
	}
	if a.reseals(o.Operation) {
		if err := a.reseal(ctx, x, st, o); err != nil {
			return err
		}
		a.settle(o.kept)
		return nil
	}
	if err := a.openStore(ctx, x, st, o); err != nil {
		return joinErrors(err, o.close())
	}
	if err := a.handOver(ctx, o); err != nil {
		return err
	}
	a.settle(o.kept)
	return nil
}

// enter looks again, with the gate closed behind it, whether this may be opened.
func (a *Attempts) enter(x *attempt, st *charter.State, cancel context.CancelFunc) error {
	if err := a.live(x); err != nil {
		return err
	}
	if err := x.request.Check(st, a.c.Now()); err != nil {
		return err
	}
	if err := a.mayAsk(x.request.Operation, st); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancel = cancel
	return nil
}

func (a *Attempts) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancel = nil
}

// handOver gives what is open to who uses it. From then on it is open, and every
// attempt has ended.
func (a *Attempts) handOver(ctx context.Context, o *Opened) error {
	var err error
	if o.user, err = a.c.Opened(ctx, o); err != nil {
		return joinErrors(err, o.close())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened = o
	a.next(fault.Errorf(fault.Policy, "%w: the vault was opened", ErrEnded))
	return nil
}

// Look finds out, without any share, whether the token is there and admitted. It is
// asked before people are.
func (a *Attempts) Look(ctx context.Context) error {
	sup, err := hsm.Start(ctx, a.c.HSM)
	if err != nil {
		return err
	}
	_, err = a.admitted(ctx, sup, a.c.Charter())
	return joinNil(err, sup.Close())
}

func joinNil(err, second error) error {
	if err == nil {
		return second
	}
	return joinErrors(err, second)
}

// admitted finds the report that admits the token, before the module sees a PIN.
func (a *Attempts) admitted(ctx context.Context, sup *hsm.Supervisor, st *charter.State) (*admission.Report, error) {
	e, err := st.Epoch(a.c.Safe)
	if err != nil {
		return nil, err
	}
	tokens, module, err := sup.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range tokens {
		if t.Label == e.Token.Label && t.Serial == e.Token.Serial {
			return a.report(st, module, t)
		}
	}
	return nil, fault.Errorf(fault.Token, "there is no token %s with serial %s", e.Token.Label, e.Token.Serial)
}

// report is the newest one that admits a token behind a module now.
func (a *Attempts) report(st *charter.State, m hsm.ModuleInfo, t hsm.TokenInfo) (*admission.Report, error) {
	module, token := admit.Describe(m, t)
	var found *admission.Report
	var why error
	for _, data := range a.c.Reports {
		signed, err := admission.OpenAny(data, st.World, &st.People)
		if err != nil {
			why = err
		}
		for _, x := range signed {
			if x.Report.Token != *token && len(signed) > 1 {
				continue // a ceremony hands on those of all its tokens
			}
			if err := x.Report.Check(module, token, st.World, a.c.Now()); err != nil {
				why = err
			} else if found == nil || found.Made < x.Report.Made {
				found = x.Report
			}
		}
	}
	if why == nil {
		why = fault.New(fault.Token, "no report is of it")
	}
	if found == nil {
		return nil, fault.Hint(fault.Errorf(fault.Token, "token %s with serial %s is not admitted: %w", t.Label, t.Serial, why), "attack it with 'keyrite hsm admit', and name the report under admissions")
	}
	return found, nil
}

// openToken combines the shares in the child, and opens the token with what comes out.
func (a *Attempts) openToken(ctx context.Context, x *attempt, st *charter.State) (*Opened, error) {
	sup, err := hsm.Start(ctx, a.c.HSM)
	if err != nil {
		return nil, err
	}
	o := &Opened{Operation: x.request.Operation, Epoch: x.epoch.Epoch, Holders: a.shown(x).Given, At: a.c.Now(), sup: sup}
	rep, err := a.admitted(ctx, sup, st)
	if err == nil {
		o.place, err = place(st, x.epoch)
	}
	if err == nil {
		err = a.join(ctx, x, st, o)
	}
	if err == nil {
		err = a.login(ctx, st, o, rep)
	}
	if err != nil {
		return nil, joinErrors(err, o.close())
	}
	return o, nil
}

// login opens the pool, with the PIN that the supervisor has, and compares token and
// keys with report and charter.
func (a *Attempts) login(ctx context.Context, st *charter.State, o *Opened, rep *admission.Report) error {
	e := st.Epochs[a.c.Safe]
	var err error
	if o.Pool, err = hsm.NewPool(ctx, o.sup, hsm.TokenID{Label: e.Token.Label, Serial: e.Token.Serial}, hsm.PoolConfig{}); err != nil {
		return err
	}
	if err := admit.Check(rep, o.Pool.Access, st.World, a.c.Now()); err != nil {
		return err
	}
	if o.Token, err = worktoken.New(worktoken.Config{Pool: o.Pool, Charter: a.c.Charter, Report: rep}); err != nil {
		return err
	}
	return o.Token.Check(ctx)
}

// openStore opens the store, or makes it, and writes into it who opened it.
func (a *Attempts) openStore(ctx context.Context, x *attempt, st *charter.State, o *Opened) error {
	c := a.c.Store
	c.Place = o.place
	entry := a.entry(x, st)
	if o.Operation == openrequest.Create {
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return fault.Errorf(fault.Storage, "make the folder of the store: %w", err)
		}
		if err := seal.Create(ctx, c, o.key, entry); err != nil {
			return err
		}
	}
	if o.Operation == openrequest.Rehead {
		if err := seal.Rehead(ctx, c, o.key, entry); err != nil {
			return err
		}
	}
	var err error
	if o.Store, err = seal.Open(ctx, c, o.key); err != nil && a.before(st).Safe != "" && otherKey(err) {
		return fault.Hint(err, "a reseal may have broken off before the store was under these shares: repeat the operations carry and reseal")
	}
	if err != nil || o.Operation != openrequest.Unseal {
		return err
	}
	_, err = audit.NewJournal(o.Store).Do(ctx, seal.Strict, entry, nil)
	return err
}

// otherKey says whether a store may be under another key than the one that was tried.
func otherKey(err error) bool {
	return fault.HintOf(err) == "" && (errors.Is(err, seal.ErrKey) || fault.ClassOf(err) == fault.Policy)
}

// entry says in the audit trail who opened the vault: their signed openings and the
// request that they are for, which anybody can check against the charter.
func (a *Attempts) entry(x *attempt, st *charter.State) *audit.Entry {
	id := make([]byte, 16)
	rand.Read(id)
	openings := make([]any, len(x.openings))
	for i, env := range x.openings {
		openings[i] = env
	}
	return &audit.Entry{
		Charter: st.Size(), Format: trail.Format, Kind: audit.Life, Operation: x.request.Operation, Request: hex.EncodeToString(id),
		Params: map[string]any{"openings": openings, "request": x.file},
		Result: map[string]any{"holders": a.shown(x).Given},
		Time:   trail.FormatTime(a.c.Now()),
	}
}
