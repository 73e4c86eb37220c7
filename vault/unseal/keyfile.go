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

// keyPath is the file of an epoch. Each epoch has its own, so that none is lost while
// a store is sealed for the next.
func (a *Attempts) keyPath(epoch int) string {
	return filepath.Join(a.c.Dir, fmt.Sprintf("store-key.%d.json", epoch))
}

func (a *Attempts) saveKey(st *charter.State, wrapped []byte) error {
	e := st.Epochs[a.c.Safe]
	data, err := jcs.Marshal(keyFile{Epoch: e.Epoch, Format: keyFormat, Safe: a.c.Safe, Vault: st.Vault, World: st.World, Wrapped: wrapped})
	if err != nil {
		return err
	}
	// Never over another: a store may be under that one.
	return durable.WriteNew(a.keyPath(e.Epoch), data, 0o600)
}

// olderKey is the newest epoch before this one that has a wrapped key, 0 if none has.
func (a *Attempts) olderKey(epoch int) int {
	for e := epoch - 1; e > 0; e-- {
		if _, err := os.Lstat(a.keyPath(e)); err == nil {
			return e
		}
	}
	return 0
}

// loadKey reads the wrapped key for an epoch.
func (a *Attempts) loadKey(st *charter.State, e charter.Epoch) ([]byte, error) {
	path := a.keyPath(e.Epoch)
	data, err := intake.Read(path, maxKeyBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, a.noKey(e.Epoch)
	}
	if err != nil {
		return nil, err
	}
	var f keyFile
	if err := jcs.Unmarshal(data, &f); err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "read %q: %w", path, err)
	}
	if f.Format != keyFormat || f.Epoch != e.Epoch || f.Safe != a.c.Safe || f.Vault != st.Vault || f.World != st.World || len(f.Wrapped) == 0 {
		return nil, fault.Errorf(fault.Policy, "%q is of another store, safe or epoch", path)
	}
	return f.Wrapped, nil
}

// noKey says why there is no key of the epoch in force.
func (a *Attempts) noKey(epoch int) error {
	if e := a.olderKey(epoch); e > 0 {
		return fault.Hint(fault.Errorf(fault.Policy, "%w: epoch %d is in force, and the store is under epoch %d", ErrReshared, epoch, e),
			"see 'The shares were dealt anew' in docs/operations/vault.md")
	}
	return fault.Hint(fault.Errorf(fault.Usage, "there is no wrapped key of a store in %s", a.c.Dir), "is it the right state folder? A vault that never was unsealed begins with the operation create")
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
