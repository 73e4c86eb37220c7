package script

import (
	"regexp"
	"strings"
	"testing"
)

// plain takes what the regular expressions of script v1 took.
func TestPlainIsTheRule(t *testing.T) {
	name, answer := regexp.MustCompile(`^[^\p{C}]{1,64}$`), regexp.MustCompile(`^[^"\\\p{C}]{1,200}$`)
	q := Question{Type: "text"}
	for _, s := range []string{
		"", " ", "Kopf & Söhne", "a\nb", "a\n", "a\x00", "\x7f", "\u0085", "\u00ad", "\u200b", "\u202e", "\ufeff", "\ue000", "\ufffd", "\xff", "\xc3(", "\U000e0001",
		`a"b`, `a\b`, "日本", strings.Repeat("é", 64), strings.Repeat("é", 65), strings.Repeat("\xff", 64), strings.Repeat("\xff", 65), strings.Repeat("日", 200), strings.Repeat("日", 201),
	} {
		if got, want := plain(s, maxName), name.MatchString(s); got != want {
			t.Errorf("name %q: %v, the rule says %v", s, got, want)
		}
		if got, want := q.Check(s) == nil, answer.MatchString(s); got != want {
			t.Errorf("answer %q: %v, the rule says %v", s, got, want)
		}
	}
}
