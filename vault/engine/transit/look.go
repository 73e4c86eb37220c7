package transit

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strconv"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// looked is a key as clients are shown it, with the members that they read.
type looked struct {
	AllowBackup     bool           `json:"allow_plaintext_backup"`
	AutoRotate      int            `json:"auto_rotate_period"`
	DeletionAllowed bool           `json:"deletion_allowed"`
	Derived         bool           `json:"derived"`
	Exportable      bool           `json:"exportable"`
	Imported        bool           `json:"imported_key"`
	Keys            map[string]any `json:"keys"` // by version
	Latest          int            `json:"latest_version"`
	MinAvailable    int            `json:"min_available_version"`
	MinDecryption   int            `json:"min_decryption_version"`
	MinEncryption   int            `json:"min_encryption_version"`
	Name            string         `json:"name"`
	Decrypts        bool           `json:"supports_decryption"`
	Derives         bool           `json:"supports_derivation"`
	Encrypts        bool           `json:"supports_encryption"`
	Signs           bool           `json:"supports_signing"`
	Type            string         `json:"type"`
}

// lookedVersion is a version of a key that has a public half.
type lookedVersion struct {
	Chain   string `json:"certificate_chain"`
	Created string `json:"creation_time"`
	Name    string `json:"name"`
	Public  string `json:"public_key"`
}

// planLook shows a key without its secrets.
func (e *Engine) planLook(r *engine.Request, name string) (*engine.Plan, error) {
	if err := r.Params.Only(); err != nil {
		return nil, err
	}
	var out *looked
	return &engine.Plan{
		Needs: access.Read,
		Work: func(context.Context) error {
			u, err := e.use(name)
			if err != nil {
				return err
			}
			defer u.wipe()
			out, err = u.look()
			return err
		},
		Apply: func(*seal.Tx) (*engine.Answer, error) { return &engine.Answer{Data: out}, nil },
	}, nil
}

func (u *keyUse) look() (*looked, error) {
	symmetric := slices.Contains([]string{typeAES, typeHMAC}, u.typ)
	out := &looked{
		Keys: map[string]any{}, Latest: u.latest, MinDecryption: u.minDec, MinEncryption: u.minEnc, Name: u.name,
		Decrypts: u.typ == typeAES, Encrypts: u.typ == typeAES, Signs: !symmetric, Type: u.typ,
	}
	for n := u.minDec; n <= u.latest; n++ {
		created := ""
		if u.token == "" {
			s, err := u.version(n)
			if err != nil {
				return nil, err
			}
			created = s.Created
		}
		if symmetric {
			t, err := charter.ParseTime(created)
			if err != nil {
				return nil, err
			}
			out.Keys[strconv.Itoa(n)] = t.Unix()
			continue
		}
		pub, der, err := u.public(n)
		if err != nil {
			return nil, err
		}
		out.Keys[strconv.Itoa(n)] = lookedVersion{Created: created, Name: shownName(u.typ), Public: shownPublic(pub, der)}
	}
	return out, nil
}

// shownName is how clients are told the kind of a key.
func shownName(typ string) string {
	switch typ {
	case typeP256:
		return "P-256"
	case typeP384:
		return "P-384"
	}
	return typ
}

// shownPublic is PEM, but for Ed25519, whose clients want the 32 bytes in base64.
func shownPublic(pub crypto.PublicKey, der []byte) string {
	if k, ok := pub.(ed25519.PublicKey); ok {
		return base64.StdEncoding.EncodeToString(k)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
