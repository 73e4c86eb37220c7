// Package signrequest lets a person sign on a machine of his own what somebody
// elsewhere asks him to, by a request file and an answer file.
//
// Who asks makes a Request with the very bytes to be signed. The holder's program
// reads it, Shows in words what those bytes say, and Signs if he agrees. Who asked
// takes the signature out of the answer with Verify. Bytes that are not one of a
// closed set of messages are not signed, since nobody could say what they mean.
// This package must never show something other than what the bytes themselves say.
//
// Compatibility: docs/formats/sign-request.md, version 1 is read for ever.
package signrequest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/words"
	"keyrite/artifact/world"
)

// Formats of the two files.
const (
	Format       = "keyrite/sign-request/v1"
	AnswerFormat = "keyrite/sign-answer/v1"
)

const (
	// MaxBytes bounds either file. A request for a short statement, and every
	// answer, fits a QR code (2,331 bytes at level M, ISO/IEC 18004).
	MaxBytes = 1 << 20
	// MaxValidity is how long a request may be answered.
	MaxValidity = 7 * 24 * time.Hour
)

// Classes of refusal.
var (
	ErrRequest = fault.New(fault.Policy, "this request may not be signed")
	ErrAnswer  = fault.New(fault.Verify, "not an answer to this request")
)

var (
	asksRE = regexp.MustCompile(`^[!-~]([ -~]{0,118}[!-~])?$`)
	hexRE  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Request asks one person for one signature.
type Request struct {
	Asks    string      `json:"asks"` // who asks and where, 1 to 120 printable ASCII characters
	Expires string      `json:"expires"`
	Format  string      `json:"format"`
	Issued  string      `json:"issued"`
	Message []byte      `json:"message"` // exactly what is signed
	Name    string      `json:"name"`    // who is asked
	Nonce   []byte      `json:"nonce"`   // 16 random bytes
	World   world.World `json:"world"`
}

// Answer is the signature.
type Answer struct {
	Format    string      `json:"format"`
	Name      string      `json:"name"`
	Request   string      `json:"request"`   // hex SHA-256 of the request file
	Signature []byte      `json:"signature"` // Ed25519 over the message, or ECDSA P-256 over its SHA-256 in DER
	World     world.World `json:"world"`
}

// New makes a request to p. The message must be one that can be shown.
func New(p *person.Person, asks string, message []byte, now time.Time, valid time.Duration) (*Request, error) {
	r := &Request{
		Asks: asks, Expires: charter.FormatTime(now.Add(valid)), Format: Format, Issued: charter.FormatTime(now),
		Message: message, Name: p.Name, Nonce: make([]byte, 16), World: p.World,
	}
	rand.Read(r.Nonce)
	return r, r.Check()
}

// Parse reads a request and checks its own sense and that its message can be shown.
func Parse(data []byte) (*Request, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "request of more than %d bytes", MaxBytes)
	}
	var r Request
	if err := jcs.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	return &r, r.Check()
}

// Marshal returns the request file.
func (r *Request) Marshal() ([]byte, error) { return jcs.Marshal(r) }

// Check validates every member.
func (r *Request) Check() error {
	issued, err := charter.ParseTime(r.Issued)
	if err != nil {
		return err
	}
	expires, err := charter.ParseTime(r.Expires)
	if err != nil {
		return err
	}
	if r.Format != Format || !asksRE.MatchString(r.Asks) || len(r.Nonce) != 16 || person.CheckName(r.Name) != nil ||
		!expires.After(issued) || expires.Sub(issued) > MaxValidity {
		return fault.New(fault.Verify, "request is incomplete, of another format, or good for longer than 7 days")
	}
	if err := r.World.Check(); err != nil {
		return err
	}
	s, err := r.Show()
	if err != nil {
		return err
	}
	return world.Match(r.World, s.World)
}

// ID is the hex SHA-256 of the request file.
func (r *Request) ID() (string, error) {
	b, err := r.Marshal()
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// Digest is the hex SHA-256 of the message, and its first 16 bytes as words, to be
// compared with what the room shows.
func (r *Request) Digest() (string, string) {
	sum := sha256.Sum256(r.Message)
	return hex.EncodeToString(sum[:]), words.Of(sum[:16])
}

// Sign answers a request with k at time now. A request to somebody else, of another
// world, or expired is not signed.
func Sign(r *Request, k *person.Key, now time.Time) (*Answer, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	p := k.Public()
	if err := world.Match(p.World, r.World); err != nil {
		return nil, err
	}
	expires, err := charter.ParseTime(r.Expires)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Name != p.Name:
		return nil, fault.Errorf(fault.Policy, "%w: it asks %s, and this is the key of %s", ErrRequest, r.Name, p.Name)
	case now.After(expires):
		return nil, fault.Errorf(fault.Policy, "%w: it expired at %s", ErrRequest, r.Expires)
	}
	id, err := r.ID()
	if err != nil {
		return nil, err
	}
	sig, err := envelope.SignBytes(k.Signer(), r.Message)
	return &Answer{AnswerFormat, p.Name, id, sig, p.World}, err
}

// Marshal returns the answer file.
func (a *Answer) Marshal() ([]byte, error) { return jcs.Marshal(a) }

// ParseAnswer reads an answer. It checks no signature.
func ParseAnswer(data []byte) (*Answer, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "answer of more than %d bytes", MaxBytes)
	}
	var a Answer
	if err := jcs.Unmarshal(data, &a); err != nil {
		return nil, err
	}
	if a.Format != AnswerFormat || !hexRE.MatchString(a.Request) || len(a.Signature) == 0 || person.CheckName(a.Name) != nil {
		return nil, fault.New(fault.Verify, "answer is incomplete or of another format")
	}
	return &a, a.World.Check()
}

// Verify checks that data, an answer file or its lines, is p's answer to r and
// returns the signature over r.Message.
func Verify(data []byte, r *Request, p *person.Person) ([]byte, error) {
	a, err := answerTo(data, r)
	if err != nil {
		return nil, err
	}
	id, err := r.ID()
	if err != nil {
		return nil, err
	}
	if a.Request != id || a.Name != r.Name || a.Name != p.Name || a.World != r.World {
		return nil, fault.Errorf(fault.Verify, "%w: it answers another one, or by somebody else", ErrAnswer)
	}
	if err := envelope.CheckBytes(p.PublicKey(), r.Message, a.Signature); err != nil {
		return nil, fault.Errorf(fault.Verify, "answer of %s: %w", a.Name, err)
	}
	return bytes.Clone(a.Signature), nil
}
