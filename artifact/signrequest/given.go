package signrequest

import (
	"crypto"
	"io"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
)

// Elsewhere is the key of a person who signs on another machine: ask gets every
// message and returns the signature from his answer. It opens no secrets.
func Elsewhere(p *person.Person, ask func(message []byte) ([]byte, error), release func()) (*person.Key, error) {
	return person.Card(p, &remote{p, ask}, nil, release)
}

// remote is a crypto.MessageSigner: who answers must see the message.
type remote struct {
	person *person.Person
	ask    func([]byte) ([]byte, error)
}

// Public implements crypto.Signer.
func (r *remote) Public() crypto.PublicKey { return r.person.PublicKey() }

// Sign is refused: a digest says nothing to the one who is to read it.
func (r *remote) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fault.Errorf(fault.Unexpected, "%s signs messages, not digests", r.person.Name)
}

// SignMessage implements crypto.MessageSigner.
func (r *remote) SignMessage(_ io.Reader, msg []byte, _ crypto.SignerOpts) ([]byte, error) {
	return r.ask(msg)
}
