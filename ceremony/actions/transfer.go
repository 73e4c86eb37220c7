package actions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/hsm/admit"
)

// move is one key on its way from one safe's token to another's.
type move struct {
	from, to *safe
	spec     hsm.GenerateSpec // as it is where it leaves
	arrived  hsm.GenerateSpec // as it is where it goes
	t        record.Transferred
	leaving  bool // its source is being, or was, destroyed
}

// receiver is the key for which keys on their way to one safe are wrapped.
type receiver struct {
	spec hsm.GenerateSpec
	spki []byte
	made []record.Attribute // as it was read when it was born
}

// receiverLabel is CKA_LABEL of a receiver key, which lives for one ceremony.
const receiverLabel = "receiver"

// firstReceiver numbers receiver keys apart from the keys of a script.
const firstReceiver = 1 << 32

// transfer is the verb key.transfer: the receiver is made and named in the charter
// before anything is wrapped; the key travels wrapped, is proven where it arrives,
// read back by a fresh process and receipted by both ends. It stays where it was
// until keys.prove.
func (a *Actions) transfer(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	m := &move{from: a.safes[st.Safe], to: a.safes[st.To]}
	if err := a.findSource(ctx, m, st.Key); err != nil {
		return err
	}
	rec, err := a.receiverOf(ctx, r, m.to)
	if err != nil {
		return err
	}
	m.t.Receiver, m.t.Made = rec.spki, rec.made
	parcel, err := a.export(ctx, r, st, m)
	if err != nil {
		return err
	}
	if err := r.Record(&record.Intent{Effect: "transfer", Key: st.Key, Object: m.t.Object, Safe: m.to.name, Token: token(m.to.token)}); err != nil {
		return err
	}
	a.moves = append(a.moves, m)
	if err := a.receive(ctx, m, rec, parcel); err != nil {
		return err
	}
	if m.t.Gave, err = a.receipt(ctx, r, m, record.Gives, m.from); err != nil {
		return err
	}
	if m.t.Received, err = a.receipt(ctx, r, m, record.Receives, m.to); err != nil {
		return err
	}
	r.Console.Say("good", "key "+st.Key+" is in token "+m.to.token.Label+" too; it is destroyed in "+m.from.token.Label+" when it has signed there")
	return r.Record(&m.t)
}

// findSource reads the key where it is, and wants it to be the charter's and
// movable in every attribute.
func (a *Actions) findSource(ctx context.Context, m *move, id string) error {
	rec, ok := a.vault.state.Keys[id]
	if !ok || rec.Token != token(m.from.token) {
		return fault.Errorf(fault.Policy, "key %s is not in token %s, says the charter", id, m.from.token.Label)
	}
	if err := a.session(ctx, m.from); err != nil {
		return err
	}
	k, err := find(ctx, m.from.birth, id, rec.Public)
	if err != nil {
		return err
	}
	st := k.State()
	m.spec = hsm.GenerateSpec{Template: hsm.Movable, Algorithm: admit.Algorithms()[rec.Algorithm], KeyID: st.KeyID, Label: id, SessionObject: true}
	if err := st.Check(m.spec, hsm.Stored); err != nil {
		return fault.Hint(fault.Errorf(fault.Policy, "key %s does not leave its token: %w", id, err), "only a key that was made with movable: true can be moved; make a successor where it is needed")
	}
	m.arrived = m.spec
	m.arrived.Template = hsm.Sign
	m.t.Key, m.t.Object = rec, hexID(st.KeyID)
	m.t.From, m.t.To = record.Place{Safe: m.from.name, Token: token(m.from.token)}, record.Place{Safe: m.to.name, Token: token(m.to.token)}
	return nil
}

// receiverOf makes the receiver of a safe, once, and has the approvers name it.
func (a *Actions) receiverOf(ctx context.Context, r *ceremony.Run, to *safe) (*receiver, error) {
	if to.receiver != nil {
		return to.receiver, nil
	}
	sp := hsm.GenerateSpec{Template: hsm.TransportUnwrap, Algorithm: hsm.RSA3072PKCS1, KeyID: hsm.NewKeyID(a.tag, firstReceiver), Label: receiverLabel}
	if err := r.Record(&record.Intent{Effect: "receiver", Key: "", Object: hexID(sp.KeyID), Safe: to.name, Token: token(to.token)}); err != nil {
		return nil, err
	}
	if to.admitted == nil {
		return nil, fault.Errorf(fault.Token, "token %s is not admitted", to.token.Label)
	}
	if err := to.admitted.Report.CheckTemplate(string(sp.Template)); err != nil {
		return nil, err
	}
	if err := a.session(ctx, to); err != nil {
		return nil, err
	}
	st, err := to.birth.Generate(ctx, sp)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(st.SPKI)
	r.Console.Say("", "receiver of safe "+to.name+": "+hex.EncodeToString(sum[:]))
	err = a.decide(ctx, r, []statement{{charter.TypeReceiver, charter.Receiver{Key: st.SPKI, Record: record.Origin(r.ID), Safe: to.name}}})
	if err != nil {
		return nil, err
	}
	want := sp.Expect(hsm.Direct)
	to.receiver = &receiver{sp, st.SPKI, append(side("private", want.Private, st.Attributes.Private), side("public", want.Public, st.Attributes.Public)...)}
	return to.receiver, nil
}

