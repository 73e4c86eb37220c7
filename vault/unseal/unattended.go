package unseal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/trail"
	"keyrite/hsm"
	"keyrite/vault/audit"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
	"keyrite/vault/unattended"
)

// OpUnattended is the operation of an opening that the host made by itself.
const OpUnattended = "unattended"

// UnattendedStatus tells whether this host would open by itself.
type UnattendedStatus struct {
	Statement string `json:"statement,omitempty"` // in force for this host
	Expires   string `json:"expires,omitempty"`   // its end
	Kept      bool   `json:"kept"`                // whether there is what a restart needs
	Why       string `json:"why,omitempty"`       // why the last restart, keeping or revoking came to nothing
}

// keeping is what a quorum's opening is to keep for a restart; nil where the charter
// says nothing of the kind now.
func (a *Attempts) keeping(x *attempt, st *charter.State) *quorum.Keep {
	u, err := st.UnattendedAt(a.c.Host, a.c.Now())
	if err != nil || a.c.Unattended.TPM == "" || x.request.Operation == openrequest.Carry {
		return nil
	}
	return &quorum.Keep{Auth: a.c.Unattended.Auth, Asked: unattended.Asked{
		Statement: *u, Safe: a.c.Safe, Epoch: x.epoch.Epoch, Holders: a.shown(x).Given, Now: charter.FormatTime(a.c.Now()),
		TPM: a.c.Unattended.TPM, Vault: st.Vault, World: st.World,
	}}
}

// settle saves what was kept, once the vault is open with the same. The caller holds
// the gate.
func (a *Attempts) settle(k *quorum.Kept) {
	if k == nil {
		return
	}
	a.keep.Lock()
	defer a.keep.Unlock()
	err := k.Err
	if err == nil && a.c.Unattended.Pending() {
		err = a.c.Unattended.Revoke() // of before; the counter may go past the new one
		if err == nil {
			err = fault.New(fault.Policy, "a revocation of before came to its end only now; the next opening by a quorum keeps anew")
		}
	} else if err == nil {
		err = a.c.Unattended.Save(k.File)
	}
	a.why(err)
}

// why remembers what came of the last thing that was done for a restart.
func (a *Attempts) why(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trouble = err
}

// Tend destroys what was kept as soon as the charter, the time or an epoch says so.
// It is called often, and after each change of the charter before that is acknowledged.
// An error says what could not be destroyed; it is tried again with the next call.
func (a *Attempts) Tend() error {
	p := a.c.Unattended
	a.keep.Lock()
	defer a.keep.Unlock()
	if !p.Holds() {
		return nil
	}
	if !p.Pending() && a.mayRestart() == nil {
		return nil
	}
	err := p.Revoke()
	a.why(err)
	return err
}

// mayRestart compares what was kept with the charter in force. The caller holds keep.
func (a *Attempts) mayRestart() error {
	_, _, err := a.restartable()
	return err
}

func (a *Attempts) restartable() (*unattended.File, []byte, error) {
	st := a.c.Charter()
	f, data, err := a.c.Unattended.Load()
	if err != nil {
		return nil, nil, err
	}
	u, err := st.UnattendedAt(a.c.Host, a.c.Now())
	if err == nil {
		err = f.For(st, u, a.c.Safe)
	}
	return f, data, err
}

// Restart opens a sealed vault with what was kept, if charter, time, host and TPM
// agree. ErrNothing of unattended says that nothing is kept. An error of class
// unreachable or token may pass by itself; after any other only a quorum opens.
func (a *Attempts) Restart(ctx context.Context) error {
	if err := a.Tend(); err != nil {
		return err
	}
	a.gate.Lock()
	defer a.gate.Unlock()
	err := a.restart(ctx)
	if err != nil && !errors.Is(err, unattended.ErrNothing) {
		a.why(err)
	}
	return err
}

