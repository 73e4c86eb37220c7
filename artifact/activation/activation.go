// Package activation is the file that brings a gateway into an account: where
// the access server is, the one-time activation key, and the fingerprint of the
// account's policy key.
//
// The account's administrator makes it and carries it to the gateway (USB, SD
// card, e-mail); gateway/enroll reads it. The fingerprint is why it must come
// another way than through the relay: it is what tells the gateway later that a
// policy is the account's. The file is worth nothing without an accepted birth
// key, and after its first use. It must never hold anything that permits.
//
// Compatibility: docs/formats/activation.md, version 1 is read for ever.
package activation

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"regexp"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Format names the file.
const Format = "keyrite/activation/v1"

// MaxBytes bounds the file.
const MaxBytes = 4096

// ErrActivation says that a file cannot be used.
var ErrActivation = fault.New(fault.Verify, "activation file is not valid")

var (
	keyRE  = regexp.MustCompile(`^[A-Z2-7]{26}$`)
	hexRE  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	hostRE = regexp.MustCompile(`^[A-Za-z0-9.:-]{1,253}$`)
	portRE = regexp.MustCompile(`^[1-9][0-9]{0,4}$`)
)

// Activation is the file.
type Activation struct {
	Access        string      `json:"access"`         // HOST:PORT of the access server
	ActivationKey string      `json:"activation_key"` // 26 of A-Z and 2-7
	Format        string      `json:"format"`
	PolicyKey     string      `json:"policy_key"` // hex SHA-256 of the policy key's SubjectPublicKeyInfo
	World         world.World `json:"world"`
}

// Check validates the members.
func (a *Activation) Check() error {
	host, port, err := net.SplitHostPort(a.Access)
	switch {
	case a.Format != Format:
		return fault.Errorf(fault.Verify, "%w: format %.40q", ErrActivation, a.Format)
	case err != nil || !hostRE.MatchString(host) || !portRE.MatchString(port):
		return fault.Errorf(fault.Verify, "%w: access server %.80q is not HOST:PORT", ErrActivation, a.Access)
	case !keyRE.MatchString(a.ActivationKey):
		return fault.Errorf(fault.Verify, "%w: activation key", ErrActivation) // never shown: it is still good
	case !hexRE.MatchString(a.PolicyKey):
		return fault.Errorf(fault.Verify, "%w: fingerprint of the policy key", ErrActivation)
	}
	return a.World.Check()
}

// Parse reads an activation file.
func Parse(data []byte) (*Activation, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "%w: %d bytes, more than %d", ErrActivation, len(data), MaxBytes)
	}
	var a Activation
	if err := jcs.Unmarshal(data, &a); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrActivation, err)
	}
	if err := a.Check(); err != nil {
		return nil, err
	}
	return &a, nil
}

// Marshal returns the file.
func (a *Activation) Marshal() ([]byte, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	return jcs.Marshal(a)
}

// Fingerprint is what PolicyKey holds for a key.
func Fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}
