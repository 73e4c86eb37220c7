// Package script is the one reviewed file that a ceremony runs from.
//
// Parse reads it strictly; Lint walks it from the first step to the last and
// says whether every key made is stored and proven, every certificate is issued
// by a key that exists, and every safe is dealt before a key is born in it. It
// knows no HSM and runs nothing. It must never accept a PIN, a slot number, a
// path or a shell command: the language has no place for them.
//
// Compatibility: docs/formats/script.md, version 1 is read for ever.
package script

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"keyrite/internal/config"
)

// Format names the language and its version.
const Format = "keyrite/script/v1"

// Error is a fault in a script, of class usage.
type Error struct {
	Where string // step or member
	Text  string
}

func (e *Error) Error() string { return fmt.Sprintf("script: %s: %s", e.Where, e.Text) }

// FaultClass is usage: nothing was done yet.
func (e *Error) FaultClass() string { return "usage" }

func bad(where, format string, args ...any) error {
	return &Error{where, fmt.Sprintf(format, args...)}
}

// Quorum is n people of whom some must agree.
type Quorum struct {
	Need int `yaml:"need"` // at least 2
	Of   int `yaml:"of"`
}

// Roles says how many people take part, by role. A person has one role only.
type Roles struct {
	Conductor         int    `yaml:"conductor"`          // 1
	ConductorOperates bool   `yaml:"conductor_operates"` // conductor and operator are one person
	KeyMasters        Quorum `yaml:"key_masters"`
	Witnesses         int    `yaml:"witnesses"` // at least 2
	Approvers         Quorum `yaml:"approvers"` // of charter and releases
}

// Pins are the SHA-256 of the programs that may run the script, in hex.
type Pins struct {
	Keyrite string `yaml:"keyrite"`
	HSMD    string `yaml:"hsmd"`
	Module  string `yaml:"module"`
}

// Safe is a token that the ceremony initialises, under a secret of its own.
type Safe struct {
	Name  string `yaml:"name"`
	Token string `yaml:"token"` // label
}

// Key is the specification of one key. Every usage is stated.
type Key struct {
	ID        string `yaml:"id" json:"id"`
	Safe      string `yaml:"safe" json:"safe"`
	Purpose   string `yaml:"purpose" json:"purpose"`
	Algorithm string `yaml:"algorithm" json:"algorithm"` // p256 or ed25519
	Domain    string `yaml:"domain" json:"domain"`       // signing domain
	Usage     Usage  `yaml:"usage" json:"usage"`
}

// Usage states every attribute that decides what a key may do.
type Usage struct {
	Sign               bool `yaml:"sign" json:"sign"`
	Decrypt            bool `yaml:"decrypt" json:"decrypt"`
	Unwrap             bool `yaml:"unwrap" json:"unwrap"`
	Derive             bool `yaml:"derive" json:"derive"`
	SignRecover        bool `yaml:"sign_recover" json:"sign_recover"`
	Extractable        bool `yaml:"extractable" json:"extractable"`
	Sensitive          bool `yaml:"sensitive" json:"sensitive"`
	AlwaysAuthenticate bool `yaml:"always_authenticate" json:"always_authenticate"`
	Destroyable        bool `yaml:"destroyable" json:"destroyable"`
}

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

// Certificate is one to be issued.
type Certificate struct {
	ID      string   `yaml:"id"`
	Profile string   `yaml:"profile"` // birth-root, relay-ca, factory-ca, relay
	Key     string   `yaml:"key"`     // a key of this script, or
	CSR     string   `yaml:"csr"`     // a request named in the binding
	Issuer  string   `yaml:"issuer"`  // key id; its own for a root
	Days    int      `yaml:"days"`    // relay: 1 to 30; the other profiles have no end
	Factory string   `yaml:"factory"` // factory-ca: which factory
	Role    string   `yaml:"role"`    // relay: access or vpn
	Names   []string `yaml:"names"`   // relay: DNS names and IP addresses
}

// Factory becomes a charter statement, as Station, Pipeline and Relay do.
type Factory struct {
	ID         string `yaml:"id"`
	Product    string `yaml:"product"`
	SerialFrom int64  `yaml:"serial_from"`
	SerialTo   int64  `yaml:"serial_to"`
	Evidence   string `yaml:"evidence"` // what proves the partner's maturity
	CA         string `yaml:"ca"`       // certificate id
}

// Station is a production station of a factory.
type Station struct {
	ID        string `yaml:"id"`
	Factory   string `yaml:"factory"`
	ReportKey string `yaml:"report_key"` // CSR named in the binding
}

// Pipeline may request releases.
type Pipeline struct {
	ID       string   `yaml:"id"`
	Products []string `yaml:"products"`
	Key      string   `yaml:"key"` // public key named in the binding
}

// Relay is a relay server.
type Relay struct {
	ID          string `yaml:"id"`
	Role        string `yaml:"role"`
	Certificate string `yaml:"certificate"`
}

