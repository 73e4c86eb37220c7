// Package unseal opens a vault with the shares of a quorum, wherever its key masters
// are, and seals it again. keyrite-vault serve has one Attempts; what asks it is the
// local control socket and POST sys/unseal.
//
//	a, err := unseal.NewAttempts(unseal.Config{...})
//	x, err := a.New(ctx, unseal.Ask{Operation: openrequest.Unseal, By: "operator"})
//	… each key master answers x.Request with 'keyrite share open' …
//	p, err := a.Answer(ctx, data) // says at once whose share is bad, or how many are there
//
// An attempt has a key of its own, in one locked page, and an end. Attempts of two
// operators do not mix: an answer is for one attempt, operation and host, by the
// holder's two signatures. With the last share needed the token is opened, its keys
// are compared with the charter, the store is opened, and Config.Opened is called.
// Seal undoes all of that. Go cannot wipe what ciphers copied, so whoever has sealed
// a vault ends its process, as 'keyrite-vault serve' does.
//
// This package must never see a share, secret or PIN in the clear: those are in the
// share child alone. It must never count a share that was not weighed.
package unseal

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/hsm"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
	"keyrite/vault/unattended"
)

// DefaultValid is how long an attempt may take, if nothing else is configured.
const DefaultValid = 15 * time.Minute

const (
	// maxAttempts of one asker, and of all, may be under way at a time; each holds a
	// locked page, and nobody may keep the others out.
	maxAttemptsBy = 4
	maxAttempts   = 16
	// maxChecks answers have their signatures checked at a time.
	maxChecks = 4
	// maxChildren weigh shares at a time.
	maxChildren = 4
	// openTimeout bounds the opening of token and store after the last share; a large
	// store is read through.
	openTimeout = 5 * time.Minute
)

// Classes of refusal.
var (
	// ErrNoAttempt says that no attempt under way is meant.
	ErrNoAttempt = fault.New(fault.Policy, "this is for no attempt that is under way")
	// ErrEnded says that the attempt is over.
	ErrEnded = fault.New(fault.Policy, "the attempt has ended")
	// ErrOpen says that the vault is open already.
	ErrOpen = fault.New(fault.Exists, "the vault is open already")
	// ErrSealed says that the vault is sealed.
	ErrSealed = fault.New(fault.Sealed, "the vault is sealed")
	// ErrBusy says that too many attempts are under way.
	ErrBusy = fault.New(fault.Sealed, "too many attempts are under way")
	// ErrTwice says that a holder gave his share to this attempt before.
	ErrTwice = fault.New(fault.Quorum, "the share was given to this attempt already")
	// ErrReshared says that the store is still under shares of before.
	ErrReshared = fault.New(fault.Policy, "the shares were dealt anew since the store was sealed with the old ones")
	// ErrRetired says that the store is still under a safe that was retired.
	ErrRetired = fault.New(fault.Policy, "the safe that the store is under was retired")
)

