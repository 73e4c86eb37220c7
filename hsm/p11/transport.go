package p11

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// oaep are the parameters of the one OAEP that all modules have: SoftHSM
// refuses any other hash than SHA-1, whose weakness does not matter here
// (RFC 8017, Section 7.1 needs no collision resistance).
func oaep() []*pkcs11.Mechanism { return mechanism(pkcs11.CKM_RSA_PKCS_OAEP, oaepParams()) }

func oaepParams() *pkcs11.OAEPParams {
	return pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil)
}

func wrapPad() []*pkcs11.Mechanism { return mechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil) }

// export wraps one movable key for a receiver, in a process of its own. As SO it
// brings in the receiver's public half and makes the wrapping key, both trusted,
// both session objects that no file ever holds; as user it checks them again,
// checks the key that leaves against its template, and wraps.
func (m *module) export(job frame.Job, st *store, pins frame.PINs) (*frame.Parcel, error) {
	const op = "export key"
	if job.Export == nil || job.Export.Key.Template != keyspec.Movable {
		return nil, faultf(op, frame.KindUsage, "only a movable key leaves a token")
	}
	pub, err := receiverKey(job.Export.Receiver)
	if err != nil {
		return nil, err
	}
	slot, err := m.find(job.Token)
	if err != nil {
		return nil, err
	}
	s, err := m.openSession(slot, st)
	if err != nil {
		return nil, err
	}
	if err := s.login(pkcs11.CKU_SO, pins[frame.SOPIN], job.CutCurrent); err != nil {
		return nil, err
	}
	tag, err := keyspec.NewTag()
	if err != nil {
		return nil, wrap(op, "draw tag", err)
	}
	x := &exporter{session: s, tag: tag}
	if err := x.prepare(pub); err != nil {
		return nil, err
	}
	if err := s.logout(); err != nil {
		return nil, err
	}
	if err := s.login(pkcs11.CKU_USER, pins[frame.UserPIN], job.CutCurrent); err != nil {
		return nil, err
	}
	return x.wrap(job.Export.Key)
}

// exporter holds the two objects that exist for one export.
type exporter struct {
	*session
	tag           keyspec.Tag
	receiver, kek pkcs11.ObjectHandle
}

const transportLabel = "transport"

func (x *exporter) ids() (receiver, kek keyspec.KeyID) {
	return keyspec.NewKeyID(x.tag, 1), keyspec.NewKeyID(x.tag, 2)
}

// prepare runs as SO.
func (x *exporter) prepare(pub *rsa.PublicKey) error {
	const op = "export key"
	rid, kid := x.ids()
	req, _ := keyspec.Receiver(transportLabel, rid)
	t, err := encodeAll(req)
	if err != nil {
		return wrap(op, "template", err)
	}
	t = append(t, pkcs11.NewAttribute(pkcs11.CKA_MODULUS, pub.N.Bytes()), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(pub.E)).Bytes()))
	if x.receiver, err = x.ctx.CreateObject(x.h, t); err != nil {
		return asFault(op, "bring in the receiver's key as trusted", err)
	}
	req, _ = keyspec.Wrapping(transportLabel, kid)
	if t, err = encodeAll(req); err != nil {
		return wrap(op, "template", err)
	}
	x.kek, err = x.ctx.GenerateKey(x.h, mechanism(pkcs11.CKM_AES_KEY_GEN, nil), t)
	return wrap(op, "make a trusted wrapping key", err)
}

// same reads an object back and compares it whole.
func (s *session) same(op string, o pkcs11.ObjectHandle, want []keyspec.Attribute) ([]keyspec.Attribute, error) {
	got, err := s.read(o, keyspec.Names(want))
	if err != nil {
		return nil, err
	}
	if err := keyspec.Compare(want, got); err != nil {
		return nil, faultf(op, frame.KindVerify, "%v", err)
	}
	return got, nil
}

