// Package kv is the vault's engine for secrets that clients bring: version 2 of the
// KV engine of HashiCorp Vault, with the paths and shapes that its clients know.
//
//	MOUNT/data/PATH       read (?version=N), write, patch (merge patch), delete the newest
//	MOUNT/metadata/PATH   read, list, write, patch, delete with all versions
//	MOUNT/delete/PATH     write: {"versions": […]} are not readable any more …
//	MOUNT/undelete/PATH   … and again
//	MOUNT/destroy/PATH    write: their values are taken out of the store
//	MOUNT/subkeys/PATH    read: the names in a secret, without the values
//	MOUNT/config          read; the charter changes it (kv-config)
//
// A value is a JSON object of at most MaxValueBytes, kept in its canonical form. To
// write where nothing is needs the capability create, to write where something is
// needs update; that it is still so is compared in the transaction.
//
// It must never say who may ask, nor let a value or a name in it into the audit.
//
// Compatibility: github.com/hashicorp/vault, KV secrets engine v2, HTTP API.
// docs/operations/vault-kv.md says what differs.
package kv

import (
	"context"
	"strings"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Engine is the engine at one mount.
type Engine struct {
	host            *engine.Host
	records, values string // buckets
}

// New makes the engine of a mount.
func New(h *engine.Host) *Engine {
	return &Engine{host: h, records: h.Bucket("kv-record"), values: h.Bucket("kv-value")}
}

// call is a request that was read.
type call struct {
	*engine.Request
	path string // of the secret, without mount and operation
}

// Plan reads a request.
func (e *Engine) Plan(r *engine.Request) (*engine.Plan, error) {
	if len(r.Rest) == 0 {
		return nil, engine.ErrNoPath
	}
	c := &call{r, strings.Join(r.Rest[1:], "/")}
	op := r.Rest[0]
	if op == "config" && c.path == "" {
		return e.planConfig(c)
	}
	if c.path == "" && (op != "metadata" || r.Method != engine.List) {
		return nil, engine.ErrNoPath
	}
	type way struct {
		op     string
		method engine.Method
	}
	plan, ok := map[way]func(*call) (*engine.Plan, error){
		{"data", engine.Read}:       e.planRead,
		{"data", engine.Write}:      e.planWrite,
		{"data", engine.Patch}:      e.planPatch,
		{"data", engine.Delete}:     e.planDeleteNewest,
		{"delete", engine.Write}:    e.planDelete,
		{"undelete", engine.Write}:  e.planUndelete,
		{"destroy", engine.Write}:   e.planDestroy,
		{"subkeys", engine.Read}:    e.planSubkeys,
		{"metadata", engine.Read}:   e.planReadRecord,
		{"metadata", engine.List}:   e.planList,
		{"metadata", engine.Write}:  e.planWriteRecord,
		{"metadata", engine.Patch}:  e.planPatchRecord,
		{"metadata", engine.Delete}: e.planDeleteRecord,
	}[way{op, r.Method}]
	if !ok {
		return nil, engine.ErrNoPath
	}
	return plan(c)
}

func (e *Engine) planConfig(c *call) (*engine.Plan, error) {
	if c.Method != engine.Read {
		return nil, fault.Hint(engine.ErrByCharter, "keyrite charter propose kv-config --body FILE, with mount "+e.host.Mount)
	}
	if err := c.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Read, Apply: func(*seal.Tx) (*engine.Answer, error) {
		k := e.config()
		return &engine.Answer{Data: map[string]any{
			"cas_required": k.CASRequired, "delete_version_after": seconds(k.DeleteVersionAfter), "max_versions": k.MaxVersions,
		}}, nil
	}}, nil
}

// looked is a plan whose answer is read from the store at one moment, before its
// entry: what only reads must not hold up those who write.
func (e *Engine) looked(p *engine.Plan, read func(*seal.View) (*engine.Answer, error)) *engine.Plan {
	var found *engine.Answer
	p.Work = func(context.Context) error {
		return e.host.View(func(v *seal.View) (err error) {
			found, err = read(v)
			return err
		})
	}
	p.Apply = func(*seal.Tx) (*engine.Answer, error) { return found, nil }
	return p
}

// existing says whether a secret is there now, and what a write to it needs.
func (e *Engine) existing(path string, is func(*record) bool) (bool, access.Capability, error) {
	var there bool
	err := e.host.View(func(v *seal.View) error {
		rec, err := e.load(v, path)
		there = is(rec)
		return err
	})
	if there {
		return there, access.Update, err
	}
	return there, access.Create, err
}

func (rec *record) hasRecord() bool  { return rec != nil }
func (rec *record) hasVersion() bool { return rec != nil && rec.Current > 0 }

// current loads the record to be changed and wants what was decided upon: a caller
// who may only create must not overwrite what came meanwhile. One who may update as
// well is planned anew, and makes the next version.
func (e *Engine) current(tx *seal.Tx, path string, is func(*record) bool, decided bool) (*record, error) {
	rec, err := e.load(tx, path)
	if err != nil {
		return nil, err
	}
	if is(rec) != decided {
		return nil, fault.Errorf(fault.Usage, "%w: secret %q came or went", engine.ErrStale, path)
	}
	return rec, nil
}

func notThere(path string) error {
	return fault.Errorf(fault.Policy, "%w: secret %q", engine.ErrNotThere, path)
}
