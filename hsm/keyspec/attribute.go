package keyspec

import (
	"fmt"
	"strings"
)

// Attribute is one CKA_ attribute in a form that people and records can read:
// "true" and "false", names of constants, lower-case hex for byte strings,
// the text itself for a label, names joined by commas for a mechanism list.
type Attribute struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Unreported is the value of an attribute that the token does not have or
// does not show. No template asks for it, so it never compares equal.
const Unreported = "(not reported)"

// Pair holds the attributes of both halves of a key pair.
type Pair struct {
	Private []Attribute `json:"private"`
	Public  []Attribute `json:"public"`
}

type rule struct {
	name, value string
	// given: part of the request at birth; otherwise only read back, since
	// a token must set it by itself and refuses to be told.
	given bool
}

func flag(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

type curve struct{ keyType, params, generate, sign string }

func curveOf(a Algorithm) curve {
	if a == Ed25519 {
		// PrintableString "edwards25519", PKCS#11 3.0, Section 2.3.5: SoftHSM
		// shows it in the private half even where the OID was asked for.
		return curve{"CKK_EC_EDWARDS", "130c656477617264733235353139", "CKM_EC_EDWARDS_KEY_PAIR_GEN", "CKM_EDDSA"}
	}
	// OID 1.2.840.10045.3.1.7, RFC 5480, Section 2.1.1.1
	return curve{"CKK_EC", "06082a8648ce3d030107", "CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA"}
}

func (s Spec) private(st Stage) []rule {
	c := curveOf(s.Algorithm)
	return []rule{
		{"CKA_CLASS", "CKO_PRIVATE_KEY", true},
		{"CKA_KEY_TYPE", c.keyType, true},
		{"CKA_TOKEN", flag(st != Born), true},
		{"CKA_PRIVATE", "true", true},
		{"CKA_LABEL", s.Label, true},
		{"CKA_ID", s.KeyID.String(), true},
		{"CKA_SUBJECT", "", false},
		{"CKA_START_DATE", "", false},
		{"CKA_END_DATE", "", false},
		{"CKA_EC_PARAMS", c.params, false},
		{"CKA_SENSITIVE", "true", true},
		{"CKA_EXTRACTABLE", "false", true},
		{"CKA_SIGN", "true", true},
		{"CKA_SIGN_RECOVER", "false", true},
		{"CKA_DECRYPT", "false", true},
		{"CKA_UNWRAP", "false", true},
		{"CKA_DERIVE", "false", true},
		{"CKA_WRAP_WITH_TRUSTED", "false", true},
		{"CKA_ALWAYS_AUTHENTICATE", flag(s.Template == RootSign), true},
		{"CKA_ALLOWED_MECHANISMS", c.sign, true},
		{"CKA_DESTROYABLE", "true", true},
		{"CKA_COPYABLE", flag(st != Direct), true},
		{"CKA_MODIFIABLE", flag(st == Born), true},
		{"CKA_LOCAL", "true", false},
		{"CKA_ALWAYS_SENSITIVE", "true", false},
		{"CKA_NEVER_EXTRACTABLE", "true", false},
		{"CKA_KEY_GEN_MECHANISM", c.generate, false},
	}
}

func (s Spec) public(st Stage) []rule {
	c := curveOf(s.Algorithm)
	return []rule{
		{"CKA_CLASS", "CKO_PUBLIC_KEY", true},
		{"CKA_KEY_TYPE", c.keyType, true},
		{"CKA_TOKEN", flag(st != Born), true},
		{"CKA_PRIVATE", "false", true},
		{"CKA_LABEL", s.Label, true},
		{"CKA_ID", s.KeyID.String(), true},
		{"CKA_SUBJECT", "", false},
		{"CKA_START_DATE", "", false},
		{"CKA_END_DATE", "", false},
		{"CKA_EC_PARAMS", c.params, true},
		{"CKA_VERIFY", "true", true},
		{"CKA_VERIFY_RECOVER", "false", true},
		{"CKA_ENCRYPT", "false", true},
		{"CKA_WRAP", "false", true},
		{"CKA_DERIVE", "false", true},
		// Only an SO may say true, so the token's own value is read back.
		{"CKA_TRUSTED", "false", false},
		{"CKA_ALLOWED_MECHANISMS", c.sign, true},
		{"CKA_DESTROYABLE", "true", true},
		{"CKA_COPYABLE", flag(st != Direct), true},
		{"CKA_MODIFIABLE", flag(st == Born), true},
		{"CKA_LOCAL", "true", false},
		{"CKA_KEY_GEN_MECHANISM", c.generate, false},
	}
}

func pick(rs []rule, all bool) []Attribute {
	out := make([]Attribute, 0, len(rs))
	for _, r := range rs {
		if all || r.given {
			out = append(out, Attribute{r.name, r.value})
		}
	}
	return out
}

// Request returns the attributes to state at birth.
func (s Spec) Request() Pair {
	st := s.Stage()
	return Pair{pick(s.private(st), false), pick(s.public(st), false)}
}

// Expect returns every attribute that the key must show at the stage.
func (s Spec) Expect(st Stage) Pair {
	return Pair{pick(s.private(st), true), pick(s.public(st), true)}
}

// GenerateMechanism returns the name of the mechanism that makes such a pair.
func (s Spec) GenerateMechanism() string { return curveOf(s.Algorithm).generate }

// CopyRequest returns the attributes that turn a born object into a stored
// one, in the order in which they must be given: SoftHSM applies them one by
// one, and nothing can be set after MODIFIABLE.
func CopyRequest(private bool) []Attribute {
	return []Attribute{{"CKA_TOKEN", "true"}, {"CKA_PRIVATE", flag(private)}, {"CKA_MODIFIABLE", "false"}}
}

// ReadList returns the names of all attributes that are read back, of either
// half of a pair.
func ReadList(private bool) []string {
	rs := Spec{}.public(Stored)
	if private {
		rs = Spec{}.private(Stored)
	}
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.name
	}
	return out
}

