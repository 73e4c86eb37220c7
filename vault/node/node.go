// Package node is one vault: it is sealed or open, keeps the charter in force, and
// takes calls to the engines. vault/api calls Do for each request and cmd/keyrite-vault
// opens and seals it.
//
// A call goes one way: who asks (vault/identity), the plan of the engine that the
// charter mounts there, the decision (artifact/access), what takes time, and one
// transaction of effect and audit entry. Nothing is answered before that is durable.
// Refusals have entries, too.
//
// This package must never decide by anything but the fold of the charter, nor answer
// what is not in the log.
package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
	"keyrite/internal/redact"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Identities is what a node asks vault/identity.
type Identities interface {
	// Login plans the giving out of a token; means is cert, jwt, approle or unix.
	Login(means string, p engine.Params, peer Peer) (*engine.Plan, error)
	// Caller says who asks. Without a token the peer stands for itself.
	Caller(token redact.Secret, peer Peer) (engine.Caller, error)
	// Self plans what a caller does with its own token: lookup-self, renew-self or
	// revoke-self.
	Self(c engine.Caller, op string, p engine.Params) (*engine.Plan, error)
	// CharterChanged has live tokens judged again.
	CharterChanged()
	// Seal forgets all tokens.
	Seal()
}

// IdentityConfig is what Identities work with.
type IdentityConfig struct {
	Charter func() *charter.State
	View    func(func(*seal.View) error) error
	Now     func() time.Time
}

// Config says what a node is made of. All but Public, Now and Log are required.
type Config struct {
	// World and Vault are those of the host's anchors; a charter of others is refused.
	World world.World
	Vault string
	// Charter is the path of the charter log. It must exist: a vault is founded by a
	// ceremony.
	Charter string
	// Engines makes an engine of each kind that the charter may mount.
	Engines map[string]func(*engine.Host) (engine.Engine, error)
	// Identity makes the judge of who asks, for each time that the vault is opened.
	Identity func(IdentityConfig) (Identities, error)
	// Public is the address under which clients reach the vault, "https://HOST:PORT".
	Public string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log is for the operator. Default: nothing is logged.
	Log *slog.Logger
}

// Opened is what unsealing came to. The node has it from Open on, and ends it.
type Opened struct {
	Store seal.Config
	Key   *seal.DataKey
	// Token makes the open work token, for the keys of the charter that it is given.
	// It is nil where there is none.
	Token func(func() *charter.State) (engine.Token, error)
	// Holders are the key masters who opened.
	Holders []string
	// Close logs out of the token. It may be nil.
	Close func() error
}

func (o *Opened) close() error {
	o.Key.Wipe()
	if o.Close == nil {
		return nil
	}
	return o.Close()
}

// Classes of refusal.
var (
	// ErrSealed says that the vault is sealed.
	ErrSealed = fault.New(fault.Sealed, "the vault is sealed")
	// ErrOpen says that the vault is open already.
	ErrOpen = fault.New(fault.Sealed, "the vault is open already")
	// ErrRolledBack says that the charter file is behind what the store has seen, or
	// is another.
	ErrRolledBack = fault.New(fault.Policy, "the charter file is not the one that this vault has seen: an older copy was put back, or another one")
)

// Node is one vault.
type Node struct {
	cfg Config

	mu      sync.RWMutex // guards the rest
	open    *vault       // nil while sealed
	closed  bool
	opening bool // Open is at work, so that two of them do not meet
}

// vault is what there is while a node is open.
type vault struct {
	cfg     *Config
	opened  *Opened
	store   *seal.Store
	journal *audit.Journal
	ident   Identities
	since   time.Time
	token   engine.Token // nil where there is none
	refused *refusals
	cutOff  int           // intents found open at the start
	counted chan struct{} // closed when summaries has ended
	calls   sync.WaitGroup
	ctx     context.Context //nolint:containedctx // ends the work of all calls when the vault is sealed
	end     context.CancelFunc

	force    atomic.Pointer[force]
	takeover sync.Mutex // one takeover of the charter at a time; guards the rest
	file     *durable.Append
	lines    [][]byte // of the charter in force
}

// force is the charter in force with the engines that it mounts. It is never changed.
type force struct {
	charter *charter.State
	engines map[string]engine.Engine // by mount
}

