package person

import (
	"bytes"
	"crypto"
	"strings"
	"testing"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

func cardFile(t testing.TB) (*CardFile, crypto.Signer) {
	t.Helper()
	k, _ := card(t, "ann")
	return &CardFile{
		Derive: "03", Format: CardFormat, Module: "/usr/lib/opensc-pkcs11.so", ModuleSHA256: strings.Repeat("ab", 32), Person: *k.Public(), Sign: "02",
		Token: CardToken{"Ann Smith", "5a6e"}, World: rehearsal,
	}, k.Signer()
}

func TestCardFile(t *testing.T) {
	f, signer := cardFile(t)
	b, err := f.Sealed(signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseCard(b); err != nil || !got.Person.Equal(&f.Person) || !IsCardFile(b) {
		t.Fatalf("%s: %v", b, err)
	}
	file, _ := New("ann", rehearsal)
	sealed, _ := file.Seal([]byte("x"))
	if IsCardFile(sealed) || IsCardFile(nil) {
		t.Error("a key file passes for a card file")
	}
	for name, edit := range map[string]func(f *CardFile){
		"no hash":              func(f *CardFile) { f.ModuleSHA256 = "" },
		"hash in capitals":     func(f *CardFile) { f.ModuleSHA256 = strings.Repeat("AB", 32) },
		"relative module":      func(f *CardFile) { f.Module = "opensc.so" },
		"module with dots":     func(f *CardFile) { f.Module = "/usr/../tmp/x.so" },
		"no token":             func(f *CardFile) { f.Token.Serial = "" },
		"one key for both":     func(f *CardFile) { f.Derive = f.Sign },
		"upper case id":        func(f *CardFile) { f.Sign = "0A" },
		"half a byte":          func(f *CardFile) { f.Sign = "2" },
		"other world":          func(f *CardFile) { f.World = "live" },
		"key of a file":        func(f *CardFile) { f.Person = *file.Public() },
		"recipient of a file":  func(f *CardFile) { f.Person.Recipient = file.Public().Recipient },
		"format":               func(f *CardFile) { f.Format = Format },
		"person without a key": func(f *CardFile) { f.Person.P256 = nil },
	} {
		f, signer := cardFile(t)
		edit(f)
		if _, err := f.Sealed(signer); fault.ClassOf(err) != fault.Verify || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever writes another card file cannot sign it as the person: not with another
// module, hash or token, not with the signature of before, and not by another key.
func TestCardFileIsThePersons(t *testing.T) {
	f, signer := cardFile(t)
	good, err := f.Sealed(signer)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := card(t, "ann")
	if _, err := f.Sealed(stranger.Signer()); fault.ClassOf(err) != fault.Verify {
		t.Errorf("signed by another card: %v", err)
	}
	other := *f
	other.Module, other.ModuleSHA256 = "/tmp/mine.so", strings.Repeat("cd", 32)
	env, err := envelope.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if env.Payload, err = jcs.Marshal(&other); err != nil {
		t.Fatal(err)
	}
	moved, _ := env.Marshal()
	unsigned, _ := jcs.Marshal(f)
	twice, _ := envelope.SignJSON(CardPayloadType, f, signer, stranger.Signer())
	two, _ := twice.Marshal()
	purpose, _ := envelope.SignJSON("application/vnd.keyrite.incident.v1+json", f, signer)
	another, _ := purpose.Marshal()
	old := bytes.Replace(unsigned, []byte("person-card/v2"), []byte("person-card/v1"), 1)
	for name, data := range map[string][]byte{"another module": moved, "unsigned": unsigned, "by two": two, "signed for another purpose": another, "the first form": old} {
		if _, err := ParseCard(data); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v (%s)", name, err, fault.ClassOf(err))
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := ParseCard(bad); err == nil {
			t.Errorf("byte %d flipped: taken", i)
		}
	}
}

func FuzzParseCard(f *testing.F) {
	x, signer := cardFile(f)
	b, _ := x.Sealed(signer)
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := ParseCard(data); err != nil {
			return
		}
		env, err := envelope.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := env.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, writes %q", data, again)
		}
	})
}
