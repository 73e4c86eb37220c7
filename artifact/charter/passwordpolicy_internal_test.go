package charter

import (
	"strings"
	"testing"
)

// What is counted is what there is: all strings of small policies are tried.
func TestPasswordCount(t *testing.T) {
	const abc, digits, sign = "abc", "12", "!"
	for length := range 6 {
		for mins := range 64 {
			p := PasswordPolicy{Length: length, Alphabets: []Alphabet{{abc, mins & 3}, {digits, mins >> 2 & 3}, {sign, mins >> 4}}}
			if mins%3 == 0 {
				p.Excluded = "b2"
			}
			all := strings.Join(p.Sets(), "")
			want := int64(0)
			for _, s := range stringsOf(all, length) {
				fits := true
				for i, set := range p.Sets() {
					has := strings.Count(s, "") - 1 - len(strings.Map(func(r rune) rune {
						if strings.ContainsRune(set, r) {
							return -1
						}
						return r
					}, s))
					fits = fits && has >= p.Alphabets[i].Min
				}
				if fits {
					want++
				}
			}
			if got := p.Count(); got.Int64() != want {
				t.Fatalf("%+v: counted %v, there are %d", p, got, want)
			}
		}
	}
}

func stringsOf(alphabet string, length int) []string {
	if length == 0 {
		return []string{""}
	}
	var out []string
	for _, s := range stringsOf(alphabet, length-1) {
		for _, c := range alphabet {
			out = append(out, s+string(c))
		}
	}
	return out
}
