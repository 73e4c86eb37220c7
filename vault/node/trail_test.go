package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/artifact/trail"
	"keyrite/internal/clitest"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

func logKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("NOT SECRET vault1"))
	return ed25519.NewKeyFromSeed(seed[:])
}

// sign states the head, signed by the log's key.
func sign(h seal.Head) ([]byte, error) { return tlog.Sign(h.Checkpoint(), "vault1", logKey()) }

func (b *bench) nameLogKey() {
	pub, _ := logKey().Public().(ed25519.PublicKey)
	b.Approve(charter.TypeAuditLog, charter.AuditLog{Log: charter.LogSigner{Key: pub, Name: "vault1"}, Version: 1})
}

// openChanged opens the vault under another configuration.
func (b *bench) openChanged(change func(*Config)) {
	b.t.Helper()
	cfg := b.state().config()
	change(&cfg)
	n, shut, err := b.state().openWith(b.t.Context(), cfg, b.store())
	b.ok(err)
	b.shut = sync.OnceFunc(func() { b.ok(shut()) })
	b.t.Cleanup(b.shut)
	b.node = n
}

// TestExtractOfAVault: what a vault gives out verifies under its charter, has the calls
// and the charters taken over, and that it was given out.
func TestExtractOfAVault(t *testing.T) {
	b := newBench(t)
	b.open()
	var out bytes.Buffer
	if _, err := b.node.Extract(t.Context(), &out, sign, audit.Choice{}); fault.ClassOf(err) != fault.Policy || out.Len() > 0 {
		t.Errorf("without a key in the charter: %v", err)
	}
	before := len(b.Charter)
	b.nameLogKey()
	_, err := b.node.Append(t.Context(), b.lines(before))
	b.ok(err)
	_, err = b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"intend"}`)
	b.ok(err)
	n, err := b.node.Extract(t.Context(), &out, sign, audit.Choice{})
	b.ok(err)
	seen := map[string]int{}
	v, err := trail.Verify(&out, b.State.TrailSigners(), func(_ uint64, e *trail.Entry) error {
		seen[string(e.Kind)+" "+e.Operation]++
		size, head, ok, err := e.TookOver()
		if err != nil || !ok {
			return err
		}
		return b.State.CheckHead(size, head)
	})
	b.ok(err)
	if v.Entries != n || !v.Whole || len(v.Open) != 0 {
		t.Errorf("verified %+v of %d", v, n)
	}
	for _, want := range []string{"life charter", "life serve", "intent update", "result update", "life audit extract"} {
		if seen[want] == 0 {
			t.Errorf("no entry %q among %v", want, seen)
		}
	}
	b.shut()
	if _, err := b.node.Extract(t.Context(), &out, sign, audit.Choice{}); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("of a sealed vault: %v", err)
	}
}

// TestSinksOfTheCharter: a sink that the charter names gets what happens from the first
// entry on, and one that is ended nothing more; its state is in the status.
func TestSinksOfTheCharter(t *testing.T) {
	b := newBench(t)
	copies := filepath.Join(b.dir, "copies")
	b.openChanged(func(c *Config) { c.Copies = copies })
	b.sink(charter.AuditSink{ID: "copy", Kind: "file"})
	has := func() int {
		data, _ := os.ReadFile(filepath.Join(copies, "copy.jsonl"))
		return strings.Count(string(data), "\n")
	}
	_, err := b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"x"}`)
	b.ok(err)
	if !clitest.Await(time.Minute, func() bool { return int64(has()) == b.size() }) {
		t.Fatalf("the copy has %d of %d entries: %+v", has(), b.size(), b.node.Status().Sinks)
	}
	if st := b.node.Status().Sinks["copy"]; st.Error != nil || st.Kind != "file" {
		t.Errorf("its state is %+v", st)
	}
	b.statement(charter.TypeAccessEnded, charter.AccessEnded{ID: "copy", Type: charter.TypeAuditSink})
	ended := has()
	_, err = b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"y"}`)
	b.ok(err)
	b.shut()
	if has() != ended || len(b.node.Status().Sinks) != 0 {
		t.Errorf("it was ended with %d lines and has %d", ended, has())
	}
}

// hang makes whoever opens the file at path wait, as a mount does whose server is gone,
// until it is let go: another has a lease on it (fcntl, F_SETLEASE), which the kernel
// breaks after 45 s.
func (b *bench) hang(path string) (release func()) {
	b.t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	b.ok(err)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	b.ok(err)
	release = sync.OnceFunc(func() { b.ok(f.Close()) })
	b.t.Cleanup(release)
	return release
}

// sink has the charter name a sink.
func (b *bench) sink(s charter.AuditSink) { b.statement(charter.TypeAuditSink, s) }

// statement appends one that the approvers signed.
func (b *bench) statement(kind string, body any) {
	b.t.Helper()
	before := len(b.Charter)
	b.Approve(kind, body)
	_, err := b.node.Append(b.t.Context(), b.lines(before))
	b.ok(err)
}

// TestHungSinksHoldUpNobody: where sinks hang, requests are answered, also while one of
// them is ended by the approvers; the status says so, and the vault can be sealed.
func TestHungSinksHoldUpNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	copies := filepath.Join(b.dir, "copies")
	b.ok(os.Mkdir(copies, 0o700))
	free := []func(){b.hang(filepath.Join(copies, "one.jsonl")), b.hang(filepath.Join(copies, "two.jsonl"))}
	b.openChanged(func(c *Config) { c.Copies = copies })
	for _, id := range []string{"one", "two", "good"} {
		b.sink(charter.AuditSink{ID: id, Kind: "file"})
	}
	before := len(b.Charter)
	b.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "one", Type: charter.TypeAuditSink})
	ended := make(chan error, 1)
	go func() {
		_, err := b.node.Append(t.Context(), b.lines(before))
		ended <- err
	}()
	meanwhile := false // requests and status go on while it is waited for
	if !clitest.Await(30*time.Second, func() bool {
		if _, err := b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"x"}`); err != nil && !errors.Is(err, ErrTakingOver) {
			t.Fatal(err)
		}
		sinks := b.node.Status().Sinks
		_, there := sinks["one"]
		meanwhile = meanwhile || !there && len(ended) == 0
		return sinks["two"].Error != nil && !sinks["two"].Since.IsZero()
	}) {
		t.Error("the sink that hangs does not show")
	}
	b.ok(<-ended)
	if !meanwhile {
		t.Error("nothing was answered while the sink that hangs was ended")
	}
	if st := b.node.Status().Sinks["good"]; st.Error != nil || st.Cursor == 0 {
		t.Errorf("the sink that works is %+v", st)
	}
	b.shut()
	for i, id := range []string{"one", "two"} {
		free[i]()
		// What it was given last it has after all.
		if !clitest.Await(time.Minute, func() bool { _, err := os.Stat(filepath.Join(copies, id+".cursor")); return err == nil }) {
			t.Errorf("%s does not come back", id)
		}
	}
}

