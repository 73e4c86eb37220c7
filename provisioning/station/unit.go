package station

import (
	"bytes"
	"context"
	"errors"
	"regexp"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/report"
	"keyrite/provisioning/birthca"
)

// Steps of the issuing flow at which a test stops the station, as a crash would.
func steps() []string {
	return []string{"reserve", "reserved", "intent", "intended", "sign", "signed", "issued", "confirm", "confirmed"}
}

// Reserve takes the next serial for an element. The same element gets the same
// serial until its unit is scrapped.
func (s *Station) Reserve(e report.Element) (*Unit, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, err := s.unitOfChip(e.ChipID); err != nil || u != nil && u.Stage != Scrapped {
		return u, err
	}
	b, err := s.room()
	if err != nil {
		return nil, err
	}
	n, ok := b.Number(b.used)
	if !ok {
		return nil, ErrQuota
	}
	u := &Unit{
		Unit:   report.Unit{Certificate: []byte{}, DeviceSerial: birthcert.MakeDeviceSerial(b.Product, n), Element: e, Reserved: charter.FormatTime(s.now())},
		Bundle: b.BundleID, Seq: b.Seq, Stage: Reserved, SPKI: []byte{}, TBS: []byte{},
	}
	if err := s.step("reserve"); err != nil {
		return nil, err
	}
	err = s.store.update(func(tx *bolt.Tx) error {
		if err := s.store.put(tx, bucketUnits, []byte(u.DeviceSerial), u); err != nil {
			return err
		}
		return s.store.put(tx, bucketChips, []byte(e.ChipID), u.DeviceSerial)
	})
	if err != nil {
		return nil, err
	}
	b.used++
	return u, s.step("reserved")
}

// room is the oldest open bundle that has a serial left.
func (s *Station) room() (*open, error) {
	err := ErrNoBundle
	for _, b := range s.bundles {
		if len(b.Closed) > 0 {
			continue
		}
		if b.used >= b.Quota {
			err = fault.Errorf(fault.Quota, "%w: %d of %d units of bundle %d are taken", ErrQuota, b.used, b.Quota, b.Seq)
			continue
		}
		if refused := errors.Join(b.over, b.CheckTime(s.now())); refused != nil {
			err = refused
			continue
		}
		return b, nil
	}
	return nil, err
}

func (s *Station) unitOfChip(chip string) (*Unit, error) {
	var u *Unit
	err := s.store.view(func(tx *bolt.Tx) error {
		serial, err := get[birthcert.DeviceSerial](tx, bucketChips, []byte(chip))
		if err != nil || serial == nil {
			return err
		}
		u, err = get[Unit](tx, bucketUnits, []byte(*serial))
		return err
	})
	return u, err
}

func (s *Station) unit(serial birthcert.DeviceSerial) (*Unit, error) {
	var u *Unit
	err := s.store.view(func(tx *bolt.Tx) (err error) {
		u, err = get[Unit](tx, bucketUnits, []byte(serial))
		return err
	})
	if err == nil && u == nil {
		err = fault.Errorf(fault.Usage, "there is no unit %.60q", string(serial))
	}
	return u, err
}

func (s *Station) bundleOf(u *Unit) (*open, error) {
	for _, b := range s.bundles {
		if b.Seq == u.Seq && b.BundleID == u.Bundle {
			return b, nil
		}
	}
	return nil, fault.Errorf(fault.Verify, "%w: unit %s without its bundle", ErrLedger, u.DeviceSerial)
}

// Certify issues the birth certificate of a reserved unit for the key spki, or
// gives out again the one that was issued for it. The caller has checked that
// the device holds the key.
func (s *Station) Certify(ctx context.Context, serial birthcert.DeviceSerial, spki []byte) (*Unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.unit(serial)
	if err != nil {
		return nil, err
	}
	if u.Stage != Reserved && !bytes.Equal(u.SPKI, spki) {
		return nil, fault.Hint(fault.Errorf(fault.Policy, "%w: %s has another key", ErrUnit, serial), "an element that lost its key starts anew after: keyrite-station unit scrap")
	}
	switch u.Stage {
	case Reserved:
		if u, err = s.intend(u, spki); err != nil {
			return nil, err
		}
		return s.issue(ctx, u)
	case Intent:
		return s.issue(ctx, u)
	case Issued, Confirmed:
		return u, nil
	}
	return nil, fault.Errorf(fault.Policy, "%w: %s is %s", ErrUnit, serial, u.Stage)
}

// template is the certificate of a unit that has its number and key: a function
// of bundle and unit alone, so that it comes out the same after a crash.
func (s *Station) template(u *Unit) (birthcert.Template, error) {
	b, err := s.bundleOf(u)
	if err != nil {
		return birthcert.Template{}, err
	}
	t := birthcert.Template{
		Profile: birthcert.Device, World: b.World, NotBefore: b.Birthday(), SPKI: u.SPKI, Issuer: b.ca,
		DeviceSerial: u.DeviceSerial, Assurance: birthcert.Unattested, Bundle: b.BundleID,
	}
	if t.Serial, err = birthcert.ParseCertSerial(u.CertSerial); err != nil {
		return t, err
	}
	return t, errors.Join(b.grant.Contains(u.DeviceSerial), b.over, b.CheckTime(s.now()))
}

