// Package fault names the class of a failure, so that one table can turn it
// into an exit code and a caller can decide without reading text.
//
// It owns the list of classes and nothing else. Any error type, in any package,
// belongs to a class by having a method FaultClass() string; packages that must
// not import artifact (hsm, wire, internal) implement that method themselves.
// It must never import anything but the standard library.
//
// Compatibility: the words are part of the outside contract (they appear in
// JSON errors and in the expect: line of test vectors); they are only added to.
package fault

import (
	"errors"
	"fmt"
)

// Class is the kind of a failure as a caller needs to know it.
type Class string

// The classes, each with its exit code in internal/cli.
const (
	Unexpected  Class = "unexpected"  // a defect of ours or of the machine
	Usage       Class = "usage"       // flags, configuration or input that cannot be used
	Quorum      Class = "quorum"      // too few people, shares or approvals
	Void        Class = "void"        // the ceremony is void
	Token       Class = "token"       // token absent, not admitted, login refused, wrong passphrase
	Policy      Class = "policy"      // refused by charter, bundle or world
	Verify      Class = "verify"      // a signature, hash or share does not hold
	Sealed      Class = "sealed"      // sealed, locked or in use
	Exists      Class = "exists"      // the output is there already
	Quota       Class = "quota"       // the quota is spent
	Storage     Class = "storage"     // disk full, unreadable or not durable
	Unreachable Class = "unreachable" // peer does not answer
	Peer        Class = "peer"        // peer not authenticated
	Interrupted Class = "interrupted" // stopped by the user
)

type classified struct {
	class Class
	err   error
}

func (e *classified) Error() string      { return e.err.Error() }
func (e *classified) Unwrap() error      { return e.err }
func (e *classified) FaultClass() string { return string(e.class) }

type hinted struct {
	err  error
	hint string
}

func (e *hinted) Error() string     { return e.err.Error() }
func (e *hinted) Unwrap() error     { return e.err }
func (e *hinted) FaultHint() string { return e.hint }

// New returns an error of class c with a fixed text, for use as a sentinel.
func New(c Class, text string) error { return &classified{c, errors.New(text)} }

// Errorf formats like fmt.Errorf and gives the result class c, whatever class
// a wrapped error has.
func Errorf(c Class, format string, args ...any) error {
	return &classified{c, fmt.Errorf(format, args...)}
}

// Hint adds one sentence that tells the reader what to do. A nil err stays nil.
func Hint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

// ClassOf returns the outermost class in err's chain, Unexpected if it has
// none, and the empty class for nil.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	var c interface{ FaultClass() string }
	if errors.As(err, &c) {
		return Class(c.FaultClass())
	}
	return Unexpected
}

// HintOf returns the outermost hint in err's chain, or "".
func HintOf(err error) string {
	var h interface{ FaultHint() string }
	if errors.As(err, &h) {
		return h.FaultHint()
	}
	return ""
}
