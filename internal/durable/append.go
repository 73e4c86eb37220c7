package durable

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Append is a log file that grows by whole lines, each synced before Line
// returns. It is for one goroutine of one process at a time: it holds an
// exclusive lock on the file.
type Append struct {
	f    *os.File
	path string
	size int64 // bytes of complete, synced lines
	tail int64 // bytes of an unfinished line after them
}

// ErrInUse says that another process holds the file.
var ErrInUse error = inUse{}

type inUse struct{}

func (inUse) Error() string      { return "in use by another process" }
func (inUse) FaultClass() string { return "sealed" }

// ErrUnfinished says that the last line of a log has no newline: somebody is writing it,
// or a write was cut off.
var ErrUnfinished error = unfinished{}

type unfinished struct{}

func (unfinished) Error() string      { return "its last line is unfinished" }
func (unfinished) FaultClass() string { return "sealed" }

// Rest is how long a log must not have been written before an unfinished last line counts
// as what a write left that was cut off, and not as one that somebody is writing.
const Rest = 10 * time.Second

// OpenAppend opens or creates the log at path, locks it, and returns its
// complete lines. A last line without newline is the rest of a write that was
// never acknowledged; it is cut off.
func OpenAppend(path string) (*Append, [][]byte, error) {
	a, lines, err := openLog(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, nil, err
	}
	if err := a.cut(); err != nil {
		return nil, nil, errors.Join(err, a.Close())
	}
	return a, lines, nil
}

// OpenShared is OpenAppend for a log that must be there and over which others may write
// who take no lock, as somebody who copies a newer one over it. It changes nothing: a last
// line without newline stays, as Unfinished says, and Line gives ErrUnfinished until
// CutRested took it away.
func OpenShared(path string) (*Append, [][]byte, error) { return openLog(path, os.O_RDWR) }

func openLog(path string, flags int) (*Append, [][]byte, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, nil, wrap("open", path, err)
	}
	a := &Append{f: f, path: path}
	lines, err := a.lockAndRead()
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return a, lines, nil
}

func (a *Append) lockAndRead() ([][]byte, error) {
	if err := syscall.Flock(int(a.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, wrapInUse(a.path)
	}
	data, err := io.ReadAll(a.f)
	if err != nil {
		return nil, wrap("read", a.path, err)
	}
	if err := SyncDir(filepath.Dir(a.path)); err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	a.size, a.tail = int64(end), int64(len(data)-end)
	var lines [][]byte
	for line := range bytes.Lines(data[:end]) {
		lines = append(lines, bytes.TrimSuffix(line, []byte("\n")))
	}
	return lines, nil
}

// Unfinished says whether the last line had no newline when the log was opened.
func (a *Append) Unfinished() bool { return a.tail > 0 }

// Settled gives ErrUnfinished if the last line is unfinished and the log was written less
// than Rest ago, or since it was opened. A time of its last write that is to come, since
// the clock was set, is as good as one that is gone.
func (a *Append) Settled() error {
	if !a.Unfinished() {
		return nil
	}
	st, err := a.f.Stat()
	if err != nil {
		return wrap("look at", a.path, err)
	}
	if st.Size() != a.size+a.tail || time.Since(st.ModTime()).Abs() < Rest {
		return wrapUnfinished(a.path)
	}
	return nil
}

// CutRested cuts an unfinished last line off, if there is one and the log is Settled.
func (a *Append) CutRested() error {
	if err := a.Settled(); err != nil {
		return err
	}
	return a.cut()
}

func (a *Append) cut() error {
	if !a.Unfinished() {
		return nil
	}
	if err := errors.Join(a.f.Truncate(a.size), a.f.Sync()); err != nil {
		return wrap("cut", a.path, err)
	}
	a.tail = 0
	return nil
}

// laterError is one that goes away when others are done with the log.
type laterError struct {
	path string
	why  error
}

func (e *laterError) Error() string      { return "open " + e.path + ": " + e.why.Error() }
func (e *laterError) Unwrap() error      { return e.why }
func (e *laterError) FaultClass() string { return "sealed" }

func wrapInUse(path string) error { return &laterError{path, ErrInUse} }

func wrapUnfinished(path string) error { return &laterError{path, ErrUnfinished} }

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
	if a.Unfinished() {
		return wrapUnfinished(a.path)
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
