package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/charterstore"
	"keyrite/vault/engine"
	"keyrite/vault/proposal"
	"keyrite/vault/seal"
)

// proposalRoutes are the paths of proposals for the charter. What a vault does with
// them decides nothing: people approve, offline, and what counts is the fold.
func proposalRoutes() []route {
	const r, l, w, d = engine.Read, engine.List, engine.Write, engine.Delete
	return []route{
		{r, "keyrite/proposals", access.List, false, (*call).proposals},
		{l, "keyrite/proposals", access.List, false, (*call).proposals},
		{w, "keyrite/proposals", access.Create, false, (*call).propose},
		{r, "keyrite/proposals/+", access.Read, false, (*call).proposal},
		{d, "keyrite/proposals/+", access.Delete, false, (*call).dropProposal},
		{r, "keyrite/proposals/+/approvals", access.Read, false, (*call).approvals},
		{w, "keyrite/proposals/+/approvals", access.Update, false, (*call).approve},
		{w, "keyrite/proposals/+/renew", access.Update, false, (*call).renewProposal},
		{w, "keyrite/proposals/+/" + trail.AppendWord, access.Update, false, (*call).appendProposal},
	}
}

// States of a proposal.
const (
	stateOpen  = "open"  // approvals are missing
	stateReady = "ready" // enough are in: it can be appended
	stateStale = "stale" // the charter went on: it never can
)

func stateOf(p *proposal.Pending, st *charter.State) string {
	switch {
	case !p.Fits(st):
		return stateStale
	case len(p.Approvals) >= p.Need:
		return stateReady
	}
	return stateOpen
}

// toldOf is a proposal as it is answered.
func toldOf(p *proposal.Pending, st *charter.State) map[string]any {
	in := []map[string]any{}
	for _, a := range p.Approvals {
		in = append(in, map[string]any{"approver": a.Approver, "brought_by": a.By, "brought": charter.FormatTime(a.Brought)})
	}
	out := map[string]any{
		"id": p.ID, "type": p.Type, "about": p.About, "statement": p.Seq, "state": stateOf(p, st), "need": p.Need, "approvers": p.Approvers,
		"approvals": in, "brought_by": p.By, "brought": charter.FormatTime(p.Brought), "ends": charter.FormatTime(p.Ends()),
	}
	switch out["state"] {
	case stateReady:
		out["next"] = "append it"
	case stateStale:
		out["next"] = "the charter went on since, and approvals of this are worth nothing: renew it and collect them anew, or delete it"
	default:
		out["next"] = fmt.Sprintf("%d more must approve it, each with 'keyrite charter approve'", p.Need-len(p.Approvals))
	}
	return out
}

// withFile adds what only the file says.
func withFile(out map[string]any, p *charterstore.Proposal, file []byte) {
	out["proposal"], out["sentence"], out["says"], out["words"] = string(file), charter.Words(p.Statement), p.Shown, p.Words
}

// proposals lists what waits.
func (x *call) proposals([]string) error {
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		all, err := proposal.List(tx, x.cfg.Now())
		if err != nil {
			return nil, err
		}
		keys, info, st := []string{}, map[string]any{}, x.charter()
		for _, p := range all {
			keys = append(keys, p.ID)
			info[p.ID] = toldOf(p, st)
		}
		return &engine.Answer{Data: map[string]any{"keys": keys, "key_info": info}}, nil
	}
	return x.Params.Only()
}

// proposal answers one: the file as it was written, and in words what it says.
func (x *call) proposal(rest []string) error {
	var file []byte
	var p *charterstore.Proposal
	x.plan.Work = func(context.Context) (err error) {
		if file, err = x.proposalFile(rest[0]); err == nil {
			p, err = charterstore.Read(file, x.cfg.World)
		}
		return err
	}
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		kept, err := proposal.Look(tx, rest[0], x.cfg.Now())
		if err != nil {
			return nil, err
		}
		out := toldOf(kept, x.charter())
		withFile(out, p, file)
		return &engine.Answer{Data: out}, nil
	}
	return x.Params.Only()
}

