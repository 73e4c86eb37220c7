package p11

import (
	"errors"
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
)

// An attack is withstood only where the token itself refused it: a token that was not
// able, or was not even asked, shows nothing, in whatever form the error came.
func TestRefusalIsTheTokensWord(t *testing.T) {
	for _, tc := range []struct {
		name    string
		err     error
		decided bool
		pass    bool
	}{
		{"allowed", nil, true, false},
		{"refused", pkcs11.Error(pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED), true, true},
		{"refused, wrapped", fmt.Errorf("copy: %w", pkcs11.Error(pkcs11.CKR_ACTION_PROHIBITED)), true, true},
		{"refused, as a fault", asFault("login", "C_Login", pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)), true, true},
		{"not able", pkcs11.Error(pkcs11.CKR_DEVICE_ERROR), false, false},
		{"not able, as a fault", asFault("login", "C_Login", pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)), false, false},
		{"not able, as a wrapped fault", fmt.Errorf("read: %w", asFault("read", "", pkcs11.Error(pkcs11.CKR_SESSION_CLOSED))), false, false},
		{"no PIN was tried", faultf("count PINs", frame.KindWaiting, "no PIN is tried for another 30 s"), false, false},
		{"no disk for the counter", faultf("count PINs", frame.KindStorage, "no space"), false, false},
		{"something of ours", errors.New("no such attribute"), false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, err := refuses(tc.err)
			if (err == nil) != tc.decided || o.pass != tc.pass {
				t.Errorf("got %+v, %v", o, err)
			}
			all, err := allRefuse([]call{{"it", func() error { return tc.err }}})
			if (err == nil) != tc.decided || all.pass != tc.pass {
				t.Errorf("among others: got %+v, %v", all, err)
			}
			if tc.err == nil {
				return // refusedAs is for errors
			}
			if o, err := refusedAs("not offered: ", tc.err); (err == nil) != tc.decided || o.pass != tc.pass {
				t.Errorf("as a reason to end early: got %+v, %v", o, err)
			}
		})
	}
}
