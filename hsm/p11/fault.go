package p11

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
)

// codes sorts the return values of PKCS#11 into what a caller can do about
// them. What is not listed is the token's fault.
var codes = map[pkcs11.Error]struct{ kind, class string }{
	pkcs11.CKR_PIN_INCORRECT:                  {frame.KindPIN, "token"},
	pkcs11.CKR_PIN_INVALID:                    {frame.KindPIN, "token"},
	pkcs11.CKR_PIN_LEN_RANGE:                  {frame.KindPIN, "token"},
	pkcs11.CKR_PIN_EXPIRED:                    {frame.KindLocked, "token"},
	pkcs11.CKR_PIN_LOCKED:                     {frame.KindLocked, "token"},
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED:       {frame.KindPIN, "token"},
	pkcs11.CKR_USER_ALREADY_LOGGED_IN:         {frame.KindRefused, "token"},
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: {frame.KindRefused, "token"},
	pkcs11.CKR_DEVICE_MEMORY:                  {frame.KindStorage, "storage"},
	pkcs11.CKR_HOST_MEMORY:                    {frame.KindStorage, "storage"},
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:            {frame.KindRefused, "policy"},
	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:         {frame.KindRefused, "policy"},
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID:        {frame.KindRefused, "policy"},
	pkcs11.CKR_ATTRIBUTE_SENSITIVE:            {frame.KindRefused, "policy"},
	pkcs11.CKR_ACTION_PROHIBITED:              {frame.KindRefused, "policy"},
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:     {frame.KindRefused, "policy"},
	pkcs11.CKR_KEY_UNEXTRACTABLE:              {frame.KindRefused, "policy"},
	pkcs11.CKR_MECHANISM_INVALID:              {frame.KindRefused, "policy"},
	pkcs11.CKR_TEMPLATE_INCONSISTENT:          {frame.KindRefused, "policy"},
	pkcs11.CKR_TEMPLATE_INCOMPLETE:            {frame.KindRefused, "policy"},
	pkcs11.CKR_OBJECT_HANDLE_INVALID:          {frame.KindLost, "token"},
	pkcs11.CKR_SESSION_HANDLE_INVALID:         {frame.KindLost, "token"},
	pkcs11.CKR_SESSION_CLOSED:                 {frame.KindLost, "token"},
	pkcs11.CKR_USER_NOT_LOGGED_IN:             {frame.KindLost, "token"},
	pkcs11.CKR_OPERATION_ACTIVE:               {frame.KindLost, "token"}, // the one before was abandoned
	pkcs11.CKR_TOKEN_NOT_PRESENT:              {frame.KindLost, "token"},
	pkcs11.CKR_DEVICE_REMOVED:                 {frame.KindLost, "token"},
	pkcs11.CKR_DEVICE_ERROR:                   {frame.KindLost, "token"},
}

// classOf gives the exit class of each kind that is raised here and not by a
// token.
var classOf = map[string]string{
	frame.KindNotFound: "token", frame.KindAmbiguous: "policy", frame.KindExists: "exists",
	frame.KindLost: "token", frame.KindLocked: "token", frame.KindPIN: "token",
	frame.KindRefused: "policy", frame.KindStorage: "storage", frame.KindVerify: "verify",
	frame.KindUsage: "usage", frame.KindInternal: "unexpected", frame.KindWaiting: "token",
}

// codeName gives the CKR_ name of a return value.
func codeName(e pkcs11.Error) string {
	s := e.Error()
	if i := strings.LastIndex(s, "CKR_"); i >= 0 {
		return s[i:]
	}
	if e == pkcs11.CKR_ACTION_PROHIBITED { // the binding has no name for it
		return "CKR_ACTION_PROHIBITED"
	}
	return fmt.Sprintf("CKR_0x%X", uint(e))
}

// faultf makes a fault of a kind.
func faultf(op, kind, format string, args ...any) *frame.Fault {
	return &frame.Fault{Op: op, Kind: kind, Class: classOf[kind], Text: fmt.Sprintf(format, args...)}
}

// asFault turns any error into a fault; what says which call failed.
func asFault(op, what string, err error) *frame.Fault {
	if f, ok := errors.AsType[*frame.Fault](err); ok {
		return f
	}
	if code, ok := errors.AsType[pkcs11.Error](err); ok {
		f := &frame.Fault{Op: op, Code: uint64(code), Name: codeName(code), Kind: frame.KindInternal, Class: "token", Text: what}
		if c, ok := codes[code]; ok {
			f.Kind, f.Class = c.kind, c.class
		}
		return f
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS) {
		return faultf(op, frame.KindStorage, "%s: %v", what, err)
	}
	return faultf(op, frame.KindInternal, "%s: %v", what, err)
}

// wrap is asFault for use in return statements: nil stays nil.
func wrap(op, what string, err error) error {
	if err == nil {
		return nil
	}
	return asFault(op, what, err)
}
