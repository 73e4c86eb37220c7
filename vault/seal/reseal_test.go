package seal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"keyrite/artifact/fault"
)

// full is a store with values, of which some were changed and taken away.
func full(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	s := b.open(t)
	for i := range 30 {
		put(t, s, Durable, fmt.Sprint("bucket", i%3), fmt.Sprint(i%20), fmt.Sprint("value ", i))
	}
	if _, err := s.Update(t.Context(), Strict, func(tx *Tx) (any, error) { return "gone", tx.Delete("bucket0", "0") }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// content is all that a store holds, by name.
func content(t *testing.T, s *Store) string {
	t.Helper()
	var out strings.Builder
	err := s.View(func(v *View) error {
		for _, bucket := range []string{"bucket0", "bucket1", "bucket2"} {
			for _, k := range v.Keys(bucket, "") {
				val, err := v.Get(bucket, k)
				if err != nil {
					return err
				}
				fmt.Fprintf(&out, "%s/%s=%s\n", bucket, k, val)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range s.Head().Size {
		e, err := s.Entry(uint64(n))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s\n", e)
	}
	return out.String()
}

func TestResealForANewEpoch(t *testing.T) {
	b := full(t)
	s := b.open(t)
	before, head := content(t, s), s.Head()
	if err := Reseal(t.Context(), b.config(t), b.key, otherPlaces()["epoch"], b.key); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("while it is open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	for name, p := range otherPlaces() {
		if name == "epoch" {
			continue
		}
		if err := Reseal(t.Context(), b.config(t), b.key, p, key); fault.ClassOf(err) != fault.Policy {
			t.Errorf("for another %s: %v", name, err)
		}
	}
	if err := Reseal(t.Context(), b.config(t), b.key, b.place, key); fault.ClassOf(err) != fault.Policy {
		t.Errorf("for the same epoch: %v", err)
	}
	if err := Reseal(t.Context(), b.config(t), key, otherPlaces()["epoch"], key); !errors.Is(err, ErrKey) {
		t.Errorf("with another key: %v", err)
	}
	next := *b
	next.place, next.key = otherPlaces()["epoch"], key
	if err := Reseal(t.Context(), b.config(t), b.key, next.place, key); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.file() + ".new"); !os.IsNotExist(err) {
		t.Errorf("the other file is left: %v", err)
	}
	if err := b.tryOpen(t); err == nil {
		t.Error("the old key and epoch open the new file")
	}
	mixed := next
	mixed.key = b.key
	if err := mixed.tryOpen(t); !errors.Is(err, ErrKey) {
		t.Errorf("the old key in the new epoch: %v", err)
	}
	s = next.open(t)
	if got := content(t, s); got != before || s.Head() != head {
		t.Errorf("it holds something else now:\n%s\nwas\n%s", got, before)
	}
	put(t, s, Strict, "bucket0", "0", "goes on")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The old file under the old key is behind from then on.
	if err := os.WriteFile(b.file(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.tryOpen(t); !errors.Is(err, ErrBehind) {
		t.Errorf("the old file is put back: %v", err)
	}
}

// Another safe counts epochs of its own: its key takes the store over for any of them, be
// it the same, a later or an earlier one, of the store's own vault and world.
func TestTakeOver(t *testing.T) {
	b := full(t)
	s := b.open(t)
	before := content(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, epoch := range []uint32{b.place.Epoch, b.place.Epoch + 4, b.place.Epoch + 2} {
		key, err := NewDataKey()
		if err != nil {
			t.Fatal(err)
		}
		defer key.Wipe()
		for _, name := range []string{"vault", "world"} {
			if err := TakeOver(t.Context(), b.config(t), b.key, otherPlaces()[name], key); fault.ClassOf(err) != fault.Policy {
				t.Errorf("for another %s: %v", name, err)
			}
		}
		if err := TakeOver(t.Context(), b.config(t), key, b.place, key); !errors.Is(err, ErrKey) {
			t.Errorf("with another key: %v", err)
		}
		next := *b
		next.place.Epoch, next.key = epoch, key
		if err := TakeOver(t.Context(), b.config(t), b.key, next.place, key); err != nil {
			t.Fatal(err)
		}
		mixed := next
		mixed.key = b.key
		if err := mixed.tryOpen(t); !errors.Is(err, ErrKey) {
			t.Errorf("the old key: %v", err)
		}
		b = &next
		s = b.open(t)
		if got := content(t, s); got != before {
			t.Errorf("epoch %d: it holds something else now:\n%s\nwas\n%s", epoch, got, before)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// resealUntilKilled reseals the store in a folder; strace kills it. On one thread:
// strace counts the calls of each thread by itself.
func resealUntilKilled(dir string) int {
	runtime.LockOSThread()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	var keys []*DataKey
	for i, name := range []string{"wrapped", "wrapped-next"} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return fail(err)
		}
		wrapped, err := hex.DecodeString(string(raw))
		if err != nil {
			return fail(err)
		}
		p := testPlace()
		p.Epoch += uint32(i)
		k, err := Unwrap(wrapped, testSecret, p)
		if err != nil {
			return fail(err)
		}
		keys = append(keys, k)
	}
	keeper, err := NewFileKeeper(filepath.Join(dir, "head"), testWorld)
	if err != nil {
		return fail(err)
	}
	c := Config{Dir: filepath.Join(dir, "store"), Place: testPlace(), Head: keeper, Check: func(_ context.Context, path string) (Counted, error) { return Check(path) }}
	to := testPlace()
	to.Epoch++
	if err := Reseal(context.Background(), c, keys[0], to, keys[1]); err != nil {
		return fail(err)
	}
	return 0
}

// Killed at each of its writes, syncs and renames a resealing leaves the old
// epoch or the new one, whole.
func TestKilledReseal(t *testing.T) {
	b := full(t)
	s := b.open(t)
	want := content(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	next := *b
	next.place, next.key = otherPlaces()["epoch"], key
	dir := filepath.Dir(b.dir)
	for name, x := range map[string]*bench{"wrapped": b, "wrapped-next": &next} {
		w, err := x.key.Wrap(testSecret, x.place)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(hex.EncodeToString(w)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	olds, news := 0, 0
	for _, call := range []string{"pwrite64", "fdatasync", "fsync", "renameat", "ftruncate"} {
		for n := 1; ; n++ {
			if err := os.WriteFile(b.file(), good, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), exe, "reseal-until-killed", dir)
			out, err := cmd.CombinedOutput()
			if err == nil {
				break // it made fewer of these calls
			}
			if cmd.ProcessState.ExitCode() == 3 {
				t.Fatalf("%s %d: %s", call, n, out)
			}
			oldErr, newErr := b.tryOpen(t), next.tryOpen(t)
			if (oldErr == nil) == (newErr == nil) {
				t.Fatalf("%s %d: old: %v; new: %v", call, n, oldErr, newErr)
			}
			in := b
			if olds++; newErr == nil {
				in, olds, news = &next, olds-1, news+1
			}
			s := in.open(t)
			if got := content(t, s); got != want {
				t.Fatalf("%s %d: it holds something else", call, n)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d kills left the old epoch, %d the new one", olds, news)
	if olds == 0 || news == 0 {
		t.Error("one of the outcomes was never met")
	}
}
