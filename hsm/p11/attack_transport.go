package p11

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the one hash that SoftHSM takes in OAEP
	"errors"
	"strings"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/keyspec"
)

// transportCases ask whether a key that may travel travels only as it should. A
// token that cannot make such a key has nothing to attack: the case says so and
// passes, and no key of that kind will ever be made in it.
var transportCases = []attack{
	{"readback-movable", "a movable key, where the token offers it, shows every attribute as asked", "every attribute equal, or not offered", func(l *lab) (outcome, error) {
		return l.offered(l.readback(keyspec.Movable, l.alg, keyspec.Stored))
	}},
	{"movable-untrusted", "wrap a movable key under a key that no SO made trusted", "refused", movableUntrusted},
	{"movable-untie", "make a movable key wrappable under any key, by C_SetAttributeValue or C_CopyObject", "refused", movableUntie},
	{"claim-trusted-made", "make a wrapping key that claims TRUSTED, as a user, or make one trusted later", "refused, or it reads false", claimTrustedMade},
	{"readback-transport", "a receiver key, where the token offers it, shows every attribute as asked", "every attribute equal, or not offered", func(l *lab) (outcome, error) {
		d, o, err := l.receiver()
		if d == nil || err != nil {
			return o, err
		}
		st, err := l.state(d.key)
		if err != nil {
			return outcome{}, err
		}
		if err := d.spec.Verify(keyspec.Direct, st.Attributes); err != nil {
			return outcome{false, err.Error()}, nil
		}
		return outcome{true, "every attribute equal"}, nil
	}},
	{"transport-other-use", "decrypt or sign with a receiver key", "refused", transportOtherUse},
	{"transport-padding", "unwrap with a receiver key by PKCS#1 v1.5 padding, which answers guesses (Bardou 2012)", "refused", transportPadding},
	{"transport-loose", "unwrap with a receiver key into something that can be read, leave, decrypt, wrap or stay", "refused, while the right template is allowed", transportLoose},
	{"transport-kek-use", "encrypt, decrypt or wrap with a key that was unwrapped to unwrap (forged RFC 3394 blobs)", "refused", transportKEKUse},
	{"transport-origin", "a key that was unwrapped says that the token did not make it", "LOCAL, ALWAYS_SENSITIVE and NEVER_EXTRACTABLE read false", transportOrigin},
}

// offered turns the failure to make a key into a pass that says so.
func (l *lab) offered(o outcome, err error) (outcome, error) {
	if reason, not := strings.CutPrefix(o.got, "not made: "); not && err == nil {
		return outcome{true, "not offered: " + reason}, nil
	}
	return o, err
}

// movable makes a movable key in the token; without one it gives the outcome.
func (l *lab) movable() (*key, outcome, error) {
	if l.near != whole {
		return nil, outcome{true, "not offered: no whole template"}, nil
	}
	k, err := l.stored(l.spec(keyspec.Movable, l.alg, true))
	if err == nil {
		return k, outcome{}, nil
	}
	if o, e := refuses(err); e == nil {
		return nil, outcome{true, "not offered: " + strings.TrimPrefix(o.got, "refused: ")}, nil
	}
	return nil, outcome{}, err
}

func movableUntrusted(l *lab) (outcome, error) {
	k, o, err := l.movable()
	if k == nil {
		return o, err
	}
	w, err := l.secret(attr("CKA_WRAP", "true"))
	if err != nil {
		return outcome{}, err
	}
	calls := []call{}
	for _, m := range wrapMechs {
		calls = append(calls, call{nameOf(mechNames, uint64(m)), func() error {
			var iv any
			if m == pkcs11.CKM_AES_CBC_PAD {
				iv = make([]byte, 16)
			}
			_, err := l.ctx.WrapKey(l.h, mechanism(m, iv), w, k.private)
			return err
		}})
	}
	if t, err := l.trojan(); unable(err) {
		return outcome{}, err
	} else if err == nil {
		calls = append(calls, call{"imported RSA key", func() error {
			_, err := l.ctx.WrapKey(l.h, mechanism(pkcs11.CKM_RSA_AES_KEY_WRAP, &pkcs11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEPParams: *oaepParams()}), t, k.private)
			return err
		}})
	}
	return allRefuse(calls)
}

