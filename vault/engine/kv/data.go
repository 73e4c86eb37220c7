package kv

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// shape is a version as clients know it.
type shape struct {
	Created   string            `json:"created_time"`
	Custom    map[string]string `json:"custom_metadata"`
	Deleted   string            `json:"deletion_time"`
	Destroyed bool              `json:"destroyed"`
	Version   int               `json:"version"`
}

func (v *version) shape(rec *record) shape {
	return shape{v.Created, rec.Custom, v.Deleted, v.Destroyed, v.N}
}

// secretShape is the answer to a read.
type secretShape struct {
	Data     json.RawMessage `json:"data"` // null if it is gone
	Metadata shape           `json:"metadata"`
}

type subkeysShape struct {
	Metadata shape           `json:"metadata"`
	Subkeys  json.RawMessage `json:"subkeys"`
}

// number reads a parameter that counts from 0.
func (c *call) number(name string) (int, error) {
	n, err := c.Params.Int(name)
	if err == nil && (n < 0 || n > 1<<52) {
		err = fault.Errorf(fault.Usage, "parameter %q is out of range", name)
	}
	return int(n), err
}

func (e *Engine) planRead(c *call) (*engine.Plan, error) {
	if err := c.Params.Only("version"); err != nil {
		return nil, err
	}
	n, err := c.number("version")
	if err != nil {
		return nil, err
	}
	p := &engine.Plan{Needs: access.Read, Shown: shownVersion(n)}
	return e.looked(p, func(v *seal.View) (*engine.Answer, error) {
		raw, ver, rec, err := e.read(v, c, n)
		if err != nil {
			return nil, err
		}
		return &engine.Answer{
			Data: secretShape{raw, ver.shape(rec)}, Gone: raw == nil, Result: map[string]any{"version": ver.N},
		}, nil
	}), nil
}

func shownVersion(n int) map[string]any {
	if n == 0 {
		return nil
	}
	return map[string]any{"version": n}
}

// read finds a version; the value is nil where it is deleted or destroyed.
func (e *Engine) read(r reader, c *call, n int) ([]byte, *version, *record, error) {
	rec, err := e.load(r, c.path)
	if err != nil {
		return nil, nil, nil, err
	}
	if rec == nil {
		return nil, nil, nil, notThere(c.path)
	}
	v := rec.find(n)
	if v == nil {
		return nil, nil, nil, fault.Errorf(fault.Policy, "%w: secret %q has no version %d", engine.ErrNotThere, c.path, n)
	}
	if v.gone(c.Now) {
		return nil, v, rec, nil
	}
	raw, err := r.Get(e.values, slot(c.path, v.N))
	if errors.Is(err, seal.ErrNotFound) {
		err = seal.ErrAltered // the record has it
	}
	return raw, v, rec, err
}

func (e *Engine) planSubkeys(c *call) (*engine.Plan, error) {
	if err := c.Params.Only("version", "depth"); err != nil {
		return nil, err
	}
	n, err := c.number("version")
	if err != nil {
		return nil, err
	}
	depth, err := c.number("depth")
	if err != nil {
		return nil, err
	}
	return e.looked(&engine.Plan{Needs: access.Read, Shown: shownVersion(n)}, func(v *seal.View) (*engine.Answer, error) {
		raw, ver, rec, err := e.read(v, c, n)
		if err != nil {
			return nil, err
		}
		out := &engine.Answer{Gone: raw == nil, Result: map[string]any{"version": ver.N}}
		var names []byte
		if raw != nil {
			o, err := parseObject(raw)
			if err != nil {
				return nil, seal.ErrAltered
			}
			names = appendValue(nil, o.subkeys(depth))
		}
		out.Data = subkeysShape{ver.shape(rec), names}
		return out, nil
	}), nil
}

// options are those of a write.
type options struct {
	cas   int
	given bool
}

