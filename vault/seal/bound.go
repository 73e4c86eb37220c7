package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// Bound is a Keeper that keeps the head of one store only, and which the store
// remembers: no other keeper, and no other place of the same kind, will do for it
// before a quorum said so (Rehead).
type Bound interface {
	Keeper
	// Bind makes the keeper forget every head, and returns what the store is to
	// remember of it, which is secret: at most 256 bytes.
	Bind(ctx context.Context) ([]byte, error)
	// Recall gives back what Bind returned, when the store is opened and before
	// Advance.
	Recall(memory []byte) error
}

// slotKeeper is where the store keeps what Bind returned: a value like any other, so
// that it cannot be taken out or exchanged. The bucket is the store's own.
var slotKeeper = slot{"store", "keeper"}

// ErrKeeper says that the configured keeper is not the one that the store knows.
var ErrKeeper = fault.Hint(fault.New(fault.Policy, "the store's head is kept elsewhere than its configuration says"),
	"put head in vault.yaml back as it was; if the head is to be kept elsewhere from now on, key masters decide that: 'keyrite-vault unseal --new-attempt --operation rehead'")

// recall compares the store's memory with the keeper that is configured.
func (s *Store) recall() error {
	var memory []byte
	err := s.db.View(func(tx *bolt.Tx) (err error) {
		memory, err = reader{tx.Bucket(bucketValues), s.sealer}.get(slotKeeper)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	k, ok := s.keeper.(Bound)
	switch {
	case ok && memory != nil:
		return k.Recall(memory)
	case ok != (memory != nil):
		return ErrKeeper
	}
	return nil
}

// bind is the change that makes a store remember its keeper; none for a keeper that
// is of no store in particular.
func bind(ctx context.Context, k Keeper) (map[slot]change, error) {
	b, ok := k.(Bound)
	if !ok {
		return nil, nil
	}
	memory, err := b.Bind(ctx)
	if err != nil {
		return nil, err
	}
	return map[slot]change{slotKeeper: {value: bytes.Clone(memory)}}, nil
}

// Rehead takes a closed store over as it lies, with its head kept from now on by
// c.Head, and writes the entry into its log. It is for a quorum only, and for a head
// that was lost: an older copy of the store is not noticed here. But a cosigner that has
// more of this log takes nothing back (ErrBehind, ErrFork): what a quorum then decides is
// who cosigns, in the charter, and a new one has no head to compare with.
func Rehead(ctx context.Context, c Config, k *DataKey, entry any) error {
	if err := c.check(); err != nil {
		return err
	}
	unlock, err := lock(c.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := openFile(ctx, c, k, filepath.Join(c.Dir, FileName))
	if err != nil {
		return err
	}
	changes, err := bind(ctx, c.Head)
	if err == nil && changes == nil {
		err = s.advance(ctx) // it may know of a newer store: then nothing is written
	}
	if err == nil {
		err = s.rehead(changes, entry)
	}
	if err == nil {
		err = s.advance(ctx)
	}
	return errors.Join(err, s.db.Close())
}

// rehead writes what the store remembers of its keeper, in one transaction.
func (s *Store) rehead(changes map[slot]change, entry any) error {
	raw, err := jcs.Marshal(entry)
	if err != nil {
		return err
	}
	st := s.current()
	err = s.db.Update(func(tx *bolt.Tx) error {
		if changes == nil {
			if _, err := (reader{tx.Bucket(bucketValues), s.sealer}).get(slotKeeper); err == nil {
				changes = map[slot]change{slotKeeper: {gone: true}}
			}
		}
		return s.put(tx, []*member{{changes: changes, entry: raw}}, &st)
	})
	if err != nil {
		return fault.Errorf(classOr(err, fault.Storage), "write the store's new keeper: %w", err)
	}
	s.setState(st)
	return nil
}

// statFile wants a store's file.
func statFile(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return fault.Errorf(fault.Usage, "open the store: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("open the store: %w", fault.Errorf(fault.Usage, "%s is not a regular file", path))
	}
	return nil
}
