// Package trail is the audit trail of a vault as it leaves it: what an entry says,
// and the extract, a file of entries with the proof that they stand in the vault's
// log. The vault writes extracts (vault/audit); keyrite-verify and auditors read
// them.
//
// Each entry lies in a leaf {entry, seq, state} of the log; its RFC 6962 hash is
// over the leaf's canonical JSON. An extract has all leaves of the log so far, or
// some of them, each with its inclusion proof. The package does no I/O of its own
// and keeps one entry in memory. It must never take an entry for proved before
// Verify returned nil: the last lines decide as much as the first.
//
// Compatibility: docs/formats/audit.md, version 1 is read for ever.
package trail

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

// Formats of an entry and of an extract.
const (
	Format        = "keyrite/audit/v1"
	ExtractFormat = "keyrite/audit-extract/v1"
)

// Classes of refusal.
var (
	// ErrExtract says that an extract is not in its form.
	ErrExtract = fault.New(fault.Verify, "the audit extract is not valid")
	// ErrProof says that an entry is not the one that stands in the log.
	ErrProof = fault.New(fault.Verify, "an entry is not in the log that was signed")
	// ErrCosigners says that too few cosigners vouch for the log.
	ErrCosigners = fault.New(fault.Quorum, "too few cosignatures on the log")
)

// Kind says what an entry tells of.
type Kind string

// The kinds.
const (
	Request Kind = "request" // a call that was decided and made; its effect is in the same transaction
	Refused Kind = "refused" // a call that was refused
	Intent  Kind = "intent"  // a call whose effect in the token comes next
	Result  Kind = "result"  // what became of an intent
	Life    Kind = "life"    // the vault itself: opened, sealed, charter taken over, intents looked up
)

// Kinds are all kinds of entries.
func Kinds() []Kind { return []Kind{Request, Refused, Intent, Result, Life} }

// Operations of entries of kind Life.
const (
	OpCreate  = "create"  // the store was made; its first entry
	OpOpen    = "open"    // a quorum opened the vault; Params has its "holders"
	OpSeal    = "seal"    // the vault was sealed
	OpCharter = "charter" // the charter was taken over; Result has its "size" and "head"
)

// Entry is one entry. Members that do not apply are left out. Whatever came from
// outside is shown escaped.
type Entry struct {
	Accessor  string         `json:"accessor,omitempty"` // of the caller's token
	Charter   int            `json:"charter"`            // size of the charter that decided
	Class     string         `json:"class,omitempty"`    // of the error; none if it went well
	Error     string         `json:"error,omitempty"`    // as the caller was told
	Format    string         `json:"format"`
	Identity  string         `json:"identity,omitempty"`
	Intent    *uint64        `json:"intent,omitempty"` // number of the entry that this is the result of
	Kind      Kind           `json:"kind"`
	Means     string         `json:"means,omitempty"`
	Operation string         `json:"operation"` // capability, or what the vault did
	Params    map[string]any `json:"params,omitempty"`
	Path      string         `json:"path,omitempty"`
	Remote    string         `json:"remote,omitempty"` // address of the client, without port
	Request   string         `json:"request"`          // id of the call, hex
	Result    map[string]any `json:"result,omitempty"`
	Time      string         `json:"time"` // as FormatTime
}

// FormatTime writes the time of an entry: RFC 3339, UTC, milliseconds.
func FormatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Check validates an entry's own sense. It does not look into Params and Result.
func (e *Entry) Check() error {
	at, err := time.Parse(time.RFC3339, e.Time)
	if err != nil || e.Time != FormatTime(at) || e.Format != Format || !slices.Contains(Kinds(), e.Kind) || e.Operation == "" || e.Charter < 0 {
		return fault.Errorf(fault.Verify, "%w: an entry of %.40q has no time, kind or operation that is known", ErrExtract, e.Time)
	}
	if (e.Intent != nil) != (e.Kind == Result) {
		return fault.Errorf(fault.Verify, "%w: an entry of %s is the result of nothing, or of something and no result", ErrExtract, e.Time)
	}
	return nil
}

// CharterPath is where statements are handed to an open vault.
const CharterPath = "keyrite/charter"

// The path ProposalsPath/ID/AppendWord is where an open vault is told to take over a
// proposal that it keeps, once it is approved.
const (
	ProposalsPath = "keyrite/proposals"
	AppendWord    = "append"
)

// takesOver says whether an update of the path takes statements over.
func takesOver(path string) bool {
	id, below := strings.CutPrefix(path, ProposalsPath+"/")
	id, appends := strings.CutSuffix(id, "/"+AppendWord)
	return path == CharterPath || below && appends && id != "" && !strings.Contains(id, "/")
}

// TookOver says whether the entry tells of a charter that was taken over, by the vault
// itself or from a caller, and which. One that should and does not is an error.
func (e *Entry) TookOver() (size int, head string, ok bool, err error) {
	byItself := e.Kind == Life && e.Operation == OpCharter
	byCaller := e.Kind == Request && takesOver(e.Path) && e.Operation == "update"
	if !byItself && !byCaller {
		return 0, "", false, nil
	}
	n, isNumber := e.Result["size"].(float64)
	head, isText := e.Result["head"].(string)
	if !isNumber || !isText || n < 1 || n != float64(int(n)) {
		return 0, "", false, fault.Errorf(fault.Verify, "%w: the entry of %s does not say which charter was taken over", ErrExtract, e.Time)
	}
	return int(n), head, true, nil
}

// Leaf is one leaf of a vault's log.
type Leaf struct {
	Entry json.RawMessage `json:"entry"`
	Seq   uint64          `json:"seq"`   // from 0
	State string          `json:"state"` // hex SHA-256 over the sum of the store after it
}

// Header is the first line of an extract.
type Header struct {
	Checkpoint []byte      `json:"checkpoint"` // signed note
	Entries    int64       `json:"entries"`    // how many lines follow
	Format     string      `json:"format"`
	Vault      string      `json:"vault"`
	Whole      bool        `json:"whole"` // all leaves of the checkpoint, in order, without proofs
	World      world.World `json:"world"`
}

// Line is any further line of an extract.
type Line struct {
	Leaf  json.RawMessage `json:"leaf"`            // a Leaf
	Proof [][]byte        `json:"proof,omitempty"` // RFC 6962, section 2.1.1; in a whole extract none
}

// Origin is the name of a vault's log in its checkpoints.
func Origin(vault string) string { return "keyrite/store/" + vault }

// Signers are those whose word on a vault's log counts; the charter names them.
type Signers struct {
	Vault     string
	World     world.World
	Log       tlog.Signer
	Cosigners []tlog.Signer
	Need      int // of the cosigners; 0 in a rehearsal only
}
