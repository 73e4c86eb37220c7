// Package accept judges production reports at headquarters and makes the
// acceptance that admits devices.
//
// Check rechecks everything that a report claims against the bundle that
// headquarters exported, the charter and what was accepted before; Sign has the
// acceptance signed. It must never trust a total: a station is not believed, it
// is counted after.
package accept

import (
	"crypto"
	"time"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/anchor"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/report"
	"keyrite/provisioning/ledger"
)

// ErrChain says that a report does not follow the last one of its station.
var ErrChain = fault.New(fault.Policy, "report does not follow the station's last accepted one")

// Checked is a report that may be accepted.
type Checked struct {
	Report     *report.Report
	Acceptance *acceptance.Acceptance
	// Done is the acceptance file if this very report was accepted before.
	Done []byte
}

// Check verifies a report file against its bundle file.
func Check(reportFile, bundleFile []byte, a *anchor.Anchors, s *charter.State, l *ledger.Ledger, clock time.Time) (*Checked, error) {
	b, err := bundle.Verify(bundleFile, a)
	if err != nil {
		return nil, err
	}
	if err := b.CheckCharter(s); err != nil {
		return nil, err
	}
	hash, err := b.Hash()
	if err != nil {
		return nil, err
	}
	known := l.Bundle(b.BundleID)
	if known == nil || known.Hash != hash {
		return nil, fault.Errorf(fault.Policy, "the ledger of headquarters has no such bundle %s", b.BundleID)
	}
	r, err := report.Verify(reportFile, a, s)
	if err != nil {
		return nil, err
	}
	if err := r.CheckBundle(b); err != nil {
		return nil, err
	}
	reportHash, err := r.Hash()
	if err != nil {
		return nil, err
	}
	if known.Accepted != nil && known.Report == reportHash {
		return &Checked{Report: r, Done: known.Accepted}, nil
	}
	if last := l.LastReport(r.Station); r.Prev != last {
		err := fault.Errorf(fault.Policy, "%w: it follows %.16s…, the last was %.16s…", ErrChain, r.Prev, last)
		return nil, fault.Hint(err, "accept the station's earlier report first; if there is none, the station's store was put back to an older state")
	}
	acc, err := acceptance.New(r, b, l.Now(clock))
	if err != nil {
		return nil, err
	}
	return &Checked{Report: r, Acceptance: acc}, l.CheckAccept(acc)
}

// Sign has the acceptance signed and enters it in the ledger; the file may leave
// only after that.
func Sign(c *Checked, l *ledger.Ledger, clock time.Time, signer func(keyID string) (crypto.Signer, error)) ([]byte, error) {
	if c.Done != nil {
		return c.Done, nil
	}
	k, err := signer(acceptance.SignerID)
	if err != nil {
		return nil, err
	}
	file, err := acceptance.Sign(c.Acceptance, k)
	if err != nil {
		return nil, err
	}
	return file, l.Accept(file, l.Now(clock))
}
