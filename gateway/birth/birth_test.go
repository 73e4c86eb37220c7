package birth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/gateway/birth"
	"keyrite/gateway/secureelement"
	wire "keyrite/wire/factory"
)

// element is a secure element in memory that keeps the rules of the real one.
type element struct {
	key    *ecdsa.PrivateKey
	birth  *secureelement.Birth
	chain  []*x509.Certificate
	locked bool
	wrong  bool // gives back no certificate
}

func (e *element) Info() (*secureelement.Info, error) {
	return &secureelement.Info{ChipID: "00112233445566778899aabbccddeeff", Kind: "soft"}, nil
}
func (e *element) Locked() (bool, error) { return e.locked, nil }

func (e *element) CreateKey() (crypto.Signer, error) {
	if e.key != nil {
		return nil, secureelement.ErrKeyExists
	}
	var err error
	e.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return e.key, err
}
func (e *element) Key() (crypto.Signer, error) { return e.key, nil }

func (e *element) Provision(b secureelement.Birth) error {
	e.birth = &b
	return nil
}

func (e *element) StoreCertificate(chain ...[]byte) error {
	e.chain = nil
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		e.chain = append(e.chain, c)
	}
	return nil
}

func (e *element) Certificate() ([]*x509.Certificate, error) {
	if e.wrong {
		return nil, nil
	}
	return e.chain, nil
}

func (e *element) Lock() error {
	e.locked = true
	return nil
}

// stand is a station that a test can make lie.
type stand struct {
	*artifacttest.World
	addr    string
	pin     *x509.Certificate
	anchors []byte
	bundle  *bundle.Bundle
	offer   func(*wire.Offer)
	answer  func(*wire.Certificate)
	refuse  *wire.Refused
	last    func() wire.Message
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{World: artifacttest.New(t)}
	s.FoundFactory()
	s.bundle = s.Bundle()
	var err error
	if s.anchors, err = s.Anchors.Marshal(); err != nil {
		t.Fatal(err)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "station"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	if s.pin, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: k}}, MinVersion: tls.VersionTLS13, NextProtos: []string{wire.ALPN}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s.addr = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.dialog(c)
			_ = c.Close()
		}
	}()
	return s
}

// dialog certifies whatever key is asked for as number 1.
func (s *stand) dialog(c net.Conn) {
	var hello wire.Hello
	var request wire.Request
	var confirm wire.Confirm
	if wire.Read(c, &hello) != nil {
		return
	}
	if s.refuse != nil {
		_ = wire.Write(c, s.refuse)
		return
	}
	o := &wire.Offer{Anchors: s.anchors, Bundle: s.bundle.BundleID, Nonce: make([]byte, wire.NonceBytes), Serial: "gw100-00000001", World: string(s.World.World)}
	if s.offer != nil {
		s.offer(o)
	}
	if wire.Write(c, o) != nil || wire.Read(c, &request) != nil {
		return
	}
	csr, err := x509.ParseCertificateRequest(request.CSR)
	if err != nil {
		return
	}
	ca := s.State.Factories["factory1"].CA
	der := s.Certificate(birthcert.Template{
		Profile: birthcert.Device, SPKI: csr.RawSubjectPublicKeyInfo, Issuer: birthcert.IssuerOf(s.Parsed(ca)), DeviceSerial: "gw100-00000001",
		Assurance: birthcert.Unattested, Bundle: s.bundle.BundleID,
	}, "factory-ca")
	answer := &wire.Certificate{CA: ca, Certificate: der, Challenge: make([]byte, wire.NonceBytes)}
	if s.answer != nil {
		s.answer(answer)
	}
	if wire.Write(c, answer) != nil || wire.Read(c, &confirm) != nil {
		return
	}
	var last wire.Message = &wire.Confirmed{Serial: o.Serial}
	if s.last != nil {
		last = s.last()
	}
	if last != nil {
		_ = wire.Write(c, last)
	}
}

func (s *stand) run(t *testing.T, e *element, edit func(*birth.Config)) (*birth.Born, error) {
	t.Helper()
	c := birth.Config{Addr: s.addr, Pin: s.pin}
	if edit != nil {
		edit(&c)
	}
	return birth.Run(t.Context(), e, c)
}

func classOf(err error) string {
	var c interface{ FaultClass() string }
	if errors.As(err, &c) {
		return c.FaultClass()
	}
	return ""
}

func TestRun(t *testing.T) {
	s := newStand(t)
	e := &element{}
	born, err := s.run(t, e, func(c *birth.Config) { c.Anchors = s.anchors })
	if err != nil {
		t.Fatal(err)
	}
	if !e.locked || born.Serial != "gw100-00000001" || len(e.chain) != 2 || e.birth.World != s.World.World || e.birth.Anchors != birthcert.Hash(s.anchors) {
		t.Errorf("born %+v in %+v", born, e)
	}
	if _, err := s.run(t, e, nil); !errors.Is(err, secureelement.ErrLocked) {
		t.Errorf("born twice: %v", err)
	}
}

