// Package report owns the production report: what a station made of one bundle,
// each unit and how many, signed by the station's report key when it closes.
//
// The station (provisioning/station) writes it; headquarters
// (provisioning/accept) and anybody else call Verify. Every serial that was
// taken from the bundle stands in it once, confirmed or scrapped, with the
// certificate if one was signed. The rows are the leaves of a hash tree whose
// root the station keeps from row to row. It must never be taken for an
// admission: a station's signature alone admits nothing, the acceptance does.
//
// Compatibility: docs/formats/report.md, version 1 is read for ever.
package report

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"regexp"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

// Format names the payload; PayloadType is its DSSE payload type.
const (
	Format      = "keyrite/report/v1"
	PayloadType = "application/vnd.keyrite.report.v1+json"
)

// The states in which a unit leaves the station.
const (
	Confirmed = "CONFIRMED" // the device proved that it holds certificate and key
	Scrapped  = "SCRAPPED"  // the serial is spent and was not born
)

// Layers of the quota (docs/formats/report.md).
const (
	// LayerTokenAbsent: a PKCS#11 token has no counter that it ties to a key.
	LayerTokenAbsent = "PKCS#11 token: layer a does not exist"
	// LayerLedger: the station counts in its ledger before it signs.
	LayerLedger = "hash-chained ledger of the station"
	// LayerAcceptance: only what headquarters accepted is admitted.
	LayerAcceptance = "admission by signed acceptance"
)

var (
	// ErrReport says that a report contradicts itself.
	ErrReport = fault.New(fault.Verify, "production report is not valid")
	// ErrBundle says that a report is not of this bundle.
	ErrBundle = fault.New(fault.Policy, "production report is of another bundle")
	// ErrQuota says that more was made than the bundle permits.
	ErrQuota = fault.New(fault.Policy, "production report has more units than the bundle permits")
	// ErrDuplicate says that a serial, key or element stands twice.
	ErrDuplicate = fault.New(fault.Verify, "a serial, key, certificate or element stands twice")

	hexRE    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	chipRE   = regexp.MustCompile(`^[0-9a-f]{16,64}$`)
	textRE   = regexp.MustCompile(`^[ -~]{0,120}$`)
	reasonRE = regexp.MustCompile(`^[ -~]{1,200}$`)
)

// Element is what the device said about its secure element.
type Element struct {
	ChipID   string `json:"chip_id"` // 16 to 64 hex digits, unique for each element
	Kind     string `json:"kind"`    // for example "tpm2"
	Maker    string `json:"maker"`
	Firmware string `json:"firmware"`
}

// Check validates the members.
func (e Element) Check() error {
	if !chipRE.MatchString(e.ChipID) || e.Kind == "" || !textRE.MatchString(e.Kind) || !textRE.MatchString(e.Maker) || !textRE.MatchString(e.Firmware) {
		return fault.Errorf(fault.Verify, "%w: element %.40q", ErrReport, e.ChipID)
	}
	return nil
}

// Unit is one row: one serial of the bundle.
type Unit struct {
	Assurance    birthcert.Assurance    `json:"assurance"`
	CertHash     string                 `json:"cert_hash"`   // hex SHA-256; empty if none was signed
	CertSerial   string                 `json:"cert_serial"` // 32 hex digits; empty if none was signed
	Certificate  []byte                 `json:"certificate"` // DER; empty if none was signed
	DeviceSerial birthcert.DeviceSerial `json:"device_serial"`
	Element      Element                `json:"element"`
	Reason       string                 `json:"reason"`    // why scrapped; empty if confirmed
	Reserved     string                 `json:"reserved"`  // when the serial was taken
	Ended        string                 `json:"ended"`     // when confirmed or scrapped
	SPKIHash     string                 `json:"spki_hash"` // hex SHA-256; empty if none was signed
	State        string                 `json:"state"`
}

// Row returns the canonical bytes of the row, a leaf of the tree.
func (u *Unit) Row() ([]byte, error) { return jcs.Marshal(u) }

// Counts are the totals by state.
type Counts struct {
	Confirmed int64 `json:"confirmed"`
	Scrapped  int64 `json:"scrapped"`
	Signed    int64 `json:"signed"` // certificates, also of units that were scrapped afterwards
}

// BundleRef names a bundle.
type BundleRef struct {
	Hash string `json:"hash"`
	ID   string `json:"id"`
	Seq  int    `json:"seq"`
}

// Report is the payload.
type Report struct {
	Bundle      BundleRef              `json:"bundle"`
	Charter     bundle.Charter         `json:"charter"` // as the station read it at import
	ClosedAt    string                 `json:"closed_at"`
	Counts      Counts                 `json:"counts"`
	Factory     string                 `json:"factory"`
	Format      string                 `json:"format"`
	Highest     birthcert.DeviceSerial `json:"highest"` // empty if no serial was taken
	Lowest      birthcert.DeviceSerial `json:"lowest"`
	Prev        string                 `json:"prev"` // Hash of the station's report before; 64 zeros for the first
	Quota       int64                  `json:"quota"`
	QuotaLayers []string               `json:"quota_layers"`
	Root        string                 `json:"root"` // hex tree root over the rows
	Station     string                 `json:"station"`
	TimeFloor   string                 `json:"time_floor"`
	Units       []Unit                 `json:"units"` // in the order in which they ended
	Vault       string                 `json:"vault"`
	World       world.World            `json:"world"`
}

