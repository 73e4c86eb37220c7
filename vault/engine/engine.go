// Package engine is what the vault's engines have in common: the request that an
// engine is given, the plan it makes of it, and the answer. The engines are the
// packages below it (kv, transit, pki, token, password); vault/node calls them.
//
// A request goes one way:
//
//	plan, err := e.Plan(request)             // reads it wholly, touches nothing
//	err = access.Decide(rules, path, plan.Needs)
//	err = plan.Work(ctx)                     // what takes time: token, cryptography
//	answer, err = plan.Apply(tx)             // in the transaction of its audit entry
//
// so what is decided upon is what is done, and nothing is answered that is not in
// the log. An engine must never decide who may ask, write outside of Apply, or
// keep a secret where the audit can see it.
package engine

import (
	"context"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/redact"
	"keyrite/vault/duty"
	"keyrite/vault/seal"
)

// Classes of refusal, beside those of the packages used.
var (
	// ErrNoPath says that the engine has nothing at this path.
	ErrNoPath = fault.New(fault.Usage, "no such path")
	// ErrNotThere says that what was asked for is not in the vault.
	ErrNotThere = fault.New(fault.Policy, "not there")
	// ErrByCharter says that only the charter changes this.
	ErrByCharter = fault.New(fault.Policy, "only the charter changes this")
	// ErrConflict says that it changed since the caller looked (check-and-set).
	ErrConflict = fault.New(fault.Usage, "changed in the meantime")
	// ErrStale says that the plan itself is of before: what it needs is another right now.
	// The call is planned and decided anew, a few times at most; to the caller it is
	// ErrConflict.
	ErrStale = fault.Errorf(fault.Usage, "%w while this was decided", ErrConflict)
)

// Method is what a client does with a path. The zero value is none.
type Method int

// The methods, with their forms in HTTP.
const (
	Read   Method = iota + 1 // GET
	List                     // LIST, or GET with ?list=true
	Write                    // POST, PUT
	Patch                    // PATCH with application/merge-patch+json
	Delete                   // DELETE
)

// Caller is the process that asks, as identity proved it.
type Caller struct {
	Identity string // id in the charter
	Means    string // certificate, jwt, approle or unix
	Accessor string // names its token without being it; hex
	// Bound says that the token is of use only over a connection with the client
	// certificate for which it was issued. Others never sign releases.
	Bound   bool
	Charter int // size of the charter under which the decision was made
}

// Request is one call.
type Request struct {
	Caller Caller
	Method Method
	Path   access.Path // the whole, with the mount
	Rest   []string    // the segments behind the mount
	Params Params
	Now    time.Time
}

// Plan is what an engine makes of a request. Needs and Apply are required.
type Plan struct {
	Needs access.Capability
	// Shown is what the audit keeps of the parameters: public values only.
	Shown map[string]any
	// Strict makes the answer wait until the head outside the store knows of it:
	// for revocation and quota.
	Strict bool
	// Intent has an entry written before Work: for every use of a key that signs
	// releases or certificates, and for every effect in a token.
	Intent bool
	// Reserve changes the store in the transaction of the intent's entry, before Work:
	// what is taken there stays taken, unless Undo gives it back. An error refuses the
	// request, with nothing done. It needs Intent, must not block, and may be nil. That
	// transaction is strict in any case: what is taken is counted.
	Reserve func(tx *seal.Tx) error
	// Undo gives back what Reserve took, in the transaction of the result's entry, where
	// the call came to nothing: the head did not get to know of the intent, so Work is
	// never called, or Work failed. It alone knows whether the token was asked, and gives
	// nothing back if it may have been, nor what another call took since. It may be called
	// long after, by another goroutine, or never; it returns what the entry says of it,
	// nil if nothing was given back. Nil: what was taken stays taken.
	Undo func(tx *seal.Tx) (map[string]any, error)
	// Work does what takes time, and writes nothing into the store. It may be nil.
	Work func(ctx context.Context) error
	// Apply changes the store and makes the answer, in the transaction of the audit
	// entry. It must not block. An error leaves nothing behind but its own entry.
	Apply func(tx *seal.Tx) (*Answer, error)
}

// Answer is what the caller gets.
type Answer struct {
	// Data is encoded as JSON under "data"; nil gives no content (204).
	Data any
	// Raw, if set, is answered as it is, as ContentType: certificates and lists.
	Raw         []byte
	ContentType string
	// Gone says that what was asked for is not there any more, and Data what it
	// was: 404 with a body, as clients of KV expect of a deleted version.
	Gone bool
	// Lease is set where what was given ends.
	Lease *Lease
	// Result is what the audit keeps of the answer: public values only, such as the
	// hash of a signature or the number of a certificate.
	Result   map[string]any
	Warnings []string
	// Auth is set by a login and nothing else.
	Auth *Auth
}

// Auth is a token that was given out.
type Auth struct {
	Token     redact.Secret // the caller gets it once; the vault keeps its hash
	Accessor  string
	Identity  string
	Policies  []string
	TTL       time.Duration
	Renewable bool
}

// Lease says until when something holds that was given out. The node keeps it and
// gives it its id.
type Lease struct {
	TTL       time.Duration
	Renewable bool
	// Lasting makes the lease the identity's and not the token's: for what is of use
	// long after a token's end, such as a certificate.
	Lasting bool
	// ID is vault/lease's: engines leave it empty.
	ID string
	// Object names, within the engine, what ends with the lease; handed to Ender.
	Object string
}

// Engine is one engine at one mount.
type Engine interface {
	// Plan reads a request. What it does not know is ErrNoPath; what only the
	// charter changes is ErrByCharter, with the command as hint.
	Plan(r *Request) (*Plan, error)
}

// Open is an Engine of which the charter may open something to whoever asks, without
// saying who he is: what those need who check certificates. Only what is public anyway.
type Open interface {
	// Anybody gives what reads the answer, or nil where the charter opens nothing at that
	// path. Its answer is nil where the token must sign first: then the plan is made, if
	// strangers have not asked for too much of that. It must be cheap.
	Anybody(r *Request) func(v *seal.View) (*Answer, error)
}

// Ender is an Engine whose leases mean something: End is called in the transaction
// in which a lease expires or is revoked.
type Ender interface {
	End(tx *seal.Tx, object string, now time.Time) error
}

// Founder is an Engine that makes things when the charter says so, such as the
// versions of a key: Found brings the store to what the charter wants, in the
// transaction that takes the charter over. It must be safe to call again.
type Founder interface {
	Found(tx *seal.Tx, c *charter.State, now time.Time) error
}

// Dated is an Engine that keeps what ends or falls due. Dates says what and when, of
// much of it what is next; nothing that it says is secret.
type Dated interface {
	Dates(v *seal.View, now time.Time) ([]duty.Thing, error)
}

// Host is what a node gives to an engine when it makes it.
type Host struct {
	// Mount is the id of the mount: the first segment of its paths. The engine's
	// buckets in the store are called by Bucket.
	Mount string
	// Charter is the charter in force. It must not be changed.
	Charter func() *charter.State
	// View reads the store at one moment.
	View func(func(*seal.View) error) error
	// Token is the open work token; nil where the charter's safe has none that is
	// open.
	Token Token
	// Public is the address under which clients reach the vault, for what is
	// written into certificates and tokens; "https://HOST:PORT".
	Public string
}

// Bucket is the name of one of the mount's buckets in the store.
func (h *Host) Bucket(kind string) string { return kind + "/" + h.Mount }
