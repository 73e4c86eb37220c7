package secureelement

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/fault"
)

// AccountSlots is how many policy keys a gateway can see in its life: the first
// at enrolment and seven changes.
//
// Slot i holds, in 66 bytes, a TPMT_HA (2 bytes algorithm, 32 bytes digest) of
// the policy "signed by key i", and the SHA-256 of key i's SubjectPublicKeyInfo.
// Every slot can be written once (TPM2_PolicyNvWritten(NO)); slot i+1 besides
// only in a session that satisfies the policy kept in slot i
// (TPM2_PolicyAuthorizeNV), that is, with a signature by key i. So the chain of
// keys lies in the element's own rules, all laid down at birth when there is no
// account yet, and outlasts a restart, which an index with WRITE_STCLEAR would
// not. The key in force is that of the last slot written.
const AccountSlots = 8

const slotSize = 2 + 2*sha256.Size

func slotHandle(i int) tpm2.TPMHandle { return nvAccount + tpm2.TPMHandle(i) }

// slotPublic is the public area of slot i before it is written.
func slotPublic(i int) (*tpm2.TPMSNVPublic, error) {
	calc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "compute a slot's policy: %w", err)
	}
	if i > 0 {
		before, err := slotName(i-1, true)
		if err != nil {
			return nil, err
		}
		step := tpm2.PolicyAuthorizeNV{NVIndex: tpm2.NamedHandle{Handle: slotHandle(i - 1), Name: before}}
		if err := step.Update(calc); err != nil {
			return nil, fault.Errorf(fault.Unexpected, "compute a slot's policy: %w", err)
		}
	}
	if err := (tpm2.PolicyNVWritten{}).Update(calc); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "compute a slot's policy: %w", err)
	}
	return &tpm2.TPMSNVPublic{
		NVIndex: slotHandle(i), NameAlg: tpm2.TPMAlgSHA256, DataSize: slotSize,
		AuthPolicy: tpm2.TPM2BDigest{Buffer: calc.Hash().Digest},
		Attributes: tpm2.TPMANV{PolicyWrite: true, AuthRead: true, WriteAll: true, NoDA: true, NT: tpm2.TPMNTOrdinary},
	}, nil
}

func slotName(i int, written bool) (tpm2.TPM2BName, error) {
	pub, err := slotPublic(i)
	if err != nil {
		return tpm2.TPM2BName{}, err
	}
	pub.Attributes.Written = written
	n, err := tpm2.NVName(pub)
	if err != nil {
		return tpm2.TPM2BName{}, fault.Errorf(fault.Unexpected, "compute a slot's name: %w", err)
	}
	return *n, nil
}

// policyKey is a policy key as a TPM knows it.
func policyKey(pub crypto.PublicKey) (*tpm2.TPMTPublic, error) {
	ec, ok := pub.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fault.New(fault.Usage, "an account's policy key must be P-256, which every TPM can check")
	}
	point, err := ec.Bytes() // 0x04, X, Y
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "policy key: %w", err)
	}
	return &tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{SignEncrypt: true, UserWithAuth: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		}),
	}, nil
}

// slotData is what a slot holds for pub.
func slotData(pub crypto.PublicKey) ([]byte, error) {
	key, err := policyKey(pub)
	if err != nil {
		return nil, err
	}
	name, err := tpm2.ObjectName(key)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "compute a key's name: %w", err)
	}
	calc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err == nil {
		err = tpm2.PolicySigned{AuthObject: tpm2.NamedHandle{Name: *name}}.Update(calc)
	}
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "compute a key's policy: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "policy key: %w", err)
	}
	sum := sha256.Sum256(der)
	out := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgSHA256))
	return append(append(out, calc.Hash().Digest...), sum[:]...), nil
}

// Account is the policy key in force.
type Account struct {
	Fingerprint string // hex SHA-256 of the key's SubjectPublicKeyInfo
	Slot        int    // 0 for the key of the enrolment
}

