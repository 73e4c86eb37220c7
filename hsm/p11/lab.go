package p11

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// lab is where a module is attacked with keys that exist for one case only.
// Every object it makes carries the lab's tag and is destroyed after its case.
type lab struct {
	*session
	tag   keyspec.Tag
	loose []keyspec.Attribute // replaced in the sign templates, by tests only
	alg   keyspec.Algorithm   // of the keys that are attacked
	near  nearness            // how close to the templates the token makes keys
	n     uint64
	made  []pkcs11.ObjectHandle
	evil  *rsa.PrivateKey // of an attacker, made once
	dock  *dock           // the receiver key of the transport cases, nil before the first

	algorithms []keyspec.Algorithm // found good
}

// outcome is what a case saw.
type outcome struct {
	pass bool
	got  string
}

// attack is one case: what is tried and what has to happen.
type attack struct {
	id, title, expected string
	run                 func(*lab) (outcome, error)
}

// admit runs every case. It needs a session without keys, since some cases
// log out, which destroys session objects.
func (s *session) admit(b frame.AdmitBody) (*frame.Admission, error) {
	if len(s.keys) > 0 {
		return nil, faultf("admit", frame.KindUsage, "keys were made or used in this session; open another one")
	}
	tag, err := keyspec.NewTag()
	if err != nil {
		return nil, wrap("admit", "draw tag", err)
	}
	l := &lab{session: s, tag: tag, loose: b.Loose}
	if err := l.sweepOld(); err != nil {
		return nil, err
	}
	if err := l.measure(); err != nil {
		return nil, err
	}
	algorithms, err := algorithmCases(b.Algorithms)
	if err != nil {
		return nil, err
	}
	out := &frame.Admission{Loosened: len(b.Loose) > 0, Cases: []frame.Case{}}
	for _, set := range [][]attack{templateCases, algorithms, secrecyCases, freezeCases, usageCases, originCases, transportCases, secretCases, sessionCases, accessCases} {
		for _, a := range set {
			c, err := l.try(a)
			if err != nil {
				return nil, err
			}
			out.Cases = append(out.Cases, c)
		}
		if err := l.dropDock(); err != nil {
			return nil, err
		}
	}
	out.Algorithms, out.Templates = l.algorithms, templatesOf(out.Cases)
	out.Capabilities, err = s.capabilities()
	return out, err
}

// labPrefix begins the label of every object of the lab.
const labPrefix = "admission-"

// sweepOld destroys what a suite that was killed has left.
func (l *lab) sweepOld() error {
	all, err := l.all()
	if err != nil {
		return err
	}
	for _, o := range all {
		d, err := l.describe(o)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(d.Label, labPrefix) {
			continue
		}
		if err := l.ctx.DestroyObject(l.h, o); err != nil {
			return asFault("admit", "destroy "+d.Label+" of an earlier suite", err)
		}
	}
	return nil
}

// try runs one case and destroys what it made. An error inside a case fails
// the case; only a session that is no more ends the suite.
func (l *lab) try(a attack) (frame.Case, error) {
	o, err := a.run(l)
	if err != nil {
		if f := asFault("admit", a.id, err); f.Kind == frame.KindLost && f.Code != pkcs11.CKR_USER_NOT_LOGGED_IN {
			return frame.Case{}, err
		}
		o = outcome{false, "not decided: " + reason(err)}
	}
	for _, h := range slices.Backward(l.made) {
		if err := l.drop(h); err != nil {
			return frame.Case{}, err
		}
	}
	c := frame.Case{ID: a.id, Title: a.title, Expected: a.expected, Got: o.got, Pass: o.pass}
	if err := l.reopen(); err != nil {
		return c, err
	}
	return c, l.loginAgain()
}

// loginAgain logs in where a case, or a module that has its own idea of sessions,
// ended the login.
func (l *lab) loginAgain() error {
	i, err := l.ctx.GetSessionInfo(l.h)
	if err != nil {
		return asFault("admit", "C_GetSessionInfo", err)
	}
	if i.State == pkcs11.CKS_RW_USER_FUNCTIONS {
		return nil
	}
	return l.login(pkcs11.CKU_USER, l.pin, l.cut)
}

// drop destroys an object of a case, which may be gone; the case "debris" looks
// for what stayed. Only a token that is not able ends the suite.
func (l *lab) drop(h pkcs11.ObjectHandle) error {
	if err := l.ctx.DestroyObject(l.h, h); unable(err) {
		return asFault("admit", "C_DestroyObject", err)
	}
	return nil
}

