package kv

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/jcs"
	"keyrite/vault/seal"
)

// recordFormat names what is kept of a secret beside its values.
const recordFormat = "keyrite/kv-secret/v1"

// record is what is kept of a secret beside its values.
type record struct {
	CASRequired bool              `json:"cas_required"`
	Created     string            `json:"created"`
	Current     int               `json:"current"`      // the newest version; 0 before the first
	Custom      map[string]string `json:"custom"`       // null if there is none
	DeleteAfter int64             `json:"delete_after"` // seconds; 0: as the mount
	Format      string            `json:"format"`
	Max         int               `json:"max"` // versions; 0: as the mount
	Updated     string            `json:"updated"`
	Versions    []version         `json:"versions"` // rising, without those that were pruned
}

// version is one version of a secret. Its value is in the other bucket, unless it
// was destroyed.
type version struct {
	Created   string `json:"created"`
	Deleted   string `json:"deleted"` // since or from when it is not readable; "" for never
	Destroyed bool   `json:"destroyed"`
	N         int    `json:"n"`
}

// reader is what seal.Tx and seal.View have in common.
type reader interface {
	Get(bucket, key string) ([]byte, error)
	Keys(bucket, prefix string) []string
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// bounded is a time with no more than our clock's word for it.
func (v *version) gone(now time.Time) bool {
	if v.Destroyed {
		return true
	}
	if v.Deleted == "" {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, v.Deleted)
	return err != nil || !now.Before(at)
}

// load reads the record of a secret; nil without an error if there is none.
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
	if rec.Format != recordFormat {
		return nil, seal.ErrAltered
	}
	return &rec, nil
}

func (e *Engine) save(tx *seal.Tx, path string, rec *record) error {
	raw, err := jcs.Marshal(rec)
	if err != nil {
		return err
	}
	return tx.Put(e.records, path, raw)
}

// slot is the key of a version's value. No path has a "#".
func slot(path string, n int) string { return path + "#" + strconv.Itoa(n) }

// find is the version n, or the newest for 0; nil if it is not known.
func (rec *record) find(n int) *version {
	if n == 0 {
		n = rec.Current
	}
	i := slices.IndexFunc(rec.Versions, func(v version) bool { return v.N == n })
	if i < 0 {
		return nil
	}
	return &rec.Versions[i]
}

// config is how the mount keeps secrets.
func (e *Engine) config() charter.KVConfig {
	c, ok := e.host.Charter().KV[e.host.Mount]
	if !ok {
		c = charter.KVConfig{MaxVersions: charter.DefaultKVVersions, Mount: e.host.Mount}
	}
	return c
}

// until is when a version that is made now ceases to be readable; "" for never. Of
// the secret's time and the mount's the shorter counts.
func (rec *record) until(c *charter.KVConfig, now time.Time) string {
	d := rec.DeleteAfter
	if d == 0 || c.DeleteVersionAfter > 0 && c.DeleteVersionAfter < d {
		d = c.DeleteVersionAfter
	}
	if d == 0 {
		return ""
	}
	return stamp(now.Add(time.Duration(d) * time.Second))
}

// push adds a version with its value, and takes out of the store those that are
// too many now.
func (e *Engine) push(tx *seal.Tx, path string, rec *record, value []byte, now time.Time) (*version, error) {
	c := e.config()
	rec.Current++
	v := version{Created: stamp(now), Deleted: rec.until(&c, now), N: rec.Current}
	rec.Versions = append(rec.Versions, v)
	rec.Updated = v.Created
	keep := rec.Max
	if keep == 0 {
		keep = c.MaxVersions
	}
	for len(rec.Versions) > keep {
		if err := e.erase(tx, path, &rec.Versions[0]); err != nil {
			return nil, err
		}
		rec.Versions = rec.Versions[1:]
	}
	if err := tx.Put(e.values, slot(path, v.N), value); err != nil {
		return nil, err
	}
	return &v, e.save(tx, path, rec)
}

// erase takes a version's value out of the store.
func (e *Engine) erase(tx *seal.Tx, path string, v *version) error {
	if v.Destroyed {
		return nil
	}
	v.Destroyed = true
	return tx.Delete(e.values, slot(path, v.N))
}

// newRecord is the record of a secret that has no version yet.
func newRecord(now time.Time) *record {
	return &record{Created: stamp(now), Format: recordFormat, Updated: stamp(now), Versions: []version{}}
}
