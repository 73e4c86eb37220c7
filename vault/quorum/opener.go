package quorum

import (
	"bytes"
	"encoding/hex"
	"os"

	"filippo.io/age"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/share"
)

// Opener is what one key master hands in: his share file and his key. The key is
// either his key file, whose passphrase the child reads, or Unlocked, which the
// caller opened once and keeps; that one goes to the child over a pipe, or stays
// on its card.
type Opener struct {
	Key, Share []byte
	Unlocked   *person.Key
}

// message is what the child is told of o, and the line it gets on fdKeys, which
// the caller wipes.
func (o Opener) message() (opener, []byte, error) {
	if o.Unlocked == nil {
		return opener{How: howPassphrase, Key: o.Key, Share: o.Share}, nil, nil
	}
	if !o.Unlocked.OnCard() {
		line, err := o.Unlocked.Handle()
		return opener{How: howKey, Share: o.Share}, line, err
	}
	c := &catch{identity: o.Unlocked.Identity()}
	defer c.zero()
	name := o.Unlocked.Public().Name
	if _, err := age.Decrypt(bytes.NewReader(o.Share), c); err != nil {
		if class := fault.ClassOf(err); class != fault.Unexpected { // of the card itself
			return opener{}, nil, fault.Errorf(class, "card of %s: %w", name, err)
		}
		return opener{}, nil, fault.Errorf(fault.Verify, "share of %s: %w", name, share.ErrSealed)
	}
	return opener{How: howCard, Name: name, Share: o.Share}, hex.AppendEncode(nil, c.key), nil
}

// catch keeps the file key that an identity finds.
type catch struct {
	identity age.Identity
	key      []byte
}

// Unwrap implements age.Identity.
func (c *catch) Unwrap(s []*age.Stanza) ([]byte, error) {
	key, err := c.identity.Unwrap(s)
	c.key = bytes.Clone(key)
	return key, err
}

func (c *catch) zero() { clear(c.key) }

// messages are all openers' messages, and the pipe that gives the child their
// lines; nil if there are none. The caller closes it.
func messages(list []Opener) ([]opener, *os.File, error) {
	var out []opener
	var lines [][]byte
	for _, o := range list {
		m, line, err := o.message()
		if err != nil {
			wipe(lines)
			return nil, nil, err
		}
		out = append(out, m)
		if line != nil {
			lines = append(lines, line)
		}
	}
	if lines == nil {
		return out, nil, nil
	}
	f, err := pipeOf(lines)
	return out, f, err
}

func wipe(lines [][]byte) {
	for _, l := range lines {
		clear(l)
	}
}

// pipeOf returns the read end of a pipe into which the lines are written and then
// wiped. Closing it ends the writing.
func pipeOf(lines [][]byte) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		wipe(lines)
		return nil, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	go func() {
		defer w.Close()
		defer wipe(lines)
		for _, l := range lines {
			if _, err := w.Write(l); err != nil {
				return // the child is gone and says why
			}
			if _, err := w.Write([]byte{'\n'}); err != nil {
				return
			}
		}
	}()
	return r, nil
}

// complete adds the card's signature to an answer that lacks it.
func (o Opener) complete(env *envelope.Envelope) error {
	if o.Unlocked == nil || !o.Unlocked.OnCard() {
		return nil
	}
	return env.Add(o.Unlocked.Signer())
}
