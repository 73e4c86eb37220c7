package actions

import (
	"context"
	"encoding/hex"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// identify has everybody unlock his key, once; it is held from here on.
func (a *Actions) identify(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	late := plans(r.Script, st, ceremony.CauseLate)
	for i, p := range r.People {
		if r.Holds(p.Person.Name) {
			continue // named before a contingency began the step again
		}
		r.Console.Count(ceremony.Count{What: "people", Done: allNames(r.People[:i]), Need: len(r.People), Of: len(r.People)})
		if late {
			if err := r.Report(ctx, st, r.Names(charter.RoleConductor)[0], "Is "+p.Person.Name+" here?", "here", ceremony.CauseLate); err != nil {
				return err
			}
		}
		words, err := p.Person.Words()
		if err != nil {
			return err
		}
		f, err := p.Person.Fingerprint()
		if err != nil {
			return err
		}
		if err := r.Unlock(ctx, p.Person.Name); err != nil {
			return err
		}
		r.Console.Say("good", p.Person.Name+" ("+office{p.Role, p.Group}.words()+"): "+words)
		if err := r.Record(&record.Identified{Fingerprint: hex.EncodeToString(f[:]), Name: p.Person.Name, Role: p.Role}); err != nil {
			return err
		}
	}
	return nil
}

// documents has two witnesses sign which identity documents they saw.
func (a *Actions) documents(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	names := allNames(r.People)
	seen, err := r.Console.Documents(ctx, names)
	if err != nil {
		return err
	}
	for _, n := range names {
		if seen[n] == "" {
			return fault.Errorf(fault.Usage, "no identity document is named for %s", n)
		}
	}
	payload, err := jcs.Marshal(record.DocumentsSeen{Format: "keyrite/documents-seen/v1", Record: r.ID, Seen: seen, World: r.World})
	if err != nil {
		return err
	}
	env, err := signAll(ctx, r, "which documents you saw", record.DocumentsType, payload, r.Names(charter.RoleWitness)[:2])
	if err != nil {
		return err
	}
	return r.Record(&record.Documents{Envelope: *env})
}

// signAll collects the signatures of names under one payload, which is what.
func signAll(ctx context.Context, r *ceremony.Run, what, typ string, payload []byte, names []string) (*envelope.Envelope, error) {
	env, err := envelope.Sign(typ, payload)
	if err != nil {
		return nil, err
	}
	for i, n := range names {
		r.Console.Count(ceremony.Count{What: "signatures", Done: names[:i], Need: len(names), Of: len(names)})
		if err := r.WithKey(ctx, n, what, func(k *person.Key) error { return env.Add(k.Signer()) }); err != nil {
			return nil, err
		}
	}
	return env, nil
}

// allNames are the names of list, in its order.
func allNames(list []ceremony.Participant) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Person.Name)
	}
	return out
}
