package seal

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"keyrite/internal/clitest"
)

// commitsOf counts the transactions that a store has committed: each one has the next id
// and one sync of the file.
func commitsOf(t *testing.T, s *Store) int {
	t.Helper()
	var id int
	if err := s.db.View(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestUpdatesShareCommits: updates that wait while another one is committed are committed
// together, each with its own entry and its own answer.
func TestUpdatesShareCommits(t *testing.T) {
	const n = 200 // less than maxGroup
	b := newBench(t)
	s := b.open(t)
	put(t, s, Durable, "kv", "alone", "x")
	before, size := commitsOf(t, s), s.Head().Size
	put(t, s, Durable, "kv", "alone", "y")
	if got := commitsOf(t, s) - before; got != 1 {
		t.Fatalf("an update by itself took %d commits", got)
	}
	before = commitsOf(t, s)
	refuse := errors.New("refused by the caller")
	going, all := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // holds the commits up until the others wait
		if _, err := s.Update(t.Context(), Durable, func(*Tx) (any, error) { close(going); <-all; return "first", nil }); err != nil {
			t.Error(err)
		}
	})
	<-going
	var mu sync.Mutex
	seen := map[uint64]bool{}
	for i := range n {
		wg.Go(func() {
			seq, err := s.Update(t.Context(), Durable, func(tx *Tx) (any, error) {
				if i%10 == 9 {
					return nil, refuse
				}
				return i, tx.Put("kv", fmt.Sprint(i), []byte("x"))
			})
			if i%10 == 9 {
				if !errors.Is(err, refuse) {
					t.Errorf("update %d: %v", i, err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[seq] {
				t.Errorf("update %d is entry %d, of another one too: %v, %v", i, seq, seen[seq], err)
			}
			seen[seq] = true
		})
	}
	if !clitest.Await(time.Minute, func() bool { return len(s.updates) == n }) {
		t.Errorf("%d of %d updates wait", len(s.updates), n)
	}
	close(all)
	wg.Wait()
	done := n - n/10
	if len(seen) != done || s.Head().Size-size != int64(done)+2 {
		t.Errorf("%d answers and %d entries of %d updates", len(seen), s.Head().Size-size, done)
	}
	if took := commitsOf(t, s) - before; took > 3 { // one of the first, one of all that waited
		t.Errorf("%d updates took %d commits", done+1, took)
	}
	for i := range n {
		if i%10 != 9 && get(t, s, "kv", fmt.Sprint(i)) != "x" {
			t.Errorf("update %d is not there", i)
		}
	}
}
