package actions

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/internal/intake"
)

// Admitted is the report that admits a token, as somebody in the charter signed it.
type Admitted struct{ admission.Signed }

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

// Reports reads the reports and records that the binding names. A report counts if
// somebody in the charter signed it; one in a record only if that is closed, holds,
// and belongs to this charter. near are folders of records that count too if they
// are there: the one that the charter was taken from.
func (b *Bind) Reports(state *charter.State, near ...string) *Reports {
	return b.reports(state, append(b.earlier(state, nil), verifyAll(b.nearby(near), state, nil)...))
}

func (b *Bind) reports(state *charter.State, records []earlier) *Reports {
	out := &Reports{state: state, class: fault.Token}
	for _, file := range b.Admissions {
		data, err := intake.Read(b.Path(file), admission.MaxBytes)
		if err == nil {
			var x *admission.Signed
			if x, err = admission.Open(data, &state.People); err == nil {
				out.all = append(out.all, &Admitted{*x})
			}
		}
		if err != nil {
			out.why = append(out.why, file+": "+err.Error())
		}
	}
	for _, e := range records {
		if e.err != nil {
			out.why, out.class = append(out.why, e.err.Error()), fault.ClassOf(e.err)
			continue
		}
		for i := range e.Admissions {
			x, err := admission.Take(e.Admissions[i].Envelope, &state.People) // who signed it may have left since
			if err != nil {
				out.why = append(out.why, "record "+e.dir+", token "+e.Admissions[i].Report.Token.Label+": "+err.Error())
				continue
			}
			out.all = append(out.all, &Admitted{*x})
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
// continue from this ceremony's record alone. One whose signer leaves the charter
// here is signed again, by the conductor: it counts as long as its signer is there.
func (a *Actions) kept(ctx context.Context, r *ceremony.Run) (*admission.Kept, error) {
	newest := map[hsm.TokenID]*Admitted{}
	keep := func(x *Admitted) {
		id := hsm.TokenID{Label: x.Report.Token.Label, Serial: x.Report.Token.Serial}
		if x.Report.CheckTime(r.World, r.Clock.Now()) == nil && (newest[id] == nil || newest[id].Report.Made < x.Report.Made) {
			newest[id] = x
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
	out := &admission.Kept{Envelopes: []envelope.Envelope{}, Format: admission.KeptFormat, World: r.World}
	for _, id := range slices.SortedFunc(maps.Keys(newest), func(a, b hsm.TokenID) int {
		return cmp.Or(strings.Compare(a.Label, b.Label), strings.Compare(a.Serial, b.Serial))
	}) {
		x := newest[id]
		if _, err := admission.Take(x.Envelope, &a.state.People); err != nil {
			if x, err = a.signReport(ctx, r, x.Report); err != nil {
				return nil, err
			}
		}
		out.Envelopes = append(out.Envelopes, *x.Envelope)
	}
	return out, nil
}

// signReport has the conductor sign a report.
func (a *Actions) signReport(ctx context.Context, r *ceremony.Run, rep *admission.Report) (*Admitted, error) {
	payload, err := jcs.Marshal(rep)
	if err != nil {
		return nil, err
	}
	env, err := signAll(ctx, r, "the admission of token "+rep.Token.Label, admission.PayloadType, payload, r.Names(charter.RoleConductor)[:1])
	if err != nil {
		return nil, err
	}
	x, err := admission.Take(env, &a.state.People)
	if err != nil {
		return nil, err
	}
	return &Admitted{*x}, nil
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
		a.reports = a.bind.reports(&a.vault.state, append(a.earlier(), verifyAll(a.bind.nearby(nil), &a.vault.state, a.vault.anchors)...))
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
	return r.Record(admissionOf(sf, a.process))
}

// admissionOf is the entry that says why a safe's token may hold keys, and what bound
// the process that loaded its module.
func admissionOf(sf *safe, p *record.Process) *record.Admission {
	m := &sf.admitted.Report.Module
	return &record.Admission{Envelope: *sf.admitted.Envelope, Module: record.Program{Name: m.Description, SHA256: m.SHA256}, Process: p, Safe: sf.name}
}

// processOf is what the kernel said in the process that loaded the module.
func processOf(m hsm.ModuleInfo) *record.Process {
	h := &m.Hardening
	return &record.Process{
		Capabilities: h.Capabilities, CoreFiles: h.CoreFiles, Dumpable: h.Dumpable, Landlock: h.Landlock, Network: h.Network,
		NoNewPrivileges: h.NoNewPrivileges, Seccomp: h.Seccomp, Sockets: h.Sockets, User: h.User,
	}
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
// that will be born in it and with all curves, which cost little. The conductor
// signs what came of it.
func (a *Actions) admit(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	sf := a.safes[st.Safe]
	var rep *admission.Report
	err := a.withSession(ctx, sf.token, func(s *hsm.Session) (err error) {
		a.process = processOf(s.Module())
		rep, err = admit.Run(ctx, s, r.World, r.Clock.Now(), a.algorithmsOf(st.Safe)...)
		return err
	})
	if err != nil {
		return err
	}
	r.Console.Say("good", itoa(len(rep.Cases))+" attacks on token "+rep.Token.Label+", none succeeded")
	if sf.admitted, err = a.signReport(ctx, r, rep); err != nil {
		return err
	}
	if err := r.Record(admissionOf(sf, a.process)); err != nil {
		return err
	}
	return a.probe(ctx, r, sf)
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