// wrap runs as user, after the login of the SO has ended.
func (x *exporter) wrap(spec keyspec.Spec) (*frame.Parcel, error) {
	const op = "export key"
	rid, kid := x.ids()
	var p frame.Parcel
	_, want := keyspec.Receiver(transportLabel, rid)
	var err error
	if p.Receiver, err = x.same(op, x.receiver, want); err != nil {
		return nil, err
	}
	_, want = keyspec.Wrapping(transportLabel, kid)
	if p.Wrapping, err = x.same(op, x.kek, want); err != nil {
		return nil, err
	}
	k, err := x.lookup(spec.KeyID)
	if err != nil {
		return nil, err
	}
	st, err := x.state(k)
	if err != nil {
		return nil, err
	}
	if err := spec.Verify(keyspec.Stored, st.Attributes); err != nil {
		return nil, faultf(op, frame.KindVerify, "%v", err)
	}
	p.Key = *st
	if p.WrappedKEK, err = x.ctx.WrapKey(x.h, oaep(), x.receiver, x.kek); err != nil {
		return nil, asFault(op, "wrap the wrapping key for the receiver", err)
	}
	if p.WrappedKey, err = x.ctx.WrapKey(x.h, wrapPad(), x.kek, k.private); err != nil {
		return nil, asFault(op, "wrap the key", err)
	}
	for _, o := range []pkcs11.ObjectHandle{x.kek, x.receiver} {
		if err := x.ctx.DestroyObject(x.h, o); err != nil {
			return nil, asFault(op, "destroy what wrapped it", err)
		}
	}
	if len(p.WrappedKEK) == 0 || len(p.WrappedKey) == 0 {
		return nil, faultf(op, frame.KindVerify, "the token wrapped nothing")
	}
	return &p, nil
}

// receiverKey reads a receiver's public half: RSA-3072 with exponent 65537.
func receiverKey(der []byte) (*rsa.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, faultf("export key", frame.KindUsage, "the receiver's key: %v", err)
	}
	r, ok := pub.(*rsa.PublicKey)
	if !ok || r.N.BitLen() != 3072 || r.E != 65537 {
		return nil, faultf("export key", frame.KindUsage, "the receiver's key is not RSA-3072 with exponent 65537")
	}
	return r, nil
}

// receive takes a key out of its parcel into this token. Whatever fails, nothing
// of it stays here.
func (s *session) receive(b frame.ReceiveBody) (_ *frame.Arrival, err error) {
	const op = "receive key"
	if b.Key.Template != keyspec.Sign && b.Key.Template != keyspec.RootSign || !b.Key.SessionObject {
		return nil, faultf(op, frame.KindUsage, "a key arrives as a signing key, and as a session object first")
	}
	if err := b.Key.Check(); err != nil {
		return nil, faultf(op, frame.KindUsage, "%v", err)
	}
	// The binding panics on an empty blob.
	if len(b.WrappedKEK) == 0 || len(b.WrappedKey) == 0 {
		return nil, faultf(op, frame.KindUsage, "the parcel is empty")
	}
	if err := s.unused(b.Key); err != nil {
		return nil, err
	}
	var made []pkcs11.ObjectHandle
	defer func() {
		for _, o := range made {
			if e := s.ctx.DestroyObject(s.h, o); e != nil && err == nil {
				err = asFault(op, "destroy what unwrapped it", e)
			}
		}
		if err != nil {
			s.undo(b.Key.KeyID)
		}
	}()
	kek, unwrapped, err := s.unwrapKEK(b)
	if err != nil {
		return nil, err
	}
	made = append(made, kek)
	t, err := encodeAll(b.Key.Arriving())
	if err != nil {
		return nil, wrap(op, "template", err)
	}
	k := &key{born: true}
	if k.private, err = s.ctx.UnwrapKey(s.h, wrapPad(), kek, b.WrappedKey, t); err != nil {
		return nil, asFault(op, "unwrap the key", err)
	}
	made = append(made, k.private)
	if k.public, err = s.createPublic(b.Key, b.PublicKey); err != nil {
		return nil, err
	}
	made = append(made, k.public)
	st, err := s.arrive(b, k)
	if err != nil {
		return nil, err
	}
	return &frame.Arrival{Key: *st, Unwrapped: unwrapped}, nil
}

