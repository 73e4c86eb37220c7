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
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/lease"
	"keyrite/vault/remind"
	"keyrite/vault/seal"
)

// Config says what a node is made of. World, Vault, Charter and Engines are required.
type Config struct {
	// World and Vault are those of the host's anchors; a charter of others is refused.
	World world.World
	Vault string
	// Charter is the path of the charter log. It must exist: a vault is founded by a
	// ceremony.
	Charter string
	// Engines makes an engine of each kind that the charter may mount.
	Engines map[string]func(*engine.Host) (engine.Engine, error)
	// Metrics plans the answer to sys/metrics; nil if there are none.
	Metrics func(engine.Params) (*engine.Plan, error)
	// Public is the address under which clients reach the vault, "https://HOST:PORT".
	Public string
	// Sealing is called when a client with the right to it asks for the vault to be
	// sealed, after its entry is written: it must see to it that the closer that Open
	// gave is closed. Nil closes it.
	Sealing func() error
	// Copies is the folder for the charter's audit sinks: files, and for each sink how
	// far it is. Empty: nothing is copied.
	Copies string
	// Changed is called after a charter was taken over and before whoever brought it
	// is answered. It must not call the node but for Charter. Nil: nothing.
	Changed func()
	// Opening tells how the vault was opened and which attempts to unseal it are under
	// way, as keyrite/status shows it to whom the charter lets see that; nil shows
	// nothing. It must not wait.
	Opening func() any
	// Outside tells what ends of which neither charter nor store knows, such as the
	// server's own certificate. It must not wait. Nil: nothing.
	Outside func(*charter.State) []duty.Thing
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log is for the operator. Default: nothing is logged.
	Log *slog.Logger
}

// Opened is what unsealing came to. Whoever opened it closes it, after the node.
type Opened struct {
	Store *seal.Store
	// Head is the keeper of the store's head: one on another machine vouches for a time.
	Head  seal.Keeper
	Token engine.Token // nil where there is none
	// By says whose shares opened it.
	By By
}

// Classes of refusal.
var (
	// ErrSealed says that the vault is sealed.
	ErrSealed = fault.New(fault.Sealed, "the vault is sealed")
	// ErrTakingOver says that the charter changes at this moment.
	ErrTakingOver = fault.New(fault.Sealed, "the charter changes at this moment: ask again")
	// ErrOpen says that the vault is open already.
	ErrOpen = fault.New(fault.Sealed, "the vault is open already")
	// ErrRolledBack says that the charter file is behind what the store has seen, or
	// is another.
	ErrRolledBack = fault.New(fault.Policy, "the charter file is not the one that this vault has seen: an older copy was put back, or another one")
)

// Node is one vault.
type Node struct {
	cfg    Config
	sealed *whileSealed

	mu      sync.RWMutex // guards the rest
	open    *vault       // nil while sealed
	closed  bool
	opening bool // Open is at work, so that two of them do not meet
}

// vault is what there is while a node is open.
type vault struct {
	cfg       *Config
	store     *seal.Store
	head      seal.Keeper
	token     engine.Token // nil where there is none
	journal   *audit.Journal
	sinks     *audit.Sinks // nil where there is no folder for copies
	remind    *remind.Reminders
	ident     *identity.Registry
	leases    *lease.Book
	since     time.Time
	refused   *refusals
	looks     *refusals     // at paths that need no caller
	anybodies *pace         // how much strangers are answered
	signings  *pace         // how much the token signs for them
	cutOff    int           // intents found open at the start
	folding   chan struct{} // has room for the one that folds the charter for itself
	searching chan struct{} // has room for those that search the trail
	counted   chan struct{} // closed when housekeeping has ended
	ended     chan struct{} // closed when no lease is ended any more
	calls     sync.WaitGroup
	ctx       context.Context //nolint:containedctx // ends the work of all calls when the vault is sealed
	end       context.CancelFunc

	force    atomic.Pointer[force]
	coming   atomic.Int64 // size of the charter that a transaction takes over, or of the one in force
	takeover sync.Mutex   // one takeover of the charter at a time
	followed atomic.Int64 // size of the charter file that was looked at
	// unfinished counts the looks in a row that found the file's last line unfinished.
	unfinished atomic.Int64
	trouble    atomic.Pointer[trouble]
	agenda     agenda

	owing sync.Mutex // guards the rest
	owes  []owed
}

