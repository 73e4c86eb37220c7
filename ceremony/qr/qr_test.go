package qr

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A code made of characters is scanned by a decoder that is not ours, off a dark
// terminal, in both locales.
func TestRowsScan(t *testing.T) {
	const text = `{"asks":"ceremony 0011, signature 1 of witness1","name":"witness1"}` + "00 AEAAM WERWW"
	for _, ascii := range []bool{false, true} {
		rows, err := Rows(text, ascii)
		if err != nil {
			t.Fatal(err)
		}
		const px = 4 // of a module
		wide := len([]rune(rows[0]))
		var lit func(x, y int) bool
		high := 2 * len(rows)
		if ascii {
			wide, high = wide/2, len(rows)
			lit = func(x, y int) bool { return rows[y][2*x] == '#' }
		} else {
			lit = func(x, y int) bool {
				r := []rune(rows[y/2])[x]
				return r == '█' || y%2 == 0 && r == '▀' || y%2 == 1 && r == '▄'
			}
		}
		const border = 4 * px
		img := image.NewGray(image.Rect(0, 0, wide*px+2*border, high*px+2*border))
		for i := range img.Pix {
			img.Pix[i] = 0xff
		}
		for y := range high {
			for x := range wide {
				if lit(x, y) {
					continue
				}
				for i := range px * px {
					img.SetGray(border+x*px+i%px, border+y*px+i/px, color.Gray{})
				}
			}
		}
		path := filepath.Join(t.TempDir(), "qr.png")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, img); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), "zbarimg", "--quiet", "--raw", path).Output()
		if err != nil || strings.TrimSuffix(string(out), "\n") != text {
			t.Errorf("ascii %v: %q, %v", ascii, out, err)
		}
	}
	if _, err := Rows(strings.Repeat("x", 3000), false); err == nil {
		t.Error("3,000 bytes fit")
	}
}
