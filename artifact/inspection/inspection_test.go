package inspection_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/inspection"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
)

var tok = anchor.Token{Label: "work", Serial: "1"}

func made() *record.Verified {
	return &record.Verified{Open: record.Open{World: "rehearsal:abcdefgh"}, Keys: []record.KeyMade{
		{Object: "aa", Stage: "stored", Key: anchor.KeyRecord{ID: "firmware", Public: []byte{1}, Token: tok}, Attributes: []record.Attribute{
			{Half: "private", Name: "CKA_SENSITIVE", Got: "true", Wanted: "true"}, {Half: "public", Name: "CKA_LOCAL", Got: "true", Wanted: "true"},
		}},
		{Object: "bb", Stage: "stored", Key: anchor.KeyRecord{ID: "root", Public: []byte{2}, Token: anchor.Token{Label: "root", Serial: "2"}}},
	}}
}

func read() *inspection.Inspection {
	return &inspection.Inspection{
		At: "2026-11-22T12:00:00Z", Format: inspection.Format, Token: tok, World: "rehearsal:abcdefgh", Others: []inspection.Object{},
		Keys: []inspection.Key{{Label: "firmware", Object: "aa", Public: []byte{1}, Attributes: []inspection.Attribute{
			{Half: "public", Name: "CKA_LOCAL", Value: "true"}, {Half: "private", Name: "CKA_SENSITIVE", Value: "true"},
		}}},
	}
}

func TestInspectionAgainstRecord(t *testing.T) {
	for _, tc := range []struct {
		name  string
		edit  func(*inspection.Inspection)
		class fault.Class
	}{
		{"the same", func(*inspection.Inspection) {}, ""},
		{"another world", func(i *inspection.Inspection) { i.World = "live" }, fault.Policy},
		{"another serial", func(i *inspection.Inspection) { i.Token.Serial = "2" }, fault.Verify},
		{"no keys", func(i *inspection.Inspection) { i.Keys = nil }, fault.Verify},
		{"another public key", func(i *inspection.Inspection) { i.Keys[0].Public = []byte{9} }, fault.Verify},
		{"another name", func(i *inspection.Inspection) { i.Keys[0].Label = "log" }, fault.Verify},
		{"a looser attribute", func(i *inspection.Inspection) { i.Keys[0].Attributes[1].Value = "false" }, fault.Verify},
		{"an attribute less", func(i *inspection.Inspection) { i.Keys[0].Attributes = i.Keys[0].Attributes[:1] }, fault.Verify},
		{"an attribute more", func(i *inspection.Inspection) {
			i.Keys[0].Attributes = append(i.Keys[0].Attributes, inspection.Attribute{Half: "private", Name: "CKA_WRAP", Value: "true"})
		}, fault.Verify},
		{"an attribute twice", func(i *inspection.Inspection) { i.Keys[0].Attributes[1] = i.Keys[0].Attributes[0] }, fault.Verify},
		{"the other half", func(i *inspection.Inspection) { i.Keys[0].Attributes[0].Half = "private" }, fault.Verify},
		{"a key that the record does not know", func(i *inspection.Inspection) {
			i.Keys = append(i.Keys, inspection.Key{Label: "back-door", Object: "cc"})
		}, fault.Verify},
		{"a key with an id of another form", func(i *inspection.Inspection) {
			i.Others = []inspection.Object{{Class: "CKO_SECRET_KEY", Label: "back-door", Object: "01"}}
		}, fault.Verify},
		{"an object without any name", func(i *inspection.Inspection) { i.Others = []inspection.Object{{}} }, fault.Verify},
		{"a key twice", func(i *inspection.Inspection) { i.Keys = append(i.Keys, i.Keys[0]) }, fault.Verify},
	} {
		t.Run(tc.name, func(t *testing.T) {
			i := read()
			tc.edit(i)
			if err := i.Check(made()); fault.ClassOf(err) != tc.class {
				t.Errorf("got %v (%s), want %q", err, fault.ClassOf(err), tc.class)
			}
		})
	}
}

// Everything that should not be there is named, as far as an error may be long.
func TestInspectionNamesWhatIsTooMuch(t *testing.T) {
	i := read()
	i.Keys = append(i.Keys, inspection.Key{Label: "second", Object: "dd"}, inspection.Key{Label: "back-door", Object: "cc"})
	i.Others = []inspection.Object{{Class: "CKO_PRIVATE_KEY", Label: "third\x1b[2J", Object: "01"}, {Class: "CKO_DATA"}}
	err := i.Check(made())
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{`"back-door" (id "cc")`, `"second" (id "dd")`, `"CKO_PRIVATE_KEY" "third\x1b[2J" (id "01")`, `"CKO_DATA" "" (id "")`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	for range 1000 {
		i.Others = append(i.Others, inspection.Object{Class: "CKO_DATA", Label: strings.Repeat("x", 100)})
	}
	if err := i.Check(made()); len(err.Error()) > 5000 || !strings.Contains(err.Error(), "more") {
		t.Errorf("%d bytes", len(err.Error()))
	}
}

// Only a witness of the charter signs an inspection, alone, as it stands.
func TestSignerOfInspection(t *testing.T) {
	people := &charter.People{}
	keys := map[string]*person.Key{}
	for name, role := range map[string]string{"witness1": charter.RoleWitness, "conductor": charter.RoleConductor, "stranger": ""} {
		k, err := person.New(name, "rehearsal:abcdefgh")
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = k
		if role != "" {
			people.Roster = append(people.Roster, charter.Member{Person: *k.Public(), Role: role})
		}
	}
	signed := func(by string, edit func(*inspection.Inspection)) []byte {
		i := read()
		edit(i)
		file, err := inspection.Sign(i, keys[by].Signer())
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	same := func(*inspection.Inspection) {}
	i, by, err := inspection.Open(signed("witness1", same), people)
	if err != nil || by != "witness1" || len(i.Keys) != 1 {
		t.Fatalf("got %+v by %q, %v", i, by, err)
	}
	good := signed("witness1", same)
	for name, data := range map[string][]byte{
		"by the conductor": signed("conductor", same),
		"by a stranger":    signed("stranger", same),
		"other format":     signed("witness1", func(i *inspection.Inspection) { i.Format = "keyrite/inspection/v1" }),
		"no time":          signed("witness1", func(i *inspection.Inspection) { i.At = "" }),
		"altered":          []byte(strings.Replace(string(good), `"payload":"e`, `"payload":"f`, 1)),
		"cut":              slices.Clone(good[:len(good)-2]),
		"empty":            {},
	} {
		if _, _, err := inspection.Open(data, people); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// FuzzInspection reads hostile payloads: no panic, one form of each, and none fits the
// record but the one that says the same.
func FuzzInspection(f *testing.F) {
	good, err := jcs.Marshal(read())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"at":"","format":"","keys":null,"module_sha256":"","others":[{"class":"","label":"","object":""}],"token":{"label":"","serial":""},"world":""}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var i inspection.Inspection
		if jcs.Unmarshal(in, &i) != nil {
			return
		}
		again, err := jcs.Marshal(&i)
		if err != nil || !bytes.Equal(again, in) {
			t.Errorf("%q is written as %q, %v", in, again, err)
		}
		if i.Check(made()) == nil && (len(i.Keys) != 1 || len(i.Others) != 0 || i.Token != tok) {
			t.Errorf("%q fits the record", in)
		}
	})
}
