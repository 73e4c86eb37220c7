package person_test

import (
	"crypto"
	"flag"
	"os"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../testdata/vectors/person"

// writeVectors makes the valid and hostile person and card files.
func writeVectors(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := artifacttest.New(t, "witness1")
	file, card := w.People["witness2"].Public(), w.People["witness1"].Public()
	put := func(name, expect, comment string, body []byte) {
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: body}, comment)
	}
	edit := func(name, expect, comment string, from *person.Person, f func(p *person.Person)) {
		p := *from
		f(&p)
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		put(name, expect, comment, b)
	}
	off := append([]byte{}, card.P256...)
	off[64] ^= 1
	none := func(*person.Person) {}
	edit("file-valid", "ok", "Ed25519 and X25519, as it always was", file, none)
	edit("card-valid", "ok", "P-256 twice", card, none)
	edit("both-keys", "verify", "an Ed25519 and a P-256 key", file, func(p *person.Person) { p.P256 = card.P256 })
	edit("no-key", "verify", "neither", file, func(p *person.Person) { p.Ed25519 = nil })
	edit("off-curve", "verify", "the point is not on the curve", card, func(p *person.Person) { p.P256 = off })
	edit("compressed", "verify", "a compressed point", card, func(p *person.Person) { p.P256 = append([]byte{2}, p.P256[1:33]...) })
	edit("infinity", "verify", "the point at infinity", card, func(p *person.Person) { p.P256 = []byte{0} })
	edit("weak", "verify", "an Ed25519 key that anybody can sign for", file, func(p *person.Person) { p.Ed25519 = make([]byte, 32) })
	edit("plug-in", "verify", "a recipient that only a plug-in opens", file, func(p *person.Person) {
		p.Recipient = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t"
	})
	edit("name-path", "verify", "a name that is a path", file, func(p *person.Person) { p.Name = "../x" })
	edit("world", "verify", "no world", file, func(p *person.Person) { p.World = "" })
	good, _ := file.Marshal()
	put("tail", "verify", "a newline after the object", append(good, '\n', ' '))
	c := &person.CardFile{Derive: "03", Format: person.CardFormat, Module: "/usr/lib/opensc-pkcs11.so", ModuleSHA256: strings.Repeat("ab", 32), Person: *card, Sign: "02", Token: person.CardToken{Label: "Ann", Serial: "1"}, World: card.World}
	signed := func(name, expect, comment string, by crypto.Signer, f func(c *person.CardFile)) {
		x := *c
		f(&x)
		env, err := envelope.SignJSON(person.CardPayloadType, x, by)
		if err != nil {
			t.Fatal(err)
		}
		b, err := env.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		put(name, expect, comment, b)
	}
	cards := func(name, expect, comment string, f func(c *person.CardFile)) {
		signed(name, expect, comment, w.People["witness1"].Signer(), f)
	}
	cards("cardfile-valid", "ok", "NAME.card", func(*person.CardFile) {})
	cards("cardfile-relative", "verify", "a module that is looked for", func(c *person.CardFile) { c.Module = "opensc-pkcs11.so" })
	cards("cardfile-one-key", "verify", "one key for both uses", func(c *person.CardFile) { c.Derive = "02" })
	cards("cardfile-world", "verify", "another world than the person's", func(c *person.CardFile) { c.World = "live" })
	cards("cardfile-no-serial", "verify", "any token of that label", func(c *person.CardFile) { c.Token.Serial = "" })
	cards("cardfile-no-hash", "verify", "any module at that path", func(c *person.CardFile) { c.ModuleSHA256 = "" })
	signed("cardfile-stranger", "verify", "signed by another than the person whom it names", w.People["witness2"].Signer(), func(*person.CardFile) {})
	old := *c
	old.Format = "keyrite/person-card/v1"
	b, err := jcs.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	put("cardfile-unsigned", "verify", "the first form, which nobody signed", b)
	cards("cardfile-file-person", "verify", "a person whose keys are in a file", func(c *person.CardFile) { c.Person = *file })
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	for _, v := range artifacttest.Vectors(t, vectorDir) {
		_, err := person.Parse(v.Body)
		if len(v.Name) > 8 && v.Name[:8] == "cardfile" {
			_, err = person.ParseCard(v.Body)
		}
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, got, err, v.Expect)
		}
	}
}
