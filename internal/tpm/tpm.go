// Package tpm speaks to a TPM 2.0: the connection that a gateway's secure element and
// a vault's host share, and for the latter the few objects that it keeps there.
//
// Dial gives the bare connection, on which gateway/secureelement runs its own
// commands. Open gives a Device, for the vault: NV indexes of its own whose public
// area is compared at each use, a key that signs, and secrets sealed to the state of
// the host.
//
// Authorisations go to the TPM as the keys of HMAC sessions and never over the bus,
// but for the moment at which an index or a key is made; there and wherever a secret goes
// in or comes out, the parameter is encrypted under a session salted with a key of
// the TPM. Every answer of an authorised command is authenticated with the index's
// authorisation, so that an index that somebody removed and defined anew under
// another one is noticed at the first use.
//
// It must never log or return an authorisation, and must not import anything of ours.
package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/go-tpm/tpm2"
)

// Device is one TPM. Its methods may be called by several goroutines; the commands of
// one method run without others of the same Device in between.
type Device struct {
	mu sync.Mutex // guards w and the order of commands on it
	w  *Wire
}

// Open connects to the TPM at addr, as Dial does.
func Open(addr string) (*Device, error) {
	w, err := Dial(addr)
	if err != nil {
		return nil, err
	}
	defer w.Yield()
	if err := w.tidy(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return &Device{w: w}, nil
}

// tidy lets go of the sessions and keys that a process which was killed left in a TPM
// without a resource manager, where they would fill the few places that there are. One
// that speaks over a socket serves one connection at a time, so nobody is using them.
func (w *Wire) tidy() error {
	if strings.HasPrefix(w.addr, "/") {
		return nil // the kernel's resource manager does it when a device is closed
	}
	for _, kind := range []tpm2.TPMHT{tpm2.TPMHTLoadedSession, tpm2.TPMHTTransient} {
		r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(kind) << 24, PropertyCount: 16}.Execute(w)
		if err != nil {
			return wrap("list what the TPM has loaded", err)
		}
		list, err := r.CapabilityData.Data.Handles()
		if err != nil {
			return wrap("list what the TPM has loaded", err)
		}
		for _, h := range list.Handle {
			if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(w); err != nil {
				return wrap("let go of what the TPM has loaded", err)
			}
		}
	}
	return nil
}

// Close ends the connection.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.w.Close()
}

// enter begins a sequence of commands and returns what ends it.
func (d *Device) enter() func() {
	d.mu.Lock()
	return func() {
		d.w.Yield()
		d.mu.Unlock()
	}
}

// storage makes the storage root key, which is the same at each call, for f. owner is
// the authorisation of the TPM's owner.
func (d *Device) storage(owner []byte, f func(parent *tpm2.CreatePrimaryResponse, public *tpm2.TPMTPublic) error) error {
	as := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(owner))}
	srk, err := tpm2.CreatePrimary{PrimaryHandle: as, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(d.w)
	if err != nil {
		return wrap("make the storage key", err)
	}
	public, err := srk.OutPublic.Contents()
	if err == nil {
		err = f(srk, public)
	}
	_, flushErr := tpm2.FlushContext{FlushHandle: srk.ObjectHandle}.Execute(d.w)
	return errors.Join(err, wrap("let go of the storage key", flushErr))
}

// secret is an authorisation session whose parameters are encrypted on the way that
// dir says, under a salt that only the TPM can open.
func secret(auth []byte, parent *tpm2.CreatePrimaryResponse, public *tpm2.TPMTPublic, in bool) tpm2.Session {
	dir := tpm2.EncryptOut
	if in {
		dir = tpm2.EncryptIn
	}
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(auth), tpm2.AESEncryption(128, dir), tpm2.Salted(parent.ObjectHandle, *public))
}

// Index is an NV index with an authorisation value of its own.
type Index struct {
	Handle  uint32 // in the owner's range, 0x01800000 to 0x01BFFFFF
	Bytes   uint16 // of data; 8 for a counter
	Counter bool   // it counts up by ones and never down, whoever defines it anew
}

// public is the whole public area that the index must have.
func (x Index) public() tpm2.TPMSNVPublic {
	kind := tpm2.TPMNTOrdinary
	if x.Counter {
		kind = tpm2.TPMNTCounter
	}
	return tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(x.Handle), NameAlg: tpm2.TPMAlgSHA256, DataSize: x.Bytes,
		Attributes: tpm2.TPMANV{AuthWrite: true, AuthRead: true, NoDA: true, NT: kind},
	}
}

// Define makes an index under a new authorisation. It needs that of the owner, which
// is empty on most machines. An index that is there already is ErrDefined.
func (d *Device) Define(x Index, auth, owner []byte) error {
	defer d.enter()()
	return d.storage(owner, func(srk *tpm2.CreatePrimaryResponse, public *tpm2.TPMTPublic) error {
		_, err := tpm2.NVDefineSpace{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: secret(owner, srk, public, true)},
			Auth:       tpm2.TPM2BAuth{Buffer: auth}, PublicInfo: tpm2.New2B(x.public()),
		}.Execute(d.w)
		return wrap(fmt.Sprintf("define index %#x", x.Handle), err)
	})
}

// Undefine removes an index, whatever its public area. One that is not there is
// ErrMissing.
func (d *Device) Undefine(x Index, owner []byte) error {
	defer d.enter()()
	_, name, _, err := d.read(x)
	if err != nil {
		return err
	}
	_, err = tpm2.NVUndefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(owner))},
		NVIndex:    tpm2.NamedHandle{Handle: tpm2.TPMHandle(x.Handle), Name: name},
	}.Execute(d.w)
	return wrap(fmt.Sprintf("remove index %#x", x.Handle), err)
}

