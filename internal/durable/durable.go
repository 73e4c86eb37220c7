// Package durable writes files so that a crash, a full disk or a power cut
// leaves the old state or the new one, and never a half.
//
// Outputs (Create, WriteNew) are never overwritten; state (Replace) is replaced
// as a whole; logs (OpenAppend) grow by whole, synced lines. System calls of
// the happy path of an output: openat(temporary name, O_EXCL) · write · fsync ·
// linkat (fails when the name exists) · unlinkat · fsync of the folder.
// A file system without hard links is refused, since rename would overwrite.
package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Error is a failure to make something durable. Its class is "exists" when the
// output was there already, "usage" when the path cannot be used (no such
// folder, no permission), and "storage" otherwise.
type Error struct {
	Op, Path string
	Err      error
}

func (e *Error) Error() string { return fmt.Sprintf("%s %q: %v", e.Op, e.Path, bare(e.Err)) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// FaultClass is the class for the exit table.
func (e *Error) FaultClass() string {
	switch {
	case errors.Is(e.Err, fs.ErrExist):
		return "exists"
	case errors.Is(e.Err, fs.ErrNotExist), errors.Is(e.Err, fs.ErrPermission), errors.Is(e.Err, syscall.ENOTDIR):
		return "usage"
	}
	return "storage"
}

// FaultHint tells what to do about it, where there is something to do.
func (e *Error) FaultHint() string {
	switch {
	case errors.Is(e.Err, fs.ErrNotExist) && strings.HasPrefix(e.Op, "create"):
		return "make the folder first: mkdir -p " + filepath.Dir(e.Path)
	case errors.Is(e.Err, syscall.ENOSPC), errors.Is(e.Err, syscall.EDQUOT):
		return "free some space and run the command again; nothing was left behind"
	case errors.Is(e.Err, fs.ErrExist):
		return "outputs are never overwritten: choose another name or move the old file away"
	}
	return ""
}

// bare takes the path out of a *PathError or *LinkError: Error names it already.
func bare(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	if l := (*os.LinkError)(nil); errors.As(err, &l) {
		return l.Err
	}
	return err
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{op, path, err}
}

// File is an output that does not exist under its name until Commit.
type File struct {
	*os.File
	path, temp string
	done       bool
}

// Create starts the output path with mode perm. It fails at once if path
// exists. Exactly one of Commit and Abort must follow; Abort after Commit does
// nothing, so it can be deferred.
func Create(path string, perm fs.FileMode) (*File, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, wrap("create", path, fs.ErrExist)
	}
	return create(path, perm)
}

func create(path string, perm fs.FileMode) (*File, error) {
	var r [8]byte
	rand.Read(r[:])
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+hex.EncodeToString(r[:]))
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, wrap("create", path, err)
	}
	return &File{File: f, path: path, temp: temp}, nil
}

// Abort throws the output away.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	_ = f.Close()
	_ = os.Remove(f.temp)
}

// Commit makes the output durable under its name.
func (f *File) Commit() error {
	if f.done {
		return wrap("commit", f.path, fs.ErrClosed)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		f.Abort()
		return wrap("write", f.path, err)
	}
	err := os.Link(f.temp, f.path)
	f.Abort()
	if err != nil {
		return wrap("create", f.path, err)
	}
	return SyncDir(filepath.Dir(f.path))
}

// Finish writes data, all that the output holds, and commits it.
func (f *File) Finish(data []byte) error {
	if _, err := f.Write(data); err != nil {
		return wrap("write", f.path, err)
	}
	return f.Commit()
}

func (f *File) replace() error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		f.Abort()
		return wrap("write", f.path, err)
	}
	if err := os.Rename(f.temp, f.path); err != nil {
		f.Abort()
		return wrap("replace", f.path, err)
	}
	f.done = true
	return SyncDir(filepath.Dir(f.path))
}

// WriteNew writes a whole output; it fails with class "exists" rather than
// overwrite.
func WriteNew(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	return f.Finish(data)
}

// Replace writes a whole state file, in place of the old one if there is one.
func Replace(path string, data []byte, perm fs.FileMode) error {
	f, err := create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return wrap("write", path, err)
	}
	return f.replace()
}

// Mkdir makes a new output folder; it fails with class "exists" if there is one.
func Mkdir(path string, perm fs.FileMode) error {
	if err := os.Mkdir(path, perm); err != nil {
		return wrap("create folder", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return wrap("open folder", dir, err)
	}
	return wrap("sync folder", dir, errors.Join(d.Sync(), d.Close()))
}
