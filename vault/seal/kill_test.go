package seal

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/jcs"
)

// giveKey puts the wrapped key to where a writing process finds it, which is in the
// folder that it returns.
func giveKey(t testing.TB, b *bench) (dir string) {
	t.Helper()
	w, err := b.key.Wrap(testSecret, b.place)
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Dir(b.dir)
	if err := os.WriteFile(filepath.Join(dir, "wrapped"), []byte(hex.EncodeToString(w)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writer starts the process that writes until it is killed.
func writer(t testing.TB, b *bench, wrap ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	dir := giveKey(t, b)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrap, exe, "write-until-killed", dir)
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// acked reads what was acknowledged until the end of the output.
func acked(out io.Reader) (last map[int]int, failed string) {
	last = map[int]int{}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		var w, n int
		if k, err := fmt.Sscanf(sc.Text(), "ack %d %d", &w, &n); err == nil && k == 2 {
			last[w] = n
		}
		if strings.HasPrefix(sc.Text(), "failed") {
			failed = sc.Text()
		}
	}
	return last, failed
}

// checkAcked opens the store as the next process would and wants everything
// that was acknowledged, whole. It returns how much each writer has there.
func checkAcked(t testing.TB, b *bench, last map[int]int) (have map[int]int) {
	t.Helper()
	c := b.config(t)
	c.Check = func(_ context.Context, path string) (Counted, error) { return Check(path) }
	s, err := Open(t.Context(), c, b.key)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	have = map[int]int{}
	err = s.View(func(v *View) error {
		for w := range 4 {
			raw, err := v.Get("count", fmt.Sprintf("writer%d", w))
			if err != nil {
				continue // nothing was written by this one
			}
			var n int
			if _, err := fmt.Sscan(string(raw), &n); err != nil {
				return err
			}
			have[w] = n
			for i := max(1, n-20); i <= n; i++ {
				got, err := v.Get("numbers", fmt.Sprintf("%d-%d", w, i))
				if err != nil || string(got) != fmt.Sprintf("value %d of %d", i, w) {
					return fmt.Errorf("value %d of writer %d: %q: %w", i, w, got, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(1)
	for w, n := range last {
		if have[w] < n {
			t.Fatalf("writer %d: %d acknowledged, %d there", w, n, have[w])
		}
	}
	for _, n := range have {
		sum += int64(n)
	}
	if s.Head().Size != sum {
		t.Fatalf("%d entries for %d values", s.Head().Size, sum-1)
	}
	raw, err := s.Entry(uint64(sum - 1))
	if err != nil {
		t.Fatal(err)
	}
	var l leaf
	if err := jcs.Unmarshal(raw, &l); err != nil {
		t.Fatal(err)
	}
	return have
}

func TestKills(t *testing.T) { kills(t, 300) }

func TestLongKills(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: 10,000 kills")
	}
	kills(t, 10000)
}

// kills ends a writing process at random moments; nothing that it acknowledged
// may be lost, and the next start must go on by itself.
func kills(t *testing.T, count int) {
	t.Helper()
	b := newBench(t)
	total := 0
	for i := range count {
		if i%100 == 99 { // a fresh one, or each start has more to read
			b = newBench(t)
		}
		cmd, out := writer(t, b)
		var r [8]byte
		if _, err := rand.Read(r[:]); err != nil {
			t.Fatal(err)
		}
		stop := time.AfterFunc(time.Duration(binary.BigEndian.Uint64(r[:])%uint64(40*time.Millisecond)), func() { _ = cmd.Process.Kill() })
		last, failed := acked(out)
		stop.Stop()
		_ = cmd.Wait()
		if failed != "" {
			t.Fatalf("kill %d: %s", i, failed)
		}
		for _, n := range last {
			total += n
		}
		checkAcked(t, b, last)
	}
	if total == 0 {
		t.Error("nothing was ever acknowledged: the kills came too early")
	}
}

// A failed sync is not tried again: the process stops serving, and the next one
// finds what the disk has.
func TestFailedWriteStops(t *testing.T) {
	for _, fault := range []string{
		"fdatasync:error=EIO:when=5", "fdatasync:error=EIO:when=6", "pwrite64:error=ENOSPC:when=9", "pwrite64:error=EIO:when=20",
	} {
		t.Run(fault, func(t *testing.T) {
			b := newBench(t)
			call, _, _ := strings.Cut(fault, ":")
			cmd, out := writer(t, b, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", "inject="+fault)
			last, failed := acked(out)
			if err := cmd.Wait(); err == nil {
				t.Error("the process ended well")
			}
			if !strings.HasPrefix(failed, "failed storage") {
				t.Errorf("it said %q", failed)
			}
			checkAcked(t, b, last)
		})
	}
}
