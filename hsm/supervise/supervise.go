// Package supervise is the supervisor half of keyrite-hsmd. It keeps the PINs
// of tokens for as long as the program that started it keeps the control
// socket open, starts module processes and gives them a PIN each. It loads no
// PKCS#11 module and tells nobody a PIN: not the program that started it, not
// a log, not a file.
//
// Package hsm starts it. It ends when the control socket closes or on
// SIGTERM, and takes its module processes along.
package supervise

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/internal/places"
	"keyrite/internal/secmem"
)

// ControlFD is the descriptor of the control socket.
const ControlFD = 3

// defaultTimeout bounds a command that names no time.
const defaultTimeout = time.Minute

type supervisor struct {
	control  *frame.Control
	hold     *hold
	children *children
	module   string
	args     string
	sum      string // SHA-256 of the module, or empty
	stateDir string // of the PIN counters
	places   *places.Places

	mu     sync.Mutex // guards cancel
	cancel map[uint64]context.CancelFunc
	busy   sync.WaitGroup
}

func (s *supervisor) serve() error {
	for {
		var c frame.Command
		fd, err := s.control.Receive(&c)
		if err != nil {
			return err
		}
		if c.Verb == frame.VerbCancel {
			if fd != nil {
				fd.Close()
			}
			s.cancelOne(c.Cancels)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout(c))
		s.mu.Lock()
		s.cancel[c.ID] = cancel
		s.mu.Unlock()
		s.busy.Go(func() {
			s.handle(ctx, &c, fd)
			s.cancelOne(c.ID)
		})
	}
}

func timeout(c frame.Command) time.Duration {
	if c.TimeoutMS <= 0 {
		return defaultTimeout
	}
	return time.Duration(c.TimeoutMS) * time.Millisecond
}

func (s *supervisor) cancelOne(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.cancel[id]; f != nil {
		f()
		delete(s.cancel, id)
	}
}

func (s *supervisor) cancelAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, f := range s.cancel {
		f()
		delete(s.cancel, id)
	}
}

// handle runs one command and answers it.
func (s *supervisor) handle(ctx context.Context, c *frame.Command, fd *os.File) {
	if fd != nil {
		defer fd.Close()
	}
	a := frame.Answer{ID: c.ID}
	var give *os.File
	var err error
	switch c.Verb {
	case frame.VerbTokens:
		err = s.tokens(ctx, &a)
	case frame.VerbInit:
		err = s.initToken(ctx, c.Token, &a)
	case frame.VerbTake:
		err = s.take(c, fd)
	case frame.VerbChange:
		err = s.change(ctx, c.Token)
	case frame.VerbSettle:
		err = s.settle(ctx, c.Token)
	case frame.VerbErase:
		err = s.erase(ctx, c.Token)
	case frame.VerbExport:
		err = s.export(ctx, c, &a)
	case frame.VerbOpen:
		give, err = s.open(ctx, c, &a)
	case frame.VerbKill:
		s.children.kill(c.Child)
	case frame.VerbEnd:
		err = s.children.end(c.Child)
	case frame.VerbPINs:
		err = s.counter(ctx, c, &a)
	case frame.VerbWipe:
		defer s.hold.lock(c.Token)()
		s.hold.wipe(c.Token)
	default:
		err = fault(frame.KindUsage, "usage", "command is not known")
	}
	if err != nil {
		a = frame.Answer{ID: c.ID, Fault: asFault(err)}
	}
	// If the other end is gone there is nobody to tell; serve sees it, too.
	_ = s.control.Send(a, give)
	if give != nil {
		give.Close()
	}
}

func fault(kind, class, text string) *frame.Fault {
	return &frame.Fault{Op: "supervisor", Kind: kind, Class: class, Text: text}
}

func asFault(err error) *frame.Fault {
	if f, ok := errors.AsType[*frame.Fault](err); ok {
		return f
	}
	return fault(frame.KindInternal, "unexpected", err.Error())
}

func (s *supervisor) job(p frame.Purpose, t frame.Token) frame.Job {
	return frame.Job{
		Purpose: p, Module: s.module, ModuleArgs: s.args, ModuleSHA256: s.sum, StateDir: s.stateDir, Token: t,
		Unix: s.places.Unix, TCP: len(s.places.TCP) > 0, Sockets: s.places.Sockets(), Landlock: s.children.folders,
	}
}