// peerThatNeverReads is a syslog receiver that accepts and takes nothing, until it is told
// to read. Little fits between it and who sends.
func (b *bench) peerThatNeverReads() (address string, read func()) {
	b.t.Helper()
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			b.ok(unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536))
			b.ok(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 2048))
		})
	}}
	l, err := small.Listen(b.t.Context(), "tcp", "127.0.0.1:0")
	b.ok(err)
	b.t.Cleanup(func() { _ = l.Close() })
	reading := make(chan struct{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				<-reading
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	read = sync.OnceFunc(func() { close(reading) })
	b.t.Cleanup(read)
	return l.Addr().String(), read
}

// mounted puts the file at from over the one at path, until it is taken away.
func (b *bench) mounted(from, path string, flags uintptr) (heal func()) {
	b.t.Helper()
	b.ok(os.WriteFile(path, nil, 0o600))
	b.ok(unix.Mount(from, path, "", unix.MS_BIND, ""))
	heal = sync.OnceFunc(func() { b.ok(unix.Unmount(path, unix.MNT_DETACH)) })
	b.t.Cleanup(heal)
	b.ok(unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""))
	return heal
}

// onFullDisk is a file on a disk that has no room.
func (b *bench) onFullDisk() string {
	b.t.Helper()
	dir := b.t.TempDir()
	b.ok(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	b.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	b.ok(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 128<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		b.t.Fatalf("the disk is not full: %v", err)
	}
	return filepath.Join(dir, "file")
}

// brokenSinks makes a sink in each kind of trouble, beside one that is well, and returns
// what its state says and what mends it.
func (b *bench) brokenSinks(copies string) (says map[string]string, heal []func()) {
	b.t.Helper()
	b.ok(os.Mkdir(copies, 0o700))
	path := func(id string) string { return filepath.Join(copies, id+".jsonl") }
	none := b.t.TempDir()
	b.ok(os.WriteFile(filepath.Join(none, "file"), nil, 0o600))
	b.ok(os.Mkdir(path("folder"), 0o700))
	address, read := b.peerThatNeverReads()
	heal = []func(){
		b.hang(path("hung")), b.mounted(b.onFullDisk(), path("full"), 0), b.mounted(filepath.Join(none, "file"), path("unwritable"), unix.MS_RDONLY),
		func() { b.ok(os.Remove(path("folder"))) }, read,
	}
	says = map[string]string{
		"hung": "it hangs", "full": "no space left on device", "unwritable": "read-only file system", "folder": "is not a regular file",
		"silent": "i/o timeout", "deleted": "", "good": "",
	}
	for id := range says {
		s := charter.AuditSink{ID: id, Kind: "file"}
		if id == "silent" {
			s = charter.AuditSink{ID: id, Kind: "syslog", Address: address}
		}
		b.Approve(charter.TypeAuditSink, s)
	}
	b.Approve(charter.TypePolicy, charter.Policy{ID: "looks", Version: 1, Rules: []access.Rule{{Path: "keyrite/status", Can: []access.Capability{access.Read}}}})
	b.Approve(charter.TypeIdentity, charter.Identity{ID: "watch", Policies: []string{"looks"}, TTL: 60, Unix: &charter.Unix{UID: 1002}})
	b.writeCharter()
	return says, heal
}

// shownSinks are the sinks as keyrite/status shows them to whoever may see it.
func (b *bench) shownSinks() map[string]map[string]any {
	b.t.Helper()
	r, err := b.call(1002, engine.Read, "keyrite/status", "")
	b.ok(err)
	raw, err := json.Marshal(r.Answer.Data)
	b.ok(err)
	var st struct{ Sinks []map[string]any }
	b.ok(json.Unmarshal(raw, &st))
	out := map[string]map[string]any{}
	for _, s := range st.Sinks {
		out[fmt.Sprint(s["id"])] = s
	}
	return out
}

// TestSinkInTroubleHoldsUpNobody: a vault is opened while its sinks are in trouble of every
// kind; each request is answered at once, keyrite/status says of each sink what is wrong
// with it, and they catch up when it is mended.
func TestSinkInTroubleHoldsUpNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	copies := filepath.Join(b.dir, "copies")
	says, heal := b.brokenSinks(copies)
	prompt := func(what string, f func()) {
		t.Helper()
		begun := time.Now()
		if f(); time.Since(begun) > 5*time.Second { // half of what a sink has for one try
			t.Errorf("%s took %s", what, time.Since(begun))
		}
	}
	prompt("opening", func() { b.openChanged(func(c *Config) { c.Copies = copies }) })
	ask := func() {
		t.Helper()
		prompt("a request", func() {
			_, err := b.call(1001, engine.Write, "kv/data/line1/plc", `{"text":"x"}`)
			b.ok(err)
		})
	}
	for range 300 { // more than the receiver's buffers take
		ask()
	}
	if !clitest.Await(time.Minute, func() bool { return b.node.Status().Sinks["deleted"].Behind == 0 }) {
		t.Error("the sink that is to be deleted has not all")
	}
	b.ok(os.Remove(filepath.Join(copies, "deleted.jsonl")))
	var got map[string]map[string]any
	all := func() bool {
		ask()
		prompt("the status", func() { got = b.shownSinks() })
		for id, what := range says {
			if text, _ := got[id]["error"].(string); what == "" && text != "" || !strings.Contains(text, what) || (what == "") != (got[id]["since"] == nil) {
				return false
			}
		}
		return got["deleted"]["deleted"] != nil
	}
	if !clitest.Await(35*time.Second, all) { // a lease ends after 45 s
		t.Fatalf("keyrite/status shows %v", got)
	}
	if lost, _ := got["deleted"]["lost"].(float64); lost < 300 {
		t.Errorf("of the deleted file it shows %v", got["deleted"])
	}
	for _, f := range heal {
		f()
	}
	if !clitest.Await(time.Minute, func() bool {
		for _, s := range b.node.Status().Sinks {
			if s.Behind != 0 || s.Error != nil {
				return false
			}
		}
		return true
	}) {
		t.Fatalf("they do not catch up: %+v", b.node.Status().Sinks)
	}
	size := int(b.size())
	prompt("sealing", b.shut)
	for _, id := range []string{"hung", "full", "unwritable", "folder", "good"} {
		data, err := os.ReadFile(filepath.Join(copies, id+".jsonl"))
		if n := bytes.Count(data, []byte("\n")); err != nil || n < size || n > size+1 { // one for the sealing
			t.Errorf("%s has %d of %d entries: %v", id, n, size, err)
		}
	}
}
