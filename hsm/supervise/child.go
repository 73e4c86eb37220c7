package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"keyrite/hsm/internal/confine"
	"keyrite/hsm/internal/frame"
	"keyrite/hsm/internal/places"
	"keyrite/internal/secmem"
)

// child is one module process.
type child struct {
	id    uint64
	token frame.Token
	cmd   *exec.Cmd
	done  chan struct{} // closed when the process is gone

	// generation is that of the circuit breaker; verdicts is nil for a process
	// that answers once.
	generation uint64
	verdicts   *verdicts

	mu     sync.Mutex // guards killed
	killed bool       // by us
}

// lost reports whether a process that is gone took the token's session with it:
// it never said what became of the login, or had the token open and did not end
// by itself and well, or said that the token was lost.
func (c *child) lost() bool {
	switch c.verdicts.last() {
	case frame.VerdictRefused:
		return false
	case frame.VerdictOpen:
		return c.cmd.ProcessState == nil || !c.cmd.ProcessState.Success()
	default:
		return true
	}
}

func (c *child) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	_ = c.cmd.Process.Kill()
}

// ending says how a process ended by itself that did not end well, or "". A
// module that crashes when it logs out or finalises may have lost what it
// answered for.
func (c *child) ending() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed || c.cmd.ProcessState == nil || c.cmd.ProcessState.Success() {
		return ""
	}
	return c.cmd.ProcessState.String()
}

// children starts module processes and knows which are alive.
type children struct {
	env     []string
	breaker *breaker
	starts  chan func()
	folders string // what Landlock keeps them to, in words

	mu    sync.Mutex // guards last, alive and badly
	last  uint64
	alive map[uint64]*child
	badly map[uint64]string // how those ended that nobody asked about yet
}

// newChildren starts the one thread that starts processes. The kernel sends
// PDEATHSIG when the starting thread ends, so that thread must never end
// before this process does. It is restricted to the folders of the module, which
// every process that it starts inherits.
func newChildren(env []string, b *breaker, p *places.Places, stateDir string) (*children, error) {
	c := &children{env: env, breaker: b, starts: make(chan func()), alive: map[uint64]*child{}, badly: map[uint64]string{}}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		var err error
		c.folders, err = confine.Folders(p, stateDir)
		ready <- err
		for f := range c.starts {
			f()
		}
	}()
	return c, <-ready
}

// open starts a module process that logs in and serves, as far as the circuit
// breaker lets it. The returned file is the near end of its data socket.
func (cs *children) open(ctx context.Context, job frame.Job, pins frame.PINs) (*child, *os.File, error) {
	generation, err := cs.breaker.admit(ctx, job.Token)
	if err != nil {
		return nil, nil, err
	}
	v, w, err := newVerdicts(func() { cs.breaker.opened(job.Token, generation) })
	if err != nil {
		cs.breaker.ended(job.Token, generation, true)
		return nil, nil, err
	}
	defer w.Close()
	ch, near, err := cs.start(&child{token: job.Token, generation: generation, verdicts: v}, job, pins, w)
	if err != nil && ch == nil {
		v.close()
		cs.breaker.ended(job.Token, generation, true)
	}
	return ch, near, err
}

// start starts a module process for the job and hands it its PINs. The
// returned file is the near end of its data socket. Where the process started
// and could not be told its job, it is returned with the error, killed.
func (cs *children) start(ch *child, job frame.Job, pins frame.PINs, more ...*os.File) (*child, *os.File, error) {
	near, far, err := frame.DataPair()
	if err != nil {
		return nil, nil, err
	}
	defer far.Close()
	jr, jw, err := os.Pipe()
	if err != nil {
		near.Close()
		return nil, nil, fmt.Errorf("job pipe: %w", err)
	}
	defer jr.Close()
	defer jw.Close()
	// /proc/self/exe is this very file even if its name now leads elsewhere.
	cmd := exec.Command("/proc/self/exe", "module")
	cmd.Args[0] = "keyrite-hsmd" // what ps shows
	cmd.Env, cmd.Dir = cs.env, "/"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = append([]*os.File{far, jr}, more...) // p11.DataFD, p11.JobFD, p11.VerdictFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	cs.starts <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		near.Close()
		return nil, nil, fmt.Errorf("start module process: %w", err)
	}
	ch.cmd, ch.done = cmd, make(chan struct{})
	cs.mu.Lock()
	cs.last++
	ch.id = cs.last
	cs.alive[ch.id] = ch
	cs.mu.Unlock()
	go cs.reap(ch)
	jr.Close()
	if err := sendJob(jw, job, pins); err != nil {
		ch.kill()
		near.Close()
		return ch, nil, err
	}
	return ch, near, nil
}