func movableUntie(l *lab) (outcome, error) {
	sp := l.spec(keyspec.Movable, l.alg, true)
	born, err := l.make(sp, whole)
	if unable(err) {
		return outcome{}, err
	}
	if err != nil {
		return l.offered(outcome{false, "not made: " + reason(err)}, nil)
	}
	untie := attr("CKA_WRAP_WITH_TRUSTED", "false")
	calls := []call{
		{"C_SetAttributeValue on a born key", func() error { return l.set(born.private, untie) }},
		{"C_CopyObject of a born key", func() error {
			_, err := l.copy(born.private, attr("CKA_TOKEN", "false"), untie)
			return err
		}},
	}
	k, o, err := l.movable()
	if k == nil {
		return o, err
	}
	calls = append(calls, call{"C_SetAttributeValue on a stored key", func() error { return l.set(k.private, untie) }},
		call{"C_CopyObject of a stored key", func() error {
			_, err := l.copy(k.private, attr("CKA_TOKEN", "false"), untie)
			return err
		}})
	return allRefuse(calls)
}

func claimTrustedMade(l *lab) (outcome, error) {
	reads := func(o pkcs11.ObjectHandle) (outcome, error) {
		as, err := l.read(o, []string{"CKA_TRUSTED"})
		if err != nil {
			return outcome{}, err
		}
		return outcome{as[0].Value != "true", "reads " + as[0].Value}, nil
	}
	if o, err := l.secret(attr("CKA_WRAP", "true"), attr("CKA_TRUSTED", "true")); unable(err) {
		return outcome{}, err
	} else if err == nil {
		if got, err := reads(o); err != nil || !got.pass {
			return got, err
		}
	}
	w, err := l.secret(attr("CKA_WRAP", "true"))
	if err != nil {
		return outcome{}, err
	}
	if err := l.set(w, attr("CKA_TRUSTED", "true")); err != nil {
		return refuses(err)
	}
	return reads(w)
}

// dock is the one receiver key of a suite: RSA keys take long to make.
type dock struct {
	spec keyspec.Spec
	key  *key
}

// receiver makes the receiver key of this suite, once; without one it gives the
// outcome of the case.
func (l *lab) receiver() (*dock, outcome, error) {
	if l.dock != nil {
		return l.dock, outcome{}, nil
	}
	sp := l.spec(keyspec.TransportUnwrap, keyspec.RSA3072PKCS1, false)
	k, err := l.make(sp, whole)
	if err != nil {
		if o, e := refuses(err); e == nil {
			return nil, outcome{true, "not offered: " + strings.TrimPrefix(o.got, "refused: ")}, nil
		}
		return nil, outcome{}, err
	}
	l.made = l.made[:len(l.made)-2] // it lives until the suite ends
	if k.pub, err = l.publicKey(k.public, k.algorithm); err != nil {
		return nil, outcome{}, err
	}
	l.dock = &dock{sp, k}
	return l.dock, outcome{}, nil
}

// dropDock destroys the receiver key of this suite.
func (l *lab) dropDock() error {
	if l.dock == nil {
		return nil
	}
	k := l.dock.key
	l.dock = nil
	return errors.Join(l.drop(k.private), l.drop(k.public))
}

func (d *dock) rsa() (*rsa.PublicKey, error) {
	pub, ok := d.key.pub.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("the receiver key is no RSA key")
	}
	return pub, nil
}

func transportOtherUse(l *lab) (outcome, error) {
	d, o, err := l.receiver()
	if d == nil || err != nil {
		return o, err
	}
	return allRefuse([]call{
		{"C_DecryptInit OAEP", func() error { return l.ctx.DecryptInit(l.h, oaep(), d.key.private) }},
		{"C_DecryptInit PKCS1", func() error { return l.ctx.DecryptInit(l.h, mechanism(pkcs11.CKM_RSA_PKCS, nil), d.key.private) }},
		{"C_SignInit PKCS1", func() error { return l.ctx.SignInit(l.h, mechanism(pkcs11.CKM_RSA_PKCS, nil), d.key.private) }},
		{"C_SignInit OAEP", func() error { return l.ctx.SignInit(l.h, oaep(), d.key.private) }},
	})
}

// unwrapTemplate is what a wrapping key is unwrapped as, changed by extra.
func (l *lab) unwrapTemplate(extra ...keyspec.Attribute) ([]*pkcs11.Attribute, error) {
	sp := l.spec(keyspec.Sign, keyspec.ECDSAP256, true) // for id and label
	req, _ := keyspec.Unwrapping(sp.Label, sp.KeyID)
	return encodeAll(with(req, extra...))
}

