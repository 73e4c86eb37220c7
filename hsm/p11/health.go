package p11

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the one OAEP hash that all modules have, see oaep
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// examiner gathers what is wrong in a token.
type examiner struct {
	*session
	h *frame.Health
}

func (x *examiner) add(kind frame.FindingKind, key, format string, args ...any) {
	x.h.Findings = append(x.h.Findings, frame.Finding{Kind: kind, Key: key, Text: fmt.Sprintf(format, args...)})
}

// health reads a whole token and uses every key of ours once. It says
// something only in a process that did nothing else: SoftHSM signs on from its
// cache when the file of a key is cut, flipped or gone. What a key signs is noise,
// and the signature does not leave this process.
func (s *session) health(b frame.HealthBody) (*frame.Health, error) {
	x := &examiner{s, &frame.Health{Keys: []frame.KeyHealth{}, Findings: []frame.Finding{}}}
	bad, whole, err := s.store.objectFiles(s.token.Serial)
	if err != nil {
		return nil, err
	}
	for _, f := range bad {
		x.add(frame.FindingFile, "", "%s is cut or is no object file", f)
	}
	objs, err := s.inventory()
	switch {
	case lost(err):
		return nil, err
	case err != nil:
		x.add(frame.FindingList, "", "the token does not list its objects: %v", err)
	case whole > len(objs):
		x.add(frame.FindingHidden, "", "the token's folder has %d object files, and the token shows %d objects", whole, len(objs))
	}
	x.h.Objects = len(objs)
	return x.h, x.keys(objs, b)
}

// lost tells the end of the session, about which no finding is to be made.
func lost(err error) bool {
	f, ok := errors.AsType[*frame.Fault](err)
	return ok && f.Kind == frame.KindLost && f.Code != pkcs11.CKR_OBJECT_HANDLE_INVALID
}

// keys examines every pair that has an id of ours, and misses what is expected.
func (x *examiner) keys(objs []frame.Object, b frame.HealthBody) error {
	expected, seen := map[keyspec.KeyID]*frame.HealthKey{}, map[keyspec.KeyID]bool{}
	for i := range b.Keys {
		expected[b.Keys[i].ID] = &b.Keys[i]
	}
	for _, o := range objs {
		if !o.Token || o.Class == keyspec.Unreported {
			x.add(frame.FindingHalf, o.ID, "an object of class %s says that it is not in the token", o.Class)
		}
		raw, err := hex.DecodeString(o.ID)
		if err != nil || len(raw) != len(keyspec.KeyID{}) || !keyClass(o.Class) {
			continue
		}
		id := keyspec.KeyID(raw)
		if seen[id] {
			continue
		}
		seen[id] = true
		if err := x.key(id, o.Label, expected[id]); err != nil {
			if len(x.h.Findings) > 0 {
				return nil // enough is known: the token is not sound
			}
			return err
		}
	}
	for _, k := range b.Keys {
		if !seen[k.ID] {
			x.add(frame.FindingMissing, k.ID.String(), "key %q is not in the token", k.Label)
		}
	}
	return nil
}

func keyClass(c string) bool {
	return c == "CKO_PRIVATE_KEY" || c == "CKO_PUBLIC_KEY" || c == "CKO_SECRET_KEY"
}

// key reads one pair or secret key, compares it and uses it. Only the end of the session is an
// error.
func (x *examiner) key(id keyspec.KeyID, label string, want *frame.HealthKey) error {
	k, err := x.lookup(id)
	if err == nil {
		var st *frame.KeyState
		if st, err = x.state(k); err == nil {
			return x.pair(id, label, k, st, want)
		}
	}
	if lost(err) {
		return err
	}
	x.add(frame.FindingPair, id.String(), "%v", err)
	return nil
}

func (x *examiner) pair(id keyspec.KeyID, label string, k *key, st *frame.KeyState, want *frame.HealthKey) error {
	if want != nil {
		if err := same(label, st, want); err != nil {
			x.add(frame.FindingOther, id.String(), "%v", err)
			return nil
		}
	}
	err := x.useOnce(id, k, st)
	switch {
	case lost(err):
		return err
	case err != nil:
		x.add(frame.FindingUse, id.String(), "%v", err)
	default:
		x.h.Keys = append(x.h.Keys, frame.KeyHealth{ID: id.String(), Label: label, Algorithm: st.Algorithm, PublicKey: st.PublicKey})
	}
	return nil
}

// same compares a pair with what is expected of it.
func same(label string, st *frame.KeyState, want *frame.HealthKey) error {
	if label != want.Label {
		return fmt.Errorf("its label is %.40q, not %.40q", label, want.Label)
	}
	if !bytes.Equal(st.PublicKey, want.PublicKey) {
		return errors.New("it has another public key than expected")
	}
	if want.Attributes == nil {
		return nil
	}
	w, got := want.Attributes, st.Attributes
	return errors.Join(keyspec.Compare(w.Private, got.Private), keyspec.Compare(w.Public, got.Public), keyspec.Compare(w.Secret, got.Secret))
}

// useOnce makes the private half, or the secret key, do what it is for.
func (s *session) useOnce(id keyspec.KeyID, k *key, st *frame.KeyState) error {
	switch st.Algorithm {
	case keyspec.AES256, keyspec.HMACSHA256:
		return s.useSecret(id, st.Algorithm)
	}
	for _, a := range st.Attributes.Private {
		switch {
		case a.Value != "true":
		case a.Name == "CKA_SIGN":
			n := 32 // a message, for Ed25519
			if h := k.algorithm.Hash(); h != 0 {
				n = h.Size()
			}
			in, err := noise(n)
			if err != nil {
				return wrap("use key", "draw noise", err)
			}
			_, err = s.signWith(k, in)
			return err
		case a.Name == "CKA_UNWRAP":
			return s.unwrapOnce(id, k)
		}
	}
	return faultf("use key", frame.KindVerify, "it may neither sign nor unwrap")
}

// useSecret encrypts noise, which is decrypted and compared, or authenticates it.
func (s *session) useSecret(id keyspec.KeyID, alg keyspec.Algorithm) error {
	in, err := noise(32)
	if err != nil {
		return wrap("use key", "draw noise", err)
	}
	if alg == keyspec.HMACSHA256 {
		_, err = s.mac(id, in)
	} else {
		_, err = s.encrypt(id, in, nil)
	}
	return err
}

// unwrapOnce has a receiver key unwrap a throw-away key.
func (s *session) unwrapOnce(id keyspec.KeyID, k *key) error {
	const op = "use key"
	pub, ok := k.pub.(*rsa.PublicKey)
	if !ok {
		return faultf(op, frame.KindVerify, "a receiver key is RSA")
	}
	secret, err := noise(32)
	if err != nil {
		return wrap(op, "draw noise", err)
	}
	blob, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, secret, nil) //nolint:gosec // as above
	if err != nil {
		return wrap(op, "wrap a throw-away key", err)
	}
	req, want := keyspec.Unwrapping(transportLabel, id)
	t, err := encodeAll(req)
	if err != nil {
		return wrap(op, "template", err)
	}
	o, err := s.ctx.UnwrapKey(s.h, oaep(), k.private, blob, t)
	if err != nil {
		return asFault(op, "unwrap a throw-away key", err)
	}
	_, err = s.same(op, o, want)
	return errors.Join(err, wrap(op, "destroy the throw-away key", s.ctx.DestroyObject(s.h, o)))
}
