package lease

import (
	"container/heap"
	"slices"
	"time"
)

// item is what the index knows of a lease.
type item struct {
	identity string
	accessor string // only of tokens that this process gave out
	expires  int64  // milliseconds since 1970; the store may say another time
	missed   int    // looks at which the store did not have it
	failed   int64  // not tried again before then
}

// index finds leases by time, token and identity. It is a hint: the store decides.
type index struct {
	all     map[string]item
	byTime  byTime
	byToken map[string]map[string]bool
	count   map[string]int // of an identity
}

func newIndex() index {
	return index{all: map[string]item{}, byToken: map[string]map[string]bool{}, count: map[string]int{}}
}

func (x *index) add(id string, it item) {
	if _, ok := x.all[id]; !ok {
		x.count[it.identity]++
	}
	x.all[id] = it
	heap.Push(&x.byTime, moment{it.expires, id})
	if it.accessor == "" {
		return
	}
	if x.byToken[it.accessor] == nil {
		x.byToken[it.accessor] = map[string]bool{}
	}
	x.byToken[it.accessor][id] = true
}

// look has a lease looked at at another time.
func (x *index) look(id string, at int64) {
	it, ok := x.all[id]
	if !ok {
		return
	}
	it.expires = at
	x.all[id] = it
	heap.Push(&x.byTime, moment{at, id})
}

func (x *index) forget(id string) {
	it, ok := x.all[id]
	if !ok {
		return
	}
	delete(x.all, id)
	if x.count[it.identity]--; x.count[it.identity] <= 0 {
		delete(x.count, it.identity)
	}
	if m := x.byToken[it.accessor]; m != nil {
		delete(m, id)
		if len(m) == 0 {
			delete(x.byToken, it.accessor)
		}
	}
}

// pop takes out the leases whose time came, n at most.
func (x *index) pop(now time.Time, n int) []string {
	var out []string
	for len(out) < n && len(x.byTime) > 0 && x.byTime[0].at <= now.UnixMilli() {
		m, _ := heap.Pop(&x.byTime).(moment)
		if it, ok := x.all[m.id]; ok && it.expires == m.at && !slices.Contains(out, m.id) {
			out = append(out, m.id)
		}
	}
	return out
}

// ofToken lists leases of a token that did not just fail to end, n at most.
func (x *index) ofToken(accessor string, now time.Time, n int) []string {
	var out []string
	for id := range x.byToken[accessor] {
		if len(out) < n && x.all[id].failed <= now.UnixMilli() {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// moment is when a lease is looked at.
type moment struct {
	at int64
	id string
}

// byTime is a heap of moments.
type byTime []moment

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].at < h[j].at }
func (h byTime) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byTime) Push(v any) {
	if m, ok := v.(moment); ok {
		*h = append(*h, m)
	}
}

// Pop implements heap.Interface.
func (h *byTime) Pop() any {
	old := *h
	m := old[len(old)-1]
	*h = old[:len(old)-1]
	return m
}
