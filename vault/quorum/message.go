package quorum

import (
	"crypto/ed25519"
	"encoding/json"
	"io"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

// Descriptors of the child, besides the standard ones.
const (
	fdPassphrases = 3 // one line for each opener, in order
	fdPINs        = 4 // where derived PINs go
)

// Operations of the child.
const (
	opDeal    = "deal"
	opReceipt = "receipt"
	opOpen    = "open"
	opCheck   = "check"
)

// request is all that the child is told. It holds no secret in the clear.
type request struct {
	Op    string                       `json:"op"`
	Vault string                       `json:"vault"`
	World world.World                  `json:"world"`
	Epoch charter.Epoch                `json:"epoch"` // deal: without public halves
	Keys  map[string]ed25519.PublicKey `json:"keys"`  // person keys by name

	Recipients map[string]string `json:"recipients,omitempty"` // deal: age recipients by name
	HSMRandom  []byte            `json:"hsm_random,omitempty"` // deal

	Openers   []opener `json:"openers,omitempty"`
	Operation string   `json:"operation,omitempty"` // open: hex SHA-256
	Nonce     []byte   `json:"nonce,omitempty"`     // open
}

type opener struct {
	Key   []byte `json:"key"`   // NAME.key file
	Share []byte `json:"share"` // NAME.share file
}

// response is the child's one answer.
type response struct {
	Shares    []charter.Share      `json:"shares,omitempty"`
	Files     map[string][]byte    `json:"files,omitempty"` // share files by holder
	Envelopes []*envelope.Envelope `json:"envelopes,omitempty"`
	Holders   []string             `json:"holders,omitempty"`
	Error     *remoteError         `json:"error,omitempty"`
}

type remoteError struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (e *remoteError) err() error {
	return fault.Hint(fault.New(fault.Class(e.Class), e.Message), e.Hint)
}

func toRemote(err error) *remoteError {
	return &remoteError{Class: string(fault.ClassOf(err)), Message: err.Error(), Hint: fault.HintOf(err)}
}

func send(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