func (x *call) proposalFile(id string) (file []byte, err error) {
	err = x.store.View(func(v *seal.View) error {
		file, err = proposal.File(v, id)
		return err
	})
	return file, err
}

// file is a parameter that is a whole file: its text, or the JSON that it is.
func (x *call) file(name string) ([]byte, error) {
	raw := bytes.TrimSpace(x.Params[name])
	if len(raw) == 0 || raw[0] != '"' {
		return raw, nil
	}
	s, err := x.Params.String(name)
	return []byte(s), err
}

// propose keeps a new proposal: of a type with its body, or a file made elsewhere.
func (x *call) propose([]string) error {
	if err := x.Params.Only("type", "body", "proposal"); err != nil {
		return err
	}
	typ, err := x.Params.String("type")
	if err != nil {
		return err
	}
	data, err := x.file("proposal")
	if err != nil {
		return err
	}
	if whole := x.Params.Has("proposal"); whole == (typ != "" && x.Params.Has("body")) || whole && (typ != "" || x.Params.Has("body")) {
		return fault.New(fault.Usage, "a type with its body is proposed, or a whole proposal")
	}
	if err := proposal.CheckSize(data); err != nil {
		return err
	}
	if typ != "" {
		x.plan.Shown = map[string]any{"type": cut(typ)}
	}
	body := x.Params["body"]
	return x.bring(func(st *charter.State) ([]byte, error) {
		if typ == "" {
			_, err := charterstore.Open(data, st)
			return data, err
		}
		v, err := charterstore.Body(typ, body)
		if err != nil {
			return nil, err
		}
		return charterstore.New(st, typ, v, x.cfg.Now())
	}, "")
}

// renewProposal proposes what a stale one says anew, at the charter's head. Its
// approvals are gone: they signed the head of before.
func (x *call) renewProposal(rest []string) error {
	old := rest[0]
	if err := x.Params.Only(); err != nil {
		return err
	}
	return x.bring(func(st *charter.State) ([]byte, error) {
		file, err := x.proposalFile(old)
		if err != nil {
			return nil, err
		}
		if _, err := charterstore.Standing(file, st); !errors.Is(err, charterstore.ErrStale) {
			return nil, fault.New(fault.Usage, "the proposal fits the charter as it is: it needs approvals and no renewal")
		}
		p, err := charterstore.Read(file, x.cfg.World)
		if err != nil {
			return nil, err
		}
		body, err := charterstore.Body(p.Statement.Type, p.Statement.Body)
		if err != nil {
			return nil, err
		}
		return charterstore.New(st, p.Statement.Type, body, x.cfg.Now())
	}, old)
}

// bring keeps the proposal that mk makes or finds to hold, in place of an old one if
// there is one. mk is given a state that it may use up.
func (x *call) bring(mk func(*charter.State) ([]byte, error), old string) error {
	var p *charterstore.Proposal
	var file []byte
	x.plan.Work = func(ctx context.Context) error {
		if err := x.room(old); err != nil {
			return err
		}
		st, leave, err := x.afresh(ctx)
		if err != nil {
			return err
		}
		defer leave()
		if file, err = mk(st); err != nil {
			return err
		}
		if err := proposal.CheckSize(file); err != nil {
			return err
		}
		p, err = charterstore.Standing(file, x.charter())
		return err
	}
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		if err := x.standsStill(p); err != nil {
			return nil, err
		}
		result := map[string]any{"id": p.Digest, "type": p.Statement.Type, "statement": p.Statement.Seq}
		by := x.caller.Identity
		if old != "" {
			var err error
			if by, err = x.replace(tx, old); err != nil {
				return nil, err
			}
			result["instead_of"] = old
		}
		if err := proposal.Keep(tx, p, file, by, x.cfg.Now()); err != nil {
			return nil, err
		}
		kept, err := proposal.Look(tx, p.Digest, x.cfg.Now())
		if err != nil {
			return nil, err
		}
		out := toldOf(kept, x.charter())
		withFile(out, p, file)
		return &engine.Answer{Data: out, Result: result}, nil
	}
	return nil
}

