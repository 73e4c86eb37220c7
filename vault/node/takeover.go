package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// What a node keeps in the store.
const (
	bucketNode = "node"
	keySeen    = "charter"
)

// MaxAppend bounds how many statements are taken over at once.
const MaxAppend = 256

// seen is the charter as the store last saw it.
type seen struct {
	Head string `json:"head"`
	Size int    `json:"size"`
}

// loadCharter reads the charter file and takes over what is new in it: an append that
// was cut off after the file was written, or statements that were added while the
// vault was sealed. A file that is behind what the store saw is refused.
func (v *vault) loadCharter(ctx context.Context) error {
	had, err := v.seen()
	if err != nil {
		return err
	}
	file, err := v.awaitCharter(ctx, had)
	if err != nil {
		return err
	}
	defer file.Close()
	v.force.Store(&force{charter: file.state}) // for engines that look while they are made
	f, err := v.mount(file.state)
	if err != nil {
		return err
	}
	if had.Size == file.state.Size() {
		v.inForce(f, file.lines)
		return nil
	}
	return v.takeOver(ctx, f, takeover{had: had, file: file})
}

// inForce swaps the charter in.
func (v *vault) inForce(f *force, lines [][]byte) {
	f.lines = lines
	v.force.Store(f)
	v.coming.Store(int64(f.charter.Size()))
}

// fold folds a charter. What of it is in force was checked before, so that a long one
// does not hold a change up.
func (v *vault) fold(lines [][]byte) (*charter.State, error) {
	data := append(bytes.Join(lines, []byte("\n")), '\n')
	if f := v.force.Load(); f != nil {
		return charter.FoldOn(f.charter, data, v.cfg.World, v.cfg.Vault)
	}
	return charter.Fold(data, v.cfg.World, v.cfg.Vault)
}

