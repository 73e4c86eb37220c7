package seal

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/internal/cli"
)

// TestMain is also the guarded process, and the one that is killed while it
// writes.
func TestMain(m *testing.M) {
	// Not os.Exit: under the race detector it waits a second.
	if len(os.Args) == 3 && os.Args[1] == CheckCommand {
		if err := CheckMain(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(cli.CodeOf(err))
		}
		syscall.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "write-until-killed" {
		writeUntilKilled(os.Args[2])
	}
	if len(os.Args) == 4 && os.Args[1] == "write-a-few" {
		writeAFew(os.Args[2], os.Args[3])
		syscall.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "reseal-until-killed" {
		syscall.Exit(resealUntilKilled(os.Args[2]))
	}
	os.Exit(m.Run())
}

const testWorld = world.World("rehearsal:abcdefgh")

func testPlace() Place { return Place{Vault: [32]byte{1, 2, 3}, World: testWorld, Epoch: 1} }

// testSecret stands for the root secret of a safe.
var testSecret = []byte("a secret of a safe that is NOT SECRET")

// bench is a store in a folder with its head beside it.
type bench struct {
	dir, head string
	key       *DataKey
	place     Place
	keeper    func() Keeper // nil: the file at head
}

func newBench(t testing.TB) *bench { t.Helper(); return newBenchAt(t, nil) }

// newBenchAt is newBench with another keeper of the head.
func newBenchAt(t testing.TB, keeper func() Keeper) *bench {
	t.Helper()
	k, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	dir := t.TempDir()
	b := &bench{dir: filepath.Join(dir, "store"), head: filepath.Join(dir, "head"), key: k, place: testPlace(), keeper: keeper}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Create(t.Context(), b.config(t), k, map[string]string{"did": "create"}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) config(t testing.TB) Config {
	t.Helper()
	var k Keeper
	if b.keeper != nil {
		k = b.keeper()
	} else {
		f, err := NewFileKeeper(b.head, b.place.World)
		if err != nil {
			t.Fatal(err)
		}
		k = f
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{Dir: b.dir, Place: b.place, Head: k, Check: Guard(exe)}
}

func (b *bench) file() string { return filepath.Join(b.dir, FileName) }

func (b *bench) open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), b.config(t), b.key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (b *bench) tryOpen(t testing.TB) error {
	t.Helper()
	s, err := Open(t.Context(), b.config(t), b.key)
	if err == nil {
		return s.Close()
	}
	return err
}

func wantClass(t testing.TB, err error, c fault.Class) {
	t.Helper()
	if got := fault.ClassOf(err); got != c {
		t.Fatalf("class %q, want %q: %v", got, c, err)
	}
}

func put(t testing.TB, s *Store, p Promise, bucket, key, value string) uint64 {
	t.Helper()
	n, err := s.Update(t.Context(), p, func(tx *Tx) (any, error) {
		return map[string]string{"put": key}, tx.Put(bucket, key, []byte(value))
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func get(t testing.TB, s *Store, bucket, key string) string {
	t.Helper()
	var out []byte
	err := s.View(func(v *View) (err error) {
		out, err = v.Get(bucket, key)
		return err
	})
	if err != nil {
		t.Fatalf("get %s/%s: %v", bucket, key, err)
	}
	return string(out)
}

// failed tells why the writing process ends by itself.
func failed(err error) {
	fmt.Fprintln(os.Stdout, "failed", fault.ClassOf(err), err)
	syscall.Exit(3)
}

// openToWrite opens the store for the writing process. Its folder has the store, the
// head and the wrapped key.
func openToWrite(dir string) *Store {
	raw, err := os.ReadFile(filepath.Join(dir, "wrapped"))
	if err != nil {
		failed(err)
	}
	wrapped, err := hex.DecodeString(string(raw))
	if err != nil {
		failed(err)
	}
	k, err := Unwrap(wrapped, testSecret, testPlace())
	if err != nil {
		failed(err)
	}
	var keeper Keeper
	if addr, err := os.ReadFile(filepath.Join(dir, "tpm")); err == nil {
		keeper = testTPMKeeper(string(addr))
	} else if keeper, err = NewFileKeeper(filepath.Join(dir, "head"), testWorld); err != nil {
		failed(err)
	}
	s, err := Open(context.Background(), Config{Dir: filepath.Join(dir, "store"), Place: testPlace(), Head: keeper, Check: func(_ context.Context, path string) (Counted, error) { return Check(path) }, Window: 20 * time.Millisecond}, k)
	if err != nil {
		failed(err)
	}
	fmt.Fprintln(os.Stdout, "open", s.Head().Size)
	return s
}

// writeUntilKilled writes numbered values as fast as it can and says which are
// acknowledged.
func writeUntilKilled(dir string) {
	s := openToWrite(dir)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				writeNext(s, w, i)
			}
		}()
	}
	select {}
}

// writeAFew is writeUntilKilled with one writer, who ends well after so many updates.
func writeAFew(dir, updates string) {
	n, err := strconv.Atoi(updates)
	if err != nil {
		failed(err)
	}
	s := openToWrite(dir)
	for i := range n {
		writeNext(s, 0, i)
	}
	if err := s.Close(); err != nil {
		failed(err)
	}
}

// writeNext is the i-th update of writer w since the process began.
func writeNext(s *Store, w, i int) {
	p := Durable
	if i%3 == 0 {
		p = Strict
	}
	var n int
	_, err := s.Update(context.Background(), p, func(tx *Tx) (any, error) {
		key := fmt.Sprintf("writer%d", w)
		if had, err := tx.Get("count", key); err == nil {
			if _, err := fmt.Sscan(string(had), &n); err != nil {
				return nil, err
			}
		}
		n++
		if err := tx.Put("numbers", fmt.Sprintf("%d-%d", w, n), fmt.Appendf(nil, "value %d of %d", n, w)); err != nil {
			return nil, err
		}
		return map[string]int{"n": n, "writer": w}, tx.Put("count", key, fmt.Append(nil, n))
	})
	if err != nil {
		failed(err)
	}
	fmt.Fprintf(os.Stdout, "ack %d %d\n", w, n)
}
