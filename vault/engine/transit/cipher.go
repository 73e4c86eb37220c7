package transit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"slices"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
)

// MaxPlaintextBytes bounds one plaintext.
const MaxPlaintextBytes = 16 << 20

// aead is the cipher of a version: AES-256-GCM with a random nonce of 12 bytes
// before the ciphertext.
func (c *call) aead(n int) (cipher.AEAD, error) {
	if c.typ != typeAES {
		return nil, ErrType
	}
	s, err := c.version(n)
	if err != nil {
		return nil, err
	}
	b, err := aes.NewCipher(s.Secret)
	if err != nil {
		return nil, fault.New(fault.Verify, "a key in the store is not one")
	}
	return cipher.NewGCMWithRandomNonce(b)
}

func (c *call) seal(plain []byte, p engine.Params) (map[string]any, error) {
	if len(plain) > MaxPlaintextBytes {
		return nil, fault.Errorf(fault.Usage, "plaintext of %d bytes is over the limit of %d", len(plain), MaxPlaintextBytes)
	}
	ad, err := p.Bytes("associated_data")
	if err != nil {
		return nil, err
	}
	n, err := c.forNew(p)
	if err != nil {
		return nil, err
	}
	a, err := c.aead(n)
	if err != nil {
		return nil, err
	}
	c.sealed[n]++
	c.last = n
	out := a.Seal(nil, nil, plain, ad) //nolint:gosec // the cipher draws its nonces itself and takes none
	return map[string]any{"ciphertext": prefix(n) + base64.StdEncoding.EncodeToString(out), "key_version": n}, nil
}

func (c *call) open(p engine.Params) ([]byte, error) {
	s, err := p.String("ciphertext")
	if err != nil {
		return nil, err
	}
	ad, err := p.Bytes("associated_data")
	if err != nil {
		return nil, err
	}
	n, rest, err := c.parseMade(s)
	if err != nil {
		return nil, err
	}
	a, err := c.aead(n)
	if err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(rest)
	if err != nil {
		return nil, ErrCiphertext
	}
	plain, err := a.Open(nil, nil, raw, ad)
	if err != nil {
		return nil, ErrCiphertext
	}
	c.last = n
	return plain, nil
}

func (c *call) encrypt(p engine.Params) (map[string]any, error) {
	if !p.Has("plaintext") {
		return nil, fault.New(fault.Usage, `parameter "plaintext" is missing`)
	}
	plain, err := p.Bytes("plaintext")
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return c.seal(plain, p)
}

func (c *call) decrypt(p engine.Params) (map[string]any, error) {
	plain, err := c.open(p)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)}, nil
}

// rewrap encrypts again under the newest version, without showing the plaintext.
func (c *call) rewrap(p engine.Params) (map[string]any, error) {
	plain, err := c.open(p)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return c.seal(plain, p)
}

// planDataKey draws a key for the caller's own use, encrypted under the named one,
// and in clear too where the path says so.
func (e *Engine) planDataKey(r *engine.Request, rest []string) (*engine.Plan, error) {
	if len(rest) != 2 || rest[0] != "plaintext" && rest[0] != "wrapped" || r.Method != engine.Write {
		return nil, engine.ErrNoPath
	}
	v := verb{item: []string{"associated_data", "bits", "context", "key_version", "nonce"}}
	if err := r.Params.Only(v.item...); err != nil {
		return nil, err
	}
	bits, err := r.Params.Int("bits")
	if err != nil {
		return nil, err
	}
	if bits == 0 {
		bits = 256
	}
	if !slices.Contains([]int64{128, 256, 512}, bits) {
		return nil, fault.New(fault.Usage, "a data key has 128, 256 or 512 bits")
	}
	v.once = func(c *call, p engine.Params) (map[string]any, error) {
		k := make([]byte, bits/8)
		defer clear(k)
		rand.Read(k)
		out, err := c.seal(k, p)
		if err == nil && rest[0] == "plaintext" {
			out["plaintext"] = base64.StdEncoding.EncodeToString(k)
		}
		return out, err
	}
	w := &work{engine: e, call: &call{params: r.Params, sealed: map[int]int64{}}, verb: v, name: rest[1], items: []engine.Params{r.Params}}
	p := w.plan(map[string]any{"bits": bits, "plaintext": rest[0] == "plaintext"})
	p.Needs = access.Update
	return p, nil
}
