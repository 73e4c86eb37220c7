package actions

import (
	"context"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/hsm/admit"
)

// spec turns the script's key into what hsm makes.
func (a *Actions) spec(k *script.Key, n int) hsm.GenerateSpec {
	sp := hsm.GenerateSpec{Template: hsm.Sign, Algorithm: admit.Algorithms()[k.Algorithm], KeyID: hsm.NewKeyID(a.tag, uint64(n)), Label: k.ID, SessionObject: true}
	switch {
	case k.Movable:
		sp.Template = hsm.Movable
	case k.Usage.AlwaysAuthenticate:
		sp.Template = hsm.RootSign
	}
	return sp
}

// generate makes a key as a session object in the safe's one birth session, and
// reads every attribute back.
func (a *Actions) generate(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	id := st.Key
	k, _ := a.script.KeyByID(id)
	sf := a.safes[k.Safe]
	if err := a.session(ctx, sf); err != nil {
		return err
	}
	sp := a.spec(k, len(a.order)+1)
	if err := sf.mayHold(sp, k.Algorithm); err != nil {
		return err
	}
	if err := r.Record(&record.Intent{Effect: "generate", Key: id, Object: hexID(sp.KeyID), Safe: k.Safe, Token: token(sf.token)}); err != nil {
		return err
	}
	state, err := sf.birth.Generate(ctx, sp)
	if err != nil {
		return err
	}
	signer, err := sf.birth.Signer(ctx, sp.KeyID)
	if err != nil {
		return err
	}
	rec := anchor.KeyRecord{
		Algorithm: k.Algorithm, Domain: k.Domain, ID: id, Public: state.SPKI, Record: record.Origin(r.ID), SpecHash: k.SpecHash(),
		SuccessorOf: k.SuccessorOf, Token: token(sf.token),
	}
	if err := a.originate(ctx, r, sf.birth, k, &rec); err != nil {
		return err
	}
	a.keys[id] = &key{spec: sp, rec: rec, signer: signer}
	a.order = append(a.order, id)
	r.Console.Say("good", id+" is born in token "+sf.token.Label+", "+rec.Origin())
	return r.Record(made(sp, hsm.Born, state, rec))
}

// session opens the one session of a safe in which keys are born and used. It
// lives until SEALING ends, not only as long as this step.
func (a *Actions) session(ctx context.Context, sf *safe) error {
	if sf.birth != nil {
		return nil
	}
	s, err := a.sup.Open(ctx, sf.token)
	if err != nil {
		return err
	}
	sf.birth = s
	return openedModule(a.script, s.Module().SHA256)
}

// made shows specification and actual attributes side by side.
func made(sp hsm.GenerateSpec, stage hsm.Stage, st *hsm.KeyState, rec anchor.KeyRecord) *record.KeyMade {
	e := &record.KeyMade{Attributes: []record.Attribute{}, Key: rec, Object: hexID(sp.KeyID), Stage: string(stage)}
	want := sp.Expect(stage)
	for _, half := range []struct {
		name      string
		want, got []hsm.Attribute
	}{{"private", want.Private, st.Attributes.Private}, {"public", want.Public, st.Attributes.Public}} {
		got := map[string]string{}
		for _, x := range half.got {
			got[x.Name] = x.Value
		}
		for _, x := range half.want {
			e.Attributes = append(e.Attributes, record.Attribute{Got: got[x.Name], Half: half.name, Name: x.Name, Wanted: x.Value})
		}
	}
	return e
}

// store copies the safe's keys into the token, makes that durable, and reads
// them back through a fresh process.
func (a *Actions) store(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	name := st.Safe
	sf := a.safes[name]
	for _, id := range a.keysOf(name) {
		k := a.keys[id]
		if err := r.Record(&record.Intent{Effect: "store", Key: id, Object: hexID(k.spec.KeyID), Safe: name, Token: token(sf.token)}); err != nil {
			return err
		}
		if _, err := sf.birth.CopyToToken(ctx, k.spec); err != nil {
			return err
		}
	}
	if err := sf.birth.SyncToken(ctx); err != nil {
		return err
	}
	fresh, err := a.sup.Open(ctx, sf.token)
	if err != nil {
		return err
	}
	sf.fresh = fresh
	for _, id := range a.keysOf(name) {
		k := a.keys[id]
		st, err := fresh.Attributes(ctx, k.spec.KeyID)
		if err != nil {
			return err
		}
		if err := st.Check(k.spec, hsm.Stored); err != nil {
			return err
		}
		if string(st.SPKI) != string(k.rec.Public) {
			return fault.Errorf(fault.Verify, "key %s in the token is not the one that was born", id)
		}
		if err := r.Record(made(k.spec, hsm.Stored, st, k.rec)); err != nil {
			return err
		}
	}
	r.Console.Say("good", itoa(len(a.keysOf(name)))+" keys are in token "+sf.token.Label+", read back by a fresh process")
	return nil
}

func (a *Actions) keysOf(name string) []string {
	var out []string
	for _, id := range a.order {
		if k, _ := a.script.KeyByID(id); k.Safe == name {
			out = append(out, id)
		}
	}
	return out
}

// prove makes every stored key sign its proof of possession, in the fresh
// process, over the transcript so far.
func (a *Actions) prove(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	name := st.Safe
	sf := a.safes[name]
	for _, id := range a.keysOf(name) {
		k := a.keys[id]
		signer, err := sf.fresh.Signer(ctx, k.spec.KeyID)
		if err != nil {
			return err
		}
		if err := proveBy(ctx, r, &k.rec, signer); err != nil {
			return err
		}
	}
	if len(a.movedTo(sf)) > 0 {
		return a.finishMoves(ctx, r, sf)
	}
	birth, fresh := sf.birth, sf.fresh
	sf.birth, sf.fresh = nil, nil
	if err := birth.Close(); err != nil {
		return err
	}
	return fresh.Close()
}

// proveBy has a key sign its proof of possession over the transcript so far. It signs
// as long as ctx lasts.
func proveBy(ctx context.Context, r *ceremony.Run, rec *anchor.KeyRecord, k *hsm.Key) error {
	size, root := r.Size(), r.Root()
	msg, err := record.PossessionMessage(r.ID, rec.ID, rec.SpecHash, size, root)
	if err != nil {
		return err
	}
	sig, err := rec.SignBytes(k.Within(ctx), msg)
	if err != nil {
		return err
	}
	return r.Record(&record.Possession{Key: rec.ID, Root: root, Signature: sig, Size: size})
}