// force is the charter in force with the engines that it mounts. It is never changed.
type force struct {
	charter *charter.State
	engines map[string]engine.Engine // by mount
	lines   [][]byte                 // of the charter
}

// New makes a sealed node. The charter file must be there; it is read when the vault
// is opened.
func New(c Config) (*Node, error) {
	if c.World == "" || c.Vault == "" || c.Charter == "" || c.Engines == nil {
		return nil, fault.New(fault.Usage, "a vault needs its world, id, charter file and engines")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Node{cfg: c, sealed: &whileSealed{now: c.Now}}, nil
}

// Open opens the vault with what a quorum opened, and returns what seals it again: to be
// closed before the store is.
func (n *Node) Open(ctx context.Context, o Opened) (io.Closer, error) {
	n.mu.Lock()
	if n.open != nil || n.opening || n.closed {
		n.mu.Unlock()
		return nil, ErrOpen
	}
	n.opening = true
	n.mu.Unlock()
	v, err := open(ctx, &n.cfg, o)
	n.mu.Lock()
	n.opening = false
	if err == nil {
		n.open = v
	}
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	n.tellSealed(ctx)
	return closer{n}, nil
}

// closer seals a node.
type closer struct{ n *Node }

// Close implements io.Closer.
func (c closer) Close() error { return c.n.seal(context.Background()) }

// open makes a vault of what was opened, up to its first entry in the log.
func open(ctx context.Context, c *Config, o Opened) (*vault, error) {
	v := &vault{cfg: c, store: o.Store, head: o.Head, token: o.Token, journal: audit.NewJournal(o.Store), since: c.Now(), folding: make(chan struct{}, 1), searching: make(chan struct{}, maxSearches), counted: make(chan struct{}), ended: make(chan struct{})}
	v.refused, v.looks = newRefusals(c.Now), newRefusals(c.Now)
	v.anybodies, v.signings = newPace(anybodyBurst, anybodyEvery, c.Now()), newPace(signingBurst, signingEvery, c.Now())
	v.ctx, v.end = context.WithCancel(context.WithoutCancel(ctx))
	if err := v.start(ctx, o.By); err != nil {
		v.end()
		return nil, err
	}
	go v.housekeeping()
	go func() {
		defer close(v.ended)
		v.leases.Run(v.ctx)
	}()
	return v, nil
}

// start brings charter, engines and identities to where they were, and says so in the
// log.
func (v *vault) start(ctx context.Context, by By) error {
	if err := v.who(); err != nil {
		return err
	}
	if err := v.loadCharter(ctx); err != nil {
		return err
	}
	if err := v.lookUpIntents(ctx); err != nil {
		return err
	}
	if err := v.begin(ctx, by); err != nil {
		return err
	}
	v.tellPulled(ctx)
	v.startCopies()
	v.startReminders()
	return nil
}

func (v *vault) charter() *charter.State { return v.force.Load().charter }

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

// seal closes the vault: no call is taken on any more, what is under way ends, and
// tokens are forgotten. A sealed vault is fine.
func (n *Node) seal(ctx context.Context) error {
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
	<-v.ended
	v.remind.Set(nil)
	v.ident.Seal()
	var err error
	if v.store.Health().Stopped == nil {
		_, err = v.journal.Do(context.WithoutCancel(ctx), seal.Strict, v.life("seal"), nil)
	}
	v.endCopies()
	return err
}

// Close seals the vault for good.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	return n.seal(context.Background())
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
	// LeftOut counts refusals of unknown callers that have no entry of their own, and
	// Unlisted looks at paths that need no caller.
	LeftOut, Unlisted uint64
	// FileRefused is why the charter file, which has changed, is not in force; nil if it is.
	FileRefused error
	Sinks       map[string]audit.SinkState // by id
	Reminders   map[string]remind.State    // by id
	Intents     int                        // of which nobody knows what came of them, found when it was opened
	Owed        int                        // intents that came to nothing, whose results are not written yet
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
	st.LeftOut, st.Unlisted, st.Intents, st.Owed = v.refused.leftOut(), v.looks.leftOut(), v.cutOff, v.owedResults()
	st.Reminders = v.remind.States()
	if v.sinks != nil {
		st.Sinks = v.sinks.States()
	}
	if t := v.trouble.Load(); t != nil {
		st.FileRefused = t.error
	}
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
