// Package birth is the device's side of the factory: it has a key made in the
// secure element, lets the station certify it, and locks the element.
//
// Run is called once in a device's life, and again after a break until it ends
// well; every step can be repeated. It believes the station whose certificate it
// was given to pin, and checks what the station says against itself: the
// certificate is for the key in this element and leads to the birth root of the
// anchors that came with it. It must never lock an element whose certificate the
// station has not confirmed, nor let a private key out, which it never has.
package birth

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/succession"
	"keyrite/gateway/secureelement"
	wire "keyrite/wire/factory"
)

var (
	// ErrStation says that the station is not the one that was pinned.
	ErrStation = fault.New(fault.Peer, "the station is not the one whose certificate is pinned")
	// ErrOffer says that what the station sent contradicts itself.
	ErrOffer = fault.New(fault.Verify, "the station's offer does not fit together")
)

// Element is the part of a secure element that a birth needs; it is
// *secureelement.Element in programs.
type Element interface {
	Info() (*secureelement.Info, error)
	Locked() (bool, error)
	CreateKey() (crypto.Signer, error)
	Key() (crypto.Signer, error)
	Provision(secureelement.Birth) error
	StoreCertificate(chain ...[]byte) error
	Certificate() ([]*x509.Certificate, error)
	Lock() error
}

// Config says where the station is and what is expected of it.
type Config struct {
	Addr     string            // HOST:PORT
	Pin      *x509.Certificate // the station's
	Anchors  []byte            // anchors file that the device must belong to; empty to take the station's
	Firmware string            // hex SHA-256 of the image in the device, if the bundle asks for one
}

// Born is the result.
type Born struct {
	Serial  birthcert.DeviceSerial
	Chain   []*x509.Certificate // device, factory CA
	Anchors []byte              // anchors file
}

// Run brings the element to life.
func Run(ctx context.Context, e Element, c Config) (*Born, error) {
	if locked, err := e.Locked(); err != nil || locked {
		return nil, errors.Join(err, secureelement.ErrLocked)
	}
	info, err := e.Info()
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, wire.DialogTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	d := &dialog{element: e, conn: conn, config: c}
	born, err := d.run(info)
	if err != nil && ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return born, err
}

// dial opens the connection. The pinned certificate is compared whole; names,
// dates and chains say nothing here.
func dial(ctx context.Context, c Config) (net.Conn, error) {
	raw, err := (&net.Dialer{Timeout: wire.MessageTimeout}).DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return nil, fault.Errorf(fault.Unreachable, "station %s: %w", c.Addr, err)
	}
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{wire.ALPN},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection compares with the pin, which is stricter
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 || c.Pin == nil || !cs.PeerCertificates[0].Equal(c.Pin) || cs.NegotiatedProtocol != wire.ALPN {
				return ErrStation
			}
			return nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if errors.Is(err, ErrStation) {
			return nil, err
		}
		return nil, fault.Errorf(fault.Unreachable, "station %s: %w", c.Addr, err)
	}
	return conn, nil
}

type dialog struct {
	element Element
	conn    net.Conn
	config  Config
}

func (d *dialog) exchange(out, in wire.Message) error {
	if err := d.conn.SetDeadline(time.Now().Add(wire.MessageTimeout)); err != nil {
		return fault.Errorf(fault.Unreachable, "station: %w", err)
	}
	err := wire.Write(d.conn, out)
	if err == nil {
		err = wire.Read(d.conn, in)
	}
	if ne := net.Error(nil); errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.Hint(fault.Errorf(fault.Unreachable, "station: %w", err), "run the birth again; it goes on with the same serial")
	}
	return err
}

func (d *dialog) run(info *secureelement.Info) (*Born, error) {
	var offer wire.Offer
	if err := d.exchange(&wire.Hello{ChipID: info.ChipID, Firmware: info.Firmware, Kind: info.Kind, Maker: info.Maker}, &offer); err != nil {
		return nil, err
	}
	anchors, err := d.believe(&offer)
	if err != nil {
		return nil, err
	}
	key, err := d.key()
	if err != nil {
		return nil, err
	}
	request, err := makeRequest(&offer, key)
	if err != nil {
		return nil, err
	}
	var c wire.Certificate
	if err := d.exchange(request, &c); err != nil {
		return nil, err
	}
	born, err := check(&offer, &c, key, anchors)
	if err != nil {
		return nil, err
	}
	if err := d.store(offer.Anchors, anchors, born); err != nil {
		return nil, err
	}
	message := wire.ConfirmMessage(offer.World, offer.Serial, c.Challenge, birthcert.Hash(born.Chain[0].Raw))
	signature, err := sign(key, message)
	if err != nil {
		return nil, err
	}
	var confirmed wire.Confirmed
	if err := d.exchange(&wire.Confirm{Signature: signature}, &confirmed); err != nil {
		return nil, err
	}
	if confirmed.Serial != offer.Serial {
		return nil, ErrOffer
	}
	born.Anchors = offer.Anchors
	return born, d.element.Lock()
}

