package quorum

import (
	"bufio"
	"encoding/hex"
	"os"

	"filippo.io/age"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/internal/cli"
)

// intake reads the openers' secrets in the child, in their order.
type intake struct {
	secrets *cli.Secrets
	keys    *bufio.Reader
}

func newIntake() *intake {
	return &intake{cli.NewSecrets(cli.IO{}, fdPassphrases), bufio.NewReader(os.NewFile(fdKeys, "keys"))}
}

// holder is an opener in the child. key is nil if it stays on a card.
type holder struct {
	name     string
	key      *person.Key
	identity age.Identity
}

func (h *holder) zero() {
	if h.key != nil {
		h.key.Zero()
	}
	if f, ok := h.identity.(fileKey); ok {
		clear(f)
	}
}

// fileKey opens one age file, whose key it is.
type fileKey []byte

// Unwrap implements age.Identity.
func (f fileKey) Unwrap([]*age.Stanza) ([]byte, error) { return append([]byte{}, f...), nil }

func (in *intake) holder(o opener) (*holder, error) {
	switch o.How {
	case howPassphrase:
		pass, err := in.secrets.Next("passphrase")
		if err != nil {
			return nil, err
		}
		defer pass.Zero()
		k, err := person.Open(o.Key, pass.Bytes())
		if err != nil {
			return nil, err
		}
		return &holder{k.Public().Name, k, k.Identity()}, nil
	case howKey:
		line, err := in.line()
		if err != nil {
			return nil, err
		}
		defer clear(line)
		k, err := person.FromHandle(line)
		if err != nil {
			return nil, err
		}
		return &holder{k.Public().Name, k, k.Identity()}, nil
	case howCard:
		line, err := in.line()
		if err != nil {
			return nil, err
		}
		defer clear(line)
		key := make([]byte, hex.DecodedLen(len(line)))
		if _, err := hex.Decode(key, line); err != nil {
			return nil, fault.New(fault.Unexpected, "read file key")
		}
		return &holder{o.Name, nil, fileKey(key)}, nil
	}
	return nil, fault.New(fault.Unexpected, "unknown kind of key")
}

func (in *intake) line() ([]byte, error) {
	line, err := in.keys.ReadBytes('\n')
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "read key: %w", err)
	}
	return line[:len(line)-1], nil
}
