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
		{"seal key", func(s *Spec) { s.Template, s.Algorithm, s.SessionObject = Seal, AES256, false }, true},
		{"MAC key", func(s *Spec) { s.Template, s.Algorithm, s.SessionObject = MAC, HMACSHA256, false }, true},
		{"seal key of a session", func(s *Spec) { s.Template, s.Algorithm, s.SessionObject = Seal, AES256, true }, false},
		{"seal of a pair", func(s *Spec) { s.Template, s.SessionObject = Seal, false }, false},
		{"MAC of a pair", func(s *Spec) { s.Template, s.SessionObject = MAC, false }, false},
		{"AES key that signs", func(s *Spec) { s.Algorithm, s.SessionObject = AES256, false }, false},
		{"AES key that MACs", func(s *Spec) { s.Template, s.Algorithm, s.SessionObject = MAC, AES256, false }, false},
		{"HMAC key that seals", func(s *Spec) { s.Template, s.Algorithm, s.SessionObject = Seal, HMACSHA256, false }, false},
		{"AES key that moves", func(s *Spec) { s.Template, s.Algorithm, s.SessionObject = Movable, AES256, false }, false},
		{"seal key without id", func(s *Spec) { s.Template, s.Algorithm, s.SessionObject, s.KeyID = Seal, AES256, false, KeyID{} }, false},
		{"seal key with a bad label", func(s *Spec) { s.Template, s.Algorithm, s.SessionObject, s.Label = Seal, AES256, false, "A" }, false},
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

// TestSecretIsNoPair keeps a secret key and a pair from passing for each other.
func TestSecretIsNoPair(t *testing.T) {
	seal, pair := spec(), spec()
	seal.Template, seal.Algorithm = Seal, AES256
	if err := seal.Verify(Direct, seal.Expect(Direct)); err != nil {
		t.Error(err)
	}
	both := seal.Expect(Direct)
	both.Public = pair.Expect(Direct).Public
	for name, err := range map[string]error{
		"pair for a secret key": seal.Verify(Direct, pair.Expect(Direct)), "secret key for a pair": pair.Verify(Direct, seal.Expect(Direct)),
		"nothing": seal.Verify(Direct, Pair{}), "both": seal.Verify(Direct, both), "copied": seal.Verify(Stored, seal.Expect(Direct)),
	} {
		if _, ok := errors.AsType[*DifferenceError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if alg, ok := SecretAlgorithmOf(seal.Expect(Direct).Secret); !ok || alg != AES256 {
		t.Errorf("algorithm %q, %v", alg, ok)
	}
	weak := []Attribute{{"CKA_KEY_TYPE", "CKK_AES"}, {"CKA_VALUE_LEN", "16"}, {"CKA_ALLOWED_MECHANISMS", "CKM_AES_GCM"}}
	if _, ok := SecretAlgorithmOf(weak); ok {
		t.Error("a short key has an algorithm")
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