// Account returns the policy key in force, nil before enrolment.
func (e *Element) Account() (*Account, error) {
	defer e.enter()()
	a, _, err := e.account()
	return a, err
}

func (e *Element) account() (*Account, []byte, error) {
	if _, _, err := e.lockedBirth(); err != nil {
		return nil, nil, err
	}
	for i := AccountSlots - 1; i >= 0; i-- {
		data, err := e.readSlot(i)
		if err != nil {
			return nil, nil, err
		}
		if data != nil {
			return &Account{Fingerprint: hex.EncodeToString(data[2+sha256.Size:]), Slot: i}, data, nil
		}
	}
	return nil, nil, nil
}

// readSlot reads a slot after checking that it lives under the rules above: an
// index with other rules at this handle would be somebody's invention.
func (e *Element) readSlot(i int) ([]byte, error) {
	pub, name, ok, err := e.nvPublic(slotHandle(i))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.Errorf(fault.Token, "slot %d: %w", i, ErrUnborn)
	}
	want, err := slotName(i, pub.Attributes.Written)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(want.Buffer, name.Buffer) {
		return nil, fault.Errorf(fault.Verify, "slot %d: %w", i, ErrContent)
	}
	data, err := e.read(slotHandle(i))
	if err == nil && data != nil && len(data) != slotSize {
		err = fault.Errorf(fault.Verify, "slot %d: %w", i, ErrContent)
	}
	return data, err
}

// CheckAccount says whether pub is the policy key in force (ErrAccount if not).
func (e *Element) CheckAccount(pub crypto.PublicKey) error {
	want, err := slotData(pub)
	if err != nil {
		return err
	}
	defer e.enter()()
	_, have, err := e.account()
	if err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return ErrAccount
	}
	return nil
}

// SetAccount writes the first policy key, at enrolment. When the element has one
// already, the same is nothing to do and any other is ErrAccount.
func (e *Element) SetAccount(pub crypto.PublicKey) error {
	data, err := slotData(pub)
	if err != nil {
		return err
	}
	defer e.enter()()
	_, have, err := e.account()
	if err != nil {
		return err
	}
	if have != nil {
		if !bytes.Equal(have, data) {
			return ErrAccount
		}
		return nil
	}
	return e.writeSlot(0, data, func(t *wire, s tpm2.TPMISHPolicy) error { return notWritten(t, s) })
}

func notWritten(t *wire, s tpm2.TPMISHPolicy) error {
	_, err := tpm2.PolicyNVWritten{PolicySession: s}.Execute(t)
	return wrap("satisfy a slot's policy", err)
}

func (e *Element) writeSlot(i int, data []byte, satisfy func(*wire, tpm2.TPMISHPolicy) error) error {
	name, err := slotName(i, false)
	if err != nil {
		return err
	}
	// The session is opened and ended here: one that go-tpm opens by itself
	// stays in the TPM when its policy fails.
	session, end, err := tpm2.PolicySession(e.t, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		return wrap("open a policy session", err)
	}
	if err := satisfy(e.t, session.Handle()); err != nil {
		return errors.Join(err, end())
	}
	cmd := slotWrite(i, name, data)
	cmd.AuthHandle = tpm2.AuthHandle{Handle: slotHandle(i), Name: name, Auth: session}
	_, err = cmd.Execute(e.t)
	if err := errors.Join(wrap("write a slot", err), wrap("end a policy session", end())); err != nil {
		return err
	}
	have, err := e.readSlot(i)
	if err == nil && !bytes.Equal(have, data) {
		err = fault.Errorf(fault.Token, "slot %d: %w after writing", i, ErrContent)
	}
	return err
}

func slotWrite(i int, name tpm2.TPM2BName, data []byte) tpm2.NVWrite {
	h := tpm2.NamedHandle{Handle: slotHandle(i), Name: name}
	return tpm2.NVWrite{AuthHandle: h, NVIndex: h, Data: tpm2.TPM2BMaxNVBuffer{Buffer: data}}
}