// Verify compares both halves with what the spec asks for at the stage.
func (s Spec) Verify(st Stage, got Pair) error {
	want := s.Expect(st)
	if err := Compare(want.Private, got.Private); err != nil {
		return fmt.Errorf("private key %q: %w", s.Label, err)
	}
	if err := Compare(want.Public, got.Public); err != nil {
		return fmt.Errorf("public key %q: %w", s.Label, err)
	}
	return nil
}

// Compare reports every difference between the attributes wanted and those
// read back. An attribute that is missing, unreported, repeated or not asked
// for is a difference too.
func Compare(want, got []Attribute) error {
	have := make(map[string]string, len(got))
	var bad []string
	for _, a := range got {
		if _, twice := have[a.Name]; twice {
			bad = append(bad, a.Name+" twice")
		}
		have[a.Name] = a.Value
	}
	for _, a := range want {
		v, ok := have[a.Name]
		switch {
		case !ok:
			bad = append(bad, a.Name+" missing")
		case v != a.Value:
			bad = append(bad, fmt.Sprintf("%s is %q, not %q", a.Name, v, a.Value))
		}
		delete(have, a.Name)
	}
	for _, a := range got {
		if _, extra := have[a.Name]; extra {
			bad = append(bad, a.Name+" not asked for")
			delete(have, a.Name)
		}
	}
	if len(bad) > 0 {
		return &DifferenceError{bad}
	}
	return nil
}

// DifferenceError lists the attributes in which a key differs from its spec.
type DifferenceError struct{ Differences []string }

func (e *DifferenceError) Error() string {
	return "attributes differ: " + strings.Join(e.Differences, ", ")
}

// FaultClass says "verify" (exit code 14).
func (e *DifferenceError) FaultClass() string { return "verify" }
