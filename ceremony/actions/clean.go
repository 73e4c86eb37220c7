package actions

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/hsm"
	"keyrite/internal/intake"
	"keyrite/internal/redact"
	"keyrite/vault/quorum"
)

// SafeOpener is one key master's way into one safe.
type SafeOpener struct {
	Safe string
	quorum.Opener
	Passphrase *redact.Secret
}

// Cleaner opens the tokens of a killed attempt with the shares dealt in it, and
// destroys what the attempt made there.
type Cleaner struct {
	Bind    *Bind
	Record  string // folder
	HSMD    string // empty but in tests: beside the executable
	Openers []SafeOpener
}

// Clean destroys the attempt's objects in one token.
func (c *Cleaner) Clean(ctx context.Context, st *ceremony.Status, t record.TokenReady) (*record.Cleanup, error) {
	e := &record.Cleanup{Burned: []string{t.Safe + "/" + itoa(st.Dealt[t.Safe].Epoch.Epoch)}, Destroyed: []string{}, Left: -1, Safe: t.Safe}
	if err := c.destroy(ctx, st, t, e); err != nil {
		return nil, err
	}
	if e.Tainted == "" {
		e.Tainted = "empty, but initialised by a void attempt: the next one takes another fresh token"
	}
	return e, nil
}

func (c *Cleaner) destroy(ctx context.Context, st *ceremony.Status, t record.TokenReady, e *record.Cleanup) (err error) {
	sup, err := c.start(ctx, st)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sup.Close()) }()
	r, err := c.open(ctx, st, t)
	if err != nil {
		return err
	}
	defer r.Close()
	id := hsm.TokenID{Label: t.Token.Label, Serial: t.Token.Serial}
	if err := sup.TakePINs(ctx, id, r, hsm.Current); err != nil {
		return err
	}
	tag, err := parseTag(st.Attempt)
	if err != nil {
		return err
	}
	if err := destroyTagged(ctx, sup, id, tag, e); err != nil {
		return err
	}
	return left(ctx, sup, id, e)
}

// start starts the module that the attempt ran with, and no other: it sees the PINs
// that the shares give.
func (c *Cleaner) start(ctx context.Context, st *ceremony.Status) (*hsm.Supervisor, error) {
	conf := c.Bind.HSM(c.HSMD)
	if conf.ModuleSHA256 = st.Module; st.Module == "" {
		return nil, fault.New(fault.Verify, "the record does not name the module that ran")
	}
	return hsm.Start(ctx, conf)
}

// open returns the pipe with the token's PIN, from the shares of this attempt.
func (c *Cleaner) open(ctx context.Context, st *ceremony.Status, t record.TokenReady) (*os.File, error) {
	line, err := intake.Read(filepath.Join(c.Record, filepath.FromSlash(genesisOutput)), maxInputBytes)
	if err != nil {
		return nil, err
	}
	state := &charter.State{}
	if err := state.Apply(line); err != nil {
		return nil, err
	}
	state.Epochs[t.Safe] = st.Dealt[t.Safe].Epoch
	return c.combine(ctx, t.Safe, quorum.OpenParams{State: state, Safe: t.Safe})
}

// combine returns the pipe with the PINs that the shares of the openers of who give,
// who being the name of the safe, or safe/epoch.
func (c *Cleaner) combine(ctx context.Context, who string, p quorum.OpenParams) (*os.File, error) {
	q, err := quorum.Self()
	if err != nil {
		return nil, err
	}
	p.Operation, p.Nonce = strings.Repeat("0", 64), make([]byte, 32)
	rand.Read(p.Nonce)
	var lines []byte
	for _, o := range c.Openers {
		if o.Safe == who {
			p.Openers = append(p.Openers, o.Opener)
			lines = append(append(lines, o.Passphrase.Bytes()...), '\n')
		}
	}
	secret := redact.New(lines)
	defer secret.Zero()
	if p.Passphrases, err = secretPipe(secret); err != nil {
		return nil, err
	}
	defer p.Passphrases.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	_, err = q.Open(ctx, p, w)
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// destroyTagged destroys what an attempt made in a token, and looks for it again in
// a fresh process.
func destroyTagged(ctx context.Context, sup *hsm.Supervisor, id hsm.TokenID, tag hsm.Tag, e *record.Cleanup) error {
	e.Left = 0
	for range 2 { // the second process finds nothing
		s, err := sup.Open(ctx, id)
		if err != nil {
			return err
		}
		d, err := s.DestroyTagged(ctx, tag, true)
		if err := errors.Join(err, s.Close()); err != nil {
			return err
		}
		e.Left = len(d.Objects)
		for _, o := range d.Objects {
			e.Destroyed = append(e.Destroyed, o.Class+" "+o.ID)
		}
	}
	return nil
}

// left counts what a token holds that was initialised in the attempt: nothing.
func left(ctx context.Context, sup *hsm.Supervisor, id hsm.TokenID, e *record.Cleanup) error {
	fresh, err := sup.Open(ctx, id)
	if err != nil {
		return err
	}
	objs, err := fresh.Objects(ctx)
	if err := errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	if e.Left = len(objs); e.Left > 0 {
		e.Tainted = itoa(e.Left) + " objects are left: never use this token again"
	}
	return nil
}

// secretPipe hands passphrases to a child by descriptor. A pipe holds 64 KiB, so
// the write cannot block.
func secretPipe(lines *redact.Secret) (*os.File, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	line := append(append([]byte{}, lines.Bytes()...), '\n')
	_, err = pw.Write(line)
	clear(line)
	_ = pw.Close()
	if err != nil {
		_ = pr.Close()
		return nil, fault.Errorf(fault.Unexpected, "write pipe: %w", err)
	}
	return pr, nil
}
