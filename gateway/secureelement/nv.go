package secureelement

import (
	"bytes"
	"errors"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/fault"
)

// Handles. NV indexes are in the owner range of the TCG registry of reserved
// handles (0x01800000 to 0x01BFFFFF).
const (
	deviceKey tpm2.TPMHandle = 0x81000100

	nvBirth       tpm2.TPMHandle = 0x01800100 // birth record, locked
	nvCertificate tpm2.TPMHandle = 0x01800101 // birth certificate and chain, locked
	nvFirmwareKey tpm2.TPMHandle = 0x01800110 // firmware key, locked
	nvSecurity    tpm2.TPMHandle = 0x01800112 // counter: security version
	nvPolicy      tpm2.TPMHandle = 0x01800113 // counter: policy version
	nvTimeFloor   tpm2.TPMHandle = 0x01800114 // seconds since 1970, big-endian
	nvSuccession  tpm2.TPMHandle = 0x01800115 // counter: succession, twice its counter and one once it is complete
	nvAccount     tpm2.TPMHandle = 0x01800120 // first of AccountSlots policy-key slots
)

// chunk is how much is read or written at once, in bytes. Every PC Client TPM
// has an NV buffer of at least this size.
const chunk = 512

func ownerAuth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
}

// nvPublic returns the public area and name of an index, and false if it does
// not exist.
func (e *Element) nvPublic(index tpm2.TPMHandle) (*tpm2.TPMSNVPublic, tpm2.TPM2BName, bool, error) {
	r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(e.t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, tpm2.TPM2BName{}, false, nil
	}
	if err != nil {
		return nil, tpm2.TPM2BName{}, false, wrap("read an index's public area", err)
	}
	pub, err := r.NVPublic.Contents()
	if err != nil || pub.NVIndex != index {
		return nil, tpm2.TPM2BName{}, false, fault.New(fault.Token, "read an index's public area: unusable answer")
	}
	return pub, r.NVName, true, nil
}

// define makes an index with owner authorisation. One that exists already with
// the same attributes, policy and size is kept, so that a birth cut short can go
// on; a different one is refused.
func (e *Element) define(pub tpm2.TPMSNVPublic) error {
	have, _, ok, err := e.nvPublic(pub.NVIndex)
	if err != nil {
		return err
	}
	if ok {
		a := have.Attributes
		a.Written, a.WriteLocked = false, false
		if a != pub.Attributes || have.DataSize != pub.DataSize || !bytes.Equal(have.AuthPolicy.Buffer, pub.AuthPolicy.Buffer) {
			return fault.Errorf(fault.Policy, "index %#x: %w", uint32(pub.NVIndex), ErrContent)
		}
		return nil
	}
	_, err = tpm2.NVDefineSpace{AuthHandle: ownerAuth(), PublicInfo: tpm2.New2B(pub)}.Execute(e.t)
	return wrap("define an index", err)
}

// lockedIndex is an ordinary index that is written once with owner
// authorisation and then locked for ever (TPMA_NV_WRITEDEFINE).
func lockedIndex(index tpm2.TPMHandle, size int) tpm2.TPMSNVPublic {
	return tpm2.TPMSNVPublic{
		NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(size),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, WriteDefine: true, NoDA: true, NT: tpm2.TPMNTOrdinary},
	}
}

// writeLocked defines, writes, reads back and locks an index. If it is locked
// already it must hold the same data.
func (e *Element) writeLocked(index tpm2.TPMHandle, data []byte) error {
	pub, _, ok, err := e.nvPublic(index)
	if err != nil {
		return err
	}
	if ok && pub.Attributes.WriteLocked {
		have, err := e.readLocked(index)
		if err == nil && !bytes.Equal(have, data) {
			err = fault.Errorf(fault.Policy, "index %#x: %w", uint32(index), ErrContent)
		}
		return err
	}
	if err := e.define(lockedIndex(index, len(data))); err != nil {
		return err
	}
	if err := e.write(index, ownerAuth(), data); err != nil {
		return err
	}
	have, err := e.read(index)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, data) {
		return fault.Errorf(fault.Token, "index %#x: %w after writing", uint32(index), ErrContent)
	}
	_, name, _, err := e.nvPublic(index)
	if err != nil {
		return err
	}
	_, err = tpm2.NVWriteLock{AuthHandle: ownerAuth(), NVIndex: tpm2.NamedHandle{Handle: index, Name: name}}.Execute(e.t)
	return wrap("lock an index", err)
}

