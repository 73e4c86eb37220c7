package station

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	wire "keyrite/wire/factory"
)

// served is a line with a listener.
type served struct {
	*line
	addr string
	pin  *x509.Certificate
	log  *bytes.Buffer
}

func serve(t *testing.T, quota int64) *served {
	t.Helper()
	l := newLine(t)
	l.imports(l.bundle(func(b *bundle.Bundle) { b.Quota, b.Ranges[0].To = quota, quota }))
	if err := makeTLS(l.dir, "factory1-station1"); err != nil {
		t.Fatal(err)
	}
	cert, err := LoadTLS(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{line: l, addr: listener.Addr().String(), log: &bytes.Buffer{}}
	if s.pin, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, listener, cert, slog.New(slog.NewTextHandler(s.log, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *served) dial(t *testing.T) *tls.Conn {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.pin)
	c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: roots, ServerName: "factory1-station1", NextProtos: []string{wire.ALPN}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// device is what a test device does otherwise than a good one.
type device struct {
	chip  int
	key   *ecdsa.PrivateKey
	csr   func(*wire.Offer) []byte // nil: a plain one
	proof func(*wire.Offer) []byte
	sig   func(*wire.Certificate) []byte
}

func (d *device) sign(msg []byte) []byte {
	sum := sha256.Sum256(msg)
	sig, err := ecdsa.SignASN1(rand.Reader, d.key, sum[:])
	if err != nil {
		return nil
	}
	return sig
}

// birth runs the dialogue and returns offer and certificate.
func (s *served) dialogue(t *testing.T, d *device) (*wire.Offer, *wire.Certificate, error) {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	var o wire.Offer
	var c wire.Certificate
	var done wire.Confirmed
	if err := errors.Join(wire.Write(conn, &wire.Hello{ChipID: element(d.chip).ChipID, Kind: "soft"}), wire.Read(conn, &o)); err != nil {
		return nil, nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(d.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	r := &wire.Request{CSR: request(t, d.key, pkix.Name{}, nil), Proof: d.sign(wire.ProofMessage(&o, birthcert.Hash(spki)))}
	if d.csr != nil {
		r.CSR = d.csr(&o)
	}
	if d.proof != nil {
		r.Proof = d.proof(&o)
	}
	if err := errors.Join(wire.Write(conn, r), wire.Read(conn, &c)); err != nil {
		return &o, nil, err
	}
	confirm := &wire.Confirm{Signature: d.sign(wire.ConfirmMessage(o.World, o.Serial, c.Challenge, birthcert.Hash(c.Certificate)))}
	if d.sig != nil {
		confirm.Signature = d.sig(&c)
	}
	return &o, &c, errors.Join(wire.Write(conn, confirm), wire.Read(conn, &done))
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func request(t testing.TB, k crypto.Signer, subject pkix.Name, edit func(*x509.CertificateRequest)) []byte {
	t.Helper()
	tpl := &x509.CertificateRequest{Subject: subject}
	if edit != nil {
		edit(tpl)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tpl, k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// hostileRequests are requests that ask for more than a key's certificate; the
// names of the rows say what. A, B are device serials.
func hostileRequests(t testing.TB) map[string]func(k *ecdsa.PrivateKey) []byte {
	rows := map[string]func(k *ecdsa.PrivateKey) []byte{}
	const other = "gw100-00000500"
	subjects := map[string]pkix.Name{
		"serial of another device":  {SerialNumber: other},
		"CN of another device":      {CommonName: other},
		"both":                      {SerialNumber: other, CommonName: other},
		"O of the live world":       {Organization: []string{"live"}, SerialNumber: other},
		"two worlds":                {Organization: []string{"live", "rehearsal:abcdefgh"}},
		"OU of another product":     {OrganizationalUnit: []string{"gw200"}},
		"two products":              {OrganizationalUnit: []string{"gw100", "gw200"}},
		"upper case serial":         {SerialNumber: strings.ToUpper(other)},
		"serial with NUL":           {SerialNumber: other + "\x00"},
		"serial, NUL, another":      {SerialNumber: "gw100-00000001\x00" + other},
		"serial with newline":       {SerialNumber: other + "\nO=live"},
		"serial with spaces":        {SerialNumber: " " + other + " "},
		"serial with slash":         {SerialNumber: "../" + other},
		"serial with quotes":        {SerialNumber: `"'; DROP TABLE units; --`},
		"serial with plus":          {SerialNumber: "a+serialNumber=" + other},
		"serial with comma":         {CommonName: "a,serialNumber=" + other},
		"CN as name of the root":    {CommonName: "keyrite birth root"},
		"CN as name of the factory": {CommonName: "keyrite factory factory1"},
		"CN as relay":               {CommonName: "keyrite relay access"},
		"empty subject":             {},
		"very long CN":              {CommonName: strings.Repeat("a", 3000)},
		"unicode look-alike":        {SerialNumber: "gw1oo‐00000500"},
		"right-to-left override":    {CommonName: "\u202e" + other},
		"emoji":                     {CommonName: "🏭"},
		"country and street":        {Country: []string{"DE"}, StreetAddress: []string{"x"}},
		"extra name, serial again":  {SerialNumber: other, ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: "gw100-00000501"}}},
		"extra name, unknown":       {ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: other}}},
		"extra name, e-mail":        {ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "root@relay"}}},
	}
	for name, s := range subjects {
		rows[name] = func(k *ecdsa.PrivateKey) []byte { return request(t, k, s, nil) }
	}
	uri, err := url.Parse("keyrite:relay:access")
	if err != nil {
		t.Fatal(err)
	}
	ext := func(critical bool, value []byte, id ...int) pkix.Extension {
		return pkix.Extension{Id: id, Critical: critical, Value: value}
	}
	caTrue := []byte{0x30, 3, 1, 1, 0xff}
	edits := map[string]func(*x509.CertificateRequest){
		"SAN DNS":            func(r *x509.CertificateRequest) { r.DNSNames = []string{"relay.example", "*"} },
		"SAN URI of a relay": func(r *x509.CertificateRequest) { r.URIs = []*url.URL{uri} },
		"SAN IP":             func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{127, 0, 0, 1}} },
		"SAN e-mail":         func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"root@relay"} },
		"SAN of all kinds": func(r *x509.CertificateRequest) {
			r.DNSNames, r.IPAddresses, r.URIs = []string{"a"}, []net.IP{{1, 1, 1, 1}}, []*url.URL{uri}
		},
		"CA:TRUE": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(true, caTrue, 2, 5, 29, 19)}
		},
		"CA:TRUE not critical": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, caTrue, 2, 5, 29, 19)}
		},
		"CA:TRUE twice": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(true, caTrue, 2, 5, 29, 19), ext(true, caTrue, 2, 5, 29, 19)}
		},
		"keyCertSign": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(true, []byte{3, 2, 2, 4}, 2, 5, 29, 15)}
		},
		"EKU serverAuth": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1}, 2, 5, 29, 37)}
		},
		"EKU any": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, []byte{0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0}, 2, 5, 29, 37)}
		},
		"hardwareModuleName": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, []byte{0x30, 0}, 2, 5, 29, 17)}
		},
		"subject key id": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, []byte{4, 2, 1, 2}, 2, 5, 29, 14)}
		},
		"authority key id": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, []byte{0x30, 0}, 2, 5, 29, 35)}
		},
		"policies": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, []byte{0x30, 0}, 2, 5, 29, 32)}
		},
		"name constraints": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(true, []byte{0x30, 0}, 2, 5, 29, 30)}
		},
		"our factory extension": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, []byte{0x30, 0}, birthcert.OIDFactory()...)}
		},
		"our device extension": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(false, []byte{0x30, 0}, birthcert.OIDDevice()...)}
		},
		"unknown critical": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(true, []byte{5, 0}, 1, 2, 3)}
		},
		"empty extension": func(r *x509.CertificateRequest) { r.ExtraExtensions = []pkix.Extension{ext(true, nil, 1, 2, 3)} },
		"garbage in basicConstr.": func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{ext(true, []byte{0xff, 0xff}, 2, 5, 29, 19)}
		},
		"fifty extensions": func(r *x509.CertificateRequest) {
			for i := range 50 {
				r.ExtraExtensions = append(r.ExtraExtensions, ext(false, []byte{5, 0}, 1, 2, 3, i))
			}
		},
	}
	for name, e := range edits {
		rows[name] = func(k *ecdsa.PrivateKey) []byte { return request(t, k, pkix.Name{SerialNumber: other}, e) }
	}
	return rows
}