// intend fixes number, key and to-be-signed bytes before anything is signed.
func (s *Station) intend(u *Unit, spki []byte) (*Unit, error) {
	if bytes.Equal(spki, s.Settings.CA) || bytes.Equal(spki, s.Settings.Report) {
		return nil, fault.Errorf(fault.Policy, "%w: it is the station's own", ErrKeyUsed)
	}
	next := *u
	next.SPKI, next.CertSerial, next.Stage = spki, birthcert.NewCertSerial().String(), Intent
	next.SPKIHash, next.Assurance = birthcert.Hash(spki), birthcert.Unattested
	t, err := s.template(&next)
	if err != nil {
		return nil, err
	}
	l, err := birthca.Lint(t)
	if err != nil {
		return nil, err
	}
	next.TBS = l.TBS()
	if err := s.step("intent"); err != nil {
		return nil, err
	}
	err = s.store.update(func(tx *bolt.Tx) error {
		key := []byte(next.SPKIHash)
		other, err := get[birthcert.DeviceSerial](tx, bucketKeys, key)
		if err != nil {
			return err
		}
		if other != nil {
			return fault.Errorf(fault.Policy, "%w: %s", ErrKeyUsed, *other)
		}
		if err := s.store.put(tx, bucketKeys, key, next.DeviceSerial); err != nil {
			return err
		}
		return s.store.put(tx, bucketUnits, []byte(next.DeviceSerial), &next)
	})
	if err != nil {
		return nil, err
	}
	return &next, s.step("intended")
}

// issue signs the bytes that the intent fixed, and no others.
func (s *Station) issue(ctx context.Context, u *Unit) (*Unit, error) {
	t, err := s.template(u)
	if err != nil {
		return nil, err
	}
	l, err := birthca.Lint(t)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(l.TBS(), u.TBS) {
		return nil, fault.Errorf(fault.Verify, "%w: unit %s would be certified otherwise than intended", ErrLedger, u.DeviceSerial)
	}
	key, err := s.signer(ctx, KeyCA)
	if err != nil {
		return nil, err
	}
	if err := s.step("sign"); err != nil {
		return nil, err
	}
	// From here the outcome is recorded whatever becomes of the caller.
	der, err := birthca.Issue(context.WithoutCancel(ctx), l, key)
	if err != nil {
		return nil, err
	}
	if err := s.step("signed"); err != nil {
		return nil, err
	}
	next := *u
	next.Certificate, next.CertHash, next.Stage = der, birthcert.Hash(der), Issued
	if err := s.write(&next); err != nil {
		return nil, err
	}
	return &next, s.step("issued")
}

func (s *Station) write(u *Unit) error {
	return s.store.update(func(tx *bolt.Tx) error {
		if u.Stage == Confirmed || u.Stage == Scrapped {
			u.State, u.Ended, u.Order = string(u.Stage), charter.FormatTime(s.now()), s.store.last+1
		}
		return s.store.put(tx, bucketUnits, []byte(u.DeviceSerial), u)
	})
}

// Confirm ends a unit well: the device showed that it holds its certificate.
func (s *Station) Confirm(serial birthcert.DeviceSerial) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.unit(serial)
	if err != nil || u.Stage == Confirmed {
		return err
	}
	if u.Stage != Issued {
		return fault.Errorf(fault.Policy, "%w: %s is %s", ErrUnit, serial, u.Stage)
	}
	if err := s.step("confirm"); err != nil {
		return err
	}
	u.Stage = Confirmed
	if err := s.write(u); err != nil {
		return err
	}
	return s.step("confirmed")
}

var reasonRE = regexp.MustCompile(`^[ -~]{1,200}$`)

// Scrap ends a unit badly. Its serial stays spent; its element may come again
// and gets another. A unit of a closed report stays as it is.
func (s *Station) Scrap(serial birthcert.DeviceSerial, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.unit(serial)
	if err != nil {
		return err
	}
	return s.scrap(u, reason)
}

func (s *Station) scrap(u *Unit, reason string) error {
	if !reasonRE.MatchString(reason) {
		return fault.New(fault.Usage, "a reason is 1 to 200 printable ASCII characters")
	}
	b, err := s.bundleOf(u)
	if err != nil {
		return err
	}
	if len(b.Closed) > 0 || u.Stage == Scrapped {
		return fault.Errorf(fault.Policy, "%w: %s is %s and its report %s", ErrUnit, u.DeviceSerial, u.Stage, map[bool]string{true: "closed", false: "open"}[len(b.Closed) > 0])
	}
	u.Stage, u.Reason = Scrapped, reason
	return s.write(u)
}
