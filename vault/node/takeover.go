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
	"keyrite/internal/durable"
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
	if err := durable.CheckFree(v.cfg.Charter); err != nil {
		return fmt.Errorf("open the charter: %w", err)
	}
	file, lines, err := durable.OpenAppend(v.cfg.Charter)
	if err != nil {
		return fmt.Errorf("open the charter: %w", err)
	}
	v.file, v.lines = file, lines
	st, err := v.fold(lines)
	if err != nil {
		return err
	}
	had, err := v.seen()
	if err != nil {
		return err
	}
	if had.Size > 0 {
		if err := st.CheckHead(had.Size, had.Head); err != nil {
			return fault.Errorf(fault.Policy, "%w: %w", ErrRolledBack, err)
		}
	}
	v.force.Store(&force{charter: st}) // for engines that look while they are made
	f, err := v.mount(st)
	if err != nil {
		return err
	}
	if had.Size == st.Size() {
		v.force.Store(f)
		return nil
	}
	return v.takeOver(ctx, f, had, nil, nil)
}

func (v *vault) fold(lines [][]byte) (*charter.State, error) {
	return charter.Fold(append(bytes.Join(lines, []byte("\n")), '\n'), v.cfg.World, v.cfg.Vault)
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
		h := &engine.Host{Mount: id, Charter: v.charter, View: v.store.View, Token: v.token, Public: v.cfg.Public}
		e, err := mk(h)
		if err != nil {
			return nil, fmt.Errorf("mount %s at %s: %w", m.Engine, id, err)
		}
		f.engines[id] = e
	}
	return f, nil
}

// Append takes statements over that approvers signed. The whole charter is folded
// anew with them before anything is written; they are in the file and in the store
// before they are in force. ErrUnconfirmed leaves them in force.
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
	v.takeover.Lock()
	defer v.takeover.Unlock()
	all := slices.Concat(v.lines, lines)
	st, err := v.fold(all)
	if err != nil {
		return nil, err
	}
	f, err := v.mount(st)
	if err != nil {
		return nil, err
	}
	now := v.charter()
	err = v.takeOver(ctx, f, seen{Head: now.Head(), Size: now.Size()}, lines, by)
	if err != nil && !errors.Is(err, seal.ErrUnconfirmed) {
		return nil, err
	}
	v.lines = all
	v.ident.CharterChanged()
	if err == nil {
		v.tellPulled(ctx)
	}
	return st, err
}

// takeOver makes the one transaction of a charter: what engines found, what the store
// saw, and the entry. The lines go into the file within it, after everything that can
// be refused and before the commit: a kill in between leaves a file that is ahead,
// which the next start takes over, and never a store that is.
func (v *vault) takeOver(ctx context.Context, f *force, had seen, lines [][]byte, by *audit.Entry) error {
	e := by
	if e == nil {
		e = v.life("charter")
	}
	e.Charter = had.Size
	e.Result = map[string]any{"from": had.Size, "head": f.charter.Head(), "size": f.charter.Size()}
	_, err := v.journal.Do(ctx, seal.Strict, e, func(tx *seal.Tx) error {
		if err := v.found(tx, f); err != nil {
			return err
		}
		raw, err := jcs.Marshal(seen{Head: f.charter.Head(), Size: f.charter.Size()})
		if err != nil {
			return err
		}
		if err := tx.Put(bucketNode, keySeen, raw); err != nil {
			return err
		}
		for _, l := range lines {
			if err := v.file.Line(l); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil || errors.Is(err, seal.ErrUnconfirmed) {
		v.force.Store(f)
	}
	return err
}

// found has each engine make what the charter wants of it.
func (v *vault) found(tx *seal.Tx, f *force) error {
	for _, id := range slices.Sorted(maps.Keys(f.engines)) {
		founder, ok := f.engines[id].(engine.Founder)
		if !ok {
			continue
		}
		if err := founder.Found(tx, f.charter, v.cfg.Now()); err != nil {
			return fmt.Errorf("bring %s to the charter: %w", id, err)
		}
	}
	return nil
}
