package pki

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// planRevoke revokes a certificate by its number, or by itself. The list that is asked
// for next bears it; the answer waits until a copy of the store from before is of no
// use.
func (e *Engine) planRevoke(r *engine.Request) (*engine.Plan, error) {
	if err := r.Params.Only("certificate", "serial_number"); err != nil {
		return nil, err
	}
	serial, err := readSerial(r.Params)
	if err != nil {
		return nil, err
	}
	return &engine.Plan{
		Needs: access.Update, Strict: true, Shown: map[string]any{"serial": serial},
		Apply: func(tx *seal.Tx) (*engine.Answer, error) {
			at, err := e.revoke(tx, serial, r.Now)
			if err != nil {
				return nil, err
			}
			e.forgetAnswer(serial)
			return &engine.Answer{
				Data:   map[string]any{"revocation_time": at.Unix(), "revocation_time_rfc3339": at.Format(time.RFC3339), "state": "revoked"},
				Result: map[string]any{"revoked": charter.FormatTime(at)},
			}, nil
		},
	}, nil
}

func readSerial(p engine.Params) (string, error) {
	s, err := p.String("serial_number")
	if err != nil {
		return "", err
	}
	text, err := p.String("certificate")
	if err != nil {
		return "", err
	}
	if (s == "") == (text == "") {
		return "", fault.New(fault.Usage, `one of "serial_number" and "certificate" is needed`)
	}
	if s != "" {
		return parseSerial(s)
	}
	b, rest := pem.Decode([]byte(text))
	if b == nil || b.Type != "CERTIFICATE" || len(strings.TrimSpace(string(rest))) > 0 {
		return "", fault.New(fault.Usage, `parameter "certificate" is not one PEM block CERTIFICATE`)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return "", fault.New(fault.Usage, `parameter "certificate" does not parse`)
	}
	var n birthcert.CertSerial
	if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > 8*len(n) {
		return "", fault.New(fault.Usage, "the certificate's number is none of this vault's")
	}
	return hex.EncodeToString(c.SerialNumber.FillBytes(n[:])), nil
}

// End implements engine.Ender: a certificate whose lease was revoked before its end is
// revoked. At its end nothing is to be done.
func (e *Engine) End(tx *seal.Tx, serial string, now time.Time) error {
	c, err := e.record(tx, serial)
	if err != nil {
		return err
	}
	end, err := charter.ParseTime(c.Expires)
	if err != nil || !now.Before(end) {
		return err
	}
	_, err = e.revoke(tx, serial, now)
	e.forgetAnswer(serial)
	return err
}
