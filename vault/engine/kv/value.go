package kv

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"keyrite/artifact/fault"
)

// Limits of a secret's value.
const (
	MaxValueBytes = 1 << 20 // in its canonical form
	MaxDepth      = 64      // of objects and arrays within each other
)

var (
	errJSON  = fault.New(fault.Usage, "the data is not one JSON value in UTF-8, with whole surrogate pairs and no member twice")
	errDepth = fault.Errorf(fault.Usage, "the data is nested deeper than %d", MaxDepth)
	errObj   = fault.New(fault.Usage, "the data is not a JSON object")
	errSize  = fault.Errorf(fault.Usage, "the data is over the limit of %d bytes", MaxValueBytes)
)

// object is a JSON object; arrays are []any, numbers json.Number, so that they stay
// as the client wrote them.
type object map[string]any

// parseObject reads a JSON object. Errors never quote it: it is secret.
func parseObject(raw []byte) (object, error) {
	v, err := parse(raw)
	if err != nil {
		return nil, err
	}
	o, ok := v.(object)
	if !ok {
		return nil, errObj
	}
	return o, nil
}

func parse(raw []byte) (any, error) {
	if !utf8.Valid(raw) || brokenPair(raw) {
		return nil, errJSON
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := next(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errJSON
	}
	return v, nil
}

// brokenPair finds an escape of half a surrogate pair, which the decoder would
// silently replace.
func brokenPair(raw []byte) bool {
	unit := func(i int) rune {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0
		}
		n, err := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		if err != nil {
			return 0
		}
		return rune(n)
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		r := unit(i)
		switch {
		case !utf16.IsSurrogate(r):
			i++ // whatever was escaped is no escape itself
		case utf16.DecodeRune(r, unit(i+6)) == utf8.RuneError:
			return true
		default:
			i += 11
		}
	}
	return false
}

// next reads the next value. Depth is bounded before anything is gone into.
func next(d *json.Decoder, depth int) (any, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, errJSON
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if depth++; depth > MaxDepth {
		return nil, errDepth
	}
	if delim == '{' {
		return members(d, depth)
	}
	list := []any{}
	for d.More() {
		v, err := next(d, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, closed(d)
}

func members(d *json.Decoder, depth int) (any, error) {
	o := object{}
	for d.More() {
		tok, err := d.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return nil, errJSON
		}
		if _, twice := o[name]; twice {
			return nil, errJSON
		}
		if o[name], err = next(d, depth); err != nil {
			return nil, err
		}
	}
	return o, closed(d)
}

func closed(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errJSON
	}
	return nil
}

// encode is the canonical form (RFC 8785), but that numbers stand as they were
// written: the form of the RFC would round what a client means exactly.
func (o object) encode() ([]byte, error) {
	out := appendValue(nil, o)
	if len(out) > MaxValueBytes {
		return nil, errSize
	}
	return out, nil
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case object:
		b = append(b, '{')
		for i, name := range v.names() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(append(appendString(b, name), ':'), v[name])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, x)
		}
		return append(b, ']')
	case string:
		return appendString(b, v)
	case json.Number:
		return append(b, v...)
	case bool:
		return strconv.AppendBool(b, v)
	}
	return append(b, "null"...)
}

// names are the members in the order of RFC 8785, section 3.2.3: by UTF-16 units.
func (o object) names() []string {
	out := make([]string, 0, len(o))
	for name := range o {
		out = append(out, name)
	}
	slices.SortFunc(out, compareUnits)
	return out
}

// compareUnits is the order of texts by their UTF-16 units, which is that of their bytes
// but between characters beyond the first plane and those at its end (U+E000 and on).
func compareUnits(a, b string) int {
	for i, x := range a {
		if i >= len(b) {
			return 1
		}
		y, _ := utf8.DecodeRuneInString(b[i:])
		if x == y {
			continue
		}
		if (x > 0xffff) == (y > 0xffff) {
			return cmp.Compare(x, y)
		}
		return slices.Compare(utf16.Encode([]rune{x}), utf16.Encode([]rune{y}))
	}
	return cmp.Compare(len(a), len(b))
}

// appendString writes a string as RFC 8785, section 3.2.2.2.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	const short, as = "\"\\\b\f\n\r\t", `"\bfnrt`
	b = append(b, '"')
	for i := range len(s) {
		c := s[i]
		switch e := strings.IndexByte(short, c); {
		case e >= 0:
			b = append(b, '\\', as[e])
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// merge applies a merge patch (RFC 7396). The target may be changed.
func merge(target any, patch any) any {
	p, ok := patch.(object)
	if !ok {
		return patch
	}
	t, ok := target.(object)
	if !ok {
		t = object{}
	}
	for name, v := range p {
		if v == nil {
			delete(t, name)
			continue
		}
		t[name] = merge(t[name], v)
	}
	return t
}

// subkeys is the object with nothing but its names: whatever is no object, or lies
// deeper than depth, is null. Depth 0 is no bound.
func (o object) subkeys(depth int) object {
	out := object{}
	for name, v := range o {
		out[name] = nil
		if in, ok := v.(object); ok && depth != 1 && len(in) > 0 {
			out[name] = in.subkeys(max(depth-1, 0))
		}
	}
	return out
}
