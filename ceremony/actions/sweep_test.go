package actions

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyrite/hsm/hsmtest"
)

// changing are the calls after which a token is another one: for these it matters
// whether the call or its answer is lost.
func changing() []string {
	return []string{"C_InitToken", "C_InitPIN", "C_SetPIN", "C_Login", "C_GenerateKeyPair", "C_CreateObject", "C_CopyObject", "C_SetAttributeValue", "C_DestroyObject", "C_Sign"}
}

// spoiling is one call and what happens to it.
type spoiling struct {
	function, n int
	action      hsmtest.Action
}

// String names it, in messages and for KEYRITE_TEST_SPOIL.
func (s spoiling) String() string {
	return fmt.Sprintf("%s-%d-%s", hsmtest.Functions()[s.function], s.n, s.action)
}

// every lists all requests of a ceremony, each to fail, hang and crash, and those
// that change a token also to lose the answer and to die after it. The order is
// drawn from seed; what changes a token comes first, and the reading of attributes,
// most of it by far, last.
func (s *stand) every(seed uint64) []spoiling {
	var out [3][]spoiling
	for i, name := range hsmtest.Functions() {
		actions, rank := []hsmtest.Action{hsmtest.Fail, hsmtest.Hang, hsmtest.Crash}, 1
		switch {
		case slices.Contains(changing(), name):
			actions, rank = append(actions, hsmtest.Lose, hsmtest.Die), 0
		case name == "C_GetAttributeValue":
			rank = 2
		}
		for n := s.armed[i] + 1; n <= s.total[i]; n++ {
			for _, a := range actions {
				out[rank] = append(out[rank], spoiling{i, n, a})
			}
		}
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for _, l := range out {
		r.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
	}
	return slices.Concat(out[:]...)
}

// asked are the requests that KEYRITE_TEST_SPOIL names, to try again what a sweep
// found: "C_CopyObject-31-fail C_OpenSession-1-lose".
func asked(t *testing.T) []spoiling {
	t.Helper()
	var out []spoiling
	for x := range strings.FieldsSeq(os.Getenv("KEYRITE_TEST_SPOIL")) {
		f := strings.Split(x, "-")
		if len(f) != 3 {
			t.Fatalf("KEYRITE_TEST_SPOIL: %q", x)
		}
		sp := spoiling{function: slices.Index(hsmtest.Functions(), f[0])}
		for a := hsmtest.Fail; a <= hsmtest.Die; a++ {
			if a.String() == f[2] {
				sp.action = a
			}
		}
		n, err := strconv.Atoi(f[1])
		if err != nil || sp.function < 0 || sp.action == 0 {
			t.Fatalf("KEYRITE_TEST_SPOIL: %q", x)
		}
		sp.n = n
		out = append(out, sp)
	}
	return out
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// journal is what a sweep has tried so far, one line each, so that it can be broken
// off and gone on with, and shared by several processes.
type journal struct {
	file *os.File
	good map[string]bool // tried by an earlier process, as it should be
}

// openJournal goes on with the journal of a sweep in the folder KEYRITE_TEST_JOURNAL.
func openJournal(t *testing.T, name string, of int) *journal {
	t.Helper()
	j := &journal{good: map[string]bool{}}
	dir := os.Getenv("KEYRITE_TEST_JOURNAL")
	if dir == "" {
		return j
	}
	path := filepath.Join(dir, name+".journal")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(old)) {
		what, how, whole := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		j.good[what] = whole && strings.HasPrefix(how, "good") && strings.HasSuffix(line, "\n")
	}
	if j.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.file.Close() })
	j.note(t, fmt.Sprintf("of %d", of))
	return j
}

// note adds one line, whole even if several processes write.
func (j *journal) note(t *testing.T, line string) {
	t.Helper()
	if j.file == nil {
		return
	}
	if _, err := j.file.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
}

// mine says whether a run falls to this one of several processes, which
// KEYRITE_TEST_SLICE names as "1/3", counting from 0.
func mine(t *testing.T, sp spoiling) bool {
	t.Helper()
	text := os.Getenv("KEYRITE_TEST_SLICE")
	if text == "" {
		return true
	}
	var i, of uint32
	if n, err := fmt.Sscanf(text, "%d/%d", &i, &of); n != 2 || err != nil || i >= of {
		t.Fatalf("KEYRITE_TEST_SLICE: %q", text)
	}
	h := fnv.New32a()
	h.Write([]byte(sp.String()))
	return h.Sum32()%of == i
}

// sweep spoils all of jobs, or those that are asked for, until KEYRITE_TEST_SWEEP, a
// duration, is over. What is not reached is counted, never left unsaid. spoil fails
// the test, and gives a word about the run.
func sweep(t *testing.T, name string, every func(seed uint64) []spoiling, spoil func(*testing.T, spoiling) string) {
	t.Helper()
	seed := number(t, "KEYRITE_TEST_SEED", uint64(time.Now().UnixNano()))
	jobs := asked(t)
	if jobs == nil {
		jobs = every(seed)
	}
	limit := 24 * time.Hour
	if text := os.Getenv("KEYRITE_TEST_SWEEP"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		limit = d
	}
	j := openJournal(t, name, len(jobs))
	end := time.Now().Add(limit)
	runs, bad, words := 0, 0, map[string]int{}
	for _, sp := range jobs {
		if j.good[sp.String()] || !mine(t, sp) || time.Now().After(end) {
			continue
		}
		runs++
		word := ""
		t.Run(sp.String(), func(t *testing.T) {
			word = spoil(t, sp)
			if t.Failed() {
				word = "bad"
			}
		})
		words[word]++
		if word == "bad" {
			bad++
			j.note(t, sp.String()+" bad")
		} else {
			j.note(t, sp.String()+" good "+word)
		}
	}
	t.Logf("sweep of %s: %d of %d runs here, %d bad, %v, KEYRITE_TEST_SEED=%d", name, runs, len(jobs), bad, words, seed)
}

// Every single request of a genesis is spoiled once in each way, in an order drawn
// from a seed (R-CER-14, R-CER-15).
func TestLongEveryRequestSpoiled(t *testing.T) {
	long(t)
	s := newStand(t)
	s.count(t)
	sweep(t, "genesis", s.every, func(t *testing.T, sp spoiling) string {
		t.Helper()
		s.spoil(t, sp)
		return "void"
	})
}
