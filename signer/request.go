// Package signer releases firmware: request → approve → sign → log → publish.
//
// A pipeline named in the charter asks, people of the charter's release set
// approve what they were shown, and only then does the key in the token sign.
// The charter is the only policy: there is no configuration that could loosen
// it. Check returns what Sign takes, so no step can be left out; the ledger has
// an intent before and a result after each signature, so none is made twice and
// none is made in secret. The package never sees a PIN or share: it is handed
// signers.
package signer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Formats and payload types.
const (
	RequestFormat  = "keyrite/release-request/v1"
	RequestType    = "application/vnd.keyrite.release-request.v1+json"
	ApprovalFormat = "keyrite/release-approval/v1"
	ApprovalType   = "application/vnd.keyrite.release-approval.v1+json"
)

const (
	// MaxValidity is how long a request or an approval may hold.
	MaxValidity = 7 * 24 * time.Hour
	// maxSkew is how far ahead the clock of who wrote a file may be.
	maxSkew = 5 * time.Minute
	// MaxFileBytes bounds a request or approval.
	MaxFileBytes = 64 << 10
	nonceBytes   = 32
)

// Request is what a pipeline asks for.
type Request struct {
	Channel         string      `json:"channel"`
	Expires         string      `json:"expires"`
	File            string      `json:"file"` // file name of the image
	Format          string      `json:"format"`
	Hardware        []string    `json:"hardware"` // sorted
	Nonce           []byte      `json:"nonce"`    // 32 random bytes: two requests are never the same
	Pipeline        string      `json:"pipeline"`
	Product         string      `json:"product"`
	SecurityVersion int64       `json:"security_version"`
	SHA256          string      `json:"sha256"`
	Size            int64       `json:"size"`
	Time            string      `json:"time"`
	Vault           string      `json:"vault"`
	Version         string      `json:"version"`
	World           world.World `json:"world"`
}

// Requested is a request whose signature and claims hold under a charter.
type Requested struct {
	Request Request
	Hash    string // hex SHA-256 of the payload
	state   *charter.State
}

// Wish is what a pipeline's job knows about its image.
type Wish struct {
	Product, Version, Channel, File string
	Hardware                        []string
	SecurityVersion                 int64
}

// NewRequest returns a request signed by the key of a pipeline in the charter.
func NewRequest(c *charter.State, w Wish, sha256hex string, size int64, key crypto.Signer, now time.Time) ([]byte, error) {
	id, err := pipelineOf(c, key.Public())
	if err != nil {
		return nil, err
	}
	hw := slices.Clone(w.Hardware)
	slices.Sort(hw)
	r := Request{
		Channel: w.Channel, Expires: charter.FormatTime(now.Add(MaxValidity)), File: w.File, Format: RequestFormat,
		Hardware: slices.Compact(hw), Nonce: make([]byte, nonceBytes), Pipeline: id, Product: w.Product,
		SecurityVersion: w.SecurityVersion, SHA256: sha256hex, Size: size, Time: charter.FormatTime(now),
		Vault: c.Vault, Version: w.Version, World: c.World,
	}
	rand.Read(r.Nonce)
	if err := r.check(); err != nil {
		return nil, fault.Errorf(fault.Usage, "%w", err)
	}
	if err := mayRelease(c, id, r.Product); err != nil {
		return nil, err
	}
	return seal(RequestType, r, key)
}

func seal(typ string, v any, key crypto.Signer) ([]byte, error) {
	env, err := envelope.SignJSON(typ, v, key)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// pipelineOf finds the pipeline that has pub as its key.
func pipelineOf(c *charter.State, pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fault.Errorf(fault.Usage, "pipeline key: %w", err)
	}
	for id, p := range c.Pipelines {
		if bytes.Equal(p.Key, der) {
			return id, nil
		}
	}
	return "", fault.Hint(ErrPipeline, "have the key's public half put into the charter, with the products it may release")
}

func mayRelease(c *charter.State, id, product string) error {
	p, ok := c.Pipelines[id]
	if !ok {
		return fault.Errorf(fault.Policy, "%w: %.40q", ErrPipeline, id)
	}
	if !slices.Contains(p.Products, product) {
		return fault.Errorf(fault.Policy, "%w: %s may release %s, not %.40q", ErrProduct, id, strings.Join(p.Products, ", "), product)
	}
	return nil
}

func (r *Request) check() error {
	if r.Format != RequestFormat || len(r.Nonce) != nonceBytes {
		return fault.Errorf(fault.Verify, "request is incomplete: format %.60q", r.Format)
	}
	if err := firmware.CheckFields(r.File, r.Product, r.Version, r.Channel, r.Hardware, r.SecurityVersion, r.Size); err != nil {
		return err
	}
	if b, err := hex.DecodeString(r.SHA256); err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != r.SHA256 {
		return fault.Errorf(fault.Verify, "request: %.70q is no SHA-256", r.SHA256)
	}
	return r.World.Check()
}

