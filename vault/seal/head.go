package seal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// Head is the newest state of a store's log: how many entries and their RFC
// 6962 root. It is the text of a C2SP checkpoint.
type Head struct {
	Vault [32]byte
	World world.World
	Size  int64
	Root  tlog.Hash
}

// Checkpoint is the head as the checkpoint of a log.
func (h Head) Checkpoint() tlog.Checkpoint {
	return tlog.Checkpoint{Origin: "keyrite/store/" + hex.EncodeToString(h.Vault[:]), World: h.World, Size: h.Size, Root: h.Root}
}

// Chain is the log that a head is on.
type Chain interface {
	// RootAt is the root of the first size entries.
	RootAt(size int64) (tlog.Hash, error)
	// Prove proves that the log of before entries is the beginning of that of
	// size entries (RFC 6962, Section 2.1.2).
	Prove(before, size int64) ([]tlog.Hash, error)
}

// Keeper keeps the head where a copy of the store does not carry it along: a
// witness on another machine, or an NV index of a TPM.
type Keeper interface {
	// Advance makes h the head that is kept, durable before it returns nil. It
	// returns ErrBehind if a longer log was kept already and ErrFork if what was
	// kept is not the beginning of h, and keeps what it had then. To advance to
	// the head that is kept is no error.
	Advance(ctx context.Context, h Head, c Chain) error
}

// headFile is the form of a FileKeeper's file.
type headFile struct {
	Format string      `json:"format"`
	Root   string      `json:"root"`
	Size   int64       `json:"size"`
	Vault  string      `json:"vault"`
	World  world.World `json:"world"`
}

const headFormat = "keyrite/store-head/v1"

// FileKeeper keeps the head in a file. Whoever copies the store can copy the
// file too, so it is for rehearsals and refuses the live world.
type FileKeeper struct{ path string }

// NewFileKeeper keeps the head of a rehearsal at path.
func NewFileKeeper(path string, w world.World) (*FileKeeper, error) {
	if err := w.Check(); err != nil {
		return nil, err
	}
	if w.IsLive() {
		return nil, fault.New(fault.Policy, "a file is no place for the head of a live store: it is put back together with it; name a witness or a TPM")
	}
	return &FileKeeper{path}, nil
}

// Advance implements Keeper.
func (k *FileKeeper) Advance(_ context.Context, h Head, c Chain) error {
	had, err := k.load(h)
	if err != nil {
		return err
	}
	if had != nil {
		if err := extends(*had, h, c); err != nil {
			return err
		}
		if *had == h {
			return nil
		}
	}
	data, err := jcs.Marshal(headFile{Format: headFormat, Root: tlog.Hex(h.Root), Size: h.Size, Vault: hex.EncodeToString(h.Vault[:]), World: h.World})
	if err != nil {
		return err
	}
	return durable.Replace(k.path, data, 0o600)
}

// load reads the kept head, nil if there is none yet.
func (k *FileKeeper) load(of Head) (*Head, error) {
	data, err := intake.Read(k.path, 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var f headFile
	if err := jcs.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	root, err := tlog.ParseHex(f.Root)
	if err != nil {
		return nil, err
	}
	if f.Format != headFormat || f.Size < 1 || f.World != of.World || f.Vault != hex.EncodeToString(of.Vault[:]) {
		return nil, fault.Errorf(fault.Verify, "head file %s is of another store: %w", k.path, ErrFork)
	}
	return &Head{Vault: of.Vault, World: f.World, Size: f.Size, Root: root}, nil
}

// extends says whether the log of next begins with that of had.
func extends(had, next Head, c Chain) error {
	if next.Size < had.Size {
		return ErrBehind
	}
	root, err := c.RootAt(had.Size)
	if err != nil {
		return err
	}
	if root != had.Root {
		return ErrFork
	}
	return nil
}

// shown is what of the set's hash stands in the log.
func (h setHash) shown() string {
	sum := sha256.Sum256(append([]byte("keyrite store state v1\n"), h[:]...))
	return hex.EncodeToString(sum[:])
}
