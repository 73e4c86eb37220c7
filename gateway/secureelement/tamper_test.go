package secureelement_test

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/secureelement/setest"
)

// TestPlatformOpenAtStart: who speaks to the TPM before the boot firmware closed
// the platform hierarchy can remove what birth wrote and put his own there.
// Nothing of it is believed.
func TestPlatformOpenAtStart(t *testing.T) {
	w := artifacttest.New(t)
	evil, err := x509.MarshalPKIXPublicKey(setest.Key(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	ordinary := tpm2.TPMANV{AuthRead: true, AuthWrite: true, NoDA: true, NT: tpm2.TPMNTOrdinary}
	locked := tpm2.TPMANV{AuthRead: true, OwnerRead: true, WriteDefine: true, NoDA: true, NT: tpm2.TPMNTOrdinary}
	for name, a := range map[string]struct {
		index tpm2.TPMHandle
		attrs tpm2.TPMANV
		data  []byte
		read  func(*secureelement.Element) error
	}{
		"firmware key":     {0x01800110, locked, evil, func(e *secureelement.Element) error { _, err := e.FirmwareKey(); return err }},
		"birth record":     {0x01800100, locked, []byte("{}"), func(e *secureelement.Element) error { _, err := e.Birth(); return err }},
		"certificate":      {0x01800101, locked, []byte{0x30, 0}, func(e *secureelement.Element) error { _, err := e.Certificate(); return err }},
		"security version": {0x01800112, ordinary, binary.BigEndian.AppendUint64(nil, 1), func(e *secureelement.Element) error { _, err := e.SecurityVersion(); return err }},
		"policy version":   {0x01800113, ordinary, binary.BigEndian.AppendUint64(nil, 2), func(e *secureelement.Element) error { _, err := e.PolicyVersion(); return err }},
		"time floor":       {0x01800114, ordinary, make([]byte, 8), func(e *secureelement.Element) error { _, err := e.TimeFloor(); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			b := setest.Birth(t, w, 1)
			if err := errors.Join(b.RaiseSecurityVersion(5), b.Close()); err != nil {
				t.Fatal(err)
			}
			b.TPM.Restart()
			if err := secureelement.RawAt(b.TPM.Addr, func(tp transport.TPM) { plant(t, tp, a.index, a.attrs, a.data) }); err != nil {
				t.Fatal(err)
			}
			err := a.read(b.TPM.Open())
			wantClass(t, err, fault.Verify)
			if !errors.Is(err, secureelement.ErrTampered) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// plant replaces an index with the platform's empty authorisation.
func plant(t *testing.T, tp transport.TPM, index tpm2.TPMHandle, attrs tpm2.TPMANV, data []byte) {
	t.Helper()
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	platform := empty(tpm2.TPMRHPlatform)
	do(tpm2.NVUndefineSpace{AuthHandle: platform, NVIndex: named(t, tp, index)}.Execute(tp))
	attrs.PlatformCreate, attrs.PPWrite = true, true
	pub := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)), Attributes: attrs}
	do(tpm2.NVDefineSpace{AuthHandle: platform, PublicInfo: tpm2.New2B(pub)}.Execute(tp))
	do(tpm2.NVWrite{AuthHandle: platform, NVIndex: named(t, tp, index), Data: tpm2.TPM2BMaxNVBuffer{Buffer: data}}.Execute(tp))
	if attrs.WriteDefine {
		do(tpm2.NVWriteLock{AuthHandle: platform, NVIndex: named(t, tp, index)}.Execute(tp))
	}
}
