package hsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// Supervisor is the client of one supervisor process: it serves one module
// and any number of its tokens. It may be used by several goroutines.
type Supervisor struct {
	control *frame.Control
	cmd     *exec.Cmd
	gone    chan struct{} // closed when the process has ended

	mu   sync.Mutex // guards last, wait, over
	last uint64
	wait map[uint64]chan reply
	over error
}

type reply struct {
	answer frame.Answer
	fd     *os.File
}

// Start starts keyrite-hsmd for the module. The process lives until Close, or
// until this program ends in whatever way.
func Start(ctx context.Context, cfg Config) (*Supervisor, error) {
	const op = "start keyrite-hsmd"
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	path, err := hsmdPath(cfg.HSMD)
	if err != nil {
		return nil, err
	}
	env := cfg.Env
	if env == nil {
		env = os.Environ()
	}
	control, far, err := frame.ControlPair()
	if err != nil {
		return nil, &Error{Op: op, Class: "unexpected", Text: err.Error(), cause: err}
	}
	defer far.Close()
	// Not CommandContext: the process must outlive the context of its start.
	cmd := exec.Command(path, "supervise") // supervise.Start
	cmd.Env, cmd.Dir = environment(env), "/"
	if cfg.Stderr != nil {
		cmd.Stderr = cfg.Stderr
	}
	cmd.ExtraFiles = []*os.File{far} // supervise.ControlFD
	// A session of its own, so that Ctrl-C at the terminal does not reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		control.Close()
		return nil, &Error{Op: op, Class: "usage", Text: err.Error(), cause: err}
	}
	s := &Supervisor{control: control, cmd: cmd, gone: make(chan struct{}), wait: map[uint64]chan reply{}}
	// As long as our copy of the far end is open, its closing cannot be seen.
	far.Close()
	go s.receive()
	go func() {
		_ = cmd.Wait()
		close(s.gone)
		s.control.Close() // also where a process that it left behind holds the far end
	}()
	a, _, err := s.call(ctx, frame.Command{Verb: frame.VerbHello, Version: frame.Version, Module: cfg.Module, ModuleArgs: cfg.ModuleArgs, Settings: cfg.settings()}, nil)
	if err == nil && a.Version != frame.Version {
		err = &Error{Op: op, Class: "usage", Text: path + " is of another build"}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// receive hands answers to those who wait for them.
func (s *Supervisor) receive() {
	for {
		var a frame.Answer
		fd, err := s.control.Receive(&a)
		if err != nil {
			s.finish(err)
			return
		}
		s.mu.Lock()
		ch := s.wait[a.ID]
		delete(s.wait, a.ID)
		if ch != nil {
			ch <- reply{a, fd} // has room for one, so it never blocks
		}
		s.mu.Unlock()
		if ch != nil {
			continue
		}
		// Nobody waits any more. If a session came, its process ends when the
		// only descriptor of its data socket closes.
		if fd != nil {
			fd.Close()
		}
	}
}

// finish fails everything that waits.
func (s *Supervisor) finish(err error) {
	if errors.Is(err, io.EOF) || err == nil {
		err = errors.New("keyrite-hsmd ended")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = err
	}
	for id, ch := range s.wait {
		close(ch)
		delete(s.wait, id)
	}
}

// call sends one command and waits for its answer.
func (s *Supervisor) call(ctx context.Context, c frame.Command, fd *os.File) (*frame.Answer, *os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, &Error{Op: string(c.Verb), Token: c.Token.Label, Class: "token", Text: err.Error(), cause: err}
	}
	ch := make(chan reply, 1)
	s.mu.Lock()
	if err := s.over; err != nil {
		s.mu.Unlock()
		return nil, nil, lostError(string(c.Verb), c.Token, err)
	}
	s.last++
	c.ID = s.last
	s.wait[c.ID] = ch
	s.mu.Unlock()
	if dl, ok := ctx.Deadline(); ok {
		c.TimeoutMS = max(1, time.Until(dl).Milliseconds())
	}
	if err := s.control.Send(c, fd); err != nil {
		s.forget(c.ID, ch)
		return nil, nil, lostError(string(c.Verb), c.Token, err)
	}
	select {
	case r, ok := <-ch:
		if !ok {
			return nil, nil, lostError(string(c.Verb), c.Token, nil)
		}
		if r.answer.Fault != nil {
			return nil, nil, fromFault(r.answer.Fault, c.Token, "")
		}
		return &r.answer, r.fd, nil
	case <-ctx.Done():
		s.forget(c.ID, ch)
		_ = s.control.Send(frame.Command{Verb: frame.VerbCancel, Cancels: c.ID}, nil)
		return nil, nil, lostError(string(c.Verb), c.Token, ctx.Err())
	}
}

