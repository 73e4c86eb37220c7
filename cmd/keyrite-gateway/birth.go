package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/firmware"
	"keyrite/gateway/birth"
	"keyrite/gateway/secureelement"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

type birthOptions struct {
	element, station, pin, anchor, firmware, out string
}

func newBirth() *cobra.Command {
	var o birthOptions
	c := &cobra.Command{
		Use:   "birth --station ADDR --pin-cert FILE --out DIR",
		Short: "Be born: have the secure element's key certified in the factory",
		Long: `Have a key made in the secure element, let the factory's station certify it, store
the certificate in the element, and lock the element for ever. The station is the
one whose certificate is given with --pin-cert; with --anchor its anchors must be
these. DIR gets birthcert.pem (device, then factory CA) and anchors.json.

A birth that was cut off is taken up by running it again: same key, same serial,
same certificate. On a born element it writes the files once more and asks nobody.

Exit codes: 0 born; 2 unusable files; 12 no secure element; 13 refused: another
world, bundle expired, element known with another key; 14 what the station sent
does not verify; 16 the output exists; 17 the factory's quota is spent; 19 no
station; 20 another station.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runBirth(c, o) },
	}
	f := c.Flags()
	f.StringVar(&o.element, "element", "/dev/tpmrm0", "secure element: device file, or HOST:PORT")
	f.StringVar(&o.station, "station", "", "station's address, HOST:PORT (required)")
	f.StringVar(&o.pin, "pin-cert", "", "the station's certificate, PEM (required)")
	f.StringVar(&o.anchor, "anchor", "", "anchors file that the station must have")
	f.StringVar(&o.firmware, "firmware", "", "image in the device, for a bundle that names one")
	f.StringVar(&o.out, "out", "", "folder for birthcert.pem and anchors.json; it must exist (required)")
	for _, name := range []string{"station", "pin-cert", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type birthResult struct {
	Schema       string `json:"schema"`
	DeviceSerial string `json:"device_serial"`
	CertHash     string `json:"cert_hash"`
	SPKIHash     string `json:"spki_hash"`
	World        string `json:"world"`
	Out          string `json:"out"`
	Again        bool   `json:"again"`
}

// Files of a birth.
const (
	birthCertFile = "birthcert.pem"
	birthAnchors  = "anchors.json"
)

func runBirth(c *cobra.Command, o birthOptions) (err error) {
	conf, err := o.config(c)
	if err != nil {
		return err
	}
	for _, n := range []string{birthCertFile, birthAnchors} {
		if _, err := os.Lstat(filepath.Join(o.out, n)); err == nil {
			return &durable.Error{Op: "create", Path: filepath.Join(o.out, n), Err: os.ErrExist}
		}
	}
	e, err := secureelement.Open(o.element)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	again := false
	born, err := birth.Run(c.Context(), e, *conf)
	if errors.Is(err, secureelement.ErrLocked) {
		again = true
		born, err = before(e, conf)
	}
	if err != nil {
		return err
	}
	if err := o.write(born); err != nil {
		return err
	}
	leaf := born.Chain[0]
	r := birthResult{
		"keyrite/gateway-birth/v1", string(born.Serial), birthcert.Hash(leaf.Raw), birthcert.Hash(leaf.RawSubjectPublicKeyInfo),
		leaf.Subject.Organization[0], o.out, again,
	}
	return cli.Print(c, r, func(w io.Writer) {
		if again {
			fmt.Fprintf(w, "born before: %s (%s)\n", r.DeviceSerial, r.World)
		} else {
			fmt.Fprintf(w, "born: %s (%s); its key was made in the element and cannot leave it\n", r.DeviceSerial, r.World)
		}
		fmt.Fprintf(w, "  certificate %s\n  files       %s\n", r.CertHash, cli.Escape(o.out))
	})
}

// config reads what the station is held against.
func (o *birthOptions) config(c *cobra.Command) (*birth.Config, error) {
	pin, err := intake.Read(o.pin, 1<<16)
	if err != nil {
		return nil, err
	}
	certs, err := birthcert.ParsePEM(pin)
	if err != nil || len(certs) != 1 {
		return nil, cli.Usagef("--pin-cert %q is not one PEM certificate", o.pin)
	}
	conf := &birth.Config{Addr: o.station, Pin: certs[0]}
	if o.anchor != "" {
		if conf.Anchors, err = intake.Read(o.anchor, 1<<20); err != nil {
			return nil, err
		}
	}
	if o.firmware != "" {
		f, err := intake.Open(o.firmware)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if conf.Firmware, _, err = firmware.Measure(f.Reader(c.Context())); err != nil {
			return nil, err
		}
		if err := f.Unchanged(); err != nil {
			return nil, err
		}
	}
	return conf, nil
}

// before reads the result of an earlier birth from the locked element. Its
// anchors are known there only by their hash, so --anchor has to give them.
func before(e *secureelement.Element, conf *birth.Config) (*birth.Born, error) {
	b, err := e.Birth()
	if err != nil {
		return nil, err
	}
	if birthcert.Hash(conf.Anchors) != b.Anchors {
		return nil, &cli.Error{Class: "exists", Err: errors.New("this element was born before"), Hint: "to write its files once more give --anchor with the anchors it was born under"}
	}
	chain, err := e.Certificate()
	if err != nil {
		return nil, err
	}
	return &birth.Born{Serial: birthcert.DeviceSerial(chain[0].Subject.SerialNumber), Chain: chain, Anchors: conf.Anchors}, nil
}

func (o *birthOptions) write(b *birth.Born) error {
	if err := durable.WriteNew(filepath.Join(o.out, birthCertFile), pemChain(b.Chain), 0o644); err != nil {
		return err
	}
	return durable.WriteNew(filepath.Join(o.out, birthAnchors), b.Anchors, 0o644)
}

func pemChain(chain []*x509.Certificate) []byte {
	var out []byte
	for _, c := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
