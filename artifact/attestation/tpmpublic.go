package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the names of objects
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"slices"
)

// Attributes of an object (TCG, TPM 2.0 Part 2, 8.3).
const (
	attrFixedTPM        = 1 << 1
	attrSTClear         = 1 << 2
	attrFixedParent     = 1 << 4
	attrDataOrigin      = 1 << 5 // sensitiveDataOrigin: the TPM made the private half
	attrUserWithAuth    = 1 << 6
	attrAdminWithPolicy = 1 << 7
	attrNoDA            = 1 << 10
	attrEncryptedDup    = 1 << 11
	attrRestricted      = 1 << 16
	attrDecrypt         = 1 << 17
	attrSign            = 1 << 18
	attrX509Sign        = 1 << 19
	attrKnown           = attrFixedTPM | attrSTClear | attrFixedParent | attrDataOrigin | attrUserWithAuth | attrAdminWithPolicy |
		attrNoDA | attrEncryptedDup | attrRestricted | attrDecrypt | attrSign | attrX509Sign
)

// Algorithms and curves (TCG, TPM 2.0 Part 2, 6.3 and 6.4).
const (
	tpmRSA  = 0x0001
	tpmECC  = 0x0023
	tpmNull = 0x0010
	curve3  = 0x0003 // NIST P-256
	curve4  = 0x0004 // NIST P-384
)

// public is what matters of a TPMT_PUBLIC.
type public struct {
	name       []byte // nameAlg and digest of the whole area
	attributes uint32
	spki       []byte
}

// readPublic reads the public area of an asymmetric key that is no storage key.
func readPublic(b []byte) (*public, error) {
	r := reader{b: b}
	typ, nameAlg := r.u16(), r.u16()
	hash, err := tpmHash(nameAlg)
	if err != nil {
		return nil, err
	}
	out := &public{attributes: r.u32()}
	if out.attributes&^attrKnown != 0 {
		return nil, bad(ErrEvidence, "attributes %#08x", out.attributes)
	}
	if policy := r.sized(64); len(policy) > 0 && len(policy) != hash.Size() {
		return nil, bad(ErrEvidence, "an authorisation policy of %d bytes", len(policy))
	}
	if symmetric := r.u16(); symmetric != tpmNull {
		return nil, bad(ErrEvidence, "symmetric algorithm %#04x: a storage key", symmetric)
	}
	var key any
	switch typ {
	case tpmECC:
		key, err = r.ecc()
	case tpmRSA:
		key, err = r.rsa()
	default:
		err = bad(ErrEvidence, "object of type %#04x", typ)
	}
	if err != nil {
		return nil, err
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if out.spki, err = x509.MarshalPKIXPublicKey(key); err != nil {
		return nil, bad(ErrEvidence, "public key: %w", err)
	}
	h := hash.New()
	h.Write(b)
	out.name = h.Sum(binary.BigEndian.AppendUint16(nil, nameAlg))
	return out, nil
}

// scheme reads a signing scheme: none, or one with its hash.
func (r *reader) scheme(known ...uint16) error {
	alg := r.u16()
	if alg == tpmNull {
		return nil
	}
	if !slices.Contains(known, alg) {
		return bad(ErrEvidence, "scheme %#04x", alg)
	}
	_, err := tpmHash(r.u16())
	return err
}

func (r *reader) ecc() (any, error) {
	if err := r.scheme(tpmECDSA); err != nil {
		return nil, err
	}
	var curve elliptic.Curve
	switch id := r.u16(); id {
	case curve3:
		curve = elliptic.P256()
	case curve4:
		curve = elliptic.P384()
	default:
		return nil, bad(ErrEvidence, "curve %#04x", id)
	}
	if kdf := r.u16(); kdf != tpmNull {
		return nil, bad(ErrEvidence, "key derivation %#04x", kdf)
	}
	size := (curve.Params().BitSize + 7) / 8
	x, y := r.sized(size), r.sized(size)
	if len(x) != size || len(y) != size {
		return nil, bad(ErrEvidence, "a point of %d and %d bytes", len(x), len(y))
	}
	k, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
	if err != nil {
		return nil, bad(ErrEvidence, "point: %w", err)
	}
	return k, nil
}

func (r *reader) rsa() (any, error) {
	if err := r.scheme(tpmRSASSA, tpmRSAPSS); err != nil {
		return nil, err
	}
	bits, exponent := int(r.u16()), int(r.u32())
	n := r.sized(maxSigBytes)
	if exponent == 0 {
		exponent = 65537 // TPMS_RSA_PARMS: zero stands for it
	}
	if len(n)*8 != bits || bits < 2048 || exponent != 65537 {
		return nil, bad(ErrEvidence, "an RSA key of %d bits, %d bytes and exponent %d", bits, len(n), exponent)
	}
	k := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: exponent}
	if k.N.BitLen() != bits {
		return nil, bad(ErrEvidence, "an RSA modulus of %d bits, not %d", k.N.BitLen(), bits)
	}
	return k, nil
}

// checkBirth wants a key that the TPM made and can never let go.
func (p *public) checkBirth() error {
	if p.attributes&attrDataOrigin == 0 {
		return bad(ErrOrigin, "sensitiveDataOrigin is clear")
	}
	if p.attributes&attrFixedTPM == 0 || p.attributes&attrFixedParent == 0 || p.attributes&attrEncryptedDup != 0 {
		return bad(ErrExportable, "attributes %#08x: fixedTPM and fixedParent must be set, encryptedDuplication clear", p.attributes)
	}
	return nil
}

// uses are what the attributes let the key do. A restricted key signs only what
// the TPM made itself, and an x509sign key only certificates that it composes.
func (p *public) uses() []Use {
	var out []Use
	if p.attributes&(attrDecrypt|attrRestricted|attrX509Sign) != 0 {
		out = append(out, Other)
	}
	if p.attributes&attrSign != 0 {
		out = append(out, Signs)
	}
	return out
}

// reader takes big-endian values from bytes. After the first lack it gives zeros,
// and end tells of it.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if r.short || len(r.b) < n {
		r.short = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// sized reads a TPM2B: a length of two bytes, at most limit, and as many bytes.
func (r *reader) sized(limit int) []byte {
	n := int(r.u16())
	if n > limit {
		r.short = true
		return nil
	}
	return bytes.Clone(r.take(n))
}

func (r *reader) end() error {
	if r.short {
		return bad(ErrEvidence, "a TPM structure is cut off, or has a part that is too long")
	}
	if len(r.b) > 0 {
		return bad(ErrEvidence, "%d bytes behind a TPM structure", len(r.b))
	}
	return nil
}
