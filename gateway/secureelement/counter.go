package secureelement

import (
	"encoding/binary"
	"time"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/fault"
)

// MaxStep bounds how far one call may raise a version. A TPM counts by ones in
// memory that wears out, so a version that jumps further is refused.
const MaxStep = 1024

// timeFloorStep is how much later a time must be to be worth a write.
const timeFloorStep = time.Hour

func counterIndex(index tpm2.TPMHandle) tpm2.TPMSNVPublic {
	return tpm2.TPMSNVPublic{
		NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{AuthWrite: true, AuthRead: true, NoDA: true, NT: tpm2.TPMNTCounter},
	}
}

func timeFloorIndex() tpm2.TPMSNVPublic {
	return tpm2.TPMSNVPublic{
		NVIndex: nvTimeFloor, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{AuthWrite: true, AuthRead: true, NoDA: true, NT: tpm2.TPMNTOrdinary},
	}
}

func indexAuth(index tpm2.TPMHandle, name tpm2.TPM2BName) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: index, Name: name, Auth: tpm2.PasswordAuth(nil)}
}

// newCounter defines a counter and gives it its first value, which is above that
// of every counter this TPM ever had: a counter defined anew is never lower.
func (e *Element) newCounter(index tpm2.TPMHandle) (int64, error) {
	if err := e.define(counterIndex(index)); err != nil {
		return 0, err
	}
	v, err := e.count(index)
	if err != nil || v != 0 {
		return v, err
	}
	if err := e.increment(index); err != nil {
		return 0, err
	}
	return e.count(index)
}

func (e *Element) increment(index tpm2.TPMHandle) error {
	_, name, ok, err := e.nvPublic(index)
	if err != nil {
		return err
	}
	if !ok {
		return fault.Errorf(fault.Token, "counter %#x: %w", uint32(index), ErrUnborn)
	}
	_, err = tpm2.NVIncrement{AuthHandle: indexAuth(index, name), NVIndex: tpm2.NamedHandle{Handle: index, Name: name}}.Execute(e.t)
	return wrap("count", err)
}

// count returns a counter's raw value, 0 before the first increment.
func (e *Element) count(index tpm2.TPMHandle) (int64, error) {
	b, err := e.readExact(counterIndex(index))
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 || b[0]&0x80 != 0 {
		return 0, fault.Errorf(fault.Token, "counter %#x: %w", uint32(index), ErrContent)
	}
	return int64(binary.BigEndian.Uint64(b)), nil // the sign bit was looked at
}

// SecurityVersion is the lowest security version that may still be installed.
func (e *Element) SecurityVersion() (int64, error) { return e.version(nvSecurity) }

// RaiseSecurityVersion makes v the lowest security version. A lower v than the
// present one is ErrRollback, the same is nothing to do.
func (e *Element) RaiseSecurityVersion(v int64) error { return e.raise(nvSecurity, v) }

// PolicyVersion is the highest version of the account's policy that was in
// force here.
func (e *Element) PolicyVersion() (int64, error) { return e.version(nvPolicy) }

// RaisePolicyVersion works as RaiseSecurityVersion does.
func (e *Element) RaisePolicyVersion(v int64) error { return e.raise(nvPolicy, v) }

// Succession is how far the gateway has followed the successions of its keys, as
// RaiseSuccession was told; false on an element born before there was a counter
// for it.
func (e *Element) Succession() (int64, bool, error) {
	defer e.enter()()
	_, rec, err := e.lockedBirth()
	if err != nil || rec.SuccessionBase == 0 {
		return 0, false, err
	}
	v, err := e.versionLocked(nvSuccession)
	return v, true, err
}

// RaiseSuccession works as RaiseSecurityVersion does.
func (e *Element) RaiseSuccession(v int64) error { return e.raise(nvSuccession, v) }

func (e *Element) version(index tpm2.TPMHandle) (int64, error) {
	defer e.enter()()
	return e.versionLocked(index)
}

func (e *Element) versionLocked(index tpm2.TPMHandle) (int64, error) {
	_, rec, err := e.lockedBirth()
	if err != nil {
		return 0, err
	}
	base := map[tpm2.TPMHandle]int64{nvSecurity: rec.SecurityBase, nvPolicy: rec.PolicyBase, nvSuccession: rec.SuccessionBase}[index]
	v, err := e.count(index)
	if err == nil && (base < 1 || v < base) {
		err = fault.Errorf(fault.Verify, "counter %#x: %w", uint32(index), ErrContent)
	}
	return v - base, err
}

func (e *Element) raise(index tpm2.TPMHandle, v int64) error {
	defer e.enter()()
	have, err := e.versionLocked(index)
	if err != nil {
		return err
	}
	if v < have {
		return fault.Errorf(fault.Policy, "%w: %d, now %d", ErrRollback, have, v)
	}
	if v-have > MaxStep {
		return fault.Errorf(fault.Policy, "version %d is more than %d above %d, further than the element counts at once", v, MaxStep, have)
	}
	for ; have < v; have++ {
		if err := e.increment(index); err != nil {
			return err
		}
	}
	now, err := e.versionLocked(index)
	if err == nil && now != v {
		err = fault.Errorf(fault.Token, "counter %#x: %w after counting", uint32(index), ErrContent)
	}
	return err
}

// TimeFloor is the highest signed time that the gateway has seen, the zero time
// if none. The clock never counts below it.
func (e *Element) TimeFloor() (time.Time, error) {
	defer e.enter()()
	return e.timeFloor()
}

func (e *Element) timeFloor() (time.Time, error) {
	b, err := e.readExact(timeFloorIndex())
	if err != nil || b == nil {
		return time.Time{}, err
	}
	if len(b) != 8 || b[0] != 0 {
		return time.Time{}, fault.Errorf(fault.Token, "time floor: %w", ErrContent)
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b)), 0).UTC(), nil // below 2^56
}

// RaiseTimeFloor remembers a signed time. Earlier times, and those less than an
// hour later, which are not worth a write, change nothing.
func (e *Element) RaiseTimeFloor(t time.Time) error {
	defer e.enter()()
	have, err := e.timeFloor()
	if err != nil || t.Unix() < 0 || t.Before(have.Add(timeFloorStep)) {
		return err
	}
	_, name, _, err := e.nvPublic(nvTimeFloor)
	if err != nil {
		return err
	}
	return e.write(nvTimeFloor, indexAuth(nvTimeFloor, name), binary.BigEndian.AppendUint64(nil, uint64(t.Unix()))) // not negative
}
