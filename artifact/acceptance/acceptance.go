// Package acceptance owns the word of headquarters that devices were born: the
// list of what it accepted of one production report, signed by the acceptance
// key.
//
// Headquarters (provisioning/accept) makes one; the relay collects them in a
// Registry and admits a device only if Find knows exactly its certificate. It
// must never admit by serial alone, and a certificate that merely verifies is
// nobody.
//
// Compatibility: docs/formats/acceptance.md, version 1 is read for ever.
package acceptance

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"regexp"
	"slices"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/report"
	"keyrite/artifact/world"
)

// Format names the payload; PayloadType is its DSSE payload type; SignerID the
// key that signs it.
const (
	Format      = "keyrite/acceptance/v1"
	PayloadType = "application/vnd.keyrite.acceptance.v1+json"
	SignerID    = "acceptance"
)

var (
	// ErrAcceptance says that an acceptance contradicts itself.
	ErrAcceptance = fault.New(fault.Verify, "acceptance is not valid")
	// ErrDuplicate says that a device stands twice, in one or two acceptances.
	ErrDuplicate = fault.New(fault.Policy, "device was accepted before")
	// ErrUnknown says that a certificate is in no acceptance.
	ErrUnknown = fault.New(fault.Policy, "device is in no acceptance")

	hexRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	bidRE = regexp.MustCompile(`^[0-9a-f]{32}$`)
	idRE  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// Device is one admitted device.
type Device struct {
	Assurance    birthcert.Assurance    `json:"assurance"`
	BundleID     string                 `json:"bundle_id"`
	CertHash     string                 `json:"cert_hash"` // hex SHA-256 of the DER certificate
	DeviceSerial birthcert.DeviceSerial `json:"device_serial"`
	SPKIHash     string                 `json:"spki_hash"` // hex SHA-256 of the SubjectPublicKeyInfo
}

// Acceptance is the payload.
type Acceptance struct {
	AcceptedAt string        `json:"accepted_at"`
	BundleID   string        `json:"bundle_id"`
	Counts     report.Counts `json:"counts"` // as in the report
	Devices    []Device      `json:"devices"`
	Factory    string        `json:"factory"`
	FactoryCA  []byte        `json:"factory_ca"` // DER: who issued the devices' certificates
	Format     string        `json:"format"`
	Product    string        `json:"product"`
	ReportHash string        `json:"report_hash"`
	Station    string        `json:"station"`
	Vault      string        `json:"vault"`
	World      world.World   `json:"world"`
}

// Check validates every member.
func (a *Acceptance) Check() error {
	if a.Format != Format {
		return fault.Errorf(fault.Verify, "%w: format %.40q", ErrAcceptance, a.Format)
	}
	if err := a.World.Check(); err != nil {
		return err
	}
	if _, err := charter.ParseTime(a.AcceptedAt); err != nil {
		return err
	}
	if !hexRE.MatchString(a.Vault) || !hexRE.MatchString(a.ReportHash) || !bidRE.MatchString(a.BundleID) || !idRE.MatchString(a.Factory) || !idRE.MatchString(a.Station) || !idRE.MatchString(a.Product) || a.Devices == nil {
		return fault.Errorf(fault.Verify, "%w: a member is missing or malformed", ErrAcceptance)
	}
	if _, err := birthcert.Parse(a.FactoryCA); err != nil {
		return err
	}
	if int64(len(a.Devices)) != a.Counts.Confirmed {
		return fault.Errorf(fault.Verify, "%w: %d devices, and the report confirmed %d", ErrAcceptance, len(a.Devices), a.Counts.Confirmed)
	}
	r := index{}
	for i := range a.Devices {
		d := &a.Devices[i]
		product, _, err := d.DeviceSerial.Split()
		if err != nil || product != a.Product || d.BundleID != a.BundleID || !hexRE.MatchString(d.CertHash) || !hexRE.MatchString(d.SPKIHash) ||
			d.Assurance != birthcert.EKAttested && d.Assurance != birthcert.Unattested {
			return fault.Errorf(fault.Verify, "%w: device %.60q", ErrAcceptance, string(d.DeviceSerial))
		}
		if err := r.add(d); err != nil {
			return err
		}
	}
	return nil
}

// New makes the acceptance of a report that was verified against bundle b. It
// verifies nothing but what it makes.
func New(r *report.Report, b *bundle.Bundle, at time.Time) (*Acceptance, error) {
	hash, err := r.Hash()
	if err != nil {
		return nil, err
	}
	a := &Acceptance{
		AcceptedAt: charter.FormatTime(at), BundleID: b.BundleID, Counts: r.Counts, Devices: []Device{}, Factory: b.Factory, FactoryCA: b.CAChain[0],
		Format: Format, Product: b.Product, ReportHash: hash, Station: r.Station, Vault: b.Vault, World: b.World,
	}
	for _, u := range r.Units {
		if u.State == report.Confirmed {
			a.Devices = append(a.Devices, Device{Assurance: u.Assurance, BundleID: b.BundleID, CertHash: u.CertHash, DeviceSerial: u.DeviceSerial, SPKIHash: u.SPKIHash})
		}
	}
	return a, a.Check()
}

// Hash is the hex SHA-256 of the payload.
func (a *Acceptance) Hash() (string, error) {
	p, err := jcs.Marshal(a)
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:]), err
}

