package person

import (
	"path/filepath"
	"regexp"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// CardFormat names the file that says where a person's keys are, if they are on a
// card or token.
const CardFormat = "keyrite/person-card/v1"

// CardFile is NAME.card: it stands wherever a NAME.key does, holds nothing secret,
// and is good for the one machine on which the module lies.
type CardFile struct {
	Derive string      `json:"derive"` // CKA_ID of the key that derives, lower-case hex
	Format string      `json:"format"`
	Module string      `json:"module"` // absolute path of the PKCS#11 module
	Person Person      `json:"person"`
	Sign   string      `json:"sign"` // CKA_ID of the key that signs, lower-case hex
	Token  CardToken   `json:"token"`
	World  world.World `json:"world"` // the person's
}

// CardToken names the card or token, never by slot.
type CardToken struct {
	Label  string `json:"label"`
	Serial string `json:"serial"`
}

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
	if !cardIDRE.MatchString(f.Sign) || !cardIDRE.MatchString(f.Derive) || f.Sign == f.Derive {
		return fault.Errorf(fault.Verify, "card file of %s: two different key ids in hex are needed", f.Person.Name)
	}
	return nil
}

// Marshal returns the card file.
func (f *CardFile) Marshal() ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	return jcs.Marshal(f)
}

// IsCardFile says which of the two kinds of key file data is: NAME.card, or
// NAME.key, which is an age file. It checks nothing.
func IsCardFile(data []byte) bool { return len(data) > 0 && data[0] == '{' }

// ParseCard reads a card file.
func ParseCard(data []byte) (*CardFile, error) {
	var f CardFile
	if err := jcs.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	return &f, f.Check()
}
