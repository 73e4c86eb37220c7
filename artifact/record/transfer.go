package record

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Place is a safe and the token that it is.
type Place struct {
	Safe  string       `json:"safe"`
	Token anchor.Token `json:"token"`
}

// Transferred is a key that arrived in another token. In transit it existed only
// wrapped under an AES key that was itself wrapped for the receiver; all three
// are shown as their tokens showed them.
type Transferred struct {
	Arrived    []Attribute       `json:"arrived"` // as read by a fresh process
	From       Place             `json:"from"`
	Gave       envelope.Envelope `json:"gave"`       // receipt of those who opened From
	Key        anchor.KeyRecord  `json:"key"`        // as the charter had it
	Left       []Attribute       `json:"left"`       // as it was read where it left
	Made       []Attribute       `json:"made"`       // the receiver's pair as it was read where it was born, in To
	Object     string            `json:"object"`     // CKA_ID, the same in both tokens
	Received   envelope.Envelope `json:"received"`   // receipt of those who opened To
	Receiver   []byte            `json:"receiver"`   // DER SubjectPublicKeyInfo
	To         Place             `json:"to"`         //
	Unwrapping []Attribute       `json:"unwrapping"` // the AES key in To
	Wrapped    string            `json:"wrapped"`    // hex SHA-256 of both blobs, see WrappedHash
	Wrapping   []Attribute       `json:"wrapping"`   // the AES key in From
}

// Removed is an object destroyed for good, with proof that it is gone.
type Removed struct {
	Key    string       `json:"key"`  // "" for a receiver key
	Left   int          `json:"left"` // objects with its id, found by an empty search in a fresh process
	Object string       `json:"object"`
	Safe   string       `json:"safe"`
	Token  anchor.Token `json:"token"`
}

func (*Transferred) entryType() string { return "transferred" }
func (*Removed) entryType() string     { return "removed" }

// TransferType is the payload type of a TransferReceipt.
const TransferType = "application/vnd.keyrite.transfer.v1+json"

// The two sides of a transfer.
const (
	Gives    = "gives"
	Receives = "receives"
)

// TransferReceipt is what the key masters of each end sign.
type TransferReceipt struct {
	Format   string      `json:"format"` // "keyrite/transfer/v1"
	From     Place       `json:"from"`
	Key      string      `json:"key"`
	Object   string      `json:"object"`
	Public   string      `json:"public"`   // hex SHA-256 of the key's SubjectPublicKeyInfo
	Receiver string      `json:"receiver"` // hex SHA-256 of the receiver's SubjectPublicKeyInfo
	Record   string      `json:"record"`
	Side     string      `json:"side"`
	To       Place       `json:"to"`
	Wrapped  string      `json:"wrapped"`
	World    world.World `json:"world"`
}

// TransferFormat names TransferReceipt.
const TransferFormat = "keyrite/transfer/v1"

// WrappedHash is the hash over both blobs of a transfer, so that two transfers
// cannot be confused.
func WrappedHash(kek, key []byte) string {
	a, b := sha256.Sum256(kek), sha256.Sum256(key)
	sum := sha256.Sum256(append(a[:], b[:]...))
	return hex.EncodeToString(sum[:])
}

// Receipt is what each side signs for the transfer.
func (t *Transferred) Receipt(record string, w world.World, side string) TransferReceipt {
	public, receiver := sha256.Sum256(t.Key.Public), sha256.Sum256(t.Receiver)
	return TransferReceipt{
		Format: TransferFormat, From: t.From, Key: t.Key.ID, Object: t.Object, Public: hex.EncodeToString(public[:]),
		Receiver: hex.EncodeToString(receiver[:]), Record: record, Side: side, To: t.To, Wrapped: t.Wrapped, World: w,
	}
}

