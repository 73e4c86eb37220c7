// Package inspection is what a witness read in a token on a machine of his own:
// serial number, public keys and every attribute, signed by him. It says that the
// keys of a record lie in that token as the record says, without trust in the
// ceremony PC that wrote it.
//
// `keyrite hsm inspect --out` makes one, `keyrite-verify inspection` compares it with
// a record. It holds nothing secret: what a token tells of its keys.
//
// Compatibility: docs/formats/inspection.md, version 2 is read for ever. Version 1, of
// which there was no release, did not say what else the token holds; it is refused.
package inspection

import (
	"bytes"
	"crypto"
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/artifact/world"
)

// Format and PayloadType name the inspection and the DSSE envelope around it.
const (
	Format      = "keyrite/inspection/v2"
	PayloadType = "application/vnd.keyrite.inspection.v2+json"
)

// MaxBytes bounds an inspection; 1,000 keys take some 4 MiB.
const MaxBytes = 16 << 20

// Inspection is the payload.
type Inspection struct {
	At           string       `json:"at"` // RFC 3339, UTC, seconds
	Format       string       `json:"format"`
	Keys         []Key        `json:"keys"`
	ModuleSHA256 string       `json:"module_sha256"` // hex
	Others       []Object     `json:"others"`        // whatever the token holds beside the keys
	Token        anchor.Token `json:"token"`
	World        world.World  `json:"world"`
}

// Key is one key as the token shows it.
type Key struct {
	Attributes []Attribute `json:"attributes"`
	Label      string      `json:"label"`
	Object     string      `json:"object"` // CKA_ID, hex
	Public     []byte      `json:"public"` // SubjectPublicKeyInfo, DER
}

// Object is an object that is no half of a key of ours: it has an id of another form,
// or none, or is no key, or one of its kind too many.
type Object struct {
	Class  string `json:"class"`
	Label  string `json:"label"`
	Object string `json:"object"` // CKA_ID, hex, or that the token tells none
}

// Attribute is one attribute of one half, or of a secret key.
type Attribute struct {
	Half  string `json:"half"` // private, public or secret
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Sign puts an inspection into an envelope.
func Sign(i *Inspection, by crypto.Signer) ([]byte, error) {
	env, err := envelope.SignJSON(PayloadType, i, by)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// Open reads an inspection that a witness of the charter signed, and gives his name.
func Open(data []byte, people *charter.People) (*Inspection, string, error) {
	if len(data) > MaxBytes {
		return nil, "", fault.Errorf(fault.Verify, "inspection of more than %d bytes", MaxBytes)
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, "", err
	}
	var keys []envelope.Key
	for i := range people.Roster {
		if m := &people.Roster[i]; m.Role == charter.RoleWitness {
			keys = append(keys, envelope.Key{Name: m.Person.Name, Public: m.Person.PublicKey()})
		}
	}
	payload, names, err := envelope.Verify(env, PayloadType, keys, 1)
	if err != nil {
		return nil, "", err
	}
	var i Inspection
	if err := jcs.Unmarshal(payload, &i); err != nil {
		return nil, "", err
	}
	if i.Format != Format || len(names) != 1 {
		return nil, "", fault.Errorf(fault.Verify, "inspection of format %.60q by %d people", i.Format, len(names))
	}
	_, err = charter.ParseTime(i.At)
	return &i, names[0], err
}

// Check compares an inspection with a verified record: the token holds each key that
// the record stored there, with that public key and those attributes, and no other
// key nor anything else.
func (i *Inspection) Check(v *record.Verified) error {
	if err := world.Match(v.Open.World, i.World); err != nil {
		return err
	}
	seen := map[string]*Key{}
	for n := range i.Keys {
		k := &i.Keys[n]
		if seen[k.Object] != nil || k.Object == "" {
			return fault.Errorf(fault.Verify, "the inspection names object %.40q twice, or nameless", k.Object)
		}
		seen[k.Object] = k
	}
	here := 0
	for n := range v.Keys {
		made := &v.Keys[n]
		if made.Key.Token != i.Token {
			continue
		}
		here++
		k := seen[made.Object]
		if k == nil {
			return fault.Errorf(fault.Verify, "key %s of the record was not in token %s", made.Key.ID, i.Token.Label)
		}
		delete(seen, made.Object)
		if err := k.same(made); err != nil {
			return err
		}
	}
	if here == 0 {
		return fault.Errorf(fault.Verify, "the record stored no key in token %.40q with serial %.40q", i.Token.Label, i.Token.Serial)
	}
	return i.noOther(seen)
}

// maxNamed bounds how many objects one error names.
const maxNamed = 20

// noOther wants nothing in the token but the keys of the record, and names what is.
func (i *Inspection) noOther(keys map[string]*Key) error {
	var found []string
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		found = append(found, fmt.Sprintf("a key %.40q (id %.80q)", keys[id].Label, id))
	}
	for _, o := range i.Others {
		found = append(found, fmt.Sprintf("a %.40q %.40q (id %.80q)", o.Class, o.Label, o.Object))
	}
	if len(found) == 0 {
		return nil
	}
	more := ""
	if n := len(found) - maxNamed; n > 0 {
		found, more = found[:maxNamed], fmt.Sprintf(" and %d more", n)
	}
	return fault.Errorf(fault.Verify, "token %.40q holds what the record does not know: %s%s", i.Token.Label, strings.Join(found, ", "), more)
}

// same compares one key with what the record says of it.
func (k *Key) same(made *record.KeyMade) error {
	if k.Label != made.Key.ID || !bytes.Equal(k.Public, made.Key.Public) {
		return fault.Errorf(fault.Verify, "key %s in the token has another name or public key than in the record", made.Key.ID)
	}
	got := map[[2]string]string{}
	for _, a := range k.Attributes {
		got[[2]string{a.Half, a.Name}] = a.Value
	}
	if len(got) != len(k.Attributes) || len(got) != len(made.Attributes) {
		return fault.Errorf(fault.Verify, "key %s shows %d attributes, the record %d", made.Key.ID, len(k.Attributes), len(made.Attributes))
	}
	for _, a := range made.Attributes {
		if v, ok := got[[2]string{a.Half, a.Name}]; !ok || v != a.Got {
			return fault.Errorf(fault.Verify, "key %s in the token has %s %.60q, the record says %.60q", made.Key.ID, a.Name, v, a.Got)
		}
	}
	return nil
}
