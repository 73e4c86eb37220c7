package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// MaxSecretBytes bounds what Seal takes: TPM 2.0 Part 2, MAX_SYM_DATA.
const MaxSecretBytes = 128

// Lock says when a sealed secret opens: all of it must hold.
type Lock struct {
	// PCRs of the bank SHA-256, rising, must have the values that Digest is over.
	PCRs   []int
	Digest [sha256.Size]byte
	// Counter must stand at At: one step, and the secret never opens again.
	Counter Index
	At      uint64
	// Until is the value of the TPM's own clock at which it ends, in milliseconds.
	// That clock counts while the TPM has power, and nobody can set it back.
	Until uint64
}

// selection names the PCRs.
func (l *Lock) selection() tpm2.TPMLPCRSelection {
	var set [3]byte
	for _, n := range l.PCRs {
		set[n/8] |= 1 << (n % 8)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: set[:]}}}
}

func (l *Lock) check() error {
	if len(l.PCRs) == 0 {
		return &Error{"usage", "a sealed secret needs a PCR"}
	}
	last := -1
	for _, n := range l.PCRs {
		if n <= last || n > 23 {
			return &Error{"usage", "PCRs are 0 to 23, rising"}
		}
		last = n
	}
	return nil
}

// PCRDigest is the SHA-256 over the values that PCRs of the bank SHA-256 have now, in
// the order of their numbers.
func (d *Device) PCRDigest(pcrs []int) ([sha256.Size]byte, error) {
	defer d.enter()()
	var none [sha256.Size]byte
	if err := (&Lock{PCRs: pcrs}).check(); err != nil {
		return none, err
	}
	h := sha256.New()
	for _, n := range pcrs {
		l := Lock{PCRs: []int{n}}
		r, err := tpm2.PCRRead{PCRSelectionIn: l.selection()}.Execute(d.w)
		if err != nil {
			return none, wrap("read the PCRs", err)
		}
		if len(r.PCRValues.Digests) != 1 || len(r.PCRValues.Digests[0].Buffer) != sha256.Size {
			return none, &Error{"token", fmt.Sprintf("the TPM has no PCR %d of the bank SHA-256", n)}
		}
		h.Write(r.PCRValues.Digests[0].Buffer)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// Clock is the TPM's own clock, in milliseconds.
func (d *Device) Clock() (uint64, error) {
	defer d.enter()()
	r, err := tpm2.ReadClock{}.Execute(d.w)
	if err != nil {
		return 0, wrap("read the TPM's clock", err)
	}
	return r.CurrentTime.ClockInfo.Clock, nil
}

// satisfy has a policy session take the lock. In a trial session nothing is compared.
func (d *Device) satisfy(session tpm2.TPMISHPolicy, l *Lock, auth []byte) error {
	if _, err := (tpm2.PolicyPCR{PolicySession: session, PcrDigest: tpm2.TPM2BDigest{Buffer: l.Digest[:]}, Pcrs: l.selection()}).Execute(d.w); err != nil {
		return wrap("compare the PCRs", err)
	}
	name, _, err := d.exact(l.Counter)
	if err != nil {
		return err
	}
	_, err = tpm2.PolicyNV{
		AuthHandle: using(l.Counter, name, auth), NVIndex: named(l.Counter, name), PolicySession: session,
		OperandB: tpm2.TPM2BOperand{Buffer: binary.BigEndian.AppendUint64(nil, l.At)}, Operation: tpm2.TPMEOEq,
	}.Execute(d.w)
	if err != nil {
		return wrap("compare the counter", err)
	}
	return d.policyClock(session, l.Until)
}

// clockOffset is where the clock stands in TPMS_TIME_INFO (TPM 2.0 Part 2, 10.11.6).
const clockOffset = 8

// policyClock wants the clock to be below until (TPM2_PolicyCounterTimer, TPM 2.0
// Part 3, 23.10, which go-tpm lacks).
func (d *Device) policyClock(session tpm2.TPMISHPolicy, until uint64) error {
	const size = HeaderSize + 4 + 2 + 8 + 2 + 2
	cmd := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTNoSessions))
	cmd = binary.BigEndian.AppendUint32(cmd, size)
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(tpm2.TPMCCPolicyCounterTimer))
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(session))
	cmd = binary.BigEndian.AppendUint16(cmd, 8)
	cmd = binary.BigEndian.AppendUint64(cmd, until)
	cmd = binary.BigEndian.AppendUint16(cmd, clockOffset)
	cmd = binary.BigEndian.AppendUint16(cmd, uint16(tpm2.TPMEOUnsignedLT))
	answer, err := d.w.Send(cmd)
	if err != nil {
		return err
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])); rc != tpm2.TPMRCSuccess {
		return wrap("compare the TPM's clock", rc)
	}
	return nil
}

