package node

import (
	"context"
	"io"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

// copies makes the sinks those of the charter in force.
func (v *vault) copies() {
	if v.sinks != nil {
		v.sinks.Set(v.charter().Audit.Sinks)
	}
}

// startCopies begins to copy the trail, if there is a folder for it.
func (v *vault) startCopies() {
	if v.cfg.Copies == "" {
		return
	}
	v.sinks = audit.NewSinks(v.store, v.cfg.Copies, v.cfg.Now, v.cfg.Log)
	v.journal.Tell(v.sinks.Wake)
	v.copies()
}

// endCopies waits for the sinks to end, but not for one that hangs. What they did not copy
// yet they copy when the vault is opened again.
func (v *vault) endCopies() {
	if v.sinks != nil {
		v.sinks.Set(nil)
	}
}

// Extract writes the entries chosen, with their proofs, and says how many they are. That
// it was done has an entry of its own. note states the newest head, signed by the log's
// key and by whoever cosigns it.
func (n *Node) Extract(ctx context.Context, w io.Writer, note func(seal.Head) ([]byte, error), c audit.Choice) (int64, error) {
	v, ctx, leave, err := n.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	s := v.charter().TrailSigners()
	if s.Log.Public == nil {
		return 0, fault.Hint(fault.New(fault.Policy, "the charter names no key for the vault's trail, so nobody could verify an extract"),
			"keyrite charter propose audit-log, with the log's public key that 'keyrite-vault create' printed")
	}
	e := v.life("audit extract")
	e.Params = shownChoice(c)
	if _, err := v.journal.Do(ctx, seal.Strict, e, nil); err != nil {
		return 0, unwritten(err)
	}
	text, err := note(v.store.Head())
	if err != nil {
		return 0, err
	}
	return v.journal.Extract(w, text, s, c)
}

// shownChoice is a choice as it stands in the log.
func shownChoice(c audit.Choice) map[string]any {
	out := map[string]any{}
	for name, at := range map[string]time.Time{"from": c.From, "to": c.To} {
		if !at.IsZero() {
			out[name] = trail.FormatTime(at)
		}
	}
	for name, s := range map[string]string{"identity": c.Identity, "path": c.Path, "operation": c.Operation, "class": c.Class} {
		if s != "" {
			out[name] = cut(s)
		}
	}
	if c.Kinds != nil {
		out["kinds"] = c.Kinds
	}
	if c.Peer.IsValid() {
		out["peer"] = c.Peer.String()
	}
	return out
}
