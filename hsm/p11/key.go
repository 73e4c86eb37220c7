package p11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"math/big"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// key is a key pair of this session with its handles, or a secret key, whose one
// handle is private.
type key struct {
	private, public pkcs11.ObjectHandle
	algorithm       keyspec.Algorithm
	pub             crypto.PublicKey
	loginPerUse     bool
	born            bool // a session object, not copied yet
}

// generate makes a key pair and reads it back.
func (s *session) generate(spec keyspec.Spec) (*frame.KeyState, error) {
	if err := spec.Check(); err != nil {
		return nil, faultf("generate key", frame.KindUsage, "%v", err)
	}
	if err := s.unused(spec); err != nil {
		return nil, err
	}
	if spec.Secret() {
		return s.generateSecret(spec)
	}
	req := spec.Request()
	pubT, err := encodeAll(req.Public)
	if err != nil {
		return nil, wrap("generate key", "template", err)
	}
	prvT, err := encodeAll(req.Private)
	if err != nil {
		return nil, wrap("generate key", "template", err)
	}
	m, _ := valueOf(mechNames, spec.GenerateMechanism())
	k := &key{algorithm: spec.Algorithm, born: spec.SessionObject}
	create := func() (err error) {
		k.public, k.private, err = s.ctx.GenerateKeyPair(s.h, []*pkcs11.Mechanism{pkcs11.NewMechanism(uint(m), nil)}, pubT, prvT)
		return wrap("generate key", "C_GenerateKeyPair", err)
	}
	if k.born {
		err = create() // nothing of it is in a file
	} else {
		err = s.store.making(s.token.Serial, create)
	}
	var st *frame.KeyState
	if err == nil {
		st, err = s.adopt(spec.KeyID, k)
	}
	if err != nil && k.private != 0 {
		// Whatever it is, it is not the key that was asked for.
		_, _ = s.ctx.DestroyObject(s.h, k.private), s.ctx.DestroyObject(s.h, k.public)
	}
	return st, err
}

// unused refuses an id or a label that some object has already.
func (s *session) unused(spec keyspec.Spec) error {
	all, err := s.all()
	if err != nil {
		return err
	}
	for _, o := range all {
		d, err := s.describe(o)
		if err != nil {
			return err
		}
		if d.ID == spec.KeyID.String() || d.Label == spec.Label {
			return faultf("generate key", frame.KindExists, "the token has an object with label %q and id %s", d.Label, d.ID)
		}
	}
	return nil
}

// adopt reads a pair back and keeps its handles under the id.
func (s *session) adopt(id keyspec.KeyID, k *key) (*frame.KeyState, error) {
	st, err := s.state(k)
	if err != nil {
		return nil, err
	}
	s.keys[id] = k
	return st, nil
}

// state reads every attribute and the public key of a pair.
func (s *session) state(k *key) (*frame.KeyState, error) {
	if k.public == 0 {
		return s.secretState(k)
	}
	kind, err := s.read(k.public, []string{"CKA_KEY_TYPE"})
	if err != nil {
		return nil, err
	}
	use, err := s.read(k.private, []string{"CKA_UNWRAP"})
	if err != nil {
		return nil, err
	}
	prv, err := s.read(k.private, keyspec.ReadList(true, kind[0].Value, use[0].Value == "true"))
	if err != nil {
		return nil, err
	}
	pub, err := s.read(k.public, keyspec.ReadList(false, kind[0].Value, false))
	if err != nil {
		return nil, err
	}
	alg, known := keyspec.AlgorithmOf(pub)
	if !known {
		return nil, faultf("read key", frame.KindVerify, "the pair is of no algorithm that keys are made with")
	}
	k.algorithm = alg
	k.pub, err = s.publicKey(k.public, k.algorithm)
	if err != nil {
		return nil, err
	}
	for _, a := range prv {
		if a.Name == "CKA_ALWAYS_AUTHENTICATE" {
			k.loginPerUse = a.Value == "true"
		}
	}
	der, err := x509.MarshalPKIXPublicKey(k.pub)
	if err != nil {
		return nil, wrap("read key", "public key", err)
	}
	return &frame.KeyState{Algorithm: k.algorithm, PublicKey: der, Attributes: keyspec.Pair{Private: prv, Public: pub}}, nil
}

