package actions

import (
	"context"
	"path/filepath"
	"slices"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
)

func token(t hsm.TokenID) anchor.Token { return anchor.Token{Label: t.Label, Serial: t.Serial} }

func (a *Actions) startHSM(ctx context.Context, r *ceremony.Run) (err error) {
	if a.sup != nil {
		return nil
	}
	if a.tag, err = parseTag(r.Attempt); err != nil {
		return err
	}
	conf := a.bind.HSM(a.hsmd)
	conf.ModuleSHA256 = a.script.Pins.Module
	a.sup, err = hsm.Start(ctx, conf)
	return err
}

// checkFree finds, while it costs nothing yet, what would void the ceremony
// later: a token under a label to come, or a share on a medium.
func (a *Actions) checkFree(ctx context.Context, r *ceremony.Run) error {
	if err := a.startHSM(ctx, r); err != nil {
		return err
	}
	tokens, module, err := a.sup.Tokens(ctx)
	if err != nil {
		return err
	}
	a.process = processOf(module)
	for i := range a.script.Safes {
		s := &a.script.Safes[i]
		if a.script.IsExisting(s) {
			for _, check := range []func() error{
				func() error { return a.checkThere(s, tokens) },
				func() error { return a.checkAdmitted(r, s, module, tokens) },
				func() error { return a.checkKinds(s) },
			} {
				if err := check(); err != nil {
					return err
				}
			}
			continue
		}
		for _, t := range tokens {
			if t.Label == s.Token {
				return fault.Hint(fault.Errorf(fault.Exists, "there is a token %s already", s.Token),
					"a genesis makes its own tokens: make a script with other labels ('keyrite ceremony new --root-token, --work-token')")
			}
		}
		old, err := filepath.Glob(filepath.Join(a.sharesDir(s.Name), "*.share"))
		if err != nil || len(old) > 0 {
			return fault.Hint(fault.Errorf(fault.Exists, "there are shares in %q already", a.sharesDir(s.Name)), "shares are never overwritten: name another folder in the binding")
		}
	}
	return nil
}

// checkThere wants a safe that exists in its token, and no share of the epoch to
// come on any medium.
func (a *Actions) checkThere(s *script.Safe, tokens []hsm.TokenInfo) error {
	e := a.vault.opening(s.Name).Epochs[s.Name]
	there := slices.ContainsFunc(tokens, func(t hsm.TokenInfo) bool { return token(t.Token) == e.Token })
	if !there {
		return fault.Errorf(fault.Token, "there is no token %s with serial %s, which is safe %s", e.Token.Label, e.Token.Serial, s.Name)
	}
	old, err := filepath.Glob(filepath.Join(a.sharesDir(s.Name), "*.epoch"+itoa(e.Epoch+1)+".share"))
	if err != nil || len(old) > 0 && a.does("shares.deal") {
		return fault.Hint(fault.Errorf(fault.Exists, "there are shares of epoch %d in %q already", e.Epoch+1, a.sharesDir(s.Name)),
			"they are of a void attempt. If 'keyrite ceremony status' of its record says that they open the safe, name it with --after and keep them; else destroy them before the next one")
	}
	return nil
}

// initToken initialises a fresh token under one-time PINs that only the
// supervisor holds.
func (a *Actions) initToken(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	name := st.Safe
	if err := a.startHSM(ctx, r); err != nil {
		return err
	}
	sf, _ := a.script.SafeByName(name)
	if err := r.Record(&record.Intent{Effect: "init-token", Key: "", Object: "", Safe: name, Token: anchor.Token{Label: sf.Token, Serial: ""}}); err != nil {
		return err
	}
	a.begun[name] = true
	id, err := a.sup.InitToken(ctx, sf.Token)
	if err != nil {
		return err
	}
	a.safes[name] = &safe{name: name, token: id}
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
func (a *Actions) withSession(ctx context.Context, t hsm.TokenID, f func(*hsm.Session) error) error {
	s, err := a.sup.Open(ctx, t)
	if err != nil {
		return err
	}
	err = openedModule(a.script, s.Module().SHA256)
	if err == nil {
		err = f(s)
	}
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	return err
}
