package actions

import (
	"context"
	"crypto"
	"encoding/hex"
	"os"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/internal/intake"
	"keyrite/vault/quorum"
)

// open is the verb safe.open: as many key masters as it takes give their shares,
// and the token's user PIN goes to the supervisor.
func (a *Actions) open(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	if err := a.startHSM(ctx, r); err != nil {
		return err
	}
	sf := a.safes[st.Safe] // of this very step, if it is begun again: what it announced stands
	if sf == nil {
		var err error
		if sf, err = a.announceOpening(r, st.Safe); err != nil {
			return err
		}
	}
	if err := a.give(ctx, r, st, sf, false); err != nil {
		return err
	}
	r.Console.Say("good", "token "+sf.token.Label+" is open for this ceremony")
	if err := a.withSession(ctx, sf.token, func(s *hsm.Session) error { return sf.admitted.Check(s.Access, r.Clock.Now()) }); err != nil {
		return err
	}
	return a.probe(ctx, r, sf)
}

// announceOpening says, once, that a safe is about to be opened, and why its token may
// be: before the first share, so that whoever finds a dead attempt knows that the
// shares may have been combined.
func (a *Actions) announceOpening(r *ceremony.Run, name string) (*safe, error) {
	e := a.vault.opening(name).Epochs[name]
	if _, adopted := a.vault.left.Epoch(name); !adopted && a.vault.state.Stale(name) {
		return nil, fault.Errorf(fault.Policy, "safe %s is held by people who left: it is dealt anew before it is used", name)
	}
	sf := &safe{name: name, token: hsm.TokenID{Label: e.Token.Label, Serial: e.Token.Serial}, inForce: e}
	a.safes[name] = sf
	if err := r.Record(&record.Intent{Effect: "open", Epoch: e.Epoch, Safe: name, Token: e.Token}); err != nil {
		return nil, err
	}
	return sf, a.rely(r, sf)
}

// give has the key masters give their shares in force for this step; the PINs go
// to the supervisor, the SO PIN too if withSO. Each opening is recorded.
func (a *Actions) give(ctx context.Context, r *ceremony.Run, st *script.Step, sf *safe, withSO bool) error {
	names, err := a.openers(r, sf)
	if err != nil {
		return err
	}
	p := quorum.OpenParams{State: a.vault.opening(sf.name), Safe: sf.name, SO: withSO}
	if p.Operation, err = record.Operation(r.ID, r.Script.Hash(), st.ID); err != nil {
		return err
	}
	if p.Nonce, err = record.OpeningNonce(r.ID, r.Attempt); err != nil {
		return err
	}
	for i, n := range names {
		r.Console.Count(ceremony.Count{What: "shares", Done: names[:i], Need: len(names), Of: len(sf.inForce.Shares)})
		file, err := intake.Read(a.shareFile(sf.name, n, sf.inForce.Epoch), maxInputBytes)
		if err != nil {
			return &ceremony.Contingency{Cause: ceremony.CauseShare, Err: err}
		}
		err = r.WithKey(ctx, n, "for your share of safe "+sf.name+" in step "+st.ID, func(k *person.Key) error {
			p.Openers = append(p.Openers, quorum.Opener{Share: file, Unlocked: k})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return a.combine(ctx, r, sf, p)
}

// combine lets the PINs flow from the share child to the supervisor. From here on
// the epoch in force is exposed if the ceremony does not close.
func (a *Actions) combine(ctx context.Context, r *ceremony.Run, sf *safe, p quorum.OpenParams) error {
	pr, pw, err := os.Pipe()
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	defer pr.Close()
	sf.exposed = true
	res, err := a.quorum.Open(ctx, p, pw)
	_ = pw.Close()
	if err != nil {
		if fault.ClassOf(err) == fault.Verify { // a share is named as bad; nothing was combined
			return &ceremony.Contingency{Cause: ceremony.CauseShare, Err: err}
		}
		return err
	}
	for i, h := range res.Holders {
		if err := r.Record(&record.Opening{Envelope: *res.Openings[i], Holder: h, Safe: sf.name}); err != nil {
			return err
		}
	}
	if err := a.sup.TakePINs(ctx, sf.token, pr, hsm.Current); err != nil {
		return err
	}
	sf.opened = true
	return nil
}

// openers are the first key masters present, in the order of the binding, who
// hold shares in force: as many as it takes.
func (a *Actions) openers(r *ceremony.Run, sf *safe) ([]string, error) {
	var out []string
	for _, n := range r.Names(charter.RoleKeyMaster) {
		if p, ok := r.Participant(n); !ok || !a.holds(p, sf.name) {
			continue
		}
		for _, sh := range sf.inForce.Shares {
			if sh.Holder == n && len(out) < sf.inForce.Need {
				if _, err := os.Stat(a.shareFile(sf.name, n, sf.inForce.Epoch)); err == nil {
					out = append(out, n)
				}
			}
		}
	}
	if len(out) < sf.inForce.Need {
		return nil, fault.Errorf(fault.Quorum, "safe %s needs the shares of %d key masters, %d of those here have one at hand", sf.name, sf.inForce.Need, len(out))
	}
	return out, nil
}

// signer returns a key as a signer: one born here, or one of the charter in a safe
// that is open, after checking that the token holds that very key. It signs as long
// as ctx lasts.
func (a *Actions) signer(ctx context.Context, id string) (crypto.Signer, error) {
	if k, ok := a.keys[id]; ok {
		return k.signer.Within(ctx), nil
	}
	rec, ok := a.state.Keys[id]
	if !ok {
		return nil, fault.Errorf(fault.Policy, "there is no key %s", id)
	}
	for _, sf := range a.safes {
		if token(sf.token) != rec.Token {
			continue
		}
		if err := a.session(ctx, sf); err != nil {
			return nil, err
		}
		k, err := find(ctx, sf.birth, id, rec.Public)
		if err != nil {
			return nil, err
		}
		return k.Within(ctx), nil
	}
	return nil, fault.Errorf(fault.Policy, "key %s lies in token %s, which this ceremony does not open", id, rec.Token.Label)
}

// find looks for a key of the charter in the token of an open session.
func find(ctx context.Context, s *hsm.Session, id string, public []byte) (*hsm.Key, error) {
	objs, err := s.Objects(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range objs {
		raw, err := hex.DecodeString(o.ID)
		if o.Class != "CKO_PRIVATE_KEY" || o.Label != id || err != nil || len(raw) != len(hsm.KeyID{}) {
			continue
		}
		k, err := s.Signer(ctx, hsm.KeyID(raw))
		if err != nil {
			return nil, err
		}
		if st := k.State(); string(st.SPKI) != string(public) {
			return nil, fault.Errorf(fault.Verify, "key %s in token %s is not the one in the charter", id, s.Token().Label)
		}
		return k, nil
	}
	return nil, fault.Errorf(fault.Token, "token %s holds no key %s", s.Token().Label, id)
}
