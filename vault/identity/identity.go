// Package identity says which process of the charter is asking. A process proves
// itself in exactly the way that its charter entry names: a TLS client certificate,
// a token of a CI system (JWT), a secret id of a role (AppRole), or the kernel's word
// for its user (Unix). It gets a token of the vault for it, or, with a certificate or
// over a Unix socket, needs none. vault/node asks this package before anything else.
//
// Whoever is not known gets one error, after one time, whatever the cause: the cause
// is for the audit alone. Tokens are in memory only, as hashes, and end with seal and
// restart. This package must never see what an engine does, decide what a process may
// do, or let a zero value in.
package identity

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/redact"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Means of proving who one is, as the audit and the paths of logins name them.
const (
	MeansCertificate = "cert"
	MeansJWT         = "jwt"
	MeansAppRole     = "approle"
	MeansUnix        = "unix"
)

// Peer is the other end of a connection.
type Peer struct {
	// Certificates as TLS showed them, leaf first: possession of its key is proven,
	// its issuer is not judged yet.
	Certificates []*x509.Certificate
	// Remote is the address; the zero value for a Unix socket.
	Remote netip.Addr
	// UID is the user at the other end of a Unix socket (SO_PEERCRED), -1 for any
	// other connection. 0, which is also the zero value, is never an identity.
	UID int
}

// Config is what a Registry needs. Charter, View and Now are required.
type Config struct {
	// Charter is the charter in force. It must not be changed.
	Charter func() *charter.State
	// View reads the store at one moment.
	View func(func(*seal.View) error) error
	// Now is the clock, time.Now or one with a monotonic reading like it: steps of the
	// clock do not move the end of a token.
	Now func() time.Time
	// Ended is called in the transaction in which a token is revoked by a request; it
	// ends what was given out under it. Tokens that end by themselves are told by
	// Registry.Gone. It may be nil.
	Ended func(tx *seal.Tx, accessor string, now time.Time) error
}

// Registry knows the processes of the charter and the tokens that are out. It may be
// used by any number of goroutines.
type Registry struct {
	charter  func() *charter.State
	view     func(func(*seal.View) error) error
	clock    func() time.Time
	ended    func(tx *seal.Tx, accessor string, now time.Time) error
	suspects backOff

	mu       sync.Mutex // guards the rest
	sealed   bool
	tokens   map[hash]*token
	byName   map[string]hash     // by accessor
	count    map[string]int      // tokens of an identity
	proven   map[hash]provenPeer // certificates that were judged
	provenAt int                 // size of the charter that proven is about
	cleared  time.Time           // when used tokens of jobs were last cleared
}

// New makes a registry without tokens.
func New(c Config) (*Registry, error) {
	if c.Charter == nil || c.View == nil || c.Now == nil {
		return nil, fault.New(fault.Usage, "identities need a charter, a store and a clock")
	}
	if c.Ended == nil {
		c.Ended = func(*seal.Tx, string, time.Time) error { return nil }
	}
	r := &Registry{charter: c.Charter, view: c.View, clock: c.Now, ended: c.Ended}
	r.forget()
	return r, nil
}

// forget empties the registry; r.mu is held, or nobody has r yet.
func (r *Registry) forget() {
	r.tokens, r.byName, r.count = map[hash]*token{}, map[string]hash{}, map[string]int{}
	r.proven, r.provenAt = map[hash]provenPeer{}, 0
}

// Seal forgets all tokens. Nobody is known afterwards.
func (r *Registry) Seal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed = true
	r.forget()
}

// CharterChanged judges the tokens that are out under the charter in force: those of
// an identity that is no more, or is another, end. Callers are judged at each request
// as well; this drops what nobody uses.
func (r *Registry) CharterChanged() {
	state := r.charter()
	r.mu.Lock()
	defer r.mu.Unlock()
	for h, t := range r.tokens {
		if t.stands(state) != nil {
			r.drop(h)
		}
	}
}

