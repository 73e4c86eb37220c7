package password

import (
	"context"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// number reads a parameter that counts from 1; 0 if it was not given.
func (c *call) number(name string) (int, error) {
	if !c.Params.Has(name) {
		return 0, nil
	}
	n, err := c.Params.Int(name)
	if err == nil && (n < 1 || n > 1<<52) {
		err = fault.Errorf(fault.Usage, "parameter %q is counted from 1", name)
	}
	return int(n), err
}

// shown is a version as clients see it, without its value.
type shown struct {
	Created  string `json:"created_time"`
	Policy   int    `json:"policy_version"`
	Restored int    `json:"restored_from,omitempty"`
	Version  int    `json:"version"`
}

func (v *version) shown() shown { return shown{v.Created, v.Policy, v.Restored, v.N} }

// secret is the answer to a read.
type secret struct {
	shown
	Due      string `json:"rotate_time"` // "" for never
	Name     string `json:"policy"`
	Password string `json:"password"`
}

// secret reads the value of a version.
func (e *Engine) secret(r reader, path string, rec *record, v *version) (*engine.Answer, error) {
	value, err := e.value(r, path, v)
	if err != nil {
		return nil, err
	}
	defer clear(value)
	return &engine.Answer{
		Data: secret{v.shown(), e.dueText(rec), rec.Policy, string(value)}, Result: map[string]any{"version": v.N},
	}, nil
}

func (e *Engine) dueText(rec *record) string {
	at := e.due(rec)
	if at.IsZero() {
		return ""
	}
	return charter.FormatTime(at)
}

// planRead reads the newest version, after it was rotated if it was due.
func (e *Engine) planRead(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Read, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.there(tx, c.path)
		if err != nil {
			return nil, err
		}
		rotated := e.isDue(rec, c.Now)
		if rotated {
			if err := e.rotate(tx, c.path, rec, c.Now); err != nil {
				return nil, err
			}
		}
		a, err := e.secret(tx, c.path, rec, rec.newest())
		if err == nil && rotated {
			a.Result["rotated"] = true
		}
		return a, err
	}}, nil
}

// planHistory lists the versions, or reads one that is not the newest.
func (e *Engine) planHistory(c *call) (*engine.Plan, error) {
	if err := c.Params.Only("version"); err != nil {
		return nil, err
	}
	n, err := c.number("version")
	if err != nil {
		return nil, err
	}
	p := &engine.Plan{Needs: access.Read}
	if n > 0 {
		p.Shown = map[string]any{"version": n}
	}
	var found *engine.Answer
	p.Work = func(context.Context) error {
		return e.host.View(func(v *seal.View) (err error) {
			found, err = e.history(v, c, n)
			return err
		})
	}
	p.Apply = func(*seal.Tx) (*engine.Answer, error) { return found, nil }
	return p, nil
}

func (e *Engine) history(v *seal.View, c *call, n int) (*engine.Answer, error) {
	rec, err := e.there(v, c.path)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		list := []shown{}
		for i := range rec.Versions {
			list = append(list, rec.Versions[i].shown())
		}
		return &engine.Answer{Data: map[string]any{"policy": rec.Policy, "rotate_time": e.dueText(rec), "versions": list}}, nil
	}
	ver, err := rec.earlier(c.path, n)
	if err != nil {
		return nil, err
	}
	return e.secret(v, c.path, rec, ver)
}

// earlier is a version that is not the newest: that one has a path of its own.
func (rec *record) earlier(path string, n int) (*version, error) {
	v := rec.find(n)
	if v == nil || v == rec.newest() {
		return nil, fault.Errorf(fault.Policy, "%w: password %q has no earlier version %d", engine.ErrNotThere, path, n)
	}
	return v, nil
}

// planCreate makes a password that is not there.
func (e *Engine) planCreate(c *call) (*engine.Plan, error) {
	if err := c.Params.Only("policy"); err != nil {
		return nil, err
	}
	name, err := c.Params.String("policy")
	if err != nil {
		return nil, err
	}
	if _, err := e.policy(name); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Create, Shown: map[string]any{"policy": name}, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		had, err := e.load(tx, c.path)
		if err != nil {
			return nil, err
		}
		if had != nil {
			return nil, fault.Hint(fault.Errorf(fault.Usage, "%w: password %q is there", engine.ErrConflict, c.path), "to have another one, write to "+e.host.Mount+"/rotate/"+c.path)
		}
		rec := &record{Format: recordFormat, Policy: name}
		if err := e.rotate(tx, c.path, rec, c.Now); err != nil {
			return nil, err
		}
		return e.made(rec), nil
	}}, nil
}

