package unseal

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/hsm"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
)

// join has the child combine the shares: the PIN goes to the supervisor unread, and
// the data key into a locked page. A new data key is on the disk, wrapped, before
// anything is sealed with it.
func (a *Attempts) join(ctx context.Context, x *attempt, st *charter.State, o *Opened) error {
	// A key that is on the disk is used again, whatever the operation: the store may be
	// under it by now, after an opening that broke off.
	wrapped, _, err := a.readKey(st, x.epoch)
	if mayDraw := o.Operation == openrequest.Create || a.reseals(o.Operation); errors.Is(err, fs.ErrNotExist) && !mayDraw {
		err = a.noKey(st, x.epoch)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	p, err := newPipes()
	if err != nil {
		return err
	}
	defer p.close()
	out, err := a.c.Quorum.Join(ctx, quorum.Join{
		Given: quorum.Given{State: st, Epoch: x.epoch, Once: x.once, Contributions: x.given},
		Place: o.place, Wrapped: wrapped, PINs: p.pinsIn, Key: p.keyIn, Keep: a.keeping(x, st),
	})
	p.written()
	if err != nil {
		return err
	}
	o.kept = out.Kept
	if o.key, err = seal.TakeDataKey(p.key); err != nil {
		return err
	}
	if wrapped == nil {
		if err := a.saveKey(st, out.Wrapped); err != nil {
			return err
		}
	}
	e := st.Epochs[a.c.Safe]
	return o.sup.TakePINs(ctx, hsm.TokenID{Label: e.Token.Label, Serial: e.Token.Serial}, p.pins, hsm.Current)
}

// pipes carry PINs and data key out of the child.
type pipes struct{ pins, pinsIn, key, keyIn *os.File }

func newPipes() (*pipes, error) {
	p := &pipes{}
	var err error
	if p.pins, p.pinsIn, err = os.Pipe(); err == nil {
		p.key, p.keyIn, err = os.Pipe()
	}
	if err != nil {
		p.close()
		return nil, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	return p, nil
}

// written closes the ends that the child has, so that reading comes to an end.
func (p *pipes) written() { closeAll(p.pinsIn, p.keyIn) }

func (p *pipes) close() { closeAll(p.pins, p.pinsIn, p.key, p.keyIn) }

func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close() // nil and closed ones say so, which nobody needs to know
	}
}
