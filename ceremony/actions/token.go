package actions

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/share"
	"keyrite/ceremony"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/internal/redact"
	"keyrite/vault/quorum"
)

func token(t hsm.TokenID) anchor.Token { return anchor.Token{Label: t.Label, Serial: t.Serial} }

func (g *Genesis) startHSM(ctx context.Context, r *ceremony.Run) (err error) {
	if g.sup != nil {
		return nil
	}
	if g.tag, err = parseTag(r.Attempt); err != nil {
		return err
	}
	g.sup, err = hsm.Start(ctx, hsm.Config{Module: g.bind.Module, HSMD: g.hsmd})
	return err
}

// checkFree finds, while it costs nothing yet, what would void the ceremony
// later: a token under a label to come, or a share on a medium.
func (g *Genesis) checkFree(ctx context.Context, r *ceremony.Run) error {
	if err := g.startHSM(ctx, r); err != nil {
		return err
	}
	tokens, _, err := g.sup.Tokens(ctx)
	if err != nil {
		return err
	}
	for _, s := range g.script.Safes {
		for _, t := range tokens {
			if t.Label == s.Token {
				return fault.Hint(fault.Errorf(fault.Exists, "there is a token %s already", s.Token),
					"a genesis makes its own tokens: make a script with other labels ('keyrite ceremony new --root-token, --work-token')")
			}
		}
		old, err := filepath.Glob(filepath.Join(g.sharesDir(s.Name), "*.share"))
		if err != nil || len(old) > 0 {
			return fault.Hint(fault.Errorf(fault.Exists, "there are shares in %q already", g.sharesDir(s.Name)), "shares are never overwritten: name another folder in the binding")
		}
	}
	return nil
}

// initToken initialises a fresh token under one-time PINs that only the
// supervisor holds.
func (g *Genesis) initToken(ctx context.Context, r *ceremony.Run, name string) error {
	if err := g.startHSM(ctx, r); err != nil {
		return err
	}
	sf, _ := g.script.SafeByName(name)
	if err := r.Record(&record.Intent{Effect: "init-token", Key: "", Object: "", Safe: name, Token: anchor.Token{Label: sf.Token, Serial: ""}}); err != nil {
		return err
	}
	g.begun[name] = true
	id, err := g.sup.InitToken(ctx, sf.Token)
	if err != nil {
		return err
	}
	g.safes[name] = &safe{name: name, token: id}
	r.Console.Say("good", "token "+id.Label+", serial "+id.Serial)
	return r.Record(&record.TokenReady{Safe: name, Token: token(id)})
}

func parseTag(s string) (hsm.Tag, error) {
	var t hsm.Tag
	if err := t.UnmarshalText([]byte(s)); err != nil {
		return t, fault.Errorf(fault.Unexpected, "attempt tag: %w", err)
	}
	return t, nil
}

// withSession runs f in a module process of its own.
func (g *Genesis) withSession(ctx context.Context, t hsm.TokenID, f func(*hsm.Session) error) error {
	s, err := g.sup.Open(ctx, t)
	if err != nil {
		return err
	}
	err = openedModule(g.script, s.Module().SHA256)
	if err == nil {
		err = f(s)
	}
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	return err
}

// admit attacks the token with throw-away keys.
func (g *Genesis) admit(ctx context.Context, r *ceremony.Run, name string) error {
	return g.withSession(ctx, g.safes[name].token, func(s *hsm.Session) error {
		rep, err := admit.Run(ctx, s, string(r.World), r.Clock.Now())
		if err != nil {
			return err
		}
		e := &record.Admission{Cases: []record.Case{}, Module: record.Program{Name: rep.Module.Description, SHA256: rep.Module.SHA256}, Safe: name}
		for _, c := range rep.Cases {
			e.Cases = append(e.Cases, record.Case{Got: c.Got, ID: c.ID, Pass: c.Pass, Expected: c.Expected})
		}
		r.Console.Say("good", itoa(len(e.Cases))+" attacks on token "+rep.Token.Label+", none succeeded")
		return r.Record(e)
	})
}

