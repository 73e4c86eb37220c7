package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"time"
	"unsafe"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/fault"
	"keyrite/internal/cli"
)

// CheckCommand is the hidden first argument that makes a program run CheckMain
// with the second one.
const CheckCommand = "store-check"

// checkTimeout bounds the reading of one file: 1 GiB takes seconds.
const checkTimeout = 5 * time.Minute

// Guard returns a Config.Check that reads the file in a process of its own: the
// executable, whose main runs CheckMain on CheckCommand. bbolt panics on some
// damaged files, also in a goroutine of its own, where nobody can catch it, and
// a file that is cut while it is mapped raises SIGBUS.
func Guard(executable string) func(ctx context.Context, path string) (Counted, error) {
	return func(ctx context.Context, path string) (Counted, error) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		var counted, said bytes.Buffer
		cmd := exec.CommandContext(ctx, executable, CheckCommand, path)
		cmd.Env = []string{"GOTRACEBACK=none"}
		cmd.Stdout, cmd.Stderr = &counted, &said
		err := cmd.Run()
		if ctx.Err() != nil {
			return Counted{}, fmt.Errorf("check the store: %w", ctx.Err())
		}
		if err := judge(err, said.Bytes()); err != nil {
			return Counted{}, err
		}
		var c Counted
		if _, err := fmt.Sscanf(counted.String(), countedForm, &c.entries); err != nil {
			return Counted{}, fault.Errorf(fault.Verify, "check the store: %w (its check did not count)", ErrAltered)
		}
		return c, nil
	}
}

// Counted is what a check found: how many entries the log has, from 0 on without a
// gap. It is counted there and compared here, so that the vault itself does not have
// to touch every page of a long log. The zero value is that of a store without one.
type Counted struct{ entries int64 }

const countedForm = "entries %d\n"

// judge says what the end of the guarded process means.
func judge(err error, said []byte) error {
	if err == nil {
		return nil
	}
	line, _, _ := bytes.Cut(bytes.TrimSpace(said), []byte("\n"))
	x, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return fault.Errorf(fault.Storage, "start the check of the store: %w", err)
	}
	// Any other end is that of a damaged file: also a signal, or the 2 of a Go
	// program that panicked.
	for _, class := range []fault.Class{fault.Sealed, fault.Storage} {
		if x.ExitCode() == cli.CodeOf(fault.New(class, "")) {
			return fault.Errorf(class, "check the store: %s (%w)", line, err)
		}
	}
	return fault.Errorf(fault.Verify, "check the store: %w (%w; %s)", ErrAltered, err, line)
}

// CheckMain is the guarded process: it walks every page and every key of the file,
// without any key of ours, and prints how many entries the log has. Whoever calls it
// ends with the exit code of the error's class (internal/cli).
func CheckMain(path string) error {
	c, err := Check(path)
	if err == nil {
		_, err = fmt.Fprintf(os.Stdout, countedForm, c.entries)
	}
	return err
}

// Check does what CheckMain does in this process: for tests, and for files that this
// process wrote just now.
func Check(path string) (c Counted, err error) {
	db, err := open(path, true)
	if err != nil {
		return c, err
	}
	defer db.Close()
	// The sum is not looked at: it makes the process touch every byte that the
	// next one will, where a loop without a result would be compiled away.
	sum := crc32.NewIEEE()
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		if c.entries, err = countLog(tx.Bucket(bucketLog)); err != nil {
			return err
		}
		f := spanOf(db, tx)
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return f.walk(b, sum) })
	})
	return c, err
}

// span is where the file is mapped, and the size of its pages.
type span struct{ at, size, page uintptr }

func spanOf(db *bolt.DB, tx *bolt.Tx) span {
	return span{db.Info().Data, uintptr(tx.Size()), uintptr(db.Info().PageSize)}
}

// check wants what was read of a bucket to lie within the file. A length that was altered
// reaches further, to where this process may happen to have memory and the next one has
// none. What lies in a small bucket, within the page of another, bbolt may have copied to
// the heap; all of it is at most a quarter of a page.
func (f span) check(b []byte, small bool) error {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b))) //nolint:gosec // looked at, not used
	length, inside := uintptr(len(b)), at >= f.at && at-f.at < f.size
	if length == 0 || inside && length <= f.size-(at-f.at) || !inside && small && length <= f.page/4 {
		return nil
	}
	return fmt.Errorf("%d bytes do not lie within the file: %w", length, ErrAltered)
}

// countLog counts the entries of a log, and finds a gap. What they say is compared
// with the tree when they are read.
func countLog(log *bolt.Bucket) (n int64, err error) {
	if log == nil {
		return 0, nil
	}
	c := log.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if !bytes.Equal(k, number(uint64(n))) {
			return 0, fmt.Errorf("entry %d of the log is missing, or one was added: %w", n, ErrAltered)
		}
		n++
	}
	return n, nil
}

// walk reads every byte of a bucket and of those within.
func (f span) walk(b *bolt.Bucket, sum io.Writer) error {
	return b.ForEach(func(k, v []byte) error {
		if err := errors.Join(f.check(k, b.Root() == 0), f.check(v, b.Root() == 0)); err != nil {
			return err
		}
		if v == nil {
			if in := b.Bucket(k); in != nil {
				return f.walk(in, sum)
			}
		}
		_, err := sum.Write(k)
		if err == nil {
			_, err = sum.Write(v)
		}
		return err
	})
}
