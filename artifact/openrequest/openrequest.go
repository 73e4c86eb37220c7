// Package openrequest is how a vault host asks key masters for their shares, and how
// each answers from a machine of his own.
//
// The host makes a Request with New and signs it; its recipient is the public half of
// a key that exists for one attempt and in one process only. The holder's program
// takes it with Open, which refuses any that was not signed by a host of the charter
// in force, shows its Lines, and answers with the share encrypted to that key and an
// opening signed by share and person. The host takes an Answer with ParseAnswer and
// Verify. This package must never decrypt a share: that is done in the share child.
//
// Compatibility: docs/formats/open-request.md, version 1 is read for ever.
package openrequest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"filippo.io/age"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/words"
	"keyrite/artifact/world"
)

// Format and PayloadType name the request and the DSSE envelope around it.
const (
	Format      = "keyrite/open-request/v1"
	PayloadType = "application/vnd.keyrite.open-request.v1+json"
)

const (
	// MaxBytes bounds a request and an answer; honest ones have about 2 KiB.
	MaxBytes = 16 << 10
	// MaxValidity is how long a request may be answered.
	MaxValidity = 24 * time.Hour
	// AttemptBytes is the length of an attempt's number.
	AttemptBytes = 32
	// clockSkew is by how much the clocks of host and holder may differ.
	clockSkew = 10 * time.Minute
)

// Operations, the closed set.
const (
	Carry  = "carry"  // shares of an epoch before, or of a retired safe, open the store's key, for Reseal
	Create = "create" // the vault's store is made, empty, under a new data key
	Rehead = "rehead" // the store is taken over as it lies, with its head kept elsewhere from now on
	Unseal = "unseal" // the vault's store and token are opened
	Reseal = "reseal" // the data key of an open vault is wrapped anew for this epoch
)

// Operations lists them.
func Operations() []string { return []string{Carry, Create, Rehead, Reseal, Unseal} }

// does says what an operation means, for whoever gives a share to it; "" for none.
func does(operation string) string {
	switch operation {
	case Carry:
		return "CARRY: the vault was sealed while its shares were dealt anew. Your OLD share opens the key of its store, so that the new shares can take it over. The token is not opened."
	case Create:
		return "CREATE: a new and empty store is made for the vault, and its token is opened. If this vault holds secrets already, say no."
	case Rehead:
		return "REHEAD: the place that guards the vault's store against older copies was lost, or is exchanged. The store is taken as it lies there, and opened. Who asks must have shown you that it is the newest copy; if you do not know why it is asked, say no."
	case Unseal:
		return "UNSEAL: the vault's store and its token are opened. It serves until it is sealed or stopped."
	case Reseal:
		return "RESEAL: the vault is open and was dealt new shares. From now on these open its store, and the old ones do not."
	}
	return ""
}

// does is what the request means for whoever gives his share to it.
func (r *Request) does() string {
	switch {
	case r.Into != "":
		return fmt.Sprintf("CARRY: safe %s was retired, and safe %s took over from it. Your share of %s opens the key of the vault's store, so that the shares of %s can take it over. No token is opened.", r.Safe, r.Into, r.Safe, r.Into)
	case r.From != "" && r.Operation == Rehead:
		return fmt.Sprintf("REHEAD: the vault's store was under safe %s, which was retired and whose shares were given for this, and the place that guards it against older copies was lost or is exchanged. The store is taken as it lies there. From now on the shares of safe %s open it, and those of %s do not. The token of %s is opened. Who asks must have shown you that it is the newest copy; if you do not know why it is asked, say no.", r.From, r.Safe, r.From, r.Safe)
	case r.From != "":
		return fmt.Sprintf("RESEAL: the vault's store was under safe %s, which was retired and whose shares were given for this. From now on those of safe %s open it, and those of %s do not. The token of %s is opened.", r.From, r.Safe, r.From, r.Safe)
	}
	return does(r.Operation)
}

// ErrRequest says that a request may not be answered.
var ErrRequest = fault.New(fault.Policy, "this request for shares may not be answered")

// Charter says which charter a host works with.
type Charter struct {
	Head string `json:"head"` // hex tree root over its lines
	Size int    `json:"size"` // statements
}

// Request asks every holder of a safe for his share, for one operation.
type Request struct {
	Attempt   []byte      `json:"attempt"` // 32 random bytes
	Charter   Charter     `json:"charter"` // in force at the host
	Epoch     int         `json:"epoch"`   // of the safe: in force, or for Carry one before
	Expires   string      `json:"expires"` // RFC 3339, at most MaxValidity after Issued
	Format    string      `json:"format"`
	From      string      `json:"from,omitempty"` // for Reseal and Rehead: the retired safe that the store was under, if it was under another
	Host      string      `json:"host"`           // id in the charter; its key signs
	Into      string      `json:"into,omitempty"` // for Carry of a retired safe: the safe that took over from it
	Issued    string      `json:"issued"`
	Operation string      `json:"operation"` // one of Operations
	Recipient string      `json:"recipient"` // age X25519, of this attempt alone
	Safe      string      `json:"safe"`      // whose shares are asked for
	Vault     string      `json:"vault"`     // vault id, hex
	World     world.World `json:"world"`
}