func (cs *children) reap(ch *child) {
	_ = ch.cmd.Wait() // its state is kept
	if ch.verdicts != nil {
		ch.verdicts.close()
		cs.breaker.ended(ch.token, ch.generation, ch.lost())
	}
	cs.mu.Lock()
	delete(cs.alive, ch.id)
	if how := ch.ending(); how != "" {
		cs.badly[ch.id] = how
	}
	cs.mu.Unlock()
	close(ch.done)
}

// sendJob writes the job and the PINs; a pipe holds both without blocking.
func sendJob(w io.Writer, job frame.Job, pins frame.PINs) error {
	if err := frame.Write(w, job); err != nil {
		return fmt.Errorf("send job: %w", err)
	}
	for role, b := range pins {
		if err := sendPIN(w, role, b); err != nil {
			return err
		}
	}
	return nil
}

func sendPIN(w io.Writer, r frame.Role, b *secmem.Buffer) error {
	if b.Bytes() == nil {
		return errors.New("send PIN: it is wiped")
	}
	return frame.WritePIN(w, r, b.Bytes())
}

// run starts a process that answers once and ends, and waits for both.
func (cs *children) run(ctx context.Context, job frame.Job, pins frame.PINs) (*frame.Result, error) {
	ch, near, err := cs.start(&child{token: job.Token}, job, pins)
	if err != nil {
		return nil, err
	}
	defer near.Close()
	stop := context.AfterFunc(ctx, ch.kill)
	defer stop()
	var res frame.Result
	err = frame.Read(near, &res)
	<-ch.done
	if ctx.Err() != nil {
		return nil, lost("the module did not answer in time and was ended; the outcome is unknown")
	}
	if err != nil {
		return nil, lost("the module process ended without an answer (%s); the outcome is unknown", ch.cmd.ProcessState)
	}
	if res.Fault != nil {
		return nil, res.Fault
	}
	return &res, cs.ended(ch.id)
}

// ended is the error of a process that answered and then ended badly.
func (cs *children) ended(id uint64) error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	how, bad := cs.badly[id]
	if !bad {
		return nil
	}
	delete(cs.badly, id)
	return fault(frame.KindInternal, "token", "the module process ended badly after it had answered ("+how+")")
}

func (cs *children) kill(id uint64) {
	cs.mu.Lock()
	ch := cs.alive[id]
	cs.mu.Unlock()
	if ch != nil {
		ch.kill()
		<-ch.done
	}
	_ = cs.ended(id) // who kills it does not ask how it ended
}

// endGrace is how long a module may take to log out and finalise.
const endGrace = 2 * time.Second

// end waits for a process that was told to end, and kills one that hangs, which is
// an error as a crash is.
func (cs *children) end(id uint64) error {
	cs.mu.Lock()
	ch := cs.alive[id]
	cs.mu.Unlock()
	if ch == nil {
		return cs.ended(id)
	}
	t := time.NewTimer(endGrace)
	defer t.Stop()
	select {
	case <-ch.done:
		return cs.ended(id)
	case <-t.C:
		ch.kill()
		<-ch.done
		return fault(frame.KindInternal, "token", "the module process did not log out in time and was ended")
	}
}

// holds reports whether a module process has the token open.
func (cs *children) holds(t frame.Token) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, ch := range cs.alive {
		if ch.token == t {
			return true
		}
	}
	return false
}

func (cs *children) killAll() {
	cs.mu.Lock()
	ids := make([]uint64, 0, len(cs.alive))
	for id := range cs.alive {
		ids = append(ids, id)
	}
	cs.mu.Unlock()
	for _, id := range ids {
		cs.kill(id)
	}
}

func lost(format string, args ...any) *frame.Fault {
	return &frame.Fault{Op: "module", Kind: frame.KindLost, Class: "token", Text: fmt.Sprintf(format, args...)}
}
