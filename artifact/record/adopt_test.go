package record

import (
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
)

// epochOf is an epoch of safe work with new shares.
func epochOf(t *testing.T, n int) charter.Epoch {
	t.Helper()
	e := charter.Epoch{Epoch: n, Need: 2, Safe: "work", Token: anchor.Token{Label: "work", Serial: "1"}}
	for i, holder := range []string{"master1", "master2"} {
		pub, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		e.Shares = append(e.Shares, charter.Share{Holder: holder, Index: i + 1, Public: pub})
	}
	return e
}

func leftEpoch(e charter.Epoch) LeftEpoch {
	return LeftEpoch{AdoptedEpoch: AdoptedEpoch{e.Epoch, "0123456789abcdef", strings.Repeat("ab", 32), e.Safe}, Shares: e}
}

// What is left pending is what goes on where the charter stands: nothing that it has,
// nothing after a gap, and nothing that goes on from another epoch of that number.
func TestWhatIsPending(t *testing.T) {
	one, two, three := epochOf(t, 1), epochOf(t, 2), epochOf(t, 3)
	key := anchor.KeyRecord{ID: "firmware", Token: one.Token}
	moved := LeftKey{AdoptedKey: AdoptedKey{ID: "firmware", Safe: "work2"}, Moved: Transferred{Key: key, From: Place{"work", one.Token}, To: Place{"work2", anchor.Token{Label: "work2", Serial: "2"}}}}
	at := func(e charter.Epoch, k ...anchor.KeyRecord) *charter.State {
		s := &charter.State{Epochs: map[string]charter.Epoch{"work": e}, Keys: map[string]anchor.KeyRecord{}, Retired: map[string]charter.KeyRetired{}}
		for _, x := range k {
			s.Keys[x.ID] = x
		}
		return s
	}
	retired := at(one, key)
	retired.Retired["firmware"] = charter.KeyRetired{ID: "firmware"}
	gone := at(one)
	delete(gone.Epochs, "work")
	for _, tt := range []struct {
		name   string
		left   Left
		s      *charter.State
		epochs []int // nil: refused
		keys   int
	}{
		{"both", Left{Epochs: []LeftEpoch{leftEpoch(two), leftEpoch(three)}}, at(one), []int{2, 3}, 0},
		{"one is in the charter", Left{Epochs: []LeftEpoch{leftEpoch(two), leftEpoch(three)}}, at(two), []int{3}, 0},
		{"both are in the charter", Left{Epochs: []LeftEpoch{leftEpoch(two), leftEpoch(three)}}, at(three), []int{}, 0},
		{"dealt anew since", Left{Epochs: []LeftEpoch{leftEpoch(two)}}, at(epochOf(t, 4)), []int{}, 0},
		{"the safe has ended", Left{Epochs: []LeftEpoch{leftEpoch(two)}}, gone, []int{}, 0},
		{"a gap", Left{Epochs: []LeftEpoch{leftEpoch(three)}}, at(one), nil, 0},
		{"the charter has another epoch 2", Left{Epochs: []LeftEpoch{leftEpoch(two), leftEpoch(three)}}, at(epochOf(t, 2)), nil, 0},
		{"a key", Left{Keys: []LeftKey{moved}}, at(one, key), []int{}, 1},
		{"a key that is there by the charter", Left{Keys: []LeftKey{moved}}, at(one, anchor.KeyRecord{ID: "firmware", Token: moved.Moved.To.Token}), []int{}, 0},
		{"a key that was retired", Left{Keys: []LeftKey{moved}}, retired, []int{}, 0},
		{"a key that nobody knows", Left{Keys: []LeftKey{moved}}, at(one), []int{}, 0},
	} {
		got, err := tt.left.in(tt.s)
		if (err != nil) != (tt.epochs == nil) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		numbers := []int{}
		for _, e := range got.Epochs {
			numbers = append(numbers, e.Epoch)
		}
		if err == nil && (!slices.Equal(numbers, tt.epochs) || len(got.Keys) != tt.keys) {
			t.Errorf("%s: epochs %v, %d keys", tt.name, numbers, len(got.Keys))
		}
	}
}
