// Package tunnel is flow mode: how one TCP flow crosses the relay. It owns the
// upgrade of a leg, the multiplexer on it, the first messages of a flow and the
// end-to-end TLS inside it (docs/formats/tunnel.md).
//
// The user end calls Dial, then OpenFlow; the VPN server calls Accept, reads
// and forwards the open message and copies bytes with Splice; the gateway calls
// Dial, accepts streams, ReadOpen, and GatewayEnd. It decides nothing: who may
// reach what is the caller's question, asked at the places where a function
// here takes a check as an argument. It must never let bytes of the user
// through before the binding of both ends has been compared.
//
// Compatibility: version 1 is spoken for ever; a new one has another upgrade
// token.
package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"time"

	"keyrite/wire/strict"
)

// Names on the wire.
const (
	Path         = "/v1/flow"
	Token        = "keyrite-flow"   // HTTP Upgrade token
	Scheme       = "Keyrite-Ticket" // of the Authorization header
	ALPN         = "http/1.1"       // of a leg
	InnerALPN    = "keyrite-flow/1" // of the end-to-end TLS
	FormatOpen   = "keyrite/flow/v1"
	FormatAnswer = "keyrite/flow-answer/v1"
)

// Limits; docs/formats/tunnel.md says why.
const (
	MaxMessageBytes  = 4096
	MaxFlows         = 64               // open flows of one session
	WindowBytes      = 1 << 20          // receive window of one stream
	MaxStreams       = MaxFlows + 32    // streams of one session that its acceptor bears, ending ones included
	EndTimeout       = 10 * time.Second // a closed stream whose other side does not close it
	MaxHeaderBytes   = 16 << 10
	UpgradeTimeout   = 10 * time.Second
	AnswerTimeout    = 10 * time.Second // open message and each answer
	HandshakeTimeout = 10 * time.Second // inner TLS with its binding
	DialTimeout      = 5 * time.Second  // gateway to equipment; below AnswerTimeout
	KeepAlive        = 25 * time.Second // below the 60 s after which many NATs forget
	maxText          = 200              // characters of an answer's message
	maxVersion       = 1<<53 - 1        // RFC 8785 numbers
)

// Classes of refusal, words of the exit table.
const (
	ClassPolicy      = "policy"
	ClassPeer        = "peer"
	ClassUnreachable = "unreachable"
	ClassQuota       = "quota"
	ClassVerify      = "verify"
	ClassUnexpected  = "unexpected"
)

// Error is a refusal or failure with its class.
type Error struct {
	Class string
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// FaultClass is the class for the exit table.
func (e *Error) FaultClass() string { return e.Class }

func errorf(class, format string, args ...any) error {
	return &Error{class, fmt.Errorf(format, args...)}
}

// Causes a caller may ask for with errors.Is.
var (
	ErrMessage = errors.New("message is not valid")
	ErrBinding = errors.New("the other end opened another flow: somebody changed or crossed it on the way")
	ErrKey     = errors.New("the key at the other end is not the one listed")
)

// Open is the first message of a flow.
type Open struct {
	Addr          string `json:"addr"`
	Flow          string `json:"flow"`
	Format        string `json:"format"`
	Gateway       string `json:"gateway"`
	PolicyVersion int64  `json:"policy_version"`
	Port          int    `json:"port"`
	Proto         string `json:"proto"`
	User          string `json:"user"`
	World         string `json:"world"`
}

// Answer accepts or refuses a flow.
type Answer struct {
	Class   string `json:"class"`
	Format  string `json:"format"`
	Message string `json:"message"`
	OK      bool   `json:"ok"`
}

var (
	flowRE    = regexp.MustCompile(`^[0-9a-f]{32}$`)
	gatewayRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	userRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	worldRE   = regexp.MustCompile(`^(live|rehearsal:[a-z0-9]{8,32})$`)
	classRE   = regexp.MustCompile(`^[a-z]{1,20}$`)
	textRE    = regexp.MustCompile(`^[ -~]{1,200}$`)
)

// Check validates every member.
func (o *Open) Check() error {
	switch {
	case o.Format != FormatOpen, !flowRE.MatchString(o.Flow), !worldRE.MatchString(o.World), o.Proto != "tcp":
		return errorf(ClassVerify, "open flow: %w: format, flow, world or protocol", ErrMessage)
	case !gatewayRE.MatchString(o.Gateway), !userRE.MatchString(o.User):
		return errorf(ClassVerify, "open flow: %w: user or gateway", ErrMessage)
	case o.Port < 1 || o.Port > 65535, o.PolicyVersion < 1 || o.PolicyVersion > maxVersion:
		return errorf(ClassVerify, "open flow: %w: port or policy version", ErrMessage)
	}
	return CheckAddr(o.Addr)
}

// CheckAddr accepts the address of equipment on a LAN side in its shortest
// form. Addresses that mean the gateway itself, one link or many hosts are
// refused, so that no flow reaches what listens on the gateway's loopback.
func CheckAddr(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil || a.String() != s || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return errorf(ClassVerify, "open flow: %w: address", ErrMessage)
	}
	return nil
}