// deal makes the safe's secret in a child, of the HSM's random bytes and the
// system's, and writes each share, encrypted to its holder, to his medium.
func (g *Genesis) deal(ctx context.Context, r *ceremony.Run, name string) error {
	sf := g.safes[name]
	var random []byte
	err := g.withSession(ctx, sf.token, func(s *hsm.Session) error {
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
	safeDef := g.safeDef(name)
	// The child outlives this step's limit: it ends with Close at the latest.
	sf.dealing, err = g.quorum.Deal(context.WithoutCancel(ctx), quorum.DealParams{
		Vault: g.state.Vault, World: r.World, Safe: safeDef, Epoch: 1, Token: sf.token.Label, HSMRandom: random, Roster: g.state.People.Roster,
	}, pw)
	_ = pw.Close()
	if err != nil {
		return err
	}
	sf.epoch = charter.Epoch{Epoch: 1, Need: safeDef.Openers.Need, Safe: name, Shares: sf.dealing.Shares, Token: token(sf.token)}
	if err := r.Record(&record.Dealt{Epoch: sf.epoch}); err != nil {
		return err
	}
	dir := g.sharesDir(name)
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

func (g *Genesis) sharesDir(name string) string {
	return filepath.Join(g.bind.Path(g.bind.Shares), name)
}

func (g *Genesis) safeDef(name string) charter.Safe {
	for _, s := range g.state.People.Safes {
		if s.Name == name {
			return s
		}
	}
	return charter.Safe{}
}

// receipts has each holder read his share back from its medium and sign for it.
func (g *Genesis) receipts(ctx context.Context, r *ceremony.Run, name string) error {
	sf := g.safes[name]
	var done []string
	for _, sh := range sf.epoch.Shares {
		r.Console.Count(ceremony.Count{What: "receipts", Done: done, Need: len(sf.epoch.Shares), Of: len(sf.epoch.Shares)})
		done = append(done, sh.Holder)
		file, err := intake.Read(filepath.Join(g.sharesDir(name), sh.Holder+".share"), maxInputBytes)
		if err != nil {
			return err
		}
		p, _ := r.Participant(sh.Holder)
		var env *envelope.Envelope
		err = r.Retry(ctx, sh.Holder, func(pass *redact.Secret) error {
			pr, err := secretPipe(pass)
			if err != nil {
				return err
			}
			defer pr.Close()
			env, err = g.quorum.Receipt(ctx, &g.state, sf.epoch, quorum.Opener{Key: p.Key, Share: file}, pr)
			return err
		})
		if err != nil {
			return err
		}
		place := share.Place{Epoch: sf.epoch.Epoch, Holder: sh.Holder, Index: sh.Index, Safe: name, Vault: g.state.Vault, World: r.World}
		if _, err := share.VerifyReceipt(env, place, sh.Public, p.Person.Key); err != nil {
			return err
		}
		if err := r.Record(&record.Receipt{Envelope: *env, Holder: sh.Holder, Safe: name}); err != nil {
			return err
		}
		r.Console.Say("good", sh.Holder+" has the share of safe "+name)
	}
	return nil
}

// secretPipe hands one passphrase to a child by descriptor. A pipe holds 64 KiB,
// so the write cannot block.
func secretPipe(pass *redact.Secret) (*os.File, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	line := append(append([]byte{}, pass.Bytes()...), '\n')
	_, err = pw.Write(line)
	clear(line)
	_ = pw.Close()
	if err != nil {
		_ = pr.Close()
		return nil, fault.Errorf(fault.Unexpected, "write pipe: %w", err)
	}
	return pr, nil
}

// changePINs replaces the one-time PINs by those derived from the secret, after
// which the secret is gone: only shares bring it back.
func (g *Genesis) changePINs(ctx context.Context, r *ceremony.Run, name string) error {
	sf := g.safes[name]
	taken := make(chan error, 1)
	go func() { taken <- g.sup.TakePINs(ctx, sf.token, sf.pins, hsm.Next) }()
	if err := sf.dealing.GivePINs(); err != nil {
		return err
	}
	if err := <-taken; err != nil {
		return err
	}
	_ = sf.pins.Close()
	sf.pins, sf.dealing = nil, nil
	if err := g.sup.ChangePINs(ctx, sf.token); err != nil {
		return err
	}
	r.Console.Say("good", "token "+sf.token.Label+" opens for three shares only; the one-time PINs are refused")
	return r.Record(&record.PINsChanged{Epoch: sf.epoch.Epoch, Safe: name})
}

// cleanupLimit bounds the destruction in one token.
const cleanupLimit = 30 * time.Second

// Cleanup destroys every object of the attempt in every token it initialised,
// and looks again with a fresh process.
func (g *Genesis) Cleanup(ctx context.Context, r *ceremony.Run) error {
	var first error
	for _, def := range g.script.Safes {
		sf := g.safes[def.Name]
		if sf == nil {
			if g.begun[def.Name] {
				if err := r.Record(ceremony.Unready(def.Name, def.Token)); err != nil && first == nil {
					first = err
				}
			}
			continue
		}
		e := g.cleanupSafe(ctx, sf)
		if e.Left != 0 || e.Tainted != "" && first == nil {
			r.Console.Say("bad", "token "+sf.token.Label+": "+e.Tainted)
		}
		if err := r.Record(e); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// cleanupSafe never gives up half-way: what cannot be destroyed is named.
func (g *Genesis) cleanupSafe(ctx context.Context, sf *safe) *record.Cleanup {
	ctx, cancel := context.WithTimeout(ctx, cleanupLimit)
	defer cancel()
	e := &record.Cleanup{Burned: []string{}, Destroyed: []string{}, Left: -1, Safe: sf.name}
	if sf.epoch.Epoch > 0 {
		e.Burned = append(e.Burned, sf.name+"/"+itoa(sf.epoch.Epoch))
	}
	for _, s := range []*hsm.Session{sf.birth, sf.fresh} {
		if s != nil {
			_ = s.Close()
		}
	}
	sf.birth, sf.fresh = nil, nil
	if sf.dealing != nil {
		sf.dealing.Abandon()
		sf.dealing = nil
	}
	err := g.withSession(ctx, sf.token, func(s *hsm.Session) error {
		d, err := s.DestroyTagged(ctx, g.tag, true)
		if err != nil {
			return err
		}
		for _, o := range d.Objects {
			e.Destroyed = append(e.Destroyed, o.Class+" "+o.ID)
		}
		return nil
	})
	if err == nil {
		err = g.withSession(ctx, sf.token, func(s *hsm.Session) error {
			objs, err := s.Objects(ctx)
			e.Left = len(objs)
			return err
		})
	}
	switch {
	case err != nil:
		e.Tainted = "could not be cleaned (" + err.Error() + "): never use this token again"
	case e.Left != 0:
		e.Tainted = itoa(e.Left) + " objects are left: never use this token again"
	default:
		e.Tainted = "empty, but initialised by a void attempt: the next one takes another fresh token"
	}
	return e
}

func hexID(k hsm.KeyID) string { return hex.EncodeToString(k[:]) }
