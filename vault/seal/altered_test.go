package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	bolt "go.etcd.io/bbolt"
	mod "golang.org/x/mod/sumdb/tlog"

	"keyrite/artifact/fault"
)

// At each of 100 heads the file of before is put back.
func TestOlderCopyIsRefused(t *testing.T) {
	b := newBench(t)
	var copies [][]byte
	for i := range 100 {
		s := b.open(t)
		put(t, s, Strict, "kv", fmt.Sprint(i%7), fmt.Sprint(i))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(b.file())
		if err != nil {
			t.Fatal(err)
		}
		copies = append(copies, raw)
	}
	last := len(copies) - 1
	for i, raw := range copies {
		if err := os.WriteFile(b.file(), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		err := b.tryOpen(t)
		if i == last && err != nil {
			t.Errorf("the newest copy: %v", err)
		}
		if i != last && !errors.Is(err, ErrBehind) {
			t.Errorf("copy %d: %v", i, err)
		}
	}
}

// Somebody who can write the file but has no key puts back, moves, takes out and
// adds what was sealed rightly.
func TestSwappedValuesAreFound(t *testing.T) {
	b := newBench(t)
	s := b.open(t)
	put(t, s, Strict, "kv", "a", "old")
	put(t, s, Strict, "kv", "b", "other")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := rawValue(t, b.file(), "kv", "a")
	s = b.open(t)
	put(t, s, Strict, "kv", "a", "new")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(v *bolt.Bucket) error{
		"older form":  func(v *bolt.Bucket) error { return v.Bucket([]byte("kv")).Put([]byte("a"), before) },
		"taken out":   func(v *bolt.Bucket) error { return v.Bucket([]byte("kv")).Delete([]byte("b")) },
		"moved":       func(v *bolt.Bucket) error { return v.Bucket([]byte("kv")).Put([]byte("c"), before) },
		"bucket gone": func(v *bolt.Bucket) error { return v.DeleteBucket([]byte("kv")) },
		"empty value": func(v *bolt.Bucket) error { return v.Bucket([]byte("kv")).Put([]byte("b"), nil) },
		"swapped":     swapAB,
		"bucket added": func(v *bolt.Bucket) error {
			n, err := v.CreateBucket([]byte("kw"))
			return errors.Join(err, n.Put([]byte("a"), before))
		},
	} {
		if err := os.WriteFile(b.file(), good, 0o600); err != nil {
			t.Fatal(err)
		}
		alter(t, b.file(), func(tx *bolt.Tx) error { return change(tx.Bucket(bucketValues)) })
		if err := b.tryOpen(t); !errors.Is(err, ErrAltered) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(tx *bolt.Tx) error{
		"tree hash": func(tx *bolt.Tx) error {
			return tx.Bucket(bucketTree).Put(number(uint64(mod.StoredHashIndex(2, 0))), make([]byte, 32))
		},
		"state gone": func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyState) },
		"log gone":   func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketLog) },
		"place gone": func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyPlace) },
	} {
		if err := os.WriteFile(b.file(), good, 0o600); err != nil {
			t.Fatal(err)
		}
		alter(t, b.file(), change)
		if err := b.tryOpen(t); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if err := os.WriteFile(b.file(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.tryOpen(t); err != nil {
		t.Errorf("the good file: %v", err)
	}
}

func swapAB(v *bolt.Bucket) error {
	kv := v.Bucket([]byte("kv"))
	a, b := bytes.Clone(kv.Get([]byte("a"))), bytes.Clone(kv.Get([]byte("b")))
	return errors.Join(kv.Put([]byte("a"), b), kv.Put([]byte("b"), a))
}

func rawValue(t *testing.T, path, bucket, key string) []byte {
	t.Helper()
	var out []byte
	alter(t, path, func(tx *bolt.Tx) error {
		out = bytes.Clone(tx.Bucket(bucketValues).Bucket([]byte(bucket)).Get([]byte(key)))
		return nil
	})
	return out
}

func alter(t *testing.T, path string, f func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// Each byte of each live value, and of the state, has a bit flipped.
func TestEveryByteOfALiveValue(t *testing.T) {
	b := newBench(t)
	s := b.open(t)
	for i := range 6 {
		put(t, s, Strict, "kv", fmt.Sprint(i), fmt.Sprintf("value %d", i))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	live := map[string][]byte{}
	alter(t, b.file(), func(tx *bolt.Tx) error {
		live["state"] = bytes.Clone(tx.Bucket(bucketMeta).Get(keyState))
		return tx.Bucket(bucketValues).Bucket([]byte("kv")).ForEach(func(k, v []byte) error {
			live[string(k)] = bytes.Clone(v)
			return nil
		})
	})
	good, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	c := b.config(t)
	c.Check = func(_ context.Context, path string) (Counted, error) { return Check(path) } // the pages stay sound
	for name, v := range live {
		for i := range v {
			bad := bytes.Clone(good)
			// Pages of before, which nothing uses any more, may hold the same bytes.
			for at := 0; ; {
				next := bytes.Index(bad[at:], v)
				if next < 0 {
					break
				}
				at += next + i
				bad[at] ^= 1 << (i % 8)
			}
			if err := os.WriteFile(b.file(), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), c, b.key)
			if err == nil {
				_ = s.Close()
			}
			if fault.ClassOf(err) != fault.Verify {
				t.Fatalf("byte %d of %s: %v", i, name, err)
			}
		}
	}
	if err := os.WriteFile(b.file(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.tryOpen(t); err != nil {
		t.Error(err)
	}
}

// TestLengthsBeyondTheFile: a length that reaches further than the file is found without
// touching what lies there, which one process has in its memory and another has not.
func TestLengthsBeyondTheFile(t *testing.T) {
	b := newBench(t)
	s := b.open(t)
	value := strings.Repeat("a", 100)
	for _, k := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} { // too many for a small bucket
		put(t, s, Strict, "kv", k, value)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	// In a page of leaves: flags, position, length of the key, length of the value.
	length := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, 1), uint32(valueOver+len(value)))
	found := 0
	for at := bytes.Index(good, length); at >= 0; {
		bad := bytes.Clone(good)
		bad[at+6] ^= 1 << 4 // 1 MiB more
		if err := os.WriteFile(b.file(), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := open(b.file(), true)
		if err != nil {
			t.Fatal(err)
		}
		err = db.View(func(tx *bolt.Tx) error {
			f, kv := spanOf(db, tx), tx.Bucket(bucketValues).Bucket([]byte("kv"))
			return kv.ForEach(func(_, v []byte) error { return f.check(v, kv.Root() == 0) })
		})
		if errors.Is(err, ErrAltered) {
			found++
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		next := bytes.Index(good[at+1:], length)
		if next < 0 {
			break
		}
		at += 1 + next
	}
	if found == 0 {
		t.Error("no length was found that reaches beyond the file")
	}
	for _, x := range []struct {
		b         []byte
		small, ok bool
	}{
		{good[8:16], false, true},
		{good[16:24], false, true},
		{good[24:24], false, true},
		{good[16:25], false, false},
		{good[16:25], true, false},
		{good[24:25], false, false},
		{good[:8], false, false},
		{good[24:26], true, true}, // on the heap
		{good[24:27], true, false},
	} {
		f := span{at: uintptr(unsafe.Pointer(&good[8])), size: 16, page: 8}
		if err := f.check(x.b, x.small); (err == nil) != x.ok {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

// Bits of the whole file are flipped at random. Some are in pages that nothing
// uses; whatever opens then must be what it was.
func TestFlippedBits(t *testing.T) { flipBits(t, 300) }

func TestLongFlippedBits(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: 20,000 flipped bits")
	}
	flipBits(t, 20000)
}

func flipBits(t *testing.T, count int) {
	t.Helper()
	b := newBench(t)
	s := b.open(t)
	for i := range 40 {
		put(t, s, Strict, "kv", fmt.Sprint(i), strings.Repeat(fmt.Sprint(i), 30))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range count {
		var r [8]byte
		if _, err := rand.Read(r[:]); err != nil {
			t.Fatal(err)
		}
		at := binary.BigEndian.Uint64(r[:]) % uint64(len(good)*8)
		bad := bytes.Clone(good)
		bad[at/8] ^= 1 << (at % 8)
		if err := os.WriteFile(b.file(), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), b.config(t), b.key)
		if err != nil {
			if c := fault.ClassOf(err); c != fault.Verify && c != fault.Policy {
				t.Fatalf("bit %d: class %q: %v", at, c, err)
			}
			refused++
			continue
		}
		for i := range 40 {
			if got := get(t, s, "kv", fmt.Sprint(i)); got != strings.Repeat(fmt.Sprint(i), 30) {
				t.Fatalf("bit %d: value %d is %q", at, i, got)
			}
		}
		for n := range s.Head().Size {
			if _, err := s.Entry(uint64(n)); err != nil && !errors.Is(err, ErrAltered) {
				t.Fatalf("bit %d: entry %d: %v", at, n, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d flips refused at the start, the others hurt no value", refused, count)
	if refused == 0 {
		t.Error("no flip was refused")
	}
}
