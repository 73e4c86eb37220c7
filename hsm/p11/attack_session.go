package p11

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/keyspec"
)

// sessionCases ask how objects and sessions come and go: a ceremony that ends
// early leans on it that nothing stays.
var sessionCases = []attack{
	{"session-object-dies", "find a key born as a session object after its session was closed", "gone", sessionObjectDies},
	{"destroy", "use a stored key after C_DestroyObject", "destroyed, not found again, and refused", destroyed},
	{"read-only", "make a token object in a session that is for reading only", "refused", readOnly},
	{"import-pair", "import a private key under an id and label of ours and have it look native", "refused, or LOCAL, ALWAYS_SENSITIVE and NEVER_EXTRACTABLE read false", importPair},
	{"movable-weak", "wrap a movable key under an imported RSA-512 key, or under DES", "refused", movableWeak},
}

func sessionObjectDies(l *lab) (outcome, error) {
	if l.near >= tokenOnly {
		return outcome{false, "the token has no session objects"}, nil
	}
	sp := l.spec(keyspec.Sign, l.alg, true)
	if _, err := l.pair(sp); err != nil {
		return outcome{}, err
	}
	if err := l.reopen(); err != nil {
		return outcome{}, err
	}
	objs, err := l.inventory()
	if err != nil {
		return outcome{}, err
	}
	for _, o := range objs {
		if o.ID == sp.KeyID.String() {
			return outcome{false, "still there: " + o.Class}, nil
		}
	}
	return outcome{true, "gone"}, nil
}

func destroyed(l *lab) (outcome, error) {
	sp := l.spec(keyspec.Sign, l.alg, true)
	k, err := l.stored(sp)
	if err != nil {
		return outcome{}, err
	}
	for _, h := range slices.Backward(l.made) {
		if err := l.ctx.DestroyObject(l.h, h); err != nil {
			return outcome{false, "C_DestroyObject: " + reason(err)}, nil
		}
	}
	l.made = nil
	objs, err := l.inventory()
	if err != nil {
		return outcome{}, err
	}
	for _, o := range objs {
		if o.ID == sp.KeyID.String() {
			return outcome{false, "found again: " + o.Class}, nil
		}
	}
	o, err := refuses(l.rawSign(k.private))
	if o.pass {
		o.got = "not found again, signature " + o.got
	}
	return o, err
}

func readOnly(l *lab) (outcome, error) {
	h, err := l.ctx.OpenSession(l.slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return outcome{}, err
	}
	mine := l.h
	l.h = h
	_, err = l.pair(l.spec(keyspec.Sign, l.alg, false))
	l.h = mine
	o, e := refuses(err)
	return o, joined(e, l.ctx.CloseSession(h))
}

// importPair creates a private key whose value the attacker knows.
func importPair(l *lab) (outcome, error) {
	kind, values, err := l.known()
	if err != nil {
		return outcome{}, err
	}
	o, err := l.create(append([]keyspec.Attribute{
		attr("CKA_CLASS", "CKO_PRIVATE_KEY"), attr("CKA_PRIVATE", "true"),
		attr("CKA_SENSITIVE", "true"), attr("CKA_EXTRACTABLE", "false"), attr("CKA_SIGN", "true"),
	}, kind...), values...)
	if err != nil {
		return refuses(err)
	}
	as, err := l.read(o, []string{"CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE"})
	if err != nil {
		return outcome{}, err
	}
	for _, a := range as {
		if a.Value != "false" {
			return outcome{false, "imported, " + a.Name + " reads " + a.Value}, nil
		}
	}
	return outcome{true, "imported, all read false"}, nil
}

// known draws a key pair outside the token, of the kind that is attacked.
func (l *lab) known() ([]keyspec.Attribute, []*pkcs11.Attribute, error) {
	if l.alg == keyspec.ECDSAP256 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		raw, err := k.Bytes()
		// OID 1.2.840.10045.3.1.7, RFC 5480, Section 2.1.1.1
		return []keyspec.Attribute{attr("CKA_KEY_TYPE", "CKK_EC"), attr("CKA_EC_PARAMS", "06082a8648ce3d030107")},
			[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, raw)}, err
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	n := func(t uint, v *big.Int) *pkcs11.Attribute { return pkcs11.NewAttribute(t, v.Bytes()) }
	return []keyspec.Attribute{attr("CKA_KEY_TYPE", "CKK_RSA")}, []*pkcs11.Attribute{
		n(pkcs11.CKA_MODULUS, k.N), n(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(k.E))), n(pkcs11.CKA_PRIVATE_EXPONENT, k.D),
		n(pkcs11.CKA_PRIME_1, k.Primes[0]), n(pkcs11.CKA_PRIME_2, k.Primes[1]),
		n(pkcs11.CKA_EXPONENT_1, k.Precomputed.Dp), n(pkcs11.CKA_EXPONENT_2, k.Precomputed.Dq), n(pkcs11.CKA_COEFFICIENT, k.Precomputed.Qinv),
	}, nil
}

// weakModulus is a modulus of 512 bits, which anybody can factor.
func weakModulus() ([]byte, error) {
	p, err := rand.Prime(rand.Reader, 256)
	if err != nil {
		return nil, err
	}
	q, err := rand.Prime(rand.Reader, 256)
	if err != nil {
		return nil, err
	}
	return new(big.Int).Mul(p, q).Bytes(), nil
}

func movableWeak(l *lab) (outcome, error) {
	k, o, err := l.movable()
	if k == nil {
		return o, err
	}
	modulus, err := weakModulus()
	if err != nil {
		return outcome{}, err
	}
	var calls []call
	weak, err := l.create([]keyspec.Attribute{attr("CKA_CLASS", "CKO_PUBLIC_KEY"), attr("CKA_KEY_TYPE", "CKK_RSA"), attr("CKA_WRAP", "true")},
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, modulus), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{3}))
	if unable(err) {
		return outcome{}, err
	}
	if err == nil {
		for _, m := range []uint{pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_X_509} {
			calls = append(calls, call{nameOf(mechNames, uint64(m)) + " under RSA-512", func() error {
				_, err := l.ctx.WrapKey(l.h, mechanism(m, nil), weak, k.private)
				return err
			}})
		}
	}
	for _, d := range []struct{ gen, wrap uint }{{pkcs11.CKM_DES_KEY_GEN, pkcs11.CKM_DES_CBC_PAD}, {pkcs11.CKM_DES3_KEY_GEN, pkcs11.CKM_DES3_CBC_PAD}} {
		t, err := encodeAll([]keyspec.Attribute{attr("CKA_CLASS", "CKO_SECRET_KEY"), attr("CKA_TOKEN", "false"), attr("CKA_WRAP", "true")})
		if err != nil {
			return outcome{}, err
		}
		w, err := l.ctx.GenerateKey(l.h, mechanism(d.gen, nil), t)
		if unable(err) {
			return outcome{}, err
		}
		if err != nil {
			continue // no such key can be made: nothing to wrap with
		}
		l.made = append(l.made, w)
		calls = append(calls, call{nameOf(mechNames, uint64(d.wrap)), func() error {
			_, err := l.ctx.WrapKey(l.h, mechanism(d.wrap, make([]byte, 8)), w, k.private)
			return err
		}})
	}
	if len(calls) == 0 {
		return outcome{true, "no weak wrapping key can be made"}, nil
	}
	return allRefuse(calls)
}
