package transit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha3" // registers its hashes
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"slices"
	"strconv"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
)

// hashes are those that clients may name. SHA-1 is none of them.
func hashes() map[string]crypto.Hash {
	return map[string]crypto.Hash{
		"sha2-224": crypto.SHA224, "sha2-256": crypto.SHA256, "sha2-384": crypto.SHA384, "sha2-512": crypto.SHA512,
		"sha3-224": crypto.SHA3_224, "sha3-256": crypto.SHA3_256, "sha3-384": crypto.SHA3_384, "sha3-512": crypto.SHA3_512,
	}
}

// hashOf is the hash of that name; "" is SHA-256.
func hashOf(name string) (crypto.Hash, error) {
	if name == "" {
		name = "sha2-256"
	}
	h, ok := hashes()[name]
	if !ok {
		return 0, fault.Errorf(fault.Usage, "hash %.20q is not known here; sha2-256 is", name)
	}
	return h, nil
}

// scheme is how a request wants to sign.
type scheme struct {
	hash      crypto.Hash
	prehashed bool
	jws       bool
	pss       bool
}

// scheme reads it, and holds it against the type of the key.
func (c *call) scheme() error {
	if !slices.Contains([]string{typeP256, typeP384, typeEd25519, typeRSA, typeRSA4096, typeHMAC, typeAES}, c.typ) {
		return ErrType
	}
	var err error
	if c.how.hash, err = hashOf(c.hash); err != nil {
		return err
	}
	if c.how.prehashed, err = c.params.Bool("prehashed"); err != nil {
		return err
	}
	if err := c.marshaling(); err != nil {
		return err
	}
	return c.padding()
}

func (c *call) marshaling() error {
	m, err := c.params.String("marshaling_algorithm")
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"", "asn1", "jws"}, m) {
		return fault.New(fault.Usage, `parameter "marshaling_algorithm" is neither asn1 nor jws`)
	}
	c.how.jws = m == "jws"
	return nil
}

// padding reads what is of RSA alone; clients send it with every key.
func (c *call) padding() error {
	alg, err := c.params.String("signature_algorithm")
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"", "pss", "pkcs1v15"}, alg) {
		return fault.New(fault.Usage, `parameter "signature_algorithm" is neither pss nor pkcs1v15`)
	}
	salt, err := c.params.String("salt_length")
	if n, ierr := c.params.Int("salt_length"); err != nil && ierr == nil {
		salt, err = strconv.FormatInt(n, 10), nil
	}
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"", "auto", "hash", strconv.Itoa(c.how.hash.Size())}, salt) {
		return fault.New(fault.Usage, "a salt is as long as the hash here")
	}
	c.how.pss = alg != "pkcs1v15"
	if c.record != nil {
		_, pss := anchor.SignerOpts(c.record.Algorithm).(*rsa.PSSOptions)
		if alg != "" && c.how.pss != pss && (c.typ == typeRSA || c.typ == typeRSA4096) {
			return fault.New(fault.Usage, "a key in a token has one padding for life, and this has the other")
		}
		c.how.pss = pss
	}
	return nil
}

// options are what a crypto.Signer of the key's type is told.
func (c *call) options() (crypto.SignerOpts, error) {
	h := c.how
	switch c.typ {
	case typeEd25519:
		switch {
		case !h.prehashed:
			return &ed25519.Options{}, nil
		case h.hash == crypto.SHA512 && c.token == "":
			return &ed25519.Options{Hash: crypto.SHA512}, nil // Ed25519ph, RFC 8032, section 5.1
		}
		return nil, fault.New(fault.Usage, "an ed25519 key signs the message itself, or its SHA-512; send the message, without prehashed")
	case typeRSA, typeRSA4096:
		if h.pss {
			return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h.hash}, nil
		}
	case typeAES, typeHMAC:
		return nil, ErrType
	}
	return h.hash, nil
}

// signed is what goes into the signature: the digest, or for Ed25519 the message.
func (c *call) signed(p engine.Params) ([]byte, crypto.SignerOpts, error) {
	opts, err := c.options()
	if err != nil {
		return nil, nil, err
	}
	if !p.Has("input") {
		return nil, nil, fault.New(fault.Usage, `parameter "input" is missing`)
	}
	in, err := p.Bytes("input")
	if err != nil {
		return nil, nil, err
	}
	switch {
	case c.how.prehashed && len(in) != c.how.hash.Size():
		return nil, nil, fault.Errorf(fault.Usage, "the input is said to be a digest of %d bytes and has %d", c.how.hash.Size(), len(in))
	case !c.how.prehashed && opts.HashFunc() != 0:
		w := c.how.hash.New()
		w.Write(in)
		in = w.Sum(nil)
	}
	return in, opts, nil
}