// read reads the public area as it is. go-tpm checks nothing of it; the name is
// computed here, and the TPM's must be the same.
func (d *Device) read(x Index) (tpm2.TPMSNVPublic, tpm2.TPM2BName, bool, error) {
	var none tpm2.TPMSNVPublic
	r, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(x.Handle)}.Execute(d.w)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return none, tpm2.TPM2BName{}, false, fmt.Errorf("index %#x: %w", x.Handle, ErrMissing)
	}
	if err != nil {
		return none, tpm2.TPM2BName{}, false, wrap("read an index's public area", err)
	}
	pub, err := r.NVPublic.Contents()
	if err != nil {
		return none, tpm2.TPM2BName{}, false, wrap("read an index's public area", err)
	}
	name, err := tpm2.NVName(pub)
	if err != nil || string(name.Buffer) != string(r.NVName.Buffer) {
		return none, tpm2.TPM2BName{}, false, fmt.Errorf("index %#x: its name is not that of its public area: %w", x.Handle, ErrForeign)
	}
	return *pub, *name, pub.Attributes.Written, nil
}

// exact is read for an index that must have exactly its own public area.
func (d *Device) exact(x Index) (tpm2.TPM2BName, bool, error) {
	pub, name, written, err := d.read(x)
	if err != nil {
		return name, false, err
	}
	want := x.public()
	want.Attributes.Written = written
	wantName, err := tpm2.NVName(&want)
	if err != nil {
		return name, false, wrap("name an index", err)
	}
	if pub.NVIndex != want.NVIndex || string(wantName.Buffer) != string(name.Buffer) {
		return name, false, fmt.Errorf("index %#x: %w", x.Handle, ErrForeign)
	}
	return name, written, nil
}

// using is the authorisation of an index by its own value.
func using(x Index, name tpm2.TPM2BName, auth []byte) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMHandle(x.Handle), Name: name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(auth))}
}

func named(x Index, name tpm2.TPM2BName) tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: tpm2.TPMHandle(x.Handle), Name: name}
}

// chunk is how much is read or written at once, in bytes. Every PC Client TPM has an
// NV buffer of at least this size.
const chunk = 512

// Read reads an index whole; nil if nothing was written yet.
func (d *Device) Read(x Index, auth []byte) ([]byte, error) {
	defer d.enter()()
	return d.readData(x, auth)
}

func (d *Device) readData(x Index, auth []byte) ([]byte, error) {
	name, written, err := d.exact(x)
	if err != nil || !written {
		return nil, err
	}
	var out []byte
	for len(out) < int(x.Bytes) {
		r, err := tpm2.NVRead{
			AuthHandle: using(x, name, auth), NVIndex: named(x, name),
			Size: uint16(min(chunk, int(x.Bytes)-len(out))), Offset: uint16(len(out)),
		}.Execute(d.w)
		if err != nil {
			return nil, wrap(fmt.Sprintf("read index %#x", x.Handle), err)
		}
		if len(r.Data.Buffer) == 0 {
			return nil, fmt.Errorf("read index %#x: %w", x.Handle, ErrTorn)
		}
		out = append(out, r.Data.Buffer...)
	}
	return out, nil
}

// Write writes data, at most 512 bytes, at an offset and reads it back.
func (d *Device) Write(x Index, auth []byte, offset int, data []byte) error {
	defer d.enter()()
	name, _, err := d.exact(x)
	if err != nil {
		return err
	}
	_, err = tpm2.NVWrite{AuthHandle: using(x, name, auth), NVIndex: named(x, name), Data: tpm2.TPM2BMaxNVBuffer{Buffer: data}, Offset: uint16(offset)}.Execute(d.w)
	if err != nil {
		return wrap(fmt.Sprintf("write index %#x", x.Handle), err)
	}
	have, err := d.readData(x, auth)
	if err == nil && (len(have) < offset+len(data) || string(have[offset:offset+len(data)]) != string(data)) {
		err = fmt.Errorf("write index %#x: %w", x.Handle, ErrTorn)
	}
	return err
}

// Count is the value of a counter, 0 before its first step. The first step takes it
// above every value that any counter of this TPM ever had.
func (d *Device) Count(x Index, auth []byte) (uint64, error) {
	defer d.enter()()
	return d.count(x, auth)
}

func (d *Device) count(x Index, auth []byte) (uint64, error) {
	b, err := d.readData(x, auth)
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 { // TPM 2.0 Library, part 2, TPM_NT_COUNTER: 8 octets
		return 0, ErrForeign
	}
	return binary.BigEndian.Uint64(b), nil
}

// Step counts up by one and returns the new value.
func (d *Device) Step(x Index, auth []byte) (uint64, error) {
	defer d.enter()()
	before, err := d.count(x, auth)
	if err != nil {
		return 0, err
	}
	name, _, err := d.exact(x)
	if err != nil {
		return 0, err
	}
	if _, err := (tpm2.NVIncrement{AuthHandle: using(x, name, auth), NVIndex: named(x, name)}).Execute(d.w); err != nil {
		return 0, wrap(fmt.Sprintf("count index %#x up", x.Handle), err)
	}
	now, err := d.count(x, auth)
	if err == nil && (now <= before || before > 0 && now != before+1) {
		err = fmt.Errorf("count index %#x up: %w", x.Handle, ErrTorn)
	}
	return now, err
}
