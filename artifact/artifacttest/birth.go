package artifacttest

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/report"
)

// Certificate issues tpl with the key issuer, without lints. World, number and
// start are filled in; the issuer's certificate is tpl.Issuer's business.
func (w *World) Certificate(tpl birthcert.Template, issuer string) []byte {
	w.t.Helper()
	if tpl.World == "" {
		tpl.World = w.World
	}
	if tpl.NotBefore.IsZero() {
		tpl.NotBefore = Now()
	}
	tpl.Serial = birthcert.NewCertSerial()
	tbs := w.must(tpl.TBS())
	sum := sha256.Sum256(tbs)
	sig := w.must(w.Keys[issuer].Sign(rand.Reader, sum[:], crypto.SHA256))
	return w.must(birthcert.Assemble(tbs, sig))
}

// Parsed is the certificate in der.
func (w *World) Parsed(der []byte) *x509.Certificate {
	w.t.Helper()
	c, err := birthcert.Parse(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// FoundFactory puts factory1, with a CA under the birth root, and station1 in
// the charter.
func (w *World) FoundFactory() {
	w.t.Helper()
	root := w.Parsed(w.Anchors.Certificates["birth-root"])
	w.AddFactory(w.Certificate(birthcert.Template{
		Profile: birthcert.FactoryCA, SPKI: w.SPKI("factory-ca"), Issuer: birthcert.IssuerOf(root),
		Grant: birthcert.Grant{Factory: "factory1", Product: "gw100", SerialFrom: 1, SerialTo: 1000},
	}, "birth-root"))
}

// Bundle returns the payload of the first bundle of factory1 for station1:
// quota 3, numbers 1 to 10, 30 days.
func (w *World) Bundle() *bundle.Bundle {
	w.t.Helper()
	profile, err := birthcert.ProfileHash(birthcert.Device)
	if err != nil {
		w.t.Fatal(err)
	}
	return &bundle.Bundle{
		Assurance: birthcert.Unattested, BundleID: bundle.NewID(),
		CAChain: [][]byte{w.State.Factories["factory1"].CA, w.Anchors.Certificates["birth-root"]},
		Charter: bundle.Charter{Head: w.State.Head(), Size: w.State.Size()}, Factory: "factory1", Format: bundle.Format, Hardware: "gw100 rev A",
		NotAfter: charter.FormatTime(Now().AddDate(0, 0, 30)), NotBefore: charter.FormatTime(Now()), Prev: bundle.FirstPrev(), Product: "gw100",
		Profile: profile, Quota: 3, Ranges: []bundle.Range{{From: 1, To: 10}}, Seq: 1, Stations: []string{"station1"},
		TimeFloor: charter.FormatTime(Now()), Vault: w.State.Vault, World: w.World,
	}
}

// SignBundle returns the file of b, signed by both provisioning keys.
func (w *World) SignBundle(b *bundle.Bundle) []byte {
	w.t.Helper()
	out, err := bundle.Sign(b, w.Keys["provision-a"], w.Keys["provision-b"])
	return w.must(out, err)
}

// Born is a device with a software key.
type Born struct {
	Key  crypto.Signer
	Cert *x509.Certificate
}

// Birth issues the birth certificate of number n under bundle id.
func (w *World) Birth(n int64, id string) Born {
	w.t.Helper()
	key := w.p256()
	spki := w.must(x509.MarshalPKIXPublicKey(key.Public()))
	ca := w.Parsed(w.State.Factories["factory1"].CA)
	der := w.Certificate(birthcert.Template{
		Profile: birthcert.Device, SPKI: spki, Issuer: birthcert.IssuerOf(ca), DeviceSerial: birthcert.MakeDeviceSerial("gw100", n),
		Assurance: birthcert.Unattested, Bundle: id,
	}, "factory-ca")
	return Born{Key: key, Cert: w.Parsed(der)}
}

// Report returns the payload of the report of b with those devices confirmed.
func (w *World) Report(b *bundle.Bundle, born ...Born) *report.Report {
	w.t.Helper()
	hash := string(w.must(hashed(b.Hash())))
	r := &report.Report{
		Bundle: report.BundleRef{Hash: hash, ID: b.BundleID, Seq: b.Seq}, Charter: b.Charter, ClosedAt: charter.FormatTime(Now()),
		Factory: "factory1", Format: report.Format, Prev: report.FirstPrev(), Quota: b.Quota, QuotaLayers: []string{report.LayerTokenAbsent, report.LayerLedger, report.LayerAcceptance},
		Station: "station1", TimeFloor: charter.FormatTime(Now()), Units: []report.Unit{}, Vault: b.Vault, World: b.World,
	}
	for i, d := range born {
		serial, err := birthcert.ReadCertSerial(d.Cert)
		if err != nil {
			w.t.Fatal(err)
		}
		chip := sha256.Sum256(d.Cert.RawSubjectPublicKeyInfo)
		r.Units = append(r.Units, report.Unit{
			Assurance: birthcert.Unattested, CertHash: birthcert.Hash(d.Cert.Raw), CertSerial: serial.String(), Certificate: d.Cert.Raw,
			DeviceSerial: birthcert.DeviceSerial(d.Cert.Subject.SerialNumber), Element: report.Element{ChipID: hex.EncodeToString(chip[:16]), Kind: "soft"},
			Reserved: charter.FormatTime(Now()), Ended: charter.FormatTime(Now()), SPKIHash: birthcert.Hash(d.Cert.RawSubjectPublicKeyInfo), State: report.Confirmed,
		})
		if i == 0 {
			r.Lowest = r.Units[0].DeviceSerial
		}
		r.Highest = r.Units[i].DeviceSerial
	}
	r.Counts = report.Counts{Confirmed: int64(len(born)), Signed: int64(len(born))}
	var err error
	if r.Root, err = report.RootOf(r.Units); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// Accept returns the acceptance file of those devices of b.
func (w *World) Accept(b *bundle.Bundle, born ...Born) []byte {
	w.t.Helper()
	r := w.Report(b, born...)
	a, err := acceptance.New(r, b, Now())
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := acceptance.Sign(a, w.Keys["acceptance"])
	return w.must(out, err)
}

func hashed(s string, err error) ([]byte, error) { return []byte(s), err }
