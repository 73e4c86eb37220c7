package unattended

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"keyrite/artifact/fault"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/internal/tpm"
)

// Files of the state folder.
const (
	// FileName is what was kept.
	FileName = "unattended.json"
	// pendingName is there from the first moment of a revocation to its end. While it
	// is, nothing is opened with what was kept.
	pendingName = "unattended.revoked"
)

// ErrNothing says that nothing is kept for a restart.
var ErrNothing = fault.New(fault.Policy, "nothing is kept for a restart of this host")

// Place is where a host keeps what a restart needs. Its methods are called by one
// goroutine at a time.
type Place struct {
	Dir  string // the state folder
	TPM  string // address; "" where the binding names none: then nothing is kept
	Auth []byte // of the vault's indexes in the TPM
}

func (p *Place) file() string    { return filepath.Join(p.Dir, FileName) }
func (p *Place) pending() string { return filepath.Join(p.Dir, pendingName) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Holds says whether there is a file, or one that is being revoked.
func (p *Place) Holds() bool { return exists(p.file()) || exists(p.pending()) }

// Pending says whether a revocation was begun and has not come to its end.
func (p *Place) Pending() bool { return exists(p.pending()) }

// Save puts a file in the place of the one before, durable before it returns.
func (p *Place) Save(data []byte) error {
	if p.Pending() {
		return fault.New(fault.Policy, "what a restart needs was revoked meanwhile")
	}
	if _, err := Parse(data); err != nil {
		return err
	}
	return durable.Replace(p.file(), data, 0o600)
}

// Load reads the file. None, or one that is being revoked, is ErrNothing.
func (p *Place) Load() (*File, []byte, error) {
	if p.Pending() {
		return nil, nil, fault.Errorf(fault.Policy, "%w: it was revoked", ErrNothing)
	}
	data, err := intake.Read(p.file(), MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, ErrNothing
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := Parse(data)
	return f, data, err
}

// Begin marks the file as revoked, durable before it returns: from now on no start
// opens with it, whatever else happens.
func (p *Place) Begin() error {
	if p.Pending() {
		return nil
	}
	return durable.Replace(p.pending(), []byte("what was kept for a restart is being revoked\n"), 0o600)
}

// Revoke destroys the file and steps the counter, so that no copy of it opens. It
// does so as far as it can, and may be called again: until both are done, the mark of
// Begin stays.
func (p *Place) Revoke() error {
	err := p.Begin()
	if removeErr := os.Remove(p.file()); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, fault.Errorf(fault.Storage, "remove what was kept for a restart: %w", removeErr))
	}
	err = errors.Join(err, durable.SyncDir(p.Dir), p.step())
	if err != nil {
		return fault.Hint(fault.Errorf(fault.ClassOf(err), "revoke what was kept for a restart: %w", err),
			"the file is gone or marked, so this host does not open by itself; but a copy of the file may open on it until its TPM answers: see docs/operations/vault-unattended.md")
	}
	if err := os.Remove(p.pending()); err != nil {
		return fault.Errorf(fault.Storage, "end the revocation: %w", err)
	}
	return durable.SyncDir(p.Dir)
}

// step takes the counter on.
func (p *Place) step() error {
	if p.TPM == "" || len(p.Auth) == 0 {
		return fault.New(fault.Usage, "the binding names no TPM, or the state folder has no authorisation for it")
	}
	d, err := tpm.Open(p.TPM)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Step(Counter(), p.Auth)
	if errors.Is(err, tpm.ErrMissing) {
		return nil // without the index nothing sealed under it opens, and one defined anew stands higher
	}
	return err
}
