package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Error is a refusal or a failure with its class, as artifact/fault names them.
type Error struct{ class, text string }

func (e *Error) Error() string { return e.text }

// FaultClass is the class for the exit table.
func (e *Error) FaultClass() string { return e.class }

var (
	// ErrAbsent says that no TPM answers at the address.
	ErrAbsent = &Error{"unreachable", "the TPM does not answer"}
	// ErrMissing says that there is no such index or key in this TPM.
	ErrMissing = &Error{"verify", "the TPM has nothing at this place: it was removed, the TPM was cleared, or it is another TPM"}
	// ErrForeign says that an index or key is not the one that was made.
	ErrForeign = &Error{"verify", "what the TPM has at this place is not what was made for this vault"}
	// ErrDefined says that there is an index or key at the place already.
	ErrDefined = &Error{"exists", "the TPM has something at this place already"}
	// ErrRefused says that the TPM refused: a wrong authorisation, or a policy that
	// does not hold.
	ErrRefused = &Error{"policy", "the TPM refused"}
	// ErrTorn says that the TPM does not hold what was written.
	ErrTorn = &Error{"token", "the TPM does not hold what was written"}
	// ErrFaulty says that a signature of the TPM does not hold.
	ErrFaulty = &Error{"token", "the TPM gave a signature that does not hold"}
)

// wrap gives an error of the TPM its class: what it refuses is policy, what it cannot
// do is the token's fault.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	for _, rc := range []tpm2.TPMRC{
		tpm2.TPMRCAuthFail, tpm2.TPMRCBadAuth, tpm2.TPMRCPolicyFail, tpm2.TPMRCPolicy, tpm2.TPMRCNVLocked,
		tpm2.TPMRCNVAuthorization, tpm2.TPMRCAttributes, tpm2.TPMRCHierarchy, tpm2.TPMRCPCRChanged, tpm2.TPMRCValue,
	} {
		if errors.Is(err, rc) {
			return fmt.Errorf("%s: %w: %w", what, ErrRefused, err)
		}
	}
	if errors.Is(err, tpm2.TPMRCNVDefined) {
		return fmt.Errorf("%s: %w: %w", what, ErrDefined, err)
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, &Error{"token", err.Error()})
}
