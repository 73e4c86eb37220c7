package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"keyrite/hsm/keyspec"
)

// What is asked for and answered thousands of times a second, or is secret, has a
// compact form beside JSON, which always begins with an opening brace. Each message
// has one form only, so that what is read is written as the same bytes. The compact
// form leaves no copy behind: the encoder of JSON keeps buffers that nobody can wipe.
//
//	use of a key, client -> module process
//	  1 byte   0x01 sign, 0x03 MAC, 0x04 encrypt, 0x05 decrypt
//	  8 bytes  id, big-endian
//	 16 bytes  key id
//	  4 bytes  length of the associated data, big-endian; 0x04 and 0x05 only
//	  n bytes  associated data, 0 to MaxMessage; 0x04 and 0x05 only
//	  n bytes  input, 1 to MaxMessage
//	answer that is nothing but bytes, module process -> client
//	  1 byte   0x02
//	  8 bytes  id, big-endian
//	  n bytes  data, 1 to MaxMessage
const (
	compactSign    = 0x01
	compactData    = 0x02
	compactMAC     = 0x03
	compactEncrypt = 0x04
	compactDecrypt = 0x05

	headBytes = 4
	idBytes   = 8
	keyBytes  = len(keyspec.KeyID{})
	aadBytes  = 4
)

var (
	errForm    = errors.New("frame: not the one form of this message")
	errCompact = errors.New("frame: compact message of a wrong length or kind")
)

// compact gives the first byte of a request that has a compact form.
func (q *Request) compact() (byte, bool) {
	if q.Key == nil || q.Body != nil || len(q.Input) == 0 || len(q.Input) > MaxMessage || len(q.AAD) > MaxMessage {
		return 0, false
	}
	switch q.Op {
	case OpSign:
		return compactSign, len(q.AAD) == 0
	case OpMAC:
		return compactMAC, len(q.AAD) == 0
	case OpEncrypt:
		return compactEncrypt, true
	case OpDecrypt:
		return compactDecrypt, true
	}
	return 0, false
}

// bound says that the input of a compact request has associated data before it.
func bound(kind byte) bool { return kind == compactEncrypt || kind == compactDecrypt }

func (a *Response) compact() bool {
	return a.Fault == nil && a.Body == nil && len(a.Data) > 0 && len(a.Data) <= MaxMessage
}

// AppendRequest appends a request in its one form. Where dst is too small it is wiped
// and another one returned; after an error it is as it was.
func AppendRequest(dst []byte, q *Request) ([]byte, error) {
	kind, ok := q.compact()
	if !ok {
		return Append(dst, q)
	}
	n := 1 + idBytes + keyBytes + len(q.Input)
	if bound(kind) {
		n += aadBytes + len(q.AAD)
	}
	dst = grow(dst, headBytes+n)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	dst = append(dst, kind)
	dst = binary.BigEndian.AppendUint64(dst, q.ID)
	dst = append(dst, q.Key[:]...)
	if bound(kind) {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(q.AAD)))
		dst = append(dst, q.AAD...)
	}
	return append(dst, q.Input...), nil
}

// AppendResponse appends a response in its one form, as AppendRequest does.
func AppendResponse(dst []byte, a *Response) ([]byte, error) {
	if !a.compact() {
		return Append(dst, a)
	}
	n := 1 + idBytes + len(a.Data)
	dst = grow(dst, headBytes+n)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	dst = append(dst, compactData)
	dst = binary.BigEndian.AppendUint64(dst, a.ID)
	return append(dst, a.Data...), nil
}

// grow makes room for n more bytes. Where that takes another array, the old one, which
// may hold secrets, is wiped.
func grow(dst []byte, n int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	out := append(make([]byte, 0, max(2*cap(dst), len(dst)+n)), dst...)
	clear(dst)
	return out
}

// Stream reads the frames of a data socket. It is for one goroutine. A frame is wiped
// when the next one is asked for.
type Stream struct {
	r        io.Reader
	buf      []byte
	from, to int    // what was read and is not wiped yet
	used     int    // bytes of the last frame, at from
	big      []byte // the last frame, if buf is too small for it
}

// streamBytes is the buffer of a Stream: some hundred signatures.
const streamBytes = 64 << 10

// NewStream reads from r.
func NewStream(r io.Reader) *Stream { return &Stream{r: r, buf: make([]byte, streamBytes)} }

