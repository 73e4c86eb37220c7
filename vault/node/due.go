package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/proof"
	"keyrite/vault/remind"
	"keyrite/vault/seal"
)

const (
	// agendaKept is how long what is due is not looked up anew, unless the charter
	// changes: engines may have thousands of things that end.
	agendaKept = time.Minute
	// maxDue bounds what is told at once.
	maxDue = 1000
)

// agenda is what is due, as it was looked up last.
type agenda struct {
	mu      sync.Mutex // guards the rest; held while the store is read, so that it is read once
	at      time.Time
	charter int
	items   []duty.Item
}

// dues is what is due, as it was a minute ago at most.
func (v *vault) dues() ([]duty.Item, error) {
	v.agenda.mu.Lock()
	defer v.agenda.mu.Unlock()
	now, f := v.cfg.Now(), v.force.Load()
	if age := now.Sub(v.agenda.at); age >= 0 && age < agendaKept && v.agenda.charter == f.charter.Size() {
		return v.agenda.items, nil
	}
	in := duty.Input{Charter: f.charter, Things: v.pulled(f), Unvouched: v.unvouched()}
	if v.cfg.Outside != nil {
		in.Things = append(in.Things, v.cfg.Outside(f.charter)...)
	}
	err := v.store.View(func(w *seal.View) (err error) {
		if in.Shares, err = proof.Safes(w, f.charter, now); err != nil {
			return err
		}
		for _, id := range slices.Sorted(maps.Keys(f.engines)) {
			e, ok := f.engines[id].(engine.Dated)
			if !ok {
				continue
			}
			things, err := e.Dates(w, now)
			if err != nil {
				return fmt.Errorf("what ends at %s: %w", id, err)
			}
			in.Things = append(in.Things, things...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	items := duty.Due(in, now)
	v.agenda.at, v.agenda.charter, v.agenda.items = now, f.charter.Size(), items[:min(len(items), maxDue)]
	return v.agenda.items, nil
}

// pulled are the break-glasses that are pulled, with the end of their windows where
// that is known.
func (v *vault) pulled(f *force) []duty.Thing {
	var out []duty.Thing
	for _, id := range slices.Sorted(maps.Keys(f.charter.Grants.Pulled)) {
		p := f.charter.Grants.Pulled[id]
		t := duty.Thing{Kind: duty.BreakGlass, Name: fmt.Sprintf("%s/%d", id, p.Times), About: "break-glass " + id + " is pulled: " + p.Reason}
		from, to := p.Window(v.known(&p))
		if from.IsZero() {
			t.Fault = "nobody outside knows of it yet, so its delay has not begun"
		}
		t.Ends = to
		out = append(out, t)
	}
	return out
}

// due tells what has to be done next.
func (x *call) due([]string) error {
	if err := x.Params.Only(); err != nil {
		return err
	}
	var items []duty.Item
	x.plan.Work = func(context.Context) (err error) {
		items, err = x.dues()
		return err
	}
	x.plan.Apply = func(*seal.Tx) (*engine.Answer, error) {
		soon, late := duty.Count(items)
		return &engine.Answer{Data: map[string]any{"items": items, "soon": soon, "late": late}}, nil
	}
	return nil
}

// Due is what has to be done next, what is most urgent first, as it was a minute ago at
// most. The list must not be changed. Of a sealed vault it is ErrSealed.
func (n *Node) Due() ([]duty.Item, error) {
	v, _, leave, err := n.enter(context.Background())
	if err != nil {
		return nil, err
	}
	defer leave()
	items, err := v.dues()
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "look up what is due: %w", err)
	}
	return items, nil
}

// startReminders begins to tell those whom the charter names.
func (v *vault) startReminders() {
	v.remind = remind.New(remind.Config{
		World: v.cfg.World, Vault: v.cfg.Vault, Store: v.store, Journal: v.journal, Now: v.cfg.Now, Log: v.cfg.Log, Items: v.dues,
		Entry: func(what string) *audit.Entry { return v.life(what) },
	})
	v.remind.Set(v.charter().Reminders)
}

// reminderStates are the reminders as a caller is told of them.
func (v *vault) reminderStates() []map[string]any {
	out := []map[string]any{}
	states := v.remind.States()
	for _, id := range slices.Sorted(maps.Keys(states)) {
		s := states[id]
		m := map[string]any{"id": id, "kind": s.Kind}
		if !s.Sent.IsZero() {
			m["sent"] = trail.FormatTime(s.Sent)
		}
		if s.Error != nil {
			m["error"], m["since"] = shown(s.Error), trail.FormatTime(s.Since)
		}
		out = append(out, m)
	}
	return out
}