// reason gives the CKR_ name of an error, or its text.
func reason(err error) string {
	var code pkcs11.Error
	var f *frame.Fault
	switch {
	case errors.As(err, &code):
		return codeName(code)
	case errors.As(err, &f) && f.Name != "":
		return f.Name
	}
	return err.Error()
}

// broken are answers that say nothing about a refusal: the token was not
// able, not unwilling.
var broken = []pkcs11.Error{
	pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY,
	pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED,
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_OPERATION_ACTIVE,
}

// unable says whether a call failed without a refusal by the token: it was not able, or
// something of ours failed before the token was asked, such as the counter of wrong
// PINs. Such a failure shows nothing.
func unable(err error) bool {
	if err == nil {
		return false
	}
	if code, ok := errors.AsType[pkcs11.Error](err); ok {
		return slices.Contains(broken, code)
	}
	f, ok := errors.AsType[*frame.Fault](err)
	return !ok || f.Code == 0 || slices.Contains(broken, pkcs11.Error(f.Code))
}

// refuses judges a call that must fail.
func refuses(err error) (outcome, error) {
	if err == nil {
		return outcome{false, "allowed"}, nil
	}
	if unable(err) {
		return outcome{}, err
	}
	return outcome{true, "refused: " + reason(err)}, nil
}

// refusedAs passes a case that ends early, since what it needs is refused already.
func refusedAs(text string, err error) (outcome, error) {
	if _, err := refuses(err); err != nil {
		return outcome{}, err
	}
	return outcome{true, text + reason(err)}, nil
}

// allRefuse judges several calls that must all fail; the first that does not says
// what went through.
func allRefuse(calls []call) (outcome, error) {
	var got []string
	for _, c := range calls {
		o, err := refuses(c.do())
		if err != nil {
			return outcome{}, fmt.Errorf("%s: %w", c.name, err)
		}
		if !o.pass {
			return outcome{false, c.name + " allowed"}, nil
		}
		if r := strings.TrimPrefix(o.got, "refused: "); !slices.Contains(got, r) {
			got = append(got, r)
		}
	}
	return outcome{true, "refused: " + strings.Join(got, ", ")}, nil
}

type call struct {
	name string
	do   func() error
}

func attr(name, value string) keyspec.Attribute { return keyspec.Attribute{Name: name, Value: value} }

// with replaces or adds attributes.
func with(base []keyspec.Attribute, extra ...keyspec.Attribute) []keyspec.Attribute {
	out := slices.Clone(base)
	for _, x := range extra {
		if i := slices.IndexFunc(out, func(a keyspec.Attribute) bool { return a.Name == x.Name }); i >= 0 {
			out[i] = x
		} else {
			out = append(out, x)
		}
	}
	return out
}

// spec names a new throw-away key.
func (l *lab) spec(t keyspec.Template, alg keyspec.Algorithm, sessionObject bool) keyspec.Spec {
	l.n++
	return keyspec.Spec{
		Template: t, Algorithm: alg, KeyID: keyspec.NewKeyID(l.tag, l.n),
		Label: fmt.Sprintf("%s%d", labPrefix, l.n), SessionObject: sessionObject,
	}
}

// pair makes a key pair from a template, loosened where a test wants it. A token
// that does not take the whole template makes the nearest that it can: it is
// refused already, and what falls on it says how bad it is.
func (l *lab) pair(sp keyspec.Spec) (*key, error) { return l.make(sp, l.near) }

// make makes a key pair as near to its template as is asked for.
func (l *lab) make(sp keyspec.Spec, near nearness) (*key, error) {
	req := sp.Request()
	pubT, err := encodeAll(near.cut(req.Public))
	if err != nil {
		return nil, err
	}
	prvT, err := encodeAll(near.cut(with(req.Private, l.loose...)))
	if err != nil {
		return nil, err
	}
	m, _ := valueOf(mechNames, sp.GenerateMechanism())
	pub, prv, err := l.ctx.GenerateKeyPair(l.h, []*pkcs11.Mechanism{pkcs11.NewMechanism(uint(m), nil)}, pubT, prvT)
	if err != nil {
		return nil, err
	}
	l.made = append(l.made, pub, prv)
	return &key{private: prv, public: pub, algorithm: sp.Algorithm, born: sp.SessionObject}, nil
}

// signKey makes the key that most cases attack.
func (l *lab) signKey() (*key, error) {
	return l.pair(l.spec(keyspec.Sign, l.alg, true))
}

// stored makes a pair and copies it into the token, as SEALING does.
func (l *lab) stored(sp keyspec.Spec) (*key, error) {
	k, err := l.pair(sp)
	if err != nil {
		return nil, err
	}
	if l.near >= tokenOnly {
		return k, nil
	}
	n := *k
	if n.private, err = l.copy(k.private, keyspec.CopyRequest(true)...); err != nil {
		return nil, err
	}
	n.public, err = l.copy(k.public, keyspec.CopyRequest(false)...)
	return &n, err
}

