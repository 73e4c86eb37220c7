package firmware

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"keyrite/artifact/fault"
)

// chunk is how much of an image is read at a time: large enough that the system
// calls do not show beside the hashing, small beside the 40 MB that a program
// may use.
const chunk = 256 << 10

// domains are the beginnings of what keys sign elsewhere: DSSE, the proof of
// possession of a ceremony, cosignatures, TLS 1.3 (RFC 8446, Section 4.4.3). An
// image that begins so could be a trap for a key that signs images as they are.
func domains() [][]byte {
	return [][]byte{
		[]byte("DSSEv1 "), []byte("keyrite possession v1\n"), []byte("cosignature/v1\n"),
		bytes.Repeat([]byte{0x20}, 64),
	}
}

// Measure reads an image to its end and returns its SHA-256 in hex and its size.
// An image that is empty, longer than MaxImageBytes or begins like a message of
// another signing domain is refused.
func Measure(r io.Reader) (string, int64, error) { return measure(nil, r) }

func measure(dst io.Writer, r io.Reader) (string, int64, error) {
	h := sha256.New()
	buf := make([]byte, chunk)
	var size int64
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if size == 0 {
				if err := checkDomain(buf[:n]); err != nil {
					return "", 0, err
				}
			}
			h.Write(buf[:n])
			size += int64(n)
			if size > MaxImageBytes {
				return "", 0, fault.Errorf(fault.Usage, "image is larger than %d bytes", int64(MaxImageBytes))
			}
			if dst != nil {
				if _, err := dst.Write(buf[:n]); err != nil {
					return "", 0, fault.Errorf(fault.Storage, "write image: %w", err)
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if size == 0 {
				return "", 0, ErrEmpty
			}
			return hex.EncodeToString(h.Sum(nil)), size, nil
		case err != nil:
			return "", 0, fault.Errorf(readClass(err), "read image: %w", err)
		}
	}
}

// readClass keeps the class of a reader's own error; what the disk says is
// class storage.
func readClass(err error) fault.Class {
	if errors.Is(err, context.Canceled) {
		return fault.Interrupted
	}
	if c := fault.ClassOf(err); c != fault.Unexpected {
		return c
	}
	return fault.Storage
}

func checkDomain(head []byte) error {
	for _, d := range domains() {
		if bytes.HasPrefix(head, d) {
			return ErrDomain
		}
	}
	return nil
}

// CheckImage reads r to its end and checks that it is the image of s.
func (s *Statement) CheckImage(r io.Reader) error { return s.copyImage(nil, r) }

func (s *Statement) copyImage(dst io.Writer, r io.Reader) error {
	// One byte more than stated shows that the image is too long without
	// reading for ever.
	sum, n, err := measure(dst, io.LimitReader(r, s.Predicate.Size+1))
	if errors.Is(err, ErrEmpty) {
		return fault.Errorf(fault.Verify, "%w: it is empty", ErrImage)
	}
	if err != nil {
		return err
	}
	switch {
	case n > s.Predicate.Size:
		return fault.Errorf(fault.Verify, "%w: it has more than the %d bytes stated", ErrImage, s.Predicate.Size)
	case n < s.Predicate.Size:
		return fault.Errorf(fault.Verify, "%w: it has %d of the %d bytes stated", ErrImage, n, s.Predicate.Size)
	case sum != s.Image().Digest.SHA256:
		return fault.Errorf(fault.Verify, "%w: its SHA-256 is %s, not %s", ErrImage, sum, s.Image().Digest.SHA256)
	}
	return nil
}
