package enginetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/vault/seal"
)

// ChildCommand is the first argument of the process that is killed; the second is
// the folder of its Bench.
const ChildCommand = "engine-until-killed"

// Main is TestMain of a package whose tests kill a process: it runs the tests, or is
// that process, which ends when child returns.
func Main(m *testing.M, child func(dir string) error) {
	if len(os.Args) == 3 && os.Args[1] == ChildCommand {
		if err := child(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(1)
		}
		syscall.Exit(0) // os.Exit waits a second under the race detector
	}
	os.Exit(m.Run())
}

// KillAfter kills a process at a random moment after some of its acknowledgements, or
// before the first. The caller counts them by calling what is returned.
func KillAfter(p *os.Process) (ack func()) {
	var r [2]byte
	rand.Read(r[:])
	left := int(r[0] % 32)
	kill := func() { time.AfterFunc(time.Duration(r[1])*16*time.Microsecond, func() { _ = p.Kill() }) }
	if left == 0 {
		kill()
	}
	return func() {
		if left--; left == 0 {
			kill()
		}
	}
}

// secret stands for the root secret of the safe. NOT SECRET.
func secret() []byte { return []byte("a secret of a safe that is NOT SECRET") }

// place is not that of the world: the next process must find it by itself.
func place() seal.Place {
	return seal.Place{Vault: [32]byte{1, 2, 3}, World: world.World("rehearsal:abcdefgh"), Epoch: 1}
}

func config(dir string) (seal.Config, error) {
	head, err := seal.NewFileKeeper(filepath.Join(dir, "head"), place().World)
	if err != nil {
		return seal.Config{}, err
	}
	// Read here and now, not in a process of its own: what these tests break is not
	// the file.
	check := func(_ context.Context, path string) (seal.Counted, error) { return seal.Check(path) }
	return seal.Config{Dir: filepath.Join(dir, "store"), Place: place(), Head: head, Check: check}, nil
}

// create makes a store in a folder, with its head and its wrapped key beside it.
func create(ctx context.Context, dir string) error {
	k, err := seal.NewDataKey()
	if err != nil {
		return err
	}
	defer k.Wipe()
	w, err := k.Wrap(secret(), place())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "wrapped"), []byte(hex.EncodeToString(w)), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o700); err != nil {
		return err
	}
	c, err := config(dir)
	if err != nil {
		return err
	}
	return seal.Create(ctx, c, k, map[string]string{"did": "create"})
}

// Away is a keeper of a store's head that can be out of reach.
type Away struct {
	seal.Keeper
	Gone atomic.Bool
}

// Advance implements seal.Keeper.
func (k *Away) Advance(ctx context.Context, h seal.Head, c seal.Chain) error {
	if k.Gone.Load() {
		return fault.New(fault.Unreachable, "no route to the keeper of the head")
	}
	return k.Keeper.Advance(ctx, h, c)
}

// Open opens the store of a Bench from its folder.
func Open(dir string) (*seal.Store, error) { return OpenWith(dir, nil) }

// OpenWith is Open with a keeper that can be out of reach; nil is none.
func OpenWith(dir string, away *Away) (*seal.Store, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "wrapped"))
	if err != nil {
		return nil, err
	}
	wrapped, err := hex.DecodeString(string(raw))
	if err != nil {
		return nil, err
	}
	k, err := seal.Unwrap(wrapped, secret(), place())
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	c, err := config(dir)
	if err != nil {
		return nil, err
	}
	if away != nil {
		away.Keeper = c.Head
		c.Head, c.Window = away, time.Hour // whatever the machine does meanwhile
	}
	return seal.Open(context.Background(), c, k)
}