// export wraps the key. The SO makes the wrapping key trusted, so the key masters
// give their shares for it once more.
func (a *Actions) export(ctx context.Context, r *ceremony.Run, st *script.Step, m *move) (*hsm.Parcel, error) {
	if err := m.from.birth.Close(); err != nil {
		return nil, err
	}
	m.from.birth = nil
	if err := a.give(ctx, r, st, m.from, true); err != nil {
		return nil, err
	}
	p, err := a.sup.Export(ctx, m.from.token, m.spec, m.t.Receiver)
	if err != nil {
		return nil, err
	}
	if string(p.Key.PublicKey) != string(m.t.Key.Public) {
		return nil, fault.Errorf(fault.Verify, "token %s wrapped another key than %s", m.from.token.Label, m.t.Key.ID)
	}
	want := m.spec.Expect(hsm.Stored)
	m.t.Left = append(side("private", want.Private, p.Key.Attributes.Private), side("public", want.Public, p.Key.Attributes.Public)...)
	m.t.Wrapping = append(side("secret", p.Wrapping, p.Wrapping), side("receiver", p.Receiver, p.Receiver)...)
	m.t.Wrapped = record.WrappedHash(p.WrappedKEK, p.WrappedKey)
	return p, nil
}

// receive unwraps the key, reads it in a fresh process and makes it sign there.
func (a *Actions) receive(ctx context.Context, m *move, rec *receiver, p *hsm.Parcel) error {
	if err := a.session(ctx, m.to); err != nil {
		return err
	}
	got, err := m.to.birth.Receive(ctx, rec.spec, m.arrived, p)
	if err != nil {
		return err
	}
	m.t.Unwrapping = side("secret", got.Unwrapped, got.Unwrapped)
	return a.withSession(ctx, m.to.token, func(s *hsm.Session) error {
		st, err := s.Attributes(ctx, m.arrived.KeyID)
		if err != nil {
			return err
		}
		if err := st.Check(m.arrived, hsm.Moved); err != nil {
			return err
		}
		if string(st.SPKI) != string(m.t.Key.Public) {
			return fault.Errorf(fault.Verify, "another key than %s arrived in token %s", m.t.Key.ID, m.to.token.Label)
		}
		want := m.arrived.Expect(hsm.Moved)
		m.t.Arrived = append(side("private", want.Private, st.Attributes.Private), side("public", want.Public, st.Attributes.Public)...)
		k, err := s.Signer(ctx, m.arrived.KeyID)
		if err != nil {
			return err
		}
		msg := []byte("keyrite transfer test\n" + m.t.Wrapped)
		sig, err := m.t.Key.SignBytes(k.Within(ctx), msg)
		if err != nil {
			return err
		}
		return m.t.Key.CheckBytes(msg, sig)
	})
}

// side shows wanted and actual attributes of one half or object.
func side(half string, want, got []hsm.Attribute) []record.Attribute {
	have := map[string]string{}
	for _, x := range got {
		have[x.Name] = x.Value
	}
	out := make([]record.Attribute, len(want))
	for i, x := range want {
		out[i] = record.Attribute{Got: have[x.Name], Half: half, Name: x.Name, Wanted: x.Value}
	}
	return out
}

// receipt has the key masters who opened a safe sign for their end.
func (a *Actions) receipt(ctx context.Context, r *ceremony.Run, m *move, end string, sf *safe) (envelope.Envelope, error) {
	payload, err := jcs.Marshal(m.t.Receipt(record.Origin(r.ID), r.World, end))
	if err != nil {
		return envelope.Envelope{}, err
	}
	names, err := a.openers(r, sf)
	if err != nil {
		return envelope.Envelope{}, err
	}
	env, err := signAll(ctx, r, "the receipt of safe "+sf.name+", which "+end+" key "+m.t.Key.ID, record.TransferType, payload, names)
	if err != nil {
		return envelope.Envelope{}, err
	}
	return *env, nil
}

// movedTo are the moves to a safe.
func (a *Actions) movedTo(sf *safe) []*move {
	var out []*move
	for _, m := range a.moves {
		if m.to == sf {
			out = append(out, m)
		}
	}
	return out
}

