package quorum

import (
	"bufio"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/hsm"
	"keyrite/internal/secmem"
)

// ChildCommand is the hidden first argument that makes a program run Child.
const ChildCommand = "share-child"

// Child is the whole life of the child process: it reads one request from
// stdin, answers on stdout and returns. Dealing waits for one more line before
// it gives the PINs, since they are set only after all receipts are in.
func Child() error {
	if err := secmem.Harden(); err != nil {
		return fault.Errorf(fault.Unexpected, "harden the share process: %w", err)
	}
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return fault.New(fault.Usage, "this command is started by keyrite itself")
	}
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return fault.Errorf(fault.Unexpected, "read request: %w", err)
	}
	resp, after, err := req.do()
	if err != nil {
		return send(os.Stdout, response{Error: toRemote(err)})
	}
	if err := send(os.Stdout, resp); err != nil || after == nil {
		return err
	}
	if _, err := in.ReadBytes('\n'); err != nil {
		return nil // the parent gave up: no PIN is derived
	}
	if err := after(); err != nil {
		return send(os.Stdout, response{Error: toRemote(err)})
	}
	return send(os.Stdout, response{})
}

func (r *request) do() (*response, func() error, error) {
	switch r.Op {
	case opDeal:
		return r.deal()
	case opReceipt:
		resp, err := r.receipt()
		return resp, nil, err
	case opProve:
		resp, err := r.prove()
		return resp, nil, err
	case opOpen, opCheck:
		resp, err := r.open()
		return resp, nil, err
	case opOnce:
		resp, err := makeOnce()
		return resp, nil, err
	case opContribute:
		resp, err := r.contribute()
		return resp, nil, err
	case opWeigh:
		resp, err := r.weigh()
		return resp, nil, err
	case opJoin:
		resp, err := r.join()
		return resp, nil, err
	case opRestart:
		resp, err := r.restart()
		return resp, nil, err
	}
	return nil, nil, fault.New(fault.Unexpected, "unknown operation")
}

func (r *request) place(holder string, index int) share.Place {
	return share.Place{Epoch: r.Epoch.Epoch, Holder: holder, Index: index, Safe: r.Epoch.Safe, Vault: r.Vault, World: r.World}
}

func (r *request) deal() (*response, func() error, error) {
	secret, err := mix(r.HSMRandom)
	if err != nil {
		return nil, nil, err
	}
	shares, err := split(secret, len(r.Epoch.Shares), r.Epoch.Need)
	if err != nil {
		return nil, nil, err
	}
	resp := &response{Files: map[string][]byte{}}
	for i, raw := range shares {
		holder := r.Epoch.Shares[i].Holder
		p := r.place(holder, i+1)
		key, err := share.Key(raw, p)
		if err != nil {
			return nil, nil, err
		}
		if resp.Files[holder], err = share.Seal(raw, p, r.Recipients[holder]); err != nil {
			return nil, nil, err
		}
		clear(raw)
		resp.Shares = append(resp.Shares, charter.Share{Holder: holder, Index: i + 1, Public: key.Public().(ed25519.PublicKey)})
		clear(key)
	}
	return resp, func() error {
		defer clear(secret)
		return r.givePINs(secret, hsm.WriteNextPINs)
	}, nil
}

// givePINs derives the user PIN, and the SO PIN where PINs change, and writes them
// for the HSM's supervisor.
func (r *request) givePINs(secret []byte, write func(w io.Writer, so, user []byte) error) error {
	out := os.NewFile(fdPINs, "pins")
	defer out.Close()
	var so []byte
	user, err := share.PIN(secret, r.place("", 0), share.User, r.Epoch.Token.Label)
	if err == nil && (r.SO || r.Op == opDeal) {
		so, err = share.PIN(secret, r.place("", 0), share.SO, r.Epoch.Token.Label)
	}
	defer clear(user)
	defer clear(so)
	if err != nil {
		return err
	}
	if err := write(out, so, user); err != nil {
		return fault.Errorf(fault.Token, "hand the PIN to the HSM: %w", err)
	}
	return nil
}

// given is one opener's key and checked share.
type given struct {
	place    share.Place
	raw      []byte
	shareKey ed25519.PrivateKey
	holder   *holder
}