// forget drops a waiter and closes what came for it meanwhile.
func (s *Supervisor) forget(id uint64, ch chan reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wait, id)
	select {
	case r := <-ch:
		if r.fd != nil {
			r.fd.Close()
		}
	default:
	}
}

// Tokens lists the tokens of the module, without any login.
func (s *Supervisor) Tokens(ctx context.Context) ([]TokenInfo, ModuleInfo, error) {
	a, _, err := s.call(ctx, frame.Command{Verb: frame.VerbTokens}, nil)
	if err != nil {
		return nil, ModuleInfo{}, err
	}
	return a.Tokens, *a.Module, nil
}

// Find returns the one token with the label.
func (s *Supervisor) Find(ctx context.Context, label string) (TokenID, error) {
	return s.FindSerial(ctx, TokenID{Label: label})
}

// FindSerial is Find where the serial number is known: no other token will do.
func (s *Supervisor) FindSerial(ctx context.Context, want TokenID) (TokenID, error) {
	all, _, err := s.Tokens(ctx)
	if err != nil {
		return TokenID{}, err
	}
	var found []TokenID
	others := ""
	for _, t := range all {
		if !t.Initialised || t.Label != want.Label {
			continue
		}
		if want.Serial != "" && t.Serial != want.Serial {
			others = t.Serial
			continue
		}
		found = append(found, t.Token)
	}
	out := &Error{Op: "find token", Token: want.Label, Class: "token", Text: "no token has this label", kind: ErrNotFound}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1 && want.Serial == "":
		out.Class, out.kind, out.Text, out.Hint = "policy", ErrAmbiguous, "several tokens have this label", "name one by its serial number, too ('keyrite hsm inspect' lists them)"
	case len(found) > 1:
		out.Class, out.kind, out.Text, out.Hint = "policy", ErrAmbiguous, "several tokens have this label and serial number", "take away all but one"
	case others != "":
		out.Text, out.Hint = fmt.Sprintf("a token has this label, but serial number %q and not %q", others, want.Serial), "it is another token, or it was replaced: look whether the right one is connected"
	default:
		out.Hint = "look whether it is connected, and its label: 'keyrite hsm inspect' lists all tokens of a module"
	}
	return TokenID{}, out
}

// InitToken initialises the one free token of the module under a label that
// no token has yet. Both its PINs are random, held by the supervisor and known
// to nobody; they die with it.
func (s *Supervisor) InitToken(ctx context.Context, label string) (TokenID, error) {
	return s.InitTokenSerial(ctx, TokenID{Label: label})
}

// InitTokenSerial is InitToken where several tokens are free: the one with
// the serial number is taken.
func (s *Supervisor) InitTokenSerial(ctx context.Context, t TokenID) (TokenID, error) {
	if err := keyspec.CheckLabel(t.Label); err != nil {
		return TokenID{}, usage("initialise token", "%v", err)
	}
	a, _, err := s.call(ctx, frame.Command{Verb: frame.VerbInit, Token: t}, nil)
	if err != nil {
		return TokenID{}, err
	}
	return a.Tokens[0].Token, nil
}

// TakePINs lets the supervisor read SO and user PIN from f until its end,
// written there by the process that derives them: WritePINs, or the share
// child, whose frames for a new epoch have roles of their own. This program
// passes the descriptor on and never reads it; it may close f afterwards.
func (s *Supervisor) TakePINs(ctx context.Context, t TokenID, f *os.File, e Epoch) error {
	_, _, err := s.call(ctx, frame.Command{Verb: frame.VerbTake, Token: t, Epoch: e, Form: frame.Framed}, f)
	return err
}

// TakeUserPIN lets the supervisor read the user PIN in force from f as one
// line of text: a file that only its owner may read, or a pipe.
func (s *Supervisor) TakeUserPIN(ctx context.Context, t TokenID, f *os.File) error {
	_, _, err := s.call(ctx, frame.Command{Verb: frame.VerbTake, Token: t, Epoch: Current, Form: frame.UserText}, f)
	return err
}

