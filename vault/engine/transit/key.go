package transit

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// key is a key as the charter has it now.
type key struct {
	name   string
	typ    string
	latest int
	minEnc int // oldest version that encrypts and signs
	minDec int // oldest that decrypts and verifies
	token  string
	record *anchor.KeyRecord // of the version in force, for a key in a token
}

// tokenTypes are the names that clients know, by the algorithms of key records.
func tokenTypes() map[string]string {
	return map[string]string{
		anchor.P256: typeP256, anchor.P384: typeP384, anchor.Ed25519: typeEd25519,
		anchor.RSA3072: typeRSA, anchor.RSA3072PSS: typeRSA, anchor.RSA4096: typeRSA4096, anchor.RSA4096PSS: typeRSA4096,
	}
}

// key looks a key up. One that is in a token has one version for each key that
// stood for it, and only the one in force is of use.
func (e *Engine) key(name string) (*key, error) {
	c := e.host.Charter()
	st, ok := c.Transit[charter.At(e.host.Mount, name)]
	if !ok {
		return nil, engine.ErrNotThere
	}
	if s := st.Software; s != nil {
		return &key{name: name, typ: s.Type, latest: s.Versions, minEnc: s.MinEncryption, minDec: s.MinDecryption}, nil
	}
	first, ok := c.Keys[st.TokenKey]
	if !ok {
		return nil, engine.ErrNotThere
	}
	rec, err := c.Key(st.TokenKey, first.Domain)
	if err != nil {
		return nil, err
	}
	n := len(c.Line(st.TokenKey))
	return &key{name: name, typ: tokenTypes()[rec.Algorithm], latest: n, minEnc: n, minDec: n, token: st.TokenKey, record: rec}, nil
}

// same says whether the charter still says the same of a key.
func (k *key) same(had *key) bool {
	return k.typ == had.typ && k.latest == had.latest && k.minEnc == had.minEnc && k.minDec == had.minDec && k.token == had.token &&
		(k.record == nil) == (had.record == nil) && (k.record == nil || k.record.ID == had.record.ID)
}

// byName is the key and its stored versions, loaded as they are needed. It is for
// one request.
type keyUse struct {
	*key
	engine   *Engine
	versions map[int]*stored
}

func (e *Engine) use(name string) (*keyUse, error) {
	k, err := e.key(name)
	return &keyUse{key: k, engine: e, versions: map[int]*stored{}}, err
}

func (u *keyUse) wipe() {
	for _, s := range u.versions {
		s.wipe()
	}
}

// version loads one version of a software key.
func (u *keyUse) version(n int) (*stored, error) {
	if s, ok := u.versions[n]; ok {
		return s, nil
	}
	var s *stored
	err := u.engine.host.View(func(v *seal.View) error {
		raw, err := v.Get(u.engine.bucket(), place(u.name, n))
		if errors.Is(err, seal.ErrNotFound) {
			return fault.Errorf(fault.Unexpected, "version %d of key %s is in the charter and not in the store", n, u.name)
		}
		if err != nil {
			return err
		}
		defer clear(raw)
		s, err = parseStored(raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.Type != u.typ {
		s.wipe()
		return nil, fault.Errorf(fault.Unexpected, "version %d of key %s is of another type in the store", n, u.name)
	}
	u.versions[n] = s
	return s, nil
}

// signer is a version's private half, here or in the token.
func (u *keyUse) signer(ctx context.Context, n int) (crypto.Signer, error) {
	if u.token == "" {
		s, err := u.version(n)
		if err != nil {
			return nil, err
		}
		return s.signer()
	}
	if u.engine.host.Token == nil {
		return nil, fault.New(fault.Sealed, "the token of this key is not open")
	}
	k, rec, err := u.engine.host.Token.Signer(ctx, u.token)
	if err != nil {
		return nil, err
	}
	if rec.ID != u.record.ID {
		return nil, fault.New(fault.Policy, "the key was succeeded while this was decided; ask again")
	}
	return k.Within(ctx), nil
}

// public is a version's public half, with its DER.
func (u *keyUse) public(n int) (crypto.PublicKey, []byte, error) {
	var der []byte
	if u.token != "" {
		der = u.record.Public
	} else {
		s, err := u.version(n)
		if err != nil {
			return nil, nil, err
		}
		der = s.Public
	}
	if len(der) == 0 {
		return nil, nil, ErrType
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, nil, fault.Errorf(fault.Verify, "public half of key %s: %w", u.name, err)
	}
	return pub, der, nil
}

// forNew is the version that a request to encrypt or sign wants: 0 or none is the
// newest.
func (k *key) forNew(p engine.Params) (int, error) {
	n, err := p.Int("key_version")
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return k.latest, nil
	case n < int64(k.minEnc) || n > int64(k.latest):
		return 0, fault.Errorf(fault.Policy, "%w: %d, it is %d to %d", ErrVersion, n, k.minEnc, k.latest)
	}
	return int(n), nil
}

// prefix is what stands before whatever the engine makes: which version made it.
func prefix(n int) string { return fmt.Sprintf("vault:v%d:", n) }

// parseMade takes apart what the engine made: its version, if that may still be
// used, and the rest.
func (k *key) parseMade(s string) (n int, rest string, err error) {
	num, rest, ok := strings.Cut(strings.TrimPrefix(s, "vault:v"), ":")
	n, err = strconv.Atoi(num)
	if !ok || !strings.HasPrefix(s, "vault:v") || err != nil || n < 1 || num != strconv.Itoa(n) {
		return 0, "", fault.New(fault.Usage, `it does not begin with "vault:vN:"`)
	}
	if n < k.minDec || n > k.latest {
		return 0, "", fault.Errorf(fault.Policy, "%w: %d, it is %d to %d", ErrVersion, n, k.minDec, k.latest)
	}
	return n, rest, nil
}
