package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/fault"
	"keyrite/internal/durable"
)

// Reseal seals a closed store for a new epoch of its safe: every value and entry
// is opened with the old key and sealed with the new one, into a file that takes
// the old one's name when it is whole and durable. A crash leaves the one or the
// other. Log and head stay what they are; whoever reseals writes an entry before.
//
// The old key still opens every copy of the old file: what was copied stays
// readable to those who had the old shares.
func Reseal(ctx context.Context, c Config, old *DataKey, to Place, key *DataKey) error {
	if to.Epoch <= c.Place.Epoch {
		return fault.Errorf(fault.Policy, "a store is resealed for a later epoch of its safe, not from epoch %d to %d", c.Place.Epoch, to.Epoch)
	}
	return TakeOver(ctx, c, old, to, key)
}

// TakeOver is Reseal for an epoch of another safe, which counts its own. Whether that safe
// may have the store is the caller's to know.
func TakeOver(ctx context.Context, c Config, old *DataKey, to Place, key *DataKey) error {
	if err := checkReseal(&c, to); err != nil {
		return err
	}
	unlock, err := lock(c.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(c.Dir, FileName)
	s, err := openLocked(ctx, c, old, path) // all checks of a start, the head's too
	if err != nil {
		return err
	}
	s.unlock = func() {}
	sl, err := newSealer(key, to)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fault.Errorf(fault.Storage, "remove what an earlier try left: %w", err), s.Close())
	}
	err = errors.Join(s.copyTo(tmp, to, sl), s.Close())
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if _, err := c.Check(ctx, tmp); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return fault.Errorf(fault.Storage, "name the resealed store: %w", err)
	}
	return durable.SyncDir(c.Dir)
}

func checkReseal(c *Config, to Place) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := to.check(); err != nil {
		return err
	}
	if to.Vault != c.Place.Vault || to.World != c.Place.World {
		return fault.New(fault.Policy, "a store is resealed for its own vault and world")
	}
	return nil
}

// copyTo writes the whole store into a new file under another key.
func (s *Store) copyTo(path string, to Place, sl *sealer) error {
	place, err := to.marshal()
	if err != nil {
		return err
	}
	db, err := open(path, false)
	if err != nil {
		return err
	}
	err = s.db.View(func(from *bolt.Tx) error {
		return db.Update(func(tx *bolt.Tx) error {
			for _, b := range [][]byte{bucketMeta, bucketLog, bucketTree, bucketValues} {
				if _, err := tx.CreateBucket(b); err != nil {
					return err
				}
			}
			if err := tx.Bucket(bucketMeta).Put(keyPlace, place); err != nil {
				return err
			}
			st := s.current()
			st.set = setHash{}
			if err := s.copyLog(from, tx, sl); err != nil {
				return err
			}
			if err := s.copyValues(from, tx, sl, &st.set); err != nil {
				return err
			}
			return sl.putState(tx, &st)
		})
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return fault.Errorf(classOr(err, fault.Storage), "write the resealed store: %w", err)
	}
	return nil
}

// classOr keeps what an error says of itself.
func classOr(err error, c fault.Class) fault.Class {
	if got := fault.ClassOf(err); got != fault.Unexpected {
		return got
	}
	return c
}

func (s *Store) copyLog(from, to *bolt.Tx, sl *sealer) error {
	tree, log := to.Bucket(bucketTree), to.Bucket(bucketLog)
	tree.FillPercent, log.FillPercent = 1, 1
	if err := from.Bucket(bucketTree).ForEach(tree.Put); err != nil {
		return err
	}
	return from.Bucket(bucketLog).ForEach(func(k, v []byte) error {
		raw, seq, err := s.sealer.open(string(bucketLog), k, v)
		if err != nil {
			return err
		}
		if string(k) != string(number(seq)) {
			return altered(string(bucketLog), k)
		}
		if err := checkLeaf(from.Bucket(bucketTree), int64(seq), raw); err != nil {
			return err
		}
		sealed, err := sl.seal(string(bucketLog), k, seq, raw)
		if err != nil {
			return err
		}
		return log.Put(k, sealed)
	})
}

func (s *Store) copyValues(from, to *bolt.Tx, sl *sealer, set *setHash) error {
	return from.Bucket(bucketValues).ForEachBucket(func(name []byte) error {
		b, err := to.Bucket(bucketValues).CreateBucket(name)
		if err != nil {
			return err
		}
		return from.Bucket(bucketValues).Bucket(name).ForEach(func(k, v []byte) error {
			value, seq, err := s.sealer.open(string(name), k, v)
			if err != nil {
				return err
			}
			sealed, err := sl.seal(string(name), k, seq, value)
			if err != nil {
				return fmt.Errorf("reseal %q in %q: %w", k, name, err)
			}
			sl.toggle(set, string(name), k, sealed)
			return b.Put(k, sealed)
		})
	})
}
