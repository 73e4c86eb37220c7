package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"keyrite/hsm/internal/confine"
	"keyrite/hsm/internal/frame"
	"keyrite/hsm/internal/places"
	"keyrite/internal/secmem"
)

// The stages of the supervisor, as its first argument says. The first hears which
// module it is for, gives up what that module does not need and executes the
// program anew as the second, in which every thread is without it; the second
// argument then is the descriptor on which it reads the same hello again.
const (
	Start    = "supervise"
	Confined = "supervise-confined"
)

var errByHand = errors.New("keyrite-hsmd: started by hand; programs of keyrite start it")

// Main is the whole supervisor process, in the stage that its arguments name.
func Main(ctx context.Context, args []string) error {
	// Ctrl-C at a terminal is for the program in front; what happens to open
	// tokens then is its decision.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	if len(args) == 1 && args[0] == Start {
		return confineSelf()
	}
	if len(args) != 2 || args[0] != Confined {
		return errByHand
	}
	fd, err := strconv.Atoi(args[1])
	f, hello := os.NewFile(ControlFD, "control"), os.NewFile(uintptr(fd), "hello")
	if err != nil || f == nil || hello == nil {
		return errByHand
	}
	control, err := frame.NewControl(f)
	if err != nil {
		return err
	}
	s := &supervisor{control: control, hold: newHold(), cancel: map[uint64]context.CancelFunc{}}
	defer s.hold.wipeAll()
	stop := context.AfterFunc(ctx, func() { control.Close() })
	defer stop()
	var c frame.Command
	if err := errors.Join(frame.Read(hello, &c), hello.Close()); err != nil {
		return err
	}
	if err := s.greet(&c); err != nil {
		return refuse(s.control, c.ID, err)
	}
	defer s.children.killAll()
	if err := s.control.Send(frame.Answer{ID: c.ID, Version: frame.Version}, nil); err != nil {
		return err
	}
	err = s.serve()
	s.cancelAll()
	s.children.killAll()
	s.busy.Wait()
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// greet takes the module's name; one supervisor serves one module. All of it is
// before the first secret.
func (s *supervisor) greet(c *frame.Command) error {
	if err := secmem.Harden(); err != nil {
		return err
	}
	p, err := named(c)
	if err != nil {
		return err
	}
	s.module, s.args, s.sum, s.stateDir, s.places = c.Module, c.ModuleArgs, c.Settings.ModuleSHA256, stateFolder(c), p
	s.children, err = newChildren(os.Environ(), newBreaker(time.Duration(c.Settings.ReopenMS)*time.Millisecond, time.Now), p, s.stateDir)
	if err != nil {
		return err
	}
	return confine.Filter(confine.Rules{Unix: p.Unix, TCP: len(p.TCP) > 0, Programs: true})
}

// confineSelf is the first stage. It returns only errors.
func confineSelf() error {
	fd, err := syscall.Dup(ControlFD)
	if err != nil {
		return errByHand
	}
	control, err := frame.NewControl(os.NewFile(uintptr(fd), "control"))
	if err != nil {
		return err
	}
	var c frame.Command
	extra, err := control.Receive(&c)
	if err != nil {
		return err
	}
	if extra != nil {
		extra.Close()
	}
	return refuse(control, c.ID, enter(&c))
}

// refuse tells why there will be no supervisor, and waits until the other end has
// read it and closed: the end of this process would take the answer along.
func refuse(control *frame.Control, id uint64, cause error) error {
	err := control.Send(frame.Answer{ID: id, Fault: asFault(cause)}, nil)
	for err == nil {
		var c frame.Command
		var f *os.File
		if f, err = control.Receive(&c); f != nil {
			f.Close()
		}
	}
	return cause
}

// enter confines the process and executes its second stage.
func enter(c *frame.Command) error {
	p, err := named(c)
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	if err := frame.Write(w, c); err != nil { // no longer than a control packet, which a pipe holds
		return err
	}
	w.Close()
	runtime.LockOSThread() // and never unlock it: the thread is spoilt for others
	if err := confine.Renounce(p); err != nil {
		return err
	}
	hello, err := syscall.Dup(int(r.Fd())) // unlike r, it stays open in the next program
	if err != nil {
		return fmt.Errorf("hand over the hello: %w", err)
	}
	// /proc/self/exe is this very file even if its name now leads elsewhere.
	err = syscall.Exec("/proc/self/exe", []string{"keyrite-hsmd", Confined, strconv.Itoa(hello)}, os.Environ())
	return fmt.Errorf("start the confined supervisor: %w", err)
}

// named reads what the hello and the module's configuration name.
func named(c *frame.Command) (*places.Places, error) {
	if c.Verb != frame.VerbHello || c.Version != frame.Version || c.Module == "" || c.Settings.ReopenMS < 1 {
		return nil, fault(frame.KindUsage, "usage", "keyrite-hsmd: not the program of the same build at the other end")
	}
	p, err := places.Of(c.Module, c.ModuleArgs, os.Getenv, c.Settings.Sockets, c.Settings.Folders)
	if err != nil {
		return nil, fault(frame.KindUsage, "usage", err.Error())
	}
	return p, nil
}
