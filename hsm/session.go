package hsm

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// Session is one login to one token in a module process of its own.
type Session struct {
	sup   *Supervisor
	id    TokenID
	child uint64
	conn  *conn
	hello frame.Hello
}

// Open starts a module process and logs in with the user PIN that the
// supervisor holds. Sessions of the same token are independent processes.
func (s *Supervisor) Open(ctx context.Context, t TokenID) (*Session, error) {
	a, f, err := s.call(ctx, frame.Command{Verb: frame.VerbOpen, Token: t}, nil)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return nil, &Error{Op: "open", Token: t.Label, Class: "unexpected", Text: "no data socket came with the answer"}
	}
	sess := &Session{sup: s, id: t, child: a.Child}
	if sess.conn, err = newConn(f, t, sess.kill); err != nil {
		sess.kill()
		return nil, err
	}
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

// Token names the token of the session.
func (s *Session) Token() TokenID { return s.id }

// TokenInfo is what the token said at login.
func (s *Session) TokenInfo() TokenInfo { return s.hello.Token }

// Module is the identity of the module as this session's process loaded it.
func (s *Session) Module() ModuleInfo { return s.hello.Module }

// Lost is closed when the session has ended, for whatever reason.
func (s *Session) Lost() <-chan struct{} { return s.conn.done }

// KeyState is a key pair as read back from the token.
type KeyState struct {
	KeyID      KeyID
	Algorithm  keyspec.Algorithm
	PublicKey  crypto.PublicKey // *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey
	SPKI       []byte           // SubjectPublicKeyInfo, DER
	Attributes AttributePair
}

func (s *Session) keyState(id KeyID, body json.RawMessage) (*KeyState, error) {
	var st frame.KeyState
	if err := frame.Decode(body, &st); err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(st.PublicKey)
	if err != nil {
		return nil, &Error{Op: "read key", Token: s.id.Label, Label: id.String(), Class: "verify", Text: err.Error(), cause: err}
	}
	return &KeyState{KeyID: id, Algorithm: st.Algorithm, PublicKey: pub, SPKI: st.PublicKey, Attributes: st.Attributes}, nil
}

// Check compares the key with what the spec asks for at the stage.
func (k *KeyState) Check(spec GenerateSpec, st Stage) error {
	if k.Algorithm != spec.Algorithm {
		return &Error{Op: "check key", Label: spec.Label, Class: "verify", Text: "it is an " + string(k.Algorithm) + " key"}
	}
	return spec.Verify(st, k.Attributes)
}

// Random returns n bytes from the token's generator, 1 to 4,096.
func (s *Session) Random(ctx context.Context, n int) ([]byte, error) {
	body, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	a, err := s.conn.call(ctx, frame.Request{Op: frame.OpRandom, Body: body}, "")
	if err != nil {
		return nil, err
	}
	if len(a.Data) != n {
		return nil, &Error{Op: "random", Token: s.id.Label, Class: "token", Text: "wrong number of bytes"}
	}
	return a.Data, nil
}

// Generate makes a key pair, reads every attribute back and compares it with
// the template. A key that differs is an error of class "verify"; it stays,
// under the tag of its id, for DestroyTagged.
func (s *Session) Generate(ctx context.Context, spec GenerateSpec) (*KeyState, error) {
	if err := spec.Check(); err != nil {
		return nil, usage("generate key", "%v", err)
	}
	body, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	return s.checked(ctx, frame.Request{Op: frame.OpGenerate, Body: body}, spec, spec.Stage())
}

// CopyToToken copies a key that was born in this session into the token and
// compares the copy with the template. SyncToken makes it durable.
func (s *Session) CopyToToken(ctx context.Context, spec GenerateSpec) (*KeyState, error) {
	return s.checked(ctx, frame.Request{Op: frame.OpCopy, Key: &spec.KeyID}, spec, Stored)
}

// checked runs a request that answers with a key and compares the key.
func (s *Session) checked(ctx context.Context, q frame.Request, spec GenerateSpec, st Stage) (*KeyState, error) {
	a, err := s.conn.call(ctx, q, spec.Label)
	if err != nil {
		return nil, err
	}
	k, err := s.keyState(spec.KeyID, a.Body)
	if err != nil {
		return nil, err
	}
	return k, k.Check(spec, st)
}

// Attributes reads a key back from the token.
func (s *Session) Attributes(ctx context.Context, id KeyID) (*KeyState, error) {
	a, err := s.conn.call(ctx, frame.Request{Op: frame.OpRead, Key: &id}, id.String())
	if err != nil {
		return nil, err
	}
	return s.keyState(id, a.Body)
}

// Objects lists everything that the session can see.
func (s *Session) Objects(ctx context.Context) ([]Object, error) {
	a, err := s.conn.call(ctx, frame.Request{Op: frame.OpObjects}, "")
	if err != nil {
		return nil, err
	}
	var out []Object
	return out, frame.Decode(a.Body, &out)
}

// DestroyTagged destroys every object of the attempt, half copies included,
// removes the 0-byte files that a killed copy leaves in a file token, and
// looks again. Anything that stays is in Tainted and makes an error of class
// "token". With nameless, objects without any CKA_ID go too: right for tokens
// that hold nothing but keys of keyrite.
func (s *Session) DestroyTagged(ctx context.Context, tag Tag, nameless bool) (*Destroyed, error) {
	body, err := json.Marshal(frame.DestroyBody{Tag: tag, Nameless: nameless})
	if err != nil {
		return nil, err
	}
	a, err := s.conn.call(ctx, frame.Request{Op: frame.OpDestroy, Body: body}, "")
	if err != nil {
		return nil, err
	}
	var d Destroyed
	if err := frame.Decode(a.Body, &d); err != nil {
		return nil, err
	}
	if len(d.Tainted) > 0 {
		return &d, &Error{Op: "destroy", Token: s.id.Label, Class: "token", Text: "objects of the attempt are still there"}
	}
	return &d, nil
}

// SyncToken makes the files of a file token durable; elsewhere it does
// nothing.
func (s *Session) SyncToken(ctx context.Context) error {
	_, err := s.conn.call(ctx, frame.Request{Op: frame.OpSync}, "")
	return err
}

// Attacks is the raw result of the attack suite; package admit makes a report
// of it.
type Attacks = frame.Admission

// Attack runs the attack suite in the module process, with throw-away keys.
// It needs a session in which no key was made or used. loosen replaces values
// of the sign template, so that a test can see the suite fail; the result says
// so, and no report is made of it.
func (s *Session) Attack(ctx context.Context, loosen ...Attribute) (*Attacks, error) {
	body, err := json.Marshal(frame.AdmitBody{Loose: loosen})
	if err != nil {
		return nil, err
	}
	a, err := s.conn.call(ctx, frame.Request{Op: frame.OpAdmit, Body: body}, "")
	if err != nil {
		return nil, err
	}
	var out Attacks
	return &out, frame.Decode(a.Body, &out)
}

var errClosed = errors.New("session closed")
