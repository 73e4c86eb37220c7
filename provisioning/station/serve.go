package station

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/report"
	"keyrite/provisioning/birthca"
	wire "keyrite/wire/factory"
)

// MaxDialogs is how many devices may be on the line at once.
const MaxDialogs = 32

// Serve takes devices until ctx ends, then lets the running dialogues finish.
func (s *Station) Serve(ctx context.Context, l net.Listener, cert tls.Certificate, log *slog.Logger) error {
	if s.anchors == nil {
		return fault.Hint(ErrNoBundle, "import one first: keyrite-station import")
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{wire.ALPN}, SessionTicketsDisabled: true}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, MaxDialogs)
	for {
		raw, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return fault.Errorf(fault.Unexpected, "accept devices: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = raw.Close() // the line is full; the device tries again
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			s.handle(context.WithoutCancel(ctx), tls.Server(raw, conf), log)
		})
	}
}

// handle runs one dialogue and logs how it ended.
func (s *Station) handle(ctx context.Context, conn *tls.Conn, log *slog.Logger) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, wire.DialogTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	d := &dialog{station: s, conn: conn}
	err := d.run(ctx)
	from := slog.String("peer", conn.RemoteAddr().String())
	if err == nil {
		log.LogAttrs(ctx, slog.LevelInfo, "device born", from, slog.String("device_serial", string(d.serial)))
		return
	}
	log.LogAttrs(ctx, slog.LevelWarn, "device not born", from, slog.String("device_serial", string(d.serial)),
		slog.String("class", string(fault.ClassOf(err))), slog.String("error", err.Error()))
	d.refuse(err)
}

type dialog struct {
	station *Station
	conn    net.Conn
	serial  birthcert.DeviceSerial
}

func (d *dialog) read(m wire.Message) error {
	if err := d.conn.SetDeadline(time.Now().Add(wire.MessageTimeout)); err != nil {
		return fault.Errorf(fault.Unreachable, "device: %w", err)
	}
	err := wire.Read(d.conn, m)
	if ne := net.Error(nil); errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.Errorf(fault.Unreachable, "device: %w", err)
	}
	return err
}

func (d *dialog) write(m wire.Message) error {
	if err := wire.Write(d.conn, m); err != nil {
		return fault.Errorf(fault.Unreachable, "device: %w", err)
	}
	return nil
}

// refuse tells the device why, unless it is the line that failed. What is wrong
// with the station itself is nobody's business but the operator's.
func (d *dialog) refuse(err error) {
	class := fault.ClassOf(err)
	switch class {
	case fault.Unreachable:
		return
	case fault.Quota, fault.Policy, fault.Verify, fault.Usage:
		_ = d.write(wire.Refusal(string(class), err.Error()))
	default:
		_ = d.write(wire.Refusal(string(class), "the station cannot go on; its operator sees why"))
	}
}

func nonce() []byte {
	b := make([]byte, wire.NonceBytes)
	rand.Read(b)
	return b
}

func (d *dialog) run(ctx context.Context) error {
	var hello wire.Hello
	if err := d.read(&hello); err != nil {
		return err
	}
	u, err := d.station.Reserve(report.Element{ChipID: hello.ChipID, Kind: hello.Kind, Maker: hello.Maker, Firmware: hello.Firmware})
	if err != nil {
		return err
	}
	d.serial = u.DeviceSerial
	offer, ca, err := d.station.offer(u)
	if err != nil {
		return err
	}
	if err := d.write(offer); err != nil {
		return err
	}
	spki, err := d.request(offer)
	if err != nil {
		return err
	}
	if u, err = d.station.Certify(ctx, u.DeviceSerial, spki); err != nil {
		return err
	}
	c := &wire.Certificate{CA: ca, Certificate: u.Certificate, Challenge: nonce()}
	if err := d.write(c); err != nil {
		return err
	}
	var confirm wire.Confirm
	if err := d.read(&confirm); err != nil {
		return err
	}
	if err := holds(spki, wire.ConfirmMessage(offer.World, offer.Serial, c.Challenge, u.CertHash), confirm.Signature); err != nil {
		return err
	}
	if err := d.station.Confirm(u.DeviceSerial); err != nil {
		return err
	}
	return d.write(&wire.Confirmed{Serial: offer.Serial})
}

// request reads the CSR and the proof that the device holds its key now.
func (d *dialog) request(o *wire.Offer) ([]byte, error) {
	var r wire.Request
	if err := d.read(&r); err != nil {
		return nil, err
	}
	spki, err := birthca.CheckRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	return spki, holds(spki, wire.ProofMessage(o, birthcert.Hash(spki)), r.Proof)
}

// holds checks a device's signature with the key spki.
func holds(spki, message, signature []byte) error {
	pub, err := birthcert.ParseSPKI(spki)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(message)
	if !ecdsa.VerifyASN1(pub, sum[:], signature) {
		return fault.New(fault.Verify, "the device does not show that it holds its key")
	}
	return nil
}

// offer is what a reserved unit is told, with the CA of its bundle.
func (s *Station) offer(u *Unit) (*wire.Offer, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.bundleOf(u)
	if err != nil {
		return nil, nil, err
	}
	return &wire.Offer{
		Anchors: s.trust.Anchors, Bundle: b.BundleID, Firmware: b.Firmware, Nonce: nonce(), Serial: string(u.DeviceSerial), Succession: s.trust.Succession, World: string(b.World),
	}, b.CAChain[0], nil
}
