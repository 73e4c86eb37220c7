package keyspec

import (
	"fmt"
	"strconv"
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

// Pair holds the attributes of both halves of a key pair, or of the one object of
// a secret key.
type Pair struct {
	Private []Attribute `json:"private"`
	Public  []Attribute `json:"public"`
	Secret  []Attribute `json:"secret,omitempty"`
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

// family is what the key pairs of one algorithm have in common.
type family struct {
	keyType, generate, sign string
	params                  string // CKA_EC_PARAMS, hex; "" for RSA
	bits                    int    // of the modulus; 0 for curves
}

func families() map[Algorithm]family {
	ec := func(oid string) family { return family{"CKK_EC", "CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA", oid, 0} }
	rsa := func(bits int, sign string) family {
		return family{"CKK_RSA", "CKM_RSA_PKCS_KEY_PAIR_GEN", sign, "", bits}
	}
	return map[Algorithm]family{
		ECDSAP256: ec("06082a8648ce3d030107"), // OID 1.2.840.10045.3.1.7, RFC 5480, Section 2.1.1.1
		ECDSAP384: ec("06052b81040022"),       // OID 1.3.132.0.34, same place
		// PrintableString "edwards25519", PKCS#11 3.0, Section 2.3.5: SoftHSM
		// shows it in the private half even where the OID was asked for.
		Ed25519:      {"CKK_EC_EDWARDS", "CKM_EC_EDWARDS_KEY_PAIR_GEN", "CKM_EDDSA", "130c656477617264733235353139", 0},
		RSA3072PKCS1: rsa(3072, "CKM_RSA_PKCS"),
		RSA4096PKCS1: rsa(4096, "CKM_RSA_PKCS"),
		RSA3072PSS:   rsa(3072, "CKM_RSA_PKCS_PSS"),
		RSA4096PSS:   rsa(4096, "CKM_RSA_PKCS_PSS"),
	}
}

// Unavailable is CKA_KEY_GEN_MECHANISM of a key that the token did not make.
const Unavailable = "CK_UNAVAILABLE_INFORMATION"

// exponent is 65537, the only public exponent that keys are made with.
const exponent = "010001"

// mechanism is the one mechanism that a key of the spec may be used with.
func (s Spec) mechanism() string {
	if s.Template == TransportUnwrap {
		return OAEP
	}
	return families()[s.Algorithm].sign
}

// origin gives LOCAL and the generating mechanism of both halves.
func (s Spec) origin(st Stage) (local, generate string) {
	if st == Moved {
		return "false", Unavailable
	}
	return "true", families()[s.Algorithm].generate
}

func (s Spec) private(st Stage) []rule {
	f := families()[s.Algorithm]
	local, generate := s.origin(st)
	movable, transport := s.Template == Movable, s.Template == TransportUnwrap
	out := []rule{
		{"CKA_CLASS", "CKO_PRIVATE_KEY", true},
		{"CKA_KEY_TYPE", f.keyType, true},
		{"CKA_TOKEN", flag(st != Born), true},
		{"CKA_PRIVATE", "true", true},
		{"CKA_LABEL", s.Label, true},
		{"CKA_ID", s.KeyID.String(), true},
		{"CKA_SUBJECT", "", false},
		{"CKA_START_DATE", "", false},
		{"CKA_END_DATE", "", false},
	}
	if f.params != "" {
		out = append(out, rule{"CKA_EC_PARAMS", f.params, false})
	} else {
		out = append(out, rule{"CKA_PUBLIC_EXPONENT", exponent, false})
	}
	out = append(out,
		rule{"CKA_SENSITIVE", "true", true},
		rule{"CKA_EXTRACTABLE", flag(movable), true},
		rule{"CKA_SIGN", flag(!transport), true},
		rule{"CKA_SIGN_RECOVER", "false", true},
		rule{"CKA_DECRYPT", "false", true},
		rule{"CKA_UNWRAP", flag(transport), true},
		rule{"CKA_DERIVE", "false", true},
		rule{"CKA_WRAP_WITH_TRUSTED", flag(movable), true},
		rule{"CKA_ALWAYS_AUTHENTICATE", flag(s.Template == RootSign), true},
		rule{"CKA_ALLOWED_MECHANISMS", s.mechanism(), true},
	)
	if transport {
		out = append(out, rule{UnwrapTemplate, encodeTemplate(UnwrapRules()), true})
	}
	return append(out,
		rule{"CKA_DESTROYABLE", "true", true},
		rule{"CKA_COPYABLE", flag(st != Direct), true},
		rule{"CKA_MODIFIABLE", flag(st == Born), true},
		rule{"CKA_LOCAL", local, false},
		rule{"CKA_ALWAYS_SENSITIVE", flag(st != Moved), false},
		rule{"CKA_NEVER_EXTRACTABLE", flag(st != Moved && !movable), false},
		rule{"CKA_KEY_GEN_MECHANISM", generate, false},
	)
}

func (s Spec) public(st Stage) []rule {
	f := families()[s.Algorithm]
	local, generate := s.origin(st)
	out := []rule{
		{"CKA_CLASS", "CKO_PUBLIC_KEY", true},
		{"CKA_KEY_TYPE", f.keyType, true},
		{"CKA_TOKEN", flag(st != Born), true},
		{"CKA_PRIVATE", "false", true},
		{"CKA_LABEL", s.Label, true},
		{"CKA_ID", s.KeyID.String(), true},
		{"CKA_SUBJECT", "", false},
		{"CKA_START_DATE", "", false},
		{"CKA_END_DATE", "", false},
	}
	if f.params != "" {
		out = append(out, rule{"CKA_EC_PARAMS", f.params, true})
	} else {
		out = append(out, rule{"CKA_MODULUS_BITS", strconv.Itoa(f.bits), true}, rule{"CKA_PUBLIC_EXPONENT", exponent, true})
	}
	return append(out,
		rule{"CKA_VERIFY", flag(s.Template != TransportUnwrap), true},
		rule{"CKA_VERIFY_RECOVER", "false", true},
		rule{"CKA_ENCRYPT", "false", true},
		// Not even the public half of a transport key wraps here: what is
		// wrapped for it is wrapped in the token that sends.
		rule{"CKA_WRAP", "false", true},
		rule{"CKA_DERIVE", "false", true},
		// Only an SO may say true, so the token's own value is read back.
		rule{"CKA_TRUSTED", "false", false},
		rule{"CKA_ALLOWED_MECHANISMS", s.mechanism(), true},
		rule{"CKA_DESTROYABLE", "true", true},
		rule{"CKA_COPYABLE", flag(st != Direct), true},
		rule{"CKA_MODIFIABLE", flag(st == Born), true},
		rule{"CKA_LOCAL", local, false},
		rule{"CKA_KEY_GEN_MECHANISM", generate, false},
	)
}

func pick(rs []rule, all bool) []Attribute {
	out := make([]Attribute, 0, len(rs))
	for _, r := range rs {
		switch {
		case all && r.name == UnwrapTemplate:
			// A token shows which attributes are in it; what they demand is
			// shown by admission, which breaks each of them.
			out = append(out, Attribute{r.name, templateNames(r.value)})
		case all || r.given:
			out = append(out, Attribute{r.name, r.value})
		}
	}
	return out
}

// Request returns the attributes to state at birth.
func (s Spec) Request() Pair {
	if s.Secret() {
		return Pair{Secret: pick(s.secretKey(), false)}
	}
	st := s.Stage()
	return Pair{Private: pick(s.private(st), false), Public: pick(s.public(st), false)}
}

// Expect returns every attribute that the key must show at the stage.
func (s Spec) Expect(st Stage) Pair {
	if s.Secret() {
		return Pair{Secret: pick(s.secretKey(), true)}
	}
	return Pair{Private: pick(s.private(st), true), Public: pick(s.public(st), true)}
}

// GenerateMechanism returns the name of the mechanism that makes such a key.
func (s Spec) GenerateMechanism() string {
	if s.Secret() {
		_, generate, _ := secretFamily(s.Algorithm)
		return generate
	}
	return families()[s.Algorithm].generate
}

// CopyRequest returns the attributes that turn a born object into a stored
// one, in the order in which they must be given: SoftHSM applies them one by
// one, and nothing can be set after MODIFIABLE.
func CopyRequest(private bool) []Attribute {
	return []Attribute{{"CKA_TOKEN", "true"}, {"CKA_PRIVATE", flag(private)}, {"CKA_MODIFIABLE", "false"}}
}

// ReadList returns the names of all attributes that are read back, of either
// half of a pair of that key type, and for a private half that unwraps.
func ReadList(private bool, keyType string, unwraps bool) []string {
	sp := Spec{Algorithm: ECDSAP256, Template: Sign}
	if keyType == "CKK_RSA" {
		sp.Algorithm = RSA3072PKCS1
	}
	if unwraps {
		sp.Template = TransportUnwrap
	}
	rs := sp.public(Stored)
	if private {
		rs = sp.private(Stored)
	}
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.name
	}
	return out
}

// AlgorithmOf tells the algorithm of a pair by the attributes of its public
// half: key type, curve or modulus, and the one mechanism it is allowed.
func AlgorithmOf(public []Attribute) (Algorithm, bool) {
	got := map[string]string{}
	for _, a := range public {
		got[a.Name] = a.Value
	}
	for alg, f := range families() {
		sign := got["CKA_ALLOWED_MECHANISMS"]
		switch {
		case got["CKA_KEY_TYPE"] != f.keyType:
		case f.params != "" && f.params == got["CKA_EC_PARAMS"]:
			return alg, true
		case f.bits != 0 && got["CKA_MODULUS_BITS"] == strconv.Itoa(f.bits) && (sign == f.sign || sign == OAEP && alg == RSA3072PKCS1):
			return alg, true
		}
	}
	return "", false
}

// Verify compares a key with what the spec asks for at the stage.
func (s Spec) Verify(st Stage, got Pair) error {
	want := s.Expect(st)
	if s.Secret() {
		if st != Direct || len(got.Private)+len(got.Public) > 0 {
			return fmt.Errorf("secret key %q: %w", s.Label, &DifferenceError{[]string{"it is a pair, or not born in the token"}})
		}
		if err := Compare(want.Secret, got.Secret); err != nil {
			return fmt.Errorf("secret key %q: %w", s.Label, err)
		}
		return nil
	}
	if len(got.Secret) > 0 {
		return fmt.Errorf("key pair %q: %w", s.Label, &DifferenceError{[]string{"it is a secret key"}})
	}
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
