package p11

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/keyspec"
)

// templateCases ask whether the token makes what the templates say.
var templateCases = []attack{
	{"readback-born", "a signing key born as a session object shows every attribute as asked", "every attribute equal", func(l *lab) (outcome, error) {
		return l.readback(keyspec.Sign, l.alg, keyspec.Born)
	}},
	{"readback-stored", "its copy in the token keeps them, is unmodifiable and still counts as local, always sensitive, never extractable", "every attribute equal", func(l *lab) (outcome, error) {
		return l.readback(keyspec.Sign, l.alg, keyspec.Stored)
	}},
	{"readback-root", "the same for a key with a login for each signature", "every attribute equal", func(l *lab) (outcome, error) {
		return l.readback(keyspec.RootSign, l.alg, keyspec.Stored)
	}},
	{"readback-direct", "a key born in the token is neither modifiable nor copyable", "every attribute equal", func(l *lab) (outcome, error) {
		return l.readback(keyspec.Sign, l.alg, keyspec.Direct)
	}},
	{"random", "the token's generator does not repeat itself", "two draws of 32 bytes differ", func(l *lab) (outcome, error) {
		a, err := l.ctx.GenerateRandom(l.h, 32)
		if err != nil {
			return outcome{}, err
		}
		b, err := l.ctx.GenerateRandom(l.h, 32)
		if err != nil {
			return outcome{}, err
		}
		if len(a) != 32 || len(b) != 32 || bytes.Equal(a, b) || bytes.Count(a, a[:1]) == 32 {
			return outcome{false, "repeated or short"}, nil
		}
		return outcome{true, "different"}, nil
	}},
	{"signature", "a signature of the stored key verifies with the public key of the born one, and not for another digest", "verifies once", signatureHolds},
}

func (l *lab) readback(t keyspec.Template, alg keyspec.Algorithm, st keyspec.Stage) (outcome, error) {
	sp := l.spec(t, alg, st != keyspec.Direct)
	k, err := l.make(sp, whole)
	if st == keyspec.Stored && err == nil {
		n := *k
		if n.private, err = l.copy(k.private, keyspec.CopyRequest(true)...); err == nil {
			n.public, err = l.copy(k.public, keyspec.CopyRequest(false)...)
		}
		k = &n
	}
	if unable(err) {
		return outcome{}, err
	}
	if err != nil {
		return outcome{false, "not made: " + reason(err) + l.near.said()}, nil
	}
	state, err := l.state(k)
	if err != nil {
		return outcome{}, err
	}
	if err := sp.Verify(st, state.Attributes); err != nil {
		return outcome{false, err.Error()}, nil
	}
	return outcome{true, "every attribute equal"}, nil
}

func signatureHolds(l *lab) (outcome, error) {
	sp := l.spec(keyspec.Sign, l.alg, true)
	k, err := l.pair(sp)
	if err != nil {
		return outcome{}, err
	}
	if k.pub, err = l.publicKey(k.public, k.algorithm); err != nil {
		return outcome{}, err
	}
	stored := k.private
	if l.near < tokenOnly {
		if stored, err = l.copy(k.private, keyspec.CopyRequest(true)...); err != nil {
			return outcome{}, err
		}
	}
	return l.signsFor(k, stored)
}

// signsFor signs with a handle and verifies with the public key of a pair.
func (l *lab) signsFor(k *key, with pkcs11.ObjectHandle) (outcome, error) {
	n := 32
	if k.algorithm == keyspec.ECDSAP384 {
		n = 48
	}
	digest, err := noise(n)
	if err != nil {
		return outcome{}, err
	}
	mech, in, err := signing(k.algorithm, digest)
	if err != nil {
		return outcome{}, err
	}
	if err := l.ctx.SignInit(l.h, mech, with); err != nil {
		return outcome{}, err
	}
	raw, err := l.ctx.Sign(l.h, in)
	if err != nil {
		return outcome{}, err
	}
	if _, err := checked(k, digest, raw); err != nil {
		return outcome{false, "does not verify"}, nil
	}
	digest[0] ^= 1
	if _, err := checked(k, digest, raw); err == nil {
		return outcome{false, "verifies for another digest"}, nil
	}
	return outcome{true, "verifies once"}, nil
}

