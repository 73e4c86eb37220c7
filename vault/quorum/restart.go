package quorum

import (
	"bytes"
	"context"
	"os"

	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/hsm"
	"keyrite/vault/seal"
	"keyrite/vault/unattended"
)

// Keep has Join keep what a restart needs, in the TPM of this host. All are required.
type Keep struct {
	Asked unattended.Asked
	Auth  []byte // of the vault's indexes in the TPM
}

// Kept is what came of a Keep: a file, or why there is none. That nothing was kept
// does not hinder the opening.
type Kept struct {
	File []byte
	Err  error
}

// keep is Keep in the child, which has the data key and derives the PIN.
func (r *request) keep(secret []byte, key *seal.DataKey, auth []byte, resp *response) {
	file, err := r.kept(secret, key, auth)
	if err != nil {
		resp.NotKept = toRemote(err)
		return
	}
	resp.Kept = file
}

func (r *request) kept(secret []byte, key *seal.DataKey, auth []byte) ([]byte, error) {
	pin, err := share.PIN(secret, r.place("", 0), share.User, r.Epoch.Token.Label)
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	raw := bytes.NewBuffer(make([]byte, 0, seal.KeyBytes))
	defer func() { clear(raw.Bytes()) }()
	if err := key.Hand(raw); err != nil {
		return nil, err
	}
	f, err := unattended.Keep(r.Keep, auth, raw.Bytes(), pin)
	if err != nil {
		return nil, err
	}
	return f.Marshal()
}

// Restart is what a host opens by itself. All are required.
type Restart struct {
	File []byte // that Join kept; the caller has compared it with the charter
	TPM  string // address
	Auth []byte // of the vault's indexes in the TPM
	// PINs and Key are the write ends of pipes, as in Join.
	PINs, Key *os.File
}

// Restart has the child open with the TPM what Join kept. PIN and data key go to their
// pipes, as Join gives them.
func (c Config) Restart(ctx context.Context, x Restart) error {
	keys, err := pipeOf([][]byte{bytes.Clone(x.Auth)})
	if err != nil {
		return err
	}
	defer keys.Close()
	r := &request{Op: opRestart, Unattended: x.File, TPM: x.TPM}
	_, err = c.finish(ctx, r, files{keys: keys, pins: x.PINs, data: x.Key})
	return err
}

// restart is Restart in the child.
func (r *request) restart() (*response, error) {
	auth, err := newIntake().line()
	if err != nil {
		return nil, err
	}
	defer clear(auth)
	f, err := unattended.Parse(r.Unattended)
	if err != nil {
		return nil, err
	}
	key, pin, err := f.Open(r.TPM, auth)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	defer clear(pin)
	pins := os.NewFile(fdPINs, "pins")
	defer pins.Close()
	if err := hsm.WritePINs(pins, nil, pin); err != nil {
		return nil, fault.Errorf(fault.Token, "hand the PIN to the HSM: %w", err)
	}
	out := os.NewFile(fdData, "data key")
	defer out.Close()
	if _, err := out.Write(key); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "hand over the data key: %w", err)
	}
	return &response{}, nil
}