// Login proves a process and plans its token: means is the segment of the path. The
// plan needs no rule of a policy; its Needs says what an auditor would call it. The
// token counts from its Apply on.
func (r *Registry) Login(means string, p engine.Params, peer Peer) (*engine.Plan, error) {
	began := time.Now()
	state, err := r.open()
	if err != nil {
		return nil, err
	}
	who, err := r.prove(state, means, p, &peer)
	if err != nil {
		return nil, settle(began, err)
	}
	t, secret, err := mint(state, who, &peer, r.clock())
	if err != nil {
		return nil, err
	}
	return &engine.Plan{
		Needs:  access.Update,
		Strict: who.spend != nil,
		Shown:  map[string]any{"identity": t.identity, "means": t.means},
		Apply: func(tx *seal.Tx) (*engine.Answer, error) {
			if who.spend != nil {
				if err := who.spend(tx); err != nil {
					return nil, err
				}
			}
			if err := r.add(t, secret); err != nil {
				return nil, err
			}
			auth := t.auth()
			auth.Token = *secret
			return &engine.Answer{Auth: auth, Result: map[string]any{"accessor": t.accessor, "ttl": int(t.ttl / time.Second)}}, nil
		},
	}, nil
}

// proof is what a process showed, after it was judged.
type proof struct {
	means    string
	identity charter.Identity
	until    time.Time // beyond which the proof says nothing; zero if it does not say
	// spend uses up what may be shown only so many times, in the login's transaction,
	// which waits for the head outside the store. Nil: it may be shown again.
	spend func(*seal.Tx) error
}

// prove judges what the process shows. Its error is a Refusal, or of class usage if
// the request is not one.
func (r *Registry) prove(state *charter.State, means string, p engine.Params, peer *Peer) (*proof, error) {
	switch means {
	case MeansCertificate:
		return r.loginCertificate(state, p, peer)
	case MeansUnix:
		return loginUnix(state, p, peer)
	case MeansJWT:
		return r.loginJWT(state, p)
	case MeansAppRole:
		return r.loginAppRole(state, p, peer)
	}
	return nil, fmt.Errorf("log in: %w", engine.ErrNoPath)
}

// open is the charter, unless the vault is sealed.
func (r *Registry) open() (*charter.State, error) {
	r.mu.Lock()
	sealed := r.sealed
	r.mu.Unlock()
	if sealed {
		return nil, ErrSealed
	}
	return r.charter(), nil
}

// Caller says who asks. With a token it is whoever the token was given to, if it is
// shown where it may be; without one, a client certificate or the user of a Unix
// socket stands for itself. The error for everybody else is a *Refusal.
func (r *Registry) Caller(secret redact.Secret, peer Peer) (engine.Caller, error) {
	began := time.Now()
	state, err := r.open()
	if err != nil {
		return engine.Caller{}, err
	}
	var c engine.Caller
	if secret.Len() > 0 {
		c, err = r.byToken(state, &secret, &peer)
	} else {
		c, err = r.byPeer(state, &peer)
	}
	if err != nil {
		return engine.Caller{}, settle(began, err)
	}
	c.Charter = state.Size()
	return c, nil
}

// byPeer takes the connection itself as the proof.
func (r *Registry) byPeer(state *charter.State, peer *Peer) (engine.Caller, error) {
	if len(peer.Certificates) > 0 {
		x, _, err := r.certified(state, peer)
		if err != nil {
			return engine.Caller{}, err
		}
		return engine.Caller{Identity: x.ID, Means: MeansCertificate, Bound: true}, nil
	}
	x, err := unixUser(state, peer)
	if err != nil {
		return engine.Caller{}, err
	}
	return engine.Caller{Identity: x.ID, Means: MeansUnix}, nil
}

// unixUser is the identity of a process of this host.
func unixUser(state *charter.State, peer *Peer) (*charter.Identity, error) {
	if peer.UID < 1 {
		return nil, refuse("nothing was shown: no token, no client certificate, no user of this host")
	}
	for _, x := range state.Access.Identities {
		if x.Unix != nil && x.Unix.UID == peer.UID {
			return &x, nil
		}
	}
	return nil, refuse("user %d of this host is no identity", peer.UID)
}

func loginUnix(state *charter.State, p engine.Params, peer *Peer) (*proof, error) {
	if err := p.Only("role"); err != nil {
		return nil, err
	}
	x, err := unixUser(state, peer)
	if err != nil {
		return nil, err
	}
	if err := called(p, "role", x); err != nil {
		return nil, err
	}
	return &proof{means: MeansUnix, identity: *x}, nil
}

// called checks that a process that says who it wants to be is that one.
func called(p engine.Params, param string, x *charter.Identity) error {
	name, err := p.String(param)
	if err != nil {
		return err
	}
	if name != "" && name != x.ID {
		return refuse("it proved to be %s and calls itself %.40q", x.ID, name).about(x.ID, "")
	}
	return nil
}