// publicKey reads the public key of a pair.
func (s *session) publicKey(o pkcs11.ObjectHandle, alg keyspec.Algorithm) (crypto.PublicKey, error) {
	switch alg {
	case keyspec.ECDSAP256, keyspec.ECDSAP384, keyspec.Ed25519:
		return s.curvePoint(o, alg)
	}
	n, err := s.attribute(o, pkcs11.CKA_MODULUS)
	if err != nil {
		return nil, asFault("read key", "CKA_MODULUS", err)
	}
	e, err := s.attribute(o, pkcs11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, asFault("read key", "CKA_PUBLIC_EXPONENT", err)
	}
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(n)}
	if exp := new(big.Int).SetBytes(e); exp.IsInt64() && exp.Int64() == 65537 {
		pub.E = 65537
	}
	if pub.E == 0 || pub.N.BitLen() != 3072 && pub.N.BitLen() != 4096 {
		return nil, faultf("read key", frame.KindVerify, "RSA public key of %d bits with exponent %x", pub.N.BitLen(), e)
	}
	return pub, nil
}

// curvePoint reads CKA_EC_POINT, which tokens give with or without the OCTET
// STRING around it that the standard asks for.
func (s *session) curvePoint(o pkcs11.ObjectHandle, alg keyspec.Algorithm) (crypto.PublicKey, error) {
	raw, err := s.attribute(o, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, asFault("read key", "CKA_EC_POINT", err)
	}
	var inner []byte
	if rest, err := asn1.Unmarshal(raw, &inner); err == nil && len(rest) == 0 {
		raw = inner
	}
	if alg == keyspec.Ed25519 {
		if len(raw) != ed25519.PublicKeySize {
			return nil, faultf("read key", frame.KindVerify, "public key of %d bytes", len(raw))
		}
		return ed25519.PublicKey(raw), nil
	}
	curve := elliptic.P256()
	if alg == keyspec.ECDSAP384 {
		curve = elliptic.P384()
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, raw)
	if err != nil {
		return nil, faultf("read key", frame.KindVerify, "public key: %v", err)
	}
	return pub, nil
}

// copyToToken copies a born pair into the token, private half first: a
// public half alone would look like a key that is there.
func (s *session) copyToToken(id keyspec.KeyID) (*frame.KeyState, error) {
	k, ok := s.keys[id]
	if !ok || !k.born {
		return nil, faultf("copy key", frame.KindNotFound, "no key %s was born in this session", id)
	}
	n := *k
	n.born = false
	if err := s.store.making(s.token.Serial, func() error { return s.copyHalves(k, &n) }); err != nil {
		return nil, err
	}
	was := k.pub
	st, err := s.state(&n)
	if err != nil {
		return nil, err
	}
	if eq, ok := was.(interface{ Equal(crypto.PublicKey) bool }); !ok || !eq.Equal(n.pub) {
		return nil, faultf("copy key", frame.KindVerify, "the copy has another public key")
	}
	s.keys[id] = &n
	return st, nil
}

// copyHalves copies both halves, the private one first.
func (s *session) copyHalves(from, to *key) error {
	for _, half := range []struct {
		private bool
		from    pkcs11.ObjectHandle
		to      *pkcs11.ObjectHandle
	}{{true, from.private, &to.private}, {false, from.public, &to.public}} {
		t, err := encodeAll(keyspec.CopyRequest(half.private))
		if err != nil {
			return wrap("copy key", "template", err)
		}
		if *half.to, err = s.ctx.CopyObject(s.h, half.from, t); err != nil {
			return asFault("copy key", "C_CopyObject", err)
		}
	}
	return nil
}

// lookup finds a pair by id, once; afterwards its handles are kept.
func (s *session) lookup(id keyspec.KeyID) (k *key, err error) {
	if k, ok := s.keys[id]; ok {
		return k, nil
	}
	err = s.store.alone(func() error {
		k, err = s.search(id)
		return err
	})
	return k, err
}

