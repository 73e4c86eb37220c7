package actions

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/internal/durable"
)

// Adopt has the ceremony go on after the void one whose record is in dir. Where that
// left a safe under an epoch that it dealt, or a key in another token, and the
// charter does not know it, the record is verified and this ceremony takes it over:
// all of it, and only if the script says so. Where a person called an incident in it, or
// in one before it, the record is verified too and will be kept. Otherwise it does
// nothing.
func (a *Actions) Adopt(dir string) error {
	if a.vault == nil {
		return nil // a genesis goes on from no charter: there is nothing to take over
	}
	left, fell, err := a.left(dir)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "void ceremony in %q: %w", dir, err)
	}
	for _, e := range left.Epochs {
		if err := a.mayAdopt(dir, &e); err != nil {
			return err
		}
	}
	for _, k := range left.Keys {
		found := slices.ContainsFunc(a.script.Run, func(st script.Step) bool {
			return st.Do == "key.find" && st.Key == k.ID && st.Safe == k.Moved.From.Safe && st.To == k.Moved.To.Safe
		})
		if !found {
			return fault.Hint(fault.Errorf(fault.Policy, "the void ceremony in %q left key %s in safe %s, and the script has no step key.find that looks for it there", dir, k.ID, k.Safe), adoptHint(dir))
		}
	}
	for _, st := range a.script.Run {
		if _, ok := left.Key(st.Key); st.Do == "key.find" && !ok {
			return fault.Errorf(fault.Usage, "step %s looks for key %s, which the void ceremony in %q left where it was", st.ID, st.Key, dir)
		}
	}
	a.vault.left, a.vault.after = left, dir
	a.vault.base.Adopts, a.vault.base.Fell = left.Adopts(), fell
	return nil
}

func adoptHint(dir string) string {
	return "hold a reshare that adopts it: keyrite ceremony new reshare --after " + dir
}

// left verifies a void record if it says that something was left, or that a person
// called an incident: what it says otherwise nobody relies on.
func (a *Actions) left(dir string) (record.Left, []record.Fallen, error) {
	st, err := ceremony.ReadState(dir)
	if err != nil {
		return record.Left{}, nil, err
	}
	for line := range bytes.Lines(a.lines) {
		if st.Stated[sum256(bytes.TrimSuffix(line, []byte("\n")))] {
			return record.Left{}, nil, fault.Hint(fault.New(fault.Policy, "the charter of the binding holds a statement that was made in it: nothing of a void ceremony is used"), "give the charter of the last ceremony that closed")
		}
	}
	if !st.LeftSomething() && !st.FellByPeople() {
		return record.Left{}, nil, nil
	}
	v, err := record.VerifyVoid(os.DirFS(dir), a.vault.anchors, a.lines)
	if err != nil {
		return record.Left{}, nil, err
	}
	left, err := v.Pending(&a.vault.state)
	return left, v.Fell, err
}

func sum256(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// mayAdopt wants the script to say that the safe's epoch may be taken over, and to
// deal it anew: it is in nobody's charter.
func (a *Actions) mayAdopt(dir string, e *record.LeftEpoch) error {
	x, ok := a.script.SafeByName(e.Safe)
	if ok && x.Adopts && a.deals(e.Safe) {
		return nil
	}
	return fault.Hint(fault.Errorf(fault.Policy, "the void ceremony in %q left safe %s under epoch %d, whose shares alone open it, and the script does not adopt it (adopts: true) and deal it anew", dir, e.Safe, e.Epoch), adoptHint(dir))
}

// foundElsewhere wants every key.find to have been answered by Adopt.
func (a *Actions) foundElsewhere() error {
	for _, st := range a.script.Run {
		if _, ok := a.vault.left.Key(st.Key); st.Do == "key.find" && !ok {
			return fault.Hint(fault.Errorf(fault.Usage, "step %s looks for key %s, and no void transfer is named that left it elsewhere", st.ID, st.Key), "give --after and the record folder of the void ceremony")
		}
	}
	return nil
}

// opening is the vault as this ceremony opens its safes: what is adopted is in force,
// and its holders are the people who signed for its shares.
func (v *vault) opening(safe string) *charter.State { return openingOf(&v.state, &v.left, safe) }

func openingOf(s *charter.State, left *record.Left, safe string) *charter.State {
	out := left.Opens(s)
	e, adopted := left.Epoch(safe)
	if !adopted {
		return out
	}
	out.People.Roster = slices.DeleteFunc(slices.Clone(s.People.Roster), func(m charter.Member) bool { return e.People[m.Person.Name] != nil })
	for _, p := range e.People {
		out.People.Roster = append(out.People.Roster, charter.Member{Person: *p, Role: charter.RoleKeyMaster})
	}
	return out
}

// holds says whether a participant may open a safe: the one who signed for the share,
// and in the charter, or about to enter it in this ceremony.
func (a *Actions) holds(p *ceremony.Participant, safe string) bool {
	e, adopted := a.vault.left.Epoch(safe)
	if !adopted {
		return true
	}
	m, known := a.vault.state.People.Person(p.Person.Name)
	return e.People[p.Person.Name] != nil && e.People[p.Person.Name].Equal(p.Person) &&
		(known && m.Role == p.Role && m.Person.Equal(p.Person) || a.does("people.change"))
}

// keepAfter copies the void record into this one, so that whoever verifies this one
// has what it adopts and who called the incidents before it, and verifies the copy.
func (a *Actions) keepAfter(r *ceremony.Run) error {
	if a.vault.after == "" || a.vault.base.Adopts == nil && len(a.vault.base.Fell) == 0 {
		return nil
	}
	from := os.DirFS(a.vault.after)
	err := fs.WalkDir(from, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fault.Errorf(fault.Storage, "read void record: %w", err)
		}
		to := path.Join(record.AfterDir, p)
		if d.IsDir() {
			return durable.Mkdir(filepath.Join(r.Dir, filepath.FromSlash(to)), 0o755)
		}
		if p == record.ReportFile {
			return nil
		}
		data, err := fs.ReadFile(from, p)
		if err != nil {
			return fault.Errorf(fault.Storage, "read void record: %w", err)
		}
		return r.Output(to, data)
	})
	if err != nil {
		return err
	}
	v, err := record.VerifyVoid(os.DirFS(filepath.Join(r.Dir, filepath.FromSlash(record.AfterDir))), a.vault.anchors, a.lines)
	if err != nil {
		return err
	}
	if r.After == nil || v.Ref() != *r.After {
		return fault.New(fault.Verify, "the void record changed while it was read")
	}
	for _, e := range a.vault.left.Epochs {
		r.Console.Say("good", "safe "+e.Safe+" opens for the shares of epoch "+itoa(e.Epoch)+", dealt in the void "+record.Origin(e.Record)+"; this ceremony takes them over and deals new ones")
	}
	for _, f := range a.vault.base.Fell {
		r.Console.Say("", "the void "+record.Origin(f.Record)+" before this one fell by an incident that "+f.By+" called and signed")
	}
	for _, k := range a.vault.left.Keys {
		r.Console.Say("good", "key "+k.ID+" was left in safe "+k.Safe+" by the void "+record.Origin(k.Record)+"; this ceremony looks for it there")
	}
	return nil
}

