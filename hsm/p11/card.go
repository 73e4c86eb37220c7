package p11

import (
	"crypto/ecdh"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// card answers the requests to a person's card or token, whose keys were not made
// by a ceremony: they are found by whatever CKA_ID the card gives them, and only
// those on P-256 that cannot leave it are seen at all.
func (s *session) card(q *frame.Request, a *frame.Response) (any, error) {
	switch q.Op {
	case frame.OpCardKeys:
		return s.cardKeys()
	case frame.OpCardMake:
		var m frame.CardMake
		if err := frame.Decode(q.Body, &m); err != nil {
			return nil, err
		}
		if err := s.cardMake(m); err != nil {
			return nil, err
		}
		return s.cardKeys()
	}
	var u frame.CardUse
	if err := frame.Decode(q.Body, &u); err != nil {
		return nil, err
	}
	k, err := s.cardKey(u.ID)
	if err != nil {
		return nil, err
	}
	if q.Op == frame.OpCardSign {
		a.Data, err = s.signWith(k, u.Input)
	} else {
		a.Data, err = s.derive(k, u.Input)
	}
	return nil, err
}

func (s *session) cardKey(id string) (*key, error) {
	if s.cards == nil {
		if _, err := s.cardKeys(); err != nil {
			return nil, err
		}
	}
	k, ok := s.cards[id]
	if !ok {
		return nil, faultf("find key", frame.KindNotFound, "the card has no P-256 key with id %s that cannot leave it", id)
	}
	return k, nil
}

// cardKeys lists the keys and keeps their handles.
func (s *session) cardKeys() ([]frame.CardKey, error) {
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	objects := map[string][]pkcs11.ObjectHandle{} // by class and id
	seen := map[pkcs11.ObjectHandle]frame.Object{}
	for _, o := range all {
		d, err := s.describe(o)
		if err != nil {
			return nil, err
		}
		seen[o] = d
		objects[d.Class+d.ID] = append(objects[d.Class+d.ID], o)
	}
	s.cards = map[string]*key{}
	out := []frame.CardKey{}
	for _, o := range all {
		d := seen[o]
		pubs := objects["CKO_PUBLIC_KEY"+d.ID]
		if d.Class != "CKO_PRIVATE_KEY" || d.ID == "" || len(objects[d.Class+d.ID]) != 1 || len(pubs) != 1 {
			continue // without a public half, or ambiguous
		}
		k, c, err := s.onCard(o, pubs[0], d)
		if err != nil {
			return nil, err
		}
		if k != nil {
			s.cards[d.ID] = k
			out = append(out, *c)
		}
	}
	slices.SortFunc(out, func(a, b frame.CardKey) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// onCard reads one pair; nil if it is of another kind, or could leave the card.
func (s *session) onCard(prv, pub pkcs11.ObjectHandle, d frame.Object) (*key, *frame.CardKey, error) {
	names := []string{"CKA_KEY_TYPE", "CKA_SENSITIVE", "CKA_EXTRACTABLE", "CKA_SIGN", "CKA_DERIVE", "CKA_ALWAYS_AUTHENTICATE"}
	as, err := s.read(prv, names)
	if err != nil {
		return nil, nil, err
	}
	is := map[string]string{}
	for _, a := range as {
		is[a.Name] = a.Value
	}
	if is["CKA_KEY_TYPE"] != "CKK_EC" || is["CKA_SENSITIVE"] != "true" || is["CKA_EXTRACTABLE"] != "false" {
		return nil, nil, nil
	}
	p, err := s.curvePoint(pub, keyspec.ECDSAP256)
	if err != nil {
		return nil, nil, nil //nolint:nilerr // on another curve: not one of ours
	}
	der, err := x509.MarshalPKIXPublicKey(p)
	if err != nil {
		return nil, nil, wrap("read key", "public key", err)
	}
	k := &key{private: prv, public: pub, algorithm: keyspec.ECDSAP256, pub: p, loginPerUse: is["CKA_ALWAYS_AUTHENTICATE"] == "true"}
	return k, &frame.CardKey{ID: d.ID, Label: d.Label, PublicKey: der, Sign: is["CKA_SIGN"] == "true", Derive: is["CKA_DERIVE"] == "true"}, nil
}

// derive is one ECDH with the other side's point (SEC 1, Section 3.3.1); the
// secret leaves the card, for what it opens is opened outside.
func (s *session) derive(k *key, point []byte) ([]byte, error) {
	const op = "derive"
	if _, err := ecdh.P256().NewPublicKey(point); err != nil {
		return nil, faultf(op, frame.KindUsage, "the other side's point is not on P-256")
	}
	t := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
	}
	m := mechanism(pkcs11.CKM_ECDH1_DERIVE, pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, point))
	o, err := s.ctx.DeriveKey(s.h, m, k.private, t)
	if err != nil {
		return nil, asFault(op, "C_DeriveKey", err)
	}
	z, err := s.attribute(o, pkcs11.CKA_VALUE)
	if derr := s.ctx.DestroyObject(s.h, o); err == nil {
		err = derr
	}
	if err != nil {
		return nil, asFault(op, "CKA_VALUE", err)
	}
	if len(z) != 32 {
		return nil, faultf(op, frame.KindVerify, "the card gave %d bytes", len(z))
	}
	return z, nil
}

// p256OID is prime256v1 as CKA_EC_PARAMS (RFC 5480, Section 2.1.1.1).
var p256OID = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// cardMake makes a person's two keys in the token, with one use each.
func (s *session) cardMake(m frame.CardMake) error {
	const op = "make keys"
	sign, err := hex.DecodeString(m.Sign)
	agree, err2 := hex.DecodeString(m.Derive)
	if err != nil || err2 != nil || len(sign) == 0 || len(agree) == 0 || m.Sign == m.Derive || keyspec.CheckLabel(m.Label) != nil {
		return faultf(op, frame.KindUsage, "two different ids in hex and a plain label are needed")
	}
	all, err := s.all()
	if err != nil {
		return err
	}
	for _, o := range all {
		d, err := s.describe(o)
		if err != nil {
			return err
		}
		if d.ID == m.Sign || d.ID == m.Derive {
			return faultf(op, frame.KindExists, "the token has an object with id %s", d.ID)
		}
	}
	for _, x := range []struct {
		id   []byte
		sign bool
	}{{sign, true}, {agree, false}} {
		if err := s.makePair(m.Label, x.id, x.sign); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) makePair(label string, id []byte, sign bool) error {
	pub := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256OID), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, sign),
	}
	prv := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, sign), pkcs11.NewAttribute(pkcs11.CKA_DERIVE, !sign),
	}
	_, _, err := s.ctx.GenerateKeyPair(s.h, mechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil), pub, prv)
	if err == nil {
		err = s.store.sync(s.token.Serial)
	}
	return wrap("make keys", "C_GenerateKeyPair", err)
}
