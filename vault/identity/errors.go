package identity

import (
	"errors"
	"fmt"
	"time"

	"keyrite/artifact/fault"
)

// Classes of refusal.
var (
	// ErrUnknown is all that a process is told that is not known, or did not prove who
	// it is. The cause is in the Refusal, for the audit.
	ErrUnknown = fault.New(fault.Peer, "who asks is not known here, or did not prove who it is")
	// ErrSealed says that nobody is known while the vault is sealed.
	ErrSealed = fault.New(fault.Sealed, "the vault is sealed")
	// ErrTooMany says that an identity, or all together, have as many tokens as they may.
	ErrTooMany = fault.New(fault.Quota, "too many tokens are out")
	// ErrNoToken says that a request about the caller's own token came without one.
	ErrNoToken = fault.New(fault.Usage, "the caller has no token: its connection stands for it")
	// ErrNotRenewed says that a token ends when it ends.
	ErrNotRenewed = fault.New(fault.Policy, "this token is not renewed")
)

// refusalTime is when a process that is not known gets its answer, counted from the
// beginning of its request: longer than any proof takes to judge (an RSA-4096
// signature takes under a millisecond), so that the time says nothing about the cause.
const refusalTime = 50 * time.Millisecond

// Refusal is the error for a process that is not known. Its text is that of
// ErrUnknown; what the audit keeps is in its methods.
type Refusal struct {
	identity, accessor string
	cause              error
}

// Error is the same for every cause.
func (r *Refusal) Error() string { return ErrUnknown.Error() }

// Unwrap gives ErrUnknown, never the cause: whoever prints the chain must not tell.
func (r *Refusal) Unwrap() error { return ErrUnknown }

// Cause says why, for the audit alone. It has no secret in it; text from outside is
// quoted.
func (r *Refusal) Cause() string { return r.cause.Error() }

// Identity is who the process proved or claimed to be, "" if that is not known.
func (r *Refusal) Identity() string { return r.identity }

// Accessor names the token that was shown, "" if there was none that is known.
func (r *Refusal) Accessor() string { return r.accessor }

func refuse(format string, args ...any) *Refusal {
	return &Refusal{cause: fmt.Errorf(format, args...)}
}

// about adds whom the refusal is about.
func (r *Refusal) about(identity, accessor string) *Refusal {
	r.identity, r.accessor = identity, accessor
	return r
}

// concerning says of a refusal what was shown, and by whom. Other errors, such as those
// of the store, stay as they are.
func concerning(err error, what, identity string) error {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return refuse("%s: %w", what, r.cause).about(identity, "")
	}
	return err
}

// settle returns a refusal at its time, and any other error at once.
func settle(began time.Time, err error) error {
	if _, ok := errors.AsType[*Refusal](err); ok {
		t := time.NewTimer(time.Until(began.Add(refusalTime)))
		defer t.Stop()
		<-t.C
	}
	return err
}