// Ask says what is asked for. All but From and Into are required.
type Ask struct {
	Host      string
	Operation string
	Safe      string
	Recipient string
	From      string        // for Reseal and Rehead of a store that was under a retired safe
	Into      string        // for Carry of a retired safe
	Epoch     int           // for Carry; else 0, and it is the one in force
	Valid     time.Duration // at most MaxValidity
}

// New makes a request for the shares of a safe, of the epoch in force or for Carry of
// another, under a new number.
func New(s *charter.State, a Ask, now time.Time) (*Request, error) {
	if a.Valid <= 0 || a.Valid > MaxValidity {
		return nil, fault.New(fault.Usage, "a request for shares is good for at most 24 hours")
	}
	if a.Operation != Carry {
		e, err := s.Epoch(a.Safe)
		if err != nil {
			return nil, err
		}
		a.Epoch = e.Epoch
	}
	r := &Request{
		Attempt: make([]byte, AttemptBytes), Charter: Charter{s.Head(), s.Size()}, Epoch: a.Epoch,
		Expires: charter.FormatTime(now.Add(a.Valid)), Format: Format, From: a.From, Host: a.Host, Into: a.Into, Issued: charter.FormatTime(now),
		Operation: a.Operation, Recipient: a.Recipient, Safe: a.Safe, Vault: s.Vault, World: s.World,
	}
	if _, err := rand.Read(r.Attempt); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "draw the number of the attempt: %w", err)
	}
	return r, r.Check(s, now)
}

// Sign puts the request into an envelope, with the host's key.
func (r *Request) Sign(host crypto.Signer) ([]byte, error) {
	env, err := envelope.SignJSON(PayloadType, r, host)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// Open reads a request that may be answered now: signed by a host of the charter in
// force and by nobody else, of this vault, world and epoch, and not expired.
func Open(data []byte, s *charter.State, now time.Time) (*Request, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "request for shares of more than %d bytes", MaxBytes)
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	// Signatures of another vault's hosts cannot hold here: what is wrong is told.
	if err := foreign(env.Payload, s); err != nil {
		return nil, err
	}
	hosts, err := s.HostKeys()
	if err != nil {
		return nil, err
	}
	payload, names, err := envelope.Verify(env, PayloadType, hosts, 1)
	if err != nil {
		return nil, fault.Hint(fault.Errorf(fault.ClassOf(err), "request for shares: %w", err), "your copy of the charter may be old: take the newest, which proves itself by your anchors, and look again. If it is still so, no host of the charter asks this: do not answer, and tell the others")
	}
	var r Request
	if err := jcs.Unmarshal(payload, &r); err != nil {
		return nil, err
	}
	if len(names) != 1 || names[0] != r.Host {
		return nil, fault.Errorf(fault.Verify, "request for shares: it says host %.40q and is signed by %v", r.Host, names)
	}
	return &r, r.Check(s, now)
}

// foreign refuses what says itself that it is of another world or vault; nothing
// that it lets through is believed yet.
func foreign(payload []byte, s *charter.State) error {
	var r Request
	if err := jcs.Unmarshal(payload, &r); err != nil {
		return err
	}
	if err := world.Match(s.World, r.World); err != nil {
		return err
	}
	if r.Vault != s.Vault {
		return fault.Errorf(fault.Policy, "%w: it is of another vault, %.16q…", ErrRequest, r.Vault)
	}
	return nil
}

// Check says whether the request may be answered at time now, under this charter.
// It checks no signature.
func (r *Request) Check(s *charter.State, now time.Time) error {
	issued, expires, err := r.times()
	if err != nil {
		return err
	}
	if err := world.Match(s.World, r.World); err != nil {
		return err
	}
	_, known := s.Access.Hosts[r.Host]
	switch {
	case r.Vault != s.Vault:
		return fault.Errorf(fault.Policy, "%w: it is of another vault", ErrRequest)
	case !known:
		return fault.Errorf(fault.Policy, "%w: the charter knows no host %.40q", ErrRequest, r.Host)
	case now.After(expires):
		return fault.Errorf(fault.Policy, "%w: it expired at %s", ErrRequest, r.Expires)
	case issued.After(now.Add(clockSkew)):
		return fault.Errorf(fault.Policy, "%w: it was issued in the future, at %s", ErrRequest, r.Issued)
	}
	if err := r.checkShares(s); err != nil {
		return err
	}
	return r.checkCharter(s)
}

