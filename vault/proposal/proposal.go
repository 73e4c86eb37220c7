// Package proposal keeps proposals for the charter in the vault's store while people
// approve them offline: what was brought, by whom, and the approvals so far. vault/node
// calls it in the transaction of the call's entry.
//
// What is kept is the file of vault/charterstore, byte for byte, and approval files as
// people's programs wrote them. This package must never decide anything: whether a
// proposal holds and whose approval counts is found out before, and the fold of the
// charter finds it out again.
package proposal

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/vault/charterstore"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Bounds of what is kept: at most about 130 MiB with ten approvers, and as a rule a few
// KiB.
const (
	MaxPending     = 64
	MaxPerIdentity = 8
	MaxBytes       = 128 << 10           // of a proposal; larger ones go from hand to hand
	MaxApproval    = 2 * MaxBytes        // it holds the proposal's payload, in base64
	Life           = 30 * 24 * time.Hour // then it is gone
)

// Buckets of the store.
const (
	bucketKept      = "proposal"          // ID: kept
	bucketFiles     = "proposal-file"     // ID: the file
	bucketApprovals = "proposal-approval" // ID/NAME: given
)

// Classes of refusal.
var (
	// ErrFull says that no more proposals are kept.
	ErrFull = fault.New(fault.Quota, "too many proposals wait")
	// ErrThere says that this proposal, or this person's approval of it, is kept already.
	ErrThere = fault.New(fault.Exists, "it is there already")
)

// kept is what stands beside the file.
type kept struct {
	About     string   `json:"about"`
	Approvers []string `json:"approvers"`
	Brought   string   `json:"brought"` // RFC 3339, UTC, whole seconds
	By        string   `json:"by"`      // identity
	Need      int      `json:"need"`
	Prev      string   `json:"prev"`
	Seq       int      `json:"seq"`
	Type      string   `json:"type"`
}

// given is an approval as it is kept.
type given struct {
	Approval []byte `json:"approval"`
	Brought  string `json:"brought"`
	By       string `json:"by"` // identity that brought it, not who approves
}

// Approval is one that is kept, without its file.
type Approval struct {
	Approver string    // person
	By       string    // identity that brought it
	Brought  time.Time // UTC, whole seconds
}

// Pending is a proposal that waits.
type Pending struct {
	ID        string // SHA-256 of the payload, hex: what approvers compare
	Type      string // of the statement
	About     string // what it is about, in a word; may be empty
	Seq       int    // its place in the charter
	Prev      string // head of the charter that it continues, hex
	Need      int    // approvals that are needed
	Approvers []string
	By        string // identity that brought it
	Brought   time.Time
	Approvals []Approval // by name
}

// Ends is when it is gone.
func (p *Pending) Ends() time.Time { return p.Brought.Add(Life) }

// Fits says whether it still continues the charter.
func (p *Pending) Fits(st *charter.State) bool { return p.Seq == st.Size() && p.Prev == st.Head() }

// Reader is the store, within a transaction or beside it.
type Reader interface {
	Get(bucket, key string) ([]byte, error)
	Keys(bucket, prefix string) []string
}

var idRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Look is the proposal with an id, expired ones excepted; engine.ErrNotThere if there is
// none.
func Look(r Reader, id string, now time.Time) (*Pending, error) {
	p, err := look(r, id)
	if err == nil && !now.Before(p.Ends()) {
		err = notThere(id)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func notThere(id string) error {
	return fault.Errorf(fault.Policy, "%w: proposal %.64q", engine.ErrNotThere, id)
}

func look(r Reader, id string) (*Pending, error) {
	if !idRE.MatchString(id) {
		return nil, notThere(id)
	}
	raw, err := r.Get(bucketKept, id)
	if errors.Is(err, seal.ErrNotFound) {
		return nil, notThere(id)
	}
	if err != nil {
		return nil, err
	}
	var k kept
	if err := jcs.Unmarshal(raw, &k); err != nil {
		return nil, err
	}
	p := &Pending{ID: id, Type: k.Type, About: k.About, Seq: k.Seq, Prev: k.Prev, Need: k.Need, Approvers: k.Approvers, By: k.By}
	if p.Brought, err = charter.ParseTime(k.Brought); err != nil {
		return nil, err
	}
	for _, key := range r.Keys(bucketApprovals, id+"/") {
		g, err := approvalAt(r, key)
		if err != nil {
			return nil, err
		}
		at, err := charter.ParseTime(g.Brought)
		if err != nil {
			return nil, err
		}
		p.Approvals = append(p.Approvals, Approval{Approver: strings.TrimPrefix(key, id+"/"), By: g.By, Brought: at})
	}
	return p, nil
}

func approvalAt(r Reader, key string) (*given, error) {
	raw, err := r.Get(bucketApprovals, key)
	if err != nil {
		return nil, err
	}
	var g given
	return &g, jcs.Unmarshal(raw, &g)
}

// List is what waits, the oldest first.
func List(r Reader, now time.Time) ([]*Pending, error) {
	all, err := all(r)
	return slices.DeleteFunc(all, func(p *Pending) bool { return !now.Before(p.Ends()) }), err
}

func all(r Reader) ([]*Pending, error) {
	var out []*Pending
	for _, id := range r.Keys(bucketKept, "") {
		p, err := look(r, id)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Pending) int {
		return cmp.Or(a.Brought.Compare(b.Brought), strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

// File is the proposal's file, as it was written. An id has never two files.
func File(r Reader, id string) ([]byte, error) {
	if !idRE.MatchString(id) {
		return nil, notThere(id)
	}
	raw, err := r.Get(bucketFiles, id)
	if errors.Is(err, seal.ErrNotFound) {
		return nil, notThere(id)
	}
	return raw, err
}

// Approvals are the approval files that are kept, by approver.
func Approvals(r Reader, id string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, key := range r.Keys(bucketApprovals, id+"/") {
		g, err := approvalAt(r, key)
		if err != nil {
			return nil, err
		}
		out[strings.TrimPrefix(key, id+"/")] = g.Approval
	}
	return out, nil
}

// Room says whether an identity may bring one more proposal: ErrFull if not.
func Room(r Reader, by string, now time.Time) error {
	have, err := List(r, now)
	if err != nil {
		return err
	}
	mine := 0
	for _, p := range have {
		if p.By == by {
			mine++
		}
	}
	switch {
	case mine >= MaxPerIdentity:
		return fault.Hint(fault.Errorf(fault.Quota, "%w: %d of yours, and no identity has more", ErrFull, mine), "delete one, or have it approved and appended")
	case len(have) >= MaxPending:
		return fault.Hint(fault.Errorf(fault.Quota, "%w: %d, and no more are kept", ErrFull, len(have)), "delete those that nobody wants; they go by themselves after 30 days")
	}
	return nil
}

// Keep keeps a proposal that holds, which an identity brought.
func Keep(tx *seal.Tx, p *charterstore.Proposal, file []byte, by string, now time.Time) error {
	if err := CheckSize(file); err != nil {
		return err
	}
	if err := Room(tx, by, now); err != nil {
		return err
	}
	old, err := look(tx, p.Digest)
	switch {
	case err == nil && now.Before(old.Ends()):
		return fault.Errorf(fault.Exists, "%w: proposal %s, brought by %s", ErrThere, p.Digest, old.By)
	case err == nil:
		if err := Drop(tx, p.Digest); err != nil {
			return err
		}
	case !errors.Is(err, engine.ErrNotThere):
		return err
	}
	need, who := p.Need()
	s := p.Statement
	raw, err := jcs.Marshal(kept{About: charter.About(s), Approvers: who, Brought: charter.FormatTime(now), By: by, Need: need, Prev: s.Prev, Seq: s.Seq, Type: s.Type})
	if err != nil {
		return err
	}
	if err := tx.Put(bucketKept, p.Digest, raw); err != nil {
		return err
	}
	return tx.Put(bucketFiles, p.Digest, file)
}

// CheckSize refuses a file that is too long to be kept.
func CheckSize(file []byte) error {
	if len(file) > MaxBytes {
		return fault.Hint(fault.Errorf(fault.Usage, "the proposal has %d bytes, at most %d are kept here", len(file), MaxBytes), "hand it from person to person as a file, and append it with 'keyrite charter append'")
	}
	return nil
}

// Approve keeps a person's approval that was found to count, which an identity brought,
// and says how many there are now.
func Approve(tx *seal.Tx, id, approver string, approval []byte, by string, now time.Time) (have int, err error) {
	p, err := Look(tx, id, now)
	if err != nil {
		return 0, err
	}
	if len(approval) > MaxApproval {
		return 0, fault.Errorf(fault.Usage, "the approval has %d bytes, at most %d are taken", len(approval), MaxApproval)
	}
	if slices.ContainsFunc(p.Approvals, func(a Approval) bool { return a.Approver == approver }) {
		return 0, fault.Errorf(fault.Exists, "%w: %s approved this, and counts once", ErrThere, approver)
	}
	raw, err := jcs.Marshal(given{Approval: approval, Brought: charter.FormatTime(now), By: by})
	if err != nil {
		return 0, err
	}
	return len(p.Approvals) + 1, tx.Put(bucketApprovals, id+"/"+approver, raw)
}

// Drop takes a proposal out with all that belongs to it.
func Drop(tx *seal.Tx, id string) error {
	for _, key := range tx.Keys(bucketApprovals, id+"/") {
		if err := tx.Delete(bucketApprovals, key); err != nil {
			return err
		}
	}
	if err := tx.Delete(bucketFiles, id); err != nil {
		return fmt.Errorf("take out proposal %s: %w", id, err)
	}
	return tx.Delete(bucketKept, id)
}

// Expired are those whose time is over, which are still in the store.
func Expired(r Reader, now time.Time) ([]string, error) {
	all, err := all(r)
	var out []string
	for _, p := range all {
		if !now.Before(p.Ends()) {
			out = append(out, p.ID)
		}
	}
	return out, err
}

// Any says whether anything is kept.
func Any(r Reader) bool { return len(r.Keys(bucketKept, "")) > 0 }

// Appended takes out those of the ids that are kept, and says which they were: their
// statements stand in the charter now.
func Appended(tx *seal.Tx, ids []string) (were []string, err error) {
	for _, id := range tx.Keys(bucketKept, "") {
		if !slices.Contains(ids, id) {
			continue
		}
		if err := Drop(tx, id); err != nil {
			return nil, err
		}
		were = append(were, id)
	}
	return were, nil
}
