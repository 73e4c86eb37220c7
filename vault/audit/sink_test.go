package audit

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
)

func (b *bench) sinks(dir string, want map[string]charter.AuditSink) *Sinks {
	b.t.Helper()
	return b.sinksWith(dir, want, func(*Sinks) {})
}

// sinksWith is sinks, of which something is changed before they begin.
func (b *bench) sinksWith(dir string, want map[string]charter.AuditSink, change func(*Sinks)) *Sinks {
	b.t.Helper()
	s := NewSinks(b.store, dir, time.Now, slog.New(slog.DiscardHandler))
	s.retry = 20 * time.Millisecond
	change(s)
	s.Set(want)
	b.t.Cleanup(func() { s.Set(nil) })
	return s
}

// caughtUp waits until a sink has all.
func caughtUp(t *testing.T, s *Sinks, id string) {
	t.Helper()
	s.Wake()
	until(t, id+" has all", func() bool { st := s.States()[id]; return st.Behind == 0 && st.Cursor > 0 && st.Error == nil })
}

// inOrder checks that the lines are the leaves from number first on.
func (b *bench) inOrder(path string, first int) int {
	b.t.Helper()
	l := lines(b.t, path)
	for i, line := range l {
		want, err := b.store.Entry(uint64(first + i))
		if err != nil || line != string(want) {
			b.t.Fatalf("line %d of %s is %.80q, want %.80q (%v)", i, path, line, want, err)
		}
	}
	return first + len(l)
}

// TestFileSink: a file has every leaf once and in order, also after a restart, when
// it was moved away, and when a crash left half a line.
func TestFileSink(t *testing.T) {
	b := newBench(t)
	b.fill(600) // more than a batch
	dir := t.TempDir()
	path := filepath.Join(dir, "copy.jsonl")
	s := b.sinks(dir, fileSink("copy"))
	caughtUp(t, s, "copy")
	b.fill(3)
	caughtUp(t, s, "copy")
	if n := b.inOrder(path, 0); n != 604 {
		t.Fatalf("%d lines", n)
	}
	// Moved away by a rotation: a new file goes on.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	b.fill(2)
	caughtUp(t, s, "copy")
	if n := b.inOrder(path, 604); n != 606 {
		t.Errorf("after the rotation up to %d", n)
	}
	s.Set(nil)
	// Torn by a crash after the cursor was kept.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"entry":{"cha`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b.fill(1)
	s = b.sinks(dir, fileSink("copy"))
	caughtUp(t, s, "copy")
	if n := b.inOrder(path, 604); n != 607 {
		t.Errorf("after the torn line up to %d", n)
	}
}

// TestDeletedSink: a file that is deleted, or that another one takes the place of, shows
// until the vault is sealed, also where there is nothing to write; a new one goes on. One
// that was moved away does not show.
func TestDeletedSink(t *testing.T) {
	b := newBench(t)
	b.fill(4)
	dir := t.TempDir()
	path := filepath.Join(dir, "copy.jsonl")
	var log bytes.Buffer
	s := b.sinksWith(dir, fileSink("copy"), func(s *Sinks) { s.log = slog.New(slog.NewTextHandler(&log, nil)) })
	caughtUp(t, s, "copy")
	there := func() bool { _, err := os.Lstat(path); return err == nil }
	must(t, os.Rename(path, path+".1"))
	until(t, "a new file after the rotation", there)
	if st := s.States()["copy"]; !st.Deleted.IsZero() || st.Error != nil {
		t.Errorf("after a rotation: %+v", st)
	}
	b.fill(2)
	caughtUp(t, s, "copy")
	for _, lost := range []uint64{7, 9} {
		before := s.States()["copy"].Deleted
		if lost == 7 {
			must(t, os.Remove(path))
		} else {
			must(t, os.WriteFile(path+".new", nil, 0o600))
			must(t, os.Rename(path+".new", path))
		}
		until(t, "the deletion shows", func() bool { return s.States()["copy"].Deleted.After(before) })
		if st := s.States()["copy"]; st.Lost != lost || st.Error != nil {
			t.Errorf("it shows %+v, want %d lost", st, lost)
		}
		until(t, "a new file", there)
		b.fill(2)
		caughtUp(t, s, "copy")
		if n := b.inOrder(path, int(lost)); n != int(lost)+2 {
			t.Errorf("the new file goes up to %d", n)
		}
	}
	if s.States()["copy"].Deleted.IsZero() {
		t.Error("it does not show any more")
	}
	s.Set(nil)
	if n := strings.Count(log.String(), "was deleted"); n != 2 {
		t.Errorf("the log has %d of it: %s", n, log.String())
	}
}

