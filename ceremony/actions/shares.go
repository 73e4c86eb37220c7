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
	epoch := sf.inForce.Epoch + 1
	// The child outlives this step's limit: it ends with Close at the latest.
	sf.dealing, err = a.quorum.Deal(context.WithoutCancel(ctx), quorum.DealParams{
		Vault: a.state.Vault, World: r.World, Safe: safeDef, Epoch: epoch, Token: sf.token.Label, HSMRandom: random, Roster: a.state.People.Roster,
	}, pw)
	_ = pw.Close()
	if err != nil {
		return err
	}
	sf.epoch = charter.Epoch{Epoch: epoch, Need: safeDef.Openers.Need, Safe: name, Shares: sf.dealing.Shares, Token: token(sf.token)}
	if err := r.Record(&record.Dealt{Epoch: sf.epoch}); err != nil {
		return err
	}
	dir := a.sharesDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Errorf(fault.Storage, "make folder for shares: %w", err)
	}
	for _, sh := range sf.epoch.Shares {
		if err := durable.WriteNew(a.shareFile(name, sh.Holder, epoch), sf.dealing.Files[sh.Holder], 0o600); err != nil {
			return err
		}
		r.Console.Say("", "share "+itoa(sh.Index)+" of "+itoa(len(sf.epoch.Shares))+" for "+sh.Holder)
	}
	return nil
}

func (a *Actions) sharesDir(name string) string {
	return filepath.Join(a.bind.Path(a.bind.Shares), name)
}

// shareFile is where a holder's medium has his share. That of a later epoch does
// not overwrite the one in force, which opens the token until the new one holds.
func (a *Actions) shareFile(safe, holder string, epoch int) string {
	name := holder + ".share"
	if epoch > 1 {
		name = holder + ".epoch" + itoa(epoch) + ".share"
	}
	return filepath.Join(a.sharesDir(safe), name)
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
		file, err := intake.Read(a.shareFile(name, sh.Holder, sf.epoch.Epoch), maxInputBytes)
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
	if err := a.takeNext(ctx, sf); err != nil {
		return err
	}
	if err := a.sup.ChangePINs(ctx, sf.token); err != nil {
		return err
	}
	r.Console.Say("good", "token "+sf.token.Label+" opens for "+itoa(sf.epoch.Need)+" shares only; the one-time PINs are refused")
	return r.Record(&record.PINsChanged{Epoch: sf.epoch.Epoch, Safe: name})
}

// takeNext lets the PINs of the epoch dealt here flow from the dealing child, which
// ends, to the supervisor.
func (a *Actions) takeNext(ctx context.Context, sf *safe) error {
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
	return nil
}

// repin gives a token that is in force the PINs of its new shares. The intent comes
// first: if the process dies between the two changes, it says what to look for.
func (a *Actions) repin(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	sf := a.safes[st.Safe]
	if err := a.give(ctx, r, st, sf, true); err != nil {
		return err
	}
	if err := a.takeNext(ctx, sf); err != nil {
		return err
	}
	if err := r.Record(&record.Intent{Effect: "repin", Epoch: sf.epoch.Epoch, Safe: sf.name, Token: token(sf.token)}); err != nil {
		return err
	}
	sf.repinning = true
	if err := a.sup.ChangePINs(ctx, sf.token); err != nil {
		return err
	}
	r.Console.Say("good", "token "+sf.token.Label+" opens for "+itoa(sf.epoch.Need)+" shares of epoch "+itoa(sf.epoch.Epoch)+" only; the old PINs are refused")
	return r.Record(&record.PINsChanged{Epoch: sf.epoch.Epoch, Safe: sf.name})
}