// OpenRequest checks a request against the charter at time now.
func OpenRequest(data []byte, c *charter.State, now time.Time) (*Requested, error) {
	env, payload, err := parse(data, RequestType)
	if err != nil {
		return nil, err
	}
	var r Request
	if err := jcs.Unmarshal(payload, &r); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if err := sameVault(c, r.World, r.Vault); err != nil {
		return nil, err
	}
	p, ok := c.Pipelines[r.Pipeline]
	if !ok {
		return nil, fault.Errorf(fault.Policy, "%w: %.40q", ErrPipeline, r.Pipeline)
	}
	pub, err := x509.ParsePKIXPublicKey(p.Key)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "key of pipeline %s: %w", r.Pipeline, err)
	}
	if _, _, err := envelope.Verify(env, RequestType, []envelope.Key{{Name: r.Pipeline, Public: pub}}, 1); err != nil {
		if errors.Is(err, envelope.ErrUnknown) {
			return nil, fault.Errorf(fault.Policy, "%w by the key that signed this, though it says %s", ErrPipeline, r.Pipeline)
		}
		return nil, err
	}
	if err := mayRelease(c, r.Pipeline, r.Product); err != nil {
		return nil, err
	}
	if err := checkTimes("the request", r.Time, r.Expires, now); err != nil {
		return nil, err
	}
	return &Requested{Request: r, Hash: hashOf(payload), state: c}, nil
}

// Unverified is a request that anybody may have written: good to be shown, and
// nothing else takes it.
type Unverified struct {
	Request Request
	Hash    string // hex SHA-256 of the payload
}

// Shown is the text for people.
func (u *Unverified) Shown() string { return shown(&u.Request, u.Hash) }

// PeekRequest reads a request for people without checking who wrote it.
func PeekRequest(data []byte) (*Unverified, error) {
	_, payload, err := parse(data, RequestType)
	if err != nil {
		return nil, err
	}
	u := &Unverified{Hash: hashOf(payload)}
	if err := jcs.Unmarshal(payload, &u.Request); err != nil {
		return nil, err
	}
	return u, u.Request.check()
}

// parse reads an envelope of one payload type; the signature is still to be
// checked.
func parse(data []byte, typ string) (*envelope.Envelope, []byte, error) {
	if len(data) > MaxFileBytes {
		return nil, nil, fault.Errorf(fault.Verify, "file of %d bytes is larger than %d", len(data), MaxFileBytes)
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, nil, err
	}
	if env.PayloadType != typ {
		return nil, nil, fault.Errorf(fault.Verify, "%w: %.80q, not %q", envelope.ErrType, env.PayloadType, typ)
	}
	return env, env.Payload, nil
}

func sameVault(c *charter.State, w world.World, vault string) error {
	if err := world.Match(c.World, w); err != nil {
		return err
	}
	if vault != c.Vault {
		return fault.Errorf(fault.Policy, "%w: %.16s…, not %.16s…", charter.ErrVault, vault, c.Vault)
	}
	return nil
}

func checkTimes(what, from, to string, now time.Time) error {
	start, err := charter.ParseTime(from)
	if err != nil {
		return err
	}
	end, err := charter.ParseTime(to)
	if err != nil {
		return err
	}
	switch {
	case end.Sub(start) > MaxValidity || !end.After(start):
		return fault.Errorf(fault.Policy, "%s is made to hold from %s to %s, which is longer than %d days or nothing: %w", what, from, to, MaxValidity/(24*time.Hour), ErrTime)
	case now.Add(maxSkew).Before(start):
		return fault.Errorf(fault.Policy, "%s is of %s, which has not come yet: %w", what, from, ErrTime)
	case !now.Before(end):
		return fault.Errorf(fault.Policy, "%s expired at %s: %w", what, to, ErrTime)
	}
	return nil
}

func hashOf(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

// Shown is the text that an approver sees and that his approval is bound to.
func (q *Requested) Shown() string { return shown(&q.Request, q.Hash) }

func shown(r *Request, hash string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Release of firmware %s %s\n", r.Product, r.Version)
	fmt.Fprintf(&b, "  security version  %d (devices will refuse anything lower for ever)\n", r.SecurityVersion)
	fmt.Fprintf(&b, "  channel           %s\n  hardware          %s\n", r.Channel, strings.Join(r.Hardware, ", "))
	fmt.Fprintf(&b, "  image             %s, %d bytes\n  SHA-256           %s\n", r.File, r.Size, r.SHA256)
	fmt.Fprintf(&b, "  asked by          %s at %s, until %s\n", r.Pipeline, r.Time, r.Expires)
	fmt.Fprintf(&b, "  world             %s\n  request           %s\n", r.World, hash)
	return b.String()
}

// CheckImage compares what was measured with what was requested.
func (q *Requested) CheckImage(sha256hex string, size int64) error {
	if size != q.Request.Size || sha256hex != q.Request.SHA256 {
		return fault.Errorf(fault.Verify, "%w: %d bytes with SHA-256 %s, not %d with %s", ErrImage, size, sha256hex, q.Request.Size, q.Request.SHA256)
	}
	return nil
}