// Environment says what the ceremony computer must be like. "down"/"off" is
// enforced, "any" is only recorded.
type Environment struct {
	Network string `yaml:"network"` // down or any
	Swap    string `yaml:"swap"`    // off or any
}

// Step is one step.
type Step struct {
	ID      string        `yaml:"id"` // "1.2"
	Do      string        `yaml:"do"` // a verb of Verbs
	Title   string        `yaml:"title"`
	Say     string        `yaml:"say"`     // what the conductor reads aloud
	Safe    string        `yaml:"safe"`    // for token and share verbs
	Key     string        `yaml:"key"`     // for key verbs
	Cert    string        `yaml:"cert"`    // for certificate verbs
	Confirm []string      `yaml:"confirm"` // roles of which each person confirms
	Limit   time.Duration `yaml:"limit"`   // required; longer is an incident
	Tries   int           `yaml:"tries"`   // default 3
	Planned []string      `yaml:"planned"` // contingencies that are no incident here
}

// Contingency is something that people predictably do, and what is done then.
type Contingency struct {
	ID    string `yaml:"id"`
	On    string `yaml:"on"` // passphrase, words, printer, medium, card, share or late
	Steps []Step `yaml:"steps"`
	Then  string `yaml:"then"` // again: the step begins again, tries times at most; next: it is left out
}

// Script is the whole file.
type Script struct {
	Format        string        `yaml:"format"`
	Kind          string        `yaml:"kind"` // genesis
	Title         string        `yaml:"title"`
	Purpose       string        `yaml:"purpose"`
	Pins          Pins          `yaml:"pins"`
	Environment   Environment   `yaml:"environment"`
	Roles         Roles         `yaml:"roles"`
	Safes         []Safe        `yaml:"safes"`
	Keys          []Key         `yaml:"keys"`
	Certificates  []Certificate `yaml:"certificates"`
	Factories     []Factory     `yaml:"factories"`
	Stations      []Station     `yaml:"stations"`
	Pipelines     []Pipeline    `yaml:"pipelines"`
	Relays        []Relay       `yaml:"relays"`
	Contingencies []Contingency `yaml:"contingencies"`
	Summon        []Step        `yaml:"summon"` // before ARMED: nothing here is an incident
	Run           []Step        `yaml:"run"`
	Seal          []Step        `yaml:"seal"`

	hash string
}

// MaxBytes bounds a script file.
const MaxBytes = 1 << 20

// Parse reads a script; path names it in errors.
func Parse(path string, data []byte) (*Script, error) {
	if len(data) > MaxBytes {
		return nil, bad(path, "larger than %d bytes", MaxBytes)
	}
	if err := refuseSecrets(path, data); err != nil {
		return nil, err
	}
	var s Script
	if err := config.Parse(path, data, &s); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	s.hash = hex.EncodeToString(sum[:])
	s.defaults()
	return &s, nil
}

func (s *Script) defaults() {
	lists := [][]Step{s.Summon, s.Run, s.Seal}
	for i := range s.Contingencies {
		lists = append(lists, s.Contingencies[i].Steps)
	}
	for _, list := range lists {
		for i := range list {
			if list[i].Tries == 0 {
				list[i].Tries = 3
			}
		}
	}
}

// secretRE finds members that a script must not have, to name the reason rather
// than an unknown key.
var secretRE = regexp.MustCompile(`(?im)^[\s-]*["']?((?:so[_-]?|user[_-]?)?pin|password|passphrase|slot|secret)["']?\s*:`)

func refuseSecrets(path string, data []byte) error {
	m := secretRE.FindSubmatchIndex(data)
	if m == nil {
		return nil
	}
	line := 1
	for _, b := range data[:m[2]] {
		if b == '\n' {
			line++
		}
	}
	return bad(fmt.Sprintf("%s line %d", path, line), "a script never holds a %s: tokens are named by label, PINs come from shares", data[m[2]:m[3]])
}

// Hash is the hex SHA-256 of the exact bytes.
func (s *Script) Hash() string { return s.hash }

// Phases returns the steps in order with the name of their phase.
func (s *Script) Phases() []Phase {
	return []Phase{{"summon", s.Summon}, {"run", s.Run}, {"seal", s.Seal}}
}

// Phase is a group of steps.
type Phase struct {
	Name  string
	Steps []Step
}

// KeyByID returns the key of that id.
func (s *Script) KeyByID(id string) (*Key, bool) {
	return find(s.Keys, func(k *Key) bool { return k.ID == id })
}

// SafeByName returns the safe of that name.
func (s *Script) SafeByName(name string) (*Safe, bool) {
	return find(s.Safes, func(x *Safe) bool { return x.Name == name })
}

// CertByID returns the certificate of that id.
func (s *Script) CertByID(id string) (*Certificate, bool) {
	return find(s.Certificates, func(c *Certificate) bool { return c.ID == id })
}

func find[T any](list []T, is func(*T) bool) (*T, bool) {
	for i := range list {
		if is(&list[i]) {
			return &list[i], true
		}
	}
	return nil, false
}
