package p11

import (
	"github.com/miekg/pkcs11"

	"keyrite/hsm/keyspec"
)

// secretCases ask whether seal and MAC keys are what their templates say. A token
// that cannot make such a key has nothing to attack.
var secretCases = []attack{
	{"readback-seal", "a seal key, where the token offers it, shows every attribute as asked", "every attribute equal, or not offered", func(l *lab) (outcome, error) {
		return l.readSecret(keyspec.Seal, keyspec.AES256)
	}},
	{"readback-mac", "a MAC key, where the token offers it, shows every attribute as asked", "every attribute equal, or not offered", func(l *lab) (outcome, error) {
		return l.readSecret(keyspec.MAC, keyspec.HMACSHA256)
	}},
	{"seal-other-use", "use a seal key as anything but AES-GCM, or take it out", "refused", func(l *lab) (outcome, error) {
		return l.misuse(keyspec.Seal, keyspec.AES256)
	}},
	{"mac-other-use", "use a MAC key as anything but HMAC, or take it out", "refused", func(l *lab) (outcome, error) {
		return l.misuse(keyspec.MAC, keyspec.HMACSHA256)
	}},
}

// secretKey makes a secret key from its whole template; without one it gives the
// outcome.
func (l *lab) secretKey(sp keyspec.Spec) (pkcs11.ObjectHandle, outcome, error) {
	t, err := encodeAll(with(sp.Request().Secret, l.loose...))
	if err != nil {
		return 0, outcome{}, err
	}
	m, _ := valueOf(mechNames, sp.GenerateMechanism())
	o, err := l.ctx.GenerateKey(l.h, mechanism(uint(m), nil), t)
	if err != nil {
		got, e := refusedAs("not offered: ", err)
		return 0, got, e
	}
	l.made = append(l.made, o)
	return o, outcome{}, nil
}

func (l *lab) readSecret(t keyspec.Template, a keyspec.Algorithm) (outcome, error) {
	sp := l.spec(t, a, false)
	o, not, err := l.secretKey(sp)
	if err != nil || not.pass {
		return not, err
	}
	st, err := l.secretState(&key{private: o, algorithm: a})
	if err != nil {
		return outcome{false, err.Error()}, nil
	}
	if err := sp.Verify(keyspec.Direct, st.Attributes); err != nil {
		return outcome{false, err.Error()}, nil
	}
	return outcome{true, "every attribute equal"}, nil
}

// misuse tries everything that the template does not allow.
func (l *lab) misuse(t keyspec.Template, a keyspec.Algorithm) (outcome, error) {
	o, not, err := l.secretKey(l.spec(t, a, false))
	if err != nil || not.pass {
		return not, err
	}
	victim, err := l.secret(attr("CKA_EXTRACTABLE", "true"))
	if err != nil {
		return outcome{}, err
	}
	iv := make([]byte, 16)
	calls := []call{
		{"C_EncryptInit AES_ECB", func() error { return l.ctx.EncryptInit(l.h, mechanism(pkcs11.CKM_AES_ECB, nil), o) }},
		{"C_DecryptInit AES_ECB", func() error { return l.ctx.DecryptInit(l.h, mechanism(pkcs11.CKM_AES_ECB, nil), o) }},
		{"C_DecryptInit AES_CBC", func() error { return l.ctx.DecryptInit(l.h, mechanism(pkcs11.CKM_AES_CBC, iv), o) }},
		{"C_SignInit SHA1_HMAC", func() error { return l.ctx.SignInit(l.h, mechanism(pkcs11.CKM_SHA_1_HMAC, nil), o) }},
		{"C_WrapKey", func() error {
			_, err := l.ctx.WrapKey(l.h, mechanism(pkcs11.CKM_AES_KEY_WRAP, nil), o, victim)
			return err
		}},
		{"C_CopyObject", func() error {
			_, err := l.copy(o, attr("CKA_TOKEN", "false"))
			return err
		}},
	}
	if t != keyspec.MAC {
		calls = append(calls, call{"C_SignInit SHA256_HMAC", func() error { return l.ctx.SignInit(l.h, mechanism(pkcs11.CKM_SHA256_HMAC, nil), o) }})
	}
	for _, x := range []struct{ name, value string }{
		{"CKA_WRAP", "true"}, {"CKA_UNWRAP", "true"}, {"CKA_DERIVE", "true"}, {"CKA_EXTRACTABLE", "true"}, {"CKA_SENSITIVE", "false"},
	} {
		calls = append(calls, call{"C_SetAttributeValue " + x.name, func() error { return l.set(o, attr(x.name, x.value)) }})
	}
	calls = append(calls, call{"read its value", func() error {
		v, err := l.attribute(o, pkcs11.CKA_VALUE)
		if err == nil && len(v) == 0 {
			return pkcs11.Error(pkcs11.CKR_ATTRIBUTE_SENSITIVE)
		}
		return err
	}})
	wrap, err := l.secret(attr("CKA_WRAP", "true"))
	if err != nil {
		return outcome{}, err
	}
	calls = append(calls, call{"C_WrapKey of it", func() error {
		_, err := l.ctx.WrapKey(l.h, mechanism(pkcs11.CKM_AES_KEY_WRAP, nil), wrap, o)
		return err
	}})
	return allRefuse(calls)
}
