package openrequest

import (
	"crypto/subtle"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/share"
	"keyrite/artifact/world"
)

// AnswerFormat names an answer.
const AnswerFormat = "keyrite/open-share/v1"

// ErrAnswer says that something is no answer to this request.
var ErrAnswer = fault.New(fault.Verify, "not an answer to this request")

// Answer is one holder's share for one attempt.
type Answer struct {
	Format  string            `json:"format"`
	Opening envelope.Envelope `json:"opening"` // share.Opening of the request's hash and attempt, by share key and person key
	Share   []byte            `json:"share"`   // keyrite/share/v1, encrypted to the request's recipient
	World   world.World       `json:"world"`
}

// NewAnswer joins the two parts that the share child made, and checks them as the
// host will.
func NewAnswer(r *Request, s *charter.State, opening *envelope.Envelope, file []byte) ([]byte, error) {
	a := &Answer{Format: AnswerFormat, Opening: *opening, Share: file, World: r.World}
	if _, err := a.Verify(r, s); err != nil {
		return nil, err
	}
	return jcs.Marshal(a)
}

// ParseAnswer reads an answer. It checks no signature and opens no share.
func ParseAnswer(data []byte) (*Answer, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "answer of more than %d bytes", MaxBytes)
	}
	var a Answer
	if err := jcs.Unmarshal(data, &a); err != nil {
		return nil, err
	}
	if a.Format != AnswerFormat || len(a.Share) == 0 || len(a.Opening.Signatures) == 0 {
		return nil, fault.New(fault.Verify, "answer is incomplete or of another format")
	}
	return &a, a.World.Check()
}

// opening is what the answer says that was signed; not believed before Verify.
func (a *Answer) opening() (*share.Opening, error) {
	var o share.Opening
	if err := jcs.Unmarshal(a.Opening.Payload, &o); err != nil {
		return nil, err
	}
	return &o, nil
}

// For reports whether the answer says that it is for the attempt. It is only to find
// the attempt; Verify decides.
func (a *Answer) For(attempt []byte) bool {
	o, err := a.opening()
	return err == nil && len(attempt) == AttemptBytes && subtle.ConstantTimeCompare(o.Nonce, attempt) == 1
}

// Verify checks that a holder of the epoch that is asked for gave his share for this very
// request, by share key and person key, and returns his place. What is encrypted is
// not looked at.
func (a *Answer) Verify(r *Request, s *charter.State) (share.Place, error) {
	if err := world.Match(s.World, a.World); err != nil {
		return share.Place{}, err
	}
	o, err := a.opening()
	if err != nil {
		return share.Place{}, err
	}
	if r.Vault != s.Vault || r.checkShares(s) != nil {
		return share.Place{}, fault.Errorf(fault.Policy, "%w: the charter went on since it was made", ErrRequest)
	}
	e, err := s.EpochAt(r.Safe, r.Epoch)
	if err != nil {
		return share.Place{}, err
	}
	want, key, err := share.PlaceIn(s, &e, o.Place.Holder)
	if err != nil {
		return share.Place{}, err
	}
	m, ok := s.People.Person(want.Holder)
	if !ok {
		return share.Place{}, fault.Errorf(fault.Policy, "%.40q is not in the charter", want.Holder)
	}
	hash, _, err := r.Hash()
	if err != nil {
		return share.Place{}, err
	}
	if err := share.VerifyOpening(&a.Opening, want, key, m.Person.PublicKey(), hash, r.Attempt); err != nil {
		return share.Place{}, fault.Errorf(fault.Verify, "%w: by %s: %w", ErrAnswer, want.Holder, err)
	}
	return want, nil
}

// Holder is whose answer it says it is, for messages about one that does not hold;
// "" where it says nobody's.
func (a *Answer) Holder() string {
	o, err := a.opening()
	if err != nil {
		return ""
	}
	return o.Place.Holder
}

// Marshal returns the answer file.
func (a *Answer) Marshal() ([]byte, error) { return jcs.Marshal(a) }
