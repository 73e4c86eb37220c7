package audit

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
)

func (b *bench) sinks(dir string, want map[string]charter.AuditSink) *Sinks {
	b.t.Helper()
	s := NewSinks(b.store, dir, time.Now)
	s.retry = 20 * time.Millisecond
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
	// Deleted: what comes after is not written into a file without a name.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	b.fill(2)
	caughtUp(t, s, "copy")
	if n := b.inOrder(path, 606); n != 608 {
		t.Errorf("after the deletion up to %d", n)
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
	if n := b.inOrder(path, 606); n != 609 {
		t.Errorf("after the torn line up to %d", n)
	}
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
