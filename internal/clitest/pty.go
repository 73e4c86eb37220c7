package clitest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// OpenPTY makes a pseudo-terminal of that many columns and rows (0 for none, as
// on a serial line). The caller closes both ends.
func OpenPTY(cols, rows int) (ptmx, tty *os.File, err error) {
	ptmx, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = Resize(ptmx, cols, rows)
	}
	if err == nil {
		tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		_ = ptmx.Close()
		return nil, nil, err
	}
	return ptmx, tty, nil
}

// Resize gives a pseudo-terminal another size; its programs get SIGWINCH.
func Resize(ptmx *os.File, cols, rows int) error {
	return unix.IoctlSetWinsize(int(ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(cols), Row: uint16(rows)})
}

// VT is a terminal that knows only what our full screen may send (and the lines
// before and after it). Whatever else comes is listed in Strange. It is not safe
// for concurrent use.
type VT struct {
	Alt     bool     // the alternate screen is on
	Cursor  bool     // the cursor is shown
	Strange []string // sequences and control characters that it does not know
	// Frame is called when a whole frame was drawn; nil is nobody.
	Frame func()

	cols, rows int
	cells      [][]rune
	row, col   int
	rest       []byte
}

// NewVT makes an empty terminal.
func NewVT(cols, rows int) *VT {
	v := &VT{cols: cols, rows: rows, Cursor: true}
	v.clear()
	return v
}

func (v *VT) clear() {
	v.cells = make([][]rune, v.rows)
	for i := range v.cells {
		v.cells[i] = []rune(strings.Repeat(" ", v.cols))
	}
}

// Resize empties it and gives it another size.
func (v *VT) Resize(cols, rows int) {
	v.cols, v.rows, v.row, v.col = cols, rows, 0, 0
	v.clear()
}

// Row is the text of one row, from 0.
func (v *VT) Row(i int) string { return strings.TrimRight(string(v.cells[i]), " ") }

// Text is all rows.
func (v *VT) Text() string {
	var b strings.Builder
	for i := range v.rows {
		b.WriteString(v.Row(i) + "\n")
	}
	return b.String()
}

// Write takes what a program printed, cut anywhere.
func (v *VT) Write(p []byte) (int, error) {
	v.rest = append(v.rest, p...)
	for len(v.rest) > 0 {
		n := v.step(v.rest)
		if n == 0 {
			break
		}
		v.rest = v.rest[n:]
	}
	return len(p), nil
}

// step takes one character or sequence and returns its length, 0 if it is not
// complete.
func (v *VT) step(b []byte) int {
	switch b[0] {
	case 0x1b:
		return v.sequence(b)
	case '\n':
		v.row = min(v.row+1, v.rows-1)
		return 1
	case '\r':
		v.col = 0
		return 1
	}
	if !utf8.FullRune(b) {
		return 0
	}
	r, n := utf8.DecodeRune(b)
	if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
		v.Strange = append(v.Strange, fmt.Sprintf("%q", b[:n]))
		return n
	}
	if v.row < v.rows && v.col < v.cols {
		v.cells[v.row][v.col] = r
	}
	v.col++
	return n
}

// sequence takes CSI sequences.
func (v *VT) sequence(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	end := 2
	if b[1] == '[' {
		for end < len(b) && b[end] < 0x40 {
			end++
		}
		if end == len(b) {
			return 0
		}
		end++
	}
	seq := string(b[1:end])
	if !v.known(seq) {
		v.Strange = append(v.Strange, fmt.Sprintf("%q", b[:end]))
	}
	return end
}

func (v *VT) known(seq string) bool {
	switch seq {
	case "[?1049h", "[?1049l":
		v.Alt = seq == "[?1049h"
	case "[?25h", "[?25l":
		v.Cursor = seq == "[?25h"
	case "[?2026h":
	case "[?2026l":
		if v.Frame != nil && v.Alt {
			v.Frame()
		}
	case "[2J":
		v.clear()
	case "[K":
		for i := v.col; i < v.cols; i++ {
			v.cells[v.row][i] = ' '
		}
	default:
		return v.withNumbers(seq)
	}
	return true
}

// withNumbers are the position and the colours.
func (v *VT) withNumbers(seq string) bool {
	args, final := seq[1:max(len(seq)-1, 1)], seq[len(seq)-1]
	for _, c := range args {
		if c != ';' && (c < '0' || c > '9') {
			return false
		}
	}
	switch final {
	case 'm':
		return seq[0] == '['
	case 'H':
		n, err := fmt.Sscanf(args, "%d;%d", &v.row, &v.col)
		v.row, v.col = min(max(v.row-1, 0), v.rows-1), max(v.col-1, 0)
		return n == 2 && err == nil
	}
	return false
}
