// Package charter is the log of statements that rules a vault: who may decide,
// which keys exist, which pipelines, factories and stations are known.
//
// Fold reads the whole log and returns the state; it is a pure function, and the
// state is nothing but the fold. Each statement is a DSSE envelope with a
// threshold of signatures under the set in force before it; the genesis
// statement, which founds the sets, is signed by every person it names. Propose
// makes the next statement to sign. It must never fill in a default: a missing,
// zero, repeated or unknown value makes the whole log invalid.
//
// Compatibility: docs/formats/charter.md, version 1 is read for ever.
package charter

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
)

// Format names the statement; PayloadType is its DSSE payload type.
const (
	Format      = "keyrite/charter/v1"
	PayloadType = "application/vnd.keyrite.charter.v1+json"
)

// Statement types.
const (
	TypeGenesis  = "genesis"
	TypeEpoch    = "epoch"    // the shares in force of a safe
	TypeKey      = "key"      // a key admitted
	TypePipeline = "pipeline" // an identity that may request releases
	TypeFactory  = "factory"
	TypeStation  = "station"
	TypeRelay    = "relay" // a relay server's certificate

	TypePeople      = "people"       // roster, safes and sets from now on
	TypeKeyRetired  = "key-retired"  // a key that signs nothing any more
	TypeSuccessor   = "successor"    // a dormant key takes over an id
	TypeReceiver    = "receiver"     // the key for which a key on its way to a safe is wrapped
	TypeKeyMoved    = "key-moved"    // a key lives in another safe's token from now on
	TypeSafeRetired = "safe-retired" // a safe that opens no more
	TypeFloor       = "floor"        // the lowest security version of a product from now on

	TypeEpochAdopted = "epoch-adopted" // shares that a void ceremony dealt and that open a safe now
	TypeKeyAdopted   = "key-adopted"   // a key that a void transfer left in another safe's token
)

// Statement is one entry.
type Statement struct {
	Body   json.RawMessage `json:"body"`
	Format string          `json:"format"`
	Prev   string          `json:"prev"` // hex tree root over the earlier lines; 64 zeros for the first
	Seq    int             `json:"seq"`  // from 0
	Time   string          `json:"time"` // RFC 3339, UTC, whole seconds; never before the previous one's
	Type   string          `json:"type"`
	Vault  string          `json:"vault"`
	World  world.World     `json:"world"`
}

// Roles of people. A person has one role, except that the conductor is also the
// operator where the script says so.
const (
	RoleConductor = "conductor"
	RoleOperator  = "operator"
	RoleKeyMaster = "key-master"
	RoleWitness   = "witness"
	RoleApprover  = "approver"
)

// Member is a person with a role.
type Member struct {
	Person person.Person `json:"person"`
	Role   string        `json:"role"`
}

// Set is a group of people of whom Need must sign.
type Set struct {
	Members []string `json:"members"` // names, sorted
	Need    int      `json:"need"`    // at least 2
}

// Sets of people. Approvers decide on the charter, Releases on releases.
type Sets struct {
	Approvers Set `json:"approvers"`
	Releases  Set `json:"releases"`
}

// Safe is a token under a secret shared among its openers.
type Safe struct {
	Name    string `json:"name"` // "root", "work"
	Openers Set    `json:"openers"`
}

// Genesis founds a vault. Its canonical hash is the vault id; it names no keys,
// which do not exist yet. Its people are in force until a statement of type
// people: State.People is what counts.
type Genesis struct {
	Nonce      []byte      `json:"nonce"` // 32 random bytes
	People                 // roster, safes, sets
	ScriptHash string      `json:"script_hash"` // hex SHA-256 of the script file
	World      world.World `json:"world"`
}

// Share is the public half of one key master's share.
type Share struct {
	Holder string            `json:"holder"`
	Index  int               `json:"index"`  // 1 to the number of openers
	Public ed25519.PublicKey `json:"public"` // share key, 32 bytes
}

// Epoch says which shares open a safe now, and which token the safe is. Epochs
// are counted from 1 for each safe.
type Epoch struct {
	Epoch  int          `json:"epoch"`
	Need   int          `json:"need"`
	Safe   string       `json:"safe"`
	Shares []Share      `json:"shares"` // by index
	Token  anchor.Token `json:"token"`
}

// Pipeline is an identity that may request releases of the named products.
type Pipeline struct {
	ID       string   `json:"id"`
	Key      []byte   `json:"key"` // DER SubjectPublicKeyInfo, P-256 or Ed25519
	Products []string `json:"products"`
}

// Factory may issue birth certificates for one product line within a range of
// device serials.
type Factory struct {
	CA         []byte `json:"ca"` // DER certificate of its CA, issued by the birth root
	Evidence   string `json:"evidence"`
	ID         string `json:"id"`
	Product    string `json:"product"`
	SerialFrom int64  `json:"serial_from"`
	SerialTo   int64  `json:"serial_to"` // inclusive
}

// Station is a production station of a factory; its report key signs production
// reports.
type Station struct {
	Factory   string `json:"factory"`
	ID        string `json:"id"`
	ReportKey []byte `json:"report_key"` // DER SubjectPublicKeyInfo, P-256
}

// Relay is a relay server's certificate.
type Relay struct {
	Certificate []byte `json:"certificate"` // DER, issued by relay-ca
	ID          string `json:"id"`
	Role        string `json:"role"` // "access" or "vpn"
}

// KeyAdmitted admits a key made in a ceremony.
type KeyAdmitted = anchor.KeyRecord

// Classes of refusal.
var (
	ErrStatement = fault.New(fault.Verify, "charter statement is not valid")
	ErrChain     = fault.New(fault.Verify, "charter statement does not continue the log")
	ErrVault     = fault.New(fault.Policy, "charter of another vault")
	ErrUnknown   = fault.New(fault.Policy, "not in the charter")
)

var (
	idRE  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	hexRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// TimeFormat is RFC 3339 in UTC with whole seconds.
	timeFormat = "2006-01-02T15:04:05Z"
)

// FormatTime writes t as statements do.
func FormatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// ParseTime reads a statement's time.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeFormat, s)
	if err != nil || FormatTime(t) != s {
		return t, fault.Errorf(fault.Verify, "time %.40q is not RFC 3339 UTC in whole seconds", s)
	}
	return t, nil
}

// VaultID is the hex SHA-256 of the canonical genesis body.
func (g *Genesis) VaultID() (string, error) {
	b, err := jcs.Marshal(g)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// Check validates the founding: unique people and keys, thresholds of at least
// 2, approvers and openers disjoint, at least one witness and one conductor.
func (g *Genesis) Check() error {
	if len(g.Nonce) != 32 || !hexRE.MatchString(g.ScriptHash) {
		return fault.Errorf(fault.Verify, "%w: genesis is incomplete", ErrStatement)
	}
	return g.People.Check(g.World)
}

func checkSPKI(der []byte) error {
	pub, err := x509.ParsePKIXPublicKey(der)
	if err == nil {
		err = envelope.CheckKey(pub)
	}
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: key: %w", ErrStatement, err)
	}
	return nil
}

// About says in one word what a statement is about: the id it defines, the safe
// of an epoch, or the mount of an engine and what is there. It is for display.
func About(s *Statement) string {
	var body struct {
		ID    string `json:"id"`
		Safe  string `json:"safe"`
		Mount string `json:"mount"`
		Name  string `json:"name"`
	}
	if err := json.Unmarshal(s.Body, &body); err != nil {
		return ""
	}
	if body.Mount != "" && body.Name != "" {
		return body.Mount + "/" + body.Name
	}
	return body.ID + body.Safe + body.Mount
}
