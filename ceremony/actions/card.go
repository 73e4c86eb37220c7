package actions

import (
	"context"
	"errors"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/ceremony"
	"keyrite/internal/intake"
	"keyrite/vault/card"
)

// unlocker returns what unlocks a participant's key: a file under a passphrase, a
// card under its PIN, or nothing, if he signs on another machine.
func (b *Bind) unlocker(bp *BindPerson, p *person.Person) (ceremony.Unlocker, error) {
	named := 0
	for _, s := range []string{bp.Key, bp.Token, bp.Elsewhere} {
		if s != "" {
			named++
		}
	}
	if named != 1 {
		return nil, fault.Errorf(fault.Usage, "the binding names one of key, token and elsewhere for %s", p.Name)
	}
	if bp.Elsewhere != "" {
		if bp.Role == charter.RoleKeyMaster {
			return nil, fault.Errorf(fault.Usage, "%s is a key master, whose share is opened here: a key or a token is needed", p.Name)
		}
		return &elsewhere{person: p, dir: b.Path(bp.Elsewhere), limit: answerLimit}, nil
	}
	path := bp.Key + bp.Token
	data, err := intake.Read(b.Path(path), maxInputBytes)
	if err != nil {
		return nil, err
	}
	if person.IsCardFile(data) != (bp.Token != "") {
		return nil, fault.Errorf(fault.Usage, "%q: a NAME.key goes under key, a NAME.card under token", path)
	}
	if bp.Key != "" {
		return ceremony.KeyFile(data), nil
	}
	f, err := person.ParseCard(data)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "card %q: %w", path, err)
	}
	if !f.Person.Equal(p) {
		return nil, fault.Errorf(fault.Verify, "card file %q is not that of %s", path, p.Name)
	}
	return &cardKey{file: f, hsmd: b.hsmd}, nil
}

// cardKey unlocks a person's card. A wrong PIN is a planned miss; it is the person
// who gives another, never we who give one twice.
type cardKey struct {
	file *person.CardFile
	hsmd string
	key  *person.Key
}

// Unlock implements ceremony.Unlocker.
func (c *cardKey) Unlock(ctx context.Context, ask ceremony.Ask) (*person.Key, error) {
	var wrong error
	for {
		pin, err := ask(ctx, wrong)
		if err != nil {
			return nil, err
		}
		c.key, err = card.Open(ctx, c.file, c.hsmd, pin)
		pin.Zero()
		switch {
		case err == nil:
			return c.key, nil
		case errors.Is(err, card.ErrPIN):
			wrong = err
		case fault.ClassOf(err) == fault.Token:
			return nil, &ceremony.Contingency{Cause: ceremony.CauseCard, Err: err}
		default:
			return nil, err
		}
	}
}

// Lock implements ceremony.Unlocker.
func (c *cardKey) Lock() {
	if c.key != nil {
		c.key.Zero()
		c.key = nil
	}
}
