package kv

import (
	"encoding/json"
	"slices"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// versions reads the list of versions, whose members clients write as numbers or as
// texts.
func (c *call) versions() ([]int, error) {
	if err := c.Params.Only("versions"); err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := c.Params.Into("versions", &raw); err != nil {
		return nil, err
	}
	if len(raw) == 0 || len(raw) > charter.MaxKVVersions {
		return nil, fault.Errorf(fault.Usage, "versions lists 1 to %d versions", charter.MaxKVVersions)
	}
	var out []int
	for _, r := range raw {
		one := &call{Request: &engine.Request{Params: engine.Params{"versions": r}}}
		n, err := one.number("versions")
		if err != nil {
			return nil, err
		}
		if n < 1 {
			return nil, fault.New(fault.Usage, "versions are counted from 1")
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// changing is a plan that does something to versions of a secret. One that is not
// known is passed over, and so is a secret: it is as it should be.
func (e *Engine) changing(c *call, list []int, do func(*seal.Tx, *version) error) *engine.Plan {
	return &engine.Plan{Needs: access.Update, Shown: map[string]any{"versions": list}, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.load(tx, c.path)
		if err != nil || rec == nil {
			return &engine.Answer{}, err
		}
		done := []int{}
		for _, n := range list {
			v := rec.find(n)
			if v == nil || v.Destroyed {
				continue
			}
			if err := do(tx, v); err != nil {
				return nil, err
			}
			done = append(done, n)
		}
		return &engine.Answer{Result: map[string]any{"versions": done}}, e.save(tx, c.path, rec)
	}}
}

func (e *Engine) planDelete(c *call) (*engine.Plan, error) {
	list, err := c.versions()
	if err != nil {
		return nil, err
	}
	return e.changing(c, list, func(_ *seal.Tx, v *version) error {
		c.remove(v)
		return nil
	}), nil
}

// remove makes a version unreadable from now on, if it is not already.
func (c *call) remove(v *version) {
	if !v.gone(c.Now) {
		v.Deleted = stamp(c.Now)
	}
}

func (e *Engine) planUndelete(c *call) (*engine.Plan, error) {
	list, err := c.versions()
	if err != nil {
		return nil, err
	}
	return e.changing(c, list, func(_ *seal.Tx, v *version) error {
		v.Deleted = ""
		return nil
	}), nil
}

// planDestroy waits for the head outside: what was destroyed must not come back with
// an older copy of the file.
func (e *Engine) planDestroy(c *call) (*engine.Plan, error) {
	list, err := c.versions()
	if err != nil {
		return nil, err
	}
	p := e.changing(c, list, func(tx *seal.Tx, v *version) error { return e.erase(tx, c.path, v) })
	p.Strict = true
	return p, nil
}

// planDeleteNewest is the delete of a secret as most clients know it.
func (e *Engine) planDeleteNewest(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Delete, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.load(tx, c.path)
		if err != nil || rec == nil {
			return &engine.Answer{}, err
		}
		v := rec.find(0)
		if v == nil {
			return &engine.Answer{}, nil
		}
		c.remove(v)
		return &engine.Answer{Result: map[string]any{"version": v.N}}, e.save(tx, c.path, rec)
	}}, nil
}
