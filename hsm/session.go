package hsm

import (
	"context"
	"encoding/json"
	"errors"

	"keyrite/hsm/internal/frame"
)

// Session is one login to one token in a module process of its own.
type Session struct {
	*Access
	sup   *Supervisor
	child uint64
	conn  *conn
}

// Open starts a module process and logs in with the user PIN that the
// supervisor holds. Sessions of the same token are independent processes.
func (s *Supervisor) Open(ctx context.Context, t TokenID) (*Session, error) {
	return s.open(ctx, t, 1)
}

// open is Open for a module process that serves several requests at a time.
func (s *Supervisor) open(ctx context.Context, t TokenID, sessions int) (*Session, error) {
	a, f, err := s.call(ctx, frame.Command{Verb: frame.VerbOpen, Token: t, Sessions: sessions}, nil)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, &Error{Op: "open", Token: t.Label, Class: "unexpected", Text: "no data socket came with the answer"}
	}
	sess := &Session{sup: s, child: a.Child}
	if sess.conn, err = newConn(f, t, sess.kill); err != nil {
		sess.kill()
		return nil, err
	}
	sess.Access = &Access{id: t, ask: sess.conn.call}
	body, err := sess.conn.greeting(ctx)
	if err == nil {
		err = frame.Decode(body, &sess.hello)
	}
	if err == nil && sess.hello.Version != frame.Version {
		err = &Error{Op: "open", Token: t.Label, Class: "usage", Text: "keyrite-hsmd is of another build"}
	}
	if err != nil {
		sess.kill()
		return nil, err
	}
	return sess, nil
}

// kill ends the module process. It does not wait: the control socket may be
// busy with another token.
func (s *Session) kill() {
	if s.conn != nil {
		s.conn.close(nil)
	}
	_ = s.sup.control.Send(frame.Command{Verb: frame.VerbKill, Child: s.child}, nil)
}

// Close logs out and waits until the module process has ended. Session
// objects die with it.
func (s *Session) Close() error {
	err := s.conn.shutdown()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	_, _, e := s.sup.call(ctx, frame.Command{Verb: frame.VerbEnd, Token: s.id, Child: s.child}, nil)
	if errors.Is(e, ErrLost) {
		e = nil // the supervisor is gone and took the process along
	}
	return errors.Join(err, e)
}

// Lost is closed when the session has ended, for whatever reason.
func (s *Session) Lost() <-chan struct{} { return s.conn.done }

// CopyToToken copies a key that was born in this session into the token and
// compares the copy with the template. SyncToken makes it durable.
func (s *Session) CopyToToken(ctx context.Context, spec GenerateSpec) (*KeyState, error) {
	return s.checked(ctx, frame.Request{Op: frame.OpCopy, Key: &spec.KeyID}, spec, Stored)
}

// Attacks is the raw result of the attack suite; package admit makes a report
// of it.
type Attacks = frame.Admission

// Attack runs the attack suite in the module process, with throw-away keys.
// It needs a session in which no key was made or used. The algorithms are those
// to try, all without any. loosen replaces values of the sign template, so that a
// test can see the suite fail; the result says so, and no report is made of it.
func (s *Session) Attack(ctx context.Context, algorithms []Algorithm, loosen ...Attribute) (*Attacks, error) {
	body, err := json.Marshal(frame.AdmitBody{Algorithms: algorithms, Loose: loosen})
	if err != nil {
		return nil, err
	}
	a, err := s.ask(ctx, frame.Request{Op: frame.OpAdmit, Body: body}, "")
	if err != nil {
		return nil, err
	}
	var out Attacks
	return &out, frame.Decode(a.Body, &out)
}

var errClosed = errors.New("session closed")
