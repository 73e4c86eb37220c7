package api

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// members counts what a value holds, at every depth.
func members(v any) (n, depth int) {
	var within []any
	switch x := v.(type) {
	case map[string]any:
		n = len(x)
		for _, m := range x {
			within = append(within, m)
		}
	case []any:
		within = x
	default:
		return 0, 0
	}
	for _, m := range within {
		k, d := members(m)
		n, depth = n+k, max(depth, d)
	}
	return n, depth + 1
}

// colons counts those outside of texts: one for each member as it was written.
func colons(data string) (n int) {
	text := false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case c == ':' && !text:
			n++
		}
	}
	return n
}

// FuzzObject: what is taken is one object whose members are as many as were written, and
// not too deep.
func FuzzObject(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":{"b":[{"c":1},{"c":2}]}}`, `{"a":"\"}:"}`, `{"a":1}{}`, `[]`, `null`, ` {"a":null} `, "{\"a\":\"\xff\"}",
		`{"a":1,"\u0061":2}`, strings.Repeat(`{"a":`, 70) + `1` + strings.Repeat(`}`, 70), strings.Repeat("[", 1000), `{"a":1e999}`, `{"a":01}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Object(data)
		if err != nil {
			return
		}
		var v map[string]any
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.UseNumber()
		if err := d.Decode(&v); err != nil || len(v) != len(p) || !utf8.Valid(data) {
			t.Fatalf("%q is taken: %v", data, err)
		}
		if n, depth := members(v); n != colons(string(data)) || depth > maxDepth {
			t.Errorf("%q is taken: %d members of %d written, %d deep", data, n, colons(string(data)), depth)
		}
	})
}