// TestCursorIsKeptLater: a cursor that could not be kept is kept as soon as it can be,
// also where there is nothing more to copy.
func TestCursorIsKeptLater(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	s := b.sinks(dir, fileSink("copy"))
	caughtUp(t, s, "copy")
	cursor := filepath.Join(dir, "copy.cursor")
	must(t, os.Remove(cursor))
	must(t, os.Mkdir(cursor, 0o700))
	b.fill(1)
	s.Wake()
	until(t, "the trouble shows", func() bool { return s.States()["copy"].Error != nil })
	must(t, os.Remove(cursor))
	until(t, "the cursor is kept", func() bool { raw, _ := os.ReadFile(cursor); return string(raw) == "2" })
	caughtUp(t, s, "copy")
}

// TestSinkInTrouble: whatever happens to a sink, requests go on, its state says what
// is wrong, and it catches up.
func TestSinkInTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		hurt, heal func(t *testing.T, dir, path string)
	}{
		"a pipe that nobody reads": {
			func(t *testing.T, _, path string) { must(t, syscall.Mkfifo(path, 0o600)) },
			func(t *testing.T, _, path string) { must(t, os.Remove(path)) },
		},
		"a folder": {
			func(t *testing.T, _, path string) { must(t, os.Mkdir(path, 0o700)) },
			func(t *testing.T, _, path string) { must(t, os.Remove(path)) },
		},
		"a link elsewhere": {
			func(t *testing.T, dir, path string) { must(t, os.Symlink(filepath.Join(dir, "elsewhere"), path)) },
			func(t *testing.T, _, path string) { must(t, os.Remove(path)) },
		},
		"a full disk": {
			func(t *testing.T, dir, _ string) {
				must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
				t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
				must(t, os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 48<<10), 0o600))
			},
			func(t *testing.T, dir, _ string) { must(t, os.Remove(filepath.Join(dir, "ballast"))) },
		},
		"a cursor that is none": {
			func(t *testing.T, dir, _ string) {
				must(t, os.WriteFile(filepath.Join(dir, "copy.cursor"), []byte("soon"), 0o600))
			},
			func(t *testing.T, dir, _ string) { must(t, os.Remove(filepath.Join(dir, "copy.cursor"))) },
		},
		"a cursor of another store": {
			func(t *testing.T, dir, _ string) {
				must(t, os.WriteFile(filepath.Join(dir, "copy.cursor"), []byte("9999"), 0o600))
			},
			func(t *testing.T, dir, _ string) { must(t, os.Remove(filepath.Join(dir, "copy.cursor"))) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			dir := t.TempDir()
			path := filepath.Join(dir, "copy.jsonl")
			c.hurt(t, dir, path)
			s := b.sinks(dir, fileSink("copy"))
			b.fill(100)
			s.Wake()
			until(t, "the trouble shows", func() bool { return s.States()["copy"].Error != nil })
			st := s.States()["copy"]
			if fault.ClassOf(st.Error) != fault.Storage || st.Since.IsZero() {
				t.Errorf("it shows %+v", st)
			}
			b.fill(1) // nothing waits for a sink
			c.heal(t, dir, path)
			caughtUp(t, s, "copy")
			if n := b.inOrder(path, 0); n != 102 {
				t.Errorf("%d lines in the end", n)
			}
			if st := s.States()["copy"]; !st.Since.IsZero() {
				t.Errorf("the trouble goes on: %+v", st)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// messages reads syslog messages (RFC 6587, section 3.4.1) as they come.
func messages(c net.Conn, out chan<- string) {
	r := bufio.NewReader(c)
	for {
		var n int
		if _, err := fmt.Fscanf(r, "%d ", &n); err != nil {
			return
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		out <- string(b)
	}
}

// TestSyslog: a receiver that comes late, hangs up and comes back gets every entry.
func TestSyslog(t *testing.T) {
	b := newBench(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close()) // nobody is there yet
	s := b.sinks(t.TempDir(), map[string]charter.AuditSink{"soc": {ID: "soc", Kind: "syslog", Address: address}})
	until(t, "nobody answers", func() bool { return fault.ClassOf(s.States()["soc"].Error) == fault.Unreachable })

	l, err = net.Listen("tcp", address)
	must(t, err)
	defer l.Close()
	got := make(chan string, 1000)
	accept := func() net.Conn {
		c, err := l.Accept()
		must(t, err)
		go messages(c, got)
		return c
	}
	c := accept()
	expect := func(n uint64, priority string) {
		t.Helper()
		m := <-got
		leaf, err := b.store.Entry(n)
		must(t, err)
		if !strings.HasPrefix(m, priority+"1 2027-01-15T08:00:00.000Z ") || !strings.HasSuffix(m, fmt.Sprintf(" keyrite-vault %d %d - %s", os.Getpid(), n, leaf)) {
			t.Errorf("entry %d came as %q", n, m)
		}
	}
	expect(0, "<109>")
	refused := entry(trail.Refused, "read", "kv/data/\u202eother\x1b[2J")
	refused.Class = "policy"
	b.do(refused)
	s.Wake()
	expect(1, "<108>")
	must(t, c.Close())
	b.fill(2)
	s.Wake()
	c = accept()
	defer c.Close()
	expect(2, "<109>")
	expect(3, "<109>")
}

// TestSinksFollowTheCharter: one that is no more gets nothing more.
func TestSinksFollowTheCharter(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	s := b.sinks(dir, fileSink("a"))
	caughtUp(t, s, "a")
	s.Set(fileSink("b"))
	b.fill(5)
	caughtUp(t, s, "b")
	if n := len(lines(t, filepath.Join(dir, "a.jsonl"))); n != 1 {
		t.Errorf("the first has %d lines", n)
	}
	if st := s.States(); len(st) != 1 {
		t.Errorf("states %+v", st)
	}
}

// hung is a writer that never comes back by itself.
type hung struct {
	at, back chan struct{}
	release  func()
}

func (w *hung) write(context.Context, []numberedLeaf) error {
	select {
	case w.at <- struct{}{}:
	default:
	}
	<-w.back
	return nil
}

func (*hung) check() error { return nil }
func (*hung) close()       {}

// withHung has one sink that hangs and one that works, and returns when the first hangs.
func (b *bench) withHung(limit time.Duration, log io.Writer) (*Sinks, *hung, *sink) {
	b.t.Helper()
	w := &hung{at: make(chan struct{}, 1), back: make(chan struct{})}
	w.release = sync.OnceFunc(func() { close(w.back) })
	both := fileSink("good")
	both["hung"] = charter.AuditSink{ID: "hung", Kind: "file"}
	s := b.sinksWith(b.t.TempDir(), both, func(s *Sinks) {
		s.limit, s.log = limit, slog.New(slog.NewTextHandler(log, nil))
		s.open = func(x *sink) writer {
			if x.ID == "hung" {
				return w
			}
			return x.writer()
		}
	})
	b.j.Tell(s.Wake) // no entry is written yet
	b.t.Cleanup(w.release)
	<-w.at
	return s, w, s.running["hung"]
}

// TestHungSinkHoldsUpNobody: beside a sink that hangs requests go on, another one gets
// all, its state says that it hangs, and so it is while it is ended, which is waited for.
func TestHungSinkHoldsUpNobody(t *testing.T) {
	b := newBench(t)
	s, w, x := b.withHung(time.Hour, io.Discard)
	b.fill(3)
	caughtUp(t, s, "good")
	if st := s.States()["hung"]; st.Error != nil || st.Behind != 4 {
		t.Errorf("before it is late: %+v", st)
	}
	ended := make(chan struct{})
	go func() { s.Set(fileSink("good")); close(ended) }()
	until(t, "it is taken out", func() bool { return len(s.States()) == 1 })
	b.fill(3)
	caughtUp(t, s, "good")
	select {
	case <-ended:
		t.Error("it was not waited for")
	default:
	}
	w.release()
	<-ended
	select {
	case <-x.ended:
	default:
		t.Error("it has not ended")
	}
}

// TestHungSinkIsLeftBehind: a sink that does not come back shows that, is ended all the
// same, and does no harm when it comes back, even after the store was closed.
func TestHungSinkIsLeftBehind(t *testing.T) {
	b := newBench(t)
	var log bytes.Buffer
	s, w, x := b.withHung(50*time.Millisecond, &log)
	until(t, "it shows", func() bool { return s.States()["hung"].Error != nil })
	st := s.States()["hung"]
	if fault.ClassOf(st.Error) != fault.Storage || !strings.Contains(st.Error.Error(), "it hangs") || st.Since.IsZero() || time.Since(st.Since) < s.limit {
		t.Errorf("it shows %+v", st)
	}
	b.fill(2)
	caughtUp(t, s, "good")
	ended := make(chan struct{})
	go func() { s.Set(nil); close(ended) }()
	until(t, "all are ended", func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	if !strings.Contains(log.String(), "left behind") || !strings.Contains(log.String(), "id=hung") || strings.Contains(log.String(), "id=good") {
		t.Errorf("the log has %q", log.String())
	}
	must(t, b.store.Close())
	w.release()
	<-x.ended
}