// Config says what is opened. All but Unattended, Valid, Expired and Now are required.
type Config struct {
	// Charter is the charter in force. It is not changed.
	Charter func() *charter.State
	// Safe is the safe whose token the vault works with.
	Safe string
	// Host is the id of this host in the charter, and HostKey its key.
	Host    string
	HostKey crypto.Signer
	// HSM is the module of the token.
	HSM hsm.Config
	// Reports are admission reports of the token, each signed by somebody in the
	// charter.
	Reports [][]byte
	// Quorum starts the share child.
	Quorum quorum.Config
	// Dir is where the wrapped data keys lie.
	Dir string
	// Store is the vault's store. Its Place is not looked at.
	Store seal.Config
	// Unattended is where this host keeps what a restart without key masters needs,
	// while the charter lets it. Default: nowhere, in Dir.
	Unattended *unattended.Place
	// Valid is how long an attempt may take: to 24 hours. Default DefaultValid.
	Valid time.Duration
	// Opened takes what was opened, and gives what is closed first when the vault is
	// sealed. It is called once for each opening; an error seals the vault again. It
	// must not call Attempts.
	Opened func(ctx context.Context, o *Opened) (io.Closer, error)
	// Expired is told when the store's key, opened by shares of before, was wiped since no
	// new shares came for it. Whoever is told ends his process, as after Seal. It must not
	// call Attempts; nil is nobody.
	Expired func()
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (c *Config) check() error {
	if c.Charter == nil || c.Safe == "" || c.Host == "" || c.HostKey == nil || c.Dir == "" || c.Quorum.Executable == "" || c.Opened == nil || len(c.Reports) == 0 {
		return fault.New(fault.Usage, "unsealing needs charter, safe, host and its key, folder, child, admission reports and who takes what is opened")
	}
	if c.Valid == 0 {
		c.Valid = DefaultValid
	}
	if c.Valid < 0 || c.Valid > openrequest.MaxValidity {
		return fault.New(fault.Usage, "an attempt may take at most 24 hours")
	}
	if c.Unattended == nil {
		c.Unattended = &unattended.Place{Dir: c.Dir}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// Attempts are the attempts to open one vault, and what was opened. It may be used
// by any number of goroutines.
type Attempts struct {
	c        Config
	checks   chan struct{} // one element for each answer whose signatures are checked
	children chan struct{} // one element for each child that weighs
	ending   sync.WaitGroup

	gate sync.Mutex // one opening or sealing at a time; held through it
	keep sync.Mutex // one reader or writer of what is kept for a restart at a time

	mu         sync.Mutex // guards the rest
	list       map[string]*attempt
	generation int // of openings and sealings; an attempt of before has ended
	opened     *Opened
	carried    *carried           // the store's key under shares of before, of a sealed vault
	cancel     context.CancelFunc // ends the opening under way, if there is one
	trouble    error              // what came of the last thing that was done for a restart
}

// NewAttempts is a vault that is sealed.
func NewAttempts(c Config) (*Attempts, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Attempts{c: c, checks: make(chan struct{}, maxChecks), children: make(chan struct{}, maxChildren), list: map[string]*attempt{}}, nil
}

// Ask says what a new attempt is for.
type Ask struct {
	Operation string // one of openrequest.Operations
	// By names who asks, to bound how many attempts one may have: "operator", or the
	// name of a listener.
	By    string
	Valid time.Duration // 0: as configured; no longer than that
}

// Begun is a new attempt.
type Begun struct {
	Progress
	// Request is the file that goes to every holder of the safe.
	Request []byte
}

// New begins an attempt.
func (a *Attempts) New(ctx context.Context, ask Ask) (*Begun, error) {
	if ask.Valid == 0 {
		ask.Valid = a.c.Valid
	}
	if ask.Valid < 0 || ask.Valid > a.c.Valid {
		return nil, fault.Errorf(fault.Usage, "an attempt may take at most %s here", a.c.Valid)
	}
	if ask.By == "" {
		return nil, fault.New(fault.Usage, "an attempt says who asks")
	}
	st := a.c.Charter()
	if err := a.mayAsk(ask.Operation, st); err != nil {
		return nil, err
	}
	x, err := a.begin(ctx, ask, st)
	if err != nil {
		return nil, err
	}
	if err := a.add(x); err != nil {
		x.end(err)
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended == nil {
		x.timer = time.AfterFunc(ask.Valid, func() { x.end(expired(x.request)) })
	}
	return &Begun{a.shown(x), x.file}, nil
}

func expired(r *openrequest.Request) error {
	return fault.Errorf(fault.Policy, "%w: it expired at %s", ErrEnded, r.Expires)
}

// begin makes the attempt and its signed request.
func (a *Attempts) begin(ctx context.Context, ask Ask, st *charter.State) (*attempt, error) {
	recipient, once, err := a.c.Quorum.NewOnce(ctx)
	if err != nil {
		return nil, err
	}
	x := &attempt{once: once, by: ask.By}
	r, err := openrequest.New(st, a.asked(ask, recipient, st), a.c.Now())
	if err == nil {
		x.epoch, err = st.EpochAt(r.Safe, r.Epoch)
	}
	if err == nil {
		x.request, x.id = r, hex.EncodeToString(r.Attempt)
		x.file, err = r.Sign(a.c.HostKey)
	}
	if err == nil {
		_, err = openrequest.Open(x.file, st, a.c.Now()) // as holders will: the key is the one in the charter
	}
	if err == nil {
		_, x.words, err = r.Hash()
	}
	if err != nil {
		once.Wipe()
		return nil, err
	}
	return x, nil
}

// asked is what the request asks for: the shares of our safe, but for Carry those that the
// store is under.
func (a *Attempts) asked(ask Ask, recipient string, st *charter.State) openrequest.Ask {
	q := openrequest.Ask{Host: a.c.Host, Operation: ask.Operation, Safe: a.c.Safe, Recipient: recipient, Valid: ask.Valid}
	switch ask.Operation {
	case openrequest.Carry:
		under := a.before(st)
		q.Safe, q.Epoch = under.Safe, under.Epoch
		if under.Safe != a.c.Safe {
			q.Into = a.c.Safe
		}
	case openrequest.Reseal, openrequest.Rehead:
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.carried != nil && a.carried.epoch.Safe != a.c.Safe {
			q.From = a.carried.epoch.Safe
		}
	}
	return q
}

// add puts an attempt into the list, if there is room.
func (a *Attempts) add(x *attempt) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	by, all := 0, 0
	for id, o := range a.list {
		if o.generation != a.generation || a.c.Now().After(o.until()) {
			delete(a.list, id) // its timer, or who changed the generation, ends it
			continue
		}
		all++
		if o.by == x.by {
			by++
		}
	}
	if by >= maxAttemptsBy || all >= maxAttempts {
		return fault.Hint(fault.Errorf(fault.Sealed, "%w: %d, %d of them asked by %.40q", ErrBusy, all, by, x.by), "drop one, or wait for its end")
	}
	x.generation = a.generation
	a.list[x.id] = x
	return nil
}

// find is the attempt that an answer says it is for.
func (a *Attempts) find(ans *openrequest.Answer) (*attempt, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.list {
		if ans.For(x.request.Attempt) {
			return x, nil
		}
	}
	hint := "its request expired, was dropped, or ended when the vault was opened, sealed or started anew: answer the newest one"
	if who := ans.Holder(); who != "" {
		return nil, fault.Hint(fault.Errorf(fault.Policy, "answer of %.40q: %w", who, ErrNoAttempt), hint)
	}
	return nil, fault.Hint(ErrNoAttempt, hint)
}

// Answer takes one holder's answer, which is judged at once: an error names the
// holder and what is wrong, and leaves the progress as it was. The last one needed
// opens the vault before Answer returns.
func (a *Attempts) Answer(ctx context.Context, data []byte) (*Progress, error) {
	ans, err := openrequest.ParseAnswer(data)
	if err != nil {
		return nil, err
	}
	x, err := a.find(ans)
	if err != nil {
		return nil, err
	}
	if err := a.vet(ctx, x, ans); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	st := a.c.Charter() // it may be another by now, so take looks again
	if err := a.take(ctx, x, ans, st); err != nil {
		return nil, err
	}
	return a.goOn(ctx, x, st)
}

// vet checks whose answer it is before the attempt is held for it: the answers of
// strangers do not hold up those of holders.
func (a *Attempts) vet(ctx context.Context, x *attempt, ans *openrequest.Answer) error {
	select {
	case a.checks <- struct{}{}:
		defer func() { <-a.checks }()
	case <-ctx.Done():
		return fault.Errorf(fault.Unreachable, "check the answer: %w", ctx.Err())
	}
	_, err := ans.Verify(x.request, a.c.Charter())
	return err
}

// Retry tries again to open with the shares that an attempt has, after a token was
// absent or a disk full.
func (a *Attempts) Retry(ctx context.Context, id string) (*Progress, error) {
	a.mu.Lock()
	x := a.list[id]
	a.mu.Unlock()
	if x == nil {
		return nil, ErrNoAttempt
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := a.live(x); err != nil {
		return nil, err
	}
	return a.goOn(ctx, x, a.c.Charter())
}

// goOn opens the vault if the attempt has what it needs. The caller holds x.mu.
func (a *Attempts) goOn(ctx context.Context, x *attempt, st *charter.State) (*Progress, error) {
	p := a.shown(x)
	if len(x.given) < x.epoch.Need || x.epoch.Need < 2 {
		return &p, nil
	}
	// Who gave the last share may hang up: what was begun is brought to its end.
	err := a.open(context.WithoutCancel(ctx), x, st)
	switch class := fault.ClassOf(err); {
	case err == nil:
		x.finish(ErrEnded)
		p.Carried = x.request.Operation == openrequest.Carry
		p.Open = !p.Carried
		return &p, nil
	case class == fault.Token, class == fault.Unreachable, class == fault.Storage:
		return nil, fault.Hint(err, "the shares of this attempt are kept until "+x.request.Expires+": remedy the cause, and try it again with 'keyrite-vault unseal --retry'")
	default:
		x.finish(fault.Errorf(class, "%w: %w", ErrEnded, err))
		return nil, err
	}
}

// Drop ends an attempt, and what was given to it is gone.
func (a *Attempts) Drop(id string) error {
	a.mu.Lock()
	x := a.list[id]
	delete(a.list, id)
	a.mu.Unlock()
	if x == nil {
		return ErrNoAttempt
	}
	x.end(fault.Errorf(fault.Policy, "%w: it was dropped", ErrEnded))
	return nil
}

// Status is what anybody who may ask is told. It is there also while something is
// being opened.
type Status struct {
	Sealed   bool       `json:"sealed"`
	Created  bool       `json:"created"` // whether there is a store
	Need     int        `json:"need"`
	Epoch    int        `json:"epoch"`
	Attempts []Progress `json:"attempts"`
	Carried  bool       `json:"carried,omitempty"` // the store's key is open, and waits for the new shares
	// CarriedUntil is when that key is wiped, if none come.
	CarriedUntil string `json:"carried_until,omitempty"`
	// Of an open vault: by which operation, whose shares, since when.
	Operation string   `json:"operation,omitempty"`
	Holders   []string `json:"holders,omitempty"`
	Since     string   `json:"since,omitempty"`

	Unattended *UnattendedStatus `json:"unattended,omitempty"` // nil where this host never opens by itself
}

// Status tells how things stand.
func (a *Attempts) Status() Status {
	st := a.c.Charter()
	e := st.Epochs[a.c.Safe]
	s := Status{Created: a.created(), Need: e.Need, Epoch: e.Epoch, Attempts: a.Progress(), Unattended: a.unattendedStatus(st)}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Sealed, s.Carried = a.opened == nil, a.carried != nil
	if a.carried != nil {
		s.CarriedUntil = charter.FormatTime(a.carried.until)
	}
	if o := a.opened; o != nil {
		s.Operation, s.Holders, s.Since = o.Operation, o.Holders, charter.FormatTime(o.At)
	}
	return s
}

// Progress lists the attempts under way, by number.
func (a *Attempts) Progress() []Progress {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []Progress{}
	for _, x := range a.list {
		if x.generation == a.generation && !a.c.Now().After(x.until()) {
			out = append(out, x.progress)
		}
	}
	slices.SortFunc(out, func(p, q Progress) int { return strings.Compare(p.Attempt, q.Attempt) })
	return out
}

// Sealed says whether the vault is sealed.
func (a *Attempts) Sealed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened == nil
}

// Seal is what somebody orders: all that is open is closed, and what was kept for a
// restart is destroyed before it returns, so that a restart does not undo it. If that
// cannot be, the vault is sealed all the same and the error says so. It is good to call
// it again. The caller then ends its process: see the package comment.
func (a *Attempts) Seal() error {
	p := a.c.Unattended
	_, err := a.c.Charter().UnattendedAt(a.c.Host, a.c.Now())
	revoke := err == nil && p.TPM != "" || p.Holds()
	if revoke {
		_ = p.Begin() // durable at once; Revoke tries again, and tells
	}
	err = a.Close()
	if !revoke {
		return err
	}
	a.keep.Lock()
	defer a.keep.Unlock()
	revoked := p.Revoke()
	a.why(revoked)
	return joinNil(err, revoked)
}

// Close closes all that is open, wipes the keys and ends every attempt, as the end of
// the process does: what was kept for a restart stays. An opening under way is cut off.
func (a *Attempts) Close() error {
	a.mu.Lock()
	if a.cancel != nil {
		a.cancel()
	}
	a.mu.Unlock()
	a.gate.Lock()
	defer a.gate.Unlock()
	a.mu.Lock()
	o := a.opened
	a.opened = nil
	a.forget()
	a.next(fault.Errorf(fault.Policy, "%w: the vault was sealed", ErrEnded))
	a.mu.Unlock()
	if o == nil {
		return nil
	}
	return o.close()
}

// Wait waits until attempts that ended elsewhere have wiped their keys.
func (a *Attempts) Wait() { a.ending.Wait() }

// next begins a new generation: every attempt so far has ended. The caller holds
// a.mu, and perhaps the lock of one attempt, so the wiping goes on by itself.
func (a *Attempts) next(why error) {
	a.generation++
	for id, x := range a.list {
		delete(a.list, id)
		a.ending.Go(func() { x.end(why) })
	}
}

// joinErrors keeps the class of the first.
func joinErrors(first error, more ...error) error {
	if rest := errors.Join(more...); rest != nil {
		return fault.Errorf(fault.ClassOf(first), "%w; then: %w", first, rest)
	}
	return first
}