// A device that is born after keys gave way believes those in force from the first day,
// and takes a certificate under the twin of the birth root only with the statement.
func TestBornAfterASuccession(t *testing.T) {
	s := newStand(t)
	s.AddSuccessors()
	var err error
	if s.anchors, err = s.Anchors.Marshal(); err != nil {
		t.Fatal(err)
	}
	statement := s.Succession("succession", nil, "firmware", "birth-root")
	s.bundle = s.SecondFactory("birth-root-2")
	s.answer = func(c *wire.Certificate) {
		spki := s.Parsed(c.Certificate).RawSubjectPublicKeyInfo
		c.CA = s.bundle.CAChain[0]
		c.Certificate = s.Certificate(birthcert.Template{
			Profile: birthcert.Device, SPKI: spki, Issuer: birthcert.IssuerOf(s.Parsed(c.CA)), DeviceSerial: "gw100-00001001",
			Assurance: birthcert.Unattested, Bundle: s.bundle.BundleID,
		}, "factory-ca")
	}
	with := func(statement []byte) func(*wire.Offer) {
		return func(o *wire.Offer) { o.Serial, o.Succession = "gw100-00001001", statement }
	}
	stranger := artifacttest.New(t)
	stranger.AddSuccessors()
	for name, statement := range map[string][]byte{
		"none": nil, "of another vault": stranger.Succession("succession", nil, "birth-root"), "of another key": s.Succession("succession", nil, "firmware"), "cut off": statement[:len(statement)-1],
	} {
		s.offer = with(statement)
		e := &element{}
		if _, err := s.run(t, e, nil); err == nil || e.locked {
			t.Errorf("with a statement %s: %v, locked %v", name, err, e.locked)
		}
	}
	s.offer = with(statement)
	s.last = func() wire.Message { return &wire.Confirmed{Serial: "gw100-00001001"} }
	e := &element{}
	if _, err := s.run(t, e, func(c *birth.Config) { c.Anchors = s.anchors }); err != nil {
		t.Fatal(err)
	}
	if string(e.birth.FirmwareKey) != string(s.SPKI("firmware-2")) || e.birth.Anchors != birthcert.Hash(s.anchors) {
		t.Errorf("born with %+v", e.birth)
	}
}

// A station that lies, in whatever it says, brings no element to life (R-MFG-14).
func TestStationThatLies(t *testing.T) {
	tests := []struct {
		name, class string
		lie         func(*testing.T, *stand)
		edit        func(*birth.Config)
	}{
		{"quota", "quota", func(_ *testing.T, s *stand) { s.refuse = &wire.Refused{Class: "quota", Message: "the quota is spent"} }, nil},
		{"other anchors", "policy", nil, func(c *birth.Config) { c.Anchors = []byte("{}") }},
		{"firmware", "policy", func(_ *testing.T, s *stand) { s.offer = func(o *wire.Offer) { o.Firmware = bundle.FirstPrev() } }, nil},
		{"other world", "verify", func(_ *testing.T, s *stand) { s.offer = func(o *wire.Offer) { o.World = "live" } }, nil},
		{"anchors that are none", "verify", func(_ *testing.T, s *stand) { s.offer = func(o *wire.Offer) { o.Anchors = []byte("{}") } }, nil},
		{"other serial", "verify", func(_ *testing.T, s *stand) { s.offer = func(o *wire.Offer) { o.Serial = "gw100-00000002" } }, nil},
		{"other bundle", "verify", func(_ *testing.T, s *stand) { s.offer = func(o *wire.Offer) { o.Bundle = bundle.NewID() } }, nil},
		{"certificate of another key", "verify", func(_ *testing.T, s *stand) {
			s.answer = func(c *wire.Certificate) { c.Certificate = s.Birth(1, s.bundle.BundleID).Cert.Raw }
		}, nil},
		{"CA in its place", "verify", func(_ *testing.T, s *stand) { s.answer = func(c *wire.Certificate) { c.Certificate = c.CA } }, nil},
		{"foreign chain", "verify", func(t *testing.T, s *stand) {
			o := artifacttest.New(t)
			o.FoundFactory()
			s.answer = func(c *wire.Certificate) {
				c.CA, c.Certificate = o.State.Factories["factory1"].CA, o.Birth(1, s.bundle.BundleID).Cert.Raw
			}
		}, nil},
		{"no certificate", "verify", func(_ *testing.T, s *stand) { s.answer = func(c *wire.Certificate) { c.Certificate = []byte{0x30, 0} } }, nil},
		{"line ends before the confirmation", "unreachable", func(_ *testing.T, s *stand) { s.last = func() wire.Message { return nil } }, nil},
		{"refused at the end", "storage", func(_ *testing.T, s *stand) {
			s.last = func() wire.Message { return &wire.Refused{Class: "storage", Message: "x"} }
		}, nil},
		{"another serial confirmed", "verify", func(_ *testing.T, s *stand) {
			s.last = func() wire.Message { return &wire.Confirmed{Serial: "gw100-00000002"} }
		}, nil},
		{"another station", "peer", nil, func(c *birth.Config) { c.Pin = newPin(c.Pin) }},
		{"nobody there", "unreachable", nil, func(c *birth.Config) { c.Addr = "127.0.0.1:1" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, e := newStand(t), &element{}
			if tt.lie != nil {
				tt.lie(t, s)
			}
			if _, err := s.run(t, e, tt.edit); classOf(err) != tt.class {
				t.Errorf("got %q: %v", classOf(err), err)
			}
			if e.locked {
				t.Error("the element was locked")
			}
		})
	}
	// After a line that broke at the very end the birth goes on with the same key.
	s, e := newStand(t), &element{}
	s.last = func() wire.Message { return nil }
	_, _ = s.run(t, e, nil)
	key := e.key
	s.last = nil
	if _, err := s.run(t, e, nil); err != nil || e.key != key || !e.locked {
		t.Errorf("taken up: %v", err)
	}
	if _, err := s.run(t, &element{wrong: true}, nil); classOf(err) != "token" {
		t.Errorf("element that forgets: %v", err)
	}
}

// newPin is another certificate.
func newPin(c *x509.Certificate) *x509.Certificate {
	other := *c
	other.Raw = append([]byte{}, c.Raw...)
	other.Raw[len(other.Raw)-1] ^= 1
	return &other
}

func TestRunStops(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := birth.Run(ctx, &element{}, birth.Config{Addr: l.Addr().String()}); err == nil {
		t.Error("born of nothing")
	}
}