// writing reads the parameters of write and patch.
func (c *call) writing() (object, *options, error) {
	if err := c.Params.Only("data", "options"); err != nil {
		return nil, nil, err
	}
	o := &options{}
	if c.Params.Has("options") {
		if _, err := parseObject(c.Params["options"]); err != nil {
			return nil, nil, fault.Errorf(fault.Usage, "options: %w", err)
		}
		var in engine.Params
		if err := json.Unmarshal(c.Params["options"], &in); err != nil {
			return nil, nil, errObj
		}
		if err := in.Only("cas"); err != nil {
			return nil, nil, err
		}
		var err error
		if o.cas, err = (&call{Request: &engine.Request{Params: in}}).number("cas"); err != nil {
			return nil, nil, err
		}
		o.given = in.Has("cas")
	}
	if !c.Params.Has("data") {
		return nil, nil, fault.New(fault.Usage, "no data provided")
	}
	data, err := parseObject(c.Params["data"])
	return data, o, err
}

func (o *options) shown() map[string]any {
	if !o.given {
		return nil
	}
	return map[string]any{"cas": o.cas}
}

// check compares with the version that the writer knows.
func (o *options) check(rec *record, k *charter.KVConfig) error {
	if !o.given {
		if rec.CASRequired || k.CASRequired {
			return fault.New(fault.Usage, "check-and-set parameter required for this call")
		}
		return nil
	}
	if o.cas != rec.Current {
		return fault.Errorf(fault.Usage, "%w: check-and-set parameter did not match the current version", engine.ErrConflict)
	}
	return nil
}

func (e *Engine) planWrite(c *call) (*engine.Plan, error) {
	data, opts, err := c.writing()
	if err != nil {
		return nil, err
	}
	value, err := data.encode()
	if err != nil {
		return nil, err
	}
	there, needs, err := e.existing(c.path, (*record).hasVersion)
	if err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: needs, Shown: opts.shown(), Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.current(tx, c.path, (*record).hasVersion, there)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			rec = newRecord(c.Now)
		}
		return e.put(tx, c, opts, rec, value)
	}}, nil
}

// put makes the next version, if it is the one that the writer means.
func (e *Engine) put(tx *seal.Tx, c *call, opts *options, rec *record, value []byte) (*engine.Answer, error) {
	k := e.config()
	if err := opts.check(rec, &k); err != nil {
		return nil, err
	}
	v, err := e.push(tx, c.path, rec, value, c.Now)
	if err != nil {
		return nil, err
	}
	return &engine.Answer{Data: v.shape(rec), Result: map[string]any{"version": v.N}}, nil
}

// patched is a value with a patch in it, made from one version.
type patched struct {
	from  int
	value []byte
}

// patch makes the value that follows from the newest version. Without one that is
// readable the answer says what is there.
func (e *Engine) patch(r reader, c *call, data object) (*patched, *engine.Answer, *record, error) {
	raw, v, rec, err := e.read(r, c, 0)
	if err != nil {
		return nil, nil, nil, err
	}
	if raw == nil {
		return nil, &engine.Answer{Data: secretShape{nil, v.shape(rec)}, Gone: true}, rec, nil
	}
	was, err := parseObject(raw)
	if err != nil {
		return nil, nil, nil, seal.ErrAltered
	}
	out, ok := merge(was, data).(object)
	if !ok {
		return nil, nil, nil, errObj
	}
	value, err := out.encode()
	return &patched{v.N, value}, nil, rec, err
}

// planPatch merges outside of the transaction, and again within only where another
// version came meanwhile.
func (e *Engine) planPatch(c *call) (*engine.Plan, error) {
	data, opts, err := c.writing()
	if err != nil {
		return nil, err
	}
	var made *patched
	work := func(context.Context) error {
		return e.host.View(func(v *seal.View) (err error) {
			made, _, _, err = e.patch(v, c, data)
			return err
		})
	}
	apply := func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.load(tx, c.path)
		if err != nil {
			return nil, err
		}
		if made == nil || rec == nil || rec.Current != made.from || rec.find(0).gone(c.Now) {
			var gone *engine.Answer
			if made, gone, rec, err = e.patch(tx, c, data); err != nil || gone != nil {
				return gone, err
			}
		}
		return e.put(tx, c, opts, rec, made.value)
	}
	return &engine.Plan{Needs: access.Update, Shown: opts.shown(), Work: work, Apply: apply}, nil
}

// seconds is a duration as clients know it: "0s", "1h0m0s".
func seconds(n int64) string { return (time.Duration(n) * time.Second).String() }
