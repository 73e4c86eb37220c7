// Package script is the one reviewed file that a ceremony runs from.
//
// Parse reads it strictly; Lint walks every way through it, planned
// contingencies included, and says whether every key made is stored and proven,
// every certificate is issued by a key that exists, every safe is dealt before a
// key is born in it, and every way ends. The language is data: kinds.go lists
// the kinds, verbs.go the verbs with what each needs and makes. It knows no HSM
// and runs nothing. It must never accept a PIN, a slot number, a path or a shell
// command: the language has no place for them.
//
// Compatibility: docs/formats/script.md, version 1 is read for ever.
package script

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strconv"
)

// Format names the language and its version.
const Format = "keyrite/script/v1"

// MaxBytes bounds a script file.
const MaxBytes = 1 << 20

// States of a safe when the ceremony begins.
const (
	StateFresh    = "fresh"    // made here
	StateExisting = "existing" // made earlier, opened here
)

// Parse reads a script; path names it in errors, which are all *Error.
func Parse(path string, data []byte) (*Script, error) {
	s := &Script{file: path}
	if len(data) > MaxBytes {
		return nil, s.bad("", "", "larger than %d bytes", MaxBytes)
	}
	if err := s.refuseSecrets(data); err != nil {
		return nil, err
	}
	if err := s.decode(data); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	s.hash = hex.EncodeToString(sum[:])
	s.defaults()
	return s, nil
}

// defaultTries is how often a prompt may be answered wrongly.
const defaultTries = 3

func (s *Script) defaults() {
	steps := func(path string, list []Step) {
		for i := range list {
			list[i].path = join(path, itoa(i))
			if _, stated := s.marks[join(list[i].path, "tries")]; !stated {
				list[i].Tries = defaultTries
			}
		}
	}
	for _, ph := range s.Phases() {
		steps(ph.Name, ph.Steps)
	}
	for i := range s.Contingencies {
		steps(join(join("contingencies", itoa(i)), "steps"), s.Contingencies[i].Steps)
	}
	for i := range s.Safes {
		x := &s.Safes[i]
		if x.Group == "" && x.Need == 0 && x.Of == 0 {
			x.Need, x.Of = s.Roles.KeyMasters.Need, s.Roles.KeyMasters.Of
		}
		if x.State == "" && s.Kind == "genesis" {
			x.State = StateFresh
		} else if x.State == "" {
			x.State = StateExisting
		}
	}
}

// secretRE finds members that a script must not have, to name the reason rather
// than an unknown member.
var secretRE = regexp.MustCompile(`(?im)^[\s-]*["']?((?:so[_-]?|user[_-]?)?pin|password|passphrase|slot|secret)["']?\s*:`)

func (s *Script) refuseSecrets(data []byte) error {
	m := secretRE.FindSubmatchIndex(data)
	if m == nil {
		return nil
	}
	at := Pos{1, 1}
	for _, r := range string(data[:m[2]]) {
		if at.Col++; r == '\n' {
			at = Pos{at.Line + 1, 1}
		}
	}
	return &Error{File: s.file, Pos: at, Text: "a script never holds a " + string(data[m[2]:m[3]]) + ": tokens are named by label, PINs come from shares"}
}

// Hash is the hex SHA-256 of the exact bytes.
func (s *Script) Hash() string { return s.hash }

// SpecHash is the hex SHA-256 of the key's specification as canonical JSON
// (members sorted, as encoding/json sorts a map).
func (k *Key) SpecHash() string {
	var m map[string]any
	b, err := json.Marshal(k)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err == nil {
		b, err = json.Marshal(m)
	}
	if err != nil { // a struct of strings and booleans always encodes
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Phase is a group of steps.
type Phase struct {
	Name  string // summon, run or seal
	Steps []Step
}

// Phases returns the steps in order with the name of their phase.
func (s *Script) Phases() []Phase {
	return []Phase{{summon, s.Summon}, {run, s.Run}, {seal, s.Seal}}
}

// allSteps are the steps of the phases and of the contingencies.
func (s *Script) allSteps() []*Step {
	var out []*Step
	add := func(list []Step) {
		for i := range list {
			out = append(out, &list[i])
		}
	}
	for _, ph := range s.Phases() {
		add(ph.Steps)
	}
	for i := range s.Contingencies {
		add(s.Contingencies[i].Steps)
	}
	return out
}

// IsExisting says whether a safe was made in an earlier ceremony.
func (s *Script) IsExisting(x *Safe) bool { return x.State == StateExisting }

// KeyByID returns the key of that id that the ceremony makes.
func (s *Script) KeyByID(id string) (*Key, bool) {
	return find(s.Keys, func(k *Key) bool { return k.ID == id })
}

// ExistingByID returns the key of that id that the ceremony finds.
func (s *Script) ExistingByID(id string) (*ExistingKey, bool) {
	return find(s.Existing, func(k *ExistingKey) bool { return k.ID == id })
}

// SafeByName returns the safe of that name.
func (s *Script) SafeByName(name string) (*Safe, bool) {
	return find(s.Safes, func(x *Safe) bool { return x.Name == name })
}

// CertByID returns the certificate of that id.
func (s *Script) CertByID(id string) (*Certificate, bool) {
	return find(s.Certificates, func(c *Certificate) bool { return c.ID == id })
}

// CRLByID returns the revocation list of that id.
func (s *Script) CRLByID(id string) (*CRL, bool) {
	return find(s.CRLs, func(c *CRL) bool { return c.ID == id })
}

// ContingencyByID returns the contingency of that id.
func (s *Script) ContingencyByID(id string) (*Contingency, bool) {
	return find(s.Contingencies, func(c *Contingency) bool { return c.ID == id })
}

func find[T any](list []T, is func(*T) bool) (*T, bool) {
	for i := range list {
		if is(&list[i]) {
			return &list[i], true
		}
	}
	return nil, false
}

func itoa(n int) string { return strconv.Itoa(n) }
