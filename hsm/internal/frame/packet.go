package frame

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// Control is one end of the control socket. SOCK_SEQPACKET keeps a command
// and the descriptors that belong to it together. Reads are for one
// goroutine; each Send is one system call, so sends may come from several.
type Control struct {
	conn *net.UnixConn
	buf  []byte
}

// maxFDs is how many descriptors one packet may carry.
const maxFDs = 1

// NewControl takes over the descriptor.
func NewControl(f *os.File) (*Control, error) {
	c, err := net.FileConn(f)
	if e := f.Close(); err == nil && e != nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("control socket: not a Unix socket")
	}
	return &Control{conn: u, buf: make([]byte, MaxControl)}, nil
}

// ControlPair returns both ends of a new control socket.
func ControlPair() (mine *Control, theirs *os.File, err error) {
	a, b, err := pair(syscall.SOCK_SEQPACKET, "control")
	if err != nil {
		return nil, nil, err
	}
	if mine, err = NewControl(a); err != nil {
		b.Close()
		return nil, nil, err
	}
	return mine, b, nil
}

// DataPair returns both ends of a new data socket.
func DataPair() (a, b *os.File, err error) { return pair(syscall.SOCK_STREAM, "data") }

func pair(kind int, name string) (*os.File, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("%s socket: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// Send sends v and, if f is not nil, its descriptor, which stays open here.
func (c *Control) Send(v any, f *os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("control socket: encode: %w", err)
	}
	if len(b) > MaxControl {
		return errSize
	}
	var oob []byte
	if f != nil {
		raw, err := f.SyscallConn()
		if err != nil {
			return fmt.Errorf("control socket: descriptor: %w", err)
		}
		// Control, not Fd: Fd would switch the caller's file to blocking mode.
		if err := raw.Control(func(fd uintptr) { oob = syscall.UnixRights(int(fd)) }); err != nil {
			return fmt.Errorf("control socket: descriptor: %w", err)
		}
		err = c.write(b, oob)
		return err
	}
	return c.write(b, nil)
}

func (c *Control) write(b, oob []byte) error {
	if _, _, err := c.conn.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// Receive reads one packet into v and returns the descriptor beside it, if
// there is one. io.EOF means that the other end closed.
func (c *Control) Receive(v any) (*os.File, error) {
	oob := make([]byte, syscall.CmsgSpace(4*(maxFDs+1)))
	n, on, flags, _, err := c.conn.ReadMsgUnix(c.buf, oob)
	if err != nil {
		return nil, err
	}
	f, err := descriptor(oob[:on], flags)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		closeFile(f)
		return nil, io.EOF
	}
	if flags&syscall.MSG_TRUNC != 0 {
		closeFile(f)
		return nil, errSize
	}
	if err := Decode(c.buf[:n], v); err != nil {
		closeFile(f)
		return nil, err
	}
	return f, nil
}

// descriptor takes the one descriptor out of a control message and closes
// whatever else was sent.
func descriptor(oob []byte, flags int) (*os.File, error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	var fds []int
	for _, m := range msgs {
		x, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		fds = append(fds, x...)
	}
	if len(fds) > maxFDs || flags&syscall.MSG_CTRUNC != 0 {
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
		return nil, errors.New("control socket: too many descriptors")
	}
	if len(fds) == 0 {
		return nil, nil
	}
	syscall.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "received"), nil
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// Close closes this end.
func (c *Control) Close() error { return c.conn.Close() }
