package seal

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/fault"
)

// MaxNameBytes bounds the name of a bucket, and that of a key: bbolt's own limit
// of a key is 32,768.
const MaxNameBytes = 4096

// slot is where a value lies.
type slot struct{ bucket, key string }

// change is a value to be written, or, if gone, taken away.
type change struct {
	value []byte
	gone  bool
}

// Tx is one update while it is made. It sees the store with its own changes and
// those of the updates before it, and nothing of it is seen by others until it
// is durable. It is for the goroutine and the time of its function only.
type Tx struct {
	reader
	seq     uint64
	over    map[slot]change // of updates before it in the same commit
	changes map[slot]change
}

// View is the store at one moment.
type View struct{ reader }

// reader reads what is committed.
type reader struct {
	values *bolt.Bucket
	sealer *sealer
}

func (r reader) get(at slot) ([]byte, error) {
	b := r.values.Bucket([]byte(at.bucket))
	if b == nil {
		return nil, ErrNotFound
	}
	v := b.Get([]byte(at.key))
	if v == nil {
		return nil, ErrNotFound
	}
	out, _, err := r.sealer.open(at.bucket, []byte(at.key), v)
	return out, err
}

// keys are the names in a bucket that begin with prefix, in order.
func (r reader) keys(bucket, prefix string) []string {
	var out []string
	b := r.values.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for k, _ := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Next() {
		out = append(out, string(k))
	}
	return out
}

// Get returns a copy of the value, or ErrNotFound. A value that does not hold
// is ErrAltered.
func (v *View) Get(bucket, key string) ([]byte, error) { return v.get(slot{bucket, key}) }

// Keys lists the keys of a bucket that begin with prefix, in byte order.
func (v *View) Keys(bucket, prefix string) []string { return v.keys(bucket, prefix) }

// Get is View.Get with the changes of this update.
func (t *Tx) Get(bucket, key string) ([]byte, error) {
	at := slot{bucket, key}
	for _, m := range []map[slot]change{t.changes, t.over} {
		if c, ok := m[at]; ok {
			if c.gone {
				return nil, ErrNotFound
			}
			return bytes.Clone(c.value), nil
		}
	}
	return t.get(at)
}

// Keys is View.Keys with the changes of this update.
func (t *Tx) Keys(bucket, prefix string) []string {
	have := map[string]bool{}
	for _, k := range t.keys(bucket, prefix) {
		have[k] = true
	}
	for _, m := range []map[slot]change{t.over, t.changes} {
		for at, c := range m {
			if at.bucket == bucket && bytes.HasPrefix([]byte(at.key), []byte(prefix)) {
				have[at.key] = !c.gone
			}
		}
	}
	maps.DeleteFunc(have, func(_ string, there bool) bool { return !there })
	return slices.Sorted(maps.Keys(have))
}

// Seq is the number that the entry of this update will have if it is made.
func (t *Tx) Seq() uint64 { return t.seq }

// Put writes a value. Names are 1 to MaxNameBytes bytes, a value is at most
// MaxValueBytes and may be empty.
func (t *Tx) Put(bucket, key string, value []byte) error {
	if err := checkNames(bucket, key); err != nil {
		return err
	}
	if len(value) > MaxValueBytes {
		return fault.Errorf(fault.Usage, "value of %d bytes is over the limit of %d", len(value), MaxValueBytes)
	}
	t.changes[slot{bucket, key}] = change{value: bytes.Clone(value)}
	return nil
}

// Delete takes a value away; ErrNotFound if there is none.
func (t *Tx) Delete(bucket, key string) error {
	if _, err := t.Get(bucket, key); err != nil {
		return err
	}
	t.changes[slot{bucket, key}] = change{gone: true}
	return nil
}

func checkNames(names ...string) error {
	for _, n := range names {
		if n == "" || len(n) > MaxNameBytes {
			return fault.Errorf(fault.Usage, "a name in the store is 1 to %d bytes, this one is %d", MaxNameBytes, len(n))
		}
	}
	return nil
}

// apply writes the changes of one update into the file under its number, and
// keeps the set's hash.
func (s *sealer) apply(values *bolt.Bucket, seq uint64, changes map[slot]change, set *setHash) error {
	for at, c := range changes {
		b, err := values.CreateBucketIfNotExists([]byte(at.bucket))
		if err != nil {
			return fmt.Errorf("make bucket %q: %w", at.bucket, err)
		}
		key := []byte(at.key)
		if old := b.Get(key); old != nil {
			s.toggle(set, at.bucket, key, old)
		}
		if c.gone {
			if err := b.Delete(key); err != nil {
				return err
			}
			continue
		}
		sealed, err := s.seal(at.bucket, key, seq, c.value)
		if err != nil {
			return err
		}
		s.toggle(set, at.bucket, key, sealed)
		if err := b.Put(key, sealed); err != nil {
			return err
		}
	}
	return nil
}
