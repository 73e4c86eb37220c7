// Package hsm is how every program of keyrite uses a PKCS#11 token. It is
// pure Go: the module is loaded by keyrite-hsmd, a process of its own, and
// this package sends it typed requests.
//
//	sup, err := hsm.Start(ctx, hsm.Config{Module: path})   // one per module
//	id, err := sup.InitToken(ctx, "work")                  // or sup.Find(ctx, "work")
//	sess, err := sup.Open(ctx, id)                         // module process + login
//	state, err := sess.Generate(ctx, hsm.GenerateSpec{...})
//	signer, err := sess.Signer(ctx, state.KeyID)           // crypto.Signer
//
// A Session may be used by any number of goroutines; its requests are served
// one after the other by one goroutine of the module process. A call whose
// context ends returns at once; if it was already under way the module process
// is killed and the session is lost, since a PKCS#11 call cannot be cancelled.
// Programs that run for long use a Pool, which outlives its module processes.
// Nothing that may have had an effect is ever tried a second time.
//
// The package must never hold a PIN, name a slot number, or trust what a token
// says of its own work: attributes are compared with the template and each
// signature is verified here before it is returned.
package hsm

import (
	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// The vocabulary that keys and tokens are described in.
type (
	// TokenID names a token: label and serial number, never a slot.
	TokenID = frame.Token
	// TokenInfo is what a token says about itself.
	TokenInfo = frame.TokenInfo
	// ModuleInfo is the identity of a loaded module.
	ModuleInfo = frame.ModuleInfo
	// Library is a further file that the module process has mapped.
	Library = frame.Library
	// Object is one line of a token's inventory.
	Object = frame.Object
	// Destroyed reports a tagged destruction.
	Destroyed = frame.Destroyed
	// GenerateSpec asks for a key.
	GenerateSpec = keyspec.Spec
	// Algorithm is the kind of a key.
	Algorithm = keyspec.Algorithm
	// Template names what a key may do.
	Template = keyspec.Template
	// KeyID is a CKA_ID: attempt tag and key.
	KeyID = keyspec.KeyID
	// Tag names the attempt that made an object.
	Tag = keyspec.Tag
	// Attribute is one CKA_ attribute as text.
	Attribute = keyspec.Attribute
	// AttributePair holds the attributes of both halves, or of a secret key.
	AttributePair = keyspec.Pair
	// Stage is born, stored or direct.
	Stage = keyspec.Stage
	// Epoch says which PINs are meant.
	Epoch = frame.Epoch
	// Case is the outcome of one attack.
	Case = frame.Case
)

// Values of the vocabulary.
const (
	ECDSAP256    = keyspec.ECDSAP256
	ECDSAP384    = keyspec.ECDSAP384
	Ed25519      = keyspec.Ed25519
	RSA3072PKCS1 = keyspec.RSA3072PKCS1
	RSA4096PKCS1 = keyspec.RSA4096PKCS1
	RSA3072PSS   = keyspec.RSA3072PSS
	RSA4096PSS   = keyspec.RSA4096PSS
	AES256       = keyspec.AES256
	HMACSHA256   = keyspec.HMACSHA256

	Sign            = keyspec.Sign
	RootSign        = keyspec.RootSign
	Movable         = keyspec.Movable
	TransportUnwrap = keyspec.TransportUnwrap
	Seal            = keyspec.Seal
	MAC             = keyspec.MAC

	Born    = keyspec.Born
	Stored  = keyspec.Stored
	Direct  = keyspec.Direct
	Moved   = keyspec.Moved
	Current = frame.Current
	Next    = frame.Next
)

// CompareAttributes reports every difference between both lists, as an error
// of class "verify".
func CompareAttributes(template, got []Attribute) error { return keyspec.Compare(template, got) }

// NewTag returns a random attempt tag.
func NewTag() (Tag, error) { return keyspec.NewTag() }

// NewKeyID returns the id of key number n of an attempt.
func NewKeyID(t Tag, n uint64) KeyID { return keyspec.NewKeyID(t, n) }