// Marshal returns the payload to sign.
func (r *Report) Marshal() ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	return jcs.Marshal(r)
}

// Hash is the hex SHA-256 of the payload.
func (r *Report) Hash() (string, error) {
	p, err := jcs.Marshal(r)
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:]), err
}

func bad(format string, args ...any) error {
	return fault.Errorf(fault.Verify, "%w: "+format, append([]any{ErrReport}, args...)...)
}

// Check validates the report by itself: members, chain, totals, duplicates.
func (r *Report) Check() error {
	if r.Format != Format {
		return bad("format %.40q", r.Format)
	}
	if err := r.World.Check(); err != nil {
		return err
	}
	for _, at := range []string{r.ClosedAt, r.TimeFloor} {
		if _, err := charter.ParseTime(at); err != nil {
			return err
		}
	}
	switch {
	case !hexRE.MatchString(r.Vault), !hexRE.MatchString(r.Prev), !hexRE.MatchString(r.Bundle.Hash), r.Bundle.ID == "", r.Bundle.Seq < 1:
		return bad("vault, bundle or previous report")
	case !hexRE.MatchString(r.Charter.Head) || r.Charter.Size < 1 || r.Factory == "" || r.Station == "":
		return bad("charter, factory or station")
	case len(r.QuotaLayers) == 0 || r.Units == nil:
		return bad("quota layers or units are missing")
	}
	for _, l := range r.QuotaLayers {
		if !reasonRE.MatchString(l) {
			return bad("quota layer")
		}
	}
	if err := r.checkUnits(); err != nil {
		return err
	}
	return r.checkTotals()
}

// RootOf is the hex root of the tree over the rows.
func RootOf(units []Unit) (string, error) {
	var tree tlog.Tree
	for i := range units {
		row, err := units[i].Row()
		if err != nil {
			return "", err
		}
		if err := tree.Append(row); err != nil {
			return "", err
		}
	}
	return tlog.Hex(tree.Root()), nil
}

func (r *Report) checkUnits() error {
	seen := map[string]bool{}
	for i := range r.Units {
		u := &r.Units[i]
		if err := u.Check(); err != nil {
			return err
		}
		// An element that was scrapped may come again under a new serial; one
		// that was born may not.
		for _, k := range []string{"s" + string(u.DeviceSerial), "n" + u.CertSerial, "k" + u.SPKIHash, "c" + u.CertHash} {
			if len(k) > 1 && seen[k] {
				return fault.Errorf(fault.Verify, "%w: unit %s", ErrDuplicate, u.DeviceSerial)
			}
			seen[k] = true
		}
		if u.State == Confirmed {
			if seen["e"+u.Element.ChipID] {
				return fault.Errorf(fault.Verify, "%w: element of unit %s", ErrDuplicate, u.DeviceSerial)
			}
			seen["e"+u.Element.ChipID] = true
		}
	}
	root, err := RootOf(r.Units)
	if err != nil {
		return err
	}
	if root != r.Root {
		return bad("the rows do not give the root")
	}
	return nil
}

// Check validates one row by itself.
func (u *Unit) Check() error {
	if _, _, err := u.DeviceSerial.Split(); err != nil {
		return err
	}
	if err := u.Element.Check(); err != nil {
		return err
	}
	from, err := charter.ParseTime(u.Reserved)
	if err != nil {
		return err
	}
	to, err := charter.ParseTime(u.Ended)
	if err != nil {
		return err
	}
	born := len(u.Certificate) > 0
	switch {
	case to.Before(from):
		return bad("unit %s ended before it began", u.DeviceSerial)
	case u.State == Confirmed && (!born || u.Reason != ""):
		return bad("unit %s is confirmed without certificate or with a reason", u.DeviceSerial)
	case u.State == Scrapped && !reasonRE.MatchString(u.Reason):
		return bad("unit %s is scrapped without a reason", u.DeviceSerial)
	case u.State != Confirmed && u.State != Scrapped:
		return bad("state %.40q of unit %s", u.State, u.DeviceSerial)
	case !born && (u.CertHash != "" || u.CertSerial != "" || u.SPKIHash != "" || u.Assurance != ""):
		return bad("unit %s has hashes of a certificate that is not there", u.DeviceSerial)
	}
	return nil
}

func (r *Report) checkTotals() error {
	var c Counts
	var lowest, highest birthcert.DeviceSerial
	var lo, hi int64
	for _, u := range r.Units {
		_, n, err := u.DeviceSerial.Split()
		if err != nil {
			return err
		}
		if lo == 0 || n < lo {
			lo, lowest = n, u.DeviceSerial
		}
		if n > hi {
			hi, highest = n, u.DeviceSerial
		}
		if u.State == Confirmed {
			c.Confirmed++
		} else {
			c.Scrapped++
		}
		if len(u.Certificate) > 0 {
			c.Signed++
		}
	}
	if c != r.Counts || lowest != r.Lowest || highest != r.Highest {
		return bad("the totals are not those of the rows")
	}
	if int64(len(r.Units)) > r.Quota {
		return fault.Errorf(fault.Policy, "%w: %d of %d", ErrQuota, len(r.Units), r.Quota)
	}
	return nil
}

