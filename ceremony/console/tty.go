package console

import (
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"keyrite/artifact/fault"
)

// Sequences of the screen. It writes no others (ECMA-48; 1049, 25 and 2026 are
// modes of xterm, which a terminal that lacks them ignores).
const (
	seqEnter  = "\x1b[?1049h\x1b[2J"
	seqLeave  = "\x1b[?2026l\x1b[0m\x1b[2J\x1b[1;1H\x1b[?1049l\x1b[?25h"
	seqBegin  = "\x1b[?2026h\x1b[?25l" // one frame, shown at once
	seqEnd    = "\x1b[?2026l"
	seqCursor = "\x1b[?25h"
	seqClear  = "\x1b[2J"
)

// echo switches the terminal's echo; lines stay lines, so that Ctrl-C still
// interrupts. What was typed and not yet read is thrown away when flush is set.
func echo(fd int, on, flush bool) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag |= unix.ECHO
	if !on {
		t.Lflag &^= unix.ECHO
	}
	request := uint(unix.TCSETS)
	if flush {
		request = unix.TCSETSF
	}
	return unix.IoctlSetTermios(fd, request, t)
}

// openTTY opens the controlling terminal.
func openTTY() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, noTerminal()
	}
	return tty, nil
}

// raw gives every key as it is pressed, shows none, and makes no signal of any.
func raw(tty *os.File) (*term.State, error) {
	old, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "set up terminal: %w", err)
	}
	return old, nil
}

// flush throws away what was typed and not yet read, so that the end of a
// passphrase does not land in the shell.
func flush(tty *os.File) {
	_ = unix.IoctlSetInt(int(tty.Fd()), unix.TCFLSH, unix.TCIFLUSH) // best effort on a terminal that may be gone
}
