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
	"keyrite/artifact/jcs"
	"keyrite/internal/durable"
)

// Create makes an empty store with its first entry. The folder must exist and
// must not have one. An error of the Keeper leaves the store, which is opened
// later; any other leaves nothing.
func Create(ctx context.Context, c Config, k *DataKey, entry any) error {
	if err := c.check(); err != nil {
		return err
	}
	sl, err := newSealer(k, c.Place)
	if err != nil {
		return err
	}
	raw, err := jcs.Marshal(entry)
	if err != nil {
		return err
	}
	unlock, err := lock(c.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(c.Dir, FileName)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fault.Errorf(fault.Exists, "%s exists: a store is never made anew over another", path)
	}
	// Under another name until it is whole: a crash leaves nothing that looks
	// like a store.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Errorf(fault.Storage, "remove what an earlier try left: %w", err)
	}
	changes, err := bind(ctx, c.Head)
	if err != nil {
		return err
	}
	if err = create(tmp, c.Place, sl, &member{changes: changes, entry: raw}); err == nil {
		_, err = c.Check(ctx, tmp)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := durable.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	st, err := openLocked(ctx, c, k, path)
	if err != nil {
		// It stays: the Keeper may have its head, and would refuse another store.
		return fault.Hint(fmt.Errorf("the store is made, but was not opened: %w", err), "open it once more; do not make another")
	}
	st.unlock = func() {}
	return st.Close()
}

// create writes a store whose first transaction is that member.
func create(path string, p Place, s *sealer, first *member) error {
	place, err := p.marshal()
	if err != nil {
		return err
	}
	db, err := open(path, false)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, bucketLog, bucketTree, bucketValues} {
			if _, err := tx.CreateBucket(b); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketMeta).Put(keyPlace, place); err != nil {
			return err
		}
		st := state{size: 1}
		if err := s.apply(tx.Bucket(bucketValues), 0, first.changes, &st.set); err != nil {
			return err
		}
		if err := s.log(tx, 0, first.entry, st.set); err != nil {
			return err
		}
		return s.putState(tx, &st)
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return fault.Errorf(fault.Storage, "make the store: %w", err)
	}
	return nil
}
