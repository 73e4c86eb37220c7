// Package card uses a person's key that is on a PIV card or another PKCS#11 token.
//
// Open logs in to the card that a card file names and returns a person.Key whose
// signatures and secrets come from it; Enrol finds or makes the two keys of a new
// person. It is called by the commands that take a NAME.key and by a ceremony.
// The PIN goes to keyrite-hsmd by a pipe; it is tried once and never again by
// this package, since three wrong ones lock most cards. It must never take a key
// other than the one in the person file.
package card

import (
	"context"
	"errors"
	"os"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
	"keyrite/hsm"
	"keyrite/internal/redact"
)

// ErrPIN says that the card refused the PIN. Another one may be asked for.
var ErrPIN = fault.New(fault.Token, "the card refused the PIN")

// openLimit bounds the way to a card, which is slow but not that slow.
const openLimit = 60 * time.Second

// Open logs in to the card and checks that it holds the person's keys. The key's
// Zero logs out. hsmd is empty but in tests.
func Open(ctx context.Context, f *person.CardFile, hsmd string, pin *redact.Secret) (*person.Key, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	c, err := login(ctx, hsm.Config{Module: f.Module, ModuleSHA256: f.ModuleSHA256, HSMD: hsmd}, hsm.TokenID{Label: f.Token.Label, Serial: f.Token.Serial}, pin)
	if fault.ClassOf(err) == fault.Policy {
		return nil, fault.Hint(err, "after an update of the module, compare it with its maker's; then have NAME.card written anew into another folder: keyrite person new NAME --module PATH … ; NAME.person stays the same")
	}
	if err != nil {
		return nil, err
	}
	k, err := c.key(ctx, f)
	if err != nil {
		c.close()
		return nil, err
	}
	return k, nil
}

// session is a card that is logged in.
type session struct {
	sup  *hsm.Supervisor
	sess *hsm.Session
}

func login(ctx context.Context, cfg hsm.Config, id hsm.TokenID, pin *redact.Secret) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	sup, err := hsm.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c := &session{sup: sup}
	if err := c.open(ctx, id, pin); err != nil {
		c.close()
		if errors.Is(err, hsm.ErrPIN) {
			return nil, fault.Errorf(fault.Token, "%w: %w", ErrPIN, err)
		}
		return nil, err
	}
	return c, nil
}

func (c *session) open(ctx context.Context, id hsm.TokenID, pin *redact.Secret) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	defer r.Close()
	line := append(append(make([]byte, 0, pin.Len()+1), pin.Bytes()...), '\n')
	_, err = w.Write(line) // far below what a pipe holds
	clear(line)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fault.Errorf(fault.Unexpected, "write PIN: %w", err)
	}
	if err := c.sup.TakeUserPIN(ctx, id, r); err != nil {
		return err
	}
	c.sess, err = c.sup.Open(ctx, id)
	return err
}

func (c *session) close() {
	if c.sess != nil {
		_ = c.sess.Close()
	}
	_ = c.sup.Close()
}

// key binds the card's keys to the person of f.
func (c *session) key(ctx context.Context, f *person.CardFile) (*person.Key, error) {
	sign, id, err := c.find(ctx, f.Sign, f.Derive)
	if err != nil {
		return nil, err
	}
	if id.Recipient() != f.Person.Recipient {
		return nil, fault.Errorf(fault.Verify, "the card holds another key for secrets than that of %s", f.Person.Name)
	}
	return person.Card(&f.Person, sign, id, c.close)
}

// find returns the key that signs and the identity that derives.
func (c *session) find(ctx context.Context, sign, derive string) (*hsm.OnCard, *person.Identity, error) {
	keys, err := c.sess.CardKeys(ctx)
	if err != nil {
		return nil, nil, err
	}
	var signer *hsm.OnCard
	var id *person.Identity
	for _, k := range keys {
		use, err := c.sess.Use(k)
		if err != nil {
			return nil, nil, err
		}
		if k.ID == sign && k.Sign {
			signer = use
		}
		if k.ID == derive && k.Derive {
			if id, err = person.NewIdentity(use); err != nil {
				return nil, nil, err
			}
		}
	}
	if signer == nil {
		return nil, nil, missing(sign, "signs")
	}
	if id == nil {
		return nil, nil, missing(derive, "derives (ECDH)")
	}
	return signer, id, nil
}

func missing(id, what string) error {
	return fault.Hint(fault.Errorf(fault.Token, "the card has no P-256 key with id %s that %s and cannot leave it", id, what),
		"list them with pkcs11-tool --login --list-objects; on a PIV card 02 signs and 03 derives; --make makes them in a token that lets its user")
}

// Enrolment says whose keys are on which card.
type Enrolment struct {
	Name         string
	World        world.World
	Module       string // absolute path
	Token        hsm.TokenID
	Sign, Derive string // key ids, hex
	Make         bool   // make the keys first
	HSMD         string // empty but in tests
}

// Enrol returns the card file of a person whose keys are on a card, as it says and as it
// is written, signed by the card.
func Enrol(ctx context.Context, e *Enrolment, pin *redact.Secret) (*person.CardFile, []byte, error) {
	c, err := login(ctx, hsm.Config{Module: e.Module, HSMD: e.HSMD}, e.Token, pin)
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	if e.Make {
		if err := c.sess.MakeCardKeys(ctx, e.Name, e.Sign, e.Derive); err != nil {
			return nil, nil, err
		}
	}
	sign, id, err := c.find(ctx, e.Sign, e.Derive)
	if err != nil {
		return nil, nil, err
	}
	p := person.Person{Format: person.Format, Name: e.Name, P256: sign.PublicKey().Bytes(), Recipient: id.Recipient(), World: e.World}
	f := &person.CardFile{
		Derive: e.Derive, Format: person.CardFormat, Module: e.Module, ModuleSHA256: c.sess.Module().SHA256, Person: p, Sign: e.Sign,
		Token: person.CardToken{Label: e.Token.Label, Serial: e.Token.Serial}, World: e.World,
	}
	data, err := f.Sealed(sign)
	return f, data, err
}
