package unseal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
)

// keyFormat names the file of a wrapped data key.
const keyFormat = "keyrite/store-key/v1"

// maxKeyBytes bounds it; an honest one has some 350 bytes.
const maxKeyBytes = 4 << 10

// keyFile is a store's data key, wrapped under the secret of a safe in one epoch.
type keyFile struct {
	Epoch   int         `json:"epoch"`
	Format  string      `json:"format"`
	Safe    string      `json:"safe"`
	Vault   string      `json:"vault"`
	World   world.World `json:"world"`
	Wrapped []byte      `json:"wrapped"` // as seal.DataKey.Wrap gives it
}

// keyPath is the file of an epoch of a safe. Each has its own, so that none is lost while
// a store is sealed for the next.
func (a *Attempts) keyPath(safe string, epoch int) string {
	return filepath.Join(a.c.Dir, fmt.Sprintf("store-key.%s.%d.json", safe, epoch))
}

// plainPath is keyPath as it was when a vault had one safe only. It is read for ever.
func (a *Attempts) plainPath(epoch int) string {
	return filepath.Join(a.c.Dir, fmt.Sprintf("store-key.%d.json", epoch))
}

func (a *Attempts) saveKey(st *charter.State, wrapped []byte) error {
	e := st.Epochs[a.c.Safe]
	data, err := jcs.Marshal(keyFile{Epoch: e.Epoch, Format: keyFormat, Safe: a.c.Safe, Vault: st.Vault, World: st.World, Wrapped: wrapped})
	if err != nil {
		return err
	}
	// Never over another: a store may be under that one.
	return durable.WriteNew(a.keyPath(a.c.Safe, e.Epoch), data, 0o600)
}

// readKey reads the wrapped key for an epoch, and says where it lies. Where there is none
// the error is fs.ErrNotExist.
func (a *Attempts) readKey(st *charter.State, e charter.Epoch) (wrapped []byte, path string, err error) {
	path = a.keyPath(e.Safe, e.Epoch)
	data, err := intake.Read(path, maxKeyBytes)
	plain := errors.Is(err, fs.ErrNotExist)
	if plain {
		path = a.plainPath(e.Epoch)
		data, err = intake.Read(path, maxKeyBytes)
	}
	if err != nil {
		return nil, path, err
	}
	var f keyFile
	if err := jcs.Unmarshal(data, &f); err != nil {
		return nil, path, fault.Errorf(fault.ClassOf(err), "read %q: %w", path, err)
	}
	if plain && f.Safe != e.Safe { // that epoch of another safe
		return nil, path, fs.ErrNotExist
	}
	if f.Format != keyFormat || f.Epoch != e.Epoch || f.Safe != e.Safe || f.Vault != st.Vault || f.World != st.World || len(f.Wrapped) == 0 {
		return nil, path, fault.Errorf(fault.Policy, "%q is of another store, safe or epoch", path)
	}
	return f.Wrapped, path, nil
}

// before is the epoch that the store may be under still: the newest with a wrapped key, of
// those of the safe before the one in force, or else of the retired safes that it took
// over from. The zero Epoch is none.
func (a *Attempts) before(st *charter.State) charter.Epoch {
	for _, safe := range append([]string{a.c.Safe}, st.Followed(a.c.Safe)...) {
		newest := st.Newest(safe)
		if safe == a.c.Safe {
			newest--
		}
		for n := newest; n > 0; n-- {
			e, err := st.EpochAt(safe, n)
			if err != nil {
				continue
			}
			if _, _, err := a.readKey(st, e); !errors.Is(err, fs.ErrNotExist) {
				return e
			}
		}
	}
	return charter.Epoch{}
}

// loadKey is readKey where there has to be one.
func (a *Attempts) loadKey(st *charter.State, e charter.Epoch) ([]byte, error) {
	wrapped, _, err := a.readKey(st, e)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, a.noKey(st, e)
	}
	return wrapped, err
}

// removeKey removes the wrapped key of an epoch that nothing is under any more.
func (a *Attempts) removeKey(st *charter.State, e charter.Epoch) error {
	_, path, err := a.readKey(st, e)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fault.Errorf(fault.Storage, "remove the old wrapped key: %w", err)
	}
	return durable.SyncDir(a.c.Dir)
}

// noKey says why there is no key of the epoch in force.
func (a *Attempts) noKey(st *charter.State, e charter.Epoch) error {
	switch under := a.before(st); {
	case under.Safe == "":
		return fault.Hint(fault.Errorf(fault.Usage, "there is no wrapped key of a store in %s", a.c.Dir), "is it the right state folder? A vault that never was unsealed begins with the operation create")
	case under.Safe != e.Safe:
		return fault.Hint(fault.Errorf(fault.Policy, "%w: safe %s took over, and the store is under safe %s", ErrRetired, e.Safe, under.Safe),
			"see 'The token was lost' in docs/operations/vault.md")
	default:
		return fault.Hint(fault.Errorf(fault.Policy, "%w: epoch %d is in force, and the store is under epoch %d", ErrReshared, e.Epoch, under.Epoch),
			"see 'The shares were dealt anew' in docs/operations/vault.md")
	}
}

// created says whether there is a store.
func (a *Attempts) created() bool {
	_, err := os.Lstat(filepath.Join(a.c.Store.Dir, seal.FileName))
	return !errors.Is(err, fs.ErrNotExist)
}

// place is where the data key of an epoch belongs.
func place(st *charter.State, e charter.Epoch) (seal.Place, error) {
	return quorum.StorePlace(st.Vault, st.World, uint32(e.Epoch))
}