// unwrapKEK unwraps the wrapping key, which from here on may only unwrap.
func (s *session) unwrapKEK(b frame.ReceiveBody) (pkcs11.ObjectHandle, []keyspec.Attribute, error) {
	const op = "receive key"
	if b.Receiver.Template != keyspec.TransportUnwrap {
		return 0, nil, faultf(op, frame.KindUsage, "only a transport key unwraps")
	}
	r, err := s.lookup(b.Receiver.KeyID)
	if err != nil {
		return 0, nil, err
	}
	st, err := s.state(r)
	if err != nil {
		return 0, nil, err
	}
	if err := b.Receiver.Verify(keyspec.Direct, st.Attributes); err != nil {
		return 0, nil, faultf(op, frame.KindVerify, "%v", err)
	}
	req, want := keyspec.Unwrapping(transportLabel, b.Receiver.KeyID)
	t, err := encodeAll(req)
	if err != nil {
		return 0, nil, wrap(op, "template", err)
	}
	kek, err := s.ctx.UnwrapKey(s.h, oaep(), r.private, b.WrappedKEK, t)
	if err != nil {
		return 0, nil, asFault(op, "unwrap the wrapping key", err)
	}
	got, err := s.same(op, kek, want)
	if err != nil {
		_ = s.ctx.DestroyObject(s.h, kek)
		return 0, nil, err
	}
	return kek, got, nil
}

// createPublic makes the public half beside an unwrapped private one: PKCS#11
// wraps private halves only.
func (s *session) createPublic(spec keyspec.Spec, der []byte) (pkcs11.ObjectHandle, error) {
	const op = "receive key"
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return 0, faultf(op, frame.KindUsage, "public key: %v", err)
	}
	t, err := encodeAll(spec.ArrivingPublic())
	if err != nil {
		return 0, wrap(op, "template", err)
	}
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		raw, err := pub.Bytes()
		if err != nil {
			return 0, faultf(op, frame.KindUsage, "public key: %v", err)
		}
		if raw, err = asn1.Marshal(raw); err != nil {
			return 0, wrap(op, "public key", err)
		}
		t = append(t, pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, raw))
	case *rsa.PublicKey:
		t = append(t, pkcs11.NewAttribute(pkcs11.CKA_MODULUS, pub.N.Bytes()))
	default:
		return 0, faultf(op, frame.KindUsage, "no key of this kind can travel")
	}
	o, err := s.ctx.CreateObject(s.h, t)
	return o, wrap(op, "create the public half", err)
}

// arrive proves the unwrapped pair by a signature under the old public key,
// copies it into the token unmodifiable, and reads the copy back.
func (s *session) arrive(b frame.ReceiveBody, k *key) (*frame.KeyState, error) {
	const op = "receive key"
	id := b.Key.KeyID
	if _, err := s.adopt(id, k); err != nil {
		return nil, err
	}
	digest, err := noise(max(b.Key.Algorithm.Hash().Size(), 1))
	if err != nil {
		return nil, wrap(op, "draw digest", err)
	}
	if _, err := s.sign(id, digest); err != nil {
		return nil, err
	}
	st, err := s.copyToToken(id)
	if err != nil {
		return nil, err
	}
	if err := b.Key.Verify(keyspec.Moved, st.Attributes); err != nil {
		return nil, faultf(op, frame.KindVerify, "%v", err)
	}
	return st, s.store.sync(s.token.Serial)
}

// undo destroys everything with the id of a key that is not to stay. It looks
// for it: SoftHSM leaves an object behind even when C_CreateObject fails.
func (s *session) undo(id keyspec.KeyID) {
	delete(s.keys, id)
	all, err := s.all()
	if err != nil {
		return // the session is gone, and clean-up of the attempt finds the tag
	}
	for _, o := range all {
		if d, err := s.describe(o); err == nil && d.ID == id.String() {
			_ = s.ctx.DestroyObject(s.h, o)
		}
	}
}

// remove destroys everything with the id of one key, a half copy too, and proves
// by an empty search that nothing with it is left.
func (s *session) remove(id keyspec.KeyID) error {
	const op = "destroy key"
	all, err := s.all()
	if err != nil {
		return err
	}
	found := 0
	for _, o := range all {
		d, err := s.describe(o)
		if err != nil {
			return err
		}
		if d.ID != id.String() {
			continue
		}
		if err := s.ctx.DestroyObject(s.h, o); err != nil {
			return asFault(op, "C_DestroyObject", err)
		}
		found++
	}
	if found == 0 {
		return faultf(op, frame.KindNotFound, "the token has no object with id %s", id)
	}
	delete(s.keys, id)
	if err := s.store.sync(s.token.Serial); err != nil {
		return err
	}
	left, err := s.inventory()
	if err != nil {
		return err
	}
	for _, o := range left {
		if o.ID == id.String() {
			return faultf(op, frame.KindVerify, "an object with id %s is still there", id)
		}
	}
	return nil
}
