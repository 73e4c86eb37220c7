package node

import (
	"context"
	"maps"
	"slices"

	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// status is Status for a caller.
func (x *call) status([]string) error {
	if err := x.Params.Only(); err != nil {
		return err
	}
	h := x.store.Health()
	store := map[string]any{"size": h.Size, "advanced": h.Advanced, "behind_ms": h.Behind.Milliseconds()}
	for name, err := range map[string]error{"stopped": h.Stopped, "keeper": h.Keeper} {
		if err != nil {
			store[name] = shown(err)
		}
	}
	if at := x.outside(); !at.IsZero() {
		store["vouched"] = trail.FormatTime(at)
	}
	out := map[string]any{
		"world": x.cfg.World, "vault": x.cfg.Vault, "opened": trail.FormatTime(x.since),
		"charter":           map[string]any{"size": x.force.charter.Size(), "head": x.force.charter.Head()},
		"store":             store,
		"refusals_left_out": x.refused.leftOut(), "looks_left_out": x.looks.leftOut(), "intents_cut_off": x.cutOff, "results_owed": x.owedResults(),
		"sinks": x.sinkStates(), "reminders": x.reminderStates(),
	}
	if t := x.trouble.Load(); t != nil && t.error != nil {
		out["charter_refused"] = t.Error()
	}
	if x.cfg.Opening != nil {
		out["opening"] = x.cfg.Opening()
	}
	x.tell(out)
	return nil
}

// sinkStates tells how the copies of the trail are, by id.
func (v *vault) sinkStates() []map[string]any {
	out := []map[string]any{}
	if v.sinks == nil {
		return out
	}
	states := v.sinks.States()
	for _, id := range slices.Sorted(maps.Keys(states)) {
		s := states[id]
		m := map[string]any{"id": id, "kind": s.Kind, "behind": s.Behind}
		if s.Error != nil {
			m["error"], m["since"] = shown(s.Error), trail.FormatTime(s.Since)
		}
		if !s.Deleted.IsZero() {
			m["deleted"], m["lost"] = trail.FormatTime(s.Deleted), s.Lost
		}
		out = append(out, m)
	}
	return out
}

// maxCharterAnswer bounds how many statements are answered at once.
const maxCharterAnswer = 1000

// readCharter answers the statements in force from number "from" on, at most "limit" of
// them, as they stand in the file. Whoever reads them folds them again.
func (x *call) readCharter([]string) error {
	if err := x.Params.Only("from", "limit"); err != nil {
		return err
	}
	from, err := x.Params.Int("from")
	if err != nil {
		return err
	}
	limit, err := x.Params.Int("limit")
	if err != nil {
		return err
	}
	size := x.force.charter.Size()
	if from < 0 || from > int64(size) || limit < 0 || limit > maxCharterAnswer {
		return fault.Errorf(fault.Usage, "the charter has %d statements, of which at most %d are answered at once", size, maxCharterAnswer)
	}
	if !x.Params.Has("limit") {
		limit = maxCharterAnswer
	}
	lines := []string{} // each is a line of JSON
	for i := int(from); i < size && len(lines) < int(limit); i++ {
		lines = append(lines, string(x.force.lines[i]))
	}
	x.tell(map[string]any{"size": size, "head": x.force.charter.Head(), "from": from, "statements": lines})
	return nil
}

// appendCharter takes statements over that approvers signed. Who brings them decides
// nothing.
func (x *call) appendCharter([]string) error {
	if err := x.Params.Only("statements"); err != nil {
		return err
	}
	var texts []string
	if err := x.Params.Into("statements", &texts); err != nil {
		return err
	}
	lines := make([][]byte, len(texts))
	for i, t := range texts {
		lines[i] = []byte(t)
	}
	x.plan.Shown = map[string]any{"statements": len(lines)}
	x.plan.Strict = true
	x.plan.Apply = func(*seal.Tx) (*engine.Answer, error) { return nil, engine.ErrByCharter } // take is asked instead
	x.take = func(ctx context.Context, e *audit.Entry) (*engine.Answer, error) {
		st, err := x.appendLines(ctx, lines, e)
		if err != nil {
			return nil, err
		}
		return &engine.Answer{Data: map[string]any{"size": st.Size(), "head": st.Head()}}, nil
	}
	return nil
}
