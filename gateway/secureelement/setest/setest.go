// Package setest starts software TPMs (swtpm) for tests and brings elements to
// life in them. Only tests import it. A missing swtpm fails the test: a secure
// element that was not tried is not one.
package setest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/gateway/secureelement"
	"keyrite/internal/tpm/tpmtest"
)

// TPM is a running swtpm on loopback.
type TPM struct {
	*tpmtest.TPM
	t testing.TB
}

// Start runs a new, empty TPM until the test ends.
func Start(t testing.TB) *TPM {
	t.Helper()
	return &TPM{tpmtest.Start(t), t}
}

// Open connects to the TPM until the test ends.
func (m *TPM) Open() *secureelement.Element {
	m.t.Helper()
	e, err := secureelement.Open(m.Addr)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = e.Close() })
	return e
}

// BundleID is the provisioning bundle that elements of Birth are born under.
const BundleID = "0123456789abcdef0123456789abcdef"

// Born is an element after its birth.
type Born struct {
	*secureelement.Element
	World *artifacttest.World
	TPM   *TPM
	Cert  *x509.Certificate
}

// Birth starts a TPM and brings unit n of factory1 of world w to life: device
// key, birth certificate, firmware key, lock. The factory is founded if it is
// not in the charter yet.
func Birth(t testing.TB, w *artifacttest.World, n int64) *Born {
	t.Helper()
	return BirthIn(t, Start(t), w, n)
}

// BirthIn is Birth in a TPM that runs already.
func BirthIn(t testing.TB, m *TPM, w *artifacttest.World, n int64) *Born {
	t.Helper()
	if _, ok := w.State.Factories["factory1"]; !ok {
		w.FoundFactory()
	}
	e := m.Open()
	k, err := e.CreateKey()
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	ca := w.Parsed(w.State.Factories["factory1"].CA)
	leaf := w.Certificate(birthcert.Template{
		Profile: birthcert.Device, SPKI: spki, Issuer: birthcert.IssuerOf(ca), DeviceSerial: birthcert.MakeDeviceSerial("gw100", n),
		Assurance: birthcert.Unattested, Bundle: BundleID,
	}, "factory-ca")
	for _, err := range []error{e.Provision(BirthOf(t, w)), e.StoreCertificate(leaf, ca.Raw), e.Lock()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &Born{Element: e, World: w, TPM: m, Cert: w.Parsed(leaf)}
}

// BirthOf is what a station of world w writes.
func BirthOf(t testing.TB, w *artifacttest.World) secureelement.Birth {
	t.Helper()
	anchors, err := w.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(anchors)
	return secureelement.Birth{Anchors: hex.EncodeToString(sum[:]), FirmwareKey: w.SPKI("firmware"), Vault: w.Anchors.Vault, World: w.World}
}

// Key makes a P-256 key in software, for example an account's policy key.
func Key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
