package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
)

const (
	// HeaderSize is that of a command and of an answer: tag, size, code (TPM 2.0
	// Part 1, 18.2).
	HeaderSize  = 10
	maxResponse = 8192 // bytes; TPM 2.0 devices have MAX_RESPONSE_SIZE 4096
	maxRetries  = 20   // of TPM_RC_RETRY, which a first signature after a start may give several times
	retryPause  = 20 * time.Millisecond
	deadline    = 90 * time.Second // per command; an ECC key in a slow TPM takes seconds
)

// Wire sends one command after the other over one connection, for one goroutine at
// a time. After a broken exchange the connection is thrown away, since a late answer
// would be taken for that of the next command.
type Wire struct {
	addr string
	c    io.ReadWriteCloser
}

// Dial connects to the TPM at addr: a device file ("/dev/tpmrm0") or HOST:PORT of a
// TPM that speaks plain commands over TCP, as swtpm does. A TPM that does not answer
// is ErrAbsent.
func Dial(addr string) (*Wire, error) {
	w := &Wire{addr: addr}
	return w, w.connect()
}

func (w *Wire) connect() error {
	c, err := open(w.addr)
	if err != nil {
		return fmt.Errorf("open %s: %w: %w", w.addr, ErrAbsent, err)
	}
	w.c = c
	return nil
}

func open(addr string) (io.ReadWriteCloser, error) {
	if !strings.HasPrefix(addr, "/") {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", addr)
	}
	fi, err := os.Stat(addr)
	if err != nil {
		return nil, err
	}
	if fi.Mode()&os.ModeCharDevice == 0 {
		return nil, errors.New("not a character device")
	}
	return os.OpenFile(addr, os.O_RDWR, 0)
}

// Yield gives a connection back that another program may be waiting for: a TPM behind
// a socket serves one at a time, /dev/tpmrm0 has its own arbiter and stays open. The
// next command connects again.
func (w *Wire) Yield() {
	if _, ok := w.c.(net.Conn); ok {
		_ = w.Close() // every answer has been read
	}
}

// Close ends the connection.
func (w *Wire) Close() error {
	if w.c == nil {
		return nil
	}
	c := w.c
	w.c = nil
	return c.Close()
}

// Send implements go-tpm's transport. It repeats a command that the TPM put off.
func (w *Wire) Send(command []byte) ([]byte, error) {
	for try := 0; ; try++ {
		answer, err := w.exchange(command)
		if err != nil {
			return nil, err
		}
		if tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])) != tpm2.TPMRCRetry || try == maxRetries {
			return answer, nil
		}
		<-time.After(retryPause)
	}
}

func (w *Wire) exchange(command []byte) ([]byte, error) {
	if w.c == nil {
		if err := w.connect(); err != nil {
			return nil, err
		}
	}
	answer, err := roundTrip(w.c, command)
	if err != nil {
		_ = w.Close()
		return nil, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	return answer, nil
}

// roundTrip sends a command and reads one whole answer.
func roundTrip(c io.ReadWriter, command []byte) ([]byte, error) {
	if d, ok := c.(interface{ SetDeadline(time.Time) error }); ok {
		// A device file that cannot be polled has no deadlines; the kernel's own apply there.
		if err := d.SetDeadline(time.Now().Add(deadline)); err != nil && !errors.Is(err, os.ErrNoDeadline) {
			return nil, err
		}
	}
	if _, err := c.Write(command); err != nil {
		return nil, err
	}
	// A device file gives the whole answer in one read and forgets the rest,
	// TCP gives it in pieces; ReadAtLeast serves both.
	buf := make([]byte, maxResponse)
	n, err := io.ReadAtLeast(c, buf, HeaderSize)
	if err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(buf[2:6]))
	if size < HeaderSize || size > maxResponse || n > size {
		return nil, errors.New("answer of a wrong length")
	}
	if _, err := io.ReadFull(c, buf[n:size]); err != nil {
		return nil, err
	}
	return buf[:size], nil
}
