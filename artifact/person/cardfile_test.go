package person

import (
	"bytes"
	"testing"

	"keyrite/artifact/fault"
)

func cardFile(t testing.TB) *CardFile {
	t.Helper()
	k, _ := card(t, "ann")
	return &CardFile{
		Derive: "03", Format: CardFormat, Module: "/usr/lib/opensc-pkcs11.so", Person: *k.Public(), Sign: "02",
		Token: CardToken{"Ann Smith", "5a6e"}, World: rehearsal,
	}
}

func TestCardFile(t *testing.T) {
	f := cardFile(t)
	b, err := f.Marshal()
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
		f := cardFile(t)
		edit(f)
		if _, err := f.Marshal(); fault.ClassOf(err) != fault.Verify || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseCard(f *testing.F) {
	b, _ := cardFile(f).Marshal()
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCard(data)
		if err != nil {
			return
		}
		if again, err := c.Marshal(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, writes %q", data, again)
		}
	})
}
