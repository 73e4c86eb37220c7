package p11

import (
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// nearness is how close to the templates a token makes keys. Only whole is good
// enough for a real key; the others keep the attacks going on a token that is
// refused, so that its report says what else is wrong with it.
type nearness int

const (
	whole     nearness = iota
	plain              // without what PKCS#11 2.20 and later brought
	tokenOnly          // that, and no session objects
	bare               // that, and nothing said about uses that most tokens lack
	unmade             // not even so
)

// later are the attributes that some tokens do not know, rare those of uses that
// some do not have.
var (
	later = []string{"CKA_WRAP_WITH_TRUSTED", "CKA_ALWAYS_AUTHENTICATE", "CKA_ALLOWED_MECHANISMS", keyspec.UnwrapTemplate, "CKA_DESTROYABLE", "CKA_COPYABLE"}
	rare  = []string{"CKA_SIGN_RECOVER", "CKA_VERIFY_RECOVER", "CKA_DERIVE", "CKA_MODIFIABLE", "CKA_WRAP", "CKA_UNWRAP", "CKA_ENCRYPT", "CKA_DECRYPT"}
)

// cut takes out of a template what the token does not take.
func (n nearness) cut(as []keyspec.Attribute) []keyspec.Attribute {
	out := slices.Clone(as)
	for i, a := range out {
		if a.Name == "CKA_TOKEN" && n >= tokenOnly {
			out[i].Value = "true"
		}
	}
	return slices.DeleteFunc(out, func(a keyspec.Attribute) bool {
		return n >= plain && slices.Contains(later, a.Name) || n >= bare && slices.Contains(rare, a.Name)
	})
}

// said tells the reader of a report what keys the other cases were tried on.
func (n nearness) said() string {
	switch n {
	case whole:
		return ""
	case plain:
		return "; made without " + strings.Join(later, ", ")
	case tokenOnly:
		return "; made as token objects only, without " + strings.Join(later, ", ")
	case bare:
		return "; made as token objects only, without " + strings.Join(slices.Concat(later, rare), ", ")
	}
	return "; made in no form at all"
}

// bases are the algorithms that cases attack, the first one that is offered.
var bases = []keyspec.Algorithm{keyspec.ECDSAP256, keyspec.RSA3072PKCS1, keyspec.RSA3072PSS}

// measure finds the algorithm and the nearest template that the token has.
func (l *lab) measure() error {
	l.alg = bases[0]
	for _, a := range bases {
		yes, err := l.offers(a)
		if err != nil {
			return err
		}
		if yes {
			l.alg = a
			break
		}
	}
	for l.near = whole; l.near < unmade; l.near++ {
		_, err := l.stored(l.spec(keyspec.Sign, l.alg, true))
		if unable(err) {
			return asFault("admit", "C_GenerateKeyPair", err)
		}
		for _, h := range slices.Backward(l.made) {
			if e := l.drop(h); e != nil {
				return e
			}
		}
		l.made = nil
		if err == nil {
			return nil
		}
	}
	return nil
}

// offers says whether the token lists what it takes to make and use a key.
func (l *lab) offers(a keyspec.Algorithm) (bool, error) {
	make := keyspec.Spec{Algorithm: a}.GenerateMechanism()
	ms, err := l.ctx.GetMechanismList(l.slot)
	if err != nil {
		return false, asFault("admit", "C_GetMechanismList", err)
	}
	use, _, err := signing(a, make32(a))
	if err != nil {
		return false, err
	}
	has := func(code uint64) bool {
		return slices.ContainsFunc(ms, func(m *pkcs11.Mechanism) bool { return uint64(m.Mechanism) == code })
	}
	gen, _ := valueOf(mechNames, make)
	return has(gen) && has(uint64(use[0].Mechanism)), nil
}

// make32 is an input of the length that an algorithm signs.
func make32(a keyspec.Algorithm) []byte {
	if a == keyspec.ECDSAP384 {
		return make([]byte, 48)
	}
	return make([]byte, 32)
}

// algorithmCases are one case for each algorithm asked for, or for each there is.
func algorithmCases(asked []keyspec.Algorithm) ([]attack, error) {
	all := keyspec.Algorithms()
	if len(asked) == 0 {
		asked = all
	}
	var out []attack
	for i, a := range asked {
		if !slices.Contains(all, a) || slices.Contains(asked[:i], a) {
			return nil, faultf("admit", frame.KindUsage, "algorithm %q is not known, or asked for twice", a)
		}
		out = append(out, attack{
			"algorithm-" + string(a), "an " + string(a) + " key, where the token offers it, shows every attribute as asked, signs, and does nothing else",
			"every attribute equal, verifies once, other uses refused; or not offered",
			func(l *lab) (outcome, error) { return l.algorithm(a) },
		})
	}
	return out, nil
}

// algorithm makes, stores and uses a key of an algorithm. A token that refuses to
// has nothing to attack and is not admitted for it; one that makes another key
// than it says fails.
func (l *lab) algorithm(a keyspec.Algorithm) (outcome, error) {
	yes, err := l.offers(a)
	if err != nil {
		return outcome{}, err
	}
	if !yes {
		return outcome{true, "not offered"}, nil
	}
	sp := l.spec(keyspec.Sign, a, true)
	k, err := l.make(sp, whole)
	if err != nil {
		return refusedAs("not offered: ", err)
	}
	n := *k
	if n.private, err = l.copy(k.private, keyspec.CopyRequest(true)...); err == nil {
		n.public, err = l.copy(k.public, keyspec.CopyRequest(false)...)
	}
	if err != nil {
		return refusedAs("not offered, for it cannot be stored: ", err)
	}
	state, err := l.state(&n)
	if err != nil {
		return outcome{}, err
	}
	if err := sp.Verify(keyspec.Stored, state.Attributes); err != nil {
		return outcome{false, err.Error()}, nil
	}
	n.algorithm = a
	o, err := l.signsFor(&n, n.private)
	if err != nil {
		return refusedAs("not offered, for it does not sign: ", err)
	}
	if !o.pass {
		return o, nil
	}
	if o, err = l.otherUses(&n); err == nil && o.pass {
		l.algorithms = append(l.algorithms, a)
	}
	return o, err
}

// otherUses tries with a signing key whatever its template does not name.
func (l *lab) otherUses(k *key) (outcome, error) {
	if err := l.reopenKeeping(); err != nil {
		return outcome{}, err
	}
	init := func(name string, f func() error) call { return call{name, f} }
	var calls []call
	for _, m := range []uint{pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_PKCS_PSS, pkcs11.CKM_RSA_X_509, pkcs11.CKM_ECDSA_SHA256, pkcs11.CKM_SHA256_RSA_PKCS} {
		if mech, _, err := signing(k.algorithm, make32(k.algorithm)); err == nil && mech[0].Mechanism == m {
			continue
		}
		var param any
		if m == pkcs11.CKM_RSA_PKCS_PSS {
			param = pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, 32)
		}
		calls = append(calls, init(fmt.Sprintf("C_SignInit 0x%x", m), func() error { return l.ctx.SignInit(l.h, mechanism(m, param), k.private) }))
	}
	for _, m := range []struct {
		name string
		mech []*pkcs11.Mechanism
	}{
		{"PKCS1", mechanism(pkcs11.CKM_RSA_PKCS, nil)}, {"OAEP", oaep()}, {"raw RSA", mechanism(pkcs11.CKM_RSA_X_509, nil)},
	} {
		calls = append(calls, init("C_DecryptInit "+m.name, func() error { return l.ctx.DecryptInit(l.h, m.mech, k.private) }))
	}
	o, err := allRefuse(calls)
	if o.pass {
		o.got = "every attribute equal, verifies once, other uses " + o.got
	}
	return o, err
}

// templatesOf lists the templates whose keys showed every attribute as asked.
func templatesOf(cases []frame.Case) []keyspec.Template {
	out := []keyspec.Template{}
	for _, x := range []struct {
		id string
		t  keyspec.Template
	}{
		{"readback-stored", keyspec.Sign},
		{"readback-root", keyspec.RootSign},
		{"readback-movable", keyspec.Movable},
		{"readback-transport", keyspec.TransportUnwrap},
		{"readback-seal", keyspec.Seal},
		{"readback-mac", keyspec.MAC},
	} {
		i := slices.IndexFunc(cases, func(c frame.Case) bool { return c.ID == x.id })
		if i >= 0 && cases[i].Pass && cases[i].Got == "every attribute equal" {
			out = append(out, x.t)
		}
	}
	return out
}
