package actions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/hsm"
	"keyrite/internal/intake"
	"keyrite/vault/quorum"
)

// Restore leaves a token of the vault under one epoch and without anything of the
// killed attempt. Openers of the safe give the epoch that was in force, openers of
// safe/epoch the one dealt in the attempt. If the PINs were changing, both put the
// token back; those of the new epoch alone finish the change; those of the old one
// alone do if the change had not begun.
func (c *Cleaner) Restore(ctx context.Context, st *ceremony.Status, o record.Intent, e *record.Cleanup) (err error) {
	state, err := c.vault(st, o.Safe)
	if err != nil {
		return err
	}
	if state.Epochs[o.Safe].Epoch != o.Epoch || state.Epochs[o.Safe].Token != o.Token {
		return fault.Errorf(fault.Policy, "the charter knows safe %.40q otherwise than this ceremony", o.Safe)
	}
	sup, err := c.start(ctx, st)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sup.Close()) }()
	id := hsm.TokenID{Label: o.Token.Label, Serial: o.Token.Serial}
	if in, repinned := st.Repinned[o.Safe]; repinned {
		if err := c.settle(ctx, sup, id, state, st, in, e); err != nil {
			return err
		}
	} else if err := c.take(ctx, sup, id, o.Safe, quorum.OpenParams{State: state, Safe: o.Safe}, hsm.Current); err != nil {
		return err
	}
	if !st.Announced[o.Safe] {
		return nil
	}
	tag, err := parseTag(st.Attempt)
	if err != nil {
		return err
	}
	for _, m := range st.Moves {
		if m.Safe != o.Safe {
			continue
		}
		if err := settleMove(ctx, sup, id, m.Key, m.Object, st.Leaving[m.Object], e); err != nil {
			return err
		}
	}
	return destroyTagged(ctx, sup, id, tag, e)
}

// settle ends a change of PINs that broke off.
func (c *Cleaner) settle(ctx context.Context, sup *hsm.Supervisor, id hsm.TokenID, state *charter.State, st *ceremony.Status, in record.Intent, e *record.Cleanup) error {
	dealt := st.Dealt[in.Safe].Epoch
	older, newer := in.Safe, in.Safe+"/"+itoa(in.Epoch)
	old := quorum.OpenParams{State: state, Safe: in.Safe, SO: true}
	next, err := c.next(state, in.Safe, dealt)
	if err != nil {
		return err
	}
	e.InForce = in.Safe + "/" + itoa(in.Epoch-1)
	haveOld, haveNew := c.has(older), c.has(newer)
	if haveOld {
		err = c.take(ctx, sup, id, older, old, hsm.Current)
		if err == nil && haveNew {
			err = c.take(ctx, sup, id, newer, next, hsm.Next)
		}
		if err == nil {
			err = sup.SettlePINs(ctx, id)
		}
		if errors.Is(err, hsm.ErrPIN) && !haveNew {
			return fault.Hint(fault.Errorf(fault.Quorum, "the token has taken the SO PIN of epoch %d", in.Epoch), "its shares are needed too, to put the old PINs back, or alone, to finish: --opener "+newer+"=KEYFILE:SHAREFILE")
		}
		return err
	}
	if !haveNew {
		return fault.Errorf(fault.Quorum, "nobody gave a share of safe %s", in.Safe)
	}
	if err := c.take(ctx, sup, id, newer, next, hsm.Current); err != nil {
		return err
	}
	err = sup.SettlePINs(ctx, id)
	if errors.Is(err, hsm.ErrPIN) {
		return nil // the SO PIN had not changed yet, so the old epoch still holds
	}
	if err != nil {
		return err
	}
	e.InForce, e.Burned = newer, []string{}
	e.Exposed = append(e.Exposed, newer)
	return nil
}

func (c *Cleaner) has(who string) bool {
	return slices.ContainsFunc(c.Openers, func(o SafeOpener) bool { return o.Safe == who })
}

// take lets the PINs of an epoch flow to the supervisor.
func (c *Cleaner) take(ctx context.Context, sup *hsm.Supervisor, id hsm.TokenID, who string, p quorum.OpenParams, slot hsm.Epoch) error {
	r, err := c.combine(ctx, who, p)
	if err != nil {
		return err
	}
	defer r.Close()
	return sup.TakePINs(ctx, id, r, slot)
}

// vault folds the charter of the binding, which the attempt continued, as the attempt
// opened a safe of it.
func (c *Cleaner) vault(st *ceremony.Status, safe string) (*charter.State, error) {
	a := &Actions{bind: c.Bind}
	if err := a.fold(); err != nil {
		return nil, err
	}
	if st.Base == nil || !st.Base.Same(&a.vault.base) {
		return nil, fault.Hint(fault.New(fault.Policy, "the binding names another vault, or another charter, than this ceremony continued"), "give the binding of the ceremony")
	}
	if st.Base.Adopts == nil {
		return &a.vault.state, nil
	}
	v, err := record.VerifyVoid(os.DirFS(filepath.Join(c.Record, filepath.FromSlash(record.AfterDir))), a.vault.anchors, a.lines)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "the void record that it adopts: %w", err)
	}
	left, err := v.Pending(&a.vault.state)
	if err != nil {
		return nil, err
	}
	return openingOf(&a.vault.state, &left, safe), nil
}

// next is the vault as the attempt would have left it: people who came in it hold
// shares of the new epoch, and their files are in the record.
func (c *Cleaner) next(state *charter.State, safe string, dealt charter.Epoch) (quorum.OpenParams, error) {
	s := *state
	s.People.Roster = slices.Clone(s.People.Roster)
	s.Epochs = map[string]charter.Epoch{safe: dealt}
	for _, sh := range dealt.Shares {
		if _, ok := s.People.Person(sh.Holder); ok {
			continue
		}
		data, err := intake.Read(filepath.Join(c.Record, record.PeopleDir, sh.Holder+".person"), maxInputBytes)
		if err != nil {
			return quorum.OpenParams{}, err
		}
		p, err := person.Parse(data)
		if err != nil {
			return quorum.OpenParams{}, err
		}
		s.People.Roster = append(s.People.Roster, charter.Member{Person: *p, Role: charter.RoleKeyMaster})
	}
	return quorum.OpenParams{State: &s, Safe: safe, SO: true}, nil
}