// CVE-2024-33897: whatever a request asks for, the certificate is the issuer's
// choice, byte for byte, but for the key (W1, R-MFG-13).
func TestHostileRequests(t *testing.T) {
	rows := hostileRequests(t)
	if len(rows) < 50 {
		t.Fatalf("%d rows", len(rows))
	}
	s := serve(t, int64(len(rows)))
	i := 0
	for name, csr := range rows {
		i++
		k := newKey(t)
		o, c, err := s.dialogue(t, &device{chip: i, key: k, csr: func(*wire.Offer) []byte { return csr(k) }})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if o.Serial != string(birthcert.MakeDeviceSerial("gw100", int64(i))) {
			t.Errorf("%s: serial %s", name, o.Serial)
		}
		cert, err := birthcert.Parse(c.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		u, err := s.unit(birthcert.DeviceSerial(o.Serial))
		if err != nil {
			t.Fatal(err)
		}
		tpl, err := s.template(u)
		if err != nil {
			t.Fatal(err)
		}
		want, err := tpl.TBS()
		if err != nil || !bytes.Equal(cert.RawTBSCertificate, want) || !k.PublicKey.Equal(cert.PublicKey) {
			t.Errorf("%s: the certificate is not the issuer's choice: %v", name, err)
		}
		if cert.IsCA || cert.Subject.SerialNumber != o.Serial || cert.Subject.CommonName != "" || len(cert.DNSNames)+len(cert.URIs)+len(cert.IPAddresses) > 0 {
			t.Errorf("%s: %v", name, cert.Subject)
		}
	}
}

// Requests that are refused, and devices that do not hold their key.
func TestRefusedRequests(t *testing.T) {
	s := serve(t, 40)
	good, other := newKey(t), newKey(t)
	plain := request(t, good, pkix.Name{}, nil)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	always := func(b []byte) func(*wire.Offer) []byte { return func(*wire.Offer) []byte { return b } }
	cut := bytes.Clone(plain)
	cut[len(cut)-1] ^= 1
	tests := map[string]*device{
		"RSA":               {csr: always(request(t, rsaKey, pkix.Name{}, nil))},
		"P-384":             {csr: always(request(t, p384, pkix.Name{}, nil))},
		"Ed25519":           {csr: always(request(t, ed, pkix.Name{}, nil))},
		"signature altered": {csr: always(cut)},
		"another's request": {csr: always(request(t, other, pkix.Name{}, nil))},
		"trailing bytes":    {csr: always(append(bytes.Clone(plain), 0))},
		"garbage":           {csr: always([]byte("csr"))},
		"certificate":       {csr: always(s.World.State.Factories["factory1"].CA)},
		"no proof":          {proof: always([]byte{1})},
		"old proof": {proof: func(o *wire.Offer) []byte {
			old := *o
			old.Nonce = make([]byte, wire.NonceBytes)
			return (&device{key: good}).sign(wire.ProofMessage(&old, hashKey(t, good)))
		}},
		"proof for another serial": {proof: func(o *wire.Offer) []byte {
			x := *o
			x.Serial = "gw100-00000500"
			return (&device{key: good}).sign(wire.ProofMessage(&x, hashKey(t, good)))
		}},
	}
	i := 0
	for name, d := range tests {
		i++
		d.chip, d.key = i, good
		if _, _, err := s.dialogue(t, d); classOf(err) != "verify" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The right certificate, but the device cannot show that it has the key.
	d := &device{chip: 30, key: good, sig: func(*wire.Certificate) []byte { return []byte{1} }}
	if _, _, err := s.dialogue(t, d); classOf(err) != "verify" {
		t.Errorf("not confirmed: %v", err)
	}
	units, err := s.Units()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		if u.Stage == Confirmed || u.Stage == Issued && u.Element.ChipID != element(30).ChipID {
			t.Errorf("unit %s is %s", u.DeviceSerial, u.Stage)
		}
	}
	d.sig = nil
	if _, _, err := s.dialogue(t, d); err != nil {
		t.Errorf("again, well: %v", err)
	}
}

func classOf(err error) string {
	var c interface{ FaultClass() string }
	if errors.As(err, &c) {
		return c.FaultClass()
	}
	return ""
}

func hashKey(t testing.TB, k *ecdsa.PrivateKey) string {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return birthcert.Hash(spki)
}

// Devices at once, each broken off once and taken up again: no serial twice, and
// exactly one device too many is refused with class quota.
func TestManyAtOnce(t *testing.T) {
	const n = 12
	s := serve(t, n)
	type result struct {
		serial string
		err    error
	}
	out := make(chan result, n)
	for i := range n {
		k := newKey(t)
		go func() {
			d := &device{chip: i, key: k, sig: func(*wire.Certificate) []byte { return []byte{1} }}
			_, _, _ = s.dialogue(t, d)
			d.sig = nil
			o, _, err := s.dialogue(t, d)
			r := result{err: err}
			if o != nil {
				r.serial = o.Serial
			}
			out <- r
		}()
	}
	seen := map[string]bool{}
	for range n {
		r := <-out
		if r.err != nil || seen[r.serial] {
			t.Errorf("%s: %v", r.serial, r.err)
		}
		seen[r.serial] = true
	}
	if _, _, err := s.dialogue(t, &device{chip: 99, key: newKey(t)}); classOf(err) != "quota" {
		t.Errorf("one too many: %v", err)
	}
}

func TestProtocolAbuse(t *testing.T) {
	s := serve(t, 3)
	for name, send := range map[string]func(net.Conn){
		"nothing":     func(net.Conn) {},
		"garbage":     func(c net.Conn) { fmt.Fprint(c, "GET / HTTP/1.1\r\n\r\n") },
		"wrong order": func(c net.Conn) { _ = wire.Write(c, &wire.Confirm{Signature: []byte{1}}) },
		"huge frame":  func(c net.Conn) { _, _ = c.Write([]byte{1, 0xff, 0xff, 0xff, 0xff}) },
	} {
		c := s.dial(t)
		send(c)
		if name != "nothing" {
			if err := wire.Read(c, &wire.Offer{}); classOf(err) != "verify" {
				t.Errorf("%s: %v", name, err)
			}
		}
		_ = c.Close()
	}
	if c, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		_ = c.Close()
		t.Error("TLS 1.2 was taken")
	}
	if units, err := s.Units(); err != nil || len(units) != 0 {
		t.Errorf("units %v, %v", units, err)
	}
}