// The attributes without which a transfer is none, by what they belong to.
func leftAttributes() map[string]string {
	return map[string]string{"CKA_SENSITIVE": "true", "CKA_EXTRACTABLE": "true", "CKA_WRAP_WITH_TRUSTED": "true", "CKA_LOCAL": "true", "CKA_PRIVATE": "true", "CKA_MODIFIABLE": "false", "CKA_SIGN": "true", "CKA_DECRYPT": "false", "CKA_UNWRAP": "false", "CKA_DERIVE": "false"}
}

func arrivedAttributes() map[string]string {
	return map[string]string{"CKA_SENSITIVE": "true", "CKA_EXTRACTABLE": "false", "CKA_LOCAL": "false", "CKA_NEVER_EXTRACTABLE": "false", "CKA_TOKEN": "true", "CKA_PRIVATE": "true", "CKA_MODIFIABLE": "false", "CKA_SIGN": "true", "CKA_DECRYPT": "false", "CKA_UNWRAP": "false", "CKA_DERIVE": "false"}
}

func wrappingAttributes() map[string]string {
	return map[string]string{"CKA_SENSITIVE": "true", "CKA_TRUSTED": "true", "CKA_WRAP": "true", "CKA_UNWRAP": "false", "CKA_ENCRYPT": "false", "CKA_DECRYPT": "false", "CKA_TOKEN": "false", "CKA_WRAP_WITH_TRUSTED": "true"}
}

func unwrappingAttributes() map[string]string {
	return map[string]string{"CKA_SENSITIVE": "true", "CKA_EXTRACTABLE": "false", "CKA_WRAP": "false", "CKA_UNWRAP": "true", "CKA_ENCRYPT": "false", "CKA_DECRYPT": "false", "CKA_TOKEN": "false"}
}

// madeAttributes are those of a receiver that was born in its token and gives
// nothing away: not one that somebody brought in with a private half of his own.
func madeAttributes() map[string]string {
	return map[string]string{
		"CKA_LOCAL": "true", "CKA_NEVER_EXTRACTABLE": "true", "CKA_ALWAYS_SENSITIVE": "true", "CKA_TOKEN": "true", "CKA_PRIVATE": "true", "CKA_SENSITIVE": "true", "CKA_EXTRACTABLE": "false", "CKA_MODIFIABLE": "false", "CKA_COPYABLE": "false",
		"CKA_UNWRAP": "true", "CKA_SIGN": "false", "CKA_DECRYPT": "false", "CKA_DERIVE": "false", "CKA_ALLOWED_MECHANISMS": "CKM_RSA_PKCS_OAEP",
		"CKA_UNWRAP_TEMPLATE": "CKA_DECRYPT CKA_ENCRYPT CKA_EXTRACTABLE CKA_SENSITIVE CKA_TOKEN CKA_UNWRAP CKA_WRAP",
	}
}

// shows checks that a list says what was wanted, and at least what it must.
func shows(what string, list []Attribute, half string, must map[string]string) error {
	seen := map[string]bool{}
	for _, a := range list {
		if a.Got != a.Wanted || seen[a.Half+a.Name] {
			return bad("%w: %s has %s %.80q, not %.80q, or twice", ErrEntry, what, a.Name, a.Got, a.Wanted)
		}
		seen[a.Half+a.Name] = true
		if want, ok := must[a.Name]; ok && a.Half == half && a.Got != want {
			return bad("%w: %s has %s %s", ErrEntry, what, a.Name, a.Got)
		}
	}
	for name := range must {
		if !seen[half+name] {
			return bad("%w: %s does not show %s", ErrEntry, what, name)
		}
	}
	return nil
}

