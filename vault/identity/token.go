package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/redact"
	"keyrite/vault/engine"
)

// Limits of tokens.
const (
	// TokenPrefix marks a token, for scanners of leaked secrets.
	TokenPrefix = "krt."
	// secretBytes are random in each token and secret id.
	secretBytes = 32
	// MaxTokens is how many tokens one identity may have out.
	MaxTokens = 1_000
	// maxAllTokens bounds the memory: a token takes under 1 KiB.
	maxAllTokens = 100_000
)

// hash is SHA-256 of a token or certificate.
type hash = [sha256.Size]byte

// token is one that is out. It never changes but for expires, under Registry.mu.
type token struct {
	accessor string
	identity string
	means    string
	proof    charter.Identity // as the charter said it at the login
	charter  int              // size of the charter at the login
	issued   time.Time
	expires  time.Time
	end      time.Time // it is renewed up to here
	ttl      time.Duration
	bound    hash // of the client certificate at the login; zero if there was none
	uid      int  // of the user at the login; 0 if it was none
}

// encodeSecret writes 32 random bytes as text.
func encodeSecret(prefix string) *redact.Secret {
	var raw [secretBytes]byte
	rand.Read(raw[:])
	out := make([]byte, len(prefix)+base64.RawURLEncoding.EncodedLen(len(raw)))
	base64.RawURLEncoding.Encode(out[copy(out, prefix):], raw[:])
	clear(raw[:])
	return redact.New(out)
}

// hashSecret reads what encodeSecret wrote, in its one spelling, and gives its hash.
func hashSecret(prefix string, s *redact.Secret) (hash, error) {
	b := s.Bytes()
	if len(b) != len(prefix)+base64.RawURLEncoding.EncodedLen(secretBytes) || subtle.ConstantTimeCompare(b[:len(prefix)], []byte(prefix)) != 1 {
		return hash{}, refuse("%d bytes that are not of the form %s…", len(b), prefix)
	}
	raw := make([]byte, secretBytes)
	defer clear(raw)
	if n, err := base64.RawURLEncoding.Strict().Decode(raw, b[len(prefix):]); err != nil || n != secretBytes {
		return hash{}, refuse("%d bytes that are not of the form %s…", len(b), prefix)
	}
	return sha256.Sum256(b), nil
}

// mint makes the token that a proof is good for.
func mint(state *charter.State, p *proof, peer *Peer, now time.Time) (*token, *redact.Secret, error) {
	x := &p.identity
	if x.ID == "" || x.TTL < 1 || p.means == "" || state == nil {
		return nil, nil, fault.New(fault.Unexpected, "a token for nobody")
	}
	var name [16]byte
	rand.Read(name[:])
	ttl := time.Duration(x.TTL) * time.Second
	t := &token{
		accessor: hex.EncodeToString(name[:]), identity: x.ID, means: p.means, proof: *x,
		charter: state.Size(), issued: now, end: now.Add(max(ttl, time.Duration(x.MaxTTL)*time.Second)), uid: max(peer.UID, 0),
	}
	if len(peer.Certificates) > 0 {
		t.bound = thumbprint(peer.Certificates[0])
	}
	if left := p.until.Sub(now.Round(0)); !p.until.IsZero() && t.end.Sub(now) > left {
		t.end = now.Add(left) // keeps the monotonic reading
	}
	t.extend(now, ttl)
	return t, encodeSecret(TokenPrefix), nil
}

// extend sets when the token ends, at most at its end.
func (t *token) extend(now time.Time, ttl time.Duration) {
	t.expires = now.Add(ttl)
	if t.expires.After(t.end) {
		t.expires = t.end
	}
	t.ttl = t.expires.Sub(now)
}

func (t *token) renewable() bool { return t.proof.MaxTTL > 0 }

func (t *token) auth() *engine.Auth {
	return &engine.Auth{Accessor: t.accessor, Identity: t.identity, Policies: t.proof.Policies, TTL: t.ttl, Renewable: t.renewable()}
}

// stands says whether the token's identity is still in the charter, and the same.
func (t *token) stands(state *charter.State) error {
	if state.Size() == t.charter {
		return nil // the charter of its login
	}
	x, ok := state.Access.Identities[t.identity]
	if !ok || !reflect.DeepEqual(x, t.proof) {
		return refuse("token of %s, which the charter ended", t.identity).about(t.identity, t.accessor)
	}
	if state.Access.IsRevoked(hex.EncodeToString(t.bound[:])) {
		return refuse("token of %s over a certificate that was revoked", t.identity).about(t.identity, t.accessor)
	}
	return nil
}

