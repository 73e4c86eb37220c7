package attestation_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/attestation"
)

// tpm makes what a TPM would say, in go-tpm's own encoding, with a software
// attestation key.
type tpm struct {
	maker  *artifacttest.Maker
	ak     crypto.Signer
	key    *ecdsa.PrivateKey
	attrs  tpm2.TPMAObject
	public tpm2.TPMTPublic // empty: of key and attrs
	about  attestation.About
	edit   func(*tpm2.TPMSAttest)
	body   func([]byte) []byte // of what is signed
	akCert func(*x509.Certificate)
}

func newTPM(t testing.TB) *tpm {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &tpm{
		maker: artifacttest.NewMaker(t), ak: ak, key: k, about: about(t, k.Public()),
		attrs: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
	}
}

func (m *tpm) pub(t testing.TB) tpm2.TPMTPublic {
	t.Helper()
	if m.public.Type != 0 {
		return m.public
	}
	point, err := m.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: m.attrs,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
		Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}}),
	}
}

func (m *tpm) evidence(t testing.TB) *attestation.Evidence {
	t.Helper()
	pub := m.pub(t)
	name, err := tpm2.ObjectName(&pub)
	if err != nil {
		t.Fatal(err)
	}
	bind, err := attestation.Binding(m.about.Key, m.about.Record, m.about.World)
	if err != nil {
		t.Fatal(err)
	}
	a := tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify, QualifiedSigner: *name, ExtraData: tpm2.TPM2BData{Buffer: bind},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: *name, QualifiedName: *name}),
	}
	if m.edit != nil {
		m.edit(&a)
	}
	body := tpm2.Marshal(a)
	if m.body != nil {
		body = m.body(body)
	}
	return &attestation.Evidence{
		Chain: m.maker.AK(m.ak.Public(), m.akCert), Format: attestation.Format, Key: m.about.Key, Kind: attestation.KindTPM, Record: m.about.Record,
		TPM: &attestation.Certified{Attest: body, Public: tpm2.Marshal(pub), Signature: tpmSignature(t, m.ak, body)}, World: m.about.World,
	}
}

func tpmSignature(t testing.TB, k crypto.Signer, msg []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(msg)
	sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if _, is := k.(*rsa.PrivateKey); is {
		return tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: sig}})})
	}
	var rs struct{ R, S asn1.RawValue }
	if _, err := asn1.Unmarshal(sig, &rs); err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: bytes.TrimLeft(rs.R.Bytes, "\x00")}, SignatureS: tpm2.TPM2BECCParameter{Buffer: bytes.TrimLeft(rs.S.Bytes, "\x00")},
	})})
}

// hostileTPMs each change one thing that a verifier must notice.
func hostileTPMs() map[string]struct {
	expect error
	change func(testing.TB, *tpm)
} {
	type h = struct {
		expect error
		change func(testing.TB, *tpm)
	}
	attr := func(set func(*tpm2.TPMAObject)) func(testing.TB, *tpm) {
		return func(_ testing.TB, m *tpm) { set(&m.attrs) }
	}
	edit := func(f func(*tpm2.TPMSAttest)) func(testing.TB, *tpm) {
		return func(_ testing.TB, m *tpm) { m.edit = f }
	}
	body := func(f func([]byte) []byte) func(testing.TB, *tpm) {
		return func(_ testing.TB, m *tpm) { m.body = f }
	}
	cert := func(f func(*x509.Certificate)) func(testing.TB, *tpm) {
		return func(_ testing.TB, m *tpm) { m.akCert = f }
	}
	return map[string]h{
		"tpm-imported":       {attestation.ErrOrigin, attr(func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = false })},
		"tpm-not-fixed":      {attestation.ErrExportable, attr(func(a *tpm2.TPMAObject) { a.FixedTPM = false })},
		"tpm-movable-parent": {attestation.ErrExportable, attr(func(a *tpm2.TPMAObject) { a.FixedParent = false })},
		"tpm-duplication":    {attestation.ErrExportable, attr(func(a *tpm2.TPMAObject) { a.EncryptedDuplication = true })},
		"tpm-decrypts":       {attestation.ErrUses, attr(func(a *tpm2.TPMAObject) { a.Decrypt = true })},
		"tpm-restricted":     {attestation.ErrUses, attr(func(a *tpm2.TPMAObject) { a.Restricted = true })},
		"tpm-signs-not":      {attestation.ErrUses, attr(func(a *tpm2.TPMAObject) { a.SignEncrypt = false })},
		"tpm-quote": {attestation.ErrEvidence, edit(func(a *tpm2.TPMSAttest) {
			a.Type = tpm2.TPMSTAttestQuote
			a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{})
		})},
		"tpm-magic":           {attestation.ErrEvidence, edit(func(a *tpm2.TPMSAttest) { a.Magic = 0xff544346 })},
		"tpm-signed-trailing": {attestation.ErrEvidence, body(func(b []byte) []byte { return append(b, 0) })},
		"tpm-signed-cut":      {attestation.ErrEvidence, body(func(b []byte) []byte { return b[:len(b)-1] })},
		"tpm-safe-2":          {attestation.ErrEvidence, body(func(b []byte) []byte { b[4+2+2+34+2+32+16] = 2; return b })},
		"tpm-nonce":           {attestation.ErrBinding, edit(func(a *tpm2.TPMSAttest) { a.ExtraData.Buffer[0] ^= 1 })},
		"tpm-no-nonce":        {attestation.ErrBinding, edit(func(a *tpm2.TPMSAttest) { a.ExtraData.Buffer = nil })},
		"tpm-other-name": {attestation.ErrKey, edit(func(a *tpm2.TPMSAttest) {
			other := tpm2.TPM2BName{Buffer: append([]byte{0, 11}, make([]byte, 32)...)}
			a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: other, QualifiedName: other})
		})},
		"tpm-other-key": {attestation.ErrKey, func(t testing.TB, m *tpm) { m.key = newTPM(t).key }},
		"tpm-other-ak": {attestation.ErrSignature, func(t testing.TB, m *tpm) {
			honest := m.ak.Public()
			m.akCert = func(*x509.Certificate) {}
			m.ak = liar{newTPM(t).ak, honest}
		}},
		"tpm-ek-certificate": {attestation.ErrEvidence, cert(func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}} })},
		"tpm-plain-certificate": {attestation.ErrEvidence, cert(func(c *x509.Certificate) {
			c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		})},
		"tpm-ak-expired": {attestation.ErrExpired, cert(func(c *x509.Certificate) { c.NotAfter = artifacttest.Now().AddDate(-1, 0, 0) })},
		"tpm-ak-is-ca": {attestation.ErrEvidence, cert(func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, c.KeyUsage|x509.KeyUsageCertSign
		})},
	}
}