// New makes a sealed node. The charter file must be there; it is read when the vault
// is opened.
func New(c Config) (*Node, error) {
	if c.World == "" || c.Vault == "" || c.Charter == "" || c.Engines == nil || c.Identity == nil {
		return nil, fault.New(fault.Usage, "a vault needs its world, id, charter file, engines and identities")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Node{cfg: c}, nil
}

// Open opens the vault. Whatever comes of it, what was opened belongs to the node: it
// is closed again when Open fails.
func (n *Node) Open(ctx context.Context, o *Opened) error {
	n.mu.Lock()
	if n.open != nil || n.opening || n.closed {
		n.mu.Unlock()
		return errors.Join(ErrOpen, o.close())
	}
	n.opening = true
	n.mu.Unlock()
	v, err := open(ctx, &n.cfg, o)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opening = false
	if err != nil {
		return errors.Join(err, o.close())
	}
	n.open = v
	return nil
}

// open makes a vault of what was opened, up to its first entry in the log.
func open(ctx context.Context, c *Config, o *Opened) (*vault, error) {
	store, err := seal.Open(ctx, o.Store, o.Key)
	if err != nil {
		return nil, err
	}
	v := &vault{cfg: c, opened: o, store: store, journal: audit.NewJournal(store), since: c.Now(), counted: make(chan struct{})}
	v.refused = newRefusals(c.Now)
	v.ctx, v.end = context.WithCancel(context.WithoutCancel(ctx))
	if err := v.start(ctx); err != nil {
		v.end()
		return nil, errors.Join(err, v.closeFile(), store.Close())
	}
	go v.summaries()
	return v, nil
}

// start brings charter, engines and identities to where they were, and says so in the
// log.
func (v *vault) start(ctx context.Context) error {
	if err := v.loadCharter(ctx); err != nil {
		return err
	}
	var err error
	v.ident, err = v.cfg.Identity(IdentityConfig{Charter: v.charter, View: v.store.View, Now: v.cfg.Now})
	if err != nil {
		return err
	}
	if err := v.lookUpIntents(ctx); err != nil {
		return err
	}
	e := v.life("open")
	e.Params = map[string]any{"holders": v.opened.Holders}
	if _, err = v.journal.Do(ctx, seal.Strict, e, nil); err != nil {
		return err
	}
	v.tellPulled(ctx)
	return nil
}

func (v *vault) charter() *charter.State { return v.force.Load().charter }

func (v *vault) closeFile() error {
	if v.file == nil {
		return nil
	}
	return v.file.Close()
}

// enter takes a call on, unless the vault is sealed. leave must be called.
func (n *Node) enter(ctx context.Context) (v *vault, _ context.Context, leave func(), err error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	v = n.open
	if v == nil {
		return nil, nil, nil, fault.Hint(ErrSealed, "key masters open it: see 'keyrite-vault unseal'")
	}
	v.calls.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(v.ctx, cancel)
	return v, ctx, func() { stop(); cancel(); v.calls.Done() }, nil
}

// Seal closes the vault: no call is taken on any more, what is under way ends, and key
// and tokens are wiped. why stands in the log. A sealed vault is fine.
func (n *Node) Seal(ctx context.Context, why string) error {
	n.mu.Lock()
	v := n.open
	n.open = nil
	n.mu.Unlock()
	if v == nil {
		return nil
	}
	v.end()
	v.calls.Wait()
	<-v.counted
	v.ident.Seal()
	var err error
	if v.store.Health().Stopped == nil {
		e := v.life("seal")
		e.Params = map[string]any{"why": why}
		_, err = v.journal.Do(context.WithoutCancel(ctx), seal.Strict, e, nil)
	}
	return errors.Join(err, v.store.Close(), v.closeFile(), v.opened.close())
}

// Close seals the vault for good.
func (n *Node) Close(ctx context.Context) error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	return n.Seal(ctx, "the program ends")
}

// Status is how the vault is, for whoever may ask without being known.
type Status struct {
	World   world.World
	Vault   string
	Sealed  bool
	Since   time.Time // opened; zero while sealed
	Charter int       // statements in force; 0 while sealed
	Head    string    // of the charter
	Store   seal.Health
	// LeftOut counts refusals of unknown callers that have no entry of their own.
	LeftOut uint64
	Intents int // of which nobody knows what came of them, found when it was opened
}

// Status tells how the vault is. It never waits for the store.
func (n *Node) Status() Status {
	n.mu.RLock()
	v := n.open
	n.mu.RUnlock()
	st := Status{World: n.cfg.World, Vault: n.cfg.Vault, Sealed: v == nil}
	if v == nil {
		return st
	}
	c := v.charter()
	st.Since, st.Charter, st.Head, st.Store = v.since, c.Size(), c.Head(), v.store.Health()
	st.LeftOut, st.Intents = v.refused.leftOut(), v.cutOff
	return st
}

// Charter is the charter in force, nil while the vault is sealed. It must not be
// changed.
func (n *Node) Charter() *charter.State {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.open == nil {
		return nil
	}
	return n.open.charter()
}