// shownBy says whether the token may be used over this connection.
func (t *token) shownBy(peer *Peer) error {
	why := ""
	switch {
	case t.bound != hash{} && (len(peer.Certificates) == 0 || thumbprint(peer.Certificates[0]) != t.bound):
		why = "a connection without the client certificate that it is bound to"
	case t.uid != 0 && peer.UID != t.uid:
		why = "a connection of another user of this host"
	case t.proof.AppRole != nil && !inNetworks(t.proof.AppRole, peer.Remote):
		why = "an address outside its networks"
	}
	if why == "" {
		return nil
	}
	return refuse("token of %s over %s", t.identity, why).about(t.identity, t.accessor)
}

// inNetworks says whether an address is in the networks of a role. The zero address is
// in none.
func inNetworks(r *charter.AppRole, a netip.Addr) bool {
	for _, n := range r.Networks {
		if p, err := netip.ParsePrefix(n); err == nil && p.Contains(a.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// add puts a token out.
func (r *Registry) add(t *token, secret *redact.Secret) error {
	h, err := hashSecret(TokenPrefix, secret)
	if err != nil {
		return err
	}
	state, err := r.open()
	if err != nil {
		return err
	}
	if err := t.stands(state); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed {
		return ErrSealed
	}
	if r.count[t.identity] >= MaxTokens || len(r.tokens) >= maxAllTokens {
		r.dropExpired(t.issued)
	}
	if r.count[t.identity] >= MaxTokens || len(r.tokens) >= maxAllTokens {
		return fault.Errorf(fault.Quota, "%w: %d of %s", ErrTooMany, r.count[t.identity], t.identity)
	}
	r.tokens[h], r.byName[t.accessor] = t, h
	r.count[t.identity]++
	return nil
}

// drop ends a token; r.mu is held.
func (r *Registry) drop(h hash) {
	t, ok := r.tokens[h]
	if !ok {
		return
	}
	delete(r.tokens, h)
	delete(r.byName, t.accessor)
	if r.count[t.identity]--; r.count[t.identity] <= 0 {
		delete(r.count, t.identity)
	}
}

// dropExpired ends the tokens whose time is over; r.mu is held.
func (r *Registry) dropExpired(now time.Time) {
	for h, t := range r.tokens {
		if !now.Before(t.expires) {
			r.drop(h)
		}
	}
}

// byToken is whoever a token was given to.
func (r *Registry) byToken(state *charter.State, secret *redact.Secret, peer *Peer) (engine.Caller, error) {
	h, err := hashSecret(TokenPrefix, secret)
	if err != nil {
		return engine.Caller{}, err
	}
	t, err := r.live(h)
	if err != nil {
		return engine.Caller{}, err
	}
	if err := t.stands(state); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.drop(h)
		return engine.Caller{}, err
	}
	if err := t.shownBy(peer); err != nil {
		return engine.Caller{}, err
	}
	return engine.Caller{Identity: t.identity, Means: t.means, Accessor: t.accessor, Bound: t.means == MeansCertificate && t.bound != hash{}}, nil
}

// live finds a token whose time is not over.
func (r *Registry) live(h hash) (*token, error) {
	now := r.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.tokens[h]
	if !ok {
		return nil, refuse("a token that is not out: ended, or never given")
	}
	if !now.Before(t.expires) {
		r.drop(h)
		return nil, refuse("a token of %s whose time is over", t.identity).about(t.identity, t.accessor)
	}
	return t, nil
}

// Gone says that a token has ended that this registry gave out. Once the registry is
// sealed it says so of none: to seal ends tokens, but not what was given out under them.
func (r *Registry) Gone(accessor string) bool {
	now := r.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sealed || accessor == "" {
		return false
	}
	h, ok := r.byName[accessor]
	return !ok || !now.Before(r.tokens[h].expires)
}

// End is the moment beyond which a token is not renewed. What is given out under a
// token must not outlive it. A token that is not out is ErrUnknown.
func (r *Registry) End(accessor string) (time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, ok := r.byName[accessor]
	if !ok {
		return time.Time{}, refuse("token %.40q is not out", strings.ToValidUTF8(accessor, "?"))
	}
	return r.tokens[h].end, nil
}
