package jcs

import (
	"bytes"
	"testing"

	gojcs "github.com/gowebpki/jcs"

	"keyrite/artifact/fault"
)

type doc struct {
	Format string   `json:"format"`
	N      int      `json:"n"`
	List   []string `json:"list,omitempty"`
}

func TestUnmarshalIsStrict(t *testing.T) {
	tests := []struct {
		name, in string
		ok       bool
	}{
		{"canonical", `{"format":"x","n":1}`, true},
		{"with list", `{"format":"x","list":["a"],"n":1}`, true},
		{"space", `{"format":"x", "n":1}`, false},
		{"order", `{"n":1,"format":"x"}`, false},
		{"unknown", `{"format":"x","m":1,"n":1}`, false},
		{"repeated", `{"format":"x","n":1,"n":1}`, false},
		{"other case", `{"Format":"x","n":1}`, false},
		{"trailing newline", "{\"format\":\"x\",\"n\":1}\n", false},
		{"trailing object", `{"format":"x","n":1}{}`, false},
		{"missing", `{"format":"x"}`, false},
		{"null", `{"format":"x","n":null}`, false},
		{"empty list", `{"format":"x","list":[],"n":1}`, false},
		{"escaped letter", `{"format":"\u0078","n":1}`, false},
		{"float", `{"format":"x","n":1.0}`, false},
		{"invalid UTF-8", "{\"format\":\"\xff\",\"n\":1}", false},
		{"nothing", ``, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d doc
			err := Unmarshal([]byte(tt.in), &d)
			if (err == nil) != tt.ok {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
			if err != nil && fault.ClassOf(err) != fault.Verify {
				t.Errorf("class %s", fault.ClassOf(err))
			}
		})
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"format":"x","list":["a"],"n":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d doc
		if Unmarshal(data, &d) != nil {
			return
		}
		again, err := Marshal(d)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, writes %q (%v)", data, again, err)
		}
	})
}

// Whatever Scan takes whole is canonical by the reference transformation.
func FuzzScan(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[true,null,"x"],"c":{"d":-5}}`, `{"b":1,"a":2}`, `[1,01]`, `-0`, `999999999999999`, `1e3`, `"\u0041"`, `{"a":1,"a":2}`, `[[[[]]]]`, `{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, ok := Scan(data); !ok || n != len(data) {
			return
		}
		again, err := gojcs.Transform(append(append([]byte(`{"x":`), data...), '}'))
		if err != nil || string(again) != `{"x":`+string(data)+`}` {
			t.Errorf("took %q, canonical is %q (%v)", data, again, err)
		}
	})
}
