// Package charterstore makes proposals for the charter, collects approvals, and
// appends what a threshold of approvers signed. The commands of keyrite charter
// call it. It never decides anything: what counts is the fold of the log, which
// whoever reads the charter does again.
package charterstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/signrequest"
	"keyrite/artifact/words"
	"keyrite/artifact/world"
)

// Format names a proposal.
const Format = "keyrite/charter-proposal/v1"

// MaxBytes bounds a proposal and an approval.
const MaxBytes = 1 << 20

// file is a proposal as it is passed around: the payload that approvers sign,
// and nothing that could differ from it.
type file struct {
	Format  string      `json:"format"`
	Payload []byte      `json:"payload"`
	World   world.World `json:"world"`
}

// ErrStale says that the charter went on since the proposal was made.
var ErrStale = fault.New(fault.Policy, "the charter went on since this was proposed")

// New writes the proposal of the next statement. It uses up the state.
func New(st *charter.State, typ string, body any, at time.Time) ([]byte, error) {
	payload, err := st.Propose(typ, body, at)
	if err != nil {
		return nil, err
	}
	out, err := jcs.Marshal(file{Format: Format, Payload: payload, World: st.World})
	if err != nil {
		return nil, err
	}
	if _, _, err := st.Consider(payload); err != nil {
		return nil, err
	}
	return out, nil
}

// Proposal is one that continues the charter it was opened with.
type Proposal struct {
	Statement *charter.Statement
	Payload   []byte
	// Digest is the SHA-256 of the payload, and Words its first 16 bytes to be
	// compared aloud.
	Digest, Words string
	// Shown says in words all that would be signed.
	Shown []string

	people charter.People
	set    charter.Set // of the people, that decides on it
	world  world.World
}

// Open reads a proposal and checks that it continues the charter and would hold.
// It uses up the state. A charter that went on since gives ErrStale.
func Open(data []byte, st *charter.State) (*Proposal, error) {
	p, err := Read(data, st.World)
	if err != nil {
		return nil, err
	}
	p.people = st.People
	if err := stale(p.Payload, st); err != nil {
		return nil, err
	}
	if p.Statement, p.set, err = st.Consider(p.Payload); err != nil {
		return nil, err
	}
	return p, nil
}

// Read reads what a proposal for a vault of the world says, and nothing more: whether
// it fits a charter is not looked at, and nobody can approve it.
func Read(data []byte, w world.World) (*Proposal, error) {
	var f file
	const hint = "a proposal is what 'keyrite charter propose' writes; is it this file?"
	if err := jcs.Unmarshal(data, &f); err != nil {
		return nil, fault.Hint(fault.Errorf(fault.ClassOf(err), "the proposal: %w", err), hint)
	}
	if f.Format != Format {
		return nil, fault.Hint(fault.Errorf(fault.Verify, "proposal has format %.60q", f.Format), hint)
	}
	if err := world.Match(w, f.World); err != nil {
		return nil, err
	}
	p := &Proposal{Payload: f.Payload, Statement: &charter.Statement{}, world: w}
	if err := jcs.Unmarshal(f.Payload, p.Statement); err != nil {
		return nil, err
	}
	var err error
	if p.Shown, err = signrequest.Describe(f.Payload); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(f.Payload)
	p.Digest, p.Words = DigestOf(f.Payload), words.Of(sum[:16])
	return p, nil
}