// policy is the digest of the lock.
func (d *Device) policy(l *Lock, auth []byte) ([]byte, error) {
	s, done, err := tpm2.PolicySession(d.w, tpm2.TPMAlgSHA256, 16, tpm2.Trial())
	if err != nil {
		return nil, wrap("begin a policy", err)
	}
	var digest []byte
	if err = d.satisfy(s.Handle(), l, auth); err == nil {
		var r *tpm2.PolicyGetDigestResponse
		if r, err = (tpm2.PolicyGetDigest{PolicySession: s.Handle()}).Execute(d.w); err == nil {
			digest = r.PolicyDigest.Buffer
		}
	}
	return digest, errors.Join(err, done())
}

// Sealed is a secret that only this TPM opens. It is no secret itself.
type Sealed struct{ Public, Private []byte }

// MaxSealedBytes bounds each part of what Seal returns.
const MaxSealedBytes = 1024

// Seal encrypts a secret so that this TPM opens it while the lock holds. auth is that
// of the lock's counter.
func (d *Device) Seal(secretBytes []byte, l Lock, auth []byte) (*Sealed, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	if len(secretBytes) == 0 || len(secretBytes) > MaxSecretBytes {
		return nil, &Error{"usage", fmt.Sprintf("a sealed secret has 1 to %d bytes", MaxSecretBytes)}
	}
	defer d.enter()()
	policy, err := d.policy(&l, auth)
	if err != nil {
		return nil, err
	}
	var out *Sealed
	err = d.storage(nil, func(srk *tpm2.CreatePrimaryResponse, public *tpm2.TPMTPublic) error {
		r, err := tpm2.Create{
			ParentHandle: tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: secret(nil, srk, public, true)},
			InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secretBytes})}},
			InPublic: tpm2.New2B(tpm2.TPMTPublic{
				Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
			}),
		}.Execute(d.w)
		if err != nil {
			return wrap("seal", err)
		}
		out = &Sealed{Public: tpm2.Marshal(r.OutPublic), Private: tpm2.Marshal(r.OutPrivate)}
		return nil
	})
	return out, err
}

// Unseal opens what Seal made. A lock that does not hold, or another TPM, is
// ErrRefused. The caller clears the secret.
func (d *Device) Unseal(x *Sealed, l Lock, auth []byte) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](x.Public)
	if err == nil && !bytes.Equal(tpm2.Marshal(public), x.Public) {
		err = ErrTorn
	}
	var private *tpm2.TPM2BPrivate
	if err == nil {
		private, err = tpm2.Unmarshal[tpm2.TPM2BPrivate](x.Private)
	}
	if err != nil || len(x.Public) > MaxSealedBytes || len(x.Private) > MaxSealedBytes {
		return nil, &Error{"verify", "what was sealed to the TPM is damaged"}
	}
	defer d.enter()()
	var out []byte
	err = d.storage(nil, func(srk *tpm2.CreatePrimaryResponse, parent *tpm2.TPMTPublic) error {
		o, err := tpm2.Load{
			ParentHandle: tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16)},
			InPrivate:    *private, InPublic: *public,
		}.Execute(d.w)
		if err != nil {
			if errors.Is(err, tpm2.TPMRCIntegrity) {
				err = fmt.Errorf("%w: another TPM sealed it, or this one was cleared: %w", ErrRefused, err)
			}
			return wrap("load what was sealed", err)
		}
		out, err = d.unsealLoaded(o, srk, parent, &l, auth)
		_, flushErr := tpm2.FlushContext{FlushHandle: o.ObjectHandle}.Execute(d.w)
		return errors.Join(err, wrap("let go of what was sealed", flushErr))
	})
	return out, err
}

func (d *Device) unsealLoaded(o *tpm2.LoadResponse, srk *tpm2.CreatePrimaryResponse, parent *tpm2.TPMTPublic, l *Lock, auth []byte) ([]byte, error) {
	s, done, err := tpm2.PolicySession(d.w, tpm2.TPMAlgSHA256, 16, tpm2.AESEncryption(128, tpm2.EncryptOut), tpm2.Salted(srk.ObjectHandle, *parent))
	if err != nil {
		return nil, wrap("begin a policy", err)
	}
	var out []byte
	if err = d.satisfy(s.Handle(), l, auth); err == nil {
		var r *tpm2.UnsealResponse
		if r, err = (tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: o.ObjectHandle, Name: o.Name, Auth: s}}).Execute(d.w); err == nil {
			out = r.OutData.Buffer
		}
	}
	return out, errors.Join(wrap("unseal", err), wrap("end a policy", done()))
}