// readLocked reads an index that must be locked: an index somebody could still
// write is no evidence of birth.
func (e *Element) readLocked(index tpm2.TPMHandle) ([]byte, error) {
	pub, _, ok, err := e.nvPublic(index)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.Errorf(fault.Token, "index %#x: %w", uint32(index), ErrUnborn)
	}
	want := lockedIndex(index, int(pub.DataSize))
	if err := e.expect(want); err != nil {
		return nil, err
	}
	if !pub.Attributes.WriteLocked {
		return nil, fault.Errorf(fault.Token, "index %#x: %w", uint32(index), ErrUnborn)
	}
	return e.readExact(want)
}

// expect says whether an index has exactly the public area that birth gave it,
// but for the two bits that writing and locking set. Above all PLATFORMCREATE
// must be clear: that cannot be defined without the owner's authorisation, which
// nobody has after the lock.
func (e *Element) expect(want tpm2.TPMSNVPublic) error {
	have, _, ok, err := e.nvPublic(want.NVIndex)
	if err != nil {
		return err
	}
	if !ok {
		return fault.Errorf(fault.Token, "index %#x: %w", uint32(want.NVIndex), ErrUnborn)
	}
	if want.Attributes.WriteDefine {
		want.Attributes.WriteLocked = have.Attributes.WriteLocked
	}
	want.Attributes.Written = have.Attributes.Written
	if have.Attributes != want.Attributes || have.NameAlg != want.NameAlg || have.DataSize != want.DataSize || !bytes.Equal(have.AuthPolicy.Buffer, want.AuthPolicy.Buffer) {
		return fault.Errorf(fault.Verify, "index %#x: %w", uint32(want.NVIndex), ErrTampered)
	}
	return nil
}

// readExact reads an index and demands its public area before and after: an
// index that was exchanged in between cannot be changed back.
func (e *Element) readExact(want tpm2.TPMSNVPublic) ([]byte, error) {
	if err := e.expect(want); err != nil {
		return nil, err
	}
	data, err := e.read(want.NVIndex)
	if err != nil {
		return nil, err
	}
	return data, e.expect(want)
}

func (e *Element) write(index tpm2.TPMHandle, auth tpm2.AuthHandle, data []byte) error {
	for off := 0; off < len(data); off += chunk {
		// The first write sets TPMA_NV_WRITTEN and with it changes the name.
		_, name, _, err := e.nvPublic(index)
		if err != nil {
			return err
		}
		_, err = tpm2.NVWrite{
			AuthHandle: auth, NVIndex: tpm2.NamedHandle{Handle: index, Name: name},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[off:min(off+chunk, len(data))]}, Offset: uint16(off),
		}.Execute(e.t)
		if err != nil {
			return wrap("write an index", err)
		}
	}
	return nil
}

// read returns the whole content of an index, nil if it was never written.
func (e *Element) read(index tpm2.TPMHandle) ([]byte, error) {
	pub, name, ok, err := e.nvPublic(index)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.Errorf(fault.Token, "index %#x: %w", uint32(index), ErrUnborn)
	}
	if !pub.Attributes.Written {
		return nil, nil
	}
	out := make([]byte, 0, pub.DataSize)
	for len(out) < int(pub.DataSize) {
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: name, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: name},
			Size:       uint16(min(chunk, int(pub.DataSize)-len(out))), Offset: uint16(len(out)),
		}.Execute(e.t)
		if err != nil {
			return nil, wrap("read an index", err)
		}
		if len(r.Data.Buffer) == 0 {
			return nil, fault.New(fault.Token, "read an index: empty answer")
		}
		out = append(out, r.Data.Buffer...)
	}
	return out, nil
}