func (v *vault) seen() (seen, error) {
	var s seen
	err := v.store.View(func(w *seal.View) error {
		raw, err := w.Get(bucketNode, keySeen)
		if errors.Is(err, seal.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return jcs.Unmarshal(raw, &s)
	})
	return s, err
}

// host is what an engine is given at a mount.
func (v *vault) host(id string) *engine.Host {
	return &engine.Host{Mount: id, Charter: v.charter, View: v.store.View, Token: v.token, Public: v.cfg.Public}
}

// mount makes the engines that a charter mounts. Those that are there already go on.
func (v *vault) mount(st *charter.State) (*force, error) {
	f := &force{charter: st, engines: map[string]engine.Engine{}}
	before := v.force.Load()
	for id, m := range st.Access.Mounts {
		if before != nil && before.engines[id] != nil && before.charter.Access.Mounts[id] == m {
			f.engines[id] = before.engines[id]
			continue
		}
		mk, ok := v.cfg.Engines[m.Engine]
		if !ok {
			return nil, fault.Errorf(fault.Policy, "the charter mounts an engine %.40q, which this program does not have", m.Engine)
		}
		e, err := mk(v.host(id))
		if err != nil {
			return nil, fmt.Errorf("mount %s at %s: %w", m.Engine, id, err)
		}
		f.engines[id] = e
	}
	return f, nil
}

// Append takes statements over that approvers signed. They are folded on the charter in
// force before anything is written, and are in the file and in the store before they are
// in force. ErrUnconfirmed leaves them in force.
func (n *Node) Append(ctx context.Context, lines [][]byte) (*charter.State, error) {
	v, _, leave, err := n.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return v.appendLines(ctx, lines, nil)
}

// appendLines is Append with the entry of the call that brought the lines, if there is
// one.
func (v *vault) appendLines(ctx context.Context, lines [][]byte, by *audit.Entry) (*charter.State, error) {
	if len(lines) == 0 || len(lines) > MaxAppend {
		return nil, fault.Errorf(fault.Usage, "%d statements: 1 to %d are taken over at once", len(lines), MaxAppend)
	}
	return v.goOn(ctx, lines, by)
}

// goOn takes lines over, after whatever else the file has by now.
func (v *vault) goOn(ctx context.Context, lines [][]byte, by *audit.Entry) (*charter.State, error) {
	v.takeover.Lock()
	defer v.takeover.Unlock()
	now := v.charter()
	had := seen{Head: now.Head(), Size: now.Size()}
	file, err := v.holdCharter(had, len(lines) > 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st := file.state
	if len(lines) > 0 {
		if st, err = v.fold(slices.Concat(file.lines, lines)); err != nil {
			return nil, err
		}
	}
	if st.Size() == had.Size {
		return st, nil
	}
	f, err := v.mount(st)
	if err != nil {
		return nil, err
	}
	err = v.takeOver(ctx, f, takeover{had, file, lines, by})
	if err != nil && !errors.Is(err, seal.ErrUnconfirmed) {
		return nil, err
	}
	v.ident.CharterChanged()
	v.leases.Kick()
	v.copies()
	v.remind.Set(st.Reminders)
	if v.cfg.Changed != nil {
		v.cfg.Changed()
	}
	if err == nil {
		v.tellPulled(ctx)
	}
	return st, err
}

// takeover is what is taken over.
type takeover struct {
	had   seen         // in force before
	file  *charterFile // as it is
	lines [][]byte     // that are not in it yet
	by    *audit.Entry // of the call that brought them; nil if there was none
}

// takeOver makes the one transaction of a charter: what engines found, what the store
// saw, and the entry. The lines go into the file within it, after everything that can
// be refused and before the commit: a kill in between leaves a file that is ahead,
// which the next start takes over, and never a store that is.
func (v *vault) takeOver(ctx context.Context, f *force, t takeover) error {
	e := t.by
	if e == nil {
		e = v.life("charter")
	}
	e.Charter = t.had.Size
	e.Result = map[string]any{"from": t.had.Size, "head": f.charter.Head(), "size": f.charter.Size()}
	_, err := v.journal.Do(ctx, seal.Strict, e, func(tx *seal.Tx) error {
		if err := v.found(tx, f); err != nil {
			return err
		}
		if err := appendedNow(tx, slices.Concat(t.file.lines[t.had.Size:], t.lines), e); err != nil {
			return err
		}
		raw, err := jcs.Marshal(seen{Head: f.charter.Head(), Size: f.charter.Size()})
		if err != nil {
			return err
		}
		if err := tx.Put(bucketNode, keySeen, raw); err != nil {
			return err
		}
		for _, l := range t.lines {
			if err := t.file.Line(l); err != nil {
				return err
			}
		}
		v.coming.Store(int64(f.charter.Size()))
		return nil
	})
	if err == nil || errors.Is(err, seal.ErrUnconfirmed) {
		v.inForce(f, slices.Concat(t.file.lines, t.lines))
	}
	v.coming.Store(int64(v.charter().Size()))
	return err
}

// found has each engine make what the charter wants of it. Those of mounts that were
// ended are asked, too: a key and its mount may end in one append, and the key is to be
// destroyed all the same.
func (v *vault) found(tx *seal.Tx, f *force) error {
	all := maps.Clone(f.engines)
	for id, m := range f.charter.Access.Unmounted {
		mk, ok := v.cfg.Engines[m.Engine]
		if !ok {
			continue // it may be of a program of before; nothing of it is used
		}
		e, err := mk(v.host(id))
		if err != nil {
			return fmt.Errorf("clear %s at %s: %w", m.Engine, id, err)
		}
		all[id] = e
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		founder, ok := all[id].(engine.Founder)
		if !ok {
			continue
		}
		if err := founder.Found(tx, f.charter, v.cfg.Now()); err != nil {
			return fmt.Errorf("bring %s to the charter: %w", id, err)
		}
	}
	return v.ident.Found(tx, f.charter, v.cfg.Now())
}
