package p11

import (
	"bytes"
	"encoding/hex"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/keyspec"
	"keyrite/internal/secmem"
)

// freezeCases try to change a key that is finished. Stored keys stay
// copyable where the token refuses to change that, so it matters most that a
// copy of an unmodifiable key cannot differ from it.
var freezeCases = []attack{
	{"frozen-set", "change any attribute of a stored key by C_SetAttributeValue", "refused", func(l *lab) (outcome, error) {
		k, err := l.stored(l.spec(keyspec.Sign, l.alg, true))
		if err != nil {
			return outcome{}, err
		}
		return allRefuse(l.changes("", func(a keyspec.Attribute) error { return l.set(k.private, a) }))
	}},
	{"frozen-copy", "change any attribute of a stored key by C_CopyObject", "refused", func(l *lab) (outcome, error) {
		k, err := l.stored(l.spec(keyspec.Sign, l.alg, true))
		if err != nil {
			return outcome{}, err
		}
		return allRefuse(l.changes("CKA_TOKEN", func(a keyspec.Attribute) error {
			_, err := l.copy(k.private, a)
			return err
		}))
	}},
	{"direct-copy", "copy a key that was born in the token", "refused", func(l *lab) (outcome, error) {
		k, err := l.pair(l.spec(keyspec.Sign, l.alg, false))
		if err != nil {
			return outcome{}, err
		}
		_, err = l.copy(k.private, attr("CKA_TOKEN", "false"))
		return refuses(err)
	}},
	{"frozen-wrap-set", "give a finished wrapping key DECRYPT by C_SetAttributeValue", "refused", func(l *lab) (outcome, error) {
		w, err := l.secret(attr("CKA_WRAP", "true"), attr("CKA_COPYABLE", "true"), attr("CKA_MODIFIABLE", "false"))
		if err != nil {
			return outcome{}, err
		}
		return refuses(l.set(w, attr("CKA_DECRYPT", "true")))
	}},
	{"frozen-wrap-copy", "give a finished wrapping key DECRYPT by C_CopyObject", "refused", func(l *lab) (outcome, error) {
		w, err := l.secret(attr("CKA_WRAP", "true"), attr("CKA_COPYABLE", "true"), attr("CKA_MODIFIABLE", "false"))
		if err != nil {
			return outcome{}, err
		}
		_, err = l.copy(w, attr("CKA_DECRYPT", "true"))
		return refuses(err)
	}},
	{"wrap-then-decrypt", "unwrap a key in the clear by decrypting it with the wrapping key (Clulow 2003)", "refused", wrapThenDecrypt},
}

// changes lists every attribute that an attacker would gain from, each as a
// call; skip names one that alone changes nothing.
func (l *lab) changes(skip string, do func(keyspec.Attribute) error) []call {
	var out []call
	for _, a := range []keyspec.Attribute{
		attr("CKA_MODIFIABLE", "true"), attr("CKA_EXTRACTABLE", "true"), attr("CKA_SENSITIVE", "false"),
		attr("CKA_PRIVATE", "false"), attr("CKA_DECRYPT", "true"), attr("CKA_UNWRAP", "true"),
		attr("CKA_DERIVE", "true"), attr("CKA_SIGN_RECOVER", "true"), attr("CKA_LABEL", "twin"),
		attr("CKA_ID", hex.EncodeToString([]byte("twin"))), attr("CKA_ALLOWED_MECHANISMS", "CKM_ECDSA,CKM_ECDSA_SHA256"),
		attr("CKA_ALWAYS_AUTHENTICATE", "false"),
	} {
		if a.Name != skip {
			out = append(out, call{a.Name, func() error { return do(a) }})
		}
	}
	return out
}