// AccountChange returns the bytes that the key of slot i signs (ECDSA over their
// SHA-256) to make next the key of slot i+1. They are the same on every gateway,
// so one signature serves a whole account; a slot being written once, it serves
// no gateway twice. TPM 2.0 Part 3, 23.3: nonceTPM (empty), expiration (0),
// cpHashA of the one NV_Write that is allowed, policyRef (empty).
func AccountChange(i int, next crypto.PublicKey) ([]byte, error) {
	if i < 0 || i+1 >= AccountSlots {
		return nil, fault.Errorf(fault.Policy, "the element has no slot after %d: this gateway has had all its policy keys", i)
	}
	cp, err := changeHash(i, next)
	if err != nil {
		return nil, err
	}
	return append(make([]byte, 4), cp...), nil
}

func changeHash(i int, next crypto.PublicKey) ([]byte, error) {
	data, err := slotData(next)
	if err != nil {
		return nil, err
	}
	name, err := slotName(i+1, false)
	if err != nil {
		return nil, err
	}
	cp, err := tpm2.CPHash[tpm2.NVWriteResponse](tpm2.TPMAlgSHA256, slotWrite(i+1, name, data))
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "compute the hash of a command: %w", err)
	}
	return cp.Buffer, nil
}

// ReplaceAccount puts next in force in place of old, given old's signature (DER)
// over AccountChange. The element itself checks the signature.
func (e *Element) ReplaceAccount(old, next crypto.PublicKey, signature []byte) error {
	oldData, err := slotData(old)
	if err != nil {
		return err
	}
	data, err := slotData(next)
	if err != nil {
		return err
	}
	defer e.enter()()
	a, have, err := e.account()
	if err != nil {
		return err
	}
	if a == nil || !bytes.Equal(have, oldData) {
		return ErrAccount
	}
	if a.Slot+1 >= AccountSlots {
		return fault.New(fault.Policy, "the element has no slot left: this gateway has had all its policy keys")
	}
	return e.replace(a.Slot, old, next, data, signature)
}

func (e *Element) replace(slot int, old, next crypto.PublicKey, data, signature []byte) (err error) {
	sig, err := tpmSignature(signature)
	if err != nil {
		return err
	}
	cp, err := changeHash(slot, next)
	if err != nil {
		return err
	}
	pub, err := policyKey(old)
	if err != nil {
		return err
	}
	loaded, err := tpm2.LoadExternal{InPublic: tpm2.New2B(*pub), Hierarchy: tpm2.TPMRHNull}.Execute(e.t)
	if err != nil {
		return wrap("load the policy key", err)
	}
	defer func() { err = errors.Join(err, e.flush(loaded.ObjectHandle)) }()
	name, err := slotName(slot, true)
	if err != nil {
		return err
	}
	return e.writeSlot(slot+1, data, func(t *wire, s tpm2.TPMISHPolicy) error {
		_, err := tpm2.PolicySigned{
			AuthObject: tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, PolicySession: s,
			CPHashA: tpm2.TPM2BDigest{Buffer: cp}, Auth: *sig,
		}.Execute(t)
		if err != nil {
			return wrap("check the old key's signature", err)
		}
		_, err = tpm2.PolicyAuthorizeNV{
			AuthHandle: indexAuth(slotHandle(slot), name), NVIndex: tpm2.NamedHandle{Handle: slotHandle(slot), Name: name}, PolicySession: s,
		}.Execute(t)
		if err != nil {
			return wrap("satisfy the former slot's policy", err)
		}
		return notWritten(t, s)
	})
}

func tpmSignature(der []byte) (*tpm2.TPMTSignature, error) {
	var rs struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &rs)
	if err != nil || len(rest) != 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return nil, fault.New(fault.Verify, "the old key's signature is not a P-256 signature in DER")
	}
	return &tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash:       tpm2.TPMAlgSHA256,
		SignatureR: tpm2.TPM2BECCParameter{Buffer: rs.R.FillBytes(make([]byte, 32))},
		SignatureS: tpm2.TPM2BECCParameter{Buffer: rs.S.FillBytes(make([]byte, 32))},
	})}, nil
}
