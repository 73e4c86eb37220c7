package hsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"keyrite/hsm/internal/frame"
)

type (
	// Health is the state of a token as a fresh process sees it.
	Health = frame.Health
	// HealthKey is a key that a token is expected to hold.
	HealthKey = frame.HealthKey
	// Finding is one thing that is wrong in a token.
	Finding = frame.Finding
	// FindingKind says what is wrong.
	FindingKind = frame.FindingKind
)

// What a health check finds.
const (
	FindingFile    = frame.FindingFile
	FindingHidden  = frame.FindingHidden
	FindingList    = frame.FindingList
	FindingHalf    = frame.FindingHalf
	FindingMissing = frame.FindingMissing
	FindingPair    = frame.FindingPair
	FindingOther   = frame.FindingOther
	FindingUse     = frame.FindingUse
)

// UnhealthyError says that a token is not sound.
type UnhealthyError struct {
	Token    TokenID
	Findings []Finding
}

func (e *UnhealthyError) Error() string {
	f := e.Findings[0]
	text := fmt.Sprintf("token %q is not sound: %s", e.Token.Label, f.Kind)
	if f.Key != "" {
		text += " " + f.Key
	}
	text += ": " + f.Text
	if n := len(e.Findings) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// FaultClass gives the word of the exit table.
func (e *UnhealthyError) FaultClass() string { return "verify" }

// FaultCases lists the findings for error.cases.
func (e *UnhealthyError) FaultCases() any { return e.Findings }

// Health examines a token from a fresh module process, beside whatever sessions of
// it are open: their processes may go on from memory with keys whose files are
// destroyed. Every object is listed, the files of a file token are read, and every
// key of ours is read whole and used once, on noise; a key that is expected
// must be there, with the label, public key and attributes given. Anything wrong is
// in the result and makes an UnhealthyError; any other error says that nobody knows.
func (s *Supervisor) Health(ctx context.Context, t TokenID, expected ...HealthKey) (_ *Health, err error) {
	sess, err := s.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := sess.Close(); err == nil {
			err = e
		}
	}()
	body, err := json.Marshal(frame.HealthBody{Keys: expected})
	if err != nil {
		return nil, err
	}
	a, err := sess.conn.call(ctx, frame.Request{Op: frame.OpHealth, Body: body}, "")
	if err != nil {
		return nil, err
	}
	var h Health
	if err := frame.Decode(a.Body, &h); err != nil {
		return nil, err
	}
	if h.Keys == nil || h.Findings == nil {
		return nil, errors.New("the module process gave no state of the token")
	}
	if len(h.Findings) > 0 {
		return &h, &UnhealthyError{Token: t, Findings: h.Findings}
	}
	return &h, nil
}