// Verify reads a report file and checks it against anchors and charter: the
// station is known and its report key signed, and it is consistent.
func Verify(data []byte, a *anchor.Anchors, s *charter.State) (*Report, error) {
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := world.MatchJSON(a.World, env.Payload); err != nil {
		return nil, err
	}
	// The station's name decides which key must have signed; it is believed
	// only because that key's signature then holds over it.
	var r Report
	if err := jcs.Unmarshal(env.Payload, &r); err != nil {
		return nil, err
	}
	st, ok := s.Stations[r.Station]
	if !ok || st.Factory != r.Factory {
		return nil, fault.Errorf(fault.Policy, "%w: station %.40q of factory %.40q", charter.ErrUnknown, r.Station, r.Factory)
	}
	pub, err := x509.ParsePKIXPublicKey(st.ReportKey)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "report key of station %s: %w", st.ID, err)
	}
	if _, _, err := envelope.Verify(env, PayloadType, []envelope.Key{{Name: st.ID, Public: pub}}, 1); err != nil {
		return nil, err
	}
	if r.Vault != a.Vault || r.Vault != s.Vault {
		return nil, fault.Errorf(fault.Policy, "%w: %.16s…, not %.16s…", charter.ErrVault, r.Vault, a.Vault)
	}
	if err := s.CheckHead(r.Charter.Size, r.Charter.Head); err != nil {
		return nil, err
	}
	return &r, r.Check()
}

// CheckBundle checks a verified report against the verified bundle that it
// answers: the same bundle and station, serials in its ranges, not above its
// quota, and each certificate issued by its CA for that serial and bundle.
func (r *Report) CheckBundle(b *bundle.Bundle) error {
	hash, err := b.Hash()
	if err != nil {
		return err
	}
	if want := (BundleRef{Hash: hash, ID: b.BundleID, Seq: b.Seq}); r.Bundle != want {
		return fault.Errorf(fault.Policy, "%w: %.12s…, not %.12s…", ErrBundle, r.Bundle.ID, b.BundleID)
	}
	if err := b.CheckStation(r.Factory, r.Station); err != nil {
		return err
	}
	if r.Quota != b.Quota || int64(len(r.Units)) > b.Quota {
		return fault.Errorf(fault.Policy, "%w: %d units, quota %d, bundle's %d", ErrQuota, len(r.Units), r.Quota, b.Quota)
	}
	grant, err := b.Grant()
	if err != nil {
		return err
	}
	ca, root, err := b.Chain()
	if err != nil {
		return err
	}
	for i := range r.Units {
		if err := r.Units[i].checkBirth(b, grant, ca, root); err != nil {
			return err
		}
	}
	return nil
}

func (u *Unit) checkBirth(b *bundle.Bundle, grant birthcert.Grant, ca, root *x509.Certificate) error {
	product, n, err := u.DeviceSerial.Split()
	if err != nil {
		return err
	}
	if product != b.Product || !b.Contains(n) {
		return fault.Errorf(fault.Policy, "%w: unit %s", bundle.ErrRange, u.DeviceSerial)
	}
	if len(u.Certificate) == 0 {
		return nil
	}
	c, err := birthcert.Parse(u.Certificate)
	if err != nil {
		return err
	}
	id, err := birthcert.VerifyDevice(c, ca, root, grant)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "unit %s: %w", u.DeviceSerial, err)
	}
	switch {
	case id.Bundle != b.BundleID:
		return fault.Errorf(fault.Policy, "%w: certificate of unit %s names bundle %.12s…", ErrBundle, u.DeviceSerial, id.Bundle)
	case id.DeviceSerial != u.DeviceSerial, id.CertHash != u.CertHash, id.SPKIHash != u.SPKIHash, id.CertSerial.String() != u.CertSerial, id.Assurance != u.Assurance:
		return bad("row of unit %s is not what its certificate says", u.DeviceSerial)
	case b.Assurance == birthcert.EKAttested && id.Assurance != birthcert.EKAttested:
		return fault.Errorf(fault.Policy, "unit %s has assurance %q, the bundle demands %q", u.DeviceSerial, id.Assurance, b.Assurance)
	case !c.NotBefore.Equal(b.Birthday()):
		return bad("certificate of unit %s does not begin with its bundle", u.DeviceSerial)
	}
	return nil
}

// Sign closes a report with the station's report key and returns the file.
func Sign(r *Report, key crypto.Signer) ([]byte, error) {
	payload, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	env, err := envelope.Sign(PayloadType, payload, key)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// FirstPrev is Prev of a station's first report.
func FirstPrev() string { return strings.Repeat("0", 64) }
