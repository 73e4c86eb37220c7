// Package actions binds the verbs of the script language to what they do: to
// hsm, vault/quorum and provisioning/birthca.
//
// New makes the actions of one attempt from a script and a Bind. It is the only
// package of the ceremony that touches a token. Every effect is preceded by an
// intent entry, every result read back; a verb that cannot be sure returns an
// error, which voids the ceremony. It must never see a PIN or a share.
package actions

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/internal/config"
	"keyrite/internal/intake"
)

// BindFormat names the binding file.
const BindFormat = "keyrite/bind/v1"

// Bind says what the names of a script mean on this computer and this day. It
// is the only input besides the script. Paths are relative to the file's folder.
type Bind struct {
	Format   string            `yaml:"format"`   // keyrite/bind/v1. Required.
	World    world.World       `yaml:"world"`    // live or rehearsal:ID. Required.
	Module   string            `yaml:"module"`   // PKCS#11 module. Required.
	Tokens   map[string]string `yaml:"tokens"`   // safe → "fresh". Required for a genesis.
	People   []BindPerson      `yaml:"people"`   // Required for a ceremony.
	Requests map[string]string `yaml:"requests"` // certificate requests by name
	Keys     map[string]string `yaml:"keys"`     // public keys (PEM) by name
	Shares   string            `yaml:"shares"`   // folder that stands for the holders' media
	Anchors  string            `yaml:"anchors"`  // anchors file of the vault. Required but for a genesis.
	Charter  string            `yaml:"charter"`  // charter file of the vault. Required but for a genesis.
	Records  []string          `yaml:"records"`  // record folders of earlier ceremonies, verified before anything is done
	// Reports of 'keyrite hsm admit' on tokens that the records do not admit, or no more.
	Admissions []string          `yaml:"admissions"`
	Root       string            `yaml:"root"` // newest N.root.json of the update repository, where update.root follows it
	CRLs       map[string]string `yaml:"crls"` // revocation list before, by the id of the one to be issued
	// Ledgers of the signer (ledger.jsonl) and signed releases (.sigstore.json), from
	// which the security version of each product is carried over. Required where a
	// firmware key or the release log's key gives way; an empty list says that nothing
	// was ever released.
	Released []string `yaml:"released"`
	// Succession statement of the last succession, if there was one.
	Successions string            `yaml:"successions"`
	Leaves      []string          `yaml:"leaves"` // names of people whom people.change takes out of the charter
	Boot        string            `yaml:"boot"`   // device or file with the image that the computer was booted from, where the script pins it
	Media       map[string]string `yaml:"media"`  // folders where the script's media are mounted, by name
	// Vendor roots whose attestations of keys count, for a genesis; later they stand in
	// the charter.
	AttestationRoots []BindRoot `yaml:"attestation_roots"`
	// Certificates between a device and its vendor root that the device does not hold.
	AttestationChain []string    `yaml:"attestation_chain"`
	Sandbox          BindSandbox `yaml:"sandbox"`

	dir  string
	hash string
	hsmd string   // empty but in tests
	env  []string // of the module's process; nil but in tests: what ours has
}

// BindSandbox is what the module may use beside what its own configuration names;
// all of it is optional.
type BindSandbox struct {
	Sockets  []string `yaml:"sockets"`   // "unix", or "tcp:PORT"
	Folders  []string `yaml:"folders"`   // absolute, which it writes to
	StateDir string   `yaml:"state_dir"` // absolute, for the counter of wrong PINs
}

// HSM is the configuration of the module that the binding names. hsmd is empty but
// in tests.
func (b *Bind) HSM(hsmd string) hsm.Config {
	return hsm.Config{Module: b.Module, HSMD: hsmd, Env: b.env, Sockets: b.Sandbox.Sockets, Folders: b.Sandbox.Folders, StateDir: b.Sandbox.StateDir}
}

// BindPerson is one participant.
type BindPerson struct {
	Person string `yaml:"person"` // NAME.person
	Key    string `yaml:"key"`    // NAME.key; or else
	Token  string `yaml:"token"`  // NAME.card, if the key is on a card or token; or else
	// Elsewhere is the folder on which requests go to, and answers come from, the
	// machine where the person signs.
	Elsewhere string `yaml:"elsewhere"`
	Role      string `yaml:"role"`  // conductor, key-master, witness, approver
	Group     string `yaml:"group"` // of a key master: the group of the safes that he opens, as in the script
}

