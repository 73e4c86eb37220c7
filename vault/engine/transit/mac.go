package transit

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strconv"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

func (c *call) macScheme() (err error) {
	c.how.hash, err = hashOf(c.hash)
	return err
}

// sum is the HMAC of the input under a version: a key of type hmac is used as it
// is, all others have one beside them for this.
func (c *call) sum(n int, p engine.Params) ([]byte, error) {
	if c.token != "" {
		return nil, ErrType
	}
	if !p.Has("input") {
		return nil, fault.New(fault.Usage, `parameter "input" is missing`)
	}
	in, err := p.Bytes("input")
	if err != nil {
		return nil, err
	}
	s, err := c.version(n)
	if err != nil {
		return nil, err
	}
	k := s.MAC
	if c.typ == typeHMAC {
		k = s.Secret
	}
	m := hmac.New(func() hash.Hash { return c.how.hash.New() }, k)
	m.Write(in)
	return m.Sum(nil), nil
}

func (c *call) hmac(p engine.Params) (map[string]any, error) {
	n, err := c.forNew(c.params)
	if err != nil {
		return nil, err
	}
	sum, err := c.sum(n, p)
	if err != nil {
		return nil, err
	}
	c.last = n
	return map[string]any{"hmac": prefix(n) + base64.StdEncoding.EncodeToString(sum)}, nil
}

func (c *call) verifyMAC(p engine.Params, mac string) (map[string]any, error) {
	n, rest, err := c.parseMade(mac)
	if err != nil {
		return nil, err
	}
	got, err := base64.StdEncoding.Strict().DecodeString(rest)
	if err != nil {
		return nil, fault.New(fault.Usage, `parameter "hmac" is not base64`)
	}
	want, err := c.sum(n, p)
	if err != nil {
		return nil, err
	}
	c.last = n
	return map[string]any{"valid": hmac.Equal(got, want)}, nil
}

// planHash hashes for clients that have no hash function.
func planHash(r *engine.Request, rest []string) (*engine.Plan, error) {
	if len(rest) > 1 || r.Method != engine.Write {
		return nil, engine.ErrNoPath
	}
	if err := r.Params.Only("algorithm", "format", "hash_algorithm", "input"); err != nil {
		return nil, err
	}
	name, err := hashName(r.Params, rest, true)
	if err != nil {
		return nil, err
	}
	h, err := hashOf(name)
	if err != nil {
		return nil, err
	}
	in, err := r.Params.Bytes("input")
	if err != nil {
		return nil, err
	}
	show, err := encoder(r.Params, "hex")
	if err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Update, Shown: map[string]any{"hash": h.String()}, Apply: func(*seal.Tx) (*engine.Answer, error) {
		w := h.New()
		w.Write(in)
		return &engine.Answer{Data: map[string]any{"sum": show(w.Sum(nil))}}, nil
	}}, nil
}

// encoder is the encoding that "format" asks for.
func encoder(p engine.Params, otherwise string) (func([]byte) string, error) {
	f, err := p.String("format")
	if err != nil {
		return nil, err
	}
	if f == "" {
		f = otherwise
	}
	switch f {
	case "hex":
		return hex.EncodeToString, nil
	case "base64":
		return base64.StdEncoding.EncodeToString, nil
	}
	return nil, fault.New(fault.Usage, `parameter "format" is neither hex nor base64`)
}

// Bounds of random bytes: of the host, and of a token.
const (
	maxRandom      = 128 << 10
	maxTokenRandom = 4096
	defaultRandom  = 32
)

// planRandom draws random bytes: of this host (platform), of the token (seal), or
// of both, so that either is enough (all).
func (e *Engine) planRandom(r *engine.Request, rest []string) (*engine.Plan, error) {
	source, n, err := readRandom(r, rest)
	if err != nil {
		return nil, err
	}
	show, err := encoder(r.Params, "base64")
	if err != nil {
		return nil, err
	}
	var out []byte
	p := &engine.Plan{Needs: access.Update, Shown: map[string]any{"bytes": n, "source": source}}
	p.Work = func(ctx context.Context) error {
		out = make([]byte, n)
		if source != "seal" {
			rand.Read(out)
		}
		if source == "platform" {
			return nil
		}
		if e.host.Token == nil {
			return fault.New(fault.Sealed, "no token is open")
		}
		b, err := e.host.Token.Random(ctx, n)
		if err != nil {
			return err
		}
		if len(b) != n {
			return fault.New(fault.Token, "the token gave fewer random bytes than it was asked for")
		}
		for i := range out {
			out[i] ^= b[i]
		}
		clear(b)
		return nil
	}
	p.Apply = func(*seal.Tx) (*engine.Answer, error) {
		defer clear(out)
		return &engine.Answer{Data: map[string]any{"random_bytes": show(out)}}, nil
	}
	return p, nil
}

// readRandom reads random, random/BYTES, random/SOURCE and random/SOURCE/BYTES.
func readRandom(r *engine.Request, rest []string) (source string, n int, err error) {
	if len(rest) > 2 || r.Method != engine.Write {
		return "", 0, engine.ErrNoPath
	}
	if err := r.Params.Only("bytes", "format", "source"); err != nil {
		return "", 0, err
	}
	if source, err = r.Params.String("source"); err != nil {
		return "", 0, err
	}
	bytes, err := r.Params.Int("bytes")
	if err != nil {
		return "", 0, err
	}
	for _, s := range rest {
		if v, err := strconv.ParseUint(s, 10, 31); err == nil {
			bytes = int64(v)
		} else {
			source = s
		}
	}
	if source == "" {
		source = "platform"
	}
	limit := int64(maxTokenRandom)
	switch source {
	case "platform":
		limit = maxRandom
	case "seal", "all":
	default:
		return "", 0, engine.ErrNoPath
	}
	if bytes == 0 {
		bytes = defaultRandom
	}
	if bytes < 1 || bytes > limit {
		return "", 0, fault.Errorf(fault.Usage, "%d random bytes: 1 to %d are given", bytes, limit)
	}
	return source, int(bytes), nil
}