func wrapThenDecrypt(l *lab) (outcome, error) {
	w, err := l.secret(attr("CKA_WRAP", "true"))
	if err != nil {
		return outcome{}, err
	}
	victim, err := l.secret(attr("CKA_EXTRACTABLE", "true"))
	if err != nil {
		return outcome{}, err
	}
	blob, err := l.ctx.WrapKey(l.h, mechanism(pkcs11.CKM_AES_KEY_WRAP, nil), w, victim)
	if err != nil {
		return refusedAs("wrapping refused: ", err)
	}
	return allRefuse([]call{
		{"C_DecryptInit AES_ECB", func() error { return l.ctx.DecryptInit(l.h, mechanism(pkcs11.CKM_AES_ECB, nil), w) }},
		{"C_DecryptInit AES_CBC", func() error { return l.ctx.DecryptInit(l.h, mechanism(pkcs11.CKM_AES_CBC, make([]byte, 16)), w) }},
		{"C_UnwrapKey", func() error {
			t, err := encodeAll([]keyspec.Attribute{
				attr("CKA_CLASS", "CKO_SECRET_KEY"), attr("CKA_KEY_TYPE", "CKK_AES"), attr("CKA_TOKEN", "false"),
				attr("CKA_SENSITIVE", "false"), attr("CKA_EXTRACTABLE", "true"),
			})
			if err != nil {
				return nil
			}
			o, err := l.ctx.UnwrapKey(l.h, mechanism(pkcs11.CKM_AES_KEY_WRAP, nil), w, blob, t)
			if err == nil {
				l.made = append(l.made, o)
			}
			return err
		}},
	})
}

// usageCases use a key for something else than it is for.
var usageCases = []attack{
	{"usage-derive", "derive a secret with a signing key", "refused", func(l *lab) (outcome, error) {
		if l.alg != keyspec.ECDSAP256 {
			return outcome{true, "not offered: no elliptic curve"}, nil
		}
		k, err := l.signKey()
		if err != nil {
			return outcome{}, err
		}
		point, err := l.attribute(k.public, pkcs11.CKA_EC_POINT)
		if err != nil {
			return outcome{}, err
		}
		t, err := encodeAll([]keyspec.Attribute{
			attr("CKA_CLASS", "CKO_SECRET_KEY"), attr("CKA_KEY_TYPE", "CKK_GENERIC_SECRET"), attr("CKA_TOKEN", "false"),
			attr("CKA_SENSITIVE", "false"), attr("CKA_EXTRACTABLE", "true"),
		})
		if err != nil {
			return outcome{}, err
		}
		p := pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, point)
		o, err := l.ctx.DeriveKey(l.h, mechanism(pkcs11.CKM_ECDH1_DERIVE, p), k.private, append(t, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32)))
		if err == nil {
			l.made = append(l.made, o)
		}
		return refuses(err)
	}},
	{"usage-decrypt", "decrypt and unwrap with a signing key", "refused", func(l *lab) (outcome, error) {
		k, err := l.signKey()
		if err != nil {
			return outcome{}, err
		}
		return allRefuse([]call{
			{"C_DecryptInit", func() error { return l.ctx.DecryptInit(l.h, mechanism(pkcs11.CKM_RSA_PKCS, nil), k.private) }},
			{"C_UnwrapKey", func() error {
				t, err := encodeAll([]keyspec.Attribute{attr("CKA_CLASS", "CKO_SECRET_KEY"), attr("CKA_KEY_TYPE", "CKK_AES"), attr("CKA_TOKEN", "false")})
				if err != nil {
					return nil
				}
				_, err = l.ctx.UnwrapKey(l.h, mechanism(pkcs11.CKM_RSA_PKCS, nil), k.private, make([]byte, 64), t)
				return err
			}},
		})
	}},
	{"allowed-mechanisms", "use a key with a mechanism that is not in its ALLOWED_MECHANISMS", "refused, while a key without the list may", allowedMechanisms},
	{"always-auth", "sign with a root key without a login for this signature", "refused", func(l *lab) (outcome, error) {
		k, err := l.pair(l.spec(keyspec.RootSign, l.alg, true))
		if err != nil {
			return outcome{}, err
		}
		return refuses(l.rawSign(k.private))
	}},
	{"always-auth-wrong", "sign with a root key after a wrong PIN", "refused", alwaysAuthWrong},
	{"always-auth-once", "sign twice with a root key after one login", "one signature", alwaysAuthOnce},
}

