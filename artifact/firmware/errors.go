package firmware

import "keyrite/artifact/fault"

// Classes of refusal; the words in the names are the expect: words of the
// vectors.
var (
	// ErrStatement says that a statement lacks something or contradicts itself.
	ErrStatement = fault.New(fault.Verify, "release statement is not valid")
	// ErrBundle says that a file is not a bundle as we write it.
	ErrBundle = fault.New(fault.Verify, "not a Sigstore bundle v0.3 with one DSSE signature by a named key")
	// ErrImage says that the image is not the one that was released.
	ErrImage = fault.New(fault.Verify, "image is not the one that was released")
	// ErrKRF says that a file is not laid out as a .krf.
	ErrKRF = fault.New(fault.Verify, "not a well-formed .krf")
	// ErrProof says that the release is not proven to be in the release log.
	ErrProof = fault.New(fault.Verify, "log proof does not hold")
	// ErrGone says that a release is signed by a key that gave way to another.
	ErrGone = fault.New(fault.Policy, "signed by a firmware key that has been replaced")
	// ErrProduct says that the key that signed a release is that of another
	// product.
	ErrProduct = fault.New(fault.Policy, "signed by the firmware key of another product")
	// ErrDomain says that an image starts like something that a key signs in
	// another domain.
	ErrDomain = fault.New(fault.Policy, "image begins like a message of another signing domain")
	// ErrEmpty says that an image has no bytes.
	ErrEmpty = fault.New(fault.Usage, "image is empty")
)
