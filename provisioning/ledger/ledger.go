// Package ledger is headquarters' book of provisioning: every bundle it ever
// exported and every report it accepted, in order, in one file of chained lines.
//
// provisioning/export and provisioning/accept decide on it and add to it. A line
// is on disk before the file that it speaks of leaves headquarters, and holds
// that file, so a crash between the two loses nothing. It must never be edited:
// the chain makes a changed or missing line an error, though whoever can write
// the folder can put back an older copy as a whole.
package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/anchor"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
)

// Format names a line.
const Format = "keyrite/provisioning-ledger/v1"

// FileName is the book within the state folder.
const FileName = "provisioning.jsonl"

// ErrLedger says that the book is not what was written.
var ErrLedger = fault.New(fault.Verify, "provisioning ledger is altered")

// Kinds of lines.
const (
	kindExport = "export"
	kindAccept = "accept"
)

type line struct {
	At     string      `json:"at"`
	File   []byte      `json:"file"` // bundle or acceptance, as it left
	Format string      `json:"format"`
	Kind   string      `json:"kind"`
	Prev   string      `json:"prev"` // hex SHA-256 of the line before; 64 zeros for the first
	Vault  string      `json:"vault"`
	World  world.World `json:"world"`
}

// Exported is a bundle in the book.
type Exported struct {
	*bundle.Bundle
	Hash     string
	File     []byte
	Accepted []byte // acceptance file, nil while the bundle is open
	Report   string // hash of the accepted report
}

// Ledger is the open book. It holds a lock on the file and is for one goroutine.
type Ledger struct {
	anchors  *anchor.Anchors
	log      *durable.Append
	prev     string
	last     time.Time
	bundles  []*Exported
	reports  map[string]string // last accepted report hash by station
	registry *acceptance.Registry
}

// Open opens the book in folder dir, which it makes when it is not there, and
// checks every line against anchors.
func Open(dir string, a *anchor.Anchors) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Errorf(fault.Usage, "make state folder: %w", err)
	}
	log, lines, err := durable.OpenAppend(filepath.Join(dir, FileName))
	if err != nil {
		return nil, err
	}
	l := &Ledger{anchors: a, log: log, prev: strings.Repeat("0", 64), reports: map[string]string{}, registry: acceptance.NewRegistry(a)}
	for i, b := range lines {
		if err := l.read(b); err != nil {
			return nil, errors.Join(fault.Errorf(fault.ClassOf(err), "provisioning ledger, line %d: %w", i+1, err), log.Close())
		}
	}
	return l, nil
}

// Close gives the book free.
func (l *Ledger) Close() error { return l.log.Close() }

func (l *Ledger) read(data []byte) error {
	var n line
	if err := jcs.Unmarshal(data, &n); err != nil {
		return err
	}
	at, err := charter.ParseTime(n.At)
	if err != nil {
		return err
	}
	if err := world.Match(l.anchors.World, n.World); err != nil {
		return err
	}
	if n.Format != Format || n.Prev != l.prev || at.Before(l.last) || n.Vault != l.anchors.Vault {
		return ErrLedger
	}
	switch n.Kind {
	case kindExport:
		err = l.takeExport(n.File)
	case kindAccept:
		err = l.takeAccept(n.File)
	default:
		err = ErrLedger
	}
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	l.prev, l.last = hex.EncodeToString(sum[:]), at
	return nil
}

// add makes one line durable, then takes it in. Its callers have checked that it
// can be read back.
func (l *Ledger) add(kind string, file []byte, at time.Time) error {
	data, err := jcs.Marshal(line{At: charter.FormatTime(at), File: file, Format: Format, Kind: kind, Prev: l.prev, Vault: l.anchors.Vault, World: l.anchors.World})
	if err != nil {
		return err
	}
	if err := l.log.Line(data); err != nil {
		return err
	}
	return l.read(data)
}

// Now is the later of the clock and the last line's time.
func (l *Ledger) Now(clock time.Time) time.Time {
	if clock = clock.UTC().Truncate(time.Second); clock.Before(l.last) {
		return l.last
	}
	return clock
}