// transferred takes a key that arrived, after both safes were opened, its receiver
// stated, and its arrival announced.
func (c *checker) transferred(t *Transferred) error {
	if err := t.Key.Check(); err != nil {
		return err
	}
	_, twice := c.moved[t.Key.ID]
	switch {
	case twice, t.From.Safe == t.To.Safe, t.From.Token == t.To.Token:
		return bad("%w: key %s moved twice, or nowhere", ErrEntry, t.Key.ID)
	case c.intents[t.Object] != (intent{t.Key.ID, t.To.Safe, t.To.Token}):
		return bad("%w: key %s arrived without an intent", ErrEntry, t.Key.ID)
	case !opens(c.progress[t.From.Safe]) || !opens(c.progress[t.To.Safe]):
		return bad("%w: key %s moved between safes that are not open", ErrEntry, t.Key.ID)
	case !slices.ContainsFunc(c.stmts, func(s Statement) bool { return s.Type == charter.TypeReceiver }):
		return bad("%w: key %s was wrapped for a receiver that nobody stated", ErrEntry, t.Key.ID)
	}
	for _, x := range []struct {
		what, half string
		list       []Attribute
		must       map[string]string
	}{
		{"key " + t.Key.ID + " where it left", "private", t.Left, leftAttributes()},
		{"key " + t.Key.ID + " where it arrived", "private", t.Arrived, arrivedAttributes()},
		{"the receiver of key " + t.Key.ID, "private", t.Made, madeAttributes()},
		{"the key that wrapped " + t.Key.ID, "secret", t.Wrapping, wrappingAttributes()},
		{"the key that unwrapped " + t.Key.ID, "secret", t.Unwrapping, unwrappingAttributes()},
	} {
		if err := shows(x.what, x.list, x.half, x.must); err != nil {
			return err
		}
	}
	for _, m := range c.moved {
		if m.Wrapped == t.Wrapped {
			return bad("%w: keys %s and %s travelled in one parcel", ErrEntry, m.Key.ID, t.Key.ID)
		}
	}
	if err := c.announcedReceiver(t); err != nil {
		return err
	}
	c.moved[t.Key.ID] = *t
	c.Moved = append(c.Moved, *t)
	return nil
}

// announcedReceiver wants the receiver to be the object that was announced in the
// safe that the key went to.
func (c *checker) announcedReceiver(t *Transferred) error {
	for _, a := range t.Made {
		if a.Name == "CKA_ID" && a.Half == "private" {
			if c.intents[a.Got] == (intent{"", t.To.Safe, t.To.Token}) {
				return nil
			}
			return bad("%w: the receiver of key %s is not the one that was announced", ErrEntry, t.Key.ID)
		}
	}
	return bad("%w: the receiver of key %s shows no id", ErrEntry, t.Key.ID)
}

// announcedMove checks the intents of a transfer.
func (c *checker) announcedMove(d *Intent) error {
	if !opens(c.progress[d.Safe]) || c.tokens[d.Safe] != d.Token || d.Object == "" {
		return bad("%w: %s of key %.40q is announced outside an open safe", ErrEntry, d.Effect, d.Key)
	}
	_, known := c.intents[d.Object]
	switch d.Effect {
	case "receiver":
		if known || d.Key != "" || c.do != "key.transfer" {
			return bad("%w: a receiver is announced out of order", ErrEntry)
		}
	case "transfer":
		if known || d.Key == "" || c.do != "key.transfer" {
			return bad("%w: key %.40q is announced twice", ErrEntry, d.Key)
		}
	case "destroy":
		t, ok := c.moved[d.Key]
		if f, found := c.found[d.Key]; found && c.do == "key.find" {
			t, ok = Transferred{Object: f.Object, From: f.From}, true
		}
		source := ok && t.Object == d.Object && t.From == Place{d.Safe, d.Token} && c.proven[d.Key]
		receiver := d.Key == "" && known && c.intents[d.Object] == intent{"", d.Safe, d.Token}
		if c.do != "keys.prove" && c.do != "key.find" || !source && !receiver {
			return bad("%w: key %.40q is destroyed before it is proven where it went, or is another one", ErrEntry, d.Key)
		}
		c.ending = *d
		at := Place{d.Safe, d.Token}
		c.leaving[at] = append(c.leaving[at], d.Object)
		return nil
	}
	c.intents[d.Object] = intent{d.Key, d.Safe, d.Token}
	return nil
}

