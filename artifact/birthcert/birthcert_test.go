package birthcert_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"flag"
	"math/big"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

const vectorDir = "../../testdata/vectors/birthcert"

var update = flag.Bool("update", false, "write the vectors anew")

func newWorld(t testing.TB) *artifacttest.World {
	w := artifacttest.New(t)
	w.FoundFactory()
	return w
}

func pemOf(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return bytes.TrimSuffix(out, []byte("\n"))
}

// verify reads a vector: device, then factory CA.
func verify(body []byte, root *x509.Certificate, s *charter.State) error {
	certs, err := birthcert.ParsePEM(body)
	if err != nil {
		return err
	}
	if len(certs) != 2 {
		return birthcert.ErrProfile
	}
	g, _, err := bundle.GrantOf(s, "factory1")
	if err != nil {
		return err
	}
	_, err = birthcert.VerifyDevice(certs[0], certs[1], root, g)
	return err
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	anchors, state := artifacttest.Load(t, vectorDir)
	root, err := anchors.Certificate("birth-root")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range artifacttest.Vectors(t, vectorDir) {
		got := "ok"
		err := verify(v.Body, root, state)
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: got %s (%v), want %s", v.Name, got, err, v.Expect)
		}
	}
}

func writeVectors(t *testing.T) {
	w := newWorld(t)
	w.Save(vectorDir)
	id := bundle.NewID()
	ca := w.Parsed(w.State.Factories["factory1"].CA)
	root := w.Parsed(w.Anchors.Certificates["birth-root"])
	put := func(name, expect, comment string, certs ...*x509.Certificate) {
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: pemOf(certs...)}, comment)
	}
	good := w.Birth(42, id).Cert
	put("valid", "ok", "gw100-00000042, element, unattested", good, ca)
	put("serial-outside", "policy", "a number above the factory's grant", w.Birth(1001, id).Cert, ca)
	put("no-ca", "verify", "the factory CA is missing", good)
	put("ca-as-device", "verify", "the factory CA in the place of a device", ca, ca)
	put("device-as-ca", "verify", "the device in the place of its CA", good, good)
	put("root-as-ca", "verify", "the root in the place of the CA", good, root)
	other := newWorld(t)
	put("foreign-device", "verify", "a device of another world's factory under our CA", other.Birth(42, id).Cert, ca)
	put("foreign-chain", "verify", "device and CA of another world", other.Birth(42, id).Cert, other.Parsed(other.State.Factories["factory1"].CA))
	wide := w.Parsed(w.Certificate(birthcert.Template{
		Profile: birthcert.FactoryCA, SPKI: w.SPKI("factory-ca"), Issuer: birthcert.IssuerOf(root),
		Grant: birthcert.Grant{Factory: "factory1", Product: "gw100", SerialFrom: 1, SerialTo: 5000},
	}, "birth-root"))
	put("grant-wider", "policy", "a CA certificate with a wider grant than the charter's", good, wide)
	device := func(edit func(*birthcert.Template)) *x509.Certificate {
		tpl := birthcert.Template{Profile: birthcert.Device, SPKI: good.RawSubjectPublicKeyInfo, Issuer: birthcert.IssuerOf(ca), DeviceSerial: "gw100-00000042", Assurance: birthcert.Unattested, Bundle: id}
		edit(&tpl)
		return w.Parsed(w.Certificate(tpl, "factory-ca"))
	}
	put("other-product", "policy", "a device of another product line", device(func(x *birthcert.Template) { x.DeviceSerial = "gw200-00000042" }), ca)
	put("other-world", "policy", "a device that claims the live world", device(func(x *birthcert.Template) { x.World = "live" }), ca)
	put("attested", "ok", "assurance ek-attested", device(func(x *birthcert.Template) { x.Assurance = birthcert.EKAttested }), ca)
	for name, edit := range careless() {
		put(name, "verify", "signed by the right CA, not of the profile", carelessly(t, w, good, ca, edit), ca)
	}
	flipped := bytes.Clone(good.Raw)
	flipped[len(flipped)-1] ^= 1
	put("signature", "verify", "one bit of the signature changed", w.Parsed(flipped), ca)
}

// careless are templates for Go's issuer that a factory with its own software
// could sign.
func careless() map[string]func(*x509.Certificate) {
	san := func(critical bool, value []byte) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: critical, Value: value}
	}
	return map[string]func(*x509.Certificate){
		"plain": func(*x509.Certificate) {},
		"is-ca": func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		},
		"eku-server":   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"has-end":      func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(1, 0, 0) },
		"common-name":  func(c *x509.Certificate) { c.Subject.CommonName = "gw100-00000001" },
		"empty-serial": func(c *x509.Certificate) { c.Subject.SerialNumber = "" },
		"serial-nul":   func(c *x509.Certificate) { c.Subject.SerialNumber = "gw100-00000042\x00" },
		"short-number": func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) },
		"dns-name":     func(c *x509.Certificate) { c.ExtraExtensions[0] = san(false, []byte("\x30\x03\x82\x01a")) },
		"san-critical": func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = true },
		"no-birth":     func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[:1] },
		"extra-extension": func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}})
		},
		"birth-twice-read": func(c *x509.Certificate) {
			c.ExtraExtensions[1].Value = append(bytes.Clone(c.ExtraExtensions[1].Value), 5, 0)
		},
	}
}

