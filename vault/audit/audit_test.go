package audit

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/seal"
)

// TestIntents: an intent is open until its result, also after a restart, and a
// result needs its intent.
func TestIntents(t *testing.T) {
	b := newBench(t)
	first := b.do(entry(trail.Intent, "update", "transit/sign/a"))
	second := b.do(entry(trail.Intent, "update", "transit/sign/b"))
	open := func() (out []uint64) {
		t.Helper()
		list, err := b.j.Open()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			out = append(out, o.Seq)
			if !strings.HasPrefix(o.Entry.Path, "transit/sign/") {
				t.Errorf("open is %+v", o)
			}
		}
		return out
	}
	if got := open(); !slices.Equal(got, []uint64{first, second}) {
		t.Errorf("open are %d, want %d and %d", got, first, second)
	}
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	result := func(of uint64) error {
		e := entry(trail.Result, "update", "transit/sign/a")
		e.Intent = &of
		_, err := b.j.Do(t.Context(), seal.Durable, e, nil)
		return err
	}
	if err := result(first); err != nil {
		t.Error(err)
	}
	for _, of := range []uint64{first, 0, 99} {
		if err := result(of); !errors.Is(err, ErrResult) {
			t.Errorf("a result of entry %d: %v", of, err)
		}
	}
	if got := open(); !slices.Equal(got, []uint64{second}) {
		t.Errorf("open are %d, want %d", got, second)
	}
}

// TestEntryMustMeanSomething: what could not be verified outside is not written.
func TestEntryMustMeanSomething(t *testing.T) {
	b := newBench(t)
	n := uint64(0)
	for name, e := range map[string]*Entry{
		"no kind":               {Operation: "read", Time: trail.FormatTime(time.Now())},
		"no operation":          {Kind: trail.Request, Time: trail.FormatTime(time.Now())},
		"no time":               {Kind: trail.Request, Operation: "read"},
		"another form of time":  {Kind: trail.Request, Operation: "read", Time: time.Now().Format(time.RFC3339)},
		"an intent of nobody":   {Kind: trail.Intent, Operation: "read", Time: trail.FormatTime(time.Now())},
		"a request as a result": {Kind: trail.Request, Operation: "read", Time: trail.FormatTime(time.Now()), Intent: &n},
	} {
		changed := false
		_, err := b.j.Do(t.Context(), seal.Durable, e, func(tx *seal.Tx) error {
			changed = true
			return tx.Put("kv", "x", nil)
		})
		if fault.ClassOf(err) != fault.Unexpected || !changed {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := b.store.View(func(v *seal.View) error {
		if k := v.Keys("kv", ""); len(k) != 0 {
			t.Errorf("the effect of an entry that was refused is there: %q", k)
		}
		return nil
	})
	if err != nil || b.store.Head().Size != 1 {
		t.Errorf("log of %d, %v", b.store.Head().Size, err)
	}
}

// TestExtract: what the store gives out is what a stranger verifies.
func TestExtract(t *testing.T) {
	b := newBench(t)
	b.fill(20)
	refused := entry(trail.Refused, "read", "kv/data/other")
	refused.Identity, refused.Class, refused.Error, refused.Time = "station", "policy", "not allowed", trail.FormatTime(time.Unix(1.8e9+60, 0))
	at := b.do(refused)
	verify := func(c Choice, want int64, whole bool, numbers ...uint64) {
		t.Helper()
		var out bytes.Buffer
		n, err := b.j.Extract(&out, b.note(), testSigners(), c)
		if err != nil || n != want {
			t.Fatalf("extract of %+v: %d, %v", c, n, err)
		}
		var seen []uint64
		v, err := trail.Verify(&out, testSigners(), func(n uint64, _ *trail.Entry) error {
			seen = append(seen, n)
			return nil
		})
		if err != nil || v.Whole != whole || v.Entries != want {
			t.Fatalf("verify %+v: %+v, %v", c, v, err)
		}
		if numbers != nil && !slices.Equal(seen, numbers) {
			t.Errorf("%+v gives %d, want %d", c, seen, numbers)
		}
	}
	verify(Choice{}, 22, true)
	verify(Choice{Identity: "station"}, 1, false, at)
	verify(Choice{Kinds: []trail.Kind{trail.Refused, trail.Life}}, 2, false, 0, at)
	verify(Choice{Path: "kv/data"}, 21, false)
	verify(Choice{Path: "kv/data/1"}, 1, false, 2) // and not those of 10 to 19
	verify(Choice{From: time.Unix(1.8e9+60, 0)}, 1, false, at)
	verify(Choice{To: time.Unix(1.8e9+60, 0)}, 21, false)
	if _, err := b.j.Extract(&bytes.Buffer{}, b.note(), testSigners(), Choice{Identity: "nobody"}); fault.ClassOf(err) != fault.Usage {
		t.Errorf("nothing was chosen: %v", err)
	}
	// A checkpoint of less than all states less, and one of another log nothing.
	old := b.note()
	b.fill(3)
	var out bytes.Buffer
	if n, err := b.j.Extract(&out, old, testSigners(), Choice{}); err != nil || n != 22 {
		t.Errorf("under the head of before: %d, %v", n, err)
	}
	other := testSigners()
	other.Vault = strings.Repeat("00", 32)
	if _, err := b.j.Extract(&out, old, other, Choice{}); fault.ClassOf(err) != fault.Verify {
		t.Errorf("under the head of another log: %v", err)
	}
}

// TestSearch goes backwards in steps and comes to an end.
func TestSearch(t *testing.T) {
	b := newBench(t)
	b.fill(25)
	var got []uint64
	for before := uint64(0); ; {
		found, next, err := b.j.Search(t.Context(), Choice{Path: "kv/data"}, before, 7, 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			got = append(got, f.Seq)
		}
		if next == 0 {
			break
		}
		before = next
	}
	if len(got) != 25 || got[0] != 25 || got[24] != 1 || !slices.IsSortedFunc(got, func(a, b uint64) int { return int(b) - int(a) }) {
		t.Errorf("found %d", got)
	}
}
