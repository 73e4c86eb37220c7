// Package factory is the birth dialogue between a device and the station that
// brings it to life.
//
// One TLS 1.3 connection is one attempt. The device pins the station's
// certificate; the station takes whoever is on the line, since a device has no
// identity yet, and counts. Each message is a frame: 1 byte type, 4 bytes length
// (big-endian), a JSON object in its one form.
//
//	device                          station
//	Hello      element        →
//	                          ←     Offer        serial, nonce, anchors
//	Request    CSR, proof     →
//	                          ←     Certificate  certificate, CA, challenge
//	Confirm    signature      →
//	                          ←     Confirmed
//
// In place of any answer the station may send Refused and close. After a broken
// connection the device starts again with Hello and gets the same serial and the
// same certificate. It must never carry a private key, and neither end may send
// on before it has checked what it got.
//
// Limits: frames of 64 KiB, 30 s for each message, 5 minutes in all.
//
// Compatibility: docs/formats/factory.md; ALPN names the version.
package factory

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"time"

	"keyrite/wire/strict"
)

// ALPN is the protocol and its version.
const ALPN = "keyrite-factory/1"

// Limits of the dialogue.
const (
	MaxFrameBytes  = 512 << 10 // the anchors file and a succession statement, in base64, are the largest content
	MessageTimeout = 30 * time.Second
	DialogTimeout  = 5 * time.Minute
	NonceBytes     = 32
)

// Type is the first byte of a frame.
type Type byte

// The frame types.
const (
	TypeHello       Type = 1
	TypeOffer       Type = 2
	TypeRequest     Type = 3
	TypeCertificate Type = 4
	TypeConfirm     Type = 5
	TypeConfirmed   Type = 6
	TypeRefused     Type = 7
)

// Message is one of the messages below.
type Message interface {
	frameType() Type
	check() error
}

// Hello opens the dialogue: what the device says about its element.
type Hello struct {
	ChipID   string `json:"chip_id"`  // 16 to 64 hex digits, the same for the life of the element
	Firmware string `json:"firmware"` // of the element
	Kind     string `json:"kind"`     // for example "tpm2"
	Maker    string `json:"maker"`
}

// Offer names the device.
type Offer struct {
	Anchors  []byte `json:"anchors"`  // the anchors file
	Bundle   string `json:"bundle"`   // id of the provisioning bundle
	Firmware string `json:"firmware"` // hex SHA-256 of the image to load, or empty
	Nonce    []byte `json:"nonce"`    // 32 random bytes
	Serial   string `json:"serial"`   // device serial
	// Succession is the statement under which the anchors are in force, if a key of
	// theirs was replaced.
	Succession []byte `json:"succession,omitempty"`
	World      string `json:"world"`
}

// Request asks for the certificate of the key made in the element.
type Request struct {
	CSR   []byte `json:"csr"`   // PKCS#10, DER; only its key is taken
	Proof []byte `json:"proof"` // ECDSA signature (DER) over SHA-256 of ProofMessage
}

// Certificate hands it out.
type Certificate struct {
	CA          []byte `json:"ca"`          // DER, the factory CA
	Certificate []byte `json:"certificate"` // DER
	Challenge   []byte `json:"challenge"`   // 32 random bytes
}

// Confirm shows that certificate and key are in the element.
type Confirm struct {
	Signature []byte `json:"signature"` // ECDSA signature (DER) over SHA-256 of ConfirmMessage
}

// Confirmed ends the dialogue: the station has it on disk.
type Confirmed struct {
	Serial string `json:"serial"`
}

// Refused ends the dialogue with the class word of the exit table.
type Refused struct {
	Class   string `json:"class"`
	Message string `json:"message"` // one sentence, printable ASCII
}

// Error lets a refusal be returned as it came.
func (m *Refused) Error() string { return "the station refuses: " + m.Message }

// FaultClass is the class for the exit table.
func (m *Refused) FaultClass() string { return m.Class }

// ProtocolError says that the other end does not keep to the protocol.
type ProtocolError struct{ Text string }

func (e *ProtocolError) Error() string { return "birth dialogue: " + e.Text }

// FaultClass is the class for the exit table.
func (e *ProtocolError) FaultClass() string { return "verify" }

func protocol(format string, args ...any) error {
	return &ProtocolError{fmt.Sprintf(format, args...)}
}

