// Command storestart makes a store with many entries, or opens one, so that
// scripts/bench can measure what a start of the vault takes. Its key lies beside the
// store: it is for measuring and nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyrite/artifact/trail"
	"keyrite/artifact/world"
	"keyrite/internal/cli"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

const benchWorld = world.World("rehearsal:benchbenchbe")

var secret = []byte("the secret of a bench, which is NOT SECRET")

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "storestart:", err)
		os.Exit(cli.CodeOf(err))
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == seal.CheckCommand:
		return seal.CheckMain(args[1])
	case len(args) == 3 && args[0] == "make":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return cli.Usagef("%q is no number of entries", args[2])
		}
		return fill(ctx, args[1], n)
	case len(args) == 2 && args[0] == "open":
		s, err := open(ctx, args[1])
		if err != nil {
			return err
		}
		peak, err := memoryKiB("VmHWM")
		fmt.Fprintln(os.Stdout, peak)
		return errors.Join(err, s.Close())
	case len(args) == 2 && args[0] == "search":
		return search(ctx, args[1])
	}
	return cli.Usagef("storestart make DIR ENTRIES, open DIR, or search DIR")
}

// page is how many entries one look into the trail goes through, as in vault/node.
const page = 20_000

// search goes through the whole trail in pages for what is not there, and prints the
// longest time that a page took, in seconds, and its own memory at the end: pages of
// the file are the system's to take back.
func search(ctx context.Context, dir string) error {
	s, err := open(ctx, dir)
	if err != nil {
		return err
	}
	j := audit.NewJournal(s)
	var longest time.Duration
	for before := uint64(0); ; {
		began := time.Now()
		found, next, err := j.Search(ctx, audit.Choice{Identity: "nobody"}, before, page, 1)
		if err != nil || len(found) > 0 {
			return errors.Join(fmt.Errorf("%d entries of nobody", len(found)), err)
		}
		longest = max(longest, time.Since(began))
		if before = next; next == 0 {
			break
		}
	}
	own, err := memoryKiB("RssAnon")
	fmt.Fprintln(os.Stdout, longest.Seconds(), own)
	return errors.Join(err, s.Close())
}

// memoryKiB is a figure of this process: VmHWM the most memory that it had, pages of the
// mapped file included; RssAnon what it has now of its own. The check of the file is
// another process.
func memoryKiB(figure string) (kib int, err error) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if _, err := fmt.Sscanf(line, figure+": %d kB", &kib); err == nil {
			return kib, nil
		}
	}
	return 0, errors.New("/proc/self/status has no " + figure)
}

func config(dir string) (seal.Config, error) {
	k, err := seal.NewFileKeeper(filepath.Join(dir, "head"), benchWorld)
	if err != nil {
		return seal.Config{}, err
	}
	exe, err := os.Executable()
	return seal.Config{Dir: dir, Place: place(), Head: k, Check: seal.Guard(exe)}, err
}

func place() seal.Place { return seal.Place{Vault: [32]byte{1}, World: benchWorld, Epoch: 1} }

func open(ctx context.Context, dir string) (*seal.Store, error) {
	wrapped, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		return nil, err
	}
	k, err := seal.Unwrap(wrapped, secret, place())
	if err != nil {
		return nil, err
	}
	c, err := config(dir)
	if err != nil {
		return nil, err
	}
	return seal.Open(ctx, c, k)
}

func entry() *audit.Entry {
	return &audit.Entry{
		Format: trail.Format, Kind: trail.Request, Operation: "read", Identity: "mes", Means: "certificate", Accessor: "0123456789abcdef",
		Path: "kv/data/line1/plc", Remote: "192.0.2.7", Request: "00112233445566778899aabbccddeeff", Charter: 10, Time: trail.FormatTime(time.Unix(1.8e9, 0)),
	}
}

// fill makes a store with n entries, written by as many callers as share a commit.
func fill(ctx context.Context, dir string, n int) error {
	k, err := seal.NewDataKey()
	if err != nil {
		return err
	}
	wrapped, err := k.Wrap(secret, place())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), wrapped, 0o600); err != nil {
		return err
	}
	c, err := config(dir)
	if err != nil {
		return err
	}
	if err := seal.Create(ctx, c, k, entry()); err != nil {
		return err
	}
	s, err := seal.Open(ctx, c, k)
	if err != nil {
		return err
	}
	j := audit.NewJournal(s)
	const callers = 256
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for w := range callers {
		wg.Go(func() {
			for i := w; i < n-1 && errs[w] == nil; i += callers {
				_, errs[w] = j.Do(ctx, seal.Durable, entry(), nil)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return s.Close()
}