// search is lookup in the token.
func (s *session) search(id keyspec.KeyID) (*key, error) {
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	k := &key{}
	found := map[string]int{}
	labels := map[string]int{}
	label := ""
	for _, o := range all {
		d, err := s.describe(o)
		if err != nil {
			return nil, err
		}
		labels[d.Class+" "+d.Label]++
		if d.ID != id.String() {
			continue
		}
		found[d.Class]++
		switch d.Class {
		case "CKO_PRIVATE_KEY":
			k.private, label = o, d.Label
		case "CKO_PUBLIC_KEY":
			k.public = o
		case "CKO_SECRET_KEY":
			k.private, label = o, d.Label
		}
		if !d.Token {
			return nil, faultf("find key", frame.KindAmbiguous, "key %s has a half copy in the token", id)
		}
	}
	secret := found["CKO_SECRET_KEY"] > 0
	if !secret && (found["CKO_PRIVATE_KEY"] == 0 || found["CKO_PUBLIC_KEY"] == 0) {
		// A file token whose folder was moved away shows no object and no trouble.
		if _, err := s.ctx.GetTokenInfo(s.slot); err != nil {
			return nil, faultf("find key", frame.KindLost, "the token is gone: %s", asFault("", "C_GetTokenInfo", err).Name)
		}
		return nil, faultf("find key", frame.KindNotFound, "the token has no key with id %s", id)
	}
	if secret && (len(found) != 1 || found["CKO_SECRET_KEY"] > 1) || !secret && len(found) != 2 || found["CKO_PRIVATE_KEY"] > 1 || found["CKO_PUBLIC_KEY"] > 1 {
		return nil, faultf("find key", frame.KindAmbiguous, "several objects have id %s", id)
	}
	if labels["CKO_SECRET_KEY "+label] > 1 || labels["CKO_PRIVATE_KEY "+label] > 1 || labels["CKO_PUBLIC_KEY "+label] > 1 {
		return nil, faultf("find key", frame.KindAmbiguous, "several objects have label %q", label)
	}
	if _, err := s.adopt(id, k); err != nil {
		return nil, err
	}
	return k, nil
}

// look lists what has the id, or none at all, and reads the key if it is whole.
func (s *session) look(id keyspec.KeyID) (*frame.LookBody, error) {
	all, err := s.inventory()
	if err != nil {
		return nil, err
	}
	out := &frame.LookBody{Objects: []frame.Object{}}
	for _, d := range all {
		// What a killed copy leaves may have no id, or none that can be read.
		if raw, err := hex.DecodeString(d.ID); d.ID == id.String() || err != nil || len(raw) == 0 {
			out.Objects = append(out.Objects, d)
		}
	}
	if k, born := s.keys[id]; !born || !k.born {
		delete(s.keys, id)
	}
	k, err := s.lookup(id)
	if err != nil {
		if f := asFault("find key", "", err); f.Kind == frame.KindLost || f.Kind == frame.KindStorage {
			return nil, err
		}
		return out, nil
	}
	for _, d := range out.Objects {
		if d.ID != id.String() {
			return out, nil // debris beside a whole key is still debris
		}
	}
	st, err := s.state(k)
	if err != nil {
		return nil, err
	}
	// A generation that was killed at its last write leaves two halves of which the
	// private one has no key in it.
	if err := s.useOnce(id, k, st); err != nil {
		if lost(err) {
			return nil, err
		}
		return out, nil
	}
	out.Key = st
	return out, nil
}

// inventory lists every object.
func (s *session) inventory() ([]frame.Object, error) {
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	out := make([]frame.Object, 0, len(all))
	for _, o := range all {
		d, err := s.describe(o)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// destroy removes every object of an attempt and proves it by a second look.
func (s *session) destroy(b frame.DestroyBody) (*frame.Destroyed, error) {
	mine := func(d frame.Object) bool {
		id, err := hex.DecodeString(d.ID)
		if err != nil || len(id) == 0 {
			return b.Nameless
		}
		return bytes.HasPrefix(id, b.Tag[:])
	}
	all, err := s.all()
	if err != nil {
		return nil, err
	}
	out := &frame.Destroyed{Objects: []frame.Object{}, Tainted: []frame.Object{}, Remaining: []frame.Object{}}
	for _, o := range all {
		d, err := s.describe(o)
		if err != nil {
			return nil, err
		}
		// What refuses to go is seen again below.
		if mine(d) && s.ctx.DestroyObject(s.h, o) == nil {
			out.Objects = append(out.Objects, d)
		}
	}
	for id := range s.keys {
		if id.Tag() == b.Tag {
			delete(s.keys, id)
		}
	}
	if out.EmptyFiles, err = s.store.sweep(s.token.Serial); err != nil {
		return nil, err
	}
	left, err := s.inventory()
	if err != nil {
		return nil, err
	}
	for _, d := range left {
		if mine(d) {
			out.Tainted = append(out.Tainted, d)
		} else {
			out.Remaining = append(out.Remaining, d)
		}
	}
	return out, s.store.sync(s.token.Serial)
}
