// Package export makes provisioning bundles at headquarters.
//
// Plan decides from charter, anchors and ledger alone what may be given out;
// Sign has it signed by both provisioning keys. There is no configuration: a
// factory that the charter does not know gets nothing. It must never give out a
// serial twice, nor a third bundle while two are unanswered.
package export

import (
	"crypto"
	"slices"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/provisioning/ledger"
)

// MaxOpenBundles is how many bundles of a factory may be without an accepted
// report: one in work and the next, so that the line need not stop.
const MaxOpenBundles = 2

// ErrOpen says that a factory owes reports.
var ErrOpen = fault.New(fault.Policy, "the factory owes the reports of its last bundles")

// Order is what a person asks for.
type Order struct {
	Factory    string
	Station    string // empty if the factory has only one
	Quota      int64
	SerialFrom int64 // 0 for the first number never given out
	Valid      time.Duration
	Hardware   string
	Firmware   string // hex SHA-256, or empty
	Assurance  birthcert.Assurance
}

// Plan returns the bundle that answers the order, not yet signed.
func Plan(o Order, a *anchor.Anchors, s *charter.State, l *ledger.Ledger, clock time.Time) (*bundle.Bundle, error) {
	grant, ca, err := bundle.GrantOf(s, o.Factory)
	if err != nil {
		return nil, err
	}
	if s.Factories[o.Factory].Evidence == "" {
		return nil, fault.Errorf(fault.Policy, "the charter has no evidence on factory %s", o.Factory)
	}
	if err := checkOpen(o.Factory, l); err != nil {
		return nil, err
	}
	station, err := stationOf(o, s)
	if err != nil {
		return nil, err
	}
	ranges, err := rangesOf(o, grant, l)
	if err != nil {
		return nil, err
	}
	profile, err := birthcert.ProfileHash(birthcert.Device)
	if err != nil {
		return nil, err
	}
	if o.Valid < time.Hour || o.Valid > bundle.MaxDays*24*time.Hour {
		return nil, fault.Errorf(fault.Usage, "a bundle is valid for an hour to %d days", bundle.MaxDays)
	}
	now := l.Now(clock)
	seq, prev := l.Next(o.Factory)
	b := &bundle.Bundle{
		Assurance: o.Assurance, BundleID: bundle.NewID(), CAChain: [][]byte{ca, a.Certificates["birth-root"]},
		Charter: bundle.Charter{Head: s.Head(), Size: s.Size()}, Factory: o.Factory, Firmware: o.Firmware, Format: bundle.Format,
		Hardware: o.Hardware, NotAfter: charter.FormatTime(now.Add(o.Valid)), NotBefore: charter.FormatTime(now), Prev: prev,
		Product: grant.Product, Profile: profile, Quota: o.Quota, Ranges: ranges, Seq: seq, Stations: []string{station},
		TimeFloor: charter.FormatTime(now), Vault: a.Vault, World: a.World,
	}
	if err := b.Check(); err != nil {
		return nil, fault.Errorf(fault.Usage, "order cannot be met: %w", err)
	}
	return b, b.CheckCharter(s)
}

func checkOpen(factory string, l *ledger.Ledger) error {
	open := 0
	for _, b := range l.Bundles(factory) {
		if b.Accepted == nil {
			open++
		}
	}
	if open >= MaxOpenBundles {
		err := fault.Errorf(fault.Policy, "%w: %d of at most %d are open", ErrOpen, open, MaxOpenBundles)
		return fault.Hint(err, "accept the report of the oldest one first: keyrite provision accept")
	}
	return nil
}

func stationOf(o Order, s *charter.State) (string, error) {
	var ids []string
	for id, st := range s.Stations {
		if st.Factory == o.Factory && (o.Station == "" || o.Station == id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	switch {
	case len(ids) == 0:
		return "", fault.Errorf(fault.Policy, "%w: station %.40q of factory %s", charter.ErrUnknown, o.Station, o.Factory)
	case len(ids) > 1:
		return "", fault.Errorf(fault.Usage, "factory %s has %d stations: name one with --station", o.Factory, len(ids))
	}
	return ids[0], nil
}

func rangesOf(o Order, g birthcert.Grant, l *ledger.Ledger) ([]bundle.Range, error) {
	if o.Quota < 1 || o.Quota > bundle.MaxQuota {
		return nil, fault.Errorf(fault.Usage, "the quota of a bundle is 1 to %d", bundle.MaxQuota)
	}
	from := o.SerialFrom
	if from == 0 {
		from = g.SerialFrom
		for _, b := range l.Bundles(o.Factory) {
			from = max(from, b.Ranges[len(b.Ranges)-1].To+1)
		}
	}
	if from < g.SerialFrom || from > g.SerialTo || o.Quota > g.SerialTo-from+1 {
		return nil, fault.Errorf(fault.Policy, "%w: %d from %d, and the charter grants %d to %d", bundle.ErrRange, o.Quota, from, g.SerialFrom, g.SerialTo)
	}
	r := []bundle.Range{{From: from, To: from + o.Quota - 1}}
	for _, b := range l.Bundles(o.Factory) {
		if err := ledger.Disjoint(b.Ranges, r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Sign has the bundle signed and enters it in the ledger; the file may leave
// only after that.
func Sign(b *bundle.Bundle, l *ledger.Ledger, at time.Time, signer func(keyID string) (crypto.Signer, error)) ([]byte, error) {
	var keys []crypto.Signer
	for _, id := range bundle.SignerIDs() {
		k, err := signer(id)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	file, err := bundle.Sign(b, keys...)
	if err != nil {
		return nil, err
	}
	return file, l.Export(file, l.Now(at))
}
