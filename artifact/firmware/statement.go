// Package firmware is what a release consists of outside the vault: the signed
// statement about an image, the Sigstore bundle that carries it, the proof that
// the release log holds it, and NAME.krf, the one file with all of them.
//
// The signer writes with it; gateways, pipelines and keyrite-verify check with
// it. Verify and Open are the only ways to a statement that may be believed:
// product, hardware and security version are read from nothing else. Images are
// streamed and never held in memory. It must never accept a second encoding of
// anything it reads, except of the ECDSA signature value itself.
//
// Compatibility: docs/formats/firmware.md and krf.md, version 1 is read for ever.
package firmware

import (
	"regexp"
	"slices"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Names that are fixed by in-toto (Statement v1) and by us.
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PayloadType   = "application/vnd.in-toto+json"
	// PredicateType carries our format name; a URN, since we own no host that
	// a reader could ask.
	PredicateType = "urn:keyrite:keyrite/firmware/v1"
)

// Limits.
const (
	MaxImageBytes      = 1<<33 - 1 // the size field of a USTAR header: 11 octal digits
	MaxStatementBytes  = 32 << 10
	MaxSecurityVersion = 1<<32 - 1 // rollback counters of boot chains have 32 bits
	MaxHardware        = 64
	MaxApprovals       = 64
)

// Statement is an in-toto statement about one firmware image.
type Statement struct {
	Type          string    `json:"_type"`
	Predicate     Predicate `json:"predicate"`
	PredicateType string    `json:"predicateType"`
	Subject       []Subject `json:"subject"` // exactly one

	role string // of the key that signed it
}

// Role is the role of the key with which a statement was verified: "firmware", or
// "firmware-PRODUCT". It is empty before Open.
func (s *Statement) Role() string { return s.role }

// Subject names the image.
type Subject struct {
	Digest Digest `json:"digest"`
	Name   string `json:"name"` // file name, without folder
}

// Digest of the image. SHA-256 alone: the signature is over SHA-256 as well, so
// a longer hash beside it would add cost (three times the CPU time) and no
// strength.
type Digest struct {
	SHA256 string `json:"sha256"` // lower-case hex
}

// Predicate is what was released, on whose decision, and with which key.
type Predicate struct {
	Approvals       []Approval  `json:"approvals"`
	Channel         string      `json:"channel"`
	Charter         Charter     `json:"charter"`
	Hardware        []string    `json:"hardware"` // compatible hardware, sorted, at least one
	Key             Key         `json:"key"`
	Pipeline        string      `json:"pipeline"` // who asked, by id in the charter
	Product         string      `json:"product"`
	Request         string      `json:"request"`          // hex SHA-256 of the request's payload
	SecurityVersion int64       `json:"security_version"` // 1 or more; never goes down
	Size            int64       `json:"size"`             // bytes of the image
	Time            string      `json:"time"`             // of signing, RFC 3339 UTC
	Vault           string      `json:"vault"`
	Version         string      `json:"version"`
	World           world.World `json:"world"`
}

// Approval is one person's consent.
type Approval struct {
	Approver string `json:"approver"`
	Hash     string `json:"hash"` // hex SHA-256 of the approval's payload
}

// Charter is the state of the charter that the release was checked against.
type Charter struct {
	Head string `json:"head"` // hex tree root
	Size int    `json:"size"` // statements
}

// Key leads from the signature to the ceremony where its key was born.
type Key struct {
	ID         string `json:"id"`          // "firmware"
	Record     string `json:"record"`      // id of the ceremony record
	ScriptHash string `json:"script_hash"` // hex SHA-256 of the ceremony script
	SpecHash   string `json:"spec_hash"`   // hex SHA-256 of the key's specification in it
}

var (
	hexRE     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	idRE      = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	versionRE = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}$`)
	// 80 bytes and the longest suffix fit the 100 bytes of a USTAR name.
	fileRE = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+_-]{0,79}$`)
	hwRE   = regexp.MustCompile(`^[a-z0-9][a-z0-9.,_-]{0,63}$`)
)

const timeFormat = "2006-01-02T15:04:05Z"

