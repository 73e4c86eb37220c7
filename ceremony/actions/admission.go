package actions

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/internal/intake"
)

// Admitted is the report that admits a token, and where it comes from.
type Admitted struct {
	Report *admission.Report

	envelope *envelope.Envelope // of a file, nil where it stands in a record
	from     string             // the record it stands in
}

// Check wants the token that is open to be the one that was admitted, behind
// the module that was attacked, in this very process.
func (x *Admitted) Check(s *hsm.Access, now time.Time) error {
	return admit.Check(x.Report, s, x.Report.World, now)
}

// Reports are what a binding names to admit tokens.
type Reports struct {
	state *charter.State
	all   []*Admitted
	why   []string    // those that do not count
	class fault.Class // of the last of them
}

// Reports reads the reports and records that the binding names. Reports in files
// count if somebody in the charter signed them, those in records if the record is
// closed, holds, and belongs to this charter. near are folders of records that count
// too if they are there: the one that the charter was taken from.
func (b *Bind) Reports(state *charter.State, near ...string) *Reports {
	out := &Reports{state: state, class: fault.Token}
	for _, file := range b.Admissions {
		x, err := b.reportFile(file, state)
		if err != nil {
			out.why = append(out.why, file+": "+err.Error())
			continue
		}
		out.all = append(out.all, x)
	}
	for _, dir := range append(slices.Clone(b.Records), b.present(near)...) {
		v, err := b.recordOf(dir, state)
		if err != nil {
			out.why, out.class = append(out.why, "record "+dir+": "+err.Error()), fault.ClassOf(err)
			continue
		}
		for i := range v.Admissions {
			out.all = append(out.all, &Admitted{Report: &v.Admissions[i], from: record.Origin(v.Open.Record)})
		}
	}
	return out
}

// Admit gives the newest report that admits a token behind a module now. It is
// asked before the module sees the token's PIN.
func (rs *Reports) Admit(m hsm.ModuleInfo, t hsm.TokenInfo, now time.Time) (*Admitted, error) {
	module, tok := admit.Describe(m, t)
	var found *Admitted
	why := slices.Clone(rs.why)
	for _, x := range rs.all {
		if x.Report.Token.Serial != t.Serial || x.Report.Token.Label != t.Label {
			continue
		}
		switch err := x.Report.Check(module, tok, rs.state.World, now); {
		case err != nil:
			why = append(why, err.Error())
		case found == nil || found.Report.Made < x.Report.Made:
			found = x
		}
	}
	if found != nil {
		return found, nil
	}
	if len(why) == 0 {
		why = []string{"the binding names no report and no record of it"}
	}
	return nil, fault.Hint(fault.Errorf(rs.class, "token %s with serial %s is not admitted: %s", t.Label, t.Serial, strings.Join(why, "; ")),
		"write records: [RECORD] of the ceremony that made the token into the binding; after 90 days, or when module, libraries or configuration changed, attack it again with 'keyrite hsm admit' and write admissions: [REPORT]")
}

// kept are the reports that still hold, the newest of each token, for those who
// continue from this ceremony's record alone.
func (a *Actions) kept(r *ceremony.Run) *admission.Kept {
	newest := map[hsm.TokenID]*admission.Report{}
	keep := func(x *Admitted) {
		id := hsm.TokenID{Label: x.Report.Token.Label, Serial: x.Report.Token.Serial}
		if x.Report.CheckTime(r.World, r.Clock.Now()) == nil && (newest[id] == nil || newest[id].Made < x.Report.Made) {
			newest[id] = x.Report
		}
	}
	if a.reports != nil {
		for _, x := range a.reports.all {
			keep(x)
		}
	}
	for _, sf := range a.safes {
		if sf.admitted != nil {
			keep(sf.admitted)
		}
	}
	out := &admission.Kept{Format: admission.KeptFormat, Reports: []admission.Report{}, World: r.World}
	for _, id := range slices.SortedFunc(maps.Keys(newest), func(a, b hsm.TokenID) int {
		return strings.Compare(a.Label+"/"+a.Serial, b.Label+"/"+b.Serial)
	}) {
		out.Reports = append(out.Reports, *newest[id])
	}
	return out
}

func (b *Bind) reportFile(file string, state *charter.State) (*Admitted, error) {
	data, err := intake.Read(b.Path(file), admission.MaxBytes)
	if err != nil {
		return nil, err
	}
	r, _, err := admission.Open(data, &state.People)
	if err != nil {
		return nil, err
	}
	env, err := envelope.Parse(data)
	return &Admitted{Report: r, envelope: env}, err
}

