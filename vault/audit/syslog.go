package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"keyrite/artifact/fault"
)

// Priorities of a line (RFC 5424, section 6.2.1): facility 13, log audit; refusals
// are warnings.
const (
	priorityNotice  = 13*8 + 5
	priorityWarning = 13*8 + 4
)

// syslog sends leaves as messages of RFC 5424 over TCP, with octet counting (RFC
// 6587, section 3.4.1). TCP tells nobody what the other side kept: who needs to know
// compares the numbers in the lines.
type syslog struct {
	address, id string
	host        string
	conn        net.Conn
}

func (w *syslog) close() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

// check finds nothing out: whoever is there shows when something is sent.
func (w *syslog) check() error { return nil }

func (w *syslog) write(ctx context.Context, leaves []numberedLeaf) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, l := range leaves {
		line, err := w.line(l)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%d ", len(line))
		b.Write(line)
	}
	if at, ok := ctx.Deadline(); ok {
		if err := w.conn.SetDeadline(at); err != nil {
			return fault.Errorf(fault.Unreachable, "write to syslog at %s: %w", w.address, err)
		}
	}
	conn := w.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // who ends the sink does not wait
	defer stop()
	if _, err := conn.Write(b.Bytes()); err != nil {
		w.close()
		return fault.Errorf(fault.Unreachable, "write to syslog at %s: %w", w.address, err)
	}
	return nil
}

func (w *syslog) open(ctx context.Context) error {
	if w.conn != nil && !gone(w.conn) {
		return nil
	}
	w.close()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.address)
	if err != nil {
		return fault.Errorf(fault.Unreachable, "reach syslog at %s: %w", w.address, err)
	}
	w.conn = conn
	if w.host, err = os.Hostname(); err != nil || w.host == "" {
		w.host = "-"
	}
	return nil
}

// gone says whether the other side closed the connection: a write after that would
// seem to go well once.
func gone(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return true
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	closed := true
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = n == 0 && err == nil || err != nil && err != syscall.EAGAIN
		return true
	})
	return err != nil || closed
}

// line is one message: the number of the entry as MSGID, the leaf as it was hashed
// as the text.
func (w *syslog) line(l numberedLeaf) ([]byte, error) {
	e, err := decode(l.raw)
	if err != nil {
		return nil, err
	}
	priority := priorityNotice
	if e.Class != "" || e.Kind == Refused {
		priority = priorityWarning
	}
	return fmt.Appendf(nil, "<%d>1 %s %.255s keyrite-vault %d %d - %s", priority, e.Time, w.host, os.Getpid(), l.seq, l.raw), nil
}

// decode reads what a syslog line needs of a leaf.
func decode(raw []byte) (*Entry, error) {
	var leaf struct {
		Entry Entry `json:"entry"`
	}
	if err := json.Unmarshal(raw, &leaf); err != nil {
		return nil, fault.Errorf(fault.Verify, "read the trail: %w", err)
	}
	return &leaf.Entry, nil
}
