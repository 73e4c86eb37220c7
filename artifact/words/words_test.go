package words

import (
	"encoding/hex"
	"strings"
	"testing"
)

// The fingerprint example of the list's authors.
func TestPublishedExample(t *testing.T) {
	data, err := hex.DecodeString("e58294f2e9a227486e8b061b31cc528fd7fa3f19")
	if err != nil {
		t.Fatal(err)
	}
	want := "topmost Istanbul Pluto vagabond treadmill Pacific brackish dictator goldfish Medusa afflict bravado chatter revolver Dupont midsummer stopwatch whimsical cowbell bottomless"
	if got := Of(data); got != want {
		t.Errorf("got %s", got)
	}
}

func TestListsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range [][]string{strings.Fields(even), strings.Fields(odd)} {
		if len(l) != 256 {
			t.Errorf("%d words", len(l))
		}
		for _, w := range l {
			if seen[w] {
				t.Errorf("%s twice", w)
			}
			seen[w] = true
		}
	}
}
