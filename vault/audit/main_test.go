package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/tlog"
	"keyrite/artifact/trail"
	"keyrite/artifact/world"
	"keyrite/internal/cli"
	"keyrite/vault/seal"
)

// TestMain is also the guarded process of the store.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == seal.CheckCommand {
		err := seal.CheckMain(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		syscall.Exit(cli.CodeOf(err)) // not os.Exit: under the race detector it waits a second
	}
	os.Exit(m.Run())
}

const testWorld = world.World("rehearsal:abcdefgh")

var testVault = [32]byte{1, 2, 3}

// bench is a store with a journal.
type bench struct {
	t     *testing.T
	dir   string
	key   *seal.DataKey
	store *seal.Store
	j     *Journal
}

func entry(kind trail.Kind, operation, path string) *Entry {
	return &Entry{Kind: kind, Operation: operation, Path: path, Identity: "mes", Request: "00", Time: trail.FormatTime(time.Unix(1.8e9, 0))}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	k, err := seal.NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	b := &bench{t: t, dir: t.TempDir(), key: k}
	first := entry(trail.Life, trail.OpCreate, "")
	first.Format = trail.Format
	if err := seal.Create(t.Context(), b.config(), k, first); err != nil {
		t.Fatal(err)
	}
	b.open()
	t.Cleanup(func() { _ = b.store.Close() })
	return b
}

func (b *bench) config() seal.Config {
	b.t.Helper()
	k, err := seal.NewFileKeeper(filepath.Join(b.dir, "head"), testWorld)
	if err != nil {
		b.t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	return seal.Config{Dir: b.dir, Place: seal.Place{Vault: testVault, World: testWorld, Epoch: 1}, Head: k, Check: seal.Guard(exe)}
}

func (b *bench) open() {
	b.t.Helper()
	s, err := seal.Open(b.t.Context(), b.config(), b.key)
	if err != nil {
		b.t.Fatal(err)
	}
	b.store, b.j = s, NewJournal(s)
}

// do writes an entry and returns its number.
func (b *bench) do(e *Entry) uint64 {
	b.t.Helper()
	n, err := b.j.Do(b.t.Context(), seal.Durable, e, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// fill writes n requests.
func (b *bench) fill(n int) {
	b.t.Helper()
	for i := range n {
		b.do(entry(trail.Request, "read", fmt.Sprintf("kv/data/%d", i)))
	}
}

func testKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("NOT SECRET vault1"))
	return ed25519.NewKeyFromSeed(seed[:])
}

func testSigners() trail.Signers {
	return trail.Signers{Vault: hex.EncodeToString(testVault[:]), World: testWorld, Log: tlog.Signer{Name: "vault1", Public: testKey().Public()}}
}

// note is the signed head of the store.
func (b *bench) note() []byte {
	b.t.Helper()
	note, err := tlog.Sign(b.store.Head().Checkpoint(), "vault1", testKey())
	if err != nil {
		b.t.Fatal(err)
	}
	return note
}

// until waits for something that another goroutine does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end, tick := time.After(time.Minute), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never: %s", what)
		}
	}
}

func fileSink(id string) map[string]charter.AuditSink {
	return map[string]charter.AuditSink{id: {ID: id, Kind: "file"}}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) == 0 {
		return nil
	}
	if !strings.HasSuffix(string(data), "\n") {
		t.Fatalf("%s ends within a line", path)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}
