package access

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"testing"

	"keyrite/artifact/fault"
)

// spellings are ways in which somebody might write a path so that one part of a
// program reads it as p and another does not.
func spellings(p string) []string {
	var out []string
	add := func(s ...string) { out = append(out, s...) }
	for i := range p {
		add(p[:i]+fmt.Sprintf("%%%02x", p[i])+p[i+1:], p[:i]+fmt.Sprintf("%%%02X", p[i])+p[i+1:], p[:i]+fmt.Sprintf("%%25%02x", p[i])+p[i+1:])
		for _, in := range []string{"/", "./", "../", "%2f", "%2e%2e/", "\x00", "\n", "\r", "\t", " ", ";", ";x=y", "\\", "?", "#", "*", "+", "%", "\u200b", "\u202e", "\ufeff", "\x80", "%c0%af", "\u2215", "\uff0f"} {
			if in == "+" && i > 0 && p[i-1] != '/' {
				add(p[:i] + in + p[i:])
				continue
			}
			add(p[:i] + in + p[i:])
		}
	}
	for _, end := range []string{"/", "//", "/.", "/..", "/../" + path.Base(p), ".", "..", "%00", "\x00", "%20", " ", "?x", "#x", "/*", "/+", "é", "e\u0301"} {
		add(p + end)
	}
	for _, start := range []string{"/", "//", "./", "../", "x/../", "%2f", "\\", "\ufeff", "v1/../"} {
		add(start + p)
	}
	add(strings.ToUpper(p), strings.ToTitle(p[:1])+p[1:], strings.ReplaceAll(p, "/", "\\"), strings.ReplaceAll(p, "/", "%2F"), strings.Map(func(r rune) rune {
		if r >= '!' && r <= '~' && r != '/' {
			return r - '!' + '\uff01' // full width
		}
		return r
	}, p))
	return out
}

// Of more than 500 spellings of a path none that is accepted is another string
// than it was, and none is allowed what only the path is.
func TestOnePathHasOneSpelling(t *testing.T) {
	const secret = "kv/data/line1/plc"
	allow := []Rule{{Path: secret, Can: []Capability{Read}}}
	except := []Rule{{Path: "kv/data/*", Can: []Capability{Read}}, {Path: secret, Can: []Capability{Deny}}}
	p, err := ParsePath(secret)
	if err != nil {
		t.Fatal(err)
	}
	if Decide(allow, p, Read) != nil || Decide(except, p, Read) == nil {
		t.Fatal("the path itself is decided wrongly")
	}
	all := spellings(secret)
	if len(all) < 500 {
		t.Fatalf("only %d spellings", len(all))
	}
	accepted := 0
	for _, raw := range all {
		p, err := ParsePath(raw)
		if err != nil {
			if fault.ClassOf(err) != fault.Usage || !errors.Is(err, ErrPath) {
				t.Errorf("%q: %v", raw, err)
			}
			continue
		}
		accepted++
		if p.String() != raw {
			t.Errorf("%q is read as %q", raw, p)
		}
		if raw != secret && Decide(allow, p, Read) == nil {
			t.Errorf("%q is allowed", raw)
		}
		// What is accepted means the same to whoever decodes or cleans it later.
		if dec, err := url.PathUnescape(raw); err != nil || dec != raw || path.Clean("/"+raw) != "/"+raw {
			t.Errorf("%q is another path after decoding and cleaning", raw)
		}
	}
	t.Logf("%d spellings, %d of them are other paths, the rest refused", len(all), accepted)
}

func TestPathLimits(t *testing.T) {
	for raw, good := range map[string]bool{
		"a": true, "a/b": true, strings.Repeat("a", MaxSegmentBytes): true, strings.Repeat("a", MaxSegmentBytes+1): false,
		strings.TrimSuffix(strings.Repeat("a/", MaxSegments), "/"): true, strings.TrimSuffix(strings.Repeat("a/", MaxSegments+1), "/"): false,
		"": false, "/": false, "a/...": false, "a/.b": true, "a/b.": true, "a/b c": false, "a/+": false, "a/*": false,
		strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 120)+"/", 9), "/"): false,
	} {
		if _, err := ParsePath(raw); (err == nil) != good {
			t.Errorf("%.40q: %v", raw, err)
		}
	}
}

func TestRulesThatFailClosed(t *testing.T) {
	for name, r := range map[string]Rule{
		"nothing":            {},
		"no capability":      {Path: "kv/data/a"},
		"empty capability":   {Path: "kv/data/a", Can: []Capability{""}},
		"unknown":            {Path: "kv/data/a", Can: []Capability{"sudo"}},
		"twice":              {Path: "kv/data/a", Can: []Capability{Read, Read}},
		"not sorted":         {Path: "kv/data/a", Can: []Capability{Read, Create}},
		"deny with another":  {Path: "kv/data/a", Can: []Capability{Deny, Read}},
		"no path":            {Can: []Capability{Read}},
		"everything":         {Path: "*", Can: []Capability{Read}},
		"any engine":         {Path: "+/data/a", Can: []Capability{Read}},
		"star in between":    {Path: "kv/*/a", Can: []Capability{Read}},
		"star in a segment":  {Path: "kv/data/a*", Can: []Capability{Read}},
		"plus in a segment":  {Path: "kv/data/a+", Can: []Capability{Read}},
		"slash at the end":   {Path: "kv/data/", Can: []Capability{Read}},
		"slash at the front": {Path: "/kv/data", Can: []Capability{Read}},
		"dots":               {Path: "kv/../data", Can: []Capability{Read}},
		"encoded":            {Path: "kv/%2a", Can: []Capability{Read}},
	} {
		if err := r.Check(); !errors.Is(err, ErrRule) {
			t.Errorf("%s: %v", name, err)
		}
		good := Rule{Path: "kv/data/a", Can: []Capability{Read}}
		p, err := ParsePath("kv/data/a")
		if err != nil {
			t.Fatal(err)
		}
		for _, rules := range [][]Rule{{r, good}, {good, r}} {
			if Decide(rules, p, Read) == nil {
				t.Errorf("%s: a bad rule beside a good one allows", name)
			}
		}
	}
}

