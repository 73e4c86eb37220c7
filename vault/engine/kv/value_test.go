package kv

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	gojcs "github.com/gowebpki/jcs"
)

// Examples of RFC 7396, appendix A, as far as both are objects.
func TestMergePatch(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		was, err := parseObject([]byte(c[0]))
		if err != nil {
			t.Fatal(err)
		}
		patch, err := parseObject([]byte(c[1]))
		if err != nil {
			t.Fatal(err)
		}
		got := appendValue(nil, merge(was, patch))
		if string(got) != c[2] {
			t.Errorf("%s with %s is %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

func TestValueIsKeptAsItWas(t *testing.T) {
	for in, want := range map[string]string{
		`{ "b" : 1 , "a" : [ true , null ] }`:             `{"a":[true,null],"b":1}`,
		`{"n":12345678901234567890123,"m":1.10,"e":1E5}`:  `{"e":1E5,"m":1.10,"n":12345678901234567890123}`,
		`{"\u0061\/":"\u20ac\u000f\u0022\n\ud83d\ude00"}`: "{\"a/\":\"€\\u000f\\\"\\n😀\"}",
		"{\"\u2028\":\"<&>\"}":                            "{\"\u2028\":\"<&>\"}",
		`{"\\ud800":"\\udc00"}`:                           `{"\\ud800":"\\udc00"}`,
		"{\"\U0001F600\":1,\"\uFB33\":2}":                 "{\"\U0001F600\":1,\"\uFB33\":2}", // UTF-16 order, RFC 8785 section 3.2.3
	} {
		o, err := parseObject([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got, err := o.encode()
		if err != nil || string(got) != want {
			t.Errorf("%s is kept as %s, want %s (%v)", in, got, want, err)
		}
	}
}

func TestDepthIsBoundedBeforeItIsFollowed(t *testing.T) {
	for _, n := range []int{MaxDepth, MaxDepth + 1, 100_000} {
		in := strings.Repeat(`{"a":`, n) + `{}`[:0] + "1" + strings.Repeat("}", n)
		if _, err := parseObject([]byte(in)); (err == nil) != (n <= MaxDepth) {
			t.Errorf("depth %d: %v", n, err)
		}
		list := `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + "}"
		if _, err := parseObject([]byte(list)); (err == nil) != (n <= MaxDepth) {
			t.Errorf("lists of depth %d: %v", n, err)
		}
	}
}

// What is taken is a JSON object as others read it, has one form, and that form is
// the one of RFC 8785 where no number stands in it.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":[1,2.50,{"b":null}],"c":"\ud83d\ude00\n"}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, `[1]`, `{"a":1}{}`, `{"a":`, "{\"\u2028\":\"\x7f\"}", `{"é":"\u00e9","e":{"z":[[]]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := parseObject(raw)
		if err != nil {
			return
		}
		out := appendValue(nil, o)
		var ours, theirs any
		if json.Unmarshal(raw, &theirs) != nil || json.Unmarshal(out, &ours) != nil {
			t.Fatalf("%q is taken as %q, and is no JSON", raw, out)
		}
		again, err := parseObject(out)
		if err != nil || !bytes.Equal(appendValue(nil, again), out) {
			t.Fatalf("%q is not kept as it is (%v)", out, err)
		}
		a, _ := json.Marshal(ours)
		b, _ := json.Marshal(theirs)
		if !bytes.Equal(a, b) {
			t.Fatalf("%q became %q", raw, out)
		}
		if bytes.ContainsAny(out, "0123456789") {
			return
		}
		if ref, err := gojcs.Transform(raw); err != nil || !bytes.Equal(ref, out) {
			t.Fatalf("%q is kept as %q, canonical is %q (%v)", raw, out, ref, err)
		}
	})
}

// Names are in the order of their UTF-16 units, whatever is in them.
func TestOrderOfNames(t *testing.T) {
	parts := []string{"", "a", "b", "z", "\x00", "\x7f", "\u0080", "ß", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "é", "aa", "a\ue000", "a\U00010000"}
	for _, a := range parts {
		for _, b := range parts {
			for _, tail := range parts {
				x, y := a+tail, b+"a"
				want := slices.Compare(utf16.Encode([]rune(x)), utf16.Encode([]rune(y)))
				if got := compareUnits(x, y); got != want {
					t.Errorf("%q and %q: %d, want %d", x, y, got, want)
				}
			}
		}
	}
}
