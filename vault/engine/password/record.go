package password

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

const recordFormat = "keyrite/password/v1"

// record is what is kept of a password beside its values.
type record struct {
	Format   string    `json:"format"`
	Policy   string    `json:"policy"`   // name
	Versions []version `json:"versions"` // rising, the newest last; never empty
}

// version is one version of a password; its value is in the other bucket.
type version struct {
	Created string `json:"created"` // RFC 3339, UTC
	N       int    `json:"n"`       // from 1
	Policy  int    `json:"policy"`  // version of the policy that it was made by
	// Restored is the version whose value it has again; 0 if it was drawn.
	Restored int `json:"restored"`
}

// reader is what seal.Tx and seal.View have in common.
type reader interface {
	Get(bucket, key string) ([]byte, error)
	Keys(bucket, prefix string) []string
}

// load reads the record of a password; nil without an error if there is none.
func (e *Engine) load(r reader, path string) (*record, error) {
	raw, err := r.Get(e.records, path)
	if errors.Is(err, seal.ErrNotFound) {
		return nil, nil //nolint:nilnil // nothing is there, which is no error here
	}
	if err != nil {
		return nil, err
	}
	var rec record
	if err := jcs.Unmarshal(raw, &rec); err != nil {
		return nil, err
	}
	if rec.Format != recordFormat || len(rec.Versions) == 0 {
		return nil, seal.ErrAltered
	}
	return &rec, nil
}

// there is load for those who want one.
func (e *Engine) there(r reader, path string) (*record, error) {
	rec, err := e.load(r, path)
	if err == nil && rec == nil {
		err = fault.Errorf(fault.Policy, "%w: password %q", engine.ErrNotThere, path)
	}
	return rec, err
}

// slot is the key of a version's value. No path has a "#".
func slot(path string, n int) string { return path + "#" + strconv.Itoa(n) }

func (rec *record) newest() *version { return &rec.Versions[len(rec.Versions)-1] }

// find is the version n; nil if it is not kept.
func (rec *record) find(n int) *version {
	i := slices.IndexFunc(rec.Versions, func(v version) bool { return v.N == n })
	if i < 0 {
		return nil
	}
	return &rec.Versions[i]
}

// due is when the newest version is to be rotated; the zero time for never. A policy
// that was ended rotates nothing.
func (e *Engine) due(rec *record) time.Time {
	p, err := e.policy(rec.Policy)
	if err != nil || p.RotateAfter == 0 {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, rec.newest().Created)
	if err != nil {
		return time.Time{}
	}
	return at.Add(time.Duration(p.RotateAfter) * time.Second)
}

func (e *Engine) isDue(rec *record, now time.Time) bool {
	at := e.due(rec)
	return !at.IsZero() && !now.Before(at)
}

// rotate draws the next version.
func (e *Engine) rotate(tx *seal.Tx, path string, rec *record, now time.Time) error {
	p, err := e.policy(rec.Policy)
	if err != nil {
		return err
	}
	value, err := generate(p)
	if err != nil {
		return err
	}
	defer clear(value)
	return e.push(tx, path, rec, version{Created: charter.FormatTime(now), Policy: p.Version}, value)
}

// push adds a version, and takes those out of the store that are too many now.
func (e *Engine) push(tx *seal.Tx, path string, rec *record, v version, value []byte) error {
	v.N = 1
	if len(rec.Versions) > 0 {
		v.N = rec.newest().N + 1
	}
	rec.Versions = append(rec.Versions, v)
	keep := 1 + charter.MaxPasswordHistory // where the policy was ended
	if p, err := e.policy(rec.Policy); err == nil {
		keep = 1 + p.History
	}
	for len(rec.Versions) > keep {
		if err := tx.Delete(e.values, slot(path, rec.Versions[0].N)); err != nil {
			return err
		}
		rec.Versions = rec.Versions[1:]
	}
	if err := tx.Put(e.values, slot(path, v.N), value); err != nil {
		return err
	}
	raw, err := jcs.Marshal(rec)
	if err != nil {
		return err
	}
	return tx.Put(e.records, path, raw)
}

// value reads a version that the record has.
func (e *Engine) value(r reader, path string, v *version) ([]byte, error) {
	raw, err := r.Get(e.values, slot(path, v.N))
	if errors.Is(err, seal.ErrNotFound) {
		err = seal.ErrAltered
	}
	return raw, err
}
