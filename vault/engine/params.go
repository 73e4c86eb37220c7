package engine

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/fault"
)

// Params are the parameters of a request: the members of its body and, where the
// method has none, of its query. Clients of HashiCorp Vault write numbers, truth
// values and durations also as strings; both forms are read.
type Params map[string]json.RawMessage

// Only refuses parameters that are not among the names: what nobody looks at must
// not seem to have been obeyed.
func (p Params) Only(names ...string) error {
	for _, k := range slices.Sorted(maps.Keys(p)) {
		if !slices.Contains(names, k) {
			return fault.Errorf(fault.Usage, "parameter %.60q is not known here", k)
		}
	}
	return nil
}

// Has says whether the parameter was given, and not as null.
func (p Params) Has(name string) bool {
	v, ok := p[name]
	return ok && string(v) != "null"
}

func wrong(name, want string) error {
	return fault.Errorf(fault.Usage, "parameter %q is not %s", name, want)
}

// String is a text; "" if it was not given.
func (p Params) String(name string) (string, error) {
	if !p.Has(name) {
		return "", nil
	}
	var s string
	if err := json.Unmarshal(p[name], &s); err != nil {
		return "", wrong(name, "a text")
	}
	return s, nil
}

// text is a value as text, whether it was quoted or not.
func (p Params) text(name string) string {
	var s string
	if json.Unmarshal(p[name], &s) == nil {
		return s
	}
	return string(p[name])
}

// Int is a whole number; 0 if it was not given.
func (p Params) Int(name string) (int64, error) {
	if !p.Has(name) {
		return 0, nil
	}
	n, err := strconv.ParseInt(p.text(name), 10, 64)
	if err != nil {
		return 0, wrong(name, "a whole number")
	}
	return n, nil
}

// Bool is a truth value; false if it was not given.
func (p Params) Bool(name string) (bool, error) {
	if !p.Has(name) {
		return false, nil
	}
	switch p.text(name) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, wrong(name, "true or false")
}

// Bytes is base64 (RFC 4648, section 4, strict); nil if it was not given.
func (p Params) Bytes(name string) ([]byte, error) {
	s, err := p.String(name)
	if err != nil || s == "" {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") { // which the decoder passes over
		return nil, wrong(name, "base64")
	}
	return b, nil
}

// Duration is a time in seconds, or with a unit as in "90s" or "1h"; 0 if it was
// not given. A negative one is refused.
func (p Params) Duration(name string) (time.Duration, error) {
	if !p.Has(name) {
		return 0, nil
	}
	s := p.text(name)
	d, err := time.ParseDuration(s)
	if n, e := strconv.ParseInt(s, 10, 32); e == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 {
		return 0, wrong(name, `a duration, such as 90 or "1h"`)
	}
	return d, nil
}

// Into decodes the parameter into v strictly: unknown members are an error.
func (p Params) Into(name string, v any) error {
	if !p.Has(name) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(p[name]))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return wrong(name, "of the form that is wanted here")
	}
	return nil
}
