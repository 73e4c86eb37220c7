package node

import (
	"context"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/vault/engine"
	"keyrite/vault/proof"
	"keyrite/vault/seal"
)

// By says whose shares opened a vault: those of one epoch of a safe, given at a time.
// Each is proven by that. The zero value is nobody's.
type By struct {
	Safe    string
	Epoch   int
	Holders []string
	At      time.Time
}

// begin writes that the vault serves, and whose shares it was opened with.
func (v *vault) begin(ctx context.Context, by By) error {
	e := v.life("serve")
	if len(by.Holders) > 0 {
		e.Params = map[string]any{"epoch": by.Epoch, "holders": by.Holders, "safe": by.Safe}
	}
	_, err := v.journal.Do(ctx, seal.Strict, e, func(tx *seal.Tx) error {
		return proof.Opened(tx, v.charter(), by.Safe, by.Epoch, by.Holders, by.At)
	})
	return err
}

// shares tells, for each safe, whose share is proven since when.
func (x *call) shares([]string) error {
	if err := x.Params.Only(); err != nil {
		return err
	}
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		safes, err := proof.Safes(tx, x.force.charter, x.cfg.Now())
		if err != nil {
			return nil, err
		}
		return &engine.Answer{Data: map[string]any{"alive_days": int(proof.AliveFor.Hours() / 24), "safes": safes}}, nil
	}
	return nil
}

// takeProof takes what a holder answered with 'keyrite share prove'.
func (x *call) takeProof([]string) error {
	if err := x.Params.Only("proof"); err != nil {
		return err
	}
	text, err := x.Params.String("proof")
	if err != nil {
		return err
	}
	if text == "" || len(text) > share.MaxProofBytes {
		return fault.Hint(fault.Errorf(fault.Usage, "a proof is the text of a file of at most %d bytes", share.MaxProofBytes), "keyrite share prove CHALLENGE --opener KEYFILE:SHAREFILE --out FILE, and send the text of FILE as proof")
	}
	var p *share.Proven
	x.plan.Work = func(context.Context) (err error) {
		p, err = share.VerifyProof([]byte(text), x.force.charter, x.cfg.Now())
		return err
	}
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		st := x.charter()
		if st != x.force.charter { // another one came into force meanwhile
			if p, err = share.VerifyProof([]byte(text), st, x.cfg.Now()); err != nil {
				return nil, err
			}
		}
		if err := proof.Accept(tx, st, p, x.cfg.Now()); err != nil {
			return nil, err
		}
		shown := map[string]any{"epoch": p.Place.Epoch, "holder": p.Holder, "index": p.Place.Index, "safe": p.Place.Safe}
		return &engine.Answer{Data: shown, Result: shown}, nil
	}
	return nil
}

// challenges lists those that wait for answers.
func (x *call) challenges([]string) error {
	if err := x.Params.Only(); err != nil {
		return err
	}
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		open, err := proof.Challenges(tx, x.force.charter, x.cfg.Now())
		return &engine.Answer{Data: map[string]any{"challenges": open}}, err
	}
	return nil
}

// challenge issues one.
func (x *call) challenge([]string) (err error) {
	if err := x.Params.Only("purpose", "safe", "valid"); err != nil {
		return err
	}
	a := proof.Ask{By: x.caller.Identity}
	if a.Safe, err = x.Params.String("safe"); err != nil {
		return err
	}
	if a.Purpose, err = x.Params.String("purpose"); err != nil {
		return err
	}
	if a.Valid, err = x.Params.Duration("valid"); err != nil {
		return err
	}
	x.plan.Shown = map[string]any{"purpose": cut(a.Purpose), "safe": cut(a.Safe)}
	x.plan.Apply = func(tx *seal.Tx) (*engine.Answer, error) {
		c, err := proof.Issue(tx, x.charter(), a, x.cfg.Now())
		if err != nil {
			return nil, err
		}
		return issued(c)
	}
	return nil
}

func issued(c *share.Challenge) (*engine.Answer, error) {
	file, err := c.Marshal()
	if err != nil {
		return nil, err
	}
	id, err := c.ID()
	return &engine.Answer{
		Data:   map[string]any{"challenge": string(file), "epoch": c.Epoch, "expires": c.Expires, "id": id, "safe": c.Safe},
		Result: map[string]any{"epoch": c.Epoch, "expires": c.Expires, "id": id},
	}, err
}
