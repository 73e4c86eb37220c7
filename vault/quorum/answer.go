package quorum

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"filippo.io/age"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/share"
	"keyrite/artifact/world"
	"keyrite/hsm"
	"keyrite/internal/secmem"
	"keyrite/vault/seal"
)

// Contribute answers a request for a share, on its holder's own machine: the share is
// opened with his key and checked against the charter, encrypted to the request's
// one-time recipient, and both keys sign that it is for this request. The caller has
// the request from openrequest.Open and showed it. The passphrase of a key file is the
// first line of passphrases.
func (c Config) Contribute(ctx context.Context, st *charter.State, r *openrequest.Request, o Opener, passphrases *os.File) ([]byte, error) {
	e, err := st.EpochAt(r.Safe, r.Epoch)
	if err != nil {
		return nil, err
	}
	hash, _, err := r.Hash()
	if err != nil {
		return nil, err
	}
	q := base(opContribute, st, e)
	q.Operation, q.Nonce, q.Recipient = hash, r.Attempt, r.Recipient
	resp, err := c.once(ctx, q, []Opener{o}, files{passphrases: passphrases})
	if err != nil {
		return nil, err
	}
	return openrequest.NewAnswer(r, st, resp.Envelopes[0], resp.Files[resp.Holders[0]])
}

// contribute is Contribute in the child: the share leaves it only encrypted.
func (r *request) contribute() (*response, error) {
	if len(r.Openers) != 1 {
		return nil, fault.New(fault.Unexpected, "one share answers a request")
	}
	if _, err := age.ParseX25519Recipient(r.Recipient); err != nil {
		return nil, fault.New(fault.Unexpected, "the request has no recipient")
	}
	g, err := r.take(0, newIntake())
	if err != nil {
		return nil, err
	}
	defer g.zero()
	env, err := g.sign(share.OpeningType, share.Opening{Format: share.OpeningFormat, Nonce: r.Nonce, Operation: r.Operation, Place: g.place})
	if err != nil {
		return nil, err
	}
	file, err := share.Seal(g.raw, g.place, r.Recipient)
	if err != nil {
		return nil, err
	}
	return &response{Envelopes: []*envelope.Envelope{env}, Holders: []string{g.place.Holder}, Files: map[string][]byte{g.place.Holder: file}}, nil
}

// NewOnce has the child make the one-time key of an attempt: its public half as an age
// recipient, and its private half in a locked page, which the caller wipes. It exists
// nowhere else.
func (c Config) NewOnce(ctx context.Context) (recipient string, once *secmem.Buffer, err error) {
	in, out, err := os.Pipe()
	if err != nil {
		return "", nil, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	defer in.Close()
	resp, err := c.finish(ctx, &request{Op: opOnce}, files{data: out})
	_ = out.Close()
	if err != nil {
		return "", nil, err
	}
	if once, err = secmem.New(); err != nil {
		return "", nil, fault.Errorf(fault.Unexpected, "keep the one-time key: %w", err)
	}
	err = once.Fill(func(page []byte) (int, error) {
		n, err := io.ReadFull(in, page)
		if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) { // the end, as it should be
			err = nil
		}
		return n, err
	})
	if err != nil {
		once.Wipe()
		return "", nil, fault.Errorf(fault.Unexpected, "take the one-time key: %w", err)
	}
	return resp.Recipient, once, nil
}

// makeOnce is NewOnce in the child.
func makeOnce() (*response, error) {
	k, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make the one-time key: %w", err)
	}
	out := os.NewFile(fdData, "one-time key")
	defer out.Close()
	if _, err := io.WriteString(out, k.String()); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "hand over the one-time key: %w", err)
	}
	return &response{Recipient: k.Recipient().String()}, nil
}

// Contribution is a share as it arrived: encrypted to an attempt's one-time key.
type Contribution struct {
	Holder string `json:"holder"`
	Share  []byte `json:"share"`
}

// Given are contributions to one attempt. All are required.
type Given struct {
	State *charter.State
	Epoch charter.Epoch // of the safe, whose shares are given
	// Once is the attempt's one-time key, of NewOnce. It must not be wiped meanwhile.
	Once          *secmem.Buffer
	Contributions []Contribution
}

// Weigh opens each contribution in the child and compares it with the charter. It
// combines nothing. An error names the holder.
func (c Config) Weigh(ctx context.Context, g Given) error {
	r, keys, err := g.request(opWeigh)
	if err != nil {
		return err
	}
	defer keys.Close()
	_, err = c.finish(ctx, r, files{keys: keys})
	return err
}

// Join is what a quorum of contributions is combined for.
type Join struct {
	Given
	// Place is where the store's data key belongs.
	Place seal.Place
	// Wrapped is the data key under the safe's secret; nil draws a new one.
	Wrapped []byte
	// PINs and Key are the write ends of pipes: the token's user PIN, as
	// hsm.TakePINs reads it, and the data key, as seal.TakeDataKey does. Without PINs
	// no PIN is derived: shares of an epoch before open no token.
	PINs, Key *os.File
	// Keep has a restart provided for; nil does not.
	Keep *Keep
}

// Joined is what a Join came to beside what went to its pipes.
type Joined struct {
	Wrapped []byte // the data key under the safe's secret
	Kept    *Kept  // nil if nothing was to be kept
}

