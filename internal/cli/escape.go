package cli

import (
	"strings"
	"unicode"
)

// Escape makes text from outside safe to show on a terminal or in a line-based
// log: control characters, bidirectional and zero-width marks and invalid UTF-8
// appear as \x.., \u.... . The result holds no newline.
func Escape(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && s[i] != "\uFFFD"[0]:
			b.WriteString(hexEscape(`\x`, uint32(s[i]), 2))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x20, r >= 0x7f && r < 0xa0:
			b.WriteString(hexEscape(`\x`, uint32(r), 2))
		case !unicode.IsPrint(r), unicode.Is(unicode.Cf, r):
			b.WriteString(hexEscape(`\u`, uint32(r), 4))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hexEscape(prefix string, v uint32, digits int) string {
	const hex = "0123456789abcdef"
	out := []byte(prefix)
	for i := digits - 1; i >= 0; i-- {
		out = append(out, hex[v>>(4*i)&15])
	}
	return string(out)
}