// present are those of the records near by that are there, and the one beside the
// binding, if it names neither records nor reports.
func (b *Bind) present(near []string) []string {
	if len(b.Records) > 0 || len(b.Admissions) > 0 {
		return nil
	}
	var out []string
	for _, dir := range append(slices.Clone(near), b.Path(besideBind)) {
		if st, err := os.Stat(filepath.Join(dir, record.TranscriptFile)); err == nil && st.Mode().IsRegular() && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

// besideBind is where the record of a genesis lies that the binding does not name.
const besideBind = "record"

// recordOf verifies a record that is part of this vault: its people are those of a
// charter that ours continues, and it is signed by them.
func (b *Bind) recordOf(dir string, state *charter.State) (*record.Verified, error) {
	v, err := record.VerifyOwn(os.DirFS(b.Path(dir)))
	if err != nil {
		return nil, err
	}
	if v.Charter.Vault != state.Vault {
		return nil, fault.New(fault.Verify, "it is of another vault")
	}
	if v.Charter.Size() > state.Size() {
		return nil, fault.New(fault.Policy, "it knows more of the charter than the charter given: give the one that left the newest ceremony")
	}
	return v, state.CheckHead(v.Charter.Size(), v.Charter.Head())
}

// checkAdmitted finds, while it costs nothing yet, the report of a token that is to
// be opened.
func (a *Actions) checkAdmitted(r *ceremony.Run, s *script.Safe, m hsm.ModuleInfo, tokens []hsm.TokenInfo) error {
	e := a.state.Epochs[s.Name]
	i := slices.IndexFunc(tokens, func(t hsm.TokenInfo) bool { return token(t.Token) == e.Token })
	if i < 0 {
		return fault.Errorf(fault.Token, "there is no token %s with serial %s", e.Token.Label, e.Token.Serial)
	}
	if a.reports == nil {
		a.reports = a.bind.Reports(&a.vault.state)
	}
	x, err := a.reports.Admit(m, tokens[i], r.Clock.Now())
	if err != nil {
		return err
	}
	a.admitted[s.Name] = x
	return nil
}

// rely records the report under which a safe is opened, before its shares are
// asked for.
func (a *Actions) rely(r *ceremony.Run, sf *safe) error {
	x := a.admitted[sf.name]
	if x == nil {
		return fault.Errorf(fault.Token, "token %s is not admitted", sf.token.Label)
	}
	if err := x.Report.CheckTime(r.World, r.Clock.Now()); err != nil {
		return err
	}
	sf.admitted = x
	e := &record.Admission{
		Cases: []record.Case{}, Envelope: x.envelope, From: x.from, Safe: sf.name,
		Module: record.Program{Name: x.Report.Module.Description, SHA256: x.Report.Module.SHA256},
	}
	if x.envelope == nil {
		e.Report = x.Report
	}
	return r.Record(e)
}

// mayHold wants a key of the script to be of a kind that its token is admitted for.
func (sf *safe) mayHold(sp hsm.GenerateSpec, algorithm string) error {
	if sf.admitted == nil {
		return fault.Errorf(fault.Token, "token %s is not admitted", sf.token.Label)
	}
	if err := sf.admitted.Report.CheckAlgorithm(algorithm); err != nil {
		return err
	}
	return sf.admitted.Report.CheckTemplate(string(sp.Template))
}

// checkKinds finds early a key that its token is not admitted for.
func (a *Actions) checkKinds(s *script.Safe) error {
	x := a.admitted[s.Name]
	for i := range a.script.Keys {
		k := &a.script.Keys[i]
		if k.Safe != s.Name || x == nil {
			continue
		}
		if err := (&safe{admitted: x}).mayHold(a.spec(k, 1), k.Algorithm); err != nil {
			return err
		}
	}
	return nil
}

// admit attacks a fresh token with throw-away keys, with the algorithms of the keys
// that will be born in it and with all curves, which cost little.
func (a *Actions) admit(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	sf := a.safes[st.Safe]
	return a.withSession(ctx, sf.token, func(s *hsm.Session) error {
		rep, err := admit.Run(ctx, s, r.World, r.Clock.Now(), a.algorithmsOf(st.Safe)...)
		if err != nil {
			return err
		}
		sf.admitted = &Admitted{Report: rep}
		r.Console.Say("good", itoa(len(rep.Cases))+" attacks on token "+rep.Token.Label+", none succeeded")
		return r.Record(&record.Admission{
			Cases: []record.Case{}, Report: rep, Safe: st.Safe,
			Module: record.Program{Name: rep.Module.Description, SHA256: rep.Module.SHA256},
		})
	})
}

func (a *Actions) algorithmsOf(safe string) []hsm.Algorithm {
	out := []hsm.Algorithm{hsm.ECDSAP256, hsm.ECDSAP384, hsm.Ed25519}
	for i := range a.script.Keys {
		k := &a.script.Keys[i]
		if alg := admit.Algorithms()[k.Algorithm]; k.Safe == safe && !slices.Contains(out, alg) {
			out = append(out, alg)
		}
	}
	return out
}
