// Package qr draws QR codes (ISO/IEC 18004), for paper and for screens.
//
// The console, the pages of package paper and commands call it. It never says what
// may stand in a code: whoever asks for one knows that.
package qr

import (
	"fmt"
	"html/template"
	"strings"

	"rsc.io/qr"

	"keyrite/artifact/fault"
)

// quietZone is the white border in modules that ISO/IEC 18004, 5.3.8 demands.
const quietZone = 4

// SVG draws text as a QR code, error correction level M (15 %), so many millimetres
// wide, as one SVG path: it prints sharp at any size and needs no picture file. More
// than 2,331 bytes are an error of class unexpected.
func SVG(text string, millimetres int) (template.HTML, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", fault.Errorf(fault.Unexpected, "draw QR code of %d bytes: %w", len(text), err)
	}
	var path strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			if !code.Black(x, y) {
				continue
			}
			from := x
			for x+1 < code.Size && code.Black(x+1, y) {
				x++
			}
			fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", from+quietZone, y+quietZone, x-from+1, x-from+1)
		}
	}
	side := code.Size + 2*quietZone
	//nolint:gosec // numbers only
	return template.HTML(fmt.Sprintf(`<svg class="qr" role="img" aria-label="QR code" width="%dmm" height="%dmm" viewBox="0 0 %d %d" shape-rendering="crispEdges"><path d="%s"/></svg>`,
		millimetres, millimetres, side, side, path.String())), nil
}

// textZone is the light border of a code on a screen, in modules: less than on
// paper, since the screen around it is larger than the code.
const textZone = 2

// Rows draws text as a QR code of characters, error correction level L (7 %), two
// modules high each; light modules are the full ones, as on a dark terminal. With
// ascii each module is two characters. More than 2,953 bytes are an error of class
// usage.
func Rows(text string, ascii bool) ([]string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%d bytes do not fit a QR code: %w", len(text), err)
	}
	light := func(x, y int) bool { return !code.Black(x, y) } // outside of it nothing is black
	var rows []string
	step := 2
	if ascii {
		step = 1
	}
	for y := -textZone; y < code.Size+textZone; y += step {
		var row strings.Builder
		for x := -textZone; x < code.Size+textZone; x++ {
			switch {
			case ascii && light(x, y):
				row.WriteString("##")
			case ascii:
				row.WriteString("  ")
			case light(x, y) && light(x, y+1):
				row.WriteString("█")
			case light(x, y):
				row.WriteString("▀")
			case light(x, y+1):
				row.WriteString("▄")
			default:
				row.WriteString(" ")
			}
		}
		rows = append(rows, row.String())
	}
	return rows, nil
}
