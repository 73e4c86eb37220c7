// Package intake opens a file from outside that is about to be hashed, signed or
// verified: once, not through a symbolic link, only a regular file that is not
// empty, and with a check afterwards that it was not changed meanwhile.
//
// Whoever reads such a file calls Unchanged after the last byte and before
// believing anything. What is believed are the bytes read, never the name; the
// check is there to say so when somebody exchanged the file under it.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Error is a refusal. Its class is "usage" for a file that cannot be used,
// "verify" for one that changed, and "storage" if the disk failed.
type Error struct {
	Path, Class, Hint string
	Err               error
}

func (e *Error) Error() string { return fmt.Sprintf("%q: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// FaultClass is the class for the exit table.
func (e *Error) FaultClass() string { return e.Class }

// FaultHint tells what to do.
func (e *Error) FaultHint() string { return e.Hint }

var (
	// ErrChanged says that the file was written to or exchanged while it was
	// read.
	ErrChanged = errors.New("changed while it was read")
	// ErrKind says that it is not a regular file.
	ErrKind = errors.New("is not a regular file")
	// ErrEmpty says that it has no bytes.
	ErrEmpty = errors.New("is empty")
	// ErrLarge says that it has more bytes than are taken.
	ErrLarge = errors.New("is too large")
)

// File is an open file with the state it had when it was opened.
type File struct {
	*os.File
	path string
	stat syscall.Stat_t
}

// Open opens path. Nothing is read yet, so a FIFO or device does not hang it.
func Open(path string) (*File, error) {
	// O_NONBLOCK: opening a FIFO without a writer must not wait.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	in := &File{File: f, path: path}
	if err := in.admit(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return in, nil
}

func openError(path string, err error) error {
	if errors.Is(err, syscall.ELOOP) {
		return &Error{Path: path, Class: "usage", Err: ErrKind, Hint: "it is a symbolic link; name the file itself"}
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	class, hint := "usage", ""
	switch {
	case errors.Is(err, syscall.EIO):
		class = "storage"
	case errors.Is(err, fs.ErrNotExist):
		hint = "is the name right? Relative names are taken from the folder in which the command runs; names in a binding from the binding's"
	}
	return &Error{Path: path, Class: class, Hint: hint, Err: fmt.Errorf("open: %w", err)}
}

func (f *File) admit() error {
	if err := syscall.Fstat(int(f.Fd()), &f.stat); err != nil {
		return &Error{Path: f.path, Class: "storage", Err: fmt.Errorf("stat: %w", err)}
	}
	if f.stat.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return &Error{Path: f.path, Class: "usage", Err: ErrKind}
	}
	if f.stat.Size == 0 {
		return &Error{Path: f.path, Class: "usage", Err: ErrEmpty}
	}
	return nil
}

// Size is the size in bytes when it was opened.
func (f *File) Size() int64 { return f.stat.Size }

// Unchanged checks that the open file and the file now under its name are both
// what was opened: same device, inode, size, and times of change.
func (f *File) Unchanged() error {
	var open, named syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &open); err != nil {
		return &Error{Path: f.path, Class: "storage", Err: fmt.Errorf("stat: %w", err)}
	}
	if syscall.Lstat(f.path, &named) != nil || !same(&f.stat, &open) || !same(&f.stat, &named) {
		return &Error{Path: f.path, Class: "verify", Err: ErrChanged, Hint: "see what writes to it, and start again with a file that rests"}
	}
	return nil
}

func same(a, b *syscall.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// Read reads a whole small file of at most limit bytes in the same way.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > limit {
		return nil, &Error{Path: path, Class: "usage", Err: fmt.Errorf("%w: %d bytes, at most %d", ErrLarge, f.Size(), limit)}
	}
	data := make([]byte, f.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		return nil, &Error{Path: path, Class: "storage", Err: fmt.Errorf("read: %w", err)}
	}
	return data, f.Unchanged()
}

// Reader reads the file from where it stands and stops with ctx.
func (f *File) Reader(ctx context.Context) io.Reader { return &reader{ctx, f.File} }

type reader struct {
	ctx context.Context //nolint:containedctx // a reader lives for one call; io.Reader has no other way to be stopped
	f   *os.File
}

func (r *reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.f.Read(b)
}