// finishMoves belongs to keys.prove: every key that went to the safe signs there,
// and only then it is destroyed where it was; the receiver key goes last. From the
// first destruction on, the key is kept where it went whatever comes.
func (a *Actions) finishMoves(ctx context.Context, r *ceremony.Run, sf *safe) error {
	moves := a.movedTo(sf)
	if len(moves) == 0 {
		return nil
	}
	if err := sf.end(); err != nil {
		return err
	}
	err := a.withSession(ctx, sf.token, func(s *hsm.Session) error {
		for _, m := range moves {
			k, err := s.Signer(ctx, m.arrived.KeyID)
			if err != nil {
				return err
			}
			if err := proveBy(ctx, r, &m.t.Key, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range moves {
		if err := m.from.end(); err != nil {
			return err
		}
		if err := a.announceEnd(r, m.from, m.t.Key.ID, m.spec.KeyID); err != nil {
			return err
		}
		m.leaving = true // not before: what was not announced was not begun
		if err := a.endAnnounced(ctx, r, m.from, m.t.Key.ID, m.spec.KeyID, false); err != nil {
			return err
		}
		r.Console.Say("good", "key "+m.t.Key.ID+" is gone from token "+m.from.token.Label)
	}
	if err := a.announceEnd(r, sf, "", sf.receiver.spec.KeyID); err != nil {
		return err
	}
	return a.endAnnounced(ctx, r, sf, "", sf.receiver.spec.KeyID, false)
}

// announceEnd announces the destruction of a pair.
func (a *Actions) announceEnd(r *ceremony.Run, sf *safe, id string, object hsm.KeyID) error {
	return r.Record(&record.Intent{Effect: "destroy", Key: id, Object: hexID(object), Safe: sf.name, Token: token(sf.token)})
}

// endAnnounced destroys a pair, which may have been destroyed before if mayBeGone says
// so, and looks for it in a fresh process.
func (a *Actions) endAnnounced(ctx context.Context, r *ceremony.Run, sf *safe, id string, object hsm.KeyID, mayBeGone bool) error {
	count := func(s *hsm.Session) (n int, err error) {
		objs, err := s.Objects(ctx)
		for _, o := range objs {
			if o.ID == hexID(object) {
				n++
			}
		}
		return n, err
	}
	err := a.withSession(ctx, sf.token, func(s *hsm.Session) error {
		n, err := count(s)
		if err != nil || n == 0 && mayBeGone {
			return err
		}
		return s.DestroyKey(ctx, object)
	})
	if err != nil {
		return err
	}
	left := 0
	err = a.withSession(ctx, sf.token, func(s *hsm.Session) (err error) { left, err = count(s); return err })
	if err != nil {
		return err
	}
	if left > 0 {
		return fault.Errorf(fault.Token, "%d objects with id %s are still in token %s", left, hexID(object), sf.token.Label)
	}
	return r.Record(&record.Removed{Key: id, Left: 0, Object: hexID(object), Safe: sf.name, Token: token(sf.token)})
}

// cleanupMoves settles every move to a safe whose ceremony is void.
func (a *Actions) cleanupMoves(ctx context.Context, sf *safe, e *record.Cleanup) error {
	for _, m := range a.movedTo(sf) {
		if err := settleMove(ctx, a.sup, sf.token, m.t.Key.ID, m.t.Object, m.leaving, e); err != nil {
			return err
		}
	}
	return nil
}

// settleMove leaves no key in a token that it was moved to, unless its source is
// being destroyed: then it may be the only one, and the record names it.
func settleMove(ctx context.Context, sup *hsm.Supervisor, t hsm.TokenID, id, object string, leaving bool, e *record.Cleanup) error {
	if leaving {
		e.Kept = append(e.Kept, id+" "+object)
		return nil
	}
	raw, err := hex.DecodeString(object)
	if err != nil || len(raw) != len(hsm.KeyID{}) {
		return fault.Errorf(fault.Unexpected, "object %.40q is no key id", object)
	}
	s, err := sup.Open(ctx, t)
	if err != nil {
		return err
	}
	objs, err := s.Objects(ctx)
	if err == nil && slices.ContainsFunc(objs, func(o hsm.Object) bool { return o.ID == object }) {
		if err = s.DestroyKey(ctx, hsm.KeyID(raw)); err == nil {
			e.Destroyed = append(e.Destroyed, "pair "+object)
		}
	}
	return errors.Join(err, s.Close())
}

// moveStatements say where the moved keys live from now on.
func (a *Actions) moveStatements(r *ceremony.Run) []statement {
	var out []statement
	for _, m := range a.moves {
		out = append(out, statement{charter.TypeKeyMoved, charter.KeyMoved{ID: m.t.Key.ID, Record: record.Origin(r.ID), Safe: m.to.name}})
	}
	return out
}
