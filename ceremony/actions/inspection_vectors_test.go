package actions

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/inspection"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/world"
)

var update = flag.Bool("update", false, "write testdata/vectors/inspection anew, with a genesis")

const inspectionVectors = "../../testdata/vectors/inspection"

// inspectionMaker makes inspections of a token of a real record.
type inspectionMaker struct {
	t *testing.T
	h *house
	v *record.Verified
}

// read is what a witness reads in the token of the record, edited.
func (m inspectionMaker) read(edit func(*inspection.Inspection)) *inspection.Inspection {
	i := &inspection.Inspection{
		At: "2026-11-22T12:00:00Z", Format: inspection.Format, Keys: []inspection.Key{}, ModuleSHA256: strings.Repeat("ab", 32),
		Others: []inspection.Object{}, Token: m.v.Keys[0].Key.Token, World: m.v.Open.World,
	}
	for _, k := range m.v.Keys {
		x := inspection.Key{Attributes: []inspection.Attribute{}, Label: k.Key.ID, Object: k.Object, Public: k.Key.Public}
		for _, a := range k.Attributes {
			x.Attributes = append(x.Attributes, inspection.Attribute{Half: a.Half, Name: a.Name, Value: a.Got})
		}
		i.Keys = append(i.Keys, x)
	}
	edit(i)
	return i
}

