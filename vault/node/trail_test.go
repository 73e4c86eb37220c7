package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