func (s *supervisor) tokens(ctx context.Context, a *frame.Answer) error {
	res, err := s.children.run(ctx, s.job(frame.ForTokens, frame.Token{}), nil)
	if err == nil {
		a.Tokens, a.Module = res.Tokens, &res.Module
	}
	return err
}

// initToken initialises a fresh token with one-time PINs, which are held from
// then on and known to nobody.
func (s *supervisor) initToken(ctx context.Context, t frame.Token, a *frame.Answer) error {
	defer s.hold.lock(frame.Token{})() // one free token at a time
	pins, err := randomPINs()
	if err != nil {
		return err
	}
	j := s.job(frame.ForInit, t)
	j.CutCurrent = true
	res, err := s.children.run(ctx, j, pins)
	if err != nil || len(res.Tokens) != 1 {
		pins.Wipe()
		if err == nil {
			err = fault(frame.KindInternal, "unexpected", "the module process named no token")
		}
		return err
	}
	defer s.hold.lock(res.Tokens[0].Token)()
	s.hold.put(res.Tokens[0].Token, frame.Current, pins, true)
	a.Tokens, a.Module = res.Tokens, &res.Module
	return nil
}

// take reads PINs from the descriptor, whose other end is the share child or
// a file.
func (s *supervisor) take(c *frame.Command, fd *os.File) error {
	if fd == nil {
		return fault(frame.KindUsage, "usage", "no descriptor to take PINs from")
	}
	st, err := fd.Stat()
	if err != nil {
		return fault(frame.KindUsage, "usage", "PIN descriptor cannot be examined")
	}
	if st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		f := fault(frame.KindRefused, "policy", "the PIN file can be read by others")
		f.Hint = "chmod 600, and take it as known to them: change the PIN"
		return f
	}
	if c.Epoch != frame.Current && c.Epoch != frame.Next {
		return fault(frame.KindUsage, "usage", "PIN epoch is not known")
	}
	pins, err := read(c, fd, st.Mode().IsRegular())
	if err != nil {
		f := fault(frame.KindUsage, "usage", err.Error())
		if c.Form == frame.UserText {
			f.Hint = "the descriptor must give the user PIN alone, 1 to 255 characters on one line"
		}
		return f
	}
	if pins[frame.UserPIN] == nil {
		pins.Wipe()
		return fault(frame.KindUsage, "usage", "no user PIN in the descriptor")
	}
	defer s.hold.lock(c.Token)()
	s.hold.put(c.Token, c.Epoch, pins, c.Form == frame.Framed)
	return nil
}

// read reads PINs in the form that the command names. Frames of the next
// epoch may use its own roles or those in force; frames of the current epoch
// only the latter, so that a deal's PINs never pass for those in force.
func read(c *frame.Command, fd *os.File, whole bool) (frame.PINs, error) {
	if c.Form == frame.UserText {
		return frame.ReadUserPIN(fd, whole)
	}
	if c.Epoch == frame.Current {
		return frame.ReadPINs(fd, frame.SOPIN, frame.UserPIN)
	}
	pins, err := frame.ReadPINs(fd, frame.SOPIN, frame.UserPIN, frame.NextSOPIN, frame.NextUserPIN)
	if err != nil {
		return nil, err
	}
	if err := pins.Current(); err != nil {
		pins.Wipe()
		return nil, err
	}
	return pins, nil
}

// change makes the next PINs the current ones.
func (s *supervisor) change(ctx context.Context, t frame.Token) error {
	defer s.hold.lock(t)()
	if s.children.holds(t) {
		return fault(frame.KindRefused, "token", "the token is open; close its session before its PINs are changed")
	}
	h := s.hold.get(t)
	for r, b := range map[string]*secmem.Buffer{
		"SO PIN in force": h.current[frame.SOPIN], "user PIN in force": h.current[frame.UserPIN],
		"next SO PIN": h.next[frame.SOPIN], "next user PIN": h.next[frame.UserPIN],
	} {
		if b == nil {
			return fault(frame.KindPIN, "token", "no "+r+" is held for this token")
		}
	}
	j := s.job(frame.ForChange, t)
	j.CutCurrent, j.CutNext = h.cutCurrent, h.cutNext
	_, err := s.children.run(ctx, j, frame.PINs{
		frame.SOPIN: h.current[frame.SOPIN], frame.UserPIN: h.current[frame.UserPIN],
		frame.NextSOPIN: h.next[frame.SOPIN], frame.NextUserPIN: h.next[frame.UserPIN],
	})
	if err != nil {
		return err // both epochs stay: nobody knows which PINs the token has
	}
	s.hold.promote(t)
	return nil
}

