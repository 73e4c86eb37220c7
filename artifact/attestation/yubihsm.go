package attestation

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// The extensions of a YubiHSM 2, below this arc (Yubico, "YubiHSM OIDs"). Each is
// a DER value inside the extension's octets.
const (
	extFirmware     = 1  // OCTET STRING, three bytes
	extSerial       = 2  // INTEGER
	extOrigin       = 3  // BIT STRING, one byte
	extDomains      = 4  // BIT STRING, two bytes
	extCapabilities = 5  // BIT STRING, eight bytes
	extObjectID     = 6  // INTEGER
	extLabel        = 9  // UTF8String
	extFIPS         = 10 // INTEGER; in the device's own certificate
)

func yubicoArc() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 41482, 4} }

// Origin of a key: one byte of bits (libyubihsm, YH_ORIGIN_*).
const originGenerated = 0x01

// Capabilities of a key, as bits of a 64-bit number (libyubihsm, yh_capability).
const (
	capSignPKCS   = 1 << 5
	capSignPSS    = 1 << 6
	capSignECDSA  = 1 << 7
	capSignEdDSA  = 1 << 8
	capExportable = 1 << 16 // exportable-under-wrap
	capsSigning   = capSignPKCS | capSignPSS | capSignECDSA | capSignEdDSA
)

// modelYubiHSM is what the maker calls the device; its certificates do not say.
const modelYubiHSM = "YubiHSM 2"

// readYubiHSM reads the attestation certificate of a key, first in the chain, and
// that of the device, second.
func readYubiHSM(chain []*x509.Certificate) (*Attested, error) {
	if len(chain) < 2 {
		return nil, bad(ErrEvidence, "a YubiHSM 2 has a certificate of its own below its maker's")
	}
	key, err := yubicoValues(chain[0], extFirmware, extSerial, extOrigin, extDomains, extCapabilities, extObjectID, extLabel)
	if err != nil {
		return nil, err
	}
	device, err := yubicoValues(chain[1], extFirmware, extSerial)
	if err != nil {
		return nil, err
	}
	if key.serial != device.serial || key.serial <= 0 {
		return nil, bad(ErrEvidence, "the key's certificate is of device %d, the device's of %d", key.serial, device.serial)
	}
	if want := fmt.Sprintf("YubiHSM Attestation id:0x%04x", key.object); chain[0].Subject.String() != "CN="+want {
		return nil, bad(ErrEvidence, "subject %.80q is not %q", chain[0].Subject.String(), want)
	}
	if key.origin != originGenerated {
		return nil, bad(ErrOrigin, "origin %#02x", key.origin)
	}
	if key.caps&capExportable != 0 {
		return nil, bad(ErrExportable, "it has the capability exportable-under-wrap")
	}
	a := &Attested{
		Model: modelYubiHSM, Device: strconv.FormatInt(key.serial, 10), Firmware: key.firmware,
		Public: spki(chain[0]), Label: key.label,
	}
	if key.caps&^uint64(capsSigning) != 0 {
		a.Uses = append(a.Uses, Other)
	}
	if key.caps&capsSigning != 0 {
		a.Uses = append(a.Uses, Signs)
	}
	return a, nil
}

// yubico is what the extensions say.
type yubico struct {
	firmware string
	serial   int64
	origin   byte
	caps     uint64
	object   int64
	label    string
}

// yubicoValues reads the extensions of a certificate, each of which is there once.
// must are those without which it is not one; the key's certificate has no others,
// and a device's has what X.509 needs of a CA beside them.
func yubicoValues(c *x509.Certificate, must ...int) (*yubico, error) {
	var out yubico
	seen := map[int]bool{}
	arc := yubicoArc()
	for _, x := range c.Extensions {
		if len(x.Id) != len(arc)+1 || !x.Id[:len(arc)].Equal(arc) {
			if c.IsCA {
				continue
			}
			return nil, bad(ErrEvidence, "extension %s is none of a YubiHSM 2", x.Id)
		}
		n := x.Id[len(arc)]
		if seen[n] || x.Critical {
			return nil, bad(ErrEvidence, "extension %s twice, or critical", x.Id)
		}
		seen[n] = true
		if err := out.take(n, &x); err != nil {
			return nil, err
		}
	}
	for _, n := range must {
		if !seen[n] {
			return nil, bad(ErrEvidence, "extension %s.%d is missing", arc, n)
		}
	}
	return &out, nil
}

func (y *yubico) take(n int, x *pkix.Extension) error {
	var err error
	switch n {
	case extFirmware:
		var b []byte
		if err = der(x, &b); err == nil && len(b) == 3 {
			y.firmware = fmt.Sprintf("%d.%d.%d", b[0], b[1], b[2])
			return nil
		}
	case extSerial:
		if err = der(x, &y.serial); err == nil {
			return nil
		}
	case extOrigin:
		var b []byte
		if b, err = bits(x, 1); err == nil {
			y.origin = b[0]
			return nil
		}
	case extDomains:
		if _, err = bits(x, 2); err == nil {
			return nil
		}
	case extCapabilities:
		var b []byte
		if b, err = bits(x, 8); err == nil {
			y.caps = binary.BigEndian.Uint64(b)
			return nil
		}
	case extObjectID:
		if err = der(x, &y.object); err == nil && y.object >= 0 && y.object <= 0xffff {
			return nil
		}
	case extLabel:
		var raw asn1.RawValue
		if err = der(x, &raw); err == nil && raw.Class == asn1.ClassUniversal && raw.Tag == asn1.TagUTF8String && len(raw.Bytes) <= 40 && utf8.Valid(raw.Bytes) {
			y.label = string(raw.Bytes)
			return nil
		}
	case extFIPS:
		var level int
		if err = der(x, &level); err == nil {
			return nil
		}
	}
	return bad(ErrEvidence, "extension %s is not as a YubiHSM 2 writes it", x.Id)
}

// der reads one value and refuses anything behind it.
func der(x *pkix.Extension, v any) error {
	rest, err := asn1.Unmarshal(x.Value, v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes behind the value", len(rest))
	}
	return err
}

func bits(x *pkix.Extension, size int) ([]byte, error) {
	var b asn1.BitString
	if err := der(x, &b); err != nil {
		return nil, err
	}
	if len(b.Bytes) != size || b.BitLength != 8*size {
		return nil, fmt.Errorf("%d bits", b.BitLength)
	}
	return b.Bytes, nil
}
