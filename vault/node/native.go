package node

import (
	"context"

	"keyrite/artifact/trail"

	"keyrite/artifact/fault"
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
	out := map[string]any{
		"world": x.cfg.World, "vault": x.cfg.Vault, "opened": trail.FormatTime(x.since),
		"charter":           map[string]any{"size": x.force.charter.Size(), "head": x.force.charter.Head()},
		"store":             map[string]any{"size": h.Size, "advanced": h.Advanced, "behind_ms": h.Behind.Milliseconds()},
		"refusals_left_out": x.refused.leftOut(), "intents_cut_off": x.cutOff,
	}
	if t := x.trouble.Load(); t != nil && t.error != nil {
		out["charter_refused"] = t.Error()
	}
	x.tell(out)
	return nil
}

// maxCharterAnswer bounds how many statements are answered at once.
const maxCharterAnswer = 1000

// readCharter answers the statements in force from number "from" on, as they stand in
// the file. Whoever reads them folds them again.
func (x *call) readCharter([]string) error {
	if err := x.Params.Only("from"); err != nil {
		return err
	}
	from, err := x.Params.Int("from")
	if err != nil {
		return err
	}
	size := x.force.charter.Size()
	if from < 0 || from > int64(size) {
		return fault.Errorf(fault.Usage, "the charter has %d statements", size)
	}
	lines := []string{} // each is a line of JSON
	for i := int(from); i < size && len(lines) < maxCharterAnswer; i++ {
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
