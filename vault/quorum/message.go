package quorum

import (
	"encoding/json"
	"io"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/share"
	"keyrite/artifact/world"
	"keyrite/vault/unattended"
)

// Descriptors of the child, besides the standard ones.
const (
	fdPassphrases = 3 // one line for each opener, in order
	fdPINs        = 4 // where derived PINs go
	fdKeys        = 5 // one line for each opener whose key is unsealed already, in order; or an attempt's one-time key
	fdData        = 6 // where the store's data key, or the one-time key of an attempt, goes
)

// Operations of the child.
const (
	opDeal    = "deal"
	opReceipt = "receipt"
	opOpen    = "open"
	opCheck   = "check"
	opProve   = "prove"

	opOnce       = "once"
	opContribute = "contribute"
	opWeigh      = "weigh"
	opJoin       = "join"
	opRestart    = "restart"
)

// request is all that the child is told. It holds no secret in the clear.
type request struct {
	Op     string                    `json:"op"`
	Vault  string                    `json:"vault"`
	World  world.World               `json:"world"`
	Epoch  charter.Epoch             `json:"epoch"`  // deal: without public halves
	People map[string]*person.Person `json:"people"` // by name

	Recipients map[string]string `json:"recipients,omitempty"` // deal: age recipients by name
	HSMRandom  []byte            `json:"hsm_random,omitempty"` // deal

	Openers   []opener `json:"openers,omitempty"`
	Operation string   `json:"operation,omitempty"` // open: hex SHA-256
	SO        bool     `json:"so,omitempty"`        // open: the SO PIN too
	Nonce     []byte   `json:"nonce,omitempty"`     // open

	Challenge *share.Challenge `json:"challenge,omitempty"` // prove

	Recipient     string         `json:"recipient,omitempty"`     // contribute: to whom the share is encrypted
	Contributions []Contribution `json:"contributions,omitempty"` // weigh, join
	Wrapped       []byte         `json:"wrapped,omitempty"`       // join: the data key; without it a new one is drawn
	StoreEpoch    uint32         `json:"store_epoch,omitempty"`   // join
	KeyOnly       bool           `json:"key_only,omitempty"`      // join: the data key and no PIN

	Keep       *unattended.Asked `json:"keep,omitempty"`       // join: for a restart; the authorisation is a line of fdKeys
	Unattended []byte            `json:"unattended,omitempty"` // restart: the file
	TPM        string            `json:"tpm,omitempty"`        // restart: its address
}

type opener struct {
	How   string `json:"how"`
	Key   []byte `json:"key,omitempty"`  // how passphrase: NAME.key file
	Name  string `json:"name,omitempty"` // how card
	Share []byte `json:"share"`          // NAME.share file
}

// How an opener's key reaches the child.
const (
	howPassphrase = "passphrase" // the key file here, its passphrase on fdPassphrases
	howKey        = "key"        // the unsealed key on fdKeys
	howCard       = "card"       // the key stays on its card: the share's file key on fdKeys, and the parent has the card sign
)

// response is the child's one answer.
type response struct {
	Shares    []charter.Share      `json:"shares,omitempty"`
	Files     map[string][]byte    `json:"files,omitempty"` // share files by holder
	Envelopes []*envelope.Envelope `json:"envelopes,omitempty"`
	Holders   []string             `json:"holders,omitempty"`
	Wrapped   []byte               `json:"wrapped,omitempty"`   // join
	Recipient string               `json:"recipient,omitempty"` // once
	Kept      []byte               `json:"kept,omitempty"`      // join: the file
	NotKept   *remoteError         `json:"not_kept,omitempty"`  // join: why there is none
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
