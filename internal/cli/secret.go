package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"keyrite/internal/redact"
)

// MaxSecretBytes bounds a passphrase or PIN read from a descriptor.
const MaxSecretBytes = 1024

// Secrets reads passphrases, either one line after the other from a descriptor
// or from the terminal. Secrets never come from arguments or the environment.
type Secrets struct {
	fd int
	rd *os.File
	io IO
}

// NewSecrets reads from descriptor fd, or from the terminal if fd is negative.
func NewSecrets(std IO, fd int) *Secrets { return &Secrets{fd: fd, io: std} }

// Next returns the next secret; prompt says whose it is. An empty one is refused.
func (s *Secrets) Next(prompt string) (*redact.Secret, error) {
	var line []byte
	var err error
	if s.fd >= 0 {
		line, err = s.fromFD()
	} else {
		line, err = s.fromTerminal(prompt)
	}
	if errors.Is(err, errStopped) {
		return nil, &Error{Class: "interrupted", Err: fmt.Errorf("interrupted, and no %s was taken", prompt)}
	}
	if err != nil {
		return nil, &Error{Class: "usage", Err: fmt.Errorf("read the %s: %w", prompt, err), Hint: "type it at the terminal, or give the number of an open descriptor with the matching --…-fd flag, one secret a line"}
	}
	if len(line) == 0 {
		return nil, Usagef("the %s is empty", prompt)
	}
	return redact.New(line), nil
}

func (s *Secrets) fromFD() ([]byte, error) {
	if s.rd == nil {
		if s.rd = os.NewFile(uintptr(s.fd), "secret"); s.rd == nil {
			return nil, errors.New("descriptor is not open")
		}
	}
	return lineOf(s.rd)
}

// errStopped says that somebody pressed Ctrl-C at a prompt.
var errStopped = errors.New("interrupted")

// fromTerminal turns the echo off before it asks: who types at once must not see it.
// Ctrl-C ends it, and the terminal is as it was.
func (s *Secrets) fromTerminal(prompt string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal")
	}
	defer tty.Close()
	fd := int(tty.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, errors.New("there is no terminal")
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	quiet := *old
	quiet.Lflag = quiet.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	quiet.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return nil, errors.New("there is no terminal")
	}
	defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }() // a terminal that is gone echoes nothing
	fmt.Fprintf(tty, "%s: ", Escape(prompt))
	defer fmt.Fprintln(tty)
	type read struct {
		line []byte
		err  error
	}
	done := make(chan read, 1)
	go func() { // it ends with the line, or with the program
		line, err := lineOf(tty)
		done <- read{line, err}
	}()
	select {
	case r := <-done:
		return r.line, r.err
	case <-signals:
		return nil, errStopped
	}
}

// lineOf reads one line byte by byte: what follows it belongs to the next reader,
// which may be another process.
func lineOf(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, MaxSecretBytes+1) // no growing copy is left behind
	var one [1]byte
	for len(line) <= MaxSecretBytes {
		n, err := r.Read(one[:])
		if n == 1 && one[0] == '\n' {
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		line = append(line, one[:n]...)
		if errors.Is(err, io.EOF) {
			return line, nil
		}
		if err != nil {
			return nil, errors.New("it cannot be read")
		}
	}
	clear(line)
	return nil, fmt.Errorf("longer than %d bytes", MaxSecretBytes)
}
