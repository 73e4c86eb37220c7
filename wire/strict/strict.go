// Package strict reads and writes the JSON of the wire protocols: exactly one
// value, exactly the members of the Go type, exactly one encoding.
//
// wire/control and wire/tunnel use it and nobody else needs to. A type is fit
// for it when its members are declared in the order of their JSON names and its
// text cannot hold U+2028 and U+2029; then the encoding is RFC 8785. It must
// never be made lenient: two readers that understand the same bytes differently
// are how requests get smuggled.
package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrCanonical says that a message holds unknown, repeated, re-ordered or
// trailing content.
var ErrCanonical = errors.New("message is not in canonical form or has unknown or repeated members")

// Marshal returns the encoding of v.
func Marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// Unmarshal reads data into v and refuses all but the one encoding of what v
// then holds.
func Unmarshal(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("parse message: %w", err)
	}
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return ErrCanonical
	}
	return nil
}