// LoadBind reads a binding file.
func LoadBind(path string) (*Bind, error) {
	var b Bind
	data, err := config.Load(path, &b)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	b.hash, b.dir = hex.EncodeToString(sum[:]), filepath.Dir(path)
	if b.Format != BindFormat {
		return nil, fault.Errorf(fault.Usage, "binding %q has format %q, not %q", path, b.Format, BindFormat)
	}
	if err := b.World.Check(); err != nil {
		return nil, fault.Errorf(fault.Usage, "binding %q: %w", path, err)
	}
	if b.Module == "" {
		return nil, fault.Errorf(fault.Usage, "binding %q names no module", path)
	}
	return &b, nil
}

// Hash is the hex SHA-256 of the binding file.
func (b *Bind) Hash() string { return b.hash }

// Path resolves a path of the binding.
func (b *Bind) Path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(b.dir, p)
}

// maxInputBytes bounds a person, key, request or PEM file.
const maxInputBytes = 64 << 10

// Participants loads the people and checks that they are those that the script
// calls for, all of the binding's world.
func (b *Bind) Participants(s *script.Script) ([]ceremony.Participant, error) {
	var out []ceremony.Participant
	count := map[office]int{}
	seen := map[string]bool{}
	for _, bp := range b.People {
		data, err := intake.Read(b.Path(bp.Person), maxInputBytes)
		if err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "the binding's %s: %w", cmp.Or(bp.Role, "person"), err)
		}
		p, err := person.Parse(data)
		if err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "person %q: %w", bp.Person, err)
		}
		if err := world.Match(b.World, p.World); err != nil {
			return nil, fault.Errorf(fault.Policy, "%s: %w", p.Name, err)
		}
		key, err := b.unlocker(&bp, p)
		if err != nil {
			return nil, err
		}
		if seen[p.Name] || seen[p.KeyID()] || seen[p.Recipient] {
			return nil, fault.Errorf(fault.Policy, "%s is named twice, or has the key of somebody else: a person has one role and a key of his own", p.Name)
		}
		seen[p.Name], seen[p.KeyID()], seen[p.Recipient] = true, true, true
		out = append(out, ceremony.Participant{Person: p, Role: bp.Role, Group: bp.Group, Key: key})
		count[office{bp.Role, bp.Group}]++
	}
	return out, b.checkRoles(s, count)
}

// checkBrought wants a file for everything that the script says others bring, and
// names all that is missing.
func (b *Bind) checkBrought(s *script.Script) error {
	requests, keys := s.Brought()
	var missing []string
	look := func(what, under string, names []string, given map[string]string) {
		for _, n := range names {
			path, named := given[n]
			if !named {
				missing = append(missing, what+" "+n+" (under "+under+")")
			} else if _, err := os.Stat(b.Path(path)); err != nil {
				missing = append(missing, what+" "+n+" (there is no "+path+")")
			}
		}
	}
	look("request", "requests", requests, b.Requests)
	look("public key", "keys", keys, b.Keys)
	if len(missing) == 0 {
		return nil
	}
	return fault.Hint(fault.Errorf(fault.Usage, "the binding lacks what others bring: %s", strings.Join(missing, ", ")),
		"'keyrite ceremony explain SCRIPT' lists them; paths are taken from the binding's folder")
}

// checkFresh wants every safe of the script bound to a token that does not exist.
func (b *Bind) checkFresh(s *script.Script) error {
	for _, x := range s.Safes {
		if bound, ok := b.Tokens[x.Name]; ok && bound != "fresh" || !ok && !x.Dormant {
			return fault.Hint(fault.Errorf(fault.Usage, "safe %s is bound to %.40q", x.Name, b.Tokens[x.Name]), `a genesis makes its own tokens: write "`+x.Name+`: fresh" under tokens`)
		}
	}
	return nil
}

// HashFile returns the hex SHA-256 of a file or device.
func HashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.Errorf(fault.Usage, "read %q: %w", path, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fault.Errorf(fault.Usage, "read %q: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
