package person

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"filippo.io/age"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

const rehearsal = "rehearsal:abcdefgh"

func TestKeyRoundTrip(t *testing.T) {
	k, err := New("master1", rehearsal)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal([]byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(sealed, []byte("open sesamE")); !errors.Is(err, ErrPassphrase) || fault.ClassOf(err) != fault.Token {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := Open(sealed, nil); !errors.Is(err, ErrPassphrase) {
		t.Errorf("empty passphrase: %v", err)
	}
	got, err := Open(sealed, []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := k.Public().Marshal()
	b, _ := got.Public().Marshal()
	if !bytes.Equal(a, b) {
		t.Errorf("public half changed: %s, %s", a, b)
	}
	sig, err := envelope.SignBytes(got.Signer(), []byte("m"))
	if err != nil || envelope.CheckBytes(k.Public().PublicKey(), []byte("m"), sig) != nil {
		t.Errorf("signature of the opened key: %v", err)
	}
	rcpt, _ := age.ParseX25519Recipient(k.Public().Recipient)
	var buf bytes.Buffer
	w, _ := age.Encrypt(&buf, rcpt)
	_, _ = io.WriteString(w, "share")
	_ = w.Close()
	r, err := age.Decrypt(&buf, got.Identity())
	if err != nil {
		t.Fatal(err)
	}
	if plain, _ := io.ReadAll(r); string(plain) != "share" {
		t.Errorf("decrypted %q", plain)
	}
}

func TestEveryFlippedByteOfAKeyFileIsRefused(t *testing.T) {
	k, _ := New("ann", rehearsal)
	sealed, _ := k.Seal([]byte("x"))
	for i := 0; i < len(sealed); i += 3 {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := Open(bad, []byte("x")); err == nil {
			t.Errorf("byte %d", i)
		}
	}
}

func TestNames(t *testing.T) {
	for _, n := range []string{"", "Ann", "1a", "a b", "a\x1b", "a/b", "../x", "abcdefghijabcdefghijabcdefghijabc"} {
		if _, err := New(n, rehearsal); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", n, err)
		}
	}
	for _, w := range []string{"", "Live", "rehearsal:", "rehearsal:short", "rehearsal:ABCDEFGH", "test"} {
		if _, err := New("ann", world.World(w)); err == nil {
			t.Errorf("world %q was taken", w)
		}
	}
}

func TestLivePassphraseHasALength(t *testing.T) {
	k, _ := New("ann", "live")
	if _, err := k.Seal([]byte("short")); fault.ClassOf(err) != fault.Usage {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	k, _ := New("ann", rehearsal)
	b, _ := k.Public().Marshal()
	f.Add(b)
	c, _ := card(f, "bob")
	b, _ = c.Public().Marshal()
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		again, err := p.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, writes %q", data, again)
		}
	})
}