func (l *lab) copy(o pkcs11.ObjectHandle, as ...keyspec.Attribute) (pkcs11.ObjectHandle, error) {
	t, err := encodeAll(as)
	if err != nil {
		return 0, err
	}
	c, err := l.ctx.CopyObject(l.h, o, t)
	if err == nil {
		l.made = append(l.made, c)
	}
	return c, err
}

func (l *lab) set(o pkcs11.ObjectHandle, as ...keyspec.Attribute) error {
	t, err := encodeAll(as)
	if err != nil {
		return err
	}
	return l.ctx.SetAttributeValue(l.h, o, t)
}

// secret makes a throw-away AES-256 session key; it can do nothing but what
// the extra attributes add.
func (l *lab) secret(extra ...keyspec.Attribute) (pkcs11.ObjectHandle, error) {
	sp := l.spec(keyspec.Sign, keyspec.ECDSAP256, true) // for id and label
	t, err := encodeAll(with([]keyspec.Attribute{
		attr("CKA_CLASS", "CKO_SECRET_KEY"), attr("CKA_KEY_TYPE", "CKK_AES"), attr("CKA_TOKEN", "false"),
		attr("CKA_PRIVATE", "true"), attr("CKA_LABEL", sp.Label), attr("CKA_ID", sp.KeyID.String()),
		attr("CKA_SENSITIVE", "true"), attr("CKA_EXTRACTABLE", "false"), attr("CKA_ENCRYPT", "false"),
		attr("CKA_DECRYPT", "false"), attr("CKA_WRAP", "false"), attr("CKA_UNWRAP", "false"),
		attr("CKA_SIGN", "false"), attr("CKA_VERIFY", "false"), attr("CKA_DERIVE", "false"),
	}, extra...))
	if err != nil {
		return 0, err
	}
	t = append(t, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32))
	o, err := l.ctx.GenerateKey(l.h, mechanism(pkcs11.CKM_AES_KEY_GEN, nil), t)
	if err == nil {
		l.made = append(l.made, o)
	}
	return o, err
}

// create imports an object, as an attacker with the user PIN would.
func (l *lab) create(as []keyspec.Attribute, raw ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	sp := l.spec(keyspec.Sign, keyspec.ECDSAP256, true)
	t, err := encodeAll(append(slices.Clone(as), attr("CKA_LABEL", sp.Label), attr("CKA_ID", sp.KeyID.String()), attr("CKA_TOKEN", "false")))
	if err != nil {
		return 0, err
	}
	o, err := l.ctx.CreateObject(l.h, append(t, raw...))
	if err == nil {
		l.made = append(l.made, o)
	}
	return o, err
}

func mechanism(m uint, param any) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, param)}
}

// rawSign signs a digest of zeros without any of our own checks.
func (l *lab) rawSign(o pkcs11.ObjectHandle) error {
	in, err := l.signInit(o)
	if err != nil {
		return err
	}
	_, err = l.ctx.Sign(l.h, in)
	return err
}

// signInit begins a signature and gives the digest of zeros as C_Sign takes it.
func (l *lab) signInit(o pkcs11.ObjectHandle) ([]byte, error) {
	mech, in, err := signing(l.alg, make([]byte, 32))
	if err != nil {
		return nil, err
	}
	return in, l.ctx.SignInit(l.h, mech, o)
}

// reopen replaces the session, so that an operation begun in a case does not
// disturb the next one. The new one is opened first: closing the last session
// would log out.
func (l *lab) reopen() error {
	if err := l.reopenKeeping(); err != nil {
		return err
	}
	l.made = nil // session objects die with their session
	return nil
}

// reopenKeeping is reopen within a case; token objects stay to be destroyed.
func (l *lab) reopenKeeping() error {
	h, err := l.ctx.OpenSession(l.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return asFault("admit", "C_OpenSession", err)
	}
	old := l.h
	l.h = h
	return wrap("admit", "C_CloseSession", l.ctx.CloseSession(old))
}

// capabilities lists what the token offers, by name.
func (s *session) capabilities() ([]string, error) {
	ms, err := s.ctx.GetMechanismList(s.slot)
	if err != nil {
		return nil, asFault("admit", "C_GetMechanismList", err)
	}
	out := make([]string, 0, len(ms))
	for _, m := range ms {
		out = append(out, nameOf(mechNames, uint64(m.Mechanism)))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// noise gives n random bytes.
func noise(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := rand.Read(b)
	return b, err
}