// Sign returns the file.
func Sign(a *Acceptance, key crypto.Signer) ([]byte, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	env, err := envelope.SignJSON(PayloadType, a, key)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// Verify reads an acceptance file: the acceptance key of the anchors signed it,
// and its factory CA is certified by their birth root.
func Verify(data []byte, anchors *anchor.Anchors) (*Acceptance, error) {
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	if err := world.MatchJSON(anchors.World, env.Payload); err != nil {
		return nil, err
	}
	keys, err := anchors.EnvelopeKeys(SignerID)
	if err != nil {
		return nil, err
	}
	payload, _, err := envelope.Verify(env, PayloadType, keys, 1)
	if err != nil {
		return nil, err
	}
	var a Acceptance
	if err := jcs.Unmarshal(payload, &a); err != nil {
		return nil, err
	}
	if err := a.Check(); err != nil {
		return nil, err
	}
	if err := world.Match(anchors.World, a.World); err != nil {
		return nil, err
	}
	if a.Vault != anchors.Vault {
		return nil, fault.Errorf(fault.Policy, "%w: %.16s…, not %.16s…", charter.ErrVault, a.Vault, anchors.Vault)
	}
	_, _, err = a.chain(anchors)
	return &a, err
}

// chain returns the factory CA with its grant, checked against the birth root.
func (a *Acceptance) chain(anchors *anchor.Anchors) (*x509.Certificate, birthcert.Grant, error) {
	ca, err := birthcert.Parse(a.FactoryCA)
	if err != nil {
		return nil, birthcert.Grant{}, err
	}
	// Headquarters vouch for this CA by the acceptance itself, so devices stay
	// who they are when the birth root that certified it has been replaced.
	root, err := anchors.Issuer("birth-root", ca)
	if err != nil {
		return nil, birthcert.Grant{}, err
	}
	t, err := birthcert.Read(ca, birthcert.FactoryCA, root)
	if err != nil {
		return nil, birthcert.Grant{}, err
	}
	if t.Grant.Factory != a.Factory || t.Grant.Product != a.Product {
		return nil, t.Grant, fault.Errorf(fault.Policy, "%w: acceptance of %s, CA of %s", birthcert.ErrGrant, a.Factory, t.Grant.Factory)
	}
	return ca, t.Grant, nil
}

// VerifyDevice checks that cert is one of the devices of this verified
// acceptance and verifies up to the anchors' birth root.
func (a *Acceptance) VerifyDevice(cert *x509.Certificate, anchors *anchor.Anchors) (*birthcert.Identity, error) {
	ca, grant, err := a.chain(anchors)
	if err != nil {
		return nil, err
	}
	root, err := anchors.Issuer("birth-root", ca)
	if err != nil {
		return nil, err
	}
	id, err := birthcert.VerifyDevice(cert, ca, root, grant)
	if err != nil {
		return nil, err
	}
	want := Device{Assurance: id.Assurance, BundleID: id.Bundle, CertHash: id.CertHash, DeviceSerial: id.DeviceSerial, SPKIHash: id.SPKIHash}
	if !slices.Contains(a.Devices, want) {
		return nil, fault.Errorf(fault.Policy, "%w: %s", ErrUnknown, id.DeviceSerial)
	}
	return id, nil
}

// index finds what stands twice.
type index map[string]bool

func (x index) add(d *Device) error {
	keys := []string{"s" + string(d.DeviceSerial), "k" + d.SPKIHash, "c" + d.CertHash}
	for _, k := range keys {
		if x[k] {
			return fault.Errorf(fault.Policy, "%w: %s", ErrDuplicate, d.DeviceSerial)
		}
	}
	for _, k := range keys {
		x[k] = true
	}
	return nil
}

// Registry is the devices of many acceptances of one vault. It is for one
// goroutine while it grows, and for many once it does not.
type Registry struct {
	anchors *anchor.Anchors
	index   index
	reports map[string]bool
	byCert  map[string]*Acceptance
}

// NewRegistry starts an empty registry under anchors.
func NewRegistry(anchors *anchor.Anchors) *Registry {
	return &Registry{anchors: anchors, index: index{}, reports: map[string]bool{}, byCert: map[string]*Acceptance{}}
}

// Add verifies an acceptance file and takes its devices, all or none. A report
// that was accepted before, and any serial, key or certificate that stands in
// another acceptance, is refused.
func (r *Registry) Add(data []byte) (*Acceptance, error) {
	a, err := Verify(data, r.anchors)
	if err != nil {
		return nil, err
	}
	if err := r.CheckNew(a); err != nil {
		return nil, err
	}
	r.reports[a.ReportHash] = true
	for i := range a.Devices {
		if err := r.index.add(&a.Devices[i]); err != nil { // checked above and within Verify
			return nil, err
		}
		r.byCert[a.Devices[i].CertHash] = a
	}
	return a, nil
}

// CheckNew says whether report and devices of an acceptance are all new.
func (r *Registry) CheckNew(a *Acceptance) error {
	if r.reports[a.ReportHash] {
		return fault.Errorf(fault.Policy, "%w: report %.16s…", ErrDuplicate, a.ReportHash)
	}
	for i := range a.Devices {
		d := &a.Devices[i]
		if r.index["s"+string(d.DeviceSerial)] || r.index["k"+d.SPKIHash] || r.index["c"+d.CertHash] {
			return fault.Errorf(fault.Policy, "%w: %s", ErrDuplicate, d.DeviceSerial)
		}
	}
	return nil
}

// Find verifies a birth certificate and returns whom it names, provided exactly
// this certificate was accepted.
func (r *Registry) Find(cert *x509.Certificate) (*birthcert.Identity, error) {
	a, ok := r.byCert[birthcert.Hash(cert.Raw)]
	if !ok {
		return nil, ErrUnknown
	}
	return a.VerifyDevice(cert, r.anchors)
}

// Len is the number of devices.
func (r *Registry) Len() int { return len(r.byCert) }