// Join combines the shares of a quorum in the child, which gives the user PIN and the
// data key to their pipes, and returns the data key wrapped under the safe's secret, and what was kept for a restart.
// Every share is checked again before. The data key is opened first: after an error
// the PIN was given to nobody.
func (c Config) Join(ctx context.Context, j Join) (*Joined, error) {
	if e := &j.Epoch; len(j.Contributions) < e.Need {
		return nil, fault.Errorf(fault.Quorum, "quorum not met: %d shares of safe %s, %d needed", len(j.Contributions), e.Safe, e.Need)
	}
	var lines [][]byte
	if j.Keep != nil {
		lines = append(lines, j.Keep.Auth)
	}
	r, keys, err := j.request(opJoin, lines...)
	if err != nil {
		return nil, err
	}
	defer keys.Close()
	r.Wrapped, r.StoreEpoch, r.KeyOnly = j.Wrapped, j.Place.Epoch, j.PINs == nil
	if j.Keep != nil {
		r.Keep = &j.Keep.Asked
	}
	resp, err := c.finish(ctx, r, files{keys: keys, pins: j.PINs, data: j.Key})
	if err != nil {
		return nil, err
	}
	out := &Joined{Wrapped: resp.Wrapped}
	if j.Keep != nil {
		out.Kept = &Kept{File: resp.Kept}
		if resp.NotKept != nil {
			out.Kept.Err = resp.NotKept.err()
		}
	}
	return out, nil
}

// finish runs the child to its end with a request of no opener.
func (c Config) finish(ctx context.Context, r *request, fs files) (*response, error) {
	p, err := c.start(ctx, r, fs)
	if err != nil {
		return nil, err
	}
	defer p.end()
	return p.answer()
}

// request is the child's request for contributions, and the pipe with the one-time
// key and more lines.
func (g *Given) request(op string, more ...[]byte) (*request, *os.File, error) {
	once := g.Once.Bytes()
	if len(once) == 0 {
		return nil, nil, fault.New(fault.Sealed, "the attempt has ended")
	}
	r := base(op, g.State, g.Epoch)
	r.Contributions = g.Contributions
	keys, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	defer w.Close()
	// From its locked page into the pipe, which holds more than a line.
	for _, line := range append([][]byte{once}, more...) {
		if err == nil {
			_, err = w.Write(line)
		}
		if err == nil {
			_, err = w.Write([]byte{'\n'})
		}
	}
	if err != nil {
		_ = keys.Close()
		return nil, nil, fault.Errorf(fault.Unexpected, "hand on the one-time key: %w", err)
	}
	return r, keys, nil
}

// contributed is one share in the child, checked against the charter.
func (r *request) contributed(c *Contribution, once age.Identity) ([]byte, error) {
	for _, sh := range r.Epoch.Shares {
		if sh.Holder != c.Holder {
			continue
		}
		raw, key, err := share.Open(c.Share, once, r.place(sh.Holder, sh.Index), sh.Public)
		clear(key)
		return raw, err
	}
	return nil, fault.Errorf(fault.Policy, "%.40q holds no share of safe %s", c.Holder, r.Epoch.Safe)
}

// all opens every contribution; different holders only. The caller clears them.
func (r *request) all(in *intake) (raws [][]byte, err error) {
	line, err := in.line()
	if err != nil {
		return nil, err
	}
	defer clear(line)
	once, err := age.ParseX25519Identity(string(line))
	if err != nil {
		return nil, fault.New(fault.Unexpected, "the one-time key of the attempt is none")
	}
	seen := map[string]bool{}
	for i := range r.Contributions {
		c := &r.Contributions[i]
		if seen[c.Holder] {
			return raws, fault.Errorf(fault.Quorum, "the share of %s was given twice", c.Holder)
		}
		seen[c.Holder] = true
		raw, err := r.contributed(c, once)
		if err != nil {
			return raws, err
		}
		raws = append(raws, raw)
	}
	return raws, nil
}

func (r *request) weigh() (*response, error) {
	raws, err := r.all(newIntake())
	wipe(raws)
	if err != nil {
		return nil, err
	}
	return &response{}, nil
}

func (r *request) join() (*response, error) {
	in := newIntake()
	raws, err := r.all(in)
	defer wipe(raws)
	if err != nil {
		return nil, err
	}
	if len(raws) < r.Epoch.Need || r.Epoch.Need < 2 {
		return nil, fault.Errorf(fault.Quorum, "quorum not met: %d shares of safe %s, %d needed", len(raws), r.Epoch.Safe, r.Epoch.Need)
	}
	secret, err := combine(raws)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	resp := &response{Wrapped: r.Wrapped}
	key, err := r.dataKey(secret, resp)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	if r.Keep != nil && !r.KeyOnly {
		auth, err := in.line()
		if err != nil {
			return nil, err
		}
		r.keep(secret, key, auth, resp)
		clear(auth)
	}
	if !r.KeyOnly {
		if err := r.givePINs(secret, hsm.WritePINs); err != nil {
			return nil, err
		}
	}
	out := os.NewFile(fdData, "data key")
	defer out.Close()
	return resp, key.Hand(out)
}

// dataKey opens the store's data key, or draws a new one and wraps it.
func (r *request) dataKey(secret []byte, resp *response) (*seal.DataKey, error) {
	p, err := StorePlace(r.Vault, r.World, r.StoreEpoch)
	if err != nil {
		return nil, err
	}
	if len(r.Wrapped) > 0 {
		return seal.Unwrap(r.Wrapped, secret, p)
	}
	key, err := seal.NewDataKey()
	if err != nil {
		return nil, err
	}
	if resp.Wrapped, err = key.Wrap(secret, p); err != nil {
		key.Wipe()
		return nil, err
	}
	return key, nil
}

// StorePlace is the place of a store's data key, from the hex id of its vault.
func StorePlace(vault string, w world.World, epoch uint32) (seal.Place, error) {
	p := seal.Place{World: w, Epoch: epoch}
	id, err := hex.DecodeString(vault)
	if err != nil || len(id) != len(p.Vault) {
		return p, fault.New(fault.Verify, "the vault id is no SHA-256")
	}
	p.Vault = [32]byte(id)
	return p, nil
}