// restart is Restart for a caller that holds the gate.
func (a *Attempts) restart(ctx context.Context) error {
	if !a.Sealed() {
		return ErrOpen
	}
	a.keep.Lock()
	f, data, err := a.restartable()
	a.keep.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	a.mu.Lock()
	a.cancel = cancel
	a.mu.Unlock()
	defer a.leave()
	st := a.c.Charter()
	o, err := a.restartToken(ctx, st, f, data)
	if errors.Is(err, hsm.ErrPIN) {
		return a.refusedPIN(err)
	}
	if err != nil {
		return err
	}
	c := a.c.Store
	c.Place = o.place
	if o.Store, err = seal.Open(ctx, c, o.key); err == nil {
		_, err = audit.NewJournal(o.Store).Do(ctx, seal.Strict, a.restartEntry(f, st), nil)
	}
	if err == nil && ctx.Err() != nil {
		err = fault.Errorf(fault.Sealed, "the vault was sealed meanwhile: %w", ctx.Err())
	}
	if err != nil {
		return joinErrors(err, o.close())
	}
	return a.handOver(ctx, o)
}

// refusedPIN destroys what was kept with a PIN that the token refuses, as after shares
// that were dealt anew and of which this host has not heard: each further try, by this
// process or the next, would bring the token nearer to its lock.
func (a *Attempts) refusedPIN(err error) error {
	a.keep.Lock()
	defer a.keep.Unlock()
	why := fault.Errorf(fault.Policy, "the PIN that was kept for a restart is another one by now, and is not tried again: %w", err)
	if err := a.c.Unattended.Revoke(); err != nil {
		return fault.Errorf(fault.Policy, "%w; %w", why, err)
	}
	return why
}

// restartToken opens the token with what the child has from the TPM.
func (a *Attempts) restartToken(ctx context.Context, st *charter.State, f *unattended.File, data []byte) (*Opened, error) {
	e, err := st.Epoch(a.c.Safe)
	if err != nil {
		return nil, err
	}
	sup, err := hsm.Start(ctx, a.c.HSM)
	if err != nil {
		return nil, err
	}
	o := &Opened{Operation: OpUnattended, Epoch: f.Epoch, At: a.c.Now(), sup: sup}
	rep, err := a.admitted(ctx, sup, st)
	if err == nil {
		o.place, err = place(st, e)
	}
	if err == nil {
		err = a.restartKeys(ctx, e, o, data)
	}
	if err == nil {
		err = a.login(ctx, st, o, rep)
	}
	if err != nil {
		return nil, joinErrors(err, o.close())
	}
	return o, nil
}

// restartKeys has the child give the PIN to the supervisor and the data key to us.
func (a *Attempts) restartKeys(ctx context.Context, e charter.Epoch, o *Opened, data []byte) error {
	p, err := newPipes()
	if err != nil {
		return err
	}
	defer p.close()
	err = a.c.Quorum.Restart(ctx, quorum.Restart{File: data, TPM: a.c.Unattended.TPM, Auth: a.c.Unattended.Auth, PINs: p.pinsIn, Key: p.keyIn})
	p.written()
	if err != nil {
		return err
	}
	if o.key, err = seal.TakeDataKey(p.key); err != nil {
		return err
	}
	return o.sup.TakePINs(ctx, hsm.TokenID{Label: e.Token.Label, Serial: e.Token.Serial}, p.pins, hsm.Current)
}

// restartEntry says in the trail that the host opened by itself, and what it had that
// from.
func (a *Attempts) restartEntry(f *unattended.File, st *charter.State) *audit.Entry {
	id := make([]byte, 16)
	rand.Read(id)
	return &audit.Entry{
		Charter: st.Size(), Format: trail.Format, Kind: audit.Life, Operation: OpUnattended, Request: hex.EncodeToString(id),
		Params: map[string]any{"digest": f.Digest, "host": f.Host, "kept_at": f.Made, "kept_by": f.Holders, "pcrs": f.PCRs, "statement": f.ID},
		Time:   trail.FormatTime(a.c.Now()),
	}
}

// unattendedStatus is nil where nothing is to be told.
func (a *Attempts) unattendedStatus(st *charter.State) *UnattendedStatus {
	s := &UnattendedStatus{Kept: a.c.Unattended.Holds() && !a.c.Unattended.Pending()}
	if u, err := st.UnattendedAt(a.c.Host, a.c.Now()); err == nil {
		s.Statement, s.Expires = u.ID, u.Expires
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trouble != nil {
		s.Why = a.trouble.Error()
	}
	if *s == (UnattendedStatus{}) {
		return nil
	}
	return s
}