// liar says that it has another public key than it signs with.
type liar struct {
	crypto.Signer
	says crypto.PublicKey
}

func (l liar) Public() crypto.PublicKey { return l.says }

func TestTPMHostile(t *testing.T) {
	for name, h := range hostileTPMs() {
		m := newTPM(t)
		h.change(t, m)
		wantRefused(t, name, m.evidence(t), []attestation.Root{m.maker.Root("tpm", attestation.RootEK)}, m.about, h.expect)
	}
}

// TestTPMBytes alters each part of a good evidence in every way that a byte can go
// wrong at its end or in the middle.
func TestTPMBytes(t *testing.T) {
	m := newTPM(t)
	roots := []attestation.Root{m.maker.Root("tpm", attestation.RootEK)}
	good := m.evidence(t)
	if _, err := attestation.Verify(good, roots, m.about); err != nil {
		t.Fatal(err)
	}
	parts := map[string]func(*attestation.Certified) *[]byte{
		"attest":    func(c *attestation.Certified) *[]byte { return &c.Attest },
		"public":    func(c *attestation.Certified) *[]byte { return &c.Public },
		"signature": func(c *attestation.Certified) *[]byte { return &c.Signature },
	}
	for name, part := range parts {
		whole := *part(good.TPM)
		try := func(what string, b []byte) {
			e, c := *good, *good.TPM
			e.TPM = &c
			*part(&c) = b
			if _, err := attestation.Verify(&e, roots, m.about); err == nil {
				t.Errorf("%s %s: accepted", name, what)
			}
		}
		try("with a byte behind", append(bytes.Clone(whole), 0))
		try("without its last byte", whole[:len(whole)-1])
		try("empty", nil)
		for i := range whole {
			for bit := range 8 {
				b := bytes.Clone(whole)
				b[i] ^= 1 << bit
				try("flipped", b)
			}
		}
	}
}

// TestTPMOtherKeys takes the other key types and signature schemes.
func TestTPMOtherKeys(t *testing.T) {
	m := newTPM(t)
	k, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	m.ak, m.about.Public = k, spkiOf(t, k.Public())
	m.public = tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA384, ObjectAttributes: m.attrs,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSAPSS, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: tpm2.TPMAlgSHA256})},
			KeyBits: 3072,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.N.Bytes()}),
	}
	a, err := attestation.Verify(m.evidence(t), []attestation.Root{m.maker.Root("tpm", attestation.RootEK)}, m.about)
	if err != nil || a.CheckSigning() != nil {
		t.Errorf("RSA-3072 under an RSA attestation key: %v", err)
	}
}

// FuzzTPM reads what a TPM could be made to send, past the signature: the key that
// signs is the fuzzer's own.
func FuzzTPM(f *testing.F) {
	m := newTPM(f)
	good := m.evidence(f)
	roots := []attestation.Root{m.maker.Root("tpm", attestation.RootEK)}
	f.Add(good.TPM.Attest, good.TPM.Public, true)
	f.Add(good.TPM.Attest, good.TPM.Public, false)
	f.Fuzz(func(t *testing.T, attest, public []byte, sign bool) {
		e := *good
		e.TPM = &attestation.Certified{Attest: attest, Public: public, Signature: good.TPM.Signature}
		if sign {
			e.TPM.Signature = tpmSignature(t, m.ak, attest)
		}
		a, err := attestation.Verify(&e, roots, m.about)
		if err != nil {
			return
		}
		said, err := tpm2.Unmarshal[tpm2.TPMSAttest](attest)
		if err != nil || !bytes.Equal(tpm2.Marshal(said), attest) {
			t.Errorf("accepted what go-tpm does not read or write so: %v", err)
		}
		pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
		if err != nil || !bytes.Equal(tpm2.Marshal(pub), public) || !bytes.Equal(a.Public, m.about.Public) {
			t.Errorf("accepted a public area that go-tpm does not read or write so: %v", err)
		}
	})
}
