package keyspec

import (
	"errors"
	"strings"
	"testing"
)

func spec() Spec {
	return Spec{Template: Sign, Algorithm: ECDSAP256, KeyID: NewKeyID(Tag{1, 2}, 3), Label: "firmware", SessionObject: true}
}

func TestSpecCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*Spec)
		ok   bool
	}{
		{"good", func(*Spec) {}, true},
		{"unknown template", func(s *Spec) { s.Template = "wrap" }, false},
		{"no template", func(s *Spec) { s.Template = "" }, false},
		{"unknown algorithm", func(s *Spec) { s.Algorithm = "rsa" }, false},
		{"no id", func(s *Spec) { s.KeyID = KeyID{} }, false},
		{"no label", func(s *Spec) { s.Label = "" }, false},
		{"long label", func(s *Spec) { s.Label = strings.Repeat("a", 33) }, false},
		{"longest label", func(s *Spec) { s.Label = strings.Repeat("a", 32) }, true},
		{"capital", func(s *Spec) { s.Label = "Firmware" }, false},
		{"blank", func(s *Spec) { s.Label = "a b" }, false},
		{"terminal escape", func(s *Spec) { s.Label = "a\x1b[2J" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := spec()
			tc.edit(&s)
			if err := s.Check(); (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestSignMayOnlySign fixes what the sign templates grant.
func TestSignMayOnlySign(t *testing.T) {
	for _, tpl := range []Template{Sign, RootSign} {
		for _, alg := range []Algorithm{ECDSAP256, Ed25519} {
			for _, st := range []Stage{Born, Stored, Direct} {
				s := spec()
				s.Template, s.Algorithm = tpl, alg
				p := s.Expect(st)
				for name, want := range map[string]string{
					"CKA_SIGN": "true", "CKA_SENSITIVE": "true", "CKA_EXTRACTABLE": "false", "CKA_PRIVATE": "true",
					"CKA_DECRYPT": "false", "CKA_UNWRAP": "false", "CKA_DERIVE": "false", "CKA_SIGN_RECOVER": "false",
					"CKA_DESTROYABLE": "true", "CKA_LOCAL": "true", "CKA_ALWAYS_SENSITIVE": "true", "CKA_NEVER_EXTRACTABLE": "true",
					"CKA_ALWAYS_AUTHENTICATE": flag(tpl == RootSign), "CKA_TOKEN": flag(st != Born),
					"CKA_MODIFIABLE": flag(st == Born), "CKA_COPYABLE": flag(st != Direct),
				} {
					if got := value(p.Private, name); got != want {
						t.Errorf("%s %s %s: %s is %q, want %q", tpl, alg, st, name, got, want)
					}
				}
				if m := value(p.Private, "CKA_ALLOWED_MECHANISMS"); m == "" || strings.Contains(m, ",") {
					t.Errorf("%s %s: mechanisms %q, want one", tpl, alg, m)
				}
			}
		}
	}
}

func value(as []Attribute, name string) string {
	for _, a := range as {
		if a.Name == name {
			return a.Value
		}
	}
	return "(absent)"
}

func TestCompare(t *testing.T) {
	want := spec().Expect(Stored).Private
	if err := Compare(want, want); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		name string
		got  []Attribute
		text string
	}{
		{"nothing", nil, "CKA_SENSITIVE missing"},
		{"missing", want[1:], want[0].Name + " missing"},
		{"other value", append([]Attribute{{want[0].Name, "x"}}, want[1:]...), want[0].Name + ` is "x"`},
		{"unreported", append([]Attribute{{want[0].Name, Unreported}}, want[1:]...), "not reported"},
		{"twice", append([]Attribute{want[0]}, want...), want[0].Name + " twice"},
		{"extra", append([]Attribute{{"CKA_WRAP", "false"}}, want...), "CKA_WRAP not asked for"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Compare(want, tc.got)
			d, ok := errors.AsType[*DifferenceError](err)
			if !ok || d.FaultClass() != "verify" || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %q", err, tc.text)
			}
		})
	}
}

func TestKeyID(t *testing.T) {
	k := NewKeyID(Tag{0xab, 7: 0xcd}, 258)
	if got, want := k.String(), "ab000000000000cd0000000000000102"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	back, err := ParseKeyID(k.String())
	if err != nil || back != k || back.Tag().String() != "ab000000000000cd" {
		t.Errorf("%v, %v", back, err)
	}
	for _, bad := range []string{"", "ab", strings.ToUpper(k.String()), k.String() + "00", k.String()[1:] + "g", " " + k.String()[1:]} {
		if _, err := ParseKeyID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
