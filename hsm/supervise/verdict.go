package supervise

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"keyrite/hsm/internal/frame"
)

// verdicts hears what a module process says of its token on a pipe of its own.
type verdicts struct {
	r     *os.File
	ended chan struct{} // closed when nothing reads any more
	heard []byte        // of the reading goroutine until then
}

// newVerdicts returns the reading end at work and the writing end for the
// process. opened is called when the process has the token open.
func newVerdicts(opened func()) (*verdicts, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("verdict pipe: %w", err)
	}
	v := &verdicts{r: r, ended: make(chan struct{})}
	go func() {
		defer close(v.ended)
		var b [1]byte
		for {
			n, err := r.Read(b[:])
			if n == 1 {
				v.heard = append(v.heard, b[0])
			}
			if err != nil || n == 0 {
				return
			}
			if frame.Verdict(b[0]) == frame.VerdictOpen {
				opened()
			}
		}
	}()
	return v, w, nil
}

// close takes in what the process said before its end. It does not wait for the
// pipe to close, which something that the module left behind may hold open.
func (v *verdicts) close() {
	_ = v.r.SetReadDeadline(time.Now())
	<-v.ended
	raw, err := v.r.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			var b [16]byte // a process says at most two things
			if n, err := syscall.Read(int(fd), b[:]); err == nil && n > 0 {
				v.heard = append(v.heard, b[:n]...)
			}
		})
	}
	_ = v.r.Close() // only read from
}

// last is the last word of a process that is gone, 0 if it said nothing.
func (v *verdicts) last() frame.Verdict {
	if v == nil || len(v.heard) == 0 {
		return 0
	}
	return frame.Verdict(v.heard[len(v.heard)-1])
}
