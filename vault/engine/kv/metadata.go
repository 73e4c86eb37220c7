package kv

import (
	"encoding/json"
	"maps"
	"strconv"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Limits of custom metadata.
const (
	MaxCustom           = 64
	MaxCustomNameBytes  = 128
	MaxCustomValueBytes = 512
)

// recordShape is a record as clients know it.
type recordShape struct {
	CASRequired bool                    `json:"cas_required"`
	Created     string                  `json:"created_time"`
	Current     int                     `json:"current_version"`
	Custom      map[string]string       `json:"custom_metadata"`
	DeleteAfter string                  `json:"delete_version_after"`
	Max         int                     `json:"max_versions"`
	Oldest      int                     `json:"oldest_version"` // 0 before one was pruned
	Updated     string                  `json:"updated_time"`
	Versions    map[string]versionShape `json:"versions"`
}

type versionShape struct {
	Created   string `json:"created_time"`
	Deleted   string `json:"deletion_time"`
	Destroyed bool   `json:"destroyed"`
}

func (rec *record) shape() recordShape {
	s := recordShape{
		CASRequired: rec.CASRequired, Created: rec.Created, Current: rec.Current, Custom: rec.Custom,
		DeleteAfter: seconds(rec.DeleteAfter), Max: rec.Max, Updated: rec.Updated, Versions: map[string]versionShape{},
	}
	for _, v := range rec.Versions {
		s.Versions[strconv.Itoa(v.N)] = versionShape{v.Created, v.Deleted, v.Destroyed}
	}
	if len(rec.Versions) > 0 && rec.Versions[0].N > 1 {
		s.Oldest = rec.Versions[0].N
	}
	return s
}

func (e *Engine) planReadRecord(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return e.looked(&engine.Plan{Needs: access.Read}, func(v *seal.View) (*engine.Answer, error) {
		rec, err := e.load(v, c.path)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			return nil, notThere(c.path)
		}
		return &engine.Answer{Data: rec.shape()}, nil
	}), nil
}

// planList names what lies directly below a path: secrets, and folders with a slash.
func (e *Engine) planList(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return e.looked(&engine.Plan{Needs: access.List}, func(v *seal.View) (*engine.Answer, error) {
		keys := engine.Below(v.Keys(e.records, engine.Folder(c.path)), c.path)
		if len(keys) == 0 {
			return nil, notThere(c.path)
		}
		return &engine.Answer{Data: map[string]any{"keys": keys}}, nil
	}), nil
}

// settings are what a client may say of a secret; nil leaves it as it is.
type settings struct {
	cas    *bool
	after  *int64
	max    *int
	custom map[string]*string // a value of nil takes the name away; only a patch has any
	whole  bool               // custom is all there is
}

// settings reads the parameters of a write or a patch.
func (c *call) settings(patch bool) (*settings, error) {
	if err := c.Params.Only("cas_required", "custom_metadata", "delete_version_after", "max_versions"); err != nil {
		return nil, err
	}
	s := &settings{whole: !patch}
	given := func(name string) bool {
		_, ok := c.Params[name]
		return ok && (patch || c.Params.Has(name)) // null in a patch: as if never said
	}
	if given("cas_required") {
		b, err := c.Params.Bool("cas_required")
		if err != nil {
			return nil, err
		}
		s.cas = &b
	}
	if given("max_versions") {
		n, err := c.number("max_versions")
		if err != nil {
			return nil, err
		}
		if n > charter.MaxKVVersions {
			return nil, fault.Errorf(fault.Usage, "a secret keeps at most %d versions", charter.MaxKVVersions)
		}
		s.max = &n
	}
	if given("delete_version_after") {
		d, err := c.Params.Duration("delete_version_after")
		if err != nil {
			return nil, err
		}
		n := int64(d / time.Second)
		if n > charter.MaxKVSeconds || d%time.Second != 0 {
			return nil, fault.New(fault.Usage, "delete_version_after is whole seconds, at most a hundred years")
		}
		s.after = &n
	}
	return s, s.readCustom(c, patch)
}

func (s *settings) readCustom(c *call, patch bool) error {
	if !c.Params.Has("custom_metadata") {
		if _, null := c.Params["custom_metadata"]; null && patch {
			s.custom, s.whole = map[string]*string{}, true
		}
		return nil
	}
	raw := c.Params["custom_metadata"]
	if _, err := parseObject(raw); err != nil {
		return fault.Errorf(fault.Usage, "custom_metadata: %w", err)
	}
	if err := json.Unmarshal(raw, &s.custom); err != nil {
		return fault.New(fault.Usage, "custom_metadata is names and texts")
	}
	for _, v := range s.custom {
		if v == nil && !patch {
			return fault.New(fault.Usage, "custom_metadata is names and texts")
		}
	}
	return nil
}

// apply changes the record.
func (s *settings) apply(rec *record) error {
	if s.cas != nil {
		rec.CASRequired = *s.cas
	}
	if s.max != nil {
		rec.Max = *s.max
	}
	if s.after != nil {
		rec.DeleteAfter = *s.after
	}
	if s.custom == nil {
		return nil
	}
	out := map[string]string{}
	if !s.whole {
		maps.Copy(out, rec.Custom)
	}
	for name, v := range s.custom {
		if v == nil {
			delete(out, name)
			continue
		}
		out[name] = *v
	}
	rec.Custom = out
	if len(out) == 0 {
		rec.Custom = nil
	}
	return checkCustom(out)
}

func checkCustom(m map[string]string) error {
	if len(m) > MaxCustom {
		return fault.Errorf(fault.Usage, "custom_metadata has at most %d names", MaxCustom)
	}
	for name, v := range m {
		if name == "" || len(name) > MaxCustomNameBytes || len(v) > MaxCustomValueBytes {
			return fault.Errorf(fault.Usage, "custom_metadata: names have 1 to %d bytes, texts at most %d", MaxCustomNameBytes, MaxCustomValueBytes)
		}
	}
	return nil
}

func (e *Engine) planWriteRecord(c *call) (*engine.Plan, error) {
	s, err := c.settings(false)
	if err != nil {
		return nil, err
	}
	there, needs, err := e.existing(c.path, (*record).hasRecord)
	if err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: needs, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.current(tx, c.path, (*record).hasRecord, there)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			rec = newRecord(c.Now)
		}
		return e.settle(tx, c, s, rec)
	}}, nil
}

func (e *Engine) planPatchRecord(c *call) (*engine.Plan, error) {
	s, err := c.settings(true)
	if err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Update, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.load(tx, c.path)
		if err != nil {
			return nil, err
		}
		if rec == nil {
			return nil, notThere(c.path)
		}
		return e.settle(tx, c, s, rec)
	}}, nil
}

func (e *Engine) settle(tx *seal.Tx, c *call, s *settings, rec *record) (*engine.Answer, error) {
	if err := s.apply(rec); err != nil {
		return nil, err
	}
	rec.Updated = stamp(c.Now)
	return &engine.Answer{}, e.save(tx, c.path, rec)
}

// planDeleteRecord takes a secret out with all its versions, for good.
func (e *Engine) planDeleteRecord(c *call) (*engine.Plan, error) {
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Delete, Strict: true, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		rec, err := e.load(tx, c.path)
		if err != nil || rec == nil {
			return &engine.Answer{}, err
		}
		for i := range rec.Versions {
			if err := e.erase(tx, c.path, &rec.Versions[i]); err != nil {
				return nil, err
			}
		}
		return &engine.Answer{}, tx.Delete(e.records, c.path)
	}}, nil
}
