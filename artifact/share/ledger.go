package share

import (
	"bytes"
	"maps"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// MaxLedgerBytes bounds a ledger: 5,000 proofs of 3 KiB, a proof of each of 25 holders a
// week for 4 years.
const MaxLedgerBytes = 16 << 20

// LedgerFormat names the lines of a challenger's ledger.
const LedgerFormat = "keyrite/share-ledger/v1"

// Kinds of line.
const (
	ledgerIssued   = "issued"
	ledgerAccepted = "accepted"
)

// ledgerLine is one line: a challenge that was issued, or a proof that was
// accepted.
type ledgerLine struct {
	Challenge *Challenge `json:"challenge,omitempty"` // issued
	Event     string     `json:"event"`
	Format    string     `json:"format"`
	ID        string     `json:"id,omitempty"`    // accepted: of the challenge
	Place     *Place     `json:"place,omitempty"` // accepted
	// Proof is what was accepted. Lines of before it was kept have none.
	Proof *envelope.Envelope `json:"proof,omitempty"`
	Time  string             `json:"time"`
}

// Ledger is what a challenger remembers: which challenges are his, and whose proof
// he accepted when. It is folded from the lines of a file that the caller keeps.
type Ledger struct {
	issued   map[string]bool
	accepted map[string]bool // challenge id and holder
	last     map[Place]time.Time
	kept     []keptLine // accepted, in order
}

// LooksLikeLedger says whether the bytes of a file can be a ledger, or the torn
// beginning of one. It is asked before a file is opened as one, which cuts off a
// last line without its end: of another file that would be everything.
func LooksLikeLedger(data []byte) bool {
	for _, begin := range []string{`{"challenge":{"epoch":`, `{"event":"accepted","format":"` + LedgerFormat + `"`} {
		n := min(len(begin), len(data))
		if string(data[:n]) == begin[:n] {
			return true
		}
	}
	return false
}

// ParseLedger folds a ledger file. A last line without its end was never appended.
func ParseLedger(data []byte) (*Ledger, error) {
	var lines [][]byte
	for line := range bytes.Lines(data) {
		if l, whole := bytes.CutSuffix(line, []byte("\n")); whole {
			lines = append(lines, l)
		}
	}
	return ReadLedger(lines)
}

// ReadLedger folds the lines of a ledger.
func ReadLedger(lines [][]byte) (*Ledger, error) {
	l := &Ledger{issued: map[string]bool{}, accepted: map[string]bool{}, last: map[Place]time.Time{}}
	for i, line := range lines {
		if err := l.take(line); err != nil {
			return nil, fault.Errorf(fault.Verify, "ledger line %d: %w", i+1, err)
		}
	}
	return l, nil
}

func (l *Ledger) take(line []byte) error {
	var x ledgerLine
	if err := jcs.Unmarshal(line, &x); err != nil {
		return err
	}
	at, err := charter.ParseTime(x.Time)
	if err != nil {
		return err
	}
	switch {
	case x.Format != LedgerFormat:
	case x.Event == ledgerIssued && x.Challenge != nil && x.Place == nil && x.Proof == nil && x.ID == "":
		id, err := x.Challenge.ID()
		l.issued[id] = true
		return err
	case x.Event == ledgerAccepted && x.Challenge == nil && x.Place != nil && len(x.ID) == 64:
		l.kept = append(l.kept, keptLine{Kept: Kept{Place: *x.Place, At: at, Proved: x.Proof != nil}, id: x.ID, proof: x.Proof})
		l.accepted[x.ID+x.Place.Holder] = true
		if at.After(l.last[*x.Place]) {
			l.last[*x.Place] = at
		}
		return nil
	}
	return fault.New(fault.Verify, "not a line of a ledger")
}

// Issue returns the line that makes c a challenge of ours. It is durable before c
// is given to anybody.
func (l *Ledger) Issue(c *Challenge) ([]byte, error) {
	id, err := c.ID()
	if err != nil {
		return nil, err
	}
	l.issued[id] = true
	return jcs.Marshal(ledgerLine{Challenge: c, Event: ledgerIssued, Format: LedgerFormat, Time: c.Issued})
}

// Accept returns the line that accepts a proof, once. It is durable before anybody
// is told that the proof was accepted.
func (l *Ledger) Accept(p *Proven, now time.Time) ([]byte, error) {
	id, err := p.Challenge.ID()
	if err != nil {
		return nil, err
	}
	if !l.issued[id] {
		return nil, fault.Hint(fault.Errorf(fault.Policy, "proof of %s: %w", p.Holder, ErrNotOurs),
			"verify it where the challenge was made, with the same --ledger, or name the challenge with --challenge")
	}
	if l.accepted[id+p.Holder] {
		return nil, fault.Errorf(fault.Policy, "proof of %s: %w", p.Holder, ErrReplay)
	}
	l.accepted[id+p.Holder] = true
	l.last[p.Place] = now
	return jcs.Marshal(ledgerLine{Event: ledgerAccepted, Format: LedgerFormat, ID: id, Place: &p.Place, Proof: p.Envelope, Time: charter.FormatTime(now)})
}

// Alive counts, for each safe, the holders whose share was proven since; receipts
// are times at which holders read their shares back, which prove as much.
func (l *Ledger) Alive(s *charter.State, receipts map[Place]time.Time, since time.Time) []Alive {
	last := maps.Clone(l.last)
	for p, at := range receipts {
		if at.After(last[p]) {
			last[p] = at
		}
	}
	return CountAlive(s, last, since)
}
