package words

import (
	"crypto/sha256"
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

// The known answers of kskm-sha2wordlist, the tool that the ceremonies of the
// root zone's key use, so that their people and ours read the same words.
func TestSameWordsAsTheRootZone(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"mekmitasdigoat", "optic onlooker ringbolt recover upset almighty steamship hemisphere billiard butterfat classic letterhead reward filament waffle midsummer berserk speculate cement revival ribcage repellent commence combustion freedom component standard disruptive physique liberty acme typewriter"},
		{"The quick brown fox jumps over the lazy dog", "stopwatch paramount watchword pocketful ahead stethoscope merit molecule gazelle revenue pupil pyramid ruffled antenna buzzard document optic escapade drunken tradition goggles crossover suspense impetus button aftermath stagnate rebellion clamshell retrospect topmost misnomer"},
	} {
		sum := sha256.Sum256([]byte(c.text))
		if got := Of(sum[:]); got != c.want {
			t.Errorf("%s: got %s", c.text, got)
		}
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

// What is shown of a hash in hex; nothing of what is none.
func TestListAndGroup(t *testing.T) {
	for _, c := range []struct{ hash, words, groups string }{
		{"e58294f2e9", "topmost Istanbul Pluto vagabond treadmill", "e582 94f2 e9"},
		{"", "", ""},
		{"e58", "", "e58"},
		{"none", "", "none"},
	} {
		if got := strings.Join(List(c.hash), " "); got != c.words {
			t.Errorf("%q in words: %q", c.hash, got)
		}
		if got := Group(c.hash); got != c.groups {
			t.Errorf("%q in groups: %q", c.hash, got)
		}
	}
}
