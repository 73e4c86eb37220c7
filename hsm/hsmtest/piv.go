package hsmtest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// PIVPIN opens a virtual card; three wrong ones lock it.
const (
	PIVPIN   = "428193"
	pivTries = 3
)

// PIV key references (NIST SP 800-73-4, Part 1, Table 4b) and the CKA_ID that
// OpenSC gives them.
const (
	pivSign    = 0x9c // digital signature, wants the PIN before each use
	pivManage  = 0x9d // key management: key agreement
	PIVSignID  = "02"
	PIVAgreeID = "03"
)

// PIVCard is a virtual PIV card with two P-256 keys, spoken to by OpenSC through
// pcscd and the virtual reader of vpcd. It is what a smart card is to keyrite:
// only the applet is ours.
type PIVCard struct {
	Signing   *ecdsa.PublicKey
	Agreement *ecdh.PublicKey

	sign    *ecdsa.PrivateKey
	agree   *ecdh.PrivateKey
	objects map[string][]byte // by data object tag

	mu       sync.Mutex // guards the rest
	tries    int
	verified bool
	fresh    bool   // the PIN was given and no key used since
	rest     []byte // of a long answer
	Signed   int    // signatures made
	Wrong    int    // wrong PINs seen
}

// NewPIVCard makes a card with fresh keys, not yet in a reader.
func NewPIVCard(t testing.TB) *PIVCard {
	t.Helper()
	c := &PIVCard{tries: pivTries, objects: map[string][]byte{}}
	var err error
	if c.sign, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if c.agree, err = ecdh.P256().GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	c.Signing, c.Agreement = &c.sign.PublicKey, c.agree.PublicKey()
	agree, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), c.Agreement.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	c.objects["\x5f\xc1\x0a"] = c.certificate(t, c.Signing, x509.KeyUsageDigitalSignature)
	c.objects["\x5f\xc1\x0b"] = c.certificate(t, agree, x509.KeyUsageKeyAgreement)
	c.objects["\x5f\xc1\x02"] = chuid()
	c.objects["\x7e"] = tlv(0x7e, tlv(0x4f, pivAID()), tlvTag([]byte{0x5f, 0x2f}, []byte{0x40, 0}))
	return c
}

func pivAID() []byte { return []byte{0xa0, 0, 0, 3, 8, 0, 0, 0x10, 0, 1, 0} }

// chuid is the card holder's unique identifier; OpenSC makes the serial of it.
func chuid() []byte {
	guid := make([]byte, 16)
	rand.Read(guid)
	fascn := make([]byte, 25)
	rand.Read(fascn)
	return tlv(0x53, tlv(0x30, fascn), tlv(0x34, guid), tlv(0x35, []byte("20301231")), tlv(0x3e), tlv(0xfe))
}

func (c *PIVCard) certificate(t testing.TB, pub *ecdsa.PublicKey, use x509.KeyUsage) []byte {
	t.Helper()
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "virtual card"}, KeyUsage: use,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, pub, c.sign)
	if err != nil {
		t.Fatal(err)
	}
	return tlv(0x53, tlv(0x70, der), tlv(0x71, []byte{0}), tlv(0xfe))
}

// tlv is BER-TLV with a tag of one byte.
func tlv(tag byte, parts ...[]byte) []byte { return tlvTag([]byte{tag}, parts...) }

func tlvTag(tag []byte, parts ...[]byte) []byte {
	var body []byte
	for _, p := range parts {
		body = append(body, p...)
	}
	out := append([]byte{}, tag...)
	switch n := len(body); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 0x100:
		out = append(out, 0x81, byte(n))
	default:
		out = append(out, 0x82, byte(n>>8), byte(n))
	}
	return append(out, body...)
}

// untlv reads the members of a template one level down.
func untlv(b []byte) map[byte][]byte {
	out := map[byte][]byte{}
	for len(b) >= 2 {
		tag, n, head := b[0], int(b[1]), 2
		if n == 0x81 && len(b) > 2 {
			n, head = int(b[2]), 3
		}
		if len(b) < head+n {
			return out
		}
		out[tag], b = b[head:head+n], b[head+n:]
	}
	return out
}

// Insert puts the card into the virtual reader at addr; the returned function
// pulls it out.
func (c *PIVCard) Insert(addr string) (func(), error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	go c.serve(conn)
	return func() { _ = conn.Close() }, nil
}

