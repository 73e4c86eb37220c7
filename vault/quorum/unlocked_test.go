package quorum

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"io"
	"strings"
	"testing"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/share"
)

func (d *dealt) openWith(t testing.TB, passphrases string, openers ...Opener) ([]byte, *Opened, error) {
	t.Helper()
	pr, pw := pipe(t)
	_, _ = io.WriteString(pw, passphrases)
	_ = pw.Close()
	r, w := pipe(t)
	o, err := d.conf.Open(context.Background(), OpenParams{
		State: d.State, Safe: "work", Operation: strings.Repeat("ab", 32), Nonce: make([]byte, 32), Openers: openers, Passphrases: pr,
	}, w)
	_ = w.Close()
	pins, _ := io.ReadAll(r)
	return pins, o, err
}

func (d *dealt) unlocked(name string) Opener {
	return Opener{Share: d.files[name], Unlocked: d.People[name]}
}

// Keys that were opened once open a safe together with a passphrase and a card,
// whose keys never come to the child (issue 3 item 7).
func TestUnlockedKeysAndCardsOpen(t *testing.T) {
	d := dealFor(t, "master4", "master5")
	user := d.pins[34:]
	files := []Opener{d.unlocked("master5"), {Key: d.keys["master2"], Share: d.files["master2"]}, d.unlocked("master1"), d.unlocked("master4")}
	pins, o, err := d.openWith(t, phrases("master2"), files...)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pins[1:], user[1:]) || strings.Join(o.Holders, " ") != "master5 master2 master1 master4" {
		t.Errorf("holders %v, %d bytes of PIN", o.Holders, len(pins))
	}
	// The caller's keys still sign: they are opened once for a whole ceremony.
	for _, n := range []string{"master1", "master4"} {
		sig, err := envelope.SignBytes(d.People[n].Signer(), []byte("m"))
		if err != nil || envelope.CheckBytes(d.People[n].Public().PublicKey(), []byte("m"), sig) != nil {
			t.Errorf("%s's key was wiped: %v", n, err)
		}
	}
}

func TestUnlockedReceipt(t *testing.T) {
	d := dealFor(t, "master4")
	for _, n := range []string{"master1", "master4"} {
		env, err := d.conf.Receipt(context.Background(), d.State, d.State.Epochs["work"], d.unlocked(n), nil)
		if err != nil {
			t.Fatal(err)
		}
		p, pub, _ := share.PlaceOf(d.State, "work", n)
		if _, err := share.VerifyReceipt(env, p, pub, d.People[n].Public().PublicKey()); err != nil {
			t.Error(err)
		}
	}
}

type pulled struct{ *ecdh.PrivateKey }

func (pulled) ECDH(*ecdh.PublicKey) ([]byte, error) {
	return nil, fault.New(fault.Token, "the card was pulled")
}

func TestUnlockedRefusals(t *testing.T) {
	d := dealFor(t, "master4", "master5")
	stranger := dealFor(t, "master4")
	x, err := ecdh.P256().GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := person.NewIdentity(pulled{x})
	if err != nil {
		t.Fatal(err)
	}
	p := *d.People["master4"].Public()
	p.Recipient = id.Recipient()
	gone, err := person.Card(&p, d.People["master4"].Signer(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	toGone, err := share.Seal(make([]byte, share.Bytes), share.Place{Vault: d.State.Vault}, p.Recipient)
	if err != nil {
		t.Fatal(err)
	}
	two := []Opener{d.unlocked("master1"), d.unlocked("master2")}
	tests := []struct {
		name  string
		third Opener
		class fault.Class
		text  string
	}{
		{"a stranger's key under a holder's name", stranger.unlocked("master3"), fault.Policy, "not the one in the charter"},
		{"not a holder", Opener{Share: d.files["master3"], Unlocked: d.People["approver1"]}, fault.Policy, "holds no share"},
		{"share of another", Opener{Share: d.files["master2"], Unlocked: d.People["master3"]}, fault.Verify, "share of master3"},
		{"card with the share of another card", Opener{Share: d.files["master5"], Unlocked: d.People["master4"]}, fault.Verify, "share of master4"},
		{"card with the share of a file", Opener{Share: d.files["master3"], Unlocked: d.People["master4"]}, fault.Verify, "share of master4"},
		{"card of another world", stranger.unlocked("master4"), fault.Verify, "share of master4"},
		{"card pulled", Opener{Share: toGone, Unlocked: gone}, fault.Token, "card was pulled"},
		{"the same twice", d.unlocked("master1"), fault.Quorum, "twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pins, _, err := d.openWith(t, "", append(two[:2:2], tt.third)...)
			if fault.ClassOf(err) != tt.class || err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (%s)", err, fault.ClassOf(err))
			}
			if len(pins) != 0 {
				t.Errorf("%d bytes of PIN", len(pins))
			}
		})
	}
}

// What the child is told besides descriptors holds no key.
func TestHandleStaysOutOfTheRequest(t *testing.T) {
	d := dealFor(t)
	m, line, err := d.unlocked("master1").message()
	if err != nil || len(m.Key) != 0 || len(line) == 0 {
		t.Fatalf("%v", err)
	}
	b := &bytes.Buffer{}
	if err := send(b, m); err != nil || bytes.Contains(b.Bytes(), line) || strings.Contains(b.String(), "AGE-SECRET-KEY") {
		t.Errorf("%s, %v", b, err)
	}
	r, err := pipeOf([][]byte{line})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(line, make([]byte, len(line))) {
		t.Error("the line was not wiped")
	}
}
