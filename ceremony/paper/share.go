package paper

import (
	_ "embed"
	"strings"

	"keyrite/artifact/lines"
)

//go:embed share.html
var shareHTML string

// ShareSheet says whose share a sheet is. World, Holder and Safe may be empty:
// the share itself is encrypted, so nobody but its holder can tell; there are
// then places to write them.
type ShareSheet struct {
	World, Holder, Safe string
	File                []byte // NAME.share, as it is
}

// shareLine is one line of the paper form.
type shareLine struct{ No, Text, Check string }

// Share renders a share file on paper: the same ciphertext as a QR code and as
// lines with a check each, and places for reading it back.
func Share(in ShareSheet) ([]byte, error) {
	text, err := lines.Of(in.File)
	if err != nil {
		return nil, err
	}
	code, err := lines.Code(in.File)
	if err != nil {
		return nil, err
	}
	h := head{Title: "Share on paper", World: in.World, Footer: "share " + text[0][strings.LastIndexByte(text[0], ' ')+1:]}
	return renderPage("share", page{h, struct {
		ShareSheet
		QR    string
		Lines []shareLine
	}{in, code, rowsOf(text)}}, shareHTML)
}

// rowsOf takes lines apart for a table.
func rowsOf(text []string) []shareLine {
	var rows []shareLine
	for _, l := range text {
		no, rest, _ := strings.Cut(l, " ")
		i := strings.LastIndexByte(rest, ' ')
		rows = append(rows, shareLine{no, rest[:i], rest[i+1:]})
	}
	return rows
}