// made tells of a new version, not what it is.
func (e *Engine) made(rec *record) *engine.Answer {
	v := rec.newest()
	return &engine.Answer{
		Data:   map[string]any{"policy": rec.Policy, "rotate_time": e.dueText(rec), "version": v.N},
		Result: map[string]any{"policy_version": v.Policy, "version": v.N},
	}
}

// next reads "cas" of a change: the version that it follows, if the caller says so.
func (c *call) next(other ...string) (int, error) {
	if err := c.Params.Only(append(other, "cas")...); err != nil {
		return 0, err
	}
	return c.number("cas")
}

func follows(rec *record, path string, cas int) error {
	if cas != 0 && cas != rec.newest().N {
		return fault.Errorf(fault.Usage, "%w: password %q is at version %d", engine.ErrConflict, path, rec.newest().N)
	}
	return nil
}

// planRotate makes the next version, by another policy if the caller names one.
func (e *Engine) planRotate(c *call) (*engine.Plan, error) {
	cas, err := c.next("policy")
	if err != nil {
		return nil, err
	}
	name, err := c.Params.String("policy")
	if err != nil {
		return nil, err
	}
	show := map[string]any{}
	if name != "" {
		if _, err := e.policy(name); err != nil {
			return nil, err
		}
		show["policy"] = name
	}
	return &engine.Plan{Needs: access.Update, Shown: show, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.there(tx, c.path)
		if err != nil {
			return nil, err
		}
		if err := follows(rec, c.path, cas); err != nil {
			return nil, err
		}
		if name != "" {
			rec.Policy = name
		}
		if err := e.rotate(tx, c.path, rec, c.Now); err != nil {
			return nil, err
		}
		return e.made(rec), nil
	}}, nil
}

// planRollback makes the next version the same as an earlier one.
func (e *Engine) planRollback(c *call) (*engine.Plan, error) {
	cas, err := c.next("version")
	if err != nil {
		return nil, err
	}
	n, err := c.number("version")
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fault.New(fault.Usage, "to which version? parameter \"version\" is needed")
	}
	return &engine.Plan{Needs: access.Update, Shown: map[string]any{"version": n}, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.there(tx, c.path)
		if err != nil {
			return nil, err
		}
		if err := follows(rec, c.path, cas); err != nil {
			return nil, err
		}
		v, err := rec.earlier(c.path, n)
		if err != nil {
			return nil, err
		}
		value, err := e.value(tx, c.path, v)
		if err != nil {
			return nil, err
		}
		defer clear(value)
		again := version{Created: charter.FormatTime(c.Now), Policy: v.Policy, Restored: v.N}
		if err := e.push(tx, c.path, rec, again, value); err != nil {
			return nil, err
		}
		return e.made(rec), nil
	}}, nil
}

// planDelete takes a password out with all its versions, for good.
func (e *Engine) planDelete(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Delete, Strict: true, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.load(tx, c.path)
		if err != nil || rec == nil {
			return &engine.Answer{}, err
		}
		for _, v := range rec.Versions {
			if err := tx.Delete(e.values, slot(c.path, v.N)); err != nil {
				return nil, err
			}
		}
		return &engine.Answer{}, tx.Delete(e.records, c.path)
	}}, nil
}

// planList names what lies directly below a path: passwords, and folders with a slash.
func (e *Engine) planList(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	var keys []string
	work := func(context.Context) error {
		return e.host.View(func(v *seal.View) error {
			keys = engine.Below(v.Keys(e.records, engine.Folder(c.path)), c.path)
			if len(keys) == 0 {
				return fault.Errorf(fault.Policy, "%w: nothing is below %q", engine.ErrNotThere, c.path)
			}
			return nil
		})
	}
	apply := func(*seal.Tx) (*engine.Answer, error) {
		return &engine.Answer{Data: map[string]any{"keys": keys}}, nil
	}
	return &engine.Plan{Needs: access.List, Work: work, Apply: apply}, nil
}