var (
	chipRE   = regexp.MustCompile(`^[0-9a-f]{16,64}$`)
	textRE   = regexp.MustCompile(`^[ -~]{0,120}$`)
	idRE     = regexp.MustCompile(`^[0-9a-f]{32}$`)
	digestRE = regexp.MustCompile(`^([0-9a-f]{64})?$`)
	serialRE = regexp.MustCompile(`^[a-z][a-z0-9-]{9,63}$`)
	worldRE  = regexp.MustCompile(`^(live|rehearsal:[a-z0-9]{8,32})$`)
	classRE  = regexp.MustCompile(`^[a-z]{1,20}$`)
	refuseRE = regexp.MustCompile(`^[ -~]{1,300}$`)
)

func (*Hello) frameType() Type       { return TypeHello }
func (*Offer) frameType() Type       { return TypeOffer }
func (*Request) frameType() Type     { return TypeRequest }
func (*Certificate) frameType() Type { return TypeCertificate }
func (*Confirm) frameType() Type     { return TypeConfirm }
func (*Confirmed) frameType() Type   { return TypeConfirmed }
func (*Refused) frameType() Type     { return TypeRefused }

func (m *Hello) check() error {
	if !chipRE.MatchString(m.ChipID) || m.Kind == "" || !textRE.MatchString(m.Kind) || !textRE.MatchString(m.Maker) || !textRE.MatchString(m.Firmware) {
		return protocol("hello with an unusable element")
	}
	return nil
}

func (m *Offer) check() error {
	if len(m.Anchors) == 0 || !idRE.MatchString(m.Bundle) || !digestRE.MatchString(m.Firmware) || len(m.Nonce) != NonceBytes || !serialRE.MatchString(m.Serial) || !worldRE.MatchString(m.World) {
		return protocol("unusable offer")
	}
	return nil
}

// maxDER bounds a CSR, a certificate or a signature.
const maxDER = 8 << 10

func der(fields ...[]byte) error {
	for _, f := range fields {
		if len(f) == 0 || len(f) > maxDER {
			return protocol("a DER field is empty or longer than %d bytes", maxDER)
		}
	}
	return nil
}

func (m *Request) check() error { return der(m.CSR, m.Proof) }

func (m *Certificate) check() error {
	if len(m.Challenge) != NonceBytes {
		return protocol("challenge is not %d bytes", NonceBytes)
	}
	return der(m.CA, m.Certificate)
}

func (m *Confirm) check() error { return der(m.Signature) }

func (m *Confirmed) check() error {
	if !serialRE.MatchString(m.Serial) {
		return protocol("unusable serial")
	}
	return nil
}

func (m *Refused) check() error {
	if !classRE.MatchString(m.Class) || !refuseRE.MatchString(m.Message) {
		return protocol("unusable refusal")
	}
	return nil
}

// Write sends one message.
func Write(w io.Writer, m Message) error {
	frame, err := Append(nil, m)
	if err != nil {
		return err
	}
	_, err = w.Write(frame)
	return err
}

// Append appends the frame of one message to b.
func Append(b []byte, m Message) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	body, err := strict.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxFrameBytes {
		return nil, protocol("message of %d bytes is larger than %d", len(body), MaxFrameBytes)
	}
	b = append(b, byte(m.frameType()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...), nil
}

// Read reads one message, which must be of type want or a refusal; a refusal is
// returned as the error.
func Read(r io.Reader, want Message) error {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	into := want
	refused := &Refused{}
	switch t := Type(head[0]); t {
	case want.frameType():
	case TypeRefused:
		into = refused
	default:
		return protocol("message of type %d where %d is due", t, want.frameType())
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > MaxFrameBytes {
		return protocol("message of %d bytes is larger than %d", n, MaxFrameBytes)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	if err := strict.Unmarshal(body, into); err != nil {
		return protocol("%v", err)
	}
	if err := into.check(); err != nil {
		return err
	}
	if into == Message(refused) {
		return refused
	}
	return nil
}

// ProofMessage is what a device signs to show that it holds the key of its CSR
// now: the CSR alone could be an old one.
func ProofMessage(o *Offer, spkiHash string) []byte {
	return fmt.Appendf(nil, "keyrite birth proof v1\n%s\n%s\n%s\n%s\n", o.World, o.Serial, hex.EncodeToString(o.Nonce), spkiHash)
}

// ConfirmMessage is what a device signs with its new key once the certificate
// is stored and was read back.
func ConfirmMessage(world, serial string, challenge []byte, certHash string) []byte {
	return fmt.Appendf(nil, "keyrite birth confirm v1\n%s\n%s\n%s\n%s\n", world, serial, hex.EncodeToString(challenge), certHash)
}

// Refusal makes the message for an error: its class and, where it is fit for
// the wire, its text.
func Refusal(class, text string) *Refused {
	r := &Refused{Class: class, Message: text}
	if !classRE.MatchString(class) {
		r.Class = "unexpected"
	}
	if !refuseRE.MatchString(text) {
		r.Message = "refused"
	}
	return r
}
