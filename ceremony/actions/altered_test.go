package actions

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
)

// altered is a closed record in memory, of which tests change one file at a time.
type altered struct {
	files   map[string][]byte
	anchors *anchor.Anchors
	folder  fstest.MapFS
}

// shipped is the record of the genesis that we ship, some 600 entries; small that
// of a genesis of one safe and two keys, whose every byte can be tried.
func shipped(t *testing.T) *altered { return newAltered(t, genesis(t).closed) }
func small(t *testing.T) *altered   { return newAltered(t, newTiny(t).dir) }

func newAltered(t *testing.T, dir string) *altered {
	t.Helper()
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := &altered{files: slurp(t, dir), anchors: v.Anchors, folder: fstest.MapFS{}}
	for name, data := range a.files {
		a.folder[name] = &fstest.MapFile{Data: data, Mode: 0o600}
	}
	if _, err := record.Verify(a.folder, a.anchors); err != nil {
		t.Fatal(err)
	}
	return a
}

// verify verifies the record with other content of one file.
func (a *altered) verify(name string, data []byte) (*record.Verified, error) {
	folder := maps.Clone(a.folder)
	folder[name] = &fstest.MapFile{Data: data, Mode: 0o600}
	return record.Verify(folder, a.anchors)
}

// entries is the number of lines of the transcript.
func (a *altered) entries() int { return bytes.Count(a.files[record.TranscriptFile], []byte("\n")) }

// planned is how many of n cases each tries.
func planned(n, step int) int {
	from := n / 2 % step
	if n <= from {
		return 0
	}
	return (n-from-1)/step + 1
}

// which names them.
func which(step int, what string) string {
	if step == 1 {
		return "every " + what
	}
	return fmt.Sprintf("one %s in %d", what, step)
}

// each calls try for every step-th of n cases, on all processors.
func each(t *testing.T, n, step int, try func(i int) error) int {
	t.Helper()
	var wg sync.WaitGroup
	var next, done atomic.Int64
	next.Store(int64(n / 2 % step))
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(int64(step)) - int64(step); i < int64(n) && !t.Failed(); i = next.Add(int64(step)) - int64(step) {
				if err := try(int(i)); err != nil {
					t.Error(err)
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return int(done.Load())
}

func long(t *testing.T) {
	t.Helper()
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: set KEYRITE_TEST_LONG=1")
	}
}

// flips changes one bit of bytes of every file, the report excepted, which is no
// evidence.
func flips(t *testing.T, a *altered, step int) {
	t.Helper()
	n, of := 0, 0
	for name, data := range a.files {
		if name == record.ReportFile {
			continue
		}
		of += planned(len(data), step)
		n += each(t, len(data), step, func(i int) error {
			changed := bytes.Clone(data)
			changed[i] ^= 0x01
			got, err := a.verify(name, changed)
			entry := fmt.Sprintf("entry %d", bytes.Count(data[:i], []byte("\n")))
			switch {
			case err == nil || fault.ClassOf(err) == fault.Unexpected || got != nil && fault.ClassOf(err) != fault.Quorum:
				return fmt.Errorf("%s, byte %d: %w", name, i, err)
			case name == record.TranscriptFile && !strings.Contains(err.Error(), entry):
				return fmt.Errorf("%s, byte %d, in %s: %w", name, i, entry, err)
			}
			return nil
		})
	}
	t.Logf("long: a bit flipped in %s of a record of %d entries: %d of %d", which(step, "byte"), a.entries(), n, of)
}

func TestFlippedBytes(t *testing.T) { flips(t, shipped(t), 4999) }

// Every byte of every file of a record (R-CER-12).
func TestLongEveryFlippedByte(t *testing.T) {
	long(t)
	flips(t, small(t), 1)
	flips(t, shipped(t), 101)
}

// cuts ends the files of a record early.
func cuts(t *testing.T, a *altered, step int) {
	t.Helper()
	n, of := 0, 0
	for name, data := range a.files {
		if name == record.ReportFile {
			continue
		}
		of += planned(len(data), step)
		n += each(t, len(data), step, func(i int) error {
			got, err := a.verify(name, data[:i])
			if err == nil || fault.ClassOf(err) == fault.Unexpected || got != nil && fault.ClassOf(err) != fault.Quorum && fault.ClassOf(err) != fault.Void {
				return fmt.Errorf("%s cut at %d: %w", name, i, err)
			}
			return nil
		})
	}
	t.Logf("long: a file cut to %s of a record of %d entries: %d of %d", which(step, "length"), a.entries(), n, of)
}

func TestCutFiles(t *testing.T) { cuts(t, shipped(t), 6007) }

// Every length of every file of a record (R-CER-12).
func TestLongEveryCut(t *testing.T) {
	long(t)
	cuts(t, small(t), 1)
	cuts(t, shipped(t), 101)
}

// swaps exchanges two entries; the first of them is named.
func swaps(t *testing.T, a *altered, step int) {
	t.Helper()
	lines := bytes.SplitAfter(bytes.TrimSuffix(a.files[record.TranscriptFile], []byte("\n")), []byte("\n"))
	lines[len(lines)-1] = append(bytes.Clone(lines[len(lines)-1]), '\n')
	var pairs [][2]int
	for x := range lines {
		for y := x + 1; y < len(lines); y++ {
			pairs = append(pairs, [2]int{x, y})
		}
	}
	n := each(t, len(pairs), step, func(i int) error {
		x, y := pairs[i][0], pairs[i][1]
		l := append([][]byte{}, lines...)
		l[x], l[y] = l[y], l[x]
		_, err := a.verify(record.TranscriptFile, bytes.Join(l, nil))
		if fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), fmt.Sprintf("entry %d", x)) {
			return fmt.Errorf("entries %d and %d exchanged: %w", x, y, err)
		}
		return nil
	})
	t.Logf("long: %s of entries exchanged in a record of %d: %d of %d", which(step, "pair"), len(lines), n, planned(len(pairs), step))
}

func TestSwappedEntries(t *testing.T) { swaps(t, shipped(t), 701) }

// Any two entries of a record (R-CER-12).
func TestLongEverySwap(t *testing.T) {
	long(t)
	swaps(t, small(t), 1)
	swaps(t, shipped(t), 1)
}
