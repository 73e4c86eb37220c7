package frame

import (
	"errors"
	"io"

	"keyrite/internal/secmem"
)

// Role says whose PIN a frame holds.
type Role byte

// The roles; the values are the bytes on the wire.
const (
	SOPIN       Role = 's'
	UserPIN     Role = 'u'
	NextSOPIN   Role = 'S'
	NextUserPIN Role = 'U'
)

// PINs are the PINs of one descriptor. They live in locked pages.
type PINs map[Role]*secmem.Buffer

// Current renames the roles of the next epoch to those in force, for PINs that
// were taken as the next ones. Both at once are an error.
func (p PINs) Current() error {
	for _, r := range []struct{ from, to Role }{{NextSOPIN, SOPIN}, {NextUserPIN, UserPIN}} {
		if p[r.from] == nil {
			continue
		}
		if p[r.to] != nil {
			return errPINRole
		}
		p[r.to] = p[r.from]
		delete(p, r.from)
	}
	return nil
}

// Wipe overwrites all of them.
func (p PINs) Wipe() {
	for r, b := range p {
		b.Wipe()
		delete(p, r)
	}
}

var (
	errPINFrame = errors.New("pin: malformed frame")
	errPINRole  = errors.New("pin: unknown or repeated role")

	// Of a PIN as text, with what a person can make of it.
	errPINEmpty   = errors.New("the PIN is empty")
	errPINLong    = errors.New("the PIN is longer than 255 bytes")
	errPINLines   = errors.New("more than one line where the PIN is expected")
	errPINControl = errors.New("a control character in the PIN")
)

// WritePIN writes one frame. It makes no copy that outlives the call.
func WritePIN(w io.Writer, r Role, pin []byte) error {
	if len(pin) == 0 || len(pin) > 255 {
		return errors.New("pin: need 1 to 255 bytes")
	}
	b, err := secmem.New()
	if err != nil {
		return err
	}
	defer b.Wipe()
	err = b.Fill(func(p []byte) (int, error) {
		p[0], p[1] = byte(r), byte(len(pin))
		return 2 + copy(p[2:], pin), nil
	})
	if err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

// ReadPINs reads frames until the end, straight into locked memory. r must be
// a plain file, not a buffered reader, which would leave copies behind.
func ReadPINs(r io.Reader, roles ...Role) (PINs, error) {
	raw, err := readAll(r)
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	out := PINs{}
	for rest := raw.Bytes(); len(rest) > 0; {
		if len(rest) < 2 || rest[1] == 0 || len(rest) < 2+int(rest[1]) {
			out.Wipe()
			return nil, errPINFrame
		}
		n := int(rest[1])
		if err := out.add(Role(rest[0]), rest[2:2+n], roles); err != nil {
			out.Wipe()
			return nil, err
		}
		rest = rest[2+n:]
	}
	return out, nil
}

// ReadUserPIN reads one line of text as the user PIN. It stops at the end of
// the line, for what follows on a pipe belongs to the next reader; in a whole
// file nothing may follow.
func ReadUserPIN(r io.Reader, whole bool) (PINs, error) {
	b, err := secmem.New()
	if err != nil {
		return nil, err
	}
	if err := b.Fill(func(page []byte) (int, error) { return readLine(r, page[:256], whole) }); err != nil {
		b.Wipe()
		return nil, err
	}
	return PINs{UserPIN: b}, nil
}

// readLine reads byte by byte into page and returns the length of the line.
func readLine(r io.Reader, page []byte, whole bool) (int, error) {
	n := 0
	for n < len(page) {
		m, err := r.Read(page[n : n+1])
		if m == 1 && page[n] == '\n' {
			if m, _ := readRest(r, whole); m != 0 {
				return 0, errPINLines
			}
			break
		}
		n += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if n > 0 && page[n-1] == '\r' {
		n--
	}
	if n == 0 {
		return 0, errPINEmpty
	}
	if n > 255 {
		return 0, errPINLong
	}
	for _, c := range page[:n] {
		if c < ' ' {
			return 0, errPINControl
		}
	}
	return n, nil
}

func readRest(r io.Reader, whole bool) (int, error) {
	if !whole {
		return 0, nil
	}
	var one [1]byte
	return r.Read(one[:])
}

func (p PINs) add(r Role, pin []byte, roles []Role) error {
	known := false
	for _, x := range roles {
		known = known || x == r
	}
	if _, twice := p[r]; twice || !known {
		return errPINRole
	}
	b, err := secmem.New()
	if err != nil {
		return err
	}
	if err := b.Fill(func(page []byte) (int, error) { return copy(page, pin), nil }); err != nil {
		b.Wipe()
		return err
	}
	p[r] = b
	return nil
}

func readAll(r io.Reader) (*secmem.Buffer, error) {
	b, err := secmem.New()
	if err != nil {
		return nil, err
	}
	err = b.Fill(func(page []byte) (int, error) {
		n := 0
		for {
			m, err := r.Read(page[n:])
			if n += m; n == len(page) {
				return 0, errPINFrame
			}
			if errors.Is(err, io.EOF) {
				return n, nil
			}
			if err != nil {
				return 0, err
			}
		}
	})
	if err != nil {
		b.Wipe()
		return nil, err
	}
	return b, nil
}
