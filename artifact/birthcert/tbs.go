package birthcert

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"net/netip"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"keyrite/artifact/fault"
)

// Object identifiers of RFC 5280 and RFC 5758 that we write.
var (
	oidECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}

	oidCommonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSerialNumber = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidOrganization = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidUnit         = asn1.ObjectIdentifier{2, 5, 4, 11}

	oidSKI         = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSAN         = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAKI         = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidEKU         = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidServerAuth  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}

	// hardwareModuleName, RFC 4108, Section 5.
	oidHardwareModule = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}
)

// TBS returns the DER TBSCertificate of t: the bytes that the issuer signs.
func (t *Template) TBS() ([]byte, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	p, err := ProfileOf(t.Profile)
	if err != nil {
		return nil, err
	}
	ski, err := KeyID(t.SPKI)
	if err != nil {
		return nil, err
	}
	subject, err := t.subject()
	if err != nil {
		return nil, err
	}
	issuer, aki := subject, ski
	if t.Issuer != nil {
		issuer, aki = t.Issuer.Subject, t.Issuer.KeyID
	}
	notAfter := t.NotAfter
	if p.Lifetime == 0 {
		notAfter = Forever()
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // v3
		b.AddASN1BigInt(new(big.Int).SetBytes(t.Serial[:]))
		addAlgorithm(b)
		b.AddBytes(issuer)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, t.NotBefore)
			addTime(b, notAfter)
		})
		b.AddBytes(subject)
		b.AddBytes(t.SPKI)
		b.AddASN1(cbasn1.Tag(3).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { t.addExtensions(b, p, ski, aki) })
		})
	})
	return encoded(&b)
}

// Assemble puts a signature under tbs and returns the DER certificate.
func Assemble(tbs, signature []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		addAlgorithm(b)
		b.AddASN1BitString(signature)
	})
	return encoded(&b)
}

func encoded(b *cryptobyte.Builder) ([]byte, error) {
	out, err := b.Bytes()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encode certificate: %w", err)
	}
	return out, nil
}

func addAlgorithm(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidECDSASHA256) })
}

// addTime writes UTCTime up to 2049 and GeneralizedTime after (RFC 5280,
// Section 4.1.2.5).
func addTime(b *cryptobyte.Builder, at time.Time) {
	at = at.UTC()
	if at.Year() < 2050 {
		b.AddASN1UTCTime(at)
		return
	}
	b.AddASN1GeneralizedTime(at)
}

// subject is the Name of the certificate's subject. O is the world.
func (t *Template) subject() ([]byte, error) {
	type attribute struct {
		oid   asn1.ObjectIdentifier
		value string
	}
	name := []attribute{{oidOrganization, string(t.World)}}
	switch t.Profile {
	case BirthRoot:
		name = append(name, attribute{oidCommonName, "keyrite birth root"})
	case RelayCA:
		name = append(name, attribute{oidCommonName, "keyrite relay CA"})
	case FactoryCA:
		name = append(name, attribute{oidUnit, t.Grant.Product}, attribute{oidCommonName, "keyrite factory " + t.Grant.Factory})
	case Relay:
		name = append(name, attribute{oidCommonName, "keyrite relay " + t.Role})
	case Device:
		product, _, err := t.DeviceSerial.Split()
		if err != nil {
			return nil, err
		}
		name = append(name, attribute{oidUnit, product}, attribute{oidSerialNumber, string(t.DeviceSerial)})
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, a := range name {
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(a.oid)
					b.AddASN1(cbasn1.PrintableString, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.value)) })
				})
			})
		}
	})
	return encoded(&b)
}

func addExtension(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool, value func(*cryptobyte.Builder)) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1(cbasn1.OCTET_STRING, value)
	})
}

func (t *Template) addExtensions(b *cryptobyte.Builder, p Profile, ski, aki []byte) {
	addExtension(b, oidKeyUsage, true, func(b *cryptobyte.Builder) { addKeyUsage(b, p.KeyUsage) })
	if p.CA {
		addExtension(b, oidConstraints, true, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Boolean(true)
				b.AddASN1Int64(int64(p.PathLen))
			})
		})
	}
	if p.ServerAuth {
		addExtension(b, oidEKU, false, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidServerAuth) })
		})
	}
	addExtension(b, oidSKI, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(ski) })
	addExtension(b, oidAKI, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(aki) })
		})
	})
	switch t.Profile {
	case FactoryCA:
		addExtension(b, OIDFactory(), false, t.addGrant)
	case Device:
		addExtension(b, oidSAN, false, t.addHardwareName)
		addExtension(b, OIDDevice(), false, t.addDevice)
	case Relay:
		addExtension(b, oidSAN, false, t.addRelayNames)
	}
}

// addKeyUsage writes the named-bit list without trailing zero bits (X.690,
// Section 11.2.2).
func addKeyUsage(b *cryptobyte.Builder, u x509.KeyUsage) {
	var bits byte
	unused := byte(8)
	for i := range 8 {
		if u&(1<<i) != 0 {
			bits |= 0x80 >> i
			unused = byte(7 - i)
		}
	}
	b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddBytes([]byte{unused, bits}) })
}

func addUTF8(b *cryptobyte.Builder, s string) {
	b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

// FactoryGrant ::= SEQUENCE { factory UTF8String, product UTF8String,
// serialFrom INTEGER, serialTo INTEGER }.
func (t *Template) addGrant(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addUTF8(b, t.Grant.Factory)
		addUTF8(b, t.Grant.Product)
		b.AddASN1Int64(t.Grant.SerialFrom)
		b.AddASN1Int64(t.Grant.SerialTo)
	})
}

// DeviceBirth ::= SEQUENCE { assurance UTF8String, bundle OCTET STRING (16) }.
func (t *Template) addDevice(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addUTF8(b, string(t.Assurance))
		id, err := hex.DecodeString(t.Bundle)
		if err != nil {
			b.SetError(err)
			return
		}
		b.AddASN1OctetString(id)
	})
}

// addHardwareName writes the SAN of IEEE 802.1AR: one otherName with the
// HardwareModuleName {hwType, hwSerialNum} of RFC 4108.
func (t *Template) addHardwareName(b *cryptobyte.Builder) {
	explicit0 := cbasn1.Tag(0).Constructed().ContextSpecific()
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit0, func(b *cryptobyte.Builder) { // GeneralName otherName, implicit
			b.AddASN1ObjectIdentifier(oidHardwareModule)
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(OIDHardware())
					b.AddASN1OctetString([]byte(t.DeviceSerial))
				})
			})
		})
	})
}

// addRelayNames writes the role, then DNS names, then addresses.
func (t *Template) addRelayNames(b *cryptobyte.Builder) {
	const tagDNS, tagURI, tagIP = 2, 6, 7 // GeneralName, RFC 5280, Section 4.2.1.6
	add := func(b *cryptobyte.Builder, tag uint8, value []byte) {
		b.AddASN1(cbasn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		add(b, tagURI, []byte(RoleURI(t.Role)))
		for _, n := range t.DNSNames {
			add(b, tagDNS, []byte(n))
		}
		for _, s := range t.IPs {
			a, err := netip.ParseAddr(s)
			if err != nil {
				b.SetError(err)
				return
			}
			add(b, tagIP, a.AsSlice())
		}
	})
}