// WritePINs writes PINs in the form that TakePINs expects. It is called in
// the process that knows them. so may be nil.
func WritePINs(w io.Writer, so, user []byte) error {
	if so != nil {
		if err := frame.WritePIN(w, frame.SOPIN, so); err != nil {
			return err
		}
	}
	return frame.WritePIN(w, frame.UserPIN, user)
}

// WriteNextPINs is WritePINs for an epoch that is not in force yet.
func WriteNextPINs(w io.Writer, so, user []byte) error {
	if err := frame.WritePIN(w, frame.NextSOPIN, so); err != nil {
		return err
	}
	return frame.WritePIN(w, frame.NextUserPIN, user)
}

// ChangePINs replaces the PINs in force by the next ones and proves that the
// old ones open the token no more. After an error nobody knows which PINs the
// token has, and the supervisor keeps both. Afterwards no SO PIN is held.
func (s *Supervisor) ChangePINs(ctx context.Context, t TokenID) error {
	_, _, err := s.call(ctx, frame.Command{Verb: frame.VerbChange, Token: t}, nil)
	return err
}

// SettlePINs brings the token to the PINs in force (epoch Current) after a change
// broke off, which may have left either SO PIN and either user PIN. The next PINs
// are needed only if the token has the next SO PIN, and are refused afterwards. An
// error of class token with a PIN refused says that the token has the other SO PIN.
func (s *Supervisor) SettlePINs(ctx context.Context, t TokenID) error {
	_, _, err := s.call(ctx, frame.Command{Verb: frame.VerbSettle, Token: t}, nil)
	return err
}

// EraseToken initialises the token anew: everything in it is destroyed. Its SO PIN
// must be held, and is used up; the user PIN holds on, so that a fresh session can
// be opened to look for what is left. No session of the token may be open.
func (s *Supervisor) EraseToken(ctx context.Context, t TokenID) error {
	_, _, err := s.call(ctx, frame.Command{Verb: frame.VerbErase, Token: t}, nil)
	return err
}

// WipePINs makes the supervisor forget the token's PINs.
func (s *Supervisor) WipePINs(ctx context.Context, t TokenID) error {
	_, _, err := s.call(ctx, frame.Command{Verb: frame.VerbWipe, Token: t}, nil)
	return err
}

// ended reports whether the supervisor process is gone.
func (s *Supervisor) ended() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// PINCounter is what keyrite counted of a token's wrong PINs.
type PINCounter = frame.PINCounter

// PINCounter reads how many wrong PINs programs of keyrite gave the token in a row.
func (s *Supervisor) PINCounter(ctx context.Context, t TokenID) (*PINCounter, error) {
	return s.counter(ctx, frame.Command{Verb: frame.VerbPINs, Token: t})
}

// ResetPINCounter forgets them, for a person who looked into it. The reason, of 1
// to 200 bytes, is kept with time and user.
func (s *Supervisor) ResetPINCounter(ctx context.Context, t TokenID, reason string) (*PINCounter, error) {
	if reason == "" {
		return nil, usage("reset PIN counter", "a reason is needed")
	}
	return s.counter(ctx, frame.Command{Verb: frame.VerbPINs, Token: t, Reset: reason})
}

func (s *Supervisor) counter(ctx context.Context, c frame.Command) (*PINCounter, error) {
	a, _, err := s.call(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	if a.PINs == nil {
		return nil, &Error{Op: string(c.Verb), Token: c.Token.Label, Class: "unexpected", Text: "no counter came with the answer"}
	}
	return a.PINs, nil
}

// PID is the process id of the supervisor, for records and tests.
func (s *Supervisor) PID() int { return s.cmd.Process.Pid }

// closeWait is how long a supervisor may take to end its module processes.
const closeWait = 5 * time.Second

// Close ends the supervisor, every module process and thereby every session,
// and waits for it. All PINs are gone afterwards.
func (s *Supervisor) Close() error {
	err := s.control.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // closed before, or the process ended by itself
	}
	t := time.NewTimer(closeWait)
	defer t.Stop()
	select {
	case <-s.gone:
	case <-t.C:
		err = errors.Join(err, s.cmd.Process.Kill())
		<-s.gone
	}
	s.finish(nil)
	return err
}
