package console

import (
	"encoding/hex"
	"os"
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"keyrite/artifact/words"
	"keyrite/internal/cli"
)

// look says what a terminal can show.
type look struct {
	ascii bool // no characters beyond ASCII: another locale than UTF-8
	plain bool // no colours; bold and inverse stay
}

// lookOf reads the locale as setlocale does (POSIX, 8.2) and NO_COLOR.
func lookOf() look {
	locale := ""
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale = os.Getenv(name); locale != "" {
			break
		}
	}
	locale = strings.ToUpper(strings.ReplaceAll(locale, "-", ""))
	return look{ascii: !strings.Contains(locale, "UTF8"), plain: os.Getenv("NO_COLOR") != ""}
}

// paint gives text an SGR code. Colour is never alone: a sign or a word says the
// same.
func (l look) paint(code, text string) string {
	if l.plain {
		code = strings.Join(strings.FieldsFunc(code, func(r rune) bool { return r == ';' }), ";")
		var keep []string
		for c := range strings.SplitSeq(code, ";") {
			if c == "1" || c == "7" {
				keep = append(keep, c)
			}
		}
		code = strings.Join(keep, ";")
	}
	if code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

var asciiOf = strings.NewReplacer("“", `"`, "”", `"`, "’", "'", "–", "-", "…", "...", "·", "-", "✓", "+", "✗", "X", "▶", ">", "●", "*", "■", "#", "□", ".", "─", "-")

// clean makes text from outside fit for one line: nothing in it moves a cursor,
// and every character takes the columns that cells counts.
func (l look) clean(text string) string {
	text = cli.Escape(text)
	if l.ascii {
		text = asciiOf.Replace(text)
	}
	return strings.Map(func(r rune) rune {
		switch {
		case l.ascii && r > 0x7e:
			return '?'
		case unicode.Is(unicode.M, r): // marks pile up over other lines
			return '\u25cc'
		}
		return r
	}, text)
}

// cells is how many columns text takes, after clean.
func cells(text string) int {
	n := 0
	for _, r := range text {
		n += cellsOf(r)
	}
	return n
}

func cellsOf(r rune) int {
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cut shortens text to n columns and says so with a sign.
func cut(text string, n int) string {
	if cells(text) <= n {
		return text
	}
	used := 0
	for i, r := range text {
		if used += cellsOf(r); used > n-1 {
			return text[:i] + "~"
		}
	}
	return text
}

// wrap breaks text into lines of at most n columns, at spaces where it can.
func wrap(text string, n int) []string {
	if n < 1 {
		return nil
	}
	var out []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && cells(line)+1+cells(word) <= n {
			line += " " + word
			continue
		}
		if line != "" {
			out = append(out, line)
		}
		for cells(word) > n {
			head := strings.TrimSuffix(cut(word, n+1), "~")
			for cells(head) > n {
				head = head[:len(head)-1]
			}
			out, word = append(out, head), word[len(head):]
		}
		line = word
	}
	if line != "" {
		out = append(out, line)
	}
	return out
}

// shortHash is the start of a running hash, as hex and as words to read aloud.
func shortHash(root string) string {
	b, err := hex.DecodeString(root)
	if err != nil || len(b) < 4 {
		return "none yet"
	}
	return root[:8] + " " + words.Of(b[:4])
}

// ASCII says that this terminal's locale has no characters beyond ASCII.
func ASCII() bool { return lookOf().ascii }