// checkShares wants shares that the charter lets this operation ask for: those in force;
// for Carry those of an epoch before, or of a retired safe that another took over from.
func (r *Request) checkShares(s *charter.State) error {
	if r.From != "" && (r.Operation != Reseal && r.Operation != Rehead || !slices.Contains(s.Followed(r.Safe), r.From)) {
		return fault.Errorf(fault.Policy, "%w: safe %.40q did not take over from safe %.40q, or the operation is neither reseal nor rehead", ErrRequest, r.Safe, r.From)
	}
	if r.Into != "" {
		if r.Operation != Carry || !slices.Contains(s.Followed(r.Into), r.Safe) {
			return fault.Errorf(fault.Policy, "%w: safe %.40q did not take over from safe %.40q, or the operation is not carry", ErrRequest, r.Into, r.Safe)
		}
		_, err := s.EpochAt(r.Safe, r.Epoch)
		return err
	}
	e := s.Epochs[r.Safe]
	switch {
	case e.Epoch == 0:
		return fault.Errorf(fault.Policy, "%w: the charter knows no safe %.40q", ErrRequest, r.Safe)
	case (r.Operation == Carry) != (r.Epoch < e.Epoch) || r.Epoch > e.Epoch:
		return fault.Errorf(fault.Policy, "%w: epoch %d of safe %s is in force, and it asks for epoch %d to %s", ErrRequest, e.Epoch, r.Safe, r.Epoch, r.Operation)
	}
	return nil
}

// checkCharter wants host and holder to have the same charter: what is opened is
// ruled by the host's.
func (r *Request) checkCharter(s *charter.State) error {
	switch {
	case r.Charter.Size < s.Size():
		return fault.Hint(fault.Errorf(fault.Policy, "%w: the host works with a charter of %d statements, and there are %d: what was changed since would not hold", ErrRequest, r.Charter.Size, s.Size()),
			"the host must be given the newest charter first")
	case r.Charter.Size > s.Size():
		return fault.Hint(fault.Errorf(fault.Policy, "%w: the host works with a charter of %d statements, and this one has %d", ErrRequest, r.Charter.Size, s.Size()),
			"take the newest charter file, from whoever has it: it proves itself by the anchors")
	}
	return s.CheckHead(r.Charter.Size, r.Charter.Head)
}

func (r *Request) times() (issued, expires time.Time, err error) {
	if r.Format != Format || len(r.Attempt) != AttemptBytes || bytes.Equal(r.Attempt, make([]byte, AttemptBytes)) || does(r.Operation) == "" || r.Epoch < 1 || r.Safe == "" {
		return issued, expires, fault.New(fault.Verify, "request for shares is incomplete or of another format")
	}
	if _, err := r.recipient(); err != nil {
		return issued, expires, err
	}
	if err := r.World.Check(); err != nil {
		return issued, expires, err
	}
	if issued, err = charter.ParseTime(r.Issued); err == nil {
		expires, err = charter.ParseTime(r.Expires)
	}
	if err == nil && (!expires.After(issued) || expires.Sub(issued) > MaxValidity) {
		err = fault.New(fault.Verify, "request for shares is good for longer than 24 hours")
	}
	return issued, expires, err
}

// recipient is the one-time key, in its one spelling.
func (r *Request) recipient() (*age.X25519Recipient, error) {
	k, err := age.ParseX25519Recipient(r.Recipient)
	if err != nil || k.String() != r.Recipient {
		return nil, fault.New(fault.Verify, "request for shares: its recipient is no age X25519 recipient")
	}
	return k, nil
}

// Hash is the hex SHA-256 of the request's canonical bytes, which openings are
// signed for, and its first 16 bytes as words, to be compared aloud.
func (r *Request) Hash() (string, string, error) {
	b, err := jcs.Marshal(r)
	if err != nil {
		return "", "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), words.Of(sum[:16]), nil
}

// Lines say in words who asks what of the holder. Nothing in them is trusted markup.
func (r *Request) Lines() ([]string, error) {
	_, said, err := r.Hash()
	if err != nil {
		return nil, err
	}
	return []string{
		fmt.Sprintf("Host %s asks for your share of safe %s, epoch %d, of vault %.16s…, in world %s.", r.Host, r.Safe, r.Epoch, r.Vault, r.World),
		r.does(),
		fmt.Sprintf("asked at %s, until %s; attempt %.16s…; under the charter of %d statements", r.Issued, r.Expires, hex.EncodeToString(r.Attempt), r.Charter.Size),
		"request in words: " + said,
	}, nil
}