func carelessly(t testing.TB, w *artifacttest.World, good, ca *x509.Certificate, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	n := len(good.Extensions)
	x := &x509.Certificate{
		SerialNumber: good.SerialNumber, Subject: good.Subject, NotBefore: good.NotBefore, NotAfter: birthcert.Forever(),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: append([]pkix.Extension{}, good.Extensions[n-2:]...),
	}
	x.Subject.Names = nil
	edit(x)
	der, err := x509.CreateCertificate(rand.Reader, x, ca, good.PublicKey, w.Keys["factory-ca"])
	if err != nil {
		t.Fatal(err)
	}
	return w.Parsed(der)
}

func TestDeviceSerial(t *testing.T) {
	for _, s := range []birthcert.DeviceSerial{"", "gw100", "gw100-1", "gw100-00000000", "GW100-00000001", "gw100-00000001 ", "gw100-00000001\n", "-00000001", "gw100-000000001", "gw100-99999999999999999999"} {
		if _, _, err := s.Split(); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
	for _, n := range []int64{1, 99999999, 100000000, birthcert.MaxNumber} {
		p, got, err := birthcert.MakeDeviceSerial("gw-100", n).Split()
		if err != nil || p != "gw-100" || got != n {
			t.Errorf("%d came back as %s %d, %v", n, p, got, err)
		}
	}
}

func TestRelayTemplates(t *testing.T) {
	w := newWorld(t)
	ca := w.Parsed(w.Anchors.Certificates["relay-ca"])
	tpl := func(edit func(*birthcert.Template)) birthcert.Template {
		x := birthcert.Template{
			Profile: birthcert.Relay, World: w.World, Serial: birthcert.NewCertSerial(), NotBefore: artifacttest.Now(), NotAfter: artifacttest.Now().Add(30 * 24 * time.Hour),
			SPKI: w.SPKI("pipeline1"), Issuer: birthcert.IssuerOf(ca), Role: "vpn", DNSNames: []string{"vpn.example"}, IPs: []string{"10.0.0.1", "fd00::1"},
		}
		edit(&x)
		return x
	}
	ok := tpl(func(*birthcert.Template) {})
	cert := w.Parsed(w.Certificate(ok, "relay-ca"))
	if err := birthcert.VerifyRelay(cert, ca, "vpn", artifacttest.Now()); err != nil {
		t.Error(err)
	}
	if _, err := birthcert.VerifyDevice(cert, ca, ca, birthcert.Grant{}); err == nil {
		t.Error("a relay's certificate as a device's")
	}
	for name, edit := range map[string]func(*birthcert.Template){
		"31 days":     func(x *birthcert.Template) { x.NotAfter = x.NotAfter.Add(24 * time.Hour) },
		"no end":      func(x *birthcert.Template) { x.NotAfter = time.Time{} },
		"no name":     func(x *birthcert.Template) { x.DNSNames, x.IPs = nil, nil },
		"wildcard":    func(x *birthcert.Template) { x.DNSNames = []string{"*.example"} },
		"upper case":  func(x *birthcert.Template) { x.DNSNames = []string{"VPN.example"} },
		"NUL":         func(x *birthcert.Template) { x.DNSNames = []string{"vpn.example\x00.evil"} },
		"other role":  func(x *birthcert.Template) { x.Role = "root" },
		"mapped IPv4": func(x *birthcert.Template) { x.IPs = []string{"::ffff:10.0.0.1"} },
		"zone":        func(x *birthcert.Template) { x.IPs = []string{"fe80::1%eth0"} },
	} {
		bad := tpl(edit)
		if _, err := bad.TBS(); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What Read accepts it can write again, and nothing else.
func FuzzRead(f *testing.F) {
	anchors, state := artifacttest.Load(f, vectorDir)
	root, err := anchors.Certificate("birth-root")
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range artifacttest.Vectors(f, vectorDir) {
		certs, err := birthcert.ParsePEM(v.Body)
		if err != nil {
			continue
		}
		for _, c := range certs {
			f.Add(c.Raw)
		}
	}
	ca, err := birthcert.Parse(state.Factories["factory1"].CA)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		_, _ = birthcert.ParsePEM(der)
		c, err := birthcert.Parse(der)
		if err != nil {
			return
		}
		for _, p := range birthcert.Profiles() {
			issuer := map[bool]*x509.Certificate{false: root, true: ca}[p.Name == birthcert.Device]
			if p.SelfSigned {
				issuer = nil
			}
			tpl, err := birthcert.Read(c, p.Name, issuer)
			if err != nil {
				continue
			}
			tbs, err := tpl.TBS()
			if err != nil || !bytes.Equal(tbs, c.RawTBSCertificate) {
				t.Errorf("%s: accepted and written otherwise", p.Name)
			}
		}
	})
}