func TestDecide(t *testing.T) {
	rules := []Rule{
		{Path: "kv/data/line1/*", Can: []Capability{Create, Read, Update}},
		{Path: "kv/data/+/public", Can: []Capability{Read}},
		{Path: "kv/data/line1/secret/*", Can: []Capability{Deny}},
		{Path: "kv/metadata/line1", Can: []Capability{List}},
		{Path: "transit/sign/firmware/sha2-256", Can: []Capability{Update}},
	}
	for _, c := range []struct {
		path string
		can  Capability
		ok   bool
	}{
		{"kv/data/line1/plc", Read, true},
		{"kv/data/line1/plc/2", Update, true},
		{"kv/data/line1/plc", Delete, false},
		{"kv/data/line1/plc", List, false},
		{"kv/data/line1", Read, false}, // * is one or more
		{"kv/data/line10/plc", Read, false},
		{"kv/data/line2/public", Read, true},
		{"kv/data/line2/public", Update, false},
		{"kv/data/line2/public/x", Read, false},
		{"kv/data/line2/x/public", Read, false}, // + is one
		{"kv/data/line1/secret/x", Read, false},
		{"kv/data/line1/secret/x/y", Update, false},
		{"kv/data/line1/secret", Read, true},
		{"kv/metadata/line1", List, true},
		{"KV/metadata/line1", List, false},
		{"transit/sign/firmware/sha2-256", Update, true},
		{"transit/sign/firmware", Update, false},
		{"sys/seal", Update, false},
		{"kv/data/line1/plc", Deny, false},
		{"kv/data/line1/plc", "", false},
		{"kv/data/line1/plc", "sudo", false},
	} {
		p, err := ParsePath(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decide(rules, p, c.can); (err == nil) != c.ok || err != nil && fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s on %s: %v", c.can, c.path, err)
		}
	}
	if Decide(rules, Path{}, Read) == nil || Decide(nil, Path{"kv"}, Read) == nil {
		t.Error("no path or no rules allow something")
	}
	p, err := ParsePath("kv/data/line1/plc")
	if err != nil {
		t.Fatal(err)
	}
	if (Rules{}).Decide(p, Read) == nil || Join().Decide(p, Read) == nil {
		t.Error("no rules allow something")
	}
	// What was compiled is not changed by whoever still has the rules.
	mine := []Rule{{Path: "kv/data/line1/plc", Can: []Capability{Read}}}
	checked, err := Compile(mine)
	if err != nil {
		t.Fatal(err)
	}
	mine[0].Can[0], mine[0].Path = Delete, "kv/data/*"
	if checked.Decide(p, Read) != nil || checked.Decide(p, Delete) == nil {
		t.Error("checked rules were changed")
	}
	denied, err := Compile([]Rule{{Path: "kv/data/+/plc", Can: []Capability{Deny}}})
	if err != nil || Join(checked, denied).Decide(p, Read) == nil || Join(denied, checked).Decide(p, Read) == nil {
		t.Errorf("a denial among others is lost: %v", err)
	}
	// Order does not matter.
	for i := range rules {
		turned := append(append([]Rule{}, rules[i:]...), rules[:i]...)
		p, err := ParsePath("kv/data/line1/secret/x")
		if err != nil {
			t.Fatal(err)
		}
		if Decide(turned, p, Read) == nil {
			t.Errorf("turned by %d the denial is lost", i)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range append(spellings("kv/a"), "kv/data/line1/plc") {
		f.Add(s)
	}
	rules := []Rule{{Path: "kv/data/*", Can: []Capability{Read}}}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := ParsePath(raw)
		if err != nil {
			return
		}
		dec, err := url.PathUnescape(raw)
		if err != nil || p.String() != raw || dec != raw || path.Clean("/"+raw) != "/"+raw {
			t.Errorf("%q is accepted and has another form", raw)
		}
		if Decide(rules, p, Read) == nil && !strings.HasPrefix(raw, "kv/data/") {
			t.Errorf("%q is allowed", raw)
		}
	})
}

// BenchmarkDecide is one decision by the rules of a busy process.
func BenchmarkDecide(b *testing.B) {
	var rules []Rule
	for i := range 20 {
		rules = append(rules, Rule{Path: fmt.Sprintf("kv/data/line%d/*", i), Can: []Capability{Create, Read, Update}})
	}
	p, err := ParsePath("kv/data/line19/plc")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("unchecked", func(b *testing.B) {
		for b.Loop() {
			if err := Decide(rules, p, Read); err != nil {
				b.Fatal(err)
			}
		}
	})
	checked, err := Compile(rules)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("checked", func(b *testing.B) {
		for b.Loop() {
			if err := checked.Decide(p, Read); err != nil {
				b.Fatal(err)
			}
		}
	})
}
