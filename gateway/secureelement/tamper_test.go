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

// policyOf is the policy that lets whoever asks use one command.
func policyOf(cc tpm2.TPMCC) tpm2.Session {
	return tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(tp transport.TPM, s tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicyCommandCode{PolicySession: s, Code: cc}.Execute(tp)
		return err
	})
}

// setPolicy gives a hierarchy that policy, as TPM2_SetPrimaryPolicy.
func setPolicy(t *testing.T, tp transport.TPM, hierarchy tpm2.TPMHandle, cc tpm2.TPMCC) {
	t.Helper()
	calc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err == nil {
		err = tpm2.PolicyCommandCode{Code: cc}.Update(calc)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := []byte{0x80, 2, 0, 0, 0, 63, 0, 0, 1, 0x2e}
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(hierarchy))
	cmd = append(cmd, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 32)
	cmd = append(append(cmd, calc.Hash().Digest...), 0, 0x0b)
	answer, err := tp.Send(cmd)
	if err != nil || binary.BigEndian.Uint32(answer[6:]) != 0 {
		t.Fatalf("plant a policy: %x, %v", answer, err)
	}
}

// TestPolicyPlantedBeforeBirth: who had the element before its birth gave its
// hierarchies policies, which authorisations do not touch.
func TestPolicyPlantedBeforeBirth(t *testing.T) {
	w := artifacttest.New(t)
	const remove = tpm2.TPMCCNVUndefineSpace
	m := setest.Start(t)
	if err := secureelement.RawAt(m.Addr, func(tp transport.TPM) {
		setPolicy(t, tp, tpm2.TPMRHOwner, remove)
		setPolicy(t, tp, tpm2.TPMRHPlatform, remove)
		setPolicy(t, tp, tpm2.TPMRHLockout, tpm2.TPMCCClear)
	}); err != nil {
		t.Fatal(err)
	}
	b := setest.BirthIn(t, m, w, 1)
	try := func(when string) {
		b.Raw(func(tp transport.TPM) {
			for _, h := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHPlatform} {
				_, err := tpm2.NVUndefineSpace{AuthHandle: tpm2.AuthHandle{Handle: h, Auth: policyOf(remove)}, NVIndex: named(t, tp, 0x01800110)}.Execute(tp)
				if err == nil {
					t.Fatalf("%s: firmware key removed by %#x under its policy", when, h)
				}
			}
			if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: policyOf(tpm2.TPMCCClear)}}).Execute(tp); err == nil {
				t.Fatalf("%s: cleared under the lockout policy", when)
			}
		})
	}
	try("after the lock")
	// The platform's policy can be planted at each start, before we come.
	b.TPM.Restart()
	if err := secureelement.RawAt(m.Addr, func(tp transport.TPM) { setPolicy(t, tp, tpm2.TPMRHPlatform, remove) }); err != nil {
		t.Fatal(err)
	}
	b.Element = m.Open()
	try("after a restart")
	if _, err := b.FirmwareKey(); err != nil {
		t.Error(err)
	}
}

// TestForeignLockout: an element that somebody can clear at any time is not
// brought to life; one whose birth was cut short within Lock goes on.
func TestForeignLockout(t *testing.T) {
	w := artifacttest.New(t)
	shut := func(e *secureelement.Element) {
		e.Raw(func(tp transport.TPM) {
			if _, err := (tpm2.HierarchyChangeAuth{AuthHandle: empty(tpm2.TPMRHLockout), NewAuth: tpm2.TPM2BAuth{Buffer: []byte("mine")}}).Execute(tp); err != nil {
				t.Fatal(err)
			}
		})
	}
	e := setest.Start(t).Open()
	if _, err := e.CreateKey(); err != nil {
		t.Fatal(err)
	}
	shut(e)
	err := e.Provision(setest.BirthOf(t, w))
	wantClass(t, err, fault.Policy)
	if !errors.Is(err, secureelement.ErrForeign) {
		t.Errorf("got %v", err)
	}
	e = setest.Start(t).Open()
	if _, err := e.CreateKey(); err != nil {
		t.Fatal(err)
	}
	if err := e.Provision(setest.BirthOf(t, w)); err != nil {
		t.Fatal(err)
	}
	shut(e) // what Lock does first
	if err := e.Provision(setest.BirthOf(t, w)); err != nil {
		t.Errorf("after a power cut within Lock: %v", err)
	}
}
