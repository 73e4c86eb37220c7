package p11

import (
	"encoding/hex"
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
	{"second-login-wrong", "log in a second time with a wrong PIN, where a module may say that somebody is logged in and mean yes", "refused", func(l *lab) (outcome, error) {
		wrong, err := l.wrongPIN()
		if err != nil {
			return outcome{}, err
		}
		defer wrong.Wipe()
		return refuses(l.login(pkcs11.CKU_USER, wrong, l.cut))
	}},
	{"logged-out", "see or use a stored private key without a login", "invisible and refused", loggedOut},
	{"logged-out-generate", "make a private key without a login", "refused", func(l *lab) (outcome, error) {
		if err := l.logout(); err != nil {
			return outcome{}, err
		}
		_, err := l.pair(l.spec(keyspec.Sign, l.alg, true))
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
	{"debris", "find an object of this suite in the token after all cases", "none, found with an empty template", debris},
}

// debris looks for what the suite left, and destroys it: nothing may stay in a
// token because it was attacked, whatever comes of the case.
func debris(l *lab) (outcome, error) {
	var left []string
	for range 2 {
		all, err := l.all()
		if err != nil {
			return outcome{}, err
		}
		stays := 0
		for _, h := range all {
			d, err := l.describe(h)
			if err != nil {
				return outcome{}, err
			}
			if !strings.HasPrefix(d.ID, hex.EncodeToString(l.tag[:])) && !strings.HasPrefix(d.Label, labPrefix) {
				continue
			}
			stays++
			said := d.Label
			if err := l.ctx.DestroyObject(l.h, h); err != nil {
				said += ", which stays: " + reason(err)
			}
			left = append(left, said)
		}
		if stays == 0 {
			break
		}
	}
	if len(left) == 0 {
		return outcome{true, "none"}, nil
	}
	return outcome{false, "found " + strings.Join(left, "; ")}, nil
}

func loggedOut(l *lab) (outcome, error) {
	sp := l.spec(keyspec.Sign, l.alg, false)
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
