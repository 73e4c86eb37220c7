package share

import (
	"bytes"
	"slices"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// ErrTold says that a ledger has lines which only tell that there was a proof.
var ErrTold = fault.New(fault.Verify, "the ledger tells of a proof, and does not have it")

// Kept is an accepted proof of a ledger, as somebody else than its keeper may take it.
type Kept struct {
	Place   Place
	Purpose string    // of the challenge; empty where Proved is false
	At      time.Time // when its keeper says that he accepted it: while the challenge could be answered
	Proved  bool      // the proof is there and holds; otherwise the ledger only tells of it
}

// keptLine is a line to be checked.
type keptLine struct {
	Kept
	id    string // of the challenge
	proof *envelope.Envelope
	why   error // why it does not hold, the best that is known
}

// Check verifies the proofs that a ledger keeps against a charter file that was
// verified: each must hold under the people and epochs of some time in it, at the time
// at which it was accepted. What was accepted stands in the result, in order.
//
// A line without a proof is ErrTold, together with the result, in which it is not
// Proved; with any other error nothing is.
func (l *Ledger) Check(lines []byte) ([]Kept, error) {
	all, told, seen := slices.Clone(l.kept), 0, map[string]bool{}
	var left []*keptLine
	for i := range all {
		k := &all[i]
		k.why = ErrChallenge // in a charter that never dealt a share
		switch {
		case k.proof == nil:
			told++
			continue
		case seen[k.id+k.Place.Holder]:
			return nil, fault.Errorf(fault.Verify, "proof of %.40q: it was accepted twice", k.Place.Holder)
		}
		seen[k.id+k.Place.Holder] = true
		left = append(left, k)
	}
	s := &charter.State{}
	for line := range bytes.Lines(lines) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if err := s.Apply(line); err != nil {
			return nil, err
		}
		changes, err := changesShares(line)
		if err != nil {
			return nil, err
		}
		if changes {
			left = slices.DeleteFunc(left, func(k *keptLine) bool { return k.holds(s) })
		}
	}
	if len(left) > 0 {
		return nil, fault.Errorf(fault.ClassOf(left[0].why), "proof of %.40q in the ledger: %w", left[0].Place.Holder, left[0].why)
	}
	out := make([]Kept, 0, len(all))
	for i := range all {
		out = append(out, all[i].Kept)
	}
	if told > 0 {
		return out, fault.Hint(fault.Errorf(fault.Verify, "%w: %d of %d lines", ErrTold, told, len(all)), "it was kept by a program of before proofs were; ask for new ones with 'keyrite share challenge'")
	}
	return out, nil
}

// changesShares says whether a statement changes whose proofs hold.
func changesShares(line []byte) (bool, error) {
	env, err := envelope.Parse(line)
	if err != nil {
		return false, err
	}
	var st charter.Statement
	err = jcs.Unmarshal(env.Payload, &st)
	return slices.Contains([]string{charter.TypePeople, charter.TypeEpoch, charter.TypeEpochAdopted}, st.Type), err
}

// holds says whether the proof holds under s, and remembers why not: what is wrong with
// it where its epoch was in force, rather than that it was not.
func (k *keptLine) holds(s *charter.State) bool {
	err := k.check(s)
	if fault.ClassOf(k.why) == fault.Policy {
		k.why = err
	}
	return err == nil
}

func (k *keptLine) check(s *charter.State) error {
	data, err := k.proof.Marshal()
	if err != nil {
		return err
	}
	p, err := VerifyProof(data, s, k.At)
	if err != nil {
		return err
	}
	id, err := p.Challenge.ID()
	if err != nil {
		return err
	}
	if id != k.id || p.Place != k.Place {
		return fault.New(fault.Verify, "the line is about another proof than it has")
	}
	k.Purpose = p.Challenge.Purpose
	return nil
}
