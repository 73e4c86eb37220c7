package person

import (
	"bytes"
	"crypto"
	"path/filepath"
	"regexp"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// CardFormat names the file that says where a person's keys are, if they are on a
// card or token, and CardPayloadType the DSSE envelope around it.
const (
	CardFormat      = "keyrite/person-card/v2"
	CardPayloadType = "application/vnd.keyrite.person-card.v2+json"
)

// oldCardFormat was in no release. It was not signed and named no hash, so whoever
// exchanged it chose the module that gets the PIN.
const oldCardFormat = "keyrite/person-card/v1"

// CardFile is what NAME.card says: it stands wherever a NAME.key does, holds nothing
// secret, is signed by the card's own key, and is good for the one machine on which
// the module lies.
type CardFile struct {
	Derive       string      `json:"derive"` // CKA_ID of the key that derives, lower-case hex
	Format       string      `json:"format"`
	Module       string      `json:"module"`        // absolute path of the PKCS#11 module
	ModuleSHA256 string      `json:"module_sha256"` // of that file, 64 hex digits; no other gets the PIN
	Person       Person      `json:"person"`
	Sign         string      `json:"sign"` // CKA_ID of the key that signs, lower-case hex
	Token        CardToken   `json:"token"`
	World        world.World `json:"world"` // the person's
}

// CardToken names the card or token, never by slot.
type CardToken struct {
	Label  string `json:"label"`
	Serial string `json:"serial"`
}

var hashRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

var cardIDRE = regexp.MustCompile(`^([0-9a-f]{2}){1,32}$`)

// Check validates every member. The person must have a key and a recipient on
// P-256, which are what a card can hold.
func (f *CardFile) Check() error {
	if err := f.Person.Check(); err != nil {
		return err
	}
	if f.Format != CardFormat || f.World != f.Person.World {
		return fault.New(fault.Verify, "card file is of another format or world")
	}
	if len(f.Person.P256) == 0 || !isTag(f.Person.Recipient) {
		return fault.Errorf(fault.Verify, "card file of %s: its keys are not ones of a card", f.Person.Name)
	}
	if !filepath.IsAbs(f.Module) || filepath.Clean(f.Module) != f.Module || f.Token.Label == "" || f.Token.Serial == "" {
		return fault.Errorf(fault.Verify, "card file of %s names no module by an absolute path, or no token", f.Person.Name)
	}
	if !hashRE.MatchString(f.ModuleSHA256) {
		return fault.Errorf(fault.Verify, "card file of %s does not say which module is at its path", f.Person.Name)
	}
	if !cardIDRE.MatchString(f.Sign) || !cardIDRE.MatchString(f.Derive) || f.Sign == f.Derive {
		return fault.Errorf(fault.Verify, "card file of %s: two different key ids in hex are needed", f.Person.Name)
	}
	return nil
}

// Sealed returns the file NAME.card, signed by the card's key, which must be the
// person's.
func (f *CardFile) Sealed(by crypto.Signer) ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	env, err := envelope.SignJSON(CardPayloadType, f, by)
	if err != nil {
		return nil, err
	}
	data, err := env.Marshal()
	if err != nil {
		return nil, err
	}
	_, err = ParseCard(data)
	return data, err
}

// IsCardFile says which of the two kinds of key file data is: NAME.card, or
// NAME.key, which is an age file. It checks nothing.
func IsCardFile(data []byte) bool { return len(data) > 0 && data[0] == '{' }

// ParseCard reads a card file. It holds if the person whom it names signed it; who that
// is the caller compares with the person file that he has.
func ParseCard(data []byte) (*CardFile, error) {
	if bytes.Contains(data, []byte(`"format":"`+oldCardFormat+`"`)) {
		return nil, fault.Hint(fault.New(fault.Verify, "the card file is of the first form, which nobody signed"),
			"have it written anew into another folder, with the card: keyrite person new NAME --module PATH … ; NAME.person stays the same")
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	var f CardFile
	if err := jcs.Unmarshal(env.Payload, &f); err != nil {
		return nil, err
	}
	if err := f.Check(); err != nil {
		return nil, err
	}
	_, _, err = envelope.Verify(env, CardPayloadType, []envelope.Key{{Name: f.Person.Name, Public: f.Person.PublicKey()}}, 1)
	return &f, err
}
