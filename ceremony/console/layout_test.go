package console

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

// Every scene at the three sizes stands in the golden files, whole and within the
// terminal; without colour and in ASCII it has the same words.
func TestScenes(t *testing.T) {
	for name, m := range scenes() {
		for _, size := range [][2]int{{80, 24}, {120, 40}, {200, 60}} {
			w, h := size[0], size[1]
			f := render(m, look{}, w, h, noon)
			text := sgr.ReplaceAllString(strings.Join(f.rows, "\n"), "")
			var trimmed strings.Builder
			for i, l := range strings.Split(text, "\n") {
				if cells(l) > w {
					t.Errorf("%s at %dx%d: row %d has %d columns", name, w, h, i+1, cells(l))
				}
				trimmed.WriteString(strings.TrimRight(l, " ") + "\n")
			}
			if len(f.rows) != h {
				t.Errorf("%s at %dx%d: %d rows", name, w, h, len(f.rows))
			}
			if name != "start" {
				golden(t, fmt.Sprintf("%s-%dx%d.txt", name, w, h), trimmed.String())
			}
			plain := strings.Join(render(m, look{plain: true}, w, h, noon).rows, "\n")
			if regexp.MustCompile("\x1b\\[[0-9;]*3[0-9]").MatchString(plain) || sgr.ReplaceAllString(plain, "") != text {
				t.Errorf("%s at %dx%d: NO_COLOR has colours or other words", name, w, h)
			}
			ascii := sgr.ReplaceAllString(strings.Join(render(m, look{ascii: true}, w, h, noon).rows, "\n"), "")
			if strings.ContainsFunc(ascii, func(r rune) bool { return r > 0x7e }) {
				t.Errorf("%s at %dx%d: not ASCII:\n%s", name, w, h, ascii)
			}
			if name == "passphrase" && w == 80 {
				golden(t, "passphrase-80x24-ascii.txt", strings.TrimRight(ascii, " ")+"\n")
			}
		}
	}
}
