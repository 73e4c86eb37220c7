package actions

import (
	"context"
	"os"
	"path/filepath"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/share"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/vault/quorum"
)

// deal makes the safe's secret in a child, of the HSM's random bytes and the
// system's, and writes each share, encrypted to its holder, to his medium.
func (a *Actions) deal(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	name := st.Safe
	sf := a.safes[name]
	var random []byte
	err := a.withSession(ctx, sf.token, func(s *hsm.Session) error {
		var err error
		random, err = s.Random(ctx, share.SecretBytes)
		return err
	})
	if err != nil {
		return err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	sf.pins = pr
	safeDef := a.safeDef(name)
	// The child outlives this step's limit: it ends with Close at the latest.
	sf.dealing, err = a.quorum.Deal(context.WithoutCancel(ctx), quorum.DealParams{
		Vault: a.state.Vault, World: r.World, Safe: safeDef, Epoch: 1, Token: sf.token.Label, HSMRandom: random, Roster: a.state.People.Roster,
	}, pw)
	_ = pw.Close()
	if err != nil {
		return err
	}
	sf.epoch = charter.Epoch{Epoch: 1, Need: safeDef.Openers.Need, Safe: name, Shares: sf.dealing.Shares, Token: token(sf.token)}
	if err := r.Record(&record.Dealt{Epoch: sf.epoch}); err != nil {
		return err
	}
	dir := a.sharesDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Errorf(fault.Storage, "make folder for shares: %w", err)
	}
	for _, sh := range sf.epoch.Shares {
		if err := durable.WriteNew(filepath.Join(dir, sh.Holder+".share"), sf.dealing.Files[sh.Holder], 0o600); err != nil {
			return err
		}
		r.Console.Say("", "share "+itoa(sh.Index)+" of "+itoa(len(sf.epoch.Shares))+" for "+sh.Holder)
	}
	return nil
}

func (a *Actions) sharesDir(name string) string {
	return filepath.Join(a.bind.Path(a.bind.Shares), name)
}

func (a *Actions) safeDef(name string) charter.Safe {
	for _, s := range a.state.People.Safes {
		if s.Name == name {
			return s
		}
	}
	return charter.Safe{}
}

// receipts has each holder read his share back from its medium and sign for it.
func (a *Actions) receipts(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	name := st.Safe
	sf := a.safes[name]
	var done []string
	for _, sh := range sf.epoch.Shares {
		r.Console.Count(ceremony.Count{What: "receipts", Done: done, Need: len(sf.epoch.Shares), Of: len(sf.epoch.Shares)})
		done = append(done, sh.Holder)
		file, err := intake.Read(filepath.Join(a.sharesDir(name), sh.Holder+".share"), maxInputBytes)
		if err != nil {
			return err
		}
		p, _ := r.Participant(sh.Holder)
		var env *envelope.Envelope
		err = r.WithKey(ctx, sh.Holder, "the receipt for your share of safe "+name, func(k *person.Key) error {
			var err error
			env, err = a.quorum.Receipt(ctx, &a.state, sf.epoch, quorum.Opener{Share: file, Unlocked: k}, nil)
			return err
		})
		if err != nil {
			return err
		}
		place := share.Place{Epoch: sf.epoch.Epoch, Holder: sh.Holder, Index: sh.Index, Safe: name, Vault: a.state.Vault, World: r.World}
		if _, err := share.VerifyReceipt(env, place, sh.Public, p.Person.PublicKey()); err != nil {
			return err
		}
		if err := r.Record(&record.Receipt{Envelope: *env, Holder: sh.Holder, Safe: name}); err != nil {
			return err
		}
		r.Console.Say("good", sh.Holder+" has the share of safe "+name)
	}
	return nil
}

// changePINs replaces the one-time PINs by those derived from the secret, after
// which the secret is gone: only shares bring it back.
func (a *Actions) changePINs(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	name := st.Safe
	sf := a.safes[name]
	taken := make(chan error, 1)
	go func() { taken <- a.sup.TakePINs(ctx, sf.token, sf.pins, hsm.Next) }()
	if err := sf.dealing.GivePINs(); err != nil {
		return err
	}
	if err := <-taken; err != nil {
		return err
	}
	_ = sf.pins.Close()
	sf.pins, sf.dealing = nil, nil
	if err := a.sup.ChangePINs(ctx, sf.token); err != nil {
		return err
	}
	r.Console.Say("good", "token "+sf.token.Label+" opens for three shares only; the one-time PINs are refused")
	return r.Record(&record.PINsChanged{Epoch: sf.epoch.Epoch, Safe: name})
}