// believe takes the anchors of the offer if they are the expected ones, and returns
// those in force under its succession statement: a device that is born after a key gave
// way never believes that key at birth. The statement itself reaches it with its first update.
func (d *dialog) believe(o *wire.Offer) (*anchor.Anchors, error) {
	if len(d.config.Anchors) > 0 && string(d.config.Anchors) != string(o.Anchors) {
		return nil, fault.New(fault.Policy, "the station belongs to other anchors than this device")
	}
	if o.Firmware != "" && o.Firmware != d.config.Firmware {
		return nil, fault.Errorf(fault.Policy, "the bundle is for firmware %.16s…, the device has %.16q", o.Firmware, d.config.Firmware)
	}
	a, err := anchor.Parse(o.Anchors)
	if err != nil {
		return nil, err
	}
	if string(a.World) != o.World {
		return nil, ErrOffer
	}
	_, inForce, err := succession.Renew(a, nil, o.Succession)
	return inForce, err
}

// key is the key made in the element, now or before the last break.
func (d *dialog) key() (crypto.Signer, error) {
	k, err := d.element.CreateKey()
	if errors.Is(err, secureelement.ErrKeyExists) {
		return d.element.Key()
	}
	return k, err
}

func sign(key crypto.Signer, message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return key.Sign(rand.Reader, sum[:], crypto.SHA256)
}

func makeRequest(o *wire.Offer, key crypto.Signer) (*wire.Request, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA256}, key)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "make certificate request: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encode public key: %w", err)
	}
	proof, err := sign(key, wire.ProofMessage(o, birthcert.Hash(spki)))
	return &wire.Request{CSR: csr, Proof: proof}, err
}

// check verifies the certificate before it goes into the element, where it can
// be written once. The charter is at headquarters, so the grant is the one that
// the birth root signed into the factory CA.
func check(o *wire.Offer, c *wire.Certificate, key crypto.Signer, a *anchor.Anchors) (*Born, error) {
	root, err := a.Certificate("birth-root")
	if err != nil {
		return nil, err
	}
	ca, err := birthcert.Parse(c.CA)
	if err != nil {
		return nil, err
	}
	cert, err := birthcert.Parse(c.Certificate)
	if err != nil {
		return nil, err
	}
	t, err := birthcert.Read(ca, birthcert.FactoryCA, root)
	if err != nil {
		return nil, err
	}
	id, err := birthcert.VerifyDevice(cert, ca, root, t.Grant)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil || string(spki) != string(cert.RawSubjectPublicKeyInfo) || string(id.DeviceSerial) != o.Serial || id.Bundle != o.Bundle {
		return nil, fault.Errorf(fault.Verify, "%w: the certificate is for another key, serial or bundle", ErrOffer)
	}
	return &Born{Serial: id.DeviceSerial, Chain: []*x509.Certificate{cert, ca}}, nil
}

// store lays the element out and reads the certificate back.
func (d *dialog) store(file []byte, a *anchor.Anchors, born *Born) error {
	firmware, _, err := a.Key("firmware", "dsse")
	if err != nil {
		return err
	}
	hash := sha256.Sum256(file)
	err = d.element.Provision(secureelement.Birth{Anchors: hex.EncodeToString(hash[:]), FirmwareKey: firmware.Public, Vault: a.Vault, World: a.World})
	if err != nil {
		return err
	}
	if err := d.element.StoreCertificate(born.Chain[0].Raw, born.Chain[1].Raw); err != nil {
		return err
	}
	back, err := d.element.Certificate()
	if err != nil {
		return err
	}
	if len(back) != len(born.Chain) || !back[0].Equal(born.Chain[0]) || !back[1].Equal(born.Chain[1]) {
		return fault.New(fault.Token, "the element gives back another certificate than was stored")
	}
	return nil
}
