package frame

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"keyrite/hsm/keyspec"
)

// What is asked for and answered thousands of times a second has a compact form
// beside JSON, which always begins with an opening brace. Each message has one
// form only, so that what is read is written as the same bytes.
//
//	use of a key, client -> module process
//	  1 byte   0x01 sign, 0x03 MAC
//	  8 bytes  id, big-endian
//	 16 bytes  key id
//	  n bytes  input, 1 to MaxMessage
//	answer that is nothing but bytes, module process -> client
//	  1 byte   0x02
//	  8 bytes  id, big-endian
//	  n bytes  data, 1 to MaxMessage
const (
	compactSign = 0x01
	compactData = 0x02
	compactMAC  = 0x03

	idBytes  = 8
	keyBytes = len(keyspec.KeyID{})
)

var (
	errForm    = errors.New("frame: not the one form of this message")
	errCompact = errors.New("frame: compact message of a wrong length or kind")
)

// compact gives the first byte of a request that has a compact form.
func (q *Request) compact() (byte, bool) {
	if q.Key == nil || q.Body != nil || len(q.Input) == 0 || len(q.Input) > MaxMessage {
		return 0, false
	}
	switch q.Op {
	case OpSign:
		return compactSign, true
	case OpMAC:
		return compactMAC, true
	}
	return 0, false
}

func (a *Response) compact() bool {
	return a.Fault == nil && a.Body == nil && len(a.Data) > 0 && len(a.Data) <= MaxMessage
}

// AppendRequest appends a request in its one form.
func AppendRequest(dst []byte, q *Request) ([]byte, error) {
	kind, ok := q.compact()
	if !ok {
		return Append(dst, q)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(1+idBytes+keyBytes+len(q.Input)))
	dst = append(dst, kind)
	dst = binary.BigEndian.AppendUint64(dst, q.ID)
	dst = append(dst, q.Key[:]...)
	return append(dst, q.Input...), nil
}

// AppendResponse appends a response in its one form.
func AppendResponse(dst []byte, a *Response) ([]byte, error) {
	if !a.compact() {
		return Append(dst, a)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(1+idBytes+len(a.Data)))
	dst = append(dst, compactData)
	dst = binary.BigEndian.AppendUint64(dst, a.ID)
	return append(dst, a.Data...), nil
}

// Stream reads the frames of a data socket. It is for one goroutine.
type Stream struct {
	r    *bufio.Reader
	used int // bytes of the last frame that are still in r
}

// streamBytes is the buffer of a Stream: some hundred signatures.
const streamBytes = 64 << 10

// NewStream reads from r.
func NewStream(r io.Reader) *Stream { return &Stream{r: bufio.NewReaderSize(r, streamBytes)} }

// Buffered reports whether something of a further frame was read already.
func (s *Stream) Buffered() bool { return s.r.Buffered() > s.used }

// next gives the next frame's content, which is good until the call after.
func (s *Stream) next() ([]byte, error) {
	if _, err := s.r.Discard(s.used); err != nil {
		return nil, err
	}
	s.used = 0
	head, err := s.r.Peek(4)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head))
	if n == 0 || n > MaxData {
		return nil, errSize
	}
	if 4+n <= streamBytes {
		b, err := s.r.Peek(4 + n)
		if err != nil {
			return nil, cut(err)
		}
		s.used = 4 + n
		return b[4:], nil
	}
	if _, err := s.r.Discard(4); err != nil {
		return nil, err
	}
	// Not allocated in one piece: the length is the word of the other end.
	var b bytes.Buffer
	if _, err := io.CopyN(&b, s.r, int64(n)); err != nil {
		return nil, cut(err)
	}
	return b.Bytes(), nil
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
	default:
		if err := Decode(b, q); err != nil {
			return err
		}
		if _, ok := q.compact(); ok {
			return errForm
		}
		return nil
	}
	rest := b[1:]
	if len(rest) <= idBytes+keyBytes || len(rest) > idBytes+keyBytes+MaxMessage {
		return errCompact
	}
	q.ID = binary.BigEndian.Uint64(rest)
	key := keyspec.KeyID(rest[idBytes:])
	q.Key, q.Input = &key, bytes.Clone(rest[idBytes+keyBytes:])
	return nil
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