// DigestOf is the digest of a proposal with this payload.
func DigestOf(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

// Standing is a proposal that Open found to hold, with those who decide on it now. It
// leaves the state as it is, and so does not look again whether it holds: at the head
// that Open had it does, and at any other it is ErrStale.
func Standing(data []byte, st *charter.State) (*Proposal, error) {
	p, err := Read(data, st.World)
	if err != nil {
		return nil, err
	}
	if s := p.Statement; s.Vault != st.Vault || s.Seq != st.Size() || s.Prev != st.Head() {
		return nil, overtaken(s, st)
	}
	p.people = st.People
	p.set, err = st.Deciding(p.Statement)
	return p, err
}

// stale tells a proposal that was overtaken from one that never fitted.
func stale(payload []byte, st *charter.State) error {
	var s charter.Statement
	if err := jcs.Unmarshal(payload, &s); err != nil {
		return err
	}
	if s.Vault != st.Vault || s.Seq >= st.Size() || s.Seq < 1 {
		return nil // what is wrong with it is found in the next step
	}
	if err := st.CheckHead(s.Seq, s.Prev); err != nil {
		return nil //nolint:nilerr // it never fitted: found in the next step, too
	}
	return overtaken(&s, st)
}

func overtaken(s *charter.Statement, st *charter.State) error {
	return fault.Hint(fault.Errorf(fault.Policy, "%w: it is statement %d, and the charter has %d", ErrStale, s.Seq, st.Size()),
		"look with 'keyrite charter show' whether it was appended already; if not, propose it again and collect the approvals anew")
}

// Need is how many people must sign, and who they are: the approvers, but for the
// types on which others decide.
func (p *Proposal) Need() (need int, approvers []string) {
	return p.set.Need, p.set.Members
}

// Approve signs a proposal with an approver's key. The approval counts for this
// statement at this place in the charter, and for nothing else.
func Approve(p *Proposal, k *person.Key) ([]byte, error) {
	name := k.Public().Name
	m, ok := p.people.Person(name)
	if !ok || !slices.Contains(p.set.Members, name) {
		return nil, fault.Errorf(fault.Policy, "%.40q is none of those who decide on a statement of type %s", name, p.Statement.Type)
	}
	if m.Person.KeyID() != k.Public().KeyID() {
		return nil, fault.Errorf(fault.Policy, "the charter knows another key of %s", m.Person.Name)
	}
	if err := world.Match(p.world, k.Public().World); err != nil {
		return nil, err
	}
	env, err := envelope.Sign(charter.PayloadType, p.Payload, k.Signer())
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// Approver says whose approval of the proposal this is: one of those who decide on it.
func (p *Proposal) Approver(approval []byte) (string, error) {
	_, who, err := p.approvedBy(approval)
	if err != nil {
		return "", fault.Errorf(fault.ClassOf(err), "the approval: %w", err)
	}
	if len(who) != 1 {
		return "", fault.Errorf(fault.Usage, "the approval is of %d people, and one is taken at a time", len(who))
	}
	return who[0], nil
}

func (p *Proposal) approvedBy(approval []byte) (*envelope.Envelope, []string, error) {
	env, err := envelope.Parse(approval)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(env.Payload, p.Payload) {
		return nil, nil, fault.New(fault.Policy, "it is of another proposal")
	}
	_, who, err := envelope.Verify(env, charter.PayloadType, p.people.Keys(p.set), 1)
	return env, who, err
}

// Merge puts approvals of the proposal into the line of the charter. An approval
// of something else, by nobody who may, or given twice is an error that names it.
func Merge(p *Proposal, approvals map[string][]byte) (line []byte, err error) {
	out := &envelope.Envelope{Payload: p.Payload, PayloadType: charter.PayloadType}
	by := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(approvals)) {
		env, who, err := p.approvedBy(approvals[name])
		if err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "approval %q: %w", name, err)
		}
		for _, w := range who {
			if other, twice := by[w]; twice {
				return nil, fault.Errorf(fault.Quorum, "%s approved in %q and again in %q: each counts once", w, other, name)
			}
			by[w] = name
		}
		out.Signatures = append(out.Signatures, env.Signatures...)
	}
	if need, all := p.Need(); len(by) < need {
		left := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return by[n] != "" })
		return nil, fault.Hint(fault.Errorf(fault.Quorum, "%d of %d approvals are there", len(by), need), "any of "+strings.Join(left, ", ")+" may add one")
	}
	return out.Marshal()
}
