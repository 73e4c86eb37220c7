// Package jcs reads and writes the one JSON form that keyrite signs: RFC 8785
// (JSON Canonicalization Scheme).
//
// Use Marshal for everything that is written or signed and Unmarshal for
// everything that is read. Unmarshal accepts exactly the bytes that Marshal
// gives for the same value, so one value has one encoding: unknown, repeated,
// re-ordered, differently spelt or trailing content is refused. It must never
// be made lenient; foreign formats (Sigstore, TUF) have their own readers.
//
// Compatibility: RFC 8785 is fixed. Whole numbers are limited to ±2^53.
package jcs

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	gojcs "github.com/gowebpki/jcs"

	"keyrite/artifact/fault"
)

// MaxBytes bounds one document, in bytes. Larger input is refused unread.
const MaxBytes = 16 << 20

// ErrNotCanonical says that a document parses, but is not the canonical
// encoding of its value under our schema.
var ErrNotCanonical = fault.New(fault.Verify, "not in canonical form (RFC 8785) or with unknown or repeated members")

// Marshal returns the canonical encoding of v.
func Marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encode JSON: %w", err)
	}
	// Nearly everything that we write comes out in canonical form already.
	if plain := bytes.TrimSuffix(buf.Bytes(), []byte("\n")); canonical(plain) {
		return plain, nil
	}
	if err := checkNumbers(buf.Bytes()); err != nil {
		return nil, err
	}
	out, err := gojcs.Transform(buf.Bytes())
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "canonicalise JSON: %w", err)
	}
	return out, nil
}

// canonical says that data is one canonical value; false says nothing.
func canonical(data []byte) bool {
	n, ok := Scan(data)
	return ok && n == len(data)
}

// maxNumber is the largest whole number that JSON numbers carry exactly (RFC
// 8785, Section 3.2.2.3; IEEE 754 binary64).
const maxNumber = 1 << 53

// checkNumbers refuses whole numbers that the canonical form would round: what is
// signed must be what was meant.
func checkNumbers(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.Errorf(fault.Unexpected, "read back JSON: %w", err)
		}
		n, ok := tok.(json.Number)
		if !ok {
			continue
		}
		if i, err := n.Int64(); err != nil || i > maxNumber || i < -maxNumber {
			return fault.Errorf(fault.Verify, "number %.40s is no whole number within ±2^53", n)
		}
	}
}

// Unmarshal parses data into v and refuses everything but the canonical
// encoding of what v then holds. Errors are of class verify.
func Unmarshal(data []byte, v any) error {
	if len(data) > MaxBytes {
		return fault.Errorf(fault.Verify, "JSON document of %d bytes is larger than %d", len(data), MaxBytes)
	}
	if quick(data, v) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fault.Errorf(fault.Verify, "parse JSON: %w", err)
	}
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return ErrNotCanonical
	}
	return nil
}
