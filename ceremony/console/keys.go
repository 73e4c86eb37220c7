package console

import (
	"time"
	"unicode/utf8"
)

// Kinds of key. Everything else that a keyboard sends is swallowed.
type keyKind int

const (
	keyText      keyKind = iota // one character, its bytes in key.text
	keyEnter                    // CR or LF
	keyBackspace                // DEL or BS
	keyClear                    // Ctrl-U
	keyInterrupt                // Ctrl-C
	keyRedraw                   // Ctrl-L
	keyUp                       // arrow, or page up
	keyDown
	keyIncident // Ctrl-X, also while a passphrase is typed
)

type key struct {
	kind keyKind
	text []byte // valid until the next call; it may be a letter of a passphrase
}

// escapePause tells the key Esc from the start of what an arrow key sends, which
// comes in one piece.
const escapePause = 50 * time.Millisecond

// decoder makes keys of the bytes of a terminal in raw mode.
type decoder struct {
	state func(d *decoder, b byte) (key, bool)
	last  time.Time
	text  [utf8.UTFMax]byte
	n     int
	arg   byte // first digit of a CSI sequence
}

// next takes one byte that was read at now and says whether it ends a key.
func (d *decoder) next(b byte, now time.Time) (key, bool) {
	if d.state == nil || now.Sub(d.last) > escapePause {
		d.state = (*decoder).ground
	}
	d.last = now
	return d.state(d, b)
}

// wipe forgets the last character.
func (d *decoder) wipe() { clear(d.text[:]) }

var controls = map[byte]keyKind{'\r': keyEnter, '\n': keyEnter, 0x7f: keyBackspace, 0x08: keyBackspace, 0x15: keyClear, 0x03: keyInterrupt, 0x0c: keyRedraw, 0x18: keyIncident}

func (d *decoder) ground(b byte) (key, bool) {
	if b == 0x1b {
		d.state = (*decoder).escape
		return key{}, false
	}
	if kind, ok := controls[b]; ok {
		d.n = 0
		return key{kind: kind}, true
	}
	if b < 0x20 {
		return key{}, false
	}
	if b < utf8.RuneSelf || utf8.RuneStart(b) {
		d.n = 0 // what came before was half a character
	}
	if d.n == len(d.text) {
		d.n = 0
	}
	d.text[d.n] = b
	d.n++
	if !utf8.FullRune(d.text[:d.n]) {
		return key{}, false
	}
	r, size := utf8.DecodeRune(d.text[:d.n])
	bad := r == utf8.RuneError && size <= 1
	n := d.n
	d.n = 0
	return key{kind: keyText, text: d.text[:n]}, !bad
}

func (d *decoder) escape(b byte) (key, bool) {
	switch b {
	case '[', 'O':
		d.state, d.arg = (*decoder).sequence, 0
	case ']', 'P', 'X', '^', '_':
		d.state = (*decoder).str
	default: // Alt and a letter
		d.state = (*decoder).ground
	}
	return key{}, false
}

// sequence swallows a control sequence up to its final byte (ECMA-48, 5.4).
func (d *decoder) sequence(b byte) (key, bool) {
	if b >= '0' && b <= '9' && d.arg == 0 {
		d.arg = b
	}
	if b < 0x40 {
		return key{}, false
	}
	d.state = (*decoder).ground
	switch {
	case b == 'A', b == '~' && d.arg == '5':
		return key{kind: keyUp}, true
	case b == 'B', b == '~' && d.arg == '6':
		return key{kind: keyDown}, true
	}
	return key{}, false
}

// str swallows a control string up to BEL or ST.
func (d *decoder) str(b byte) (key, bool) {
	if b == 0x07 || b == '\\' {
		d.state = (*decoder).ground
	}
	return key{}, false
}
