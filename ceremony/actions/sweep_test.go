package actions

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
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
// drawn from seed; of reads, most by far, two of the three ways come last.
func (s *stand) every(seed uint64) []spoiling {
	var first, last []spoiling
	for i, name := range hsmtest.Functions() {
		actions := []hsmtest.Action{hsmtest.Fail, hsmtest.Hang, hsmtest.Crash}
		if slices.Contains(changing(), name) {
			actions = append(actions, hsmtest.Lose, hsmtest.Die)
		}
		for n := s.armed[i] + 1; n <= s.total[i]; n++ {
			for j, a := range actions {
				if name == "C_GetAttributeValue" && j != n%len(actions) {
					last = append(last, spoiling{i, n, a})
				} else {
					first = append(first, spoiling{i, n, a})
				}
			}
		}
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for _, l := range [][]spoiling{first, last} {
		r.Shuffle(len(l), func(i, j int) { l[i], l[j] = l[j], l[i] })
	}
	return append(first, last...)
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

// sweepTime bounds the sweep; KEYRITE_TEST_SWEEP gives another duration.
const sweepTime = 45 * time.Minute

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

// sweep spoils what every lists, or what is asked for, with so many workers. What a
// slow machine does not reach in time is counted, never left unsaid.
func sweep(t *testing.T, every func(seed uint64) []spoiling, worker func(t *testing.T) func(spoiling), workers int) {
	t.Helper()
	seed := number(t, "KEYRITE_TEST_SEED", uint64(time.Now().UnixNano()))
	jobs := asked(t)
	if jobs == nil {
		jobs = every(seed)
	}
	limit := sweepTime
	if text := os.Getenv("KEYRITE_TEST_SWEEP"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		limit = d
	}
	end := time.Now().Add(limit)
	var next, runs atomic.Int64
	t.Run("sweep", func(t *testing.T) { // ends when its workers have ended
		for w := range workers {
			t.Run("worker"+itoa(w+1), func(t *testing.T) {
				spoil := worker(t)
				t.Parallel()
				for time.Now().Before(end) {
					i := next.Add(1) - 1
					if i >= int64(len(jobs)) {
						return
					}
					spoil(jobs[i])
					runs.Add(1)
				}
			})
		}
	})
	t.Logf("%d of %d runs, KEYRITE_TEST_SEED=%d", runs.Load(), len(jobs), seed)
}

// Every single request of a genesis is spoiled once in each way, in an order drawn
// from a seed, by as many workers as there are processors.
func TestLongEveryRequestSpoiled(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: set KEYRITE_TEST_LONG=1")
	}
	s := newStand(t)
	s.count(t)
	var stands []*stand
	for range runtime.GOMAXPROCS(0) {
		stands = append(stands, s.another(t)) // sets a variable, as no parallel test may
	}
	var taken atomic.Int64
	sweep(t, s.every, func(t *testing.T) func(spoiling) {
		t.Helper()
		mine := stands[taken.Add(1)-1]
		return func(sp spoiling) { mine.spoil(t, sp) }
	}, len(stands))
}
