package record

import (
	"encoding/json"
	"reflect"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Data is what an entry says. Only the types of this file are Data, and none of
// them has room for a secret.
type Data interface{ entryType() string }

// Program is an executable or library that took part.
type Program struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Ref names another record by id and the tree root it ended with.
type Ref struct {
	Record string `json:"record"`
	Root   string `json:"root"`
}

// Open is the first entry: what runs, where, and on what terms.
type Open struct {
	After       *Ref              `json:"after"` // the void attempt before this one, or null
	Attempt     string            `json:"attempt"`
	Base        *Base             `json:"base,omitempty"` // the vault that it continues; a genesis has none
	BindHash    string            `json:"bind_hash"`
	Environment map[string]string `json:"environment"` // network, swap, core dumps, kernel, USB
	Format      string            `json:"format"`
	Kind        string            `json:"kind"`
	Mode        string            `json:"mode"` // "rehearsal" or "live"
	Programs    []Program         `json:"programs"`
	Record      string            `json:"record"`    // 16 hex digits
	Rehearsal   *Ref              `json:"rehearsal"` // live only
	ScriptHash  string            `json:"script_hash"`
	Title       string            `json:"title"`
	World       world.World       `json:"world"`
}

// RehearsalCounts is for how long a rehearsal counts for a live run of the same script,
// from its first entry on.
const RehearsalCounts = 30 * 24 * time.Hour

// Format names the record.
const Format = "keyrite/record/v1"

// State is a change of state. Cause is set from INVALID on.
type State struct {
	Cause string `json:"cause"`
	State string `json:"state"`
}

// Begin and Done frame a step.
type Begin struct {
	Do    string `json:"do"`
	Title string `json:"title"`
}

// Done ends a step that went well.
type Done struct {
	Do string `json:"do"`
}

// Confirm is an answer by a person to a prompt of the script.
type Confirm struct {
	Answer string `json:"answer"`
	Prompt string `json:"prompt"`
	Who    string `json:"who"`
}

// Miss is a planned miss: a passphrase or answer that was wrong and may be
// tried again.
type Miss struct {
	Of   int    `json:"of"`
	Try  int    `json:"try"`
	What string `json:"what"`
	Who  string `json:"who"`
}

// Contingency says that a step met a cause which the script plans for, and that
// the contingency's own steps follow. After them the step begins again, or the
// next one follows, as the script says.
type Contingency struct {
	ID     string `json:"id"`     // of the script's contingency
	On     string `json:"on"`     // the cause: passphrase, words, printer, medium, card, share or late
	Reason string `json:"reason"` // what happened
	Step   string `json:"step"`   // the step that met it, as in the entry
}

// Present is the roll of a break, called before everybody leaves and after.
type Present struct {
	Names []string `json:"names"` // sorted
	When  string   `json:"when"`  // "before" or "after"
}

// Medium is a medium that went into the drive or came out of it.
type Medium struct {
	Direction string `json:"direction"`        // "in" or "out"
	Label     string `json:"label"`            // of its file system, or ""
	Name      string `json:"name"`             // in the script's media
	SHA256    string `json:"sha256,omitempty"` // of a read-only input
}

// Identified says that a person was there with a key that works.
type Identified struct {
	Fingerprint string `json:"fingerprint"` // hex SHA-256 of the person file
	Name        string `json:"name"`
	Role        string `json:"role"`
}

// Documents is who saw which kind of identity document of whom, signed by two.
type Documents struct {
	Envelope envelope.Envelope `json:"envelope"`
}

// DocumentsType is the payload type of Documents.
const DocumentsType = "application/vnd.keyrite.documents-seen.v1+json"

// DocumentsSeen is the payload of Documents.
type DocumentsSeen struct {
	Format string            `json:"format"` // "keyrite/documents-seen/v1"
	Record string            `json:"record"`
	Seen   map[string]string `json:"seen"` // name → kind of document
	World  world.World       `json:"world"`
}

// Statement is a charter statement appended in the ceremony; the line stands in
// the charter among the outputs.
type Statement struct {
	LineHash string   `json:"line_hash"` // hex SHA-256 of the line
	Seq      int      `json:"seq"`
	Signers  []string `json:"signers"`
	Type     string   `json:"type"`
}

// TokenReady is a token initialised in the ceremony.
type TokenReady struct {
	Safe  string       `json:"safe"`
	Token anchor.Token `json:"token"`
}

// Admission is what admits a token: the report of attacking it with throw-away
// keys, in this ceremony or in an earlier one that still holds when a safe is
// opened, as somebody in the charter signed it.
type Admission struct {
	Envelope envelope.Envelope `json:"envelope"`
	Module   Program           `json:"module"`
	Process  *Process          `json:"process,omitempty"` // that loaded the module; nil in records of before it was kept
	Safe     string            `json:"safe"`
}

// Dealt is a secret dealt as shares; only public halves.
type Dealt struct {
	Epoch charter.Epoch `json:"epoch"`
}

// Receipt is a holder's receipt for his share.
type Receipt struct {
	Envelope envelope.Envelope `json:"envelope"`
	Holder   string            `json:"holder"`
	Safe     string            `json:"safe"`
}

// PINsChanged says that one-time PINs gave way to derived ones and are refused.
type PINsChanged struct {
	Epoch int    `json:"epoch"`
	Safe  string `json:"safe"`
}

// Intent precedes an effect in a token. Object is the CKA_ID it will have.
type Intent struct {
	Effect string       `json:"effect"`          // "init-token", "generate", "store", "open", "repin", "receiver", "transfer", "destroy"
	Epoch  int          `json:"epoch,omitempty"` // open: that is opened; repin: that will be in force
	Key    string       `json:"key"`
	Object string       `json:"object"`
	Safe   string       `json:"safe"`
	Token  anchor.Token `json:"token"`
}

// Attribute is one PKCS#11 attribute as wanted and as read back.
type Attribute struct {
	Got    string `json:"got"`
	Half   string `json:"half"` // "private" or "public"
	Name   string `json:"name"`
	Wanted string `json:"wanted"`
}

// KeyMade is a key born in the HSM, with every attribute side by side. Stage is
// "born" (session object) or "stored" (token object, read by a fresh process).
type KeyMade struct {
	Attributes []Attribute      `json:"attributes"`
	Key        anchor.KeyRecord `json:"key"`
	Object     string           `json:"object"`
	Stage      string           `json:"stage"`
}

// Certificate is a certificate issued in the ceremony.
type Certificate struct {
	ID      string `json:"id"`
	Issuer  string `json:"issuer"`
	Linted  string `json:"linted"` // "before and after"
	SHA256  string `json:"sha256"`
	Subject string `json:"subject"`
}

// CRL is a certificate revocation list issued in the ceremony.
type CRL struct {
	ID      string `json:"id"`
	Issuer  string `json:"issuer"`
	Number  int64  `json:"number"`
	Revoked int    `json:"revoked"` // entries
	SHA256  string `json:"sha256"`  // of its DER
}

// Succession is a succession statement signed in the ceremony; the file stands
// among the outputs.
type Succession struct {
	Added    []string          `json:"added,omitempty"` // ids of keys of new roles, sorted
	Counter  int64             `json:"counter"`
	Dormant  []string          `json:"dormant,omitempty"` // ids of twins made here, sorted
	Replaced map[string]string `json:"replaced"`          // role → id of the key in force from now on
	SHA256   string            `json:"sha256"`            // of the file
	Signers  []string          `json:"signers"`           // ids of succession keys
}

// Retired is a key, or with an empty key a whole token, that was destroyed and
// looked for in vain by a fresh process.
type Retired struct {
	Key    string `json:"key"`
	Left   int    `json:"left"`   // objects found: 0
	Object string `json:"object"` // CKA_ID; empty if a void attempt destroyed it before
	Safe   string `json:"safe"`
}

// Possession is a key's proof that it signs, as the stored token object.
type Possession struct {
	Key       string `json:"key"`
	Root      string `json:"root"` // transcript root before the proof
	Signature []byte `json:"signature"`
	Size      int64  `json:"size"`
}

// Watched is the signature of those who watched the birth of keys that no HSM
// attested.
type Watched struct {
	Envelope envelope.Envelope `json:"envelope"`
}

// WatchedType is the payload type of Watched.
const WatchedType = "application/vnd.keyrite.births-watched.v1+json"

// BirthsWatched is the payload of Watched.
type BirthsWatched struct {
	Format string         `json:"format"` // "keyrite/births-watched/v1"
	Keys   []WatchedBirth `json:"keys"`   // by id
	Record string         `json:"record"`
	Root   string         `json:"root"` // transcript root before the entry
	Size   int64          `json:"size"`
	World  world.World    `json:"world"`
}

// BirthsFormat names the payload of Watched.
const BirthsFormat = "keyrite/births-watched/v1"

// WatchedBirth is one key that was seen to be born.
type WatchedBirth struct {
	ID     string       `json:"id"`
	SHA256 string       `json:"sha256"` // hex, of its SubjectPublicKeyInfo
	Token  anchor.Token `json:"token"`
}

// Words is a hash that was read aloud.
type Words struct {
	What  string `json:"what"`
	Words string `json:"words"`
}

// Output is a file under outputs/ or people/.
type Output struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// Incident is anything that was not planned.
type Incident struct {
	By       string             `json:"by"`       // a person's name, or "engine"
	Class    string             `json:"class"`    // error class
	Envelope *envelope.Envelope `json:"envelope"` // the person's signature, or null
	Reason   string             `json:"reason"`
}

// IncidentType is the payload type of a signed incident.
const IncidentType = "application/vnd.keyrite.incident.v1+json"

// IncidentCall is the payload of a signed incident.
type IncidentCall struct {
	Format string      `json:"format"` // "keyrite/incident/v1"
	Reason string      `json:"reason"`
	Record string      `json:"record"`
	Root   string      `json:"root"` // transcript root when it was called
	World  world.World `json:"world"`
}

// Cleanup is what was destroyed and what could not be.
type Cleanup struct {
	Burned    []string `json:"burned"`             // epochs, "safe/epoch"
	Destroyed []string `json:"destroyed"`          // object ids
	Exposed   []string `json:"exposed,omitempty"`  // epochs in force whose shares were combined, "safe/epoch": the next ceremony deals them anew
	InForce   string   `json:"in_force,omitempty"` // epoch that opens a token whose PINs were changing, "safe/epoch"
	Kept      []string `json:"kept,omitempty"`     // keys that stay although the ceremony is void, "key object": their source is, or may be, gone
	Left      int      `json:"left"`               // objects found after, by an empty search in a fresh process
	Safe      string   `json:"safe"`
	Tainted   string   `json:"tainted"` // why the token must not be used again, or ""
}

// End is the last entry.
type End struct {
	Cause string `json:"cause"`
	State string `json:"state"` // CLOSED or VOID
}

func (*Open) entryType() string        { return "open" }
func (*State) entryType() string       { return "state" }
func (*Begin) entryType() string       { return "begin" }
func (*Done) entryType() string        { return "done" }
func (*Confirm) entryType() string     { return "confirm" }
func (*Miss) entryType() string        { return "miss" }
func (*Contingency) entryType() string { return "contingency" }
func (*Present) entryType() string     { return "present" }
func (*Medium) entryType() string      { return "medium" }
func (*Identified) entryType() string  { return "identified" }
func (*Documents) entryType() string   { return "documents" }
func (*Statement) entryType() string   { return "statement" }
func (*TokenReady) entryType() string  { return "token" }
func (*Admission) entryType() string   { return "admission" }
func (*Dealt) entryType() string       { return "dealt" }
func (*Opening) entryType() string     { return "opening" }
func (*Receipt) entryType() string     { return "receipt" }
func (*PINsChanged) entryType() string { return "pins-changed" }
func (*Intent) entryType() string      { return "intent" }
func (*KeyMade) entryType() string     { return "key" }
func (*Certificate) entryType() string { return "certificate" }
func (*CRL) entryType() string         { return "crl" }
func (*Succession) entryType() string  { return "succession" }
func (*Retired) entryType() string     { return "retired" }
func (*Possession) entryType() string  { return "possession" }
func (*Watched) entryType() string     { return "watched" }
func (*Words) entryType() string       { return "words" }
func (*Output) entryType() string      { return "output" }
func (*Incident) entryType() string    { return "incident" }
func (*Cleanup) entryType() string     { return "cleanup" }
func (*End) entryType() string         { return "end" }

// types of entries, each with the type of its data.
var types = func() map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, d := range []Data{
		&Open{}, &State{}, &Begin{}, &Done{}, &Confirm{}, &Miss{}, &Contingency{}, &Present{}, &Medium{}, &Identified{}, &Documents{}, &Statement{}, &TokenReady{},
		&Admission{}, &Dealt{}, &Opening{}, &Receipt{}, &PINsChanged{}, &Intent{}, &KeyMade{}, &Certificate{}, &CRL{}, &Succession{}, &Retired{}, &Possession{}, &Watched{}, &Words{},
		&Output{}, &Incident{}, &Cleanup{}, &End{},
		&Transferred{}, &Removed{}, &Found{},
	} {
		out[d.entryType()] = reflect.TypeOf(d).Elem()
	}
	return out
}()

func parseData(typ string, raw json.RawMessage) (Data, error) {
	t, ok := types[typ]
	if !ok {
		return nil, fault.Errorf(fault.Verify, "unknown type %.40q", typ)
	}
	d, ok := reflect.TypeAssert[Data](reflect.New(t))
	if !ok {
		return nil, fault.Errorf(fault.Unexpected, "type %s is no data", typ)
	}
	return d, jcs.Unmarshal(raw, d)
}

// PossessionMessage is what a key signs to prove itself: the only bytes outside
// its domain that it ever signs, and no domain accepts bytes that begin so.
func PossessionMessage(record, key, specHash string, size int64, root string) ([]byte, error) {
	body, err := jcs.Marshal(map[string]any{"key": key, "record": record, "root": root, "size": size, "spec_hash": specHash})
	return append([]byte("keyrite possession v1\n"), body...), err
}