// CheckFields validates what a release says about itself, for requests and
// statements alike. Its errors have no class of their own.
func CheckFields(file, product, version, channel string, hardware []string, security, size int64) error {
	bad := func(what string, v any) error {
		return fault.Errorf(fault.Verify, "%s %.80q cannot be used", what, v)
	}
	switch {
	case !fileRE.MatchString(file):
		return bad("file name", file)
	case !idRE.MatchString(product):
		return bad("product", product)
	case !versionRE.MatchString(version):
		return bad("version", version)
	case !idRE.MatchString(channel):
		return bad("channel", channel)
	case security < 1 || security > MaxSecurityVersion:
		return fault.Errorf(fault.Verify, "security version %d is not 1 to %d", security, int64(MaxSecurityVersion))
	case size < 1 || size > MaxImageBytes:
		return fault.Errorf(fault.Verify, "image of %d bytes; 1 to %d are possible", size, int64(MaxImageBytes))
	case len(hardware) < 1 || len(hardware) > MaxHardware || !slices.IsSorted(hardware):
		return fault.Errorf(fault.Verify, "hardware must be 1 to %d sorted names", MaxHardware)
	}
	for i, h := range hardware {
		if !hwRE.MatchString(h) || i > 0 && hardware[i-1] == h {
			return bad("hardware", h)
		}
	}
	return nil
}

// Check validates every member.
func (s *Statement) Check() error {
	if s.Type != StatementType || s.PredicateType != PredicateType || len(s.Subject) != 1 {
		return fault.Errorf(fault.Verify, "%w: not one image under %s", ErrStatement, PredicateType)
	}
	p := &s.Predicate
	if err := CheckFields(s.Subject[0].Name, p.Product, p.Version, p.Channel, p.Hardware, p.SecurityVersion, p.Size); err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrStatement, err)
	}
	for _, h := range []string{s.Subject[0].Digest.SHA256, p.Charter.Head, p.Key.ScriptHash, p.Key.SpecHash, p.Request, p.Vault} {
		if !hexRE.MatchString(h) {
			return fault.Errorf(fault.Verify, "%w: %.70q is not a hash", ErrStatement, h)
		}
	}
	if !idRE.MatchString(p.Pipeline) || !idRE.MatchString(p.Key.ID) || p.Key.Record == "" || p.Charter.Size < 1 {
		return fault.Errorf(fault.Verify, "%w: pipeline, key or charter is missing", ErrStatement)
	}
	if at, err := time.Parse(timeFormat, p.Time); err != nil || at.Format(timeFormat) != p.Time {
		return fault.Errorf(fault.Verify, "%w: time %.40q", ErrStatement, p.Time)
	}
	if err := p.checkApprovals(); err != nil {
		return err
	}
	return p.World.Check()
}

// checkApprovals wants two or more distinct people in order: a statement with
// fewer cannot come from a charter that is in force.
func (p *Predicate) checkApprovals() error {
	if len(p.Approvals) < 2 || len(p.Approvals) > MaxApprovals {
		return fault.Errorf(fault.Verify, "%w: %d approvals", ErrStatement, len(p.Approvals))
	}
	for i, a := range p.Approvals {
		if !idRE.MatchString(a.Approver) || !hexRE.MatchString(a.Hash) || i > 0 && p.Approvals[i-1].Approver >= a.Approver {
			return fault.Errorf(fault.Verify, "%w: approval %d", ErrStatement, i+1)
		}
	}
	return nil
}

// Image is the subject.
func (s *Statement) Image() Subject { return s.Subject[0] }

// Marshal returns the payload to sign.
func (s *Statement) Marshal() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return jcs.Marshal(s)
}

// ParseStatement reads a payload. It does not make it true: use Open or Verify.
func ParseStatement(payload []byte) (*Statement, error) {
	if len(payload) > MaxStatementBytes {
		return nil, fault.Errorf(fault.Verify, "%w: %d bytes", ErrStatement, len(payload))
	}
	var s Statement
	if err := jcs.Unmarshal(payload, &s); err != nil {
		return nil, err
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	return &s, nil
}