// export wraps one movable key for a receiver. The SO makes the wrapping key
// trusted, so its PIN is needed once more; it is wiped whatever the outcome.
func (s *supervisor) export(ctx context.Context, c *frame.Command, a *frame.Answer) error {
	defer s.hold.lock(c.Token)()
	if s.children.holds(c.Token) {
		return fault(frame.KindRefused, "token", "the token is open; close its session before a key leaves it")
	}
	h := s.hold.get(c.Token)
	defer s.hold.dropSO(c.Token)
	if h.current[frame.SOPIN] == nil || h.current[frame.UserPIN] == nil {
		return fault(frame.KindPIN, "token", "SO PIN and user PIN of this token are needed, and are not both held")
	}
	j := s.job(frame.ForExport, c.Token)
	j.CutCurrent, j.Export = h.cutCurrent, c.Export
	res, err := s.children.run(ctx, j, frame.PINs{frame.SOPIN: h.current[frame.SOPIN], frame.UserPIN: h.current[frame.UserPIN]})
	if err != nil {
		return err
	}
	if a.Parcel = res.Parcel; a.Parcel == nil {
		return fault(frame.KindInternal, "unexpected", "the module process gave no parcel")
	}
	return nil
}

// settle brings the token to the PINs in force, whatever a broken change left.
func (s *supervisor) settle(ctx context.Context, t frame.Token) error {
	defer s.hold.lock(t)()
	if s.children.holds(t) {
		return fault(frame.KindRefused, "token", "the token is open; close its session before its PINs are settled")
	}
	h := s.hold.get(t)
	if h.current[frame.SOPIN] == nil || h.current[frame.UserPIN] == nil {
		return fault(frame.KindPIN, "token", "SO and user PIN in force are not held for this token")
	}
	pins := frame.PINs{frame.SOPIN: h.current[frame.SOPIN], frame.UserPIN: h.current[frame.UserPIN]}
	if h.next[frame.SOPIN] != nil && h.next[frame.UserPIN] != nil {
		pins[frame.NextSOPIN], pins[frame.NextUserPIN] = h.next[frame.SOPIN], h.next[frame.UserPIN]
	}
	j := s.job(frame.ForSettle, t)
	j.CutCurrent, j.CutNext = h.cutCurrent, h.cutNext
	if _, err := s.children.run(ctx, j, pins); err != nil {
		return err
	}
	s.hold.settled(t)
	return nil
}

// erase destroys everything in a token. The SO PIN is needed for it and wiped
// whatever the outcome; the user PIN stays, so that somebody can look.
func (s *supervisor) erase(ctx context.Context, t frame.Token) error {
	defer s.hold.lock(t)()
	if s.children.holds(t) {
		return fault(frame.KindRefused, "token", "the token is open; close its session before it is erased")
	}
	h := s.hold.get(t)
	defer s.hold.dropSO(t)
	if h.current[frame.SOPIN] == nil || h.current[frame.UserPIN] == nil {
		return fault(frame.KindPIN, "token", "SO PIN and user PIN of this token are needed, and are not both held")
	}
	j := s.job(frame.ForErase, t)
	j.CutCurrent = h.cutCurrent
	_, err := s.children.run(ctx, j, frame.PINs{frame.SOPIN: h.current[frame.SOPIN], frame.UserPIN: h.current[frame.UserPIN]})
	return err
}

// open starts a module process and gives its data socket away.
func (s *supervisor) open(ctx context.Context, c *frame.Command, a *frame.Answer) (*os.File, error) {
	t := c.Token
	defer s.hold.lock(t)()
	h := s.hold.get(t)
	if h.current[frame.UserPIN] == nil {
		return nil, fault(frame.KindPIN, "token", "no user PIN is held for this token")
	}
	j := s.job(frame.ForOpen, t)
	j.CutCurrent, j.Sessions = h.cutCurrent, c.Sessions
	ch, near, err := s.children.open(ctx, j, frame.PINs{frame.UserPIN: h.current[frame.UserPIN]})
	if err != nil {
		return nil, err
	}
	a.Child = ch.id
	return near, nil
}
