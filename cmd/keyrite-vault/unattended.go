package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"keyrite/artifact/fault"
	"keyrite/vault/unattended"
	"keyrite/vault/unseal"
)

const (
	// tendEvery is how often what was kept is compared with charter and clock.
	tendEvery = time.Second
	// restartEvery and restartTries bound how a start waits for a TPM, token or
	// cosigner that is not there yet: five minutes.
	restartEvery = 10 * time.Second
	restartTries = 30
)

// byItself opens the vault without key masters where the charter lets this host, and
// then sees to it that what that needs is destroyed in time.
func (v *vault) byItself(ctx context.Context, l *slog.Logger) {
	v.restart(ctx, l)
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	said := ""
	var size int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := v.freshAndTend(&size)
		now := ""
		if err != nil {
			now = err.Error()
		}
		if now != said && now != "" {
			l.ErrorContext(ctx, "what was kept for a restart is not destroyed", slog.String("error", now))
		}
		said = now
	}
}

// freshAndTend takes a newer charter over first, where no open vault does: one of
// another size than the last time.
func (v *vault) freshAndTend(size *int64) error {
	if !v.place.Holds() {
		return nil
	}
	if v.attempts.Sealed() {
		if err := v.freshIfGrown(size); err != nil {
			// What the charter is now, nobody knows, and nothing is opened with it either.
			// What ends by the one before, or by its time, ends all the same.
			return errors.Join(err, v.attempts.Tend())
		}
	}
	return v.attempts.Tend()
}

// freshIfGrown takes a newer charter over. A file that cannot be looked at is an error.
func (v *vault) freshIfGrown(size *int64) error {
	st, err := os.Stat(v.charter.path)
	if err != nil {
		return fault.Errorf(fault.Storage, "look at the charter: %w", err)
	}
	if st.Size() == *size {
		return nil
	}
	if err := v.charter.Fresh(); err != nil {
		return err
	}
	*size = st.Size()
	return nil
}

// tend is called when the charter changed. What it could not destroy is tried again,
// and shown by status.
func (v *vault) tend() { _ = v.attempts.Tend() }

// restart opens by itself, once something is kept, and says why not.
func (v *vault) restart(ctx context.Context, l *slog.Logger) {
	for range restartTries {
		err := v.charter.Fresh()
		if err == nil {
			err = v.attempts.Restart(ctx)
		}
		switch class := fault.ClassOf(err); {
		case err == nil:
			l.WarnContext(ctx, "the vault was opened by its host, without key masters")
			return
		case errors.Is(err, unattended.ErrNothing), errors.Is(err, unseal.ErrOpen), ctx.Err() != nil:
			return
		case class != fault.Unreachable && class != fault.Token:
			l.ErrorContext(ctx, "the vault stays sealed and waits for its key masters", slog.String("error", err.Error()))
			return
		default:
			l.ErrorContext(ctx, "the vault is not opened by its host yet", slog.String("error", err.Error()))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartEvery):
		}
	}
}

// forgetRestart destroys what was kept by a vault that does not run.
func forgetRestart(b *bind, dir string) error {
	switch _, err := os.Lstat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil // there never was a vault here
	case err != nil:
		return fault.Errorf(fault.Storage, "look at the state folder: %w", err)
	}
	p, err := b.place(dir)
	if err != nil {
		return err
	}
	if !p.Holds() {
		return nil
	}
	release, err := holdState(dir)
	if err != nil {
		return err
	}
	defer release()
	return p.Revoke()
}
