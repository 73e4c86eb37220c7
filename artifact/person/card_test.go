package person

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"filippo.io/age"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
)

// card makes a person whose two keys are outside the key file.
func card(t testing.TB, name string) (*Key, *ecdh.PrivateKey) {
	t.Helper()
	sign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := NewIdentity(x)
	if err != nil {
		t.Fatal(err)
	}
	point, err := sign.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	p := &Person{Format: Format, Name: name, P256: point, Recipient: id.Recipient(), World: rehearsal}
	k, err := Card(p, sign, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k, x
}

func TestCard(t *testing.T) {
	k, _ := card(t, "ann")
	b, err := k.Public().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(b)
	if err != nil || !p.Equal(k.Public()) {
		t.Fatalf("%s: %v", b, err)
	}
	sig, err := envelope.SignBytes(k.Signer(), []byte("m"))
	if err != nil || envelope.CheckBytes(p.PublicKey(), []byte("m"), sig) != nil {
		t.Errorf("signature: %v", err)
	}
	if _, err := k.Handle(); fault.ClassOf(err) != fault.Usage || !k.OnCard() {
		t.Errorf("a card gave its key: %v", err)
	}
	if _, err := k.Seal([]byte("a long passphrase")); fault.ClassOf(err) != fault.Usage {
		t.Errorf("a card's key was sealed: %v", err)
	}
	other, _ := card(t, "bob")
	if _, err := Card(p, other.Signer(), other.Identity(), nil); fault.ClassOf(err) != fault.Verify {
		t.Errorf("another card was taken: %v", err)
	}
}

func encrypt(t testing.TB, to string) []byte {
	t.Helper()
	r, err := ParseRecipient(to)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "share")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestCardOpensWhatWasEncryptedToIt(t *testing.T) {
	k, _ := card(t, "ann")
	file := encrypt(t, k.Public().Recipient)
	r, err := age.Decrypt(bytes.NewReader(file), k.Identity())
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(r); string(got) != "share" {
		t.Errorf("got %q", got)
	}
	other, _ := card(t, "bob")
	if _, err := age.Decrypt(bytes.NewReader(file), other.Identity()); err == nil {
		t.Error("another card opened it")
	}
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1
		r, err := age.Decrypt(bytes.NewReader(bad), k.Identity())
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err == nil {
			t.Errorf("byte %d", i)
		}
	}
}

type broken struct{ *ecdh.PrivateKey }

func (broken) ECDH(*ecdh.PublicKey) ([]byte, error) {
	return nil, fault.New(fault.Token, "card removed")
}

func TestCardThatFailsIsNotAWrongFile(t *testing.T) {
	k, x := card(t, "ann")
	id, err := NewIdentity(broken{x})
	if err != nil {
		t.Fatal(err)
	}
	_, err = age.Decrypt(bytes.NewReader(encrypt(t, k.Public().Recipient)), id)
	if fault.ClassOf(err) != fault.Token || errors.Is(err, age.ErrIncorrectIdentity) {
		t.Errorf("got %v (%s)", err, fault.ClassOf(err))
	}
}

func TestHandle(t *testing.T) {
	k, _ := New("ann", rehearsal)
	h, err := k.Handle()
	if err != nil || bytes.ContainsRune(h, '\n') {
		t.Fatalf("%q, %v", h, err)
	}
	got, err := FromHandle(h)
	if err != nil || !got.Public().Equal(k.Public()) {
		t.Fatalf("%v", err)
	}
	clear(h)
	sig, err := envelope.SignBytes(got.Signer(), []byte("m"))
	if err != nil || envelope.CheckBytes(k.Public().PublicKey(), []byte("m"), sig) != nil {
		t.Errorf("the key was wiped with its handle: %v", err)
	}
}

// What is not exactly one key and one recipient is refused.
func TestParseRefuses(t *testing.T) {
	file, _ := New("ann", rehearsal)
	c, _ := card(t, "bob")
	off := bytes.Clone(c.Public().P256)
	off[64] ^= 1
	tests := map[string]func(p *Person){
		"both keys":             func(p *Person) { p.P256 = c.Public().P256 },
		"no key":                func(p *Person) { p.Ed25519 = nil },
		"point off the curve":   func(p *Person) { p.Ed25519, p.P256 = nil, off },
		"compressed point":      func(p *Person) { p.Ed25519, p.P256 = nil, append([]byte{2}, off[1:33]...) },
		"infinity":              func(p *Person) { p.Ed25519, p.P256 = nil, []byte{0} },
		"short key":             func(p *Person) { p.Ed25519 = p.Ed25519[:31] },
		"upper case recipient":  func(p *Person) { p.Recipient = "AGE1TAG1" },
		"hybrid recipient":      func(p *Person) { p.Recipient = "age1tagpq1xxxx" },
		"post-quantum":          func(p *Person) { p.Recipient = "age1pq1xxxx" },
		"plug-in":               func(p *Person) { p.Recipient = "age1yubikey1xxxx" },
		"recipient with a tail": func(p *Person) { p.Recipient = c.Public().Recipient + "q" },
	}
	for name, edit := range tests {
		p := *file.Public()
		edit(&p)
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); fault.ClassOf(err) != fault.Verify || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file written before there were cards reads and writes back the same.
func TestOldFile(t *testing.T) {
	const old = `{"format":"keyrite/person/v1","key":"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=","name":"master1","recipient":"age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj","world":"rehearsal:abcdefgh"}`
	p, err := Parse([]byte(old))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := p.Marshal(); string(b) != old {
		t.Errorf("now %s", b)
	}
}
