// Package secureelement is the gateway's TPM 2.0: the place of the device key,
// the birth certificate and everything that software on the box must not be
// able to take back.
//
// The station's birth dialogue calls CreateKey, Provision, StoreCertificate and
// Lock, in that order; from then on gateway/boot and gateway/update read the
// firmware key and the security version, gateway/enroll writes the account's
// policy key once, and gateway/uplink and gateway/tunnel sign with the device
// key. After Lock nobody holds the owner, lockout or platform authorisation, so
// indexes can be neither redefined nor removed by any software.
//
// What the element protects against: other firmware, another account, an older
// release, a copied disk. What it does not: code that runs as root on the box
// may use the device key while it runs, and may raise (never lower) a counter.
//
// It must never return a private key, never write an index without reading it
// back, and never keep an authorisation value.
//
// Compatibility: docs/formats/element.md; the handles and the layout of each
// index are fixed, because a born gateway cannot be laid out anew.
package secureelement

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/fault"
	"keyrite/internal/tpm"
)

// Element is one TPM 2.0. Its methods may be called by several goroutines; the
// commands of one method run without others in between.
type Element struct {
	mu sync.Mutex // guards t and the order of commands on it
	t  *wire
}

// Open connects to the TPM at addr: a device file ("/dev/tpmrm0") or HOST:PORT
// of a TPM that speaks plain commands over TCP, as swtpm does. On a locked
// element it also closes the platform hierarchy for this boot, whose
// authorisation every start of the TPM resets to empty.
func Open(addr string) (*Element, error) {
	w, err := dial(addr)
	if err != nil {
		return nil, err
	}
	e := &Element{t: w}
	defer w.Yield()
	locked, err := e.locked()
	if err == nil && locked {
		err = e.closePlatform()
	}
	if err != nil {
		_ = w.Close()
		return nil, err
	}
	return e, nil
}

// Close ends the connection.
func (e *Element) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.t.Close()
}

// enter begins a sequence of commands and returns what ends it. A TPM behind a
// socket serves one connection at a time, so that connection is given back after
// each sequence and other programs get their turn; /dev/tpmrm0 has its own
// arbiter and stays open.
func (e *Element) enter() func() {
	e.mu.Lock()
	return func() {
		e.t.Yield()
		e.mu.Unlock()
	}
}

// Random returns n random bytes from the element mixed with the system's, so
// that neither source alone decides.
func (e *Element) Random(n int) ([]byte, error) {
	out := make([]byte, n)
	if _, err := rand.Read(out); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "read system random: %w", err)
	}
	defer e.enter()()
	for have := 0; have < n; {
		r, err := tpm2.GetRandom{BytesRequested: uint16(min(n-have, 32))}.Execute(e.t) // 32: every TPM gives a SHA-256 digest's worth
		if err != nil {
			return nil, wrap("read random", err)
		}
		if len(r.RandomBytes.Buffer) == 0 {
			return nil, fault.New(fault.Token, "read random: the element gave no bytes")
		}
		for _, b := range r.RandomBytes.Buffer {
			if have < n {
				out[have] ^= b
				have++
			}
		}
	}
	return out, nil
}

// permanent attributes, TPM 2.0 Part 2, 8.6 TPMA_PERMANENT
const (
	ownerAuthSet   = 1 << 0
	lockoutAuthSet = 1 << 2
)

// Locked says whether provisioning is over.
func (e *Element) Locked() (bool, error) {
	defer e.enter()()
	return e.locked()
}

func (e *Element) locked() (bool, error) {
	p, err := e.permanent()
	return p&ownerAuthSet != 0, err
}

func (e *Element) permanent() (uint32, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTPermanent), PropertyCount: 1}.Execute(e.t)
	if err != nil {
		return 0, wrap("read capabilities", err)
	}
	props, err := r.CapabilityData.Data.TPMProperties()
	if err != nil || len(props.TPMProperty) != 1 {
		return 0, fault.New(fault.Token, "read capabilities: unusable answer")
	}
	return props.TPMProperty[0].Value, nil
}

// closePlatform gives the platform hierarchy a random authorisation that nobody
// keeps. One that is set already was set by an earlier Open or the firmware.
func (e *Element) closePlatform() error {
	err := e.closeHierarchy(tpm2.TPMRHPlatform)
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCHierarchy) {
		return nil
	}
	return err
}

// closeHierarchy leaves nobody a way to use a hierarchy. The policy goes first:
// without the authorisation it could not be taken away any more.
func (e *Element) closeHierarchy(hierarchy tpm2.TPMHandle) error {
	if err := e.noPolicy(hierarchy); err != nil {
		return err
	}
	return e.setAuth(hierarchy)
}

// noPolicy takes away the policy of a hierarchy with an empty authorisation
// (TPM2_SetPrimaryPolicy, TPM 2.0 Part 3, 24.3, which go-tpm lacks).
func (e *Element) noPolicy(hierarchy tpm2.TPMHandle) error {
	const size = tpm.HeaderSize + 4 + 4 + 9 + 2 + 2
	cmd := binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMSTSessions))
	cmd = binary.BigEndian.AppendUint32(cmd, size)
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(tpm2.TPMCCSetPrimaryPolicy))
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(hierarchy))
	cmd = binary.BigEndian.AppendUint32(cmd, 9) // of the password session: handle, no nonce, no attributes, no password
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(tpm2.TPMRSPW))
	cmd = append(cmd, 0, 0, 0, 0, 0)
	cmd = binary.BigEndian.AppendUint16(cmd, 0) // no policy
	cmd = binary.BigEndian.AppendUint16(cmd, uint16(tpm2.TPMAlgNull))
	answer, err := e.t.Send(cmd)
	if err != nil {
		return err
	}
	if rc := tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])); rc != tpm2.TPMRCSuccess {
		return wrap("take the policy of a hierarchy away", rc)
	}
	return nil
}

// setAuth replaces the empty authorisation of a hierarchy by a random one.
func (e *Element) setAuth(hierarchy tpm2.TPMHandle) error {
	auth := make([]byte, 32)
	if _, err := rand.Read(auth); err != nil {
		return fault.Errorf(fault.Unexpected, "read system random: %w", err)
	}
	defer clear(auth)
	_, err := tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
		NewAuth:    tpm2.TPM2BAuth{Buffer: auth},
	}.Execute(e.t)
	return wrap("close a hierarchy", err)
}