// serve speaks vpcd's protocol: two bytes of length, then a control byte (0 off,
// 1 on, 2 reset, 4 answer to reset) or an APDU.
func (c *PIVCard) serve(conn net.Conn) {
	defer conn.Close()
	for {
		var n [2]byte
		if _, err := io.ReadFull(conn, n[:]); err != nil {
			return
		}
		msg := make([]byte, binary.BigEndian.Uint16(n[:]))
		if _, err := io.ReadFull(conn, msg); err != nil {
			return
		}
		var out []byte
		switch {
		case len(msg) == 1 && msg[0] == 4:
			out = []byte{0x3b, 0x80, 0x01, 0x81} // T=1, no historical bytes
		case len(msg) == 1:
			c.reset()
			continue
		default:
			out = c.apdu(msg)
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

func (c *PIVCard) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified, c.fresh, c.rest = false, false, nil
}

func status(sw uint16) []byte { return binary.BigEndian.AppendUint16(nil, sw) }

// apdu answers one command (NIST SP 800-73-4, Part 2).
func (c *PIVCard) apdu(cmd []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(cmd) < 4 {
		return status(0x6700)
	}
	var data []byte
	if len(cmd) > 5 && len(cmd) >= 5+int(cmd[4]) {
		data = cmd[5 : 5+int(cmd[4])]
	}
	switch cmd[1] {
	case 0xa4: // SELECT
		if len(data) < 9 || string(data[:5]) != string(pivAID()[:5]) {
			return status(0x6a82)
		}
		return c.give(tlv(0x61, tlv(0x4f, pivAID()[5:]), tlv(0x79, tlv(0x4f, pivAID()[:5]))))
	case 0xcb: // GET DATA
		o, ok := c.objects[string(untlv(data)[0x5c])]
		if !ok {
			return status(0x6a82)
		}
		return c.give(o)
	case 0xc0: // GET RESPONSE
		return c.give(c.rest)
	case 0x20:
		return c.verify(cmd[3], data)
	case 0x87:
		return c.authenticate(cmd[2], cmd[3], data)
	}
	return status(0x6d00)
}

// give answers in pieces of 256 bytes.
func (c *PIVCard) give(b []byte) []byte {
	if len(b) <= 256 {
		c.rest = nil
		return append(append([]byte{}, b...), 0x90, 0)
	}
	c.rest = b[256:]
	return append(append([]byte{}, b[:256]...), 0x61, byte(min(len(c.rest), 255)))
}

func (c *PIVCard) verify(ref byte, pin []byte) []byte {
	switch {
	case ref != 0x80:
		return status(0x6a88)
	case c.tries == 0:
		return status(0x6983)
	case len(pin) == 0 && c.verified:
		return status(0x9000)
	case len(pin) == 0:
		return status(0x63c0 | uint16(c.tries))
	case string(pin) != PIVPIN+"\xff\xff":
		c.tries--
		c.Wrong++
		c.verified, c.fresh = false, false
		return status(0x63c0 | uint16(c.tries))
	}
	c.tries, c.verified, c.fresh = pivTries, true, true
	return status(0x9000)
}

// authenticate is GENERAL AUTHENTICATE: sign a digest, or agree on a secret.
func (c *PIVCard) authenticate(alg, ref byte, data []byte) []byte {
	if alg != 0x11 { // ECC P-256
		return status(0x6a80)
	}
	if !c.verified || ref == pivSign && !c.fresh {
		return status(0x6982)
	}
	c.fresh = false
	in := untlv(untlv(data)[0x7c])
	switch {
	case ref == pivSign && len(in[0x81]) == sha256.Size:
		r, s, err := ecdsa.Sign(rand.Reader, c.sign, in[0x81])
		if err != nil {
			return status(0x6f00)
		}
		der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			return status(0x6f00)
		}
		c.Signed++
		return c.give(tlv(0x7c, tlv(0x82, der)))
	case ref == pivManage && in[0x85] != nil:
		peer, err := ecdh.P256().NewPublicKey(in[0x85])
		if err != nil {
			return status(0x6a80)
		}
		z, err := c.agree.ECDH(peer)
		if err != nil {
			return status(0x6f00)
		}
		return c.give(tlv(0x7c, tlv(0x82, z)))
	}
	return status(0x6a80)
}