// removed takes the proof that what was announced is gone.
func (c *checker) removed(d *Removed) error {
	if c.ending != (Intent{Effect: "destroy", Key: d.Key, Object: d.Object, Safe: d.Safe, Token: d.Token}) || d.Left != 0 {
		return bad("%w: object %.40q was destroyed without an intent, or is still there", ErrEntry, d.Object)
	}
	c.ending = Intent{}
	c.gone[Place{d.Safe, d.Token}] = append(c.gone[Place{d.Safe, d.Token}], d.Object)
	return nil
}

// checkTransfers wants exactly the moves of the script: each key out of its token
// of the charter, for a receiver that the charter names, with a receipt of both
// ends, proven where it went, and gone where it was.
func (c *checker) checkTransfers() error {
	n := 0
	for _, st := range c.script.Run {
		if st.Do != "key.transfer" {
			continue
		}
		n++
		t, ok := c.moved[st.Key]
		if !ok || t.From.Safe != st.Safe || t.To.Safe != st.To || !c.proven[st.Key] {
			return bad("%w: key %.40q was not moved as the script says", ErrRecord, st.Key)
		}
		if err := c.checkTransfer(&t); err != nil {
			return err
		}
	}
	if n != len(c.moved) {
		return bad("%w: %d keys were moved, the script moves %d", ErrRecord, len(c.moved), n)
	}
	for object, x := range c.intents {
		at := Place{x.safe, x.token}
		if x.key == "" && !slices.Contains(c.gone[at], object) {
			return bad("%w: the receiver key in safe %s was not destroyed", ErrRecord, x.safe)
		}
	}
	return nil
}

func (c *checker) checkTransfer(t *Transferred) error {
	r := c.Charter.Receivers[t.To.Safe]
	after := c.base.Keys[t.Key.ID]
	after.Token = t.To.Token
	switch {
	case !c.leftHome(t):
		return bad("%w: key %s is not the one of the charter, or left another token", ErrRecord, t.Key.ID)
	case !sameKey(after, c.Charter.Keys[t.Key.ID]):
		return bad("%w: the charter does not say where key %s is now", ErrRecord, t.Key.ID)
	case string(r.Key) != string(t.Receiver) || r.Record != Origin(c.Open.Record):
		return bad("%w: key %s was wrapped for another receiver than the charter names", ErrRecord, t.Key.ID)
	case !slices.Contains(c.gone[t.From], t.Object):
		return bad("%w: key %s is still where it was", ErrRecord, t.Key.ID)
	}
	return c.checkReceipts(t)
}

// leftHome says whether the key is the charter's and left its token there for that of
// another safe.
func (c *checker) leftHome(t *Transferred) bool {
	was := c.base.Keys[t.Key.ID]
	return sameKey(was, t.Key) && was.Token == t.From.Token && c.base.Epochs[t.From.Safe].Token == t.From.Token && c.base.Epochs[t.To.Safe].Token == t.To.Token
}

// checkReceipts wants the signatures of as many as open each of the two safes.
func (c *checker) checkReceipts(t *Transferred) error {
	for _, x := range []struct {
		side, safe string
		env        *envelope.Envelope
	}{{Gives, t.From.Safe, &t.Gave}, {Receives, t.To.Safe, &t.Received}} {
		safe, ok := c.base.People.Safe(x.safe)
		if !ok {
			return bad("%w: the charter knows no safe %.40q", ErrRecord, x.safe)
		}
		var keys []envelope.Key
		for _, m := range safe.Openers.Members {
			if p, ok := c.base.People.Person(m); ok {
				keys = append(keys, envelope.Key{Name: m, Public: p.Person.PublicKey()})
			}
		}
		payload, _, err := envelope.Verify(x.env, TransferType, keys, safe.Openers.Need)
		if err != nil {
			return bad("%w: receipt for key %s by those who open safe %s: %w", ErrRecord, t.Key.ID, x.safe, err)
		}
		want, err := jcs.Marshal(t.Receipt(Origin(c.Open.Record), c.Open.World, x.side))
		if err != nil {
			return err
		}
		if string(payload) != string(want) {
			return bad("%w: the receipt for key %s is for something else", ErrRecord, t.Key.ID)
		}
	}
	return nil
}