// secrecyCases try to get a signing key out of the token.
var secrecyCases = []attack{
	{"read-value", "read the private value of a signing key", "refused or empty", func(l *lab) (outcome, error) {
		k, err := l.signKey()
		if err != nil {
			return outcome{}, err
		}
		v, err := l.attribute(k.private, pkcs11.CKA_VALUE)
		if err == nil && len(v) == 0 {
			return outcome{true, "empty"}, nil
		}
		return refuses(err)
	}},
	{"set-sensitive", "turn SENSITIVE off by C_SetAttributeValue", "refused", setting("CKA_SENSITIVE", "false")},
	{"set-extractable", "turn EXTRACTABLE on by C_SetAttributeValue", "refused", setting("CKA_EXTRACTABLE", "true")},
	{"copy-sensitive", "turn SENSITIVE off by C_CopyObject", "refused", copying("CKA_SENSITIVE", "false")},
	{"copy-extractable", "turn EXTRACTABLE on by C_CopyObject", "refused", copying("CKA_EXTRACTABLE", "true")},
	{"copy-public", "make a public object of a private one by C_CopyObject", "refused", copying("CKA_PRIVATE", "false")},
	{"wrap-out", "wrap a signing key under an AES key", "refused, while an extractable key can be wrapped", wrapOut},
	{"wrap-trojan", "wrap a signing key or a secret key under an imported RSA key whose private half the attacker has", "refused", wrapTrojan},
}

// setting tries to change an attribute of a born key, which is still
// modifiable.
func setting(name, value string) func(*lab) (outcome, error) {
	return func(l *lab) (outcome, error) {
		k, err := l.signKey()
		if err != nil {
			return outcome{}, err
		}
		return refuses(l.set(k.private, attr(name, value)))
	}
}

// copying tries the same on the way of a copy.
func copying(name, value string) func(*lab) (outcome, error) {
	return func(l *lab) (outcome, error) {
		k, err := l.signKey()
		if err != nil {
			return outcome{}, err
		}
		_, err = l.copy(k.private, attr("CKA_TOKEN", "false"), attr(name, value))
		return refuses(err)
	}
}

// wrapMechs wrap a private key under an AES key.
var wrapMechs = []uint{pkcs11.CKM_AES_KEY_WRAP_PAD, pkcs11.CKM_AES_KEY_WRAP, pkcs11.CKM_AES_CBC_PAD}

func wrapOut(l *lab) (outcome, error) {
	w, err := l.secret(attr("CKA_WRAP", "true"))
	if err != nil {
		return outcome{}, err
	}
	victim, err := l.signKey()
	if err != nil {
		return outcome{}, err
	}
	var calls []call
	for _, m := range wrapMechs {
		calls = append(calls, call{fmt.Sprintf("mechanism 0x%x", m), func() error {
			var iv any
			if m == pkcs11.CKM_AES_CBC_PAD {
				iv = make([]byte, 16)
			}
			_, err := l.ctx.WrapKey(l.h, mechanism(m, iv), w, victim.private)
			return err
		}})
	}
	o, err := allRefuse(calls)
	if err != nil || !o.pass {
		return o, err
	}
	// The control: the refusal must come from the key, not from a wrapping
	// mechanism that works for nobody.
	loose, err := l.secret(attr("CKA_EXTRACTABLE", "true"))
	if err != nil {
		return outcome{}, err
	}
	if _, err := l.ctx.WrapKey(l.h, mechanism(pkcs11.CKM_AES_KEY_WRAP, nil), w, loose); unable(err) {
		return outcome{}, err
	} else if err != nil {
		o.got += "; an extractable key is not wrapped either: " + reason(err)
	}
	return o, nil
}

func wrapTrojan(l *lab) (outcome, error) {
	o, err := l.trojan()
	if err != nil {
		return refusedAs("import refused: ", err)
	}
	victim, err := l.signKey()
	if err != nil {
		return outcome{}, err
	}
	// SoftHSM wraps no EC key under RSA whatever its attributes are, so a
	// secret key of the same template shows that they are what refuses.
	second, err := l.secret(l.loose...)
	if err != nil {
		return outcome{}, err
	}
	var calls []call
	for _, v := range []struct {
		name string
		key  pkcs11.ObjectHandle
	}{{"P-256", victim.private}, {"AES", second}} {
		for _, m := range []struct {
			name  string
			code  uint
			param any
		}{
			{"RSA_PKCS", pkcs11.CKM_RSA_PKCS, nil},
			{"RSA_PKCS_OAEP", pkcs11.CKM_RSA_PKCS_OAEP, oaepParams()},
			{"RSA_AES_KEY_WRAP", pkcs11.CKM_RSA_AES_KEY_WRAP, &pkcs11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEPParams: *oaepParams()}},
		} {
			calls = append(calls, call{v.name + " by " + m.name, func() error {
				_, err := l.ctx.WrapKey(l.h, mechanism(m.code, m.param), o, v.key)
				return err
			}})
		}
	}
	return allRefuse(calls)
}

// trojan imports an RSA public key whose private half the attacker has.
func (l *lab) trojan() (pkcs11.ObjectHandle, error) {
	if l.evil == nil {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return 0, err
		}
		l.evil = k
	}
	return l.create([]keyspec.Attribute{attr("CKA_CLASS", "CKO_PUBLIC_KEY"), attr("CKA_KEY_TYPE", "CKK_RSA"), attr("CKA_WRAP", "true")},
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, l.evil.N.Bytes()),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(l.evil.E)).Bytes()))
}
