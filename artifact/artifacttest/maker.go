package artifacttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	"testing"
	"time"

	"keyrite/artifact/attestation"
)

// Maker is a maker of devices with a root, an intermediate and one device, whose
// certificates are shaped as those of a YubiHSM 2. Its keys are software.
type Maker struct {
	RootDER, SubDER, DeviceDER []byte
	Serial                     int64

	t      testing.TB
	sub    *ecdsa.PrivateKey
	device *ecdsa.PrivateKey
}

// Claims are what a key's attestation certificate says.
type Claims struct {
	Subject  string
	Origin   byte
	Caps     uint64
	Serial   int64
	Label    string
	NotAfter time.Time
	Extra    []pkix.Extension
	Edit     func([]pkix.Extension) []pkix.Extension
}

// The dates that Yubico writes.
func makerDates() (from, to time.Time) {
	return time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2071, 10, 5, 0, 0, 0, 0, time.UTC)
}

// NewMaker makes a maker and its device.
func NewMaker(t testing.TB) *Maker {
	t.Helper()
	m := &Maker{t: t, Serial: 12345678, sub: newKey(t), device: newKey(t)}
	root := newKey(t)
	m.RootDER = m.ca("Test Maker Root CA", 2, nil, root, nil, root)
	m.SubDER = m.ca("Test Maker Sub-CA", 1, nil, m.sub, m.RootDER, root)
	m.DeviceDER = m.ca(fmt.Sprintf("YubiHSM Attestation (%d)", m.Serial), 0, []pkix.Extension{
		YubicoExtension(t, 1, []byte{2, 4, 0}), YubicoExtension(t, 2, m.Serial),
	}, m.device, m.SubDER, m.sub)
	return m
}

// Root is the vendor root under which the maker's devices stand.
func (m *Maker) Root(id, kind string, models ...string) attestation.Root {
	return attestation.Root{ID: id, Kind: kind, Certificate: m.RootDER, Models: models}
}

// Attest makes the chain of a key that was born in the device. edit may be nil.
func (m *Maker) Attest(pub crypto.PublicKey, edit func(*Claims)) [][]byte {
	m.t.Helper()
	from, to := makerDates()
	c := Claims{Subject: "YubiHSM Attestation id:0x0024", Origin: 1, Caps: 1 << 7, Serial: m.Serial, Label: "firmware", NotAfter: to}
	if edit != nil {
		edit(&c)
	}
	ext := []pkix.Extension{
		YubicoExtension(m.t, 1, []byte{2, 4, 0}),
		YubicoExtension(m.t, 2, c.Serial),
		YubicoExtension(m.t, 3, asn1.BitString{Bytes: []byte{c.Origin}, BitLength: 8}),
		YubicoExtension(m.t, 4, asn1.BitString{Bytes: []byte{0, 1}, BitLength: 16}),
		YubicoExtension(m.t, 5, asn1.BitString{Bytes: binary.BigEndian.AppendUint64(nil, c.Caps), BitLength: 64}),
		YubicoExtension(m.t, 6, 0x24),
		YubicoExtension(m.t, 9, asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagUTF8String, Bytes: []byte(c.Label)}),
	}
	if c.Edit != nil {
		ext = c.Edit(ext)
	}
	leaf := m.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: c.Subject}, NotBefore: from, NotAfter: c.NotAfter, ExtraExtensions: append(ext, c.Extra...),
	}, pub, m.DeviceDER, m.device)
	return [][]byte{leaf, m.DeviceDER, m.SubDER}
}

// AK certifies the attestation key of a TPM: the chain, without the root. edit may
// be nil.
func (m *Maker) AK(pub crypto.PublicKey, edit func(*x509.Certificate)) [][]byte {
	m.t.Helper()
	from, to := makerDates()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Test TPM attestation key", SerialNumber: "TPM-0001"}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}},
		ExtraExtensions: []pkix.Extension{tpmName(m.t, "id:00001014", "swtpm", "id:20191023")},
	}
	if edit != nil {
		edit(c)
	}
	return [][]byte{m.issue(c, pub, m.SubDER, m.sub), m.SubDER}
}

// tpmName is the subject alternative name that says which TPM it is.
func tpmName(t testing.TB, values ...string) pkix.Extension {
	t.Helper()
	var rdn pkix.RelativeDistinguishedNameSET
	for i, v := range values {
		rdn = append(rdn, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 23, 133, 2, i + 1}, Value: v})
	}
	name, err := asn1.Marshal(pkix.RDNSequence{rdn})
	if err != nil {
		t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: san}
}

// YubicoExtension is extension n of a YubiHSM 2.
func YubicoExtension(t testing.TB, n int, v any) pkix.Extension {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 4, n}, Value: b}
}

func (m *Maker) ca(name string, below int, ext []pkix.Extension, key *ecdsa.PrivateKey, parent []byte, signer *ecdsa.PrivateKey) []byte {
	m.t.Helper()
	from, to := makerDates()
	return m.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to, BasicConstraintsValid: true, IsCA: true,
		MaxPathLen: below, MaxPathLenZero: below == 0, ExtraExtensions: ext,
	}, key.Public(), parent, signer)
}

// issue signs c; without a parent it signs itself.
func (m *Maker) issue(c *x509.Certificate, pub crypto.PublicKey, parent []byte, signer *ecdsa.PrivateKey) []byte {
	m.t.Helper()
	c.SerialNumber, c.SignatureAlgorithm = big.NewInt(0x5afe), x509.ECDSAWithSHA256
	by := c
	if parent != nil {
		var err error
		if by, err = x509.ParseCertificate(parent); err != nil {
			m.t.Fatal(err)
		}
		if !c.IsCA {
			by.SubjectKeyId = nil // a YubiHSM 2 writes no authority key identifier
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, pub, signer)
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Key is a new key on P-256, in software.
func (m *Maker) Key() *ecdsa.PrivateKey { return newKey(m.t) }