// replace takes out what is renewed, and says who brought it: it stays his, so that who
// renews gets no right to take it out, and needs no room of his own.
func (x *call) replace(tx *seal.Tx, old string) (by string, err error) {
	kept, err := proposal.Look(tx, old, x.cfg.Now())
	if err != nil {
		return "", err
	}
	return kept.By, proposal.Drop(tx, old)
}

// room refuses what would not be kept anyway, before work is done for it. Who renews
// needs none.
func (x *call) room(old string) error {
	return x.store.View(func(v *seal.View) error {
		if old != "" {
			_, err := proposal.Look(v, old, x.cfg.Now())
			return err
		}
		return proposal.Room(v, x.caller.Identity, x.cfg.Now())
	})
}

// standsStill says whether the charter is the one that the proposal continues. It is
// asked within the transaction: no charter comes into force while that is made.
func (x *call) standsStill(p *charterstore.Proposal) error {
	if st := x.charter(); p.Statement.Seq != st.Size() || p.Statement.Prev != st.Head() {
		return fault.Hint(charterstore.ErrStale, "ask again")
	}
	return nil
}

// afresh folds the charter in force anew, for a use that uses it up: one at a time, it
// may be long. leave must be called.
func (v *vault) afresh(ctx context.Context) (st *charter.State, leave func(), err error) {
	select {
	case v.folding <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fault.Errorf(fault.Interrupted, "wait for the charter: %w", ctx.Err())
	}
	leave = func() { <-v.folding }
	if st, err = v.fold(v.force.Load().lines); err != nil {
		leave()
		return nil, nil, err
	}
	return st, leave, nil
}

// dropProposal takes one out. Who brought it needs no rule.
func (x *call) dropProposal(rest []string) error {
	kept, err := x.lookNow(rest[0])
	x.free = err == nil && kept.By == x.caller.Identity
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		kept, err := proposal.Look(tx, rest[0], x.cfg.Now())
		if err != nil {
			return nil, err
		}
		if x.free && kept.By != x.caller.Identity { // it was brought anew, by another
			return nil, fault.Errorf(fault.Policy, "%w: %s brought it", access.ErrDenied, kept.By)
		}
		return &engine.Answer{Result: map[string]any{"type": kept.Type, "brought_by": kept.By}}, proposal.Drop(tx, rest[0])
	}
	return x.Params.Only()
}

func (x *call) lookNow(id string) (kept *proposal.Pending, err error) {
	err = x.store.View(func(v *seal.View) error {
		kept, err = proposal.Look(v, id, x.cfg.Now())
		return err
	})
	return kept, err
}

// approvals answers the approval files, for 'keyrite charter append' elsewhere.
func (x *call) approvals(rest []string) error {
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		if _, err := proposal.Look(tx, rest[0], x.cfg.Now()); err != nil {
			return nil, err
		}
		files, err := proposal.Approvals(tx, rest[0])
		if err != nil {
			return nil, err
		}
		texts := map[string]string{}
		for who, a := range files {
			texts[who] = string(a)
		}
		return &engine.Answer{Data: map[string]any{"approvals": texts}}, nil
	}
	return x.Params.Only()
}

