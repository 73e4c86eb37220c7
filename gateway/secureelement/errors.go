package secureelement

import (
	"errors"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/fault"
)

var (
	// ErrAbsent says that no TPM answers at the address.
	ErrAbsent = fault.New(fault.Token, "the secure element does not answer")
	// ErrUnborn says that the element lacks the device key or what birth writes.
	ErrUnborn = fault.New(fault.Token, "the secure element has not been through birth")
	// ErrKeyExists says that there is a device key already.
	ErrKeyExists = fault.New(fault.Exists, "the secure element has a device key already")
	// ErrLocked says that provisioning is over for this element.
	ErrLocked = fault.New(fault.Policy, "the secure element is locked: its birth is over")
	// ErrRefused says that the element itself refused.
	ErrRefused = fault.New(fault.Policy, "the secure element refused")
	// ErrRollback says that a version is below the one the element has seen.
	ErrRollback = fault.New(fault.Policy, "rolled back: the secure element has seen a higher version")
	// ErrContent says that an index does not hold what it should.
	ErrContent = fault.New(fault.Verify, "the secure element holds something else")
	// ErrTampered says that an index is not the one that birth defined: whoever
	// speaks to the TPM before its platform hierarchy is closed can remove an index
	// and put his own there, but not with our attributes.
	ErrTampered = fault.New(fault.Verify, "the secure element was tampered with")
	// ErrForeign says that somebody had the element before its birth.
	ErrForeign = fault.New(fault.Policy, "the secure element has a lockout authorisation that no birth set: use another, or clear it in the machine's firmware setup")
	// ErrAccount says that the policy key is not the one in the element.
	ErrAccount = fault.New(fault.Policy, "the account's policy key is not the one in the secure element")
)

// wrap gives an error of the TPM its class: what the TPM refuses is policy, what
// it cannot do is the token's fault.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	for _, rc := range []tpm2.TPMRC{
		tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth, tpm2.TPMRCPolicyFail, tpm2.TPMRCPolicy, tpm2.TPMRCNVLocked,
		tpm2.TPMRCNVAuthorization, tpm2.TPMRCSignature, tpm2.TPMRCAttributes, tpm2.TPMRCHierarchy, tpm2.TPMRCNVDefined, tpm2.TPMRCPolicyCC,
	} {
		if errors.Is(err, rc) {
			return fault.Errorf(fault.Policy, "%s: %w: %w", what, ErrRefused, err)
		}
	}
	return fault.Errorf(fault.Token, "%s: %w", what, err)
}