// AddrPort is the destination of a checked message.
func (o *Open) AddrPort() netip.AddrPort {
	a, err := netip.ParseAddr(o.Addr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, uint16(o.Port)) // Check bounds the port to 65535
}

// Marshal returns the message, checked.
func (o *Open) Marshal() ([]byte, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	return strict.Marshal(o)
}

// ParseOpen reads an open message.
func ParseOpen(b []byte) (*Open, error) {
	var o Open
	if err := parse(b, &o); err != nil {
		return nil, err
	}
	return &o, o.Check()
}

// Refuse makes the answer for err: its class if it has one, and only the text
// that the class stands for unless text is given. Details stay in the log of
// whoever refuses.
func Refuse(class, text string) *Answer {
	clean := make([]byte, 0, len(text))
	for _, r := range text {
		if len(clean) == maxText {
			break
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		clean = append(clean, byte(r))
	}
	if len(clean) == 0 {
		clean = []byte("refused")
	}
	if !classRE.MatchString(class) {
		class = ClassUnexpected
	}
	return &Answer{Class: class, Format: FormatAnswer, Message: string(clean)}
}

// Accepted is the answer that lets a flow go on.
func Accepted() *Answer { return &Answer{Format: FormatAnswer, OK: true} }

// Check validates every member.
func (a *Answer) Check() error {
	good := a.OK && a.Class == "" && a.Message == "" || !a.OK && classRE.MatchString(a.Class) && textRE.MatchString(a.Message)
	if a.Format != FormatAnswer || !good {
		return errorf(ClassVerify, "answer: %w", ErrMessage)
	}
	return nil
}

// Err is nil for an accepting answer and else the refusal with its class.
func (a *Answer) Err() error {
	if a.OK {
		return nil
	}
	return &Error{a.Class, errors.New(a.Message)}
}

// ParseAnswer reads an answer.
func ParseAnswer(b []byte) (*Answer, error) {
	var a Answer
	if err := parse(b, &a); err != nil {
		return nil, err
	}
	return &a, a.Check()
}

func parse(b []byte, v any) error {
	if len(b) > MaxMessageBytes {
		return errorf(ClassVerify, "%w: %d bytes, more than %d", ErrMessage, len(b), MaxMessageBytes)
	}
	if err := strict.Unmarshal(b, v); err != nil {
		return errorf(ClassVerify, "%w: %w", ErrMessage, err)
	}
	return nil
}

// WriteMessage writes one framed message in one write.
func WriteMessage(w io.Writer, b []byte) error {
	if len(b) == 0 || len(b) > MaxMessageBytes {
		return errorf(ClassVerify, "%w: %d bytes", ErrMessage, len(b))
	}
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))) // bounded above
	if _, err := w.Write(append(frame, b...)); err != nil {
		return errorf(ClassUnreachable, "write message: %w", err)
	}
	return nil
}

// ReadMessage reads one framed message and not a byte more.
func ReadMessage(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, errorf(ClassUnreachable, "read message: %w", err)
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n == 0 || n > MaxMessageBytes {
		return nil, errorf(ClassVerify, "%w: %d bytes", ErrMessage, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, errorf(ClassUnreachable, "read message: %w", err)
	}
	return b, nil
}

// WriteAnswer writes a framed answer.
func WriteAnswer(w io.Writer, a *Answer) error {
	b, err := strict.Marshal(a)
	if err != nil {
		return errorf(ClassUnexpected, "answer: %w", err)
	}
	return WriteMessage(w, b)
}

// ReadAnswer reads a framed answer.
func ReadAnswer(r io.Reader) (*Answer, error) {
	b, err := ReadMessage(r)
	if err != nil {
		return nil, err
	}
	return ParseAnswer(b)
}
