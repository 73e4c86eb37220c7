package paper

import (
	_ "embed"
	"io"
)

//go:embed evidence.html
var evidenceHTML string

// Evidence is what a folder for auditors holds; every file of it but those in Unsigned
// was verified by whoever fills this in. WriteEvidence makes its first page.
type Evidence struct {
	World, Vault   string
	From, To, Made string
	Records        []EvidenceRecord
	Statements     []EvidenceStatement // of the period
	Others         int                 // statements before and after it
	Keys           []EvidenceKey
	Shares         []EvidenceShares
	Ends           []EvidenceEnd
	Trails         []EvidenceTrail
	Files          []EvidenceFile
	// Outside names what is here and was not in the period.
	Outside []string
	// Unsigned are the files that prove nothing, each with the reason.
	Unsigned []string
	// Lacks says what an auditor may ask for and this folder does not have.
	Lacks []string
}

// EvidenceRecord is the record of one ceremony.
type EvidenceRecord struct {
	Dir, Title, Kind, State string
	Void                    string // why it is void
	Unsigned                string // why it proves nothing, if it does not
	Keys, Cosigners         string
	Missing                 string // who has not cosigned
	Outside                 bool   // the period
}

// EvidenceStatement is a statement of the charter.
type EvidenceStatement struct {
	Seq                        int
	Time, Type, About, Signers string
}

// EvidenceKey is a key with its custodians.
type EvidenceKey struct {
	ID, Algorithm, Signs, Safe, Custodians, State, Record string

	Ends string // day on which its certificate ends; empty without one
	Over bool
}

// EvidenceShares says which shares of a safe are known to be alive.
type EvidenceShares struct {
	Safe      string
	Epoch     int
	Need, Of  int
	Proven    []EvidenceProof
	Told      []string // holders of whom it is said, without a proof
	Low, Lost bool
}

// EvidenceProof is the last proof of one holder.
type EvidenceProof struct {
	Holder, Day string
	Outside     bool // the period
}

// EvidenceEnd is something that ends, and when.
type EvidenceEnd struct {
	What, Ends string
	Over       bool
}

// EvidenceTrail is an extract of the vault's audit trail.
type EvidenceTrail struct {
	File, First, Last, Kinds, Cosigners string
	Entries, Size                       int64
	Whole                               bool
	Open                                int  // uses of a key without an outcome
	Outside                             bool // the period
}

// EvidenceFile is one file or folder with the command that checks it.
type EvidenceFile struct {
	Path, What, SHA256, Check string
}

// WriteEvidence writes the first page of a folder for auditors.
func WriteEvidence(w io.Writer, e *Evidence) error {
	h := head{Title: "Evidence of a vault, " + e.From + " to " + e.To, World: e.World, Footer: e.Vault}
	return writePage(w, "evidence", page{h, e}, evidenceHTML)
}
