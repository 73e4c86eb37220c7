package actions

import (
	"context"
	"encoding/hex"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
)

// endKey is the verb key.destroy: both halves of a key of the charter are
// destroyed, and a fresh process looks for them in vain.
func (a *Actions) endKey(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	rec, err := a.key(st.Key)
	if err != nil {
		return err
	}
	name, ok := a.state.SafeOf(rec)
	sf := a.safes[name]
	if !ok || sf == nil || !sf.opened {
		return fault.Errorf(fault.Policy, "key %s lies in no safe that is open", st.Key)
	}
	if err := a.session(ctx, sf); err != nil {
		return err
	}
	id, found, err := a.objectOf(ctx, sf, rec.ID, rec.Public)
	if err != nil {
		return err
	}
	e := &record.Retired{Key: rec.ID, Safe: name}
	if found {
		e.Object = hexID(id)
	}
	if err := r.Record(&record.Intent{Effect: "destroy", Key: rec.ID, Object: e.Object, Safe: name, Token: token(sf.token)}); err != nil {
		return err
	}
	if found {
		if err := sf.birth.DestroyKey(ctx, id); err != nil {
			return err
		}
		sf.destroyed = append(sf.destroyed, "key "+rec.ID+", object "+e.Object)
	}
	err = a.withSession(ctx, sf.token, func(s *hsm.Session) error { // a fresh process, an empty template
		objs, err := s.Objects(ctx)
		for _, o := range objs {
			if found && o.ID == e.Object || o.Label == rec.ID {
				e.Left++
			}
		}
		return err
	})
	if err == nil && e.Left > 0 {
		err = fault.Errorf(fault.Token, "%d objects of key %s are still in token %s", e.Left, rec.ID, sf.token.Label)
	}
	if err != nil {
		return err
	}
	a.destroyed = append(a.destroyed, rec.ID)
	r.Console.Say("good", rec.ID+" is destroyed; a fresh process finds nothing of it in token "+sf.token.Label)
	return r.Record(e)
}

// objectOf finds the object id of a key of the charter, having made sure that it
// is that very key; false if a void attempt destroyed it before.
func (a *Actions) objectOf(ctx context.Context, sf *safe, id string, public []byte) (hsm.KeyID, bool, error) {
	objs, err := sf.birth.Objects(ctx)
	if err != nil {
		return hsm.KeyID{}, false, err
	}
	for _, o := range objs {
		raw, err := hex.DecodeString(o.ID)
		if o.Class != "CKO_PRIVATE_KEY" || o.Label != id || err != nil || len(raw) != len(hsm.KeyID{}) {
			continue
		}
		st, err := sf.birth.Attributes(ctx, hsm.KeyID(raw))
		if err != nil {
			return hsm.KeyID{}, false, err
		}
		if string(st.SPKI) != string(public) {
			return hsm.KeyID{}, false, fault.Errorf(fault.Verify, "key %s in token %s is not the one in the charter", id, sf.token.Label)
		}
		return hsm.KeyID(raw), true, nil
	}
	return hsm.KeyID{}, false, nil
}

// endToken is the verb token.destroy: the key masters give their shares once
// more, the token is initialised anew, and a fresh process finds nothing in it.
func (a *Actions) endToken(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	sf := a.safes[st.Safe]
	for id, k := range a.state.Keys {
		if k.Token == token(sf.token) && !a.ended(id) {
			return fault.Errorf(fault.Policy, "token %s holds the key %s, which is in force", sf.token.Label, id)
		}
	}
	if err := sf.end(); err != nil {
		return err
	}
	if err := a.give(ctx, r, st, sf, true); err != nil {
		return err
	}
	if err := r.Record(&record.Intent{Effect: "destroy", Safe: st.Safe, Token: token(sf.token)}); err != nil {
		return err
	}
	if err := a.sup.EraseToken(ctx, sf.token); err != nil {
		return err
	}
	e := &record.Retired{Safe: st.Safe}
	err := a.withSession(ctx, sf.token, func(s *hsm.Session) error { // a fresh process, an empty template
		objs, err := s.Objects(ctx)
		e.Left = len(objs)
		return err
	})
	if err == nil && e.Left > 0 {
		err = fault.Errorf(fault.Token, "%d objects are still in token %s", e.Left, sf.token.Label)
	}
	if err != nil {
		return err
	}
	a.wiped = append(a.wiped, st.Safe)
	r.Console.Say("good", "token "+sf.token.Label+" is initialised anew; a fresh process finds nothing in it")
	return r.Record(e)
}

// ended says whether a key of the charter is gone or ends here.
func (a *Actions) ended(id string) bool {
	if _, ok := a.state.Retired[id]; ok {
		return true
	}
	for _, x := range a.script.Successions {
		if x.ID == id {
			return true
		}
	}
	return slices.Contains(a.destroyed, id)
}

// mayIssue says whether a key may certify here: one born here, one in force, or a
// dormant one that takes over in this ceremony.
func (a *Actions) mayIssue(id string) error {
	if _, born := a.keys[id]; born {
		return nil
	}
	rec, err := a.key(id)
	if err != nil {
		return err
	}
	for _, x := range a.script.Successions {
		if x.By == id {
			return nil
		}
		if x.ID == id {
			return fault.Errorf(fault.Policy, "%s gives way to %s in this ceremony and certifies nothing any more", id, x.By)
		}
	}
	now, err := a.state.Key(rec.Role(), rec.Domain)
	if err == nil && now.ID != id {
		err = fault.Errorf(fault.Policy, "%w: key %s; %s is in force", charter.ErrUnknown, id, now.ID)
	}
	return err
}
