package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keyrite/artifact/fault"
	"keyrite/internal/durable"
)

const noFollow = syscall.O_NOFOLLOW | syscall.O_CLOEXEC

// file appends leaves to a file, one a line. Who moves the file away gets a new
// one, which goes on where the old one ended. So it goes on after the file was deleted,
// which is told.
type file struct {
	path    string
	deleted func()
	f       *os.File
}

// close leaves the file that is open. One that has no name any more was deleted, or
// another one was put in its place; one that was moved away still has a name.
func (w *file) close() {
	if w.f == nil {
		return
	}
	if st, err := w.f.Stat(); err == nil {
		if s, ok := st.Sys().(*syscall.Stat_t); ok && s.Nlink == 0 {
			w.deleted()
		}
	}
	_ = w.f.Close()
	w.f = nil
}

func (w *file) check() error { return w.open() }

// write is held up by nothing but the disk, which cannot be told to give up.
func (w *file) write(ctx context.Context, leaves []numberedLeaf) error {
	if err := w.open(); err != nil {
		return err
	}
	start, err := w.f.Seek(0, 2)
	if err != nil {
		return fault.Errorf(fault.Storage, "write audit sink: %w", err)
	}
	var b bytes.Buffer
	for _, l := range leaves {
		b.Write(l.raw)
		b.WriteByte('\n')
	}
	_, err = w.f.Write(b.Bytes())
	if err == nil {
		err = w.f.Sync()
	}
	if err != nil {
		if ctx.Err() == nil { // or another one may write there by now, and mends it
			_ = w.f.Truncate(start) // no half lines where there was no room for whole ones
		}
		return fault.Errorf(fault.Storage, "write audit sink: %w", err)
	}
	return nil
}

// open opens the file under its name, if it is not the one that is open. A file that
// is none, such as a pipe that nobody reads, is refused at once.
func (w *file) open() error {
	st, err := os.Lstat(w.path)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return fault.Errorf(fault.Storage, "audit sink %q is not a regular file", w.path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fault.Errorf(fault.Storage, "open audit sink: %w", err)
	case err == nil && w.f != nil:
		if have, e := w.f.Stat(); e == nil && os.SameFile(st, have) {
			return nil
		}
	}
	w.close()
	if w.f, err = os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|noFollow, 0o600); err != nil {
		return fault.Errorf(fault.Storage, "open audit sink: %w", err)
	}
	if err := durable.SyncDir(filepath.Dir(w.path)); err != nil {
		w.close()
		return err
	}
	return mend(w.f, w.path)
}

// mend cuts off a last line that a crash left without its end.
func mend(f *os.File, path string) error {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	r, err := os.Open(path)
	if err != nil {
		return fault.Errorf(fault.Storage, "read audit sink: %w", err)
	}
	defer r.Close()
	tail := make([]byte, min(st.Size(), 2<<20))
	if _, err := r.ReadAt(tail, st.Size()-int64(len(tail))); err != nil {
		return fault.Errorf(fault.Storage, "read audit sink: %w", err)
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	if end == len(tail) {
		return nil
	}
	return f.Truncate(st.Size() - int64(len(tail)-end))
}
