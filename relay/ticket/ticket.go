// Package ticket is leave to open one session with a VPN server: signed by an
// access server, bound to the key behind the leg, used once, gone in a minute
// (docs/formats/ticket.md).
//
// relay/access signs with an Issuer; relay/vpn checks with a Checker and needs
// neither account nor store for it. It must never permit a flow: what flows
// through a session is the account policy's question.
package ticket

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"sync"
	"time"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Names.
const (
	Format      = "keyrite/ticket/v1"
	PayloadType = "application/vnd.keyrite.ticket.v1+json"
)

// Limits.
const (
	MaxBytes = 2048
	Lifetime = 60 * time.Second
	Skew     = 5 * time.Second // how far the clocks of two servers may differ
	maxUsed  = 1 << 20         // tickets remembered; at Lifetime that is 17,000 sessions a second
)

// Kinds of the one who opens the session.
const (
	KindUser    = "user"
	KindGateway = "gateway"
)

// ErrTicket is every refusal of a well-formed ticket; which it was stands in
// the text for the server's own trail.
var ErrTicket = fault.New(fault.Policy, "ticket is not valid")

// Ticket is the payload.
type Ticket struct {
	Account       string      `json:"account"`
	Audience      string      `json:"audience"`
	Exp           string      `json:"exp"`
	Format        string      `json:"format"`
	Gateway       string      `json:"gateway"`
	Iat           string      `json:"iat"`
	JTI           string      `json:"jti"`
	Key           string      `json:"key"`
	Kind          string      `json:"kind"`
	Login         string      `json:"login"`
	PolicyVersion int64       `json:"policy_version"`
	User          string      `json:"user"`
	World         world.World `json:"world"`
}

var (
	idRE   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	hexRE  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	jtiRE  = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

const timeFormat = "2006-01-02T15:04:05Z"

func bad(what string) error { return fault.Errorf(fault.Verify, "ticket is malformed: %s", what) }

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeFormat, s)
	if err != nil || t.Format(timeFormat) != s {
		return t, bad("time")
	}
	return t, nil
}

// Check validates the members, not the clock.
func (t *Ticket) Check() error {
	if t.Format != Format || !jtiRE.MatchString(t.JTI) || !hexRE.MatchString(t.Key) || t.PolicyVersion < 0 || t.PolicyVersion > 1<<53-1 {
		return bad("format, jti, key or policy version")
	}
	if !idRE.MatchString(t.Account) || !idRE.MatchString(t.Audience) || !idRE.MatchString(t.Gateway) {
		return bad("account, audience or gateway")
	}
	user := t.Kind == KindUser && nameRE.MatchString(t.User) && jtiRE.MatchString(t.Login)
	gateway := t.Kind == KindGateway && t.User == "" && t.Login == ""
	if !user && !gateway {
		return bad("kind, user or login")
	}
	if err := t.World.Check(); err != nil {
		return err
	}
	iat, err := parseTime(t.Iat)
	if err != nil {
		return err
	}
	exp, err := parseTime(t.Exp)
	if err != nil {
		return err
	}
	if !exp.After(iat) || exp.Sub(iat) > Lifetime {
		return bad("lifetime")
	}
	return nil
}

// Issuer signs tickets.
type Issuer struct {
	Key   ed25519.PrivateKey
	World world.World
	Now   func() time.Time
}

// Issue completes t with times, id and world and signs it. It returns the
// ticket and its expiry.
func (i *Issuer) Issue(t Ticket) ([]byte, string, error) {
	var r [16]byte
	rand.Read(r[:])
	now := i.Now().UTC().Truncate(time.Second)
	t.Format, t.World, t.JTI = Format, i.World, hex.EncodeToString(r[:])
	t.Iat, t.Exp = now.Format(timeFormat), now.Add(Lifetime).Format(timeFormat)
	if err := t.Check(); err != nil {
		return nil, "", err
	}
	payload, err := jcs.Marshal(t)
	if err != nil {
		return nil, "", err
	}
	env, err := envelope.Sign(PayloadType, payload, i.Key)
	if err != nil {
		return nil, "", err
	}
	b, err := env.Marshal()
	return b, t.Exp, err
}

// Checker takes each ticket once. Make it with NewChecker.
type Checker struct {
	audience string
	world    world.World
	keys     []envelope.Key
	now      func() time.Time
	started  time.Time

	mu   sync.Mutex // guards used
	used map[string]time.Time
}

// NewChecker returns a checker for the VPN server audience that takes tickets
// of the listed access servers' keys.
func NewChecker(audience string, w world.World, keys []crypto.PublicKey, now func() time.Time) *Checker {
	c := &Checker{audience: audience, world: w, now: now, started: now().Truncate(time.Second), used: map[string]time.Time{}}
	for _, k := range keys {
		c.keys = append(c.keys, envelope.Key{Name: "access server", Public: k})
	}
	return c
}

// Use checks a ticket for the leg whose TLS key has the thumbprint key, and
// uses it up. A ticket that was presented by the right key but is not for this
// server, expired or a replay is refused; one presented by another key is not
// used up, so that a stolen copy cannot be used to deny its owner.
func (c *Checker) Use(data []byte, key string) (*Ticket, error) {
	if len(data) > MaxBytes {
		return nil, bad("too long")
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	payload, _, err := envelope.Verify(env, PayloadType, c.keys, 1)
	if err != nil {
		return nil, fault.Errorf(fault.Policy, "%w: %w", ErrTicket, err)
	}
	var t Ticket
	if err := jcs.Unmarshal(payload, &t); err != nil {
		return nil, err
	}
	if err := t.Check(); err != nil {
		return nil, err
	}
	if err := world.Match(c.world, t.World); err != nil {
		return nil, err
	}
	return &t, c.take(&t, key)
}

func (c *Checker) take(t *Ticket, key string) error {
	now := c.now()
	iat, err := parseTime(t.Iat)
	if err != nil {
		return err
	}
	exp, err := parseTime(t.Exp)
	if err != nil {
		return err
	}
	refuse := func(why string) error { return fault.Errorf(fault.Policy, "%w: %s", ErrTicket, why) }
	switch {
	case t.Audience != c.audience:
		return refuse("for another server")
	case t.Key != key:
		return refuse("for another key")
	case !now.Before(exp):
		return refuse("expired")
	case iat.After(now.Add(Skew)):
		return refuse("from the future")
	case iat.Before(c.started):
		// What was used before a restart is forgotten, so it counts as used.
		return refuse("from before this server's start")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.used[t.JTI]; ok {
		return refuse("used before")
	}
	if len(c.used) >= maxUsed {
		for id, at := range c.used {
			if !now.Before(at) {
				delete(c.used, id)
			}
		}
		if len(c.used) >= maxUsed {
			return fault.New(fault.Quota, "too many sessions are opened at once")
		}
	}
	c.used[t.JTI] = exp
	return nil
}
