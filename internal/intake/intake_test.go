package intake_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"keyrite/internal/intake"
)

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenTakesRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	file := func(n string) string { return filepath.Join(dir, n) }
	write(t, file("good"), "x")
	write(t, file("empty"), "")
	if err := errors.Join(os.Symlink("good", file("link")), syscall.Mkfifo(file("fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path string
		want error
	}{
		{file("good"), nil},
		{file("empty"), intake.ErrEmpty},
		{file("link"), intake.ErrKind},
		{file("fifo"), intake.ErrKind},
		{dir, intake.ErrKind},
		{"/dev/zero", intake.ErrKind},
		{file("missing"), os.ErrNotExist},
	}
	for _, tt := range tests {
		f, err := intake.Open(tt.path)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.path, err, tt.want)
		}
		var class interface{ FaultClass() string }
		if tt.want != nil && (!errors.As(err, &class) || class.FaultClass() != "usage") {
			t.Errorf("%s: class of %v", tt.path, err)
		}
		if f != nil {
			_ = f.Close()
		}
	}
}

func TestUnchangedSeesWhoeverTouchesIt(t *testing.T) {
	changes := map[string]func(path string) error{
		"nobody":    func(string) error { return nil },
		"overwrite": func(p string) error { return os.WriteFile(p, []byte("yyyy"), 0o600) },
		"append":    func(p string) error { return os.WriteFile(p, []byte("xxxxx"), 0o600) },
		"exchange":  func(p string) error { return os.Rename(p+".other", p) },
		"remove":    os.Remove,
		"overwrite with the old time": func(p string) error {
			s, err := os.Stat(p)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(p, []byte("yyyy"), 0o600), os.Chtimes(p, time.Time{}, s.ModTime()))
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "f")
			write(t, p, "xxxx")
			write(t, p+".other", "xxxx")
			past := time.Now().Add(-time.Hour) // the clock of the file system is coarse
			if err := os.Chtimes(p, past, past); err != nil {
				t.Fatal(err)
			}
			awaitClock(t, p)
			f, err := intake.Open(p)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := change(p); err != nil {
				t.Fatal(err)
			}
			if err := f.Unchanged(); errors.Is(err, intake.ErrChanged) != (name != "nobody") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// awaitClock returns when the clock that stamps files has moved on since p was
// changed, so that the next change cannot get the same time.
func awaitClock(t *testing.T, p string) {
	t.Helper()
	changed := func(p string) syscall.Timespec {
		var st syscall.Stat_t
		if err := syscall.Stat(p, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ctim
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for from, probe := changed(p), p+".probe"; ; <-tick.C {
		write(t, probe, "x")
		if changed(probe) != from {
			return
		}
	}
}

func TestReadBounds(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	write(t, p, "12345")
	if got, err := intake.Read(p, 5); err != nil || string(got) != "12345" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := intake.Read(p, 4); !errors.Is(err, intake.ErrLarge) {
		t.Errorf("got %v", err)
	}
}

func TestReaderStopsWithItsContext(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	write(t, p, "12345")
	f, err := intake.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := io.ReadAll(f.Reader(ctx)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
