package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
)

// Of TPMS_ATTEST (TCG, TPM 2.0 Part 2, 10.12.12).
const (
	tpmGenerated     = 0xff544347 // TPM_GENERATED_VALUE: nothing outside a TPM can have a restricted key sign it
	tpmAttestCertify = 0x8017     // TPM_ST_ATTEST_CERTIFY
	maxNameBytes     = 2 + 64     // TPM2B_NAME: algorithm and digest
	maxDataBytes     = 64         // TPM2B_DATA
)

// readTPM checks what TPM2_Certify signed: with the attestation key of the
// certificate ak, of the public area that stands beside it, for this ceremony.
func (e *Evidence) readTPM(ak *x509.Certificate, about About) (*Attested, error) {
	model, err := checkAK(ak)
	if err != nil {
		return nil, err
	}
	if err := checkTPMSignature(ak.PublicKey, e.TPM.Attest, e.TPM.Signature); err != nil {
		return nil, err
	}
	said, err := readAttest(e.TPM.Attest)
	if err != nil {
		return nil, err
	}
	want, err := Binding(about.Key, about.Record, about.World)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(said.extra, want) {
		return nil, ErrBinding
	}
	pub, err := readPublic(e.TPM.Public)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(said.name, pub.name) {
		return nil, bad(ErrKey, "the TPM signed another name")
	}
	if err := pub.checkBirth(); err != nil {
		return nil, err
	}
	device := ak.Subject.SerialNumber
	if device == "" {
		sum := sha256.Sum256(spki(ak))
		device = "attestation key " + hex.EncodeToString(sum[:8])
	}
	return &Attested{Model: model, Device: device, Firmware: fmt.Sprintf("%016x", said.firmware), Public: pub.spki, Uses: pub.uses()}, nil
}

// oidAIK marks the certificate of an attestation key (TCG, tcg-kp-AIKCertificate).
func oidAIK() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 23, 133, 8, 3} }

// checkAK wants a certificate that says of its key that it is an attestation key,
// and returns the model of the TPM where it says so.
func checkAK(c *x509.Certificate) (string, error) {
	if len(c.ExtKeyUsage) > 0 || len(c.UnknownExtKeyUsage) != 1 || !c.UnknownExtKeyUsage[0].Equal(oidAIK()) {
		return "", bad(ErrEvidence, "%.80q is not the certificate of an attestation key (extended key usage %s)", c.Subject.String(), oidAIK())
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return "", bad(ErrEvidence, "the attestation key of %.80q does not sign", c.Subject.String())
	}
	for _, x := range c.Extensions {
		if x.Id.Equal(oidSAN()) {
			return tpmModel(x.Value)
		}
	}
	return "", nil
}

// tpmModel reads the model from a subject alternative name, where it stands in a
// directory name (TCG EK Credential Profile, 3.2.9).
func tpmModel(san []byte) (string, error) {
	var names asn1.RawValue
	if rest, err := asn1.Unmarshal(san, &names); err != nil || len(rest) > 0 || names.Tag != asn1.TagSequence || names.Class != asn1.ClassUniversal {
		return "", bad(ErrEvidence, "subject alternative name")
	}
	model, seen := "", false
	for rest := names.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return "", bad(ErrEvidence, "subject alternative name")
		}
		if name.Class != asn1.ClassContextSpecific || name.Tag != 4 { // directoryName
			continue
		}
		var rdn pkix.RDNSequence
		if more, err := asn1.Unmarshal(name.Bytes, &rdn); err != nil || len(more) > 0 || seen {
			return "", bad(ErrEvidence, "subject alternative name has no one directory name")
		}
		seen = true
		for _, set := range rdn {
			for _, v := range set {
				if s, ok := v.Value.(string); ok && v.Type.Equal(asn1.ObjectIdentifier{2, 23, 133, 2, 2}) {
					model = s
				}
			}
		}
	}
	return model, nil
}

// attest is what matters of a TPMS_ATTEST of TPM2_Certify.
type attest struct {
	extra    []byte // qualifying data
	firmware uint64 // mixed up by the TPM unless the attestation key is in the endorsement hierarchy
	name     []byte // of the certified object
}

func readAttest(b []byte) (*attest, error) {
	r := reader{b: b}
	if magic, typ := r.u32(), r.u16(); magic != tpmGenerated || typ != tpmAttestCertify {
		return nil, bad(ErrEvidence, "not what TPM2_Certify signs (%08x, %04x)", magic, typ)
	}
	r.sized(maxNameBytes) // qualified name of the signer
	out := &attest{extra: r.sized(maxDataBytes)}
	r.take(8 + 4 + 4) // clock, resetCount, restartCount
	if safe := r.take(1); len(safe) == 1 && safe[0] > 1 {
		return nil, bad(ErrEvidence, "TPMI_YES_NO of %d", safe[0])
	}
	out.firmware = r.u64()
	out.name = r.sized(maxNameBytes)
	r.sized(maxNameBytes) // its qualified name
	return out, r.end()
}

// Signature algorithms (TCG, TPM 2.0 Part 2, 6.3).
const (
	tpmRSASSA = 0x0014
	tpmRSAPSS = 0x0016
	tpmECDSA  = 0x0018
)

const maxSigBytes = 512 // RSA-4096

// checkTPMSignature verifies a TPMT_SIGNATURE over msg.
func checkTPMSignature(pub crypto.PublicKey, msg, sig []byte) error {
	r := reader{b: sig}
	alg := r.u16()
	hash, err := tpmHash(r.u16())
	if err != nil {
		return err
	}
	h := hash.New()
	h.Write(msg)
	digest, ok := h.Sum(nil), false
	switch alg {
	case tpmECDSA:
		x, y := new(big.Int).SetBytes(r.sized(maxSigBytes)), new(big.Int).SetBytes(r.sized(maxSigBytes))
		k, is := pub.(*ecdsa.PublicKey)
		ok = is && ecdsa.Verify(k, digest, x, y)
	case tpmRSASSA, tpmRSAPSS:
		s := r.sized(maxSigBytes)
		if k, is := pub.(*rsa.PublicKey); is && alg == tpmRSASSA {
			ok = rsa.VerifyPKCS1v15(k, hash, digest, s) == nil
		} else if is {
			ok = rsa.VerifyPSS(k, hash, digest, s, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: hash}) == nil
		}
	default:
		return bad(ErrEvidence, "signature algorithm %#04x", alg)
	}
	if err := r.end(); err != nil {
		return err
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

func tpmHash(alg uint16) (crypto.Hash, error) {
	switch alg {
	case 0x000b:
		return crypto.SHA256, nil
	case 0x000c:
		return crypto.SHA384, nil
	case 0x000d:
		return crypto.SHA512, nil
	}
	return 0, bad(ErrEvidence, "hash algorithm %#04x", alg)
}