// adoptions are what the charter says of the epochs that were taken over, before those
// that were dealt here, and of the keys.
func (a *Actions) adoptions() (epochs, keys []statement) {
	if a.vault == nil {
		return nil, nil
	}
	for _, e := range a.vault.left.Epochs {
		epochs = append(epochs, statement{charter.TypeEpochAdopted, e.Statement()})
	}
	for _, k := range a.vault.left.Keys {
		keys = append(keys, statement{charter.TypeKeyAdopted, k.Statement()})
	}
	return epochs, keys
}

// seek is the verb key.find: a key that a void transfer left in another token is read
// there by a fresh process and signs there; only then what may be left of it where it
// was is destroyed, and looked for in vain.
func (a *Actions) seek(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	k, ok := a.vault.left.Key(st.Key)
	if !ok {
		return fault.Errorf(fault.Unexpected, "key %s was not left elsewhere", st.Key)
	}
	rec, from, to := k.Moved.Key, a.safes[st.Safe], a.safes[st.To]
	raw, err := hex.DecodeString(k.Moved.Object)
	if err != nil || len(raw) != len(hsm.KeyID{}) {
		return fault.Errorf(fault.Verify, "object %.40q is no key id", k.Moved.Object)
	}
	spec := hsm.GenerateSpec{Template: hsm.Sign, Algorithm: admit.Algorithms()[rec.Algorithm], KeyID: hsm.KeyID(raw), Label: rec.ID, SessionObject: true}
	err = a.withSession(ctx, to.token, func(s *hsm.Session) error {
		state, err := s.Attributes(ctx, spec.KeyID)
		if err != nil {
			return err
		}
		if err := state.Check(spec, hsm.Moved); err != nil {
			return err
		}
		if string(state.SPKI) != string(rec.Public) {
			return fault.Errorf(fault.Verify, "token %s holds another key than %s", to.token.Label, rec.ID)
		}
		want := spec.Expect(hsm.Moved)
		f := &record.Found{Key: rec, Object: k.Moved.Object, From: record.Place{Safe: from.name, Token: token(from.token)}, To: record.Place{Safe: to.name, Token: token(to.token)}}
		f.Arrived = append(side("private", want.Private, state.Attributes.Private), side("public", want.Public, state.Attributes.Public)...)
		if err := r.Record(f); err != nil {
			return err
		}
		signer, err := s.Signer(ctx, spec.KeyID)
		if err != nil {
			return err
		}
		return proveBy(ctx, r, &rec, signer)
	})
	if err != nil {
		return err
	}
	if err := a.announceEnd(r, from, rec.ID, spec.KeyID); err != nil {
		return err
	}
	if err := a.endAnnounced(ctx, r, from, rec.ID, spec.KeyID, true); err != nil {
		return err
	}
	r.Console.Say("good", "key "+rec.ID+" is in token "+to.token.Label+", signs there, and is not in token "+from.token.Label)
	return nil
}