func joined(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func allowedMechanisms(l *lab) (outcome, error) {
	try := func(extra ...keyspec.Attribute) (error, error) {
		k, err := l.secret(append(extra, attr("CKA_ENCRYPT", "true"))...)
		if err != nil {
			return nil, err
		}
		if err := l.ctx.EncryptInit(l.h, mechanism(pkcs11.CKM_AES_ECB, nil), k); err != nil {
			return err, nil
		}
		_, err = l.ctx.Encrypt(l.h, make([]byte, 16)) // ends the operation
		return nil, err
	}
	control, err := try()
	if err != nil {
		return outcome{}, err
	}
	if control != nil {
		return outcome{false, "AES_ECB does not work at all, so nothing is shown: " + reason(control)}, nil
	}
	refusal, err := try(attr("CKA_ALLOWED_MECHANISMS", "CKM_AES_CBC"))
	if err != nil {
		return outcome{}, err
	}
	return refuses(refusal)
}

// wrongPIN is a PIN of the right length that is not the token's.
func (l *lab) wrongPIN() (*secmem.Buffer, error) {
	b, err := secmem.New()
	if err != nil {
		return nil, err
	}
	right, err := l.limits.pinString(l.pin, l.cut)
	if err != nil {
		b.Wipe()
		return nil, err
	}
	err = b.Fill(func(p []byte) (int, error) {
		n := copy(p, right)
		p[0] ^= 1 // another printable character
		return n, nil
	})
	return b, err
}

func (l *lab) contextLogin(b *secmem.Buffer) error {
	p, err := l.limits.pinString(b, l.cut)
	if err != nil {
		return err
	}
	return l.store.guard(l.token.Serial, func() error {
		return l.ctx.Login(l.h, pkcs11.CKU_CONTEXT_SPECIFIC, p)
	})
}

func alwaysAuthWrong(l *lab) (outcome, error) {
	k, err := l.pair(l.spec(keyspec.RootSign, l.alg, true))
	if err != nil {
		return outcome{}, err
	}
	wrong, err := l.wrongPIN()
	if err != nil {
		return outcome{}, err
	}
	defer wrong.Wipe()
	in, err := l.signInit(k.private)
	if err != nil {
		return outcome{}, err
	}
	o, err := allRefuse([]call{
		{"C_Login", func() error { return l.contextLogin(wrong) }},
		{"C_Sign", func() error {
			_, err := l.ctx.Sign(l.h, in)
			return err
		}},
	})
	// A good login follows at once, so that no counter of the token stays low.
	if _, e := l.signInit(k.private); e == nil {
		err = joined(err, l.contextLogin(l.pin))
	} else if unable(e) {
		err = joined(err, e)
	}
	return o, err
}

func alwaysAuthOnce(l *lab) (outcome, error) {
	k, err := l.pair(l.spec(keyspec.RootSign, l.alg, true))
	if err != nil {
		return outcome{}, err
	}
	in, err := l.signInit(k.private)
	if err != nil {
		return outcome{}, err
	}
	if err := l.contextLogin(l.pin); err != nil {
		return outcome{}, err
	}
	if _, err := l.ctx.Sign(l.h, in); err != nil {
		return outcome{false, "no signature after the login: " + reason(err)}, nil
	}
	o, err := refuses(l.rawSign(k.private))
	if o.pass {
		o.got = "second signature " + o.got
	}
	return o, err
}

// originCases bring in a key and claim that the token made it.
var originCases = []attack{
	{"claim-local", "import a key that claims LOCAL", "refused, or it reads false", claiming("CKA_LOCAL")},
	{"claim-never-extractable", "import a key that claims NEVER_EXTRACTABLE", "refused, or it reads false", claiming("CKA_NEVER_EXTRACTABLE")},
	{"claim-always-sensitive", "import a key that claims ALWAYS_SENSITIVE", "refused, or it reads false", claiming("CKA_ALWAYS_SENSITIVE")},
	{"claim-trusted", "import a key that claims TRUSTED, as a user", "refused, or it reads false", claiming("CKA_TRUSTED")},
}

func claiming(name string) func(*lab) (outcome, error) {
	return func(l *lab) (outcome, error) {
		value := pkcs11.NewAttribute(pkcs11.CKA_VALUE, bytes.Repeat([]byte{1}, 32))
		base := []keyspec.Attribute{attr("CKA_CLASS", "CKO_SECRET_KEY"), attr("CKA_KEY_TYPE", "CKK_AES")}
		o, err := l.create(append(base, attr(name, "true")), value)
		if err != nil {
			return refuses(err)
		}
		as, err := l.read(o, []string{name})
		if err != nil {
			return outcome{}, err
		}
		return outcome{as[0].Value != "true", "imported, reads " + as[0].Value}, nil
	}
}
