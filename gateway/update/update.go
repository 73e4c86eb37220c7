// Package update brings a release into a gateway and decides what it starts.
//
// Two signatures have to agree. TUF says what is offered now and to whom; the
// release statement, checked with the firmware key in the secure element, says
// that the image is ours. Neither installs anything alone. keyrite-gateway calls
// Client.Find and Slots.Install to update, Slots.Boot at every start and
// Slots.Confirm once the started system has shown that it works.
//
// It must never write to the slot that runs or would run next, never mark a slot
// bootable that it has not read back and verified, and never take product,
// hardware or security version from anything but a verified statement.
//
// Compatibility: docs/formats/boot-state.md, version 1 is read for ever.
package update

import (
	"crypto/ecdsa"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/world"
	"keyrite/gateway/secureelement"
)

// Element is what this package needs of the secure element.
type Element interface {
	Birth() (*secureelement.Birth, error)
	FirmwareKey() (*ecdsa.PublicKey, error)
	SecurityVersion() (int64, error)
	RaiseSecurityVersion(int64) error
	TimeFloor() (time.Time, error)
	RaiseTimeFloor(time.Time) error
	Succession() (int64, bool, error)
	RaiseSuccession(int64) error
}

// Device is what the gateway is, from its birth certificate and its board.
type Device struct {
	Product  string
	Hardware string
}

var (
	// ErrNoOffer says that the repository has no release for this gateway.
	ErrNoOffer = fault.New(fault.Policy, "the repository offers no release for this gateway")
	// ErrRollback says that a release is below the element's security version.
	ErrRollback = fault.New(fault.Policy, "rolled back: this release is older than the secure element allows")
	// ErrOther says that a release is for other devices.
	ErrOther = fault.New(fault.Policy, "this release is for another product or hardware")
	// ErrTarget says that a file is not the one that TUF lists.
	ErrTarget = fault.New(fault.Verify, "the file is not the one that the TUF targets list")
	// ErrTUF says that TUF metadata does not verify.
	ErrTUF = fault.New(fault.Verify, "TUF metadata does not verify")
	// ErrStale says that TUF metadata is expired or older than what was seen.
	ErrStale = fault.New(fault.Policy, "TUF metadata is expired or rolled back")
	// ErrState says that the boot state is not one we wrote.
	ErrState = fault.New(fault.Verify, "the boot state is damaged")
	// ErrNothing says that no slot can be started.
	ErrNothing = fault.New(fault.Verify, "no slot holds a release that verifies")
)

// trust is what the element says about releases. The release log's key comes
// from the anchors, whose hash the element holds.
func trust(e Element, log []byte) (*firmware.Trust, error) {
	b, err := e.Birth()
	if err != nil {
		return nil, err
	}
	k, err := e.FirmwareKey()
	if err != nil {
		return nil, err
	}
	return &firmware.Trust{World: b.World, Vault: b.Vault, Firmware: k, Log: log}, nil
}

// admit says whether a verified statement may run on this device.
func admit(s *firmware.Statement, d Device, w world.World, floor int64) error {
	p := &s.Predicate
	if err := world.Match(w, p.World); err != nil {
		return err
	}
	fits := false
	for _, h := range p.Hardware {
		fits = fits || h == d.Hardware
	}
	if p.Product != d.Product || !fits {
		return fault.Errorf(fault.Policy, "%w: %s for %v, not %s on %s", ErrOther, p.Product, p.Hardware, d.Product, d.Hardware)
	}
	if p.SecurityVersion < floor {
		return fault.Errorf(fault.Policy, "%w: security version %d, the lowest is %d", ErrRollback, p.SecurityVersion, floor)
	}
	if p.SecurityVersion-floor > secureelement.MaxStep {
		return fault.Errorf(fault.Policy, "security version %d is more than %d above %d, further than the secure element counts at once", p.SecurityVersion, secureelement.MaxStep, floor)
	}
	return nil
}