func (g *given) zero() {
	clear(g.raw)
	clear(g.shareKey)
	g.holder.zero()
}

// sign signs v with the share key and the holder's key; without the latter where
// that is on a card, which the parent asks.
func (g *given) sign(payloadType string, v any) (*envelope.Envelope, error) {
	signers := []crypto.Signer{g.shareKey}
	if g.holder.key != nil {
		signers = append(signers, g.holder.key.Signer())
	}
	return envelope.SignJSON(payloadType, v, signers...)
}

// take takes the n-th opener's key and checks his share against the charter.
func (r *request) take(n int, in *intake) (*given, error) {
	h, err := in.holder(r.Openers[n])
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "key file %d: %w", n+1, err)
	}
	if h.key != nil && !h.key.Public().Equal(r.People[h.name]) {
		h.zero()
		return nil, fault.Errorf(fault.Policy, "%s's key is not the one in the charter", h.name)
	}
	for _, sh := range r.Epoch.Shares {
		if sh.Holder != h.name {
			continue
		}
		p := r.place(h.name, sh.Index)
		raw, key, err := share.Open(r.Openers[n].Share, h.identity, p, sh.Public)
		if err != nil {
			h.zero()
			return nil, err
		}
		return &given{p, raw, key, h}, nil
	}
	h.zero()
	return nil, fault.Errorf(fault.Policy, "%s holds no share of safe %s", h.name, r.Epoch.Safe)
}

func (r *request) receipt() (*response, error) {
	if len(r.Openers) != 1 {
		return nil, fault.New(fault.Unexpected, "a receipt is for one share")
	}
	g, err := r.take(0, newIntake())
	if err != nil {
		return nil, err
	}
	defer g.zero()
	sum := sha256.Sum256(r.Openers[0].Share)
	rc := share.Receipt{FileHash: hex.EncodeToString(sum[:]), Format: share.ReceiptFormat, Place: g.place}
	env, err := g.sign(share.ReceiptType, rc)
	if err != nil {
		return nil, err
	}
	return &response{Envelopes: []*envelope.Envelope{env}, Holders: []string{g.place.Holder}}, nil
}

// prove signs a challenge with every opener's share key and person key.
func (r *request) prove() (*response, error) {
	if r.Challenge == nil {
		return nil, fault.New(fault.Unexpected, "no challenge")
	}
	in := newIntake()
	resp := &response{}
	for n := range r.Openers {
		g, err := r.take(n, in)
		if err != nil {
			return nil, err
		}
		env, err := g.sign(share.ProofType, share.Proof{Challenge: *r.Challenge, Format: share.ProofFormat, Place: g.place})
		g.zero()
		if err != nil {
			return nil, err
		}
		resp.Holders, resp.Envelopes = append(resp.Holders, g.place.Holder), append(resp.Envelopes, env)
	}
	return resp, nil
}

// open checks every share first, each by its holder; only then, and only when
// enough different ones are there, it combines and derives the user PIN.
func (r *request) open() (*response, error) {
	in := newIntake()
	resp := &response{}
	var raws [][]byte
	for n := range r.Openers {
		g, err := r.take(n, in)
		if err != nil {
			return nil, err
		}
		defer g.zero()
		for _, h := range resp.Holders {
			if h == g.place.Holder {
				return nil, fault.Errorf(fault.Quorum, "the share of %s was given twice", h)
			}
		}
		op := share.Opening{Format: share.OpeningFormat, Nonce: r.Nonce, Operation: r.Operation, Place: g.place}
		env, err := g.sign(share.OpeningType, op)
		if err != nil {
			return nil, err
		}
		raws = append(raws, g.raw)
		resp.Holders, resp.Envelopes = append(resp.Holders, g.place.Holder), append(resp.Envelopes, env)
	}
	if r.Op == opCheck {
		return resp, nil
	}
	if len(raws) < r.Epoch.Need || r.Epoch.Need < 2 {
		return nil, fault.Errorf(fault.Quorum, "quorum not met: %d shares of safe %s, %d needed", len(raws), r.Epoch.Safe, r.Epoch.Need)
	}
	secret, err := combine(raws)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	return resp, r.givePINs(secret, hsm.WritePINs)
}
