package p11

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/keyspec"
)

// accessCases come last: they log out, which ends every session key.
var accessCases = []attack{
	{"second-login", "log in a second time", "CKR_USER_ALREADY_LOGGED_IN", func(l *lab) (outcome, error) {
		err := l.login(pkcs11.CKU_USER, l.pin, l.cut)
		if err == nil {
			return outcome{false, "allowed"}, nil
		}
		got := reason(err)
		return outcome{got == "CKR_USER_ALREADY_LOGGED_IN", got}, nil
	}},
	{"logged-out", "see or use a stored private key without a login", "invisible and refused", loggedOut},
	{"logged-out-generate", "make a private key without a login", "refused", func(l *lab) (outcome, error) {
		if err := l.logout(); err != nil {
			return outcome{}, err
		}
		_, err := l.pair(l.spec(keyspec.Sign, keyspec.ECDSAP256, true))
		o, err := refuses(err)
		return o, joined(err, l.login(pkcs11.CKU_USER, l.pin, l.cut))
	}},
	{"wrong-pin", "log in with a PIN that differs in one character", "CKR_PIN_INCORRECT", func(l *lab) (outcome, error) {
		wrong, err := l.wrongPIN()
		if err != nil {
			return outcome{}, err
		}
		defer wrong.Wipe()
		if err := l.logout(); err != nil {
			return outcome{}, err
		}
		err = l.login(pkcs11.CKU_USER, wrong, l.cut)
		o := outcome{false, "allowed"}
		if err != nil {
			o = outcome{reason(err) == "CKR_PIN_INCORRECT", reason(err)}
		}
		if !o.pass && err == nil {
			return o, nil
		}
		return o, l.login(pkcs11.CKU_USER, l.pin, l.cut)
	}},
	{"debris", "find an object of this suite in the token after all cases", "none, found with an empty template", func(l *lab) (outcome, error) {
		objs, err := l.inventory()
		if err != nil {
			return outcome{}, err
		}
		var left []string
		for _, o := range objs {
			if strings.HasPrefix(o.ID, hex.EncodeToString(l.tag[:])) || strings.HasPrefix(o.Label, labPrefix) {
				left = append(left, o.Label)
			}
		}
		if len(left) > 0 {
			return outcome{false, fmt.Sprintf("%d left: %s", len(left), strings.Join(left, ", "))}, nil
		}
		return outcome{true, "none"}, nil
	}},
}

func loggedOut(l *lab) (outcome, error) {
	sp := l.spec(keyspec.Sign, keyspec.ECDSAP256, false)
	k, err := l.pair(sp)
	if err != nil {
		return outcome{}, err
	}
	if err := l.logout(); err != nil {
		return outcome{}, err
	}
	o, err := l.withoutLogin(sp, k)
	if e := l.login(pkcs11.CKU_USER, l.pin, l.cut); e != nil {
		return outcome{}, e
	}
	// Handles are void after a logout; the keys are found again by their id.
	all, e := l.all()
	if e != nil {
		return outcome{}, e
	}
	for _, h := range all {
		d, e := l.describe(h)
		if e != nil {
			return outcome{}, e
		}
		if d.ID == sp.KeyID.String() {
			l.made = append(l.made, h)
		}
	}
	return o, err
}

func (l *lab) withoutLogin(sp keyspec.Spec, k *key) (outcome, error) {
	all, err := l.all()
	if err != nil {
		return outcome{}, err
	}
	for _, h := range all {
		d, err := l.describe(h)
		if err != nil {
			return outcome{}, err
		}
		if d.ID == sp.KeyID.String() && d.Class == "CKO_PRIVATE_KEY" {
			return outcome{false, "visible"}, nil
		}
	}
	o, err := refuses(l.rawSign(k.private))
	if o.pass {
		o.got = "invisible, signature " + o.got
	}
	return o, err
}