func (m inspectionMaker) signed(payload []byte, typ string, by ...*person.Key) []byte {
	m.t.Helper()
	env, err := envelope.Sign(typ, payload)
	for _, k := range by {
		if err == nil {
			err = env.Add(k.Signer())
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	data, err := env.Marshal()
	if err != nil {
		m.t.Fatal(err)
	}
	return data
}

func (m inspectionMaker) json(i *inspection.Inspection) []byte {
	m.t.Helper()
	data, err := jcs.Marshal(i)
	if err != nil {
		m.t.Fatal(err)
	}
	return data
}

// write holds a genesis of one safe, keeps its record, and writes what a witness may
// say of its token, and what nobody may.
func (m inspectionMaker) write() {
	put := func(name, expect, comment string, body []byte) {
		artifacttest.WriteVector(m.t, inspectionVectors, artifacttest.Vector{Name: name, Expect: expect, Body: body}, comment)
	}
	witness, conductor := m.h.people["witness1"], m.h.people["conductor"]
	by := func(name, expect, comment string, edit func(*inspection.Inspection)) {
		put(name, expect, comment, m.signed(m.json(m.read(edit)), inspection.PayloadType, witness))
	}
	same := func(*inspection.Inspection) {}
	by("valid", "ok", "every key as the record says, and nothing else", same)
	by("another-order", "ok", "the keys in another order", func(i *inspection.Inspection) { i.Keys[0], i.Keys[1] = i.Keys[1], i.Keys[0] })
	by("key-missing", "verify", "a key of the record was not there", func(i *inspection.Inspection) { i.Keys = i.Keys[:1] })
	by("key-more", "verify", "a key that the record does not know", func(i *inspection.Inspection) {
		i.Keys = append(i.Keys, inspection.Key{Attributes: []inspection.Attribute{}, Label: "back-door", Object: strings.Repeat("ef", 16), Public: i.Keys[0].Public})
	})
	by("key-twice", "verify", "a key twice", func(i *inspection.Inspection) { i.Keys = append(i.Keys, i.Keys[0]) })
	by("other-object", "verify", "a certificate beside the keys", func(i *inspection.Inspection) {
		i.Others = append(i.Others, inspection.Object{Class: "CKO_CERTIFICATE", Label: "mine", Object: "01"})
	})
	by("public", "verify", "the public key of another key", func(i *inspection.Inspection) { i.Keys[0].Public = i.Keys[1].Public })
	by("label", "verify", "another name in the token", func(i *inspection.Inspection) { i.Keys[0].Label = "mine" })
	extractable := func(a *inspection.Attribute) bool { return a.Half == "private" && a.Name == "CKA_EXTRACTABLE" }
	by("extractable", "verify", "a key that may leave the token", func(i *inspection.Inspection) {
		for n := range i.Keys[0].Attributes {
			if a := &i.Keys[0].Attributes[n]; extractable(a) {
				a.Value = "true"
			}
		}
	})
	by("attribute-missing", "verify", "an attribute was not read", func(i *inspection.Inspection) { i.Keys[0].Attributes = i.Keys[0].Attributes[1:] })
	by("attribute-more", "verify", "an attribute that the record does not have", func(i *inspection.Inspection) {
		i.Keys[0].Attributes = append(i.Keys[0].Attributes, inspection.Attribute{Half: "private", Name: "CKA_TRUSTED", Value: "true"})
	})
	by("attribute-twice", "verify", "one attribute twice and another not at all", func(i *inspection.Inspection) { i.Keys[0].Attributes[1] = i.Keys[0].Attributes[0] })
	by("serial", "verify", "another token of the same label", func(i *inspection.Inspection) { i.Token.Serial = "0000000000000000" })
	by("world", "policy", "of another world", func(i *inspection.Inspection) { i.World = world.Live })
	by("format", "verify", "the version that was never released", func(i *inspection.Inspection) { i.Format = "keyrite/inspection/v1" })
	by("no-time", "verify", "without the time", func(i *inspection.Inspection) { i.At = "" })
	good := m.json(m.read(same))
	put("conductor", "verify", "signed by the conductor", m.signed(good, inspection.PayloadType, conductor))
	put("two", "verify", "signed by two witnesses", m.signed(good, inspection.PayloadType, witness, m.h.people["witness2"]))
	put("witness-and-conductor", "verify", "signed by a witness and by the conductor", m.signed(good, inspection.PayloadType, witness, conductor))
	put("type", "verify", "another payload type", m.signed(good, "application/vnd.keyrite.inspection.v1+json", witness))
	put("tail", "verify", "a space behind the payload, which is signed", m.signed(append(bytes.Clone(good), ' '), inspection.PayloadType, witness))
	put("member", "verify", "a member that is not of the format, which is signed", m.signed(bytes.Replace(good, []byte(`"format"`), []byte(`"foo":1,"format"`), 1), inspection.PayloadType, witness))
	altered, err := envelope.Parse(m.signed(good, inspection.PayloadType, witness))
	if err != nil {
		m.t.Fatal(err)
	}
	altered.Payload = m.json(m.read(func(i *inspection.Inspection) { i.At = "2026-11-22T12:00:01Z" }))
	data, err := altered.Marshal()
	if err != nil {
		m.t.Fatal(err)
	}
	put("altered", "verify", "a byte was altered after it was signed", data)
	put("unsigned", "verify", "the payload alone", good)
}

// keep holds the genesis and puts its record among the vectors.
func keepRecord(t *testing.T) (*house, *record.Verified) {
	t.Helper()
	h := newHouse(t)
	text := strings.NewReplacer("@TOKEN@", "tiny", "@LIMIT@", "10m", "key_masters: {need: 2, of: 2}", "key_masters: {need: 3, of: 5}",
		"\nrun:\n  - {id: \"2.1\", do: genesis", "\n  - {id: \"1.3\", do: documents.see, title: a, limit: 10m}\nrun:\n  - {id: \"2.1\", do: genesis").Replace(tinyScript)
	dir, err := h.perform(t, "inspected", text, "", func(b *Bind) { b.Tokens = map[string]string{"work": "fresh"} })
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(inspectionVectors); err != nil {
		t.Fatal(err)
	}
	copyTree(t, filepath.Join(inspectionVectors, "record"), dir)
	return h, v
}

// The record that the vectors of inspections are about is one that a ceremony here
// made: it verifies, and holds the keys that they speak of.
func TestRecordOfTheInspectionVectors(t *testing.T) {
	if *update {
		h, v := keepRecord(t)
		inspectionMaker{t, h, v}.write()
	}
	v, err := verifyOwn(filepath.Join(inspectionVectors, "record"))
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Keys) != 2 || v.Keys[0].Key.Token != (anchor.Token{Label: "tiny", Serial: v.Keys[0].Key.Token.Serial}) || v.Open.World != testWorld {
		t.Errorf("keys %+v in world %s", v.Keys, v.Open.World)
	}
}
