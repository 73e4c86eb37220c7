package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

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
	// Byte by byte: what follows the line belongs to the next reader, which
	// may be another process.
	var line []byte
	var one [1]byte
	for len(line) <= MaxSecretBytes {
		n, err := s.rd.Read(one[:])
		if n == 1 && one[0] == '\n' {
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		line = append(line, one[:n]...)
		if errors.Is(err, io.EOF) {
			return line, nil
		}
		if err != nil {
			return nil, errors.New("descriptor cannot be read")
		}
	}
	clear(line)
	return nil, fmt.Errorf("longer than %d bytes", MaxSecretBytes)
}

func (s *Secrets) fromTerminal(prompt string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal")
	}
	defer tty.Close()
	fmt.Fprintf(tty, "%s: ", Escape(prompt))
	line, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	return line, err
}
