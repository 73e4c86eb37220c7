package console

import "golang.org/x/sys/unix"

// echo switches the terminal's echo; lines stay lines, so that Ctrl-C still
// interrupts.
func echo(fd int, on bool) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag |= unix.ECHO
	if !on {
		t.Lflag &^= unix.ECHO
	}
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