// Buffered reports whether something of a further frame was read already.
func (s *Stream) Buffered() bool { return s.to-s.from > s.used }

// next gives the next frame's content, which is good until the call after.
func (s *Stream) next() ([]byte, error) {
	s.drop(s.used)
	s.used = 0
	clear(s.big)
	s.big = nil
	if err := s.fill(headBytes); err != nil {
		if s.to > s.from {
			err = cut(err)
		}
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(s.buf[s.from:]))
	if n == 0 || n > MaxData {
		return nil, errSize
	}
	if headBytes+n > len(s.buf) {
		return s.large(n)
	}
	if err := s.fill(headBytes + n); err != nil {
		return nil, cut(err)
	}
	s.used = headBytes + n
	return s.buf[s.from+headBytes : s.from+s.used], nil
}

// drop wipes the first n bytes of what was read.
func (s *Stream) drop(n int) {
	clear(s.buf[s.from : s.from+n])
	if s.from += n; s.from == s.to {
		s.from, s.to = 0, 0
	}
}

// fill reads until there are n bytes, which the buffer holds.
func (s *Stream) fill(n int) error {
	if s.from+n > len(s.buf) {
		had := s.to
		s.from, s.to = 0, copy(s.buf, s.buf[s.from:s.to])
		clear(s.buf[s.to:had])
	}
	for s.to-s.from < n {
		m, err := s.r.Read(s.buf[s.to:])
		s.to += m
		if err != nil && s.to-s.from < n {
			return err
		}
	}
	return nil
}

// large reads a frame of n bytes that the buffer does not hold.
func (s *Stream) large(n int) ([]byte, error) {
	s.drop(headBytes)
	s.big = append(grow(nil, streamBytes), s.buf[s.from:s.to]...)
	s.drop(s.to - s.from)
	// Not allocated in one piece: the length is the word of the other end.
	for len(s.big) < n {
		s.big = grow(s.big, 1)
		m, err := s.r.Read(s.big[len(s.big):min(cap(s.big), n)])
		s.big = s.big[:len(s.big)+m]
		if err != nil && len(s.big) < n {
			return nil, cut(err)
		}
	}
	return s.big, nil
}

// cut is an end of the stream inside a frame.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Request reads one request. io.EOF means that the other end closed between two
// frames.
func (s *Stream) Request(q *Request) error {
	b, err := s.next()
	if err != nil {
		return err
	}
	*q = Request{}
	switch b[0] {
	case compactSign:
		q.Op = OpSign
	case compactMAC:
		q.Op = OpMAC
	case compactEncrypt:
		q.Op = OpEncrypt
	case compactDecrypt:
		q.Op = OpDecrypt
	default:
		if err := Decode(b, q); err != nil {
			return err
		}
		if _, ok := q.compact(); ok {
			return errForm
		}
		return nil
	}
	kind, rest := b[0], b[1:]
	if len(rest) < idBytes+keyBytes {
		return errCompact
	}
	q.ID = binary.BigEndian.Uint64(rest)
	key := keyspec.KeyID(rest[idBytes:])
	if rest = rest[idBytes+keyBytes:]; bound(kind) {
		if rest, err = q.bind(rest); err != nil {
			return err
		}
	}
	if len(rest) == 0 || len(rest) > MaxMessage {
		return errCompact
	}
	q.Key, q.Input = &key, bytes.Clone(rest)
	return nil
}

// bind takes the associated data off.
func (q *Request) bind(b []byte) ([]byte, error) {
	if len(b) < aadBytes {
		return nil, errCompact
	}
	n := binary.BigEndian.Uint32(b)
	b = b[aadBytes:]
	if n > MaxMessage || int(n) > len(b) {
		return nil, errCompact
	}
	if n > 0 {
		q.AAD = bytes.Clone(b[:n])
	}
	return b[n:], nil
}

// Response reads one response. io.EOF means that the other end closed between two
// frames.
func (s *Stream) Response(a *Response) error {
	b, err := s.next()
	if err != nil {
		return err
	}
	*a = Response{}
	if b[0] != compactData {
		if err := Decode(b, a); err != nil {
			return err
		}
		if a.compact() {
			return errForm
		}
		return nil
	}
	rest := b[1:]
	if len(rest) <= idBytes || len(rest) > idBytes+MaxMessage {
		return errCompact
	}
	a.ID, a.Data = binary.BigEndian.Uint64(rest), bytes.Clone(rest[idBytes:])
	return nil
}