func transportPadding(l *lab) (outcome, error) {
	d, o, err := l.receiver()
	if d == nil || err != nil {
		return o, err
	}
	pub, err := d.rsa()
	if err != nil {
		return outcome{}, err
	}
	secret, err := noise(32)
	if err != nil {
		return outcome{}, err
	}
	//nolint:staticcheck // the attack is that a receiver key takes this old padding
	blob, err := rsa.EncryptPKCS1v15(rand.Reader, pub, secret)
	if err != nil {
		return outcome{}, err
	}
	t, err := l.unwrapTemplate()
	if err != nil {
		return outcome{}, err
	}
	_, err = l.ctx.UnwrapKey(l.h, mechanism(pkcs11.CKM_RSA_PKCS, nil), d.key.private, blob, t)
	return refuses(err)
}

// unwrapped sends a known secret through the receiver key, as an attacker who
// has its public half can.
func (l *lab) unwrapped(d *dock, extra ...keyspec.Attribute) (pkcs11.ObjectHandle, error) {
	pub, err := d.rsa()
	if err != nil {
		return 0, err
	}
	secret, err := noise(32)
	if err != nil {
		return 0, err
	}
	// SHA-1: the one hash that SoftHSM takes here, see oaep.
	blob, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, secret, nil) //nolint:gosec // OAEP does not need collision resistance
	if err != nil {
		return 0, err
	}
	t, err := l.unwrapTemplate(extra...)
	if err != nil {
		return 0, err
	}
	o, err := l.ctx.UnwrapKey(l.h, oaep(), d.key.private, blob, t)
	if err == nil {
		l.made = append(l.made, o)
	}
	return o, err
}

func transportLoose(l *lab) (outcome, error) {
	d, o, err := l.receiver()
	if d == nil || err != nil {
		return o, err
	}
	if _, err := l.unwrapped(d); err != nil {
		return outcome{false, "the right template is refused too: " + reason(err)}, nil
	}
	opposite := map[string]string{"true": "false", "false": "true"}
	var calls []call
	for _, a := range keyspec.UnwrapRules() {
		calls = append(calls, call{a.Name + "=" + opposite[a.Value], func() error {
			_, err := l.unwrapped(d, attr(a.Name, opposite[a.Value]))
			return err
		}})
	}
	return allRefuse(calls)
}

func transportKEKUse(l *lab) (outcome, error) {
	d, o, err := l.receiver()
	if d == nil || err != nil {
		return o, err
	}
	kek, err := l.unwrapped(d)
	if err != nil {
		return outcome{}, err
	}
	victim, err := l.secret(attr("CKA_EXTRACTABLE", "true"))
	if err != nil {
		return outcome{}, err
	}
	iv := make([]byte, 16)
	return allRefuse([]call{
		{"C_EncryptInit", func() error { return l.ctx.EncryptInit(l.h, mechanism(pkcs11.CKM_AES_ECB, nil), kek) }},
		{"C_DecryptInit", func() error { return l.ctx.DecryptInit(l.h, mechanism(pkcs11.CKM_AES_CBC, iv), kek) }},
		{"C_WrapKey", func() error {
			_, err := l.ctx.WrapKey(l.h, wrapPad(), kek, victim)
			return err
		}},
		{"C_UnwrapKey by another mechanism", func() error {
			t, err := l.unwrapTemplate()
			if err != nil {
				return nil
			}
			_, err = l.ctx.UnwrapKey(l.h, mechanism(pkcs11.CKM_AES_KEY_WRAP, nil), kek, make([]byte, 40), t)
			return err
		}},
		{"C_CopyObject with ENCRYPT", func() error {
			_, err := l.copy(kek, attr("CKA_ENCRYPT", "true"))
			return err
		}},
	})
}

func transportOrigin(l *lab) (outcome, error) {
	d, o, err := l.receiver()
	if d == nil || err != nil {
		return o, err
	}
	kek, err := l.unwrapped(d)
	if err != nil {
		return outcome{}, err
	}
	as, err := l.read(kek, []string{"CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE"})
	if err != nil {
		return outcome{}, err
	}
	for _, a := range as {
		if a.Value == "true" {
			return outcome{false, a.Name + " reads true"}, nil
		}
	}
	return outcome{true, "all read false"}, nil
}
