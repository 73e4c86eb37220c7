package actions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// found makes the genesis statement and has everybody sign it, before the first
// token is touched.
func (a *Actions) found(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	gen := &charter.Genesis{Nonce: make([]byte, 32), People: charter.People{Roster: r.Members()}, ScriptHash: r.Script.Hash(), World: r.World}
	if _, err := io.ReadFull(r.Random, gen.Nonce); err != nil {
		return fault.Errorf(fault.Unexpected, "read random bytes: %w", err)
	}
	approvers := charter.Set{Members: sorted(r.Names(charter.RoleApprover)), Need: r.Script.Roles.Approvers.Need}
	gen.Sets = charter.Sets{Approvers: approvers, Releases: approvers}
	for _, s := range r.Script.Safes {
		gen.Safes = append(gen.Safes, charter.Safe{Name: s.Name, Openers: charter.Set{Members: masters(r, s.Group), Need: s.Need}})
	}
	payload, err := a.state.Propose(charter.TypeGenesis, gen, r.Clock.Now())
	if err != nil {
		return err
	}
	r.Console.Say("", "the roster, the thresholds and the hash of this script are signed by everybody here")
	names := allNames(r.People)
	env, err := signAll(ctx, r, "the founding statement", charter.PayloadType, payload, names)
	if err != nil {
		return err
	}
	if err := a.append(r, charter.TypeGenesis, env, names); err != nil {
		return err
	}
	r.Console.Say("good", "vault "+a.state.Vault[:16]+"…")
	// Written now, so that a killed attempt can be cleaned up by its own shares.
	return r.Output(genesisOutput, a.lines[:len(a.lines)-1])
}

// append folds one signed statement and records it.
func (a *Actions) append(r *ceremony.Run, typ string, env *envelope.Envelope, signers []string) error {
	line, err := env.Marshal()
	if err != nil {
		return err
	}
	seq := a.state.Size()
	if err := a.state.Apply(line); err != nil {
		return err
	}
	a.lines = append(append(a.lines, line...), '\n')
	sum := sha256.Sum256(line)
	return r.Record(&record.Statement{LineHash: hex.EncodeToString(sum[:]), Seq: seq, Signers: signers, Type: typ})
}

// statement is one thing that the approvers decide.
type statement struct {
	typ  string
	body any
}

// charter has the approvers sign everything that the ceremony made, one
// statement each, with one opening of their keys.
func (a *Actions) charter(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	list, err := a.statements(r)
	if err != nil {
		return err
	}
	if err := a.decide(ctx, r, append(list, a.moveStatements(r)...)); err != nil {
		return err
	}
	r.Console.Say("good", "the charter has "+itoa(a.state.Size())+" statements")
	return nil
}

// decide has the approvers sign statements, with one confirmation of each.
func (a *Actions) decide(ctx context.Context, r *ceremony.Run, list []statement) error {
	names, err := present(r, a.state.People.Sets.Approvers)
	if err != nil {
		return err
	}
	var opened []*person.Key
	var with func(i int) error
	with = func(i int) error {
		if i < len(names) {
			r.Console.Count(ceremony.Count{What: "approvals", Done: names[:i], Need: len(names), Of: len(a.state.People.Sets.Approvers.Members)})
			return r.WithKey(ctx, names[i], itoa(len(list))+" statements of the charter", func(k *person.Key) error {
				opened = append(opened, k)
				return with(i + 1)
			})
		}
		for _, st := range list {
			payload, err := a.state.Propose(st.typ, st.body, r.Clock.Now())
			if err != nil {
				return err
			}
			env, err := envelope.Sign(charter.PayloadType, payload)
			if err != nil {
				return err
			}
			for _, k := range opened {
				if err := env.Add(k.Signer()); err != nil {
					return err
				}
			}
			if err := a.append(r, st.typ, env, names); err != nil {
				return err
			}
		}
		return nil
	}
	return with(0)
}

// statements lists what the charter says after the genesis, in the order in
// which each can be checked when it is folded.
func (a *Actions) statements(r *ceremony.Run) ([]statement, error) {
	out, keys := a.adoptions()
	out = append(out, a.rootStatements()...)
	for _, s := range a.script.Safes {
		if sf := a.safes[s.Name]; sf != nil && sf.epoch.Epoch > 0 {
			out = append(out, statement{charter.TypeEpoch, sf.epoch})
		}
	}
	for _, id := range a.order {
		out = append(out, statement{charter.TypeKey, a.keys[id].rec})
	}
	for _, f := range a.script.Factories {
		out = append(out, statement{charter.TypeFactory, charter.Factory{
			CA: a.certs[f.CA], Evidence: f.Evidence, ID: f.ID, Product: f.Product, SerialFrom: f.SerialFrom, SerialTo: f.SerialTo,
		}})
	}
	for _, s := range a.script.Stations {
		spki, err := a.request(s.ReportKey)
		if err != nil {
			return nil, err
		}
		out = append(out, statement{charter.TypeStation, charter.Station{Factory: s.Factory, ID: s.ID, ReportKey: spki}})
	}
	for _, p := range a.script.Pipelines {
		spki, err := a.publicKey(p.Key)
		if err != nil {
			return nil, err
		}
		out = append(out, statement{charter.TypePipeline, charter.Pipeline{ID: p.ID, Key: spki, Products: p.Products}})
	}
	for _, x := range a.script.Relays {
		out = append(out, statement{charter.TypeRelay, charter.Relay{Certificate: a.certs[x.Certificate], ID: x.ID, Role: x.Role}})
	}
	if a.vault != nil {
		out = append(append(out, a.endings(r)...), a.floorStatements(r)...)
	}
	return append(out, keys...), nil
}
