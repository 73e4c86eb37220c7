package durable

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Append is a log file that grows by whole lines, each synced before Line
// returns. It is for one goroutine of one process at a time: it holds an
// exclusive lock on the file.
type Append struct {
	f    *os.File
	path string
	size int64 // bytes of complete, synced lines
}

// ErrInUse says that another process holds the file.
var ErrInUse error = inUse{}

type inUse struct{}

func (inUse) Error() string      { return "in use by another process" }
func (inUse) FaultClass() string { return "sealed" }

// OpenAppend opens or creates the log at path, locks it, and returns its
// complete lines. A last line without newline is the rest of a write that was
// never acknowledged; it is cut off.
func OpenAppend(path string) (*Append, [][]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, wrap("open", path, err)
	}
	lines, size, err := lockAndRead(f, path)
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return &Append{f: f, path: path, size: size}, lines, nil
}

func lockAndRead(f *os.File, path string) ([][]byte, int64, error) {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, 0, wrapInUse(path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, wrap("read", path, err)
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	if end < len(data) {
		if err := errors.Join(f.Truncate(int64(end)), f.Sync()); err != nil {
			return nil, 0, wrap("cut", path, err)
		}
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return nil, 0, err
	}
	var lines [][]byte
	for line := range bytes.Lines(data[:end]) {
		lines = append(lines, bytes.TrimSuffix(line, []byte("\n")))
	}
	return lines, int64(end), nil
}

type lockedError struct{ path string }

func (e *lockedError) Error() string      { return "open " + e.path + ": " + ErrInUse.Error() }
func (e *lockedError) Unwrap() error      { return ErrInUse }
func (e *lockedError) FaultClass() string { return "sealed" }

func wrapInUse(path string) error { return &lockedError{path} }

// CheckFree returns ErrInUse, and the class sealed, while another process holds
// the log at path. It changes nothing.
func CheckFree(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return wrap("open", path, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	_ = f.Close() // nothing was written; it also gives the lock back
	if err != nil {
		return wrapInUse(path)
	}
	return nil
}

// Reserve asks the file system for bytes of room beyond the present end, so
// that later lines cannot fail for want of space. File systems without
// fallocate are written to and cut back instead.
func (a *Append) Reserve(room int64) error {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE, fallocate(2)
	err := syscall.Fallocate(int(a.f.Fd()), keepSize, a.size, room)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		_, err = a.f.WriteAt(make([]byte, room), a.size)
		err = errors.Join(err, a.f.Sync(), a.f.Truncate(a.size))
	}
	return wrap("reserve space for", a.path, err)
}

// Line appends data and a newline and syncs. data must not contain a newline.
// After a failure the file is cut back to what was acknowledged and every later
// call fails too: a disk that refused a sync is not asked again.
func (a *Append) Line(data []byte) error {
	if a.f == nil {
		return wrap("append to", a.path, os.ErrClosed)
	}
	if bytes.IndexByte(data, '\n') >= 0 {
		return wrap("append to", a.path, errors.New("line with a newline"))
	}
	_, err := a.f.WriteAt(append(bytes.Clone(data), '\n'), a.size)
	if err == nil {
		err = syscall.Fdatasync(int(a.f.Fd()))
	}
	if err != nil {
		_ = a.f.Truncate(a.size)
		_ = a.Close()
		return wrap("append to", a.path, err)
	}
	a.size += int64(len(data)) + 1
	return nil
}

// Close gives the file free.
func (a *Append) Close() error {
	if a.f == nil {
		return nil
	}
	f := a.f
	a.f = nil
	return wrap("close", a.path, f.Close())
}

// Lock takes the exclusive lock of the file at path, which must exist, until the
// returned function is called. Who finds it taken gets ErrInUse.
func Lock(path string) (func(), error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, wrap("open", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, wrapInUse(path)
	}
	return func() { _ = f.Close() }, nil
}
