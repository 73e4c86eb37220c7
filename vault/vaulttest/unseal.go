package vaulttest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/share"
	"keyrite/vault/quorum"
	"keyrite/vault/unseal"
)

// Unsealing is the configuration of a sealed vault in a new state folder. opened
// takes what is opened; nil does nothing with it.
func (v *Vault) Unsealing(opened func(context.Context, *unseal.Opened) (io.Closer, error)) unseal.Config {
	v.t.Helper()
	if opened == nil {
		opened = func(context.Context, *unseal.Opened) (io.Closer, error) { return io.NopCloser(nil), nil }
	}
	store := v.StoreConfig()
	return unseal.Config{
		Charter: func() *charter.State { return v.State },
		Safe:    v.safe, Host: Host, HostKey: v.Keys[Host], HSM: v.HSM.Config, Reports: [][]byte{v.Report},
		Quorum: v.Quorum, Dir: filepath.Dir(store.Dir), Store: store, Opened: opened,
	}
}

// Answer is what a key master's program answers to a request, made in this process,
// which is quicker than its own.
func (v *Vault) Answer(t testing.TB, request []byte, name string) []byte {
	t.Helper()
	r, err := openrequest.Open(request, v.State, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := v.answer(r, name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (v *Vault) answer(r *openrequest.Request, name string) ([]byte, error) {
	e, err := v.State.EpochAt(r.Safe, r.Epoch)
	if err != nil {
		return nil, err
	}
	place, pub, err := share.PlaceIn(v.State, &e, name)
	if err != nil {
		return nil, err
	}
	raw, key, err := share.Open(v.Shares[name], v.People[name].Identity(), place, pub)
	if err != nil {
		return nil, err
	}
	hash, _, err := r.Hash()
	if err != nil {
		return nil, err
	}
	env, err := envelope.SignJSON(share.OpeningType, share.Opening{Format: share.OpeningFormat, Nonce: r.Attempt, Operation: hash, Place: place}, key, v.People[name].Signer())
	if err != nil {
		return nil, err
	}
	file, err := share.Seal(raw, place, r.Recipient)
	if err != nil {
		return nil, err
	}
	return openrequest.NewAnswer(r, v.State, env, file)
}

// Open3 has master1 to master3 open the vault by an operation.
func (v *Vault) Open3(t testing.TB, a *unseal.Attempts, operation string) {
	t.Helper()
	x, err := a.New(t.Context(), unseal.Ask{Operation: operation, By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []string{"master1", "master2", "master3"} {
		p, err := a.Answer(t.Context(), v.Answer(t, x.Request, n))
		if err != nil || len(p.Given) != i+1 || p.Open != (i == 2) {
			t.Fatalf("%s: %+v, %v", n, p, err)
		}
	}
}

// Prove is what 'keyrite share prove' of a key master answers to a challenge, made in
// this process.
func (v *Vault) Prove(t testing.TB, c *share.Challenge, name string) []byte {
	t.Helper()
	e, err := v.State.EpochAt(c.Safe, c.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	place, pub, err := share.PlaceIn(v.State, &e, name)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := share.Open(v.Shares[name], v.People[name].Identity(), place, pub)
	if err != nil {
		t.Fatal(err)
	}
	env, err := envelope.SignJSON(share.ProofType, share.Proof{Challenge: *c, Format: share.ProofFormat, Place: place}, key, v.People[name].Signer())
	if err != nil {
		t.Fatal(err)
	}
	data, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Secrets are what the safe's shares are and give, in the clear.
type Secrets struct {
	Shares  map[string][]byte // by holder
	PIN     []byte            // of the token's user
	DataKey []byte
}

// Secrets combines the shares as a vault does that is opened. wrapped is the data key
// of its store, as its file has it.
func (v *Vault) Secrets(wrapped []byte) *Secrets {
	t := v.t
	t.Helper()
	recipient, once, err := v.Quorum.NewOnce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer once.Wipe()
	e := v.State.Epochs[Safe]
	out := &Secrets{Shares: map[string][]byte{}}
	given := quorum.Given{State: v.State, Epoch: e, Once: once}
	for name, file := range v.Shares {
		place, pub, err := share.PlaceIn(v.State, &e, name)
		if err != nil {
			t.Fatal(err)
		}
		if out.Shares[name], _, err = share.Open(file, v.People[name].Identity(), place, pub); err != nil {
			t.Fatal(err)
		}
		sealed, err := share.Seal(out.Shares[name], place, recipient)
		if err != nil {
			t.Fatal(err)
		}
		given.Contributions = append(given.Contributions, quorum.Contribution{Holder: name, Share: sealed})
	}
	out.PIN, out.DataKey = v.join(given, wrapped)
	return out
}

// join has the share child combine, and takes what it gives to its pipes.
func (v *Vault) join(given quorum.Given, wrapped []byte) (pin, key []byte) {
	t := v.t
	t.Helper()
	var ends [4]*os.File
	for i := 0; i < len(ends); i += 2 {
		var err error
		if ends[i], ends[i+1], err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
	}
	_, err := v.Quorum.Join(t.Context(), quorum.Join{Given: given, Place: v.Place(), Wrapped: wrapped, PINs: ends[1], Key: ends[3]})
	_ = errors.Join(ends[1].Close(), ends[3].Close())
	if err != nil {
		t.Fatal(err)
	}
	framed, err := io.ReadAll(ends[0])
	if err != nil || len(framed) < 2 {
		t.Fatalf("%d bytes of a PIN, %v", len(framed), err)
	}
	if key, err = io.ReadAll(ends[2]); err != nil {
		t.Fatal(err)
	}
	return framed[2:], key // behind role and length
}
