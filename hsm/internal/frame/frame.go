// Package frame is what the client in package hsm and the two halves of
// keyrite-hsmd say to each other: length-prefixed JSON on the data socket,
// one JSON packet each on the control socket, and PINs in a binary form that
// never passes through a Go string.
//
//	data socket (SOCK_STREAM), client <-> module process
//	  4 bytes  length of what follows, big-endian, 1 to MaxData
//	  n bytes  Request or Response: JSON, or the compact form in stream.go
//	control socket (SOCK_SEQPACKET), client <-> supervisor
//	  one packet, 1 to MaxControl bytes: Command or Answer, descriptors beside it
//	private pipe, supervisor -> module process
//	  4 bytes  length, big-endian, then Job as JSON
//	  PIN frames until the end: 1 byte role, 1 byte length, PIN
package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Limits, in bytes.
const (
	// MaxData bounds a frame of the data socket; the largest honest one is the
	// inventory of a full token.
	MaxData = 4 << 20
	// MaxControl bounds a packet of the control socket.
	MaxControl = 64 << 10
	// MaxMessage bounds what an Ed25519 or HMAC key may be asked to sign at once.
	MaxMessage = 1 << 20
	// MaxSealed bounds what a token encrypts: keys, not data.
	MaxSealed = 64 << 10
)

// MaxSessions bounds the PKCS#11 sessions of one module process.
const MaxSessions = 64

// Version stands in every greeting. The two ends are built from one tree and
// refuse any other.
const Version = 1

var errSize = errors.New("frame: empty or oversized")

// Write writes v as one frame.
func Write(w io.Writer, v any) error {
	b, err := Append(nil, v)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// Append appends v as one frame, so that several can leave in one write. After an error
// dst is as it was.
func Append(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, fmt.Errorf("frame: encode: %w", err)
	}
	if len(b) > MaxData {
		return dst, errSize
	}
	dst = binary.BigEndian.AppendUint32(grow(dst, headBytes+len(b)), uint32(len(b)))
	return append(dst, b...), nil
}

// Read reads one frame into v. io.EOF means that the other end closed between
// two frames.
func Read(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxData {
		return errSize
	}
	// Not allocated in one piece: the length is the word of the other end.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return Decode(b.Bytes(), v)
}

// Decode reads the JSON text of one frame or packet; unknown fields and
// trailing bytes are errors.
func Decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("frame: decode: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("frame: trailing bytes")
	}
	return nil
}
