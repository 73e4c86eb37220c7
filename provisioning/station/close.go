package station

import (
	"context"
	"slices"

	bolt "go.etcd.io/bbolt"

	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/report"
)

// Draft is the report of the oldest open bundle as it would be now, units still
// under way left out. Only CloseBundle signs one.
func (s *Station) Draft() (*report.Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.oldest()
	if err != nil {
		return nil, err
	}
	return s.draft(b)
}

func (s *Station) oldest() (*open, error) {
	for _, b := range s.bundles {
		if len(b.Closed) == 0 {
			return b, nil
		}
	}
	return nil, ErrNoBundle
}

func (s *Station) draft(b *open) (*report.Report, error) {
	units, err := s.units(func(u *Unit) bool { return u.Seq == b.Seq && (u.Stage == Confirmed || u.Stage == Scrapped) })
	if err != nil {
		return nil, err
	}
	r := &report.Report{
		Bundle: report.BundleRef{Hash: b.BundleHash, ID: b.BundleID, Seq: b.Seq}, Charter: bundle.Charter{Head: s.state.Head(), Size: s.state.Size()},
		ClosedAt: charter.FormatTime(s.now()), Factory: s.Settings.Factory, Format: report.Format, Prev: s.lastReport(), Quota: b.Quota,
		QuotaLayers: []string{report.LayerTokenAbsent, report.LayerLedger, report.LayerAcceptance}, Station: s.Settings.Station,
		TimeFloor: s.trust.TimeFloor, Units: []report.Unit{}, Vault: b.Vault, World: b.World,
	}
	for i, u := range units { // by serial
		if i == 0 {
			r.Lowest = u.DeviceSerial
		}
		r.Highest = u.DeviceSerial
		if len(u.Certificate) > 0 {
			r.Counts.Signed++
		}
		if u.Stage == Confirmed {
			r.Counts.Confirmed++
		} else {
			r.Counts.Scrapped++
		}
	}
	slices.SortFunc(units, func(x, y *Unit) int { return int(int64(x.Order) - int64(y.Order)) })
	for _, u := range units {
		row := u.Unit
		if len(row.Certificate) == 0 { // scrapped between intent and signature
			row.CertSerial, row.SPKIHash, row.Assurance = "", "", ""
		}
		r.Units = append(r.Units, row)
	}
	r.Root, err = report.RootOf(r.Units)
	return r, err
}

func (s *Station) lastReport() string {
	prev := report.FirstPrev()
	for _, b := range s.bundles {
		if len(b.Closed) > 0 {
			prev = b.Report
		}
	}
	return prev
}

// CloseBundle ends the oldest open bundle and returns its signed report. Units
// still under way are scrapped with the given reason; without one they are a
// refusal. When everything is closed it returns the last report again.
func (s *Station) CloseBundle(ctx context.Context, scrapOpen string) (*report.Report, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.oldest()
	if err != nil {
		return s.again(err)
	}
	under, err := s.units(func(u *Unit) bool { return u.Seq == b.Seq && u.Stage != Confirmed && u.Stage != Scrapped })
	if err != nil {
		return nil, nil, err
	}
	for _, u := range under {
		if scrapOpen == "" {
			err := fault.Errorf(fault.Policy, "%w: %s is %s", ErrUnit, u.DeviceSerial, u.Stage)
			return nil, nil, fault.Hint(err, "let the device finish, or give a reason with --scrap-open")
		}
		if err := s.scrap(u, scrapOpen); err != nil {
			return nil, nil, err
		}
	}
	r, err := s.draft(b)
	if err != nil {
		return nil, nil, err
	}
	key, err := s.signer(ctx, KeyReport)
	if err != nil {
		return nil, nil, err
	}
	file, err := report.Sign(r, key)
	if err != nil {
		return nil, nil, err
	}
	// What headquarters will check, checked before it is final.
	if _, err := report.Verify(file, s.anchors, s.state); err != nil {
		return nil, nil, err
	}
	if err := r.CheckBundle(b.Bundle); err != nil {
		return nil, nil, err
	}
	im := b.imported
	im.Closed = file
	if im.Report, err = r.Hash(); err != nil {
		return nil, nil, err
	}
	err = s.store.update(func(tx *bolt.Tx) error { return s.store.put(tx, bucketBundles, number(uint64(b.Seq)), &im) })
	if err != nil {
		return nil, nil, err
	}
	b.imported = im
	return r, file, nil
}

// again is the last closed report, for a command that was cut off after it.
func (s *Station) again(none error) (*report.Report, []byte, error) {
	if len(s.bundles) == 0 {
		return nil, nil, none
	}
	file := s.bundles[len(s.bundles)-1].Closed
	r, err := report.Verify(file, s.anchors, s.state)
	return r, file, err
}
