package actions

import (
	"context"
	"slices"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/intake"
	"keyrite/signer/tuf"
)

// rootValidity is how long the first update root is good for; a new one is
// signed by the ceremony that renews it.
const rootValidity = 2 * 365 * 24 * time.Hour

// updateRoot signs the root of the update repository, the first or the next: the
// key in force of the root token, and every approver who is here.
func (a *Actions) updateRoot(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	before, err := a.rootBefore()
	if err != nil {
		return err
	}
	spec, err := tuf.RootOf(&a.state, a.rootVersion, r.Clock.Now().Add(rootValidity))
	if err != nil {
		return err
	}
	tbs, err := tuf.RootTBS(spec)
	if err != nil {
		return err
	}
	rec, err := a.state.Key(tuf.RootKeyID, tuf.RootKeyID)
	if err != nil {
		return err
	}
	token, err := a.signer(ctx, rec.ID)
	if err != nil {
		return err
	}
	first, err := tuf.SignRoot(tbs, token)
	if err != nil {
		return err
	}
	sigs := []tuf.RootSignature{first}
	approvers := slices.DeleteFunc(slices.Clone(a.state.People.Sets.Approvers.Members), func(n string) bool {
		_, here := r.Participant(n)
		return !here
	})
	for i, name := range approvers {
		r.Console.Count(ceremony.Count{What: "signatures", Done: approvers[:i], Need: len(approvers), Of: len(approvers)})
		err := r.WithKey(ctx, name, "update root "+itoa(int(a.rootVersion)), func(k *person.Key) error {
			s, err := tuf.SignRoot(tbs, k.Signer())
			sigs = append(sigs, s)
			return err
		})
		if err != nil {
			return err
		}
	}
	if a.root, err = tuf.Assemble(spec, sigs); err != nil {
		return err
	}
	r.Console.Say("good", "update root "+itoa(int(a.rootVersion))+", signed by the root token and "+itoa(len(sigs)-1)+" approvers")
	if err := tuf.CheckRoot(a.root, &a.state); err != nil || before == nil {
		return err
	}
	a.followed = before
	return tuf.CheckNext(before, a.root)
}

// rootBefore reads the root that this one follows, nil in a genesis, and says
// which version comes now.
func (a *Actions) rootBefore() ([]byte, error) {
	a.rootVersion = 1
	if a.vault == nil {
		return nil, nil
	}
	if a.bind.Root == "" {
		return nil, fault.Hint(fault.New(fault.Usage, "the binding names no update root to follow"), "write root: FILE, the newest N.root.json of the update repository")
	}
	data, err := intake.Read(a.bind.Path(a.bind.Root), tuf.MaxRootBytes)
	if err != nil {
		return nil, err
	}
	before, err := tuf.RootVersion(data)
	a.rootVersion = before + 1
	return data, err
}

// anchors are the keys of the charter and the roots' certificates.
func (a *Actions) anchors() (*anchor.Anchors, error) {
	if a.vault != nil {
		return a.vault.anchors, nil // a later ceremony changes none
	}
	out := &anchor.Anchors{
		Certificates: map[string][]byte{}, Format: anchor.Format, Keys: []anchor.KeyRecord{}, Successors: []anchor.KeyRecord{},
		Vault: a.state.Vault, World: a.state.World,
	}
	var err error
	if out.RosterHash, err = a.state.Genesis.RosterHash(); err != nil {
		return nil, err
	}
	for _, id := range a.order {
		if rec := a.keys[id].rec; rec.SuccessorOf == "" {
			out.Keys = append(out.Keys, rec)
		} else {
			out.Successors = append(out.Successors, rec)
		}
		if der, ok := a.certs[id]; ok {
			out.Certificates[id] = der
		}
	}
	return out, out.Check()
}

// outputs writes everything public into the record.
func (a *Actions) outputs(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	all, err := a.anchors()
	if err != nil {
		return err
	}
	data, err := all.Marshal()
	if err != nil {
		return err
	}
	if err := r.Output(record.OutputsDir+"/anchors.json", data); err != nil {
		return err
	}
	if err := r.Output(record.OutputsDir+"/charter.jsonl", a.lines); err != nil {
		return err
	}
	kept, err := a.kept(ctx, r)
	if err != nil {
		return err
	}
	if data, err = jcs.Marshal(kept); err != nil {
		return err
	}
	if err := r.Output(record.OutputsDir+"/"+record.AdmissionsFile, data); err != nil {
		return err
	}
	for i, root := range [][]byte{a.followed, a.root} { // whoever verifies the record sees that one follows the other
		if root == nil {
			continue
		}
		if err := r.Output(record.OutputsDir+"/"+itoa(int(a.rootVersion)-1+i)+".root.json", root); err != nil {
			return err
		}
	}
	for _, id := range a.order {
		if err := r.Output(record.OutputsDir+"/"+id+".pub.pem", pemBlock("PUBLIC KEY", a.keys[id].rec.Public)); err != nil {
			return err
		}
	}
	if a.statement != nil {
		if err := r.Output(successionOutput, a.statement); err != nil {
			return err
		}
	}
	for _, c := range a.script.CRLs {
		if err := r.Output(record.OutputsDir+"/"+c.ID+".crl.pem", pemBlock("X509 CRL", a.crls[c.ID])); err != nil {
			return err
		}
	}
	for _, c := range a.script.Certificates {
		if err := r.Output(record.OutputsDir+"/"+c.ID+".cert.pem", pemBlock("CERTIFICATE", a.certs[c.ID])); err != nil {
			return err
		}
	}
	return nil
}

func (a *Actions) readAloud(_ context.Context, r *ceremony.Run, _ *script.Step) error {
	if a.vault != nil {
		words, err := record.HeadWords(&a.state)
		if err != nil {
			return err
		}
		r.Console.Say("good", "charter of "+itoa(a.state.Size())+" statements, head "+a.state.Head())
		r.Console.Say("good", "charter in words: "+words)
		return r.Record(&record.Words{What: "charter.jsonl", Words: words})
	}
	all, err := a.anchors()
	if err != nil {
		return err
	}
	words, err := all.Words()
	if err != nil {
		return err
	}
	hash, err := all.Hash()
	if err != nil {
		return err
	}
	r.Console.Say("good", "anchors "+hash)
	r.Console.Say("good", "anchors in words: "+words)
	return r.Record(&record.Words{What: "anchors.json", Words: words})
}