// Bundles returns every bundle of a factory, in order.
func (l *Ledger) Bundles(factory string) []*Exported {
	var out []*Exported
	for _, b := range l.bundles {
		if b.Factory == factory {
			out = append(out, b)
		}
	}
	return out
}

// Bundle returns the bundle with that id, nil if headquarters never made it.
func (l *Ledger) Bundle(id string) *Exported {
	for _, b := range l.bundles {
		if b.BundleID == id {
			return b
		}
	}
	return nil
}

// Next returns sequence and previous hash of a factory's next bundle.
func (l *Ledger) Next(factory string) (seq int, prev string) {
	seq, prev = 1, bundle.FirstPrev()
	if all := l.Bundles(factory); len(all) > 0 {
		last := all[len(all)-1]
		seq, prev = last.Seq+1, last.Hash
	}
	return seq, prev
}

// LastReport is the hash of the last accepted report of a station.
func (l *Ledger) LastReport(station string) string {
	if h, ok := l.reports[station]; ok {
		return h
	}
	return bundle.FirstPrev()
}

// Export enters a signed bundle, which must be the factory's next one.
func (l *Ledger) Export(file []byte, at time.Time) error {
	b, err := bundle.Verify(file, l.anchors)
	if err != nil {
		return err
	}
	if err := l.checkNext(b); err != nil {
		return err
	}
	return l.add(kindExport, file, at)
}

func (l *Ledger) checkNext(b *bundle.Bundle) error {
	seq, prev := l.Next(b.Factory)
	if err := b.CheckFollows(seq-1, prev); err != nil {
		return err
	}
	if l.Bundle(b.BundleID) != nil {
		return fault.Errorf(fault.Policy, "bundle id %s was used before", b.BundleID)
	}
	for _, have := range l.Bundles(b.Factory) {
		if err := Disjoint(have.Ranges, b.Ranges); err != nil {
			return fault.Errorf(fault.Policy, "bundle %d of %s: %w", have.Seq, b.Factory, err)
		}
	}
	return nil
}

// Disjoint refuses two lists of ranges that share a number.
func Disjoint(a, b []bundle.Range) error {
	for _, x := range a {
		for _, y := range b {
			if x.From <= y.To && y.From <= x.To {
				return fault.Errorf(fault.Policy, "serials %d to %d were given out before", max(x.From, y.From), min(x.To, y.To))
			}
		}
	}
	return nil
}

func (l *Ledger) takeExport(file []byte) error {
	b, err := bundle.Verify(file, l.anchors)
	if err != nil {
		return err
	}
	if err := l.checkNext(b); err != nil {
		return err
	}
	hash, err := b.Hash()
	if err != nil {
		return err
	}
	l.bundles = append(l.bundles, &Exported{Bundle: b, Hash: hash, File: file})
	return nil
}

// CheckAccept says whether an acceptance could be entered.
func (l *Ledger) CheckAccept(a *acceptance.Acceptance) error {
	b := l.Bundle(a.BundleID)
	if b == nil || b.Factory != a.Factory {
		return fault.Errorf(fault.Policy, "headquarters exported no bundle %.40q to %s", a.BundleID, a.Factory)
	}
	if b.Accepted != nil {
		return fault.Errorf(fault.Policy, "a report on bundle %s was accepted before", a.BundleID)
	}
	return l.registry.CheckNew(a)
}

// Accept enters a signed acceptance.
func (l *Ledger) Accept(file []byte, at time.Time) error {
	a, err := acceptance.Verify(file, l.anchors)
	if err != nil {
		return err
	}
	if err := l.CheckAccept(a); err != nil {
		return err
	}
	return l.add(kindAccept, file, at)
}

func (l *Ledger) takeAccept(file []byte) error {
	a, err := acceptance.Verify(file, l.anchors)
	if err != nil {
		return err
	}
	if err := l.CheckAccept(a); err != nil {
		return err
	}
	if _, err := l.registry.Add(file); err != nil {
		return err
	}
	b := l.Bundle(a.BundleID)
	b.Accepted, b.Report = file, a.ReportHash
	l.reports[a.Station] = a.ReportHash
	return nil
}