// sign makes one signature. It is verified before it is given out.
func (c *call) sign(p engine.Params) (map[string]any, error) {
	in, opts, err := c.signed(p)
	if err != nil {
		return nil, err
	}
	if c.forReleases() {
		return nil, ErrRelease
	}
	n, err := c.forNew(c.params)
	if err != nil {
		return nil, err
	}
	s, err := c.signer(c.ctx, n)
	if err != nil {
		return nil, err
	}
	sig, err := s.Sign(rand.Reader, in, opts)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "sign with key %s: %w", c.name, err)
	}
	// What a token signed was verified by hsm.Key.
	if c.token == "" && !holds(s.Public(), in, sig, opts) {
		return nil, fault.Errorf(fault.Token, "key %s gave a signature that does not hold", c.name)
	}
	sum := sha256.Sum256(sig)
	c.sums, c.last = append(c.sums, hex.EncodeToString(sum[:])), n
	out, err := c.encoded(s.Public(), sig)
	if err != nil {
		return nil, err
	}
	return map[string]any{"signature": prefix(n) + out, "key_version": n}, nil
}

// holds says whether sig is by pub over in.
func holds(pub crypto.PublicKey, in, sig []byte, opts crypto.SignerOpts) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, in, sig)
	case ed25519.PublicKey:
		o, ok := opts.(*ed25519.Options)
		return ok && ed25519.VerifyWithOptions(pub, in, sig, o) == nil
	case *rsa.PublicKey:
		if o, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(pub, o.Hash, in, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}) == nil
		}
		return rsa.VerifyPKCS1v15(pub, opts.HashFunc(), in, sig) == nil
	}
	return false
}

// ecdsaInts is an ECDSA signature in ASN.1 (RFC 3279, section 2.2.3).
type ecdsaInts struct{ R, S *big.Int }

// encoded writes a signature as the client wants it: JWS has the two numbers of a
// curve side by side (RFC 7518, section 3.4), and base64 of its own.
func (c *call) encoded(pub crypto.PublicKey, sig []byte) (string, error) {
	if !c.how.jws {
		return base64.StdEncoding.EncodeToString(sig), nil
	}
	if k, ok := pub.(*ecdsa.PublicKey); ok {
		var x ecdsaInts
		if rest, err := asn1.Unmarshal(sig, &x); err != nil || len(rest) > 0 {
			return "", fault.New(fault.Unexpected, "an ECDSA signature is not two numbers")
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		sig = make([]byte, 2*size)
		x.R.FillBytes(sig[:size])
		x.S.FillBytes(sig[size:])
	}
	return base64.RawURLEncoding.EncodeToString(sig), nil
}

// decoded is the inverse of encoded.
func (c *call) decoded(pub crypto.PublicKey, s string) ([]byte, error) {
	bad := fault.New(fault.Usage, "the signature is not in the encoding that is asked for")
	if !c.how.jws {
		sig, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil {
			return nil, bad
		}
		return sig, nil
	}
	sig, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, bad
	}
	if k, ok := pub.(*ecdsa.PublicKey); ok {
		size := (k.Curve.Params().BitSize + 7) / 8
		if len(sig) != 2*size {
			return nil, bad
		}
		return asn1.Marshal(ecdsaInts{new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])})
	}
	return sig, nil
}

// verify says whether a signature, or a MAC, holds. One that does not is an
// answer, not an error.
func (c *call) verify(p engine.Params) (map[string]any, error) {
	sig, err := p.String("signature")
	if err != nil {
		return nil, err
	}
	mac, err := p.String("hmac")
	if err != nil {
		return nil, err
	}
	if (sig == "") == (mac == "") {
		return nil, fault.New(fault.Usage, `one of "signature" and "hmac" is needed`)
	}
	if mac != "" {
		return c.verifyMAC(p, mac)
	}
	in, opts, err := c.signed(p)
	if err != nil {
		return nil, err
	}
	n, rest, err := c.parseMade(sig)
	if err != nil {
		return nil, err
	}
	pub, _, err := c.public(n)
	if err != nil {
		return nil, err
	}
	raw, err := c.decoded(pub, rest)
	if err != nil {
		return nil, err
	}
	c.last = n
	return map[string]any{"valid": holds(pub, in, raw, opts)}, nil
}