// approve keeps an approval that a person made offline, if it counts.
func (x *call) approve(rest []string) error {
	if err := x.Params.Only("approval"); err != nil {
		return err
	}
	data, err := x.file("approval")
	if err != nil {
		return err
	}
	if len(data) > proposal.MaxApproval {
		return fault.Errorf(fault.Usage, "the approval has %d bytes, at most %d are taken", len(data), proposal.MaxApproval)
	}
	var p *charterstore.Proposal
	var who string
	x.plan.Work = func(context.Context) error {
		file, err := x.proposalFile(rest[0])
		if err != nil {
			return err
		}
		if p, err = charterstore.Standing(file, x.charter()); err != nil {
			return renewable(err)
		}
		who, err = p.Approver(data)
		return err
	}
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		if err := x.standsStill(p); err != nil {
			return nil, err
		}
		have, err := proposal.Approve(tx, rest[0], who, data, x.caller.Identity, x.cfg.Now())
		if err != nil {
			return nil, err
		}
		need, _ := p.Need()
		said := map[string]any{"approver": who, "have": have, "need": need}
		return &engine.Answer{Data: said, Result: said}, nil
	}
	return nil
}

// renewable adds what to do to an error about a proposal that the vault keeps.
func renewable(err error) error {
	if errors.Is(err, charterstore.ErrStale) {
		return fault.Hint(err, "renew it, and collect the approvals anew")
	}
	return err
}

// appendProposal takes a proposal over that enough people approved, as
// trail.CharterPath does; so it needs the right to that, too.
func (x *call) appendProposal(rest []string) error {
	also, err := access.ParsePath(trail.CharterPath)
	if err != nil {
		return err
	}
	x.also = also
	x.plan.Strict = true
	x.plan.Apply = func(*seal.Tx) (*engine.Answer, error) { return nil, engine.ErrByCharter } // take is asked instead
	x.take = func(ctx context.Context, e *audit.Entry) (*engine.Answer, error) {
		line, err := x.approved(rest[0])
		if err != nil {
			return nil, err
		}
		st, err := x.appendLines(ctx, [][]byte{line}, e)
		if err != nil {
			return nil, err
		}
		return &engine.Answer{Data: map[string]any{"size": st.Size(), "head": st.Head()}}, nil
	}
	return x.Params.Only()
}

// approved is the line of the charter that a proposal and its approvals make.
func (x *call) approved(id string) ([]byte, error) {
	var file []byte
	var files map[string][]byte
	err := x.store.View(func(v *seal.View) (err error) {
		if _, err = proposal.Look(v, id, x.cfg.Now()); err != nil {
			return err
		}
		if file, err = proposal.File(v, id); err != nil {
			return err
		}
		files, err = proposal.Approvals(v, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	p, err := charterstore.Standing(file, x.charter())
	if err != nil {
		return nil, renewable(err)
	}
	return charterstore.Merge(p, files)
}

// appendedNow takes the proposals out that lines of the charter are of, in the
// transaction that takes the lines over.
func appendedNow(tx *seal.Tx, lines [][]byte, e *audit.Entry) error {
	if !proposal.Any(tx) {
		return nil
	}
	var ids []string
	for _, l := range lines {
		env, err := envelope.Parse(l)
		if err != nil {
			return err
		}
		ids = append(ids, charterstore.DigestOf(env.Payload))
	}
	were, err := proposal.Appended(tx, ids)
	if len(were) > 0 {
		e.Result["proposals"] = were
	}
	return err
}

// expire takes out the proposals whose time is over, with an entry that names them. It
// is called each minute.
func (v *vault) expire(ctx context.Context) {
	over := func(r proposal.Reader) []string {
		ids, err := proposal.Expired(r, v.cfg.Now())
		if err != nil {
			v.cfg.Log.ErrorContext(ctx, "the kept proposals cannot be read", slog.String("error", err.Error()))
		}
		return ids
	}
	var ids []string
	if err := v.store.View(func(w *seal.View) error { ids = over(w); return nil }); err != nil || ids == nil {
		return // a store that stopped says so everywhere
	}
	e := v.life("proposals expired")
	_, err := v.journal.Do(ctx, seal.Durable, e, func(tx *seal.Tx) error {
		ids = over(tx)
		e.Result = map[string]any{"proposals": ids}
		for _, id := range ids {
			if err := proposal.Drop(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		v.cfg.Log.ErrorContext(ctx, "proposals whose time is over stay", slog.String("error", err.Error()))
	}
}
