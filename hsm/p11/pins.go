package p11

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/internal/pincount"
	"keyrite/internal/secmem"
)

// counter counts the wrong PINs of one token. A file token carries the file with
// it, under the lock of its store; every other token's lies in the state folder.
type counter struct {
	pincount.Counter
	locks bool // takes a lock of its own
}

func (m *module) counter(serial string) counter {
	c := counter{pincount.Counter{Dir: m.job.StateDir, Serial: serial, Now: time.Now}, true}
	if m.store != nil {
		c.Dir, c.locks = m.store.dir, false
	}
	return c
}

func owner(who uint) pincount.Who {
	if who == pkcs11.CKU_SO {
		return pincount.SO
	}
	return pincount.User
}

// locked calls f with the counter locked. For a file token the lock of the store
// is held already.
func (c counter) locked(f func() error) error {
	if !c.locks {
		return f()
	}
	if err := c.ready(); err != nil {
		return err
	}
	release, err := c.Lock()
	if err != nil {
		return pinFault(err)
	}
	defer release()
	return f()
}

// ready wants a state folder that nobody else can change (CWE-732).
func (c counter) ready() error {
	const hint = "name a folder that is kept over restarts and that this user may write, or create it (mode 0700)"
	if c.Dir == "" {
		return hinted(faultf("count PINs", frame.KindStorage, "there is no folder for the counter of wrong PINs, so no PIN is tried"), hint)
	}
	st, err := os.Lstat(c.Dir)
	if err != nil {
		return hinted(faultf("count PINs", frame.KindStorage, "the counter of wrong PINs cannot be kept, so no PIN is tried: %v", err), hint)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() || st.Mode().Perm()&0o022 != 0 || sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return hinted(faultf("count PINs", frame.KindRefused, "%s is no folder that only this user may write, so no PIN is tried", c.Dir), hint)
	}
	return nil
}

// try gives a PIN once: counted before, and forgotten only if it was right. The
// refusal of a probe leaves the counter as it was.
func (c counter) try(who uint, low, probe bool, give func() error) error {
	return c.locked(func() error {
		w := owner(who)
		before, err := c.Load()
		if err != nil {
			return pinFault(err)
		}
		if err := c.Begin(w, low); err != nil {
			return pinFault(err)
		}
		err = give()
		f := asFault("login", "", err)
		switch {
		case err == nil:
			return pinFault(c.Good(w))
		case f.Kind == frame.KindPIN && probe:
			if err := c.Restore(w, before.Of(w)); err != nil {
				return errors.Join(f, pinFault(err))
			}
			return f
		case f.Kind == frame.KindPIN || f.Kind == frame.KindLocked:
			return c.refusal(w, f)
		}
		// The token did not judge the PIN. If this cannot be written the try stays
		// counted, which errs on the safe side.
		_ = c.GiveBack(w)
		return err
	})
}

// refusal tells how many tries are left of our own limit.
func (c counter) refusal(w pincount.Who, f *frame.Fault) error {
	s, err := c.Load()
	if err != nil {
		return errors.Join(f, pinFault(err))
	}
	n := s.User.Wrong
	if w == pincount.SO {
		n = s.SO.Wrong
	}
	f.Hint = fmt.Sprintf("wrong PIN %d of %d that this token is given; it is not tried again: look which token and which PIN it is", n, pincount.Limit)
	return f
}

// forget is for a PIN that was just replaced by somebody who may.
func (c counter) forget(who uint) error {
	return c.locked(func() error { return pinFault(c.Good(owner(who))) })
}

// pinFault turns what the counter says into a fault.
func pinFault(err error) error {
	const op = "count PINs"
	wait, waits := errors.AsType[*pincount.WaitError](err)
	switch {
	case err == nil:
		return nil
	case waits:
		f := hinted(faultf(op, frame.KindWaiting, "%v", err), "look which token and which PIN it is; the wait grows with each wrong PIN, and a right one ends it")
		f.WaitMS = int64((wait.Left+time.Second-1)/time.Second) * 1000
		return f
	case errors.Is(err, pincount.ErrSpent):
		return hinted(faultf(op, frame.KindLocked, "%d wrong PINs in a row; no PIN is tried any more", pincount.Limit),
			"find out who gave them; then reset the counter: keyrite hsm pin-counter --reset")
	case errors.Is(err, pincount.ErrDamaged):
		return hinted(faultf(op, frame.KindVerify, "%v; no PIN is tried", err), "look at the file and at the disk; then reset the counter: keyrite hsm pin-counter --reset")
	}
	return hinted(faultf(op, frame.KindStorage, "%v; no PIN is tried", err), "make the folder writable: a try is written down before it is made")
}

func hinted(f *frame.Fault, hint string) *frame.Fault {
	f.Hint = hint
	return f
}

// meant takes back a wrong PIN that was given on purpose, to prove that it is
// refused or to learn which of two is in force: a change of PINs that is killed again
// and again must not make its own recovery wait.
func (s *session) meant(who uint) error {
	if err := s.store.hold(); err != nil {
		return err
	}
	defer s.store.release()
	return s.pins.locked(func() error { return pinFault(s.pins.GiveBack(owner(who))) })
}

// enter gives the module a PIN of who, counted, with the token's file safe.
func (s *session) enter(who uint, low, probe bool, pin *secmem.Buffer, cut bool, what string) error {
	p, err := s.limits.pinString(pin, cut)
	if err != nil {
		return err
	}
	return s.store.guard(s.token.Serial, func() error {
		return s.pins.try(who, low, probe, func() error { return wrap("login", what, s.ctx.Login(s.h, who, p)) })
	})
}

// countedPINs reads the counter of a token, or resets it.
func (m *module) countedPINs(job frame.Job, st *store) (*frame.PINCounter, error) {
	if len(job.Reset) > pincount.MaxReason {
		return nil, faultf("reset PIN counter", frame.KindUsage, "the reason is longer than %d bytes", pincount.MaxReason)
	}
	if _, err := m.find(job.Token); err != nil {
		return nil, err
	}
	if err := st.hold(); err != nil {
		return nil, err
	}
	defer st.release()
	c := m.counter(job.Token.Serial)
	out := &frame.PINCounter{Path: c.Path(), Limit: pincount.Limit, Resets: []frame.PINReset{}}
	return out, c.locked(func() error {
		s, err := c.Load()
		if job.Reset != "" {
			s, err = c.Reset(os.Getuid(), job.Reset)
		} else if errors.Is(err, pincount.ErrDamaged) {
			out.Damaged = err.Error()
			return nil
		}
		if err != nil {
			return pinFault(err)
		}
		out.User, out.SO = s.User.Wrong, s.SO.Wrong
		for _, r := range s.Resets {
			out.Resets = append(out.Resets, frame.PINReset{Time: r.Time.Format(time.RFC3339), UID: r.UID, Reason: r.Reason, User: r.User, SO: r.SO})
		}
		return nil
	})
}
