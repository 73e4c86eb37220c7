package keyspec

import (
	"slices"
	"strings"
)

// Names that the transport templates share.
const (
	// OAEP is the only mechanism of a receiver key: PKCS#1 v1.5 padding tells an
	// attacker whether his guess was right (Bardou et al. 2012).
	OAEP = "CKM_RSA_PKCS_OAEP"
	// WrapPad wraps the travelling key: RFC 5649, of any length.
	WrapPad = "CKM_AES_KEY_WRAP_PAD"
	// UnwrapTemplate is the attribute that binds what a key may unwrap.
	UnwrapTemplate = "CKA_UNWRAP_TEMPLATE"
)

// UnwrapRules is what a receiver key demands of everything it unwraps: a key
// that unwraps, is never shown, never leaves, and dies with its session.
func UnwrapRules() []Attribute {
	return []Attribute{
		{"CKA_TOKEN", "false"},
		{"CKA_SENSITIVE", "true"},
		{"CKA_EXTRACTABLE", "false"},
		{"CKA_ENCRYPT", "false"},
		{"CKA_DECRYPT", "false"},
		{"CKA_WRAP", "false"},
		{"CKA_UNWRAP", "true"},
	}
}

func encodeTemplate(as []Attribute) string {
	parts := make([]string, len(as))
	for i, a := range as {
		parts[i] = a.Name + "=" + a.Value
	}
	return strings.Join(parts, " ")
}

// ParseTemplate reads the text form of a template inside an attribute.
func ParseTemplate(s string) []Attribute {
	var out []Attribute
	for part := range strings.FieldsSeq(s) {
		name, value, _ := strings.Cut(part, "=")
		out = append(out, Attribute{name, value})
	}
	return out
}

// templateNames is the part of the text form that a token shows: the names,
// sorted.
func templateNames(s string) string {
	var names []string
	for _, a := range ParseTemplate(s) {
		names = append(names, a.Name)
	}
	return JoinNames(names)
}

// Wrapping is the template of the AES-256 key that wraps one key on its way out
// (transport-wrap). The SO makes it, trusted, as a public session object: SoftHSM
// shows an SO no private one, and lets nobody else say TRUSTED. It can be used
// only by a session of the same process, ends with it, and may itself leave only
// under a trusted key.
func Wrapping(label string, id KeyID) (request, expect []Attribute) {
	rs := append(secret(label, id),
		rule{"CKA_PRIVATE", "false", true},
		rule{"CKA_EXTRACTABLE", "true", true},
		rule{"CKA_WRAP", "true", true},
		rule{"CKA_UNWRAP", "false", true},
		rule{"CKA_TRUSTED", "true", true},
		rule{"CKA_WRAP_WITH_TRUSTED", "true", true},
		rule{"CKA_VALUE_LEN", "32", true},
		rule{"CKA_COPYABLE", "false", true},
		rule{"CKA_MODIFIABLE", "false", true},
		rule{"CKA_LOCAL", "true", false},
		rule{"CKA_ALWAYS_SENSITIVE", "true", false},
		rule{"CKA_NEVER_EXTRACTABLE", "false", false},
		rule{"CKA_KEY_GEN_MECHANISM", "CKM_AES_KEY_GEN", false},
	)
	return pick(rs, false), pick(rs, true)
}

// Unwrapping is the template of the same key where it arrives: it unwraps and
// does nothing else, for the life of one request.
func Unwrapping(label string, id KeyID) (request, expect []Attribute) {
	rs := append(secret(label, id),
		rule{"CKA_PRIVATE", "true", true},
		rule{"CKA_EXTRACTABLE", "false", true},
		rule{"CKA_WRAP", "false", true},
		rule{"CKA_UNWRAP", "true", true},
		rule{"CKA_WRAP_WITH_TRUSTED", "false", true},
		rule{"CKA_COPYABLE", "false", true},
		// SoftHSM refuses MODIFIABLE in C_UnwrapKey; the key has no other user
		// than the request that made it.
		rule{"CKA_LOCAL", "false", false},
		rule{"CKA_ALWAYS_SENSITIVE", "false", false},
		rule{"CKA_NEVER_EXTRACTABLE", "false", false},
	)
	return pick(rs, false), pick(rs, true)
}

func secret(label string, id KeyID) []rule {
	return []rule{
		{"CKA_CLASS", "CKO_SECRET_KEY", true},
		{"CKA_KEY_TYPE", "CKK_AES", true},
		{"CKA_TOKEN", "false", true},
		{"CKA_LABEL", label, true},
		{"CKA_ID", id.String(), true},
		{"CKA_SENSITIVE", "true", true},
		{"CKA_ENCRYPT", "false", true},
		{"CKA_DECRYPT", "false", true},
		{"CKA_SIGN", "false", true},
		{"CKA_VERIFY", "false", true},
		{"CKA_DERIVE", "false", true},
		{"CKA_ALLOWED_MECHANISMS", WrapPad, true},
		{"CKA_DESTROYABLE", "true", true},
	}
}

// Receiver is the template of the receiver's public half where the key leaves:
// trusted, since a movable key is wrapped under nothing else, and good for
// wrapping alone. Modulus and exponent are added by the caller.
func Receiver(label string, id KeyID) (request, expect []Attribute) {
	rs := []rule{
		{"CKA_CLASS", "CKO_PUBLIC_KEY", true},
		{"CKA_KEY_TYPE", "CKK_RSA", true},
		{"CKA_TOKEN", "false", true},
		{"CKA_PRIVATE", "false", true},
		{"CKA_LABEL", label, true},
		{"CKA_ID", id.String(), true},
		{"CKA_ENCRYPT", "false", true},
		{"CKA_VERIFY", "false", true},
		{"CKA_VERIFY_RECOVER", "false", true},
		{"CKA_WRAP", "true", true},
		{"CKA_DERIVE", "false", true},
		{"CKA_TRUSTED", "true", true},
		{"CKA_ALLOWED_MECHANISMS", OAEP, true},
		{"CKA_DESTROYABLE", "true", true},
		{"CKA_COPYABLE", "false", true},
		{"CKA_MODIFIABLE", "false", true},
		{"CKA_LOCAL", "false", false},
	}
	return pick(rs, false), pick(rs, true)
}

// Arriving is what C_UnwrapKey is asked for at the receiving end: the private
// half of the spec as a session object, every attribute stated but MODIFIABLE,
// which SoftHSM refuses there and which the copy into the token sets.
func (s Spec) Arriving() []Attribute {
	var out []Attribute
	for _, a := range pick(s.private(Born), false) {
		if a.Name != "CKA_MODIFIABLE" {
			out = append(out, a)
		}
	}
	return out
}

// ArrivingPublic is what the public half is created with at the receiving end;
// the caller adds the key itself.
func (s Spec) ArrivingPublic() []Attribute {
	var out []Attribute
	for _, a := range pick(s.public(Born), false) {
		if a.Name != "CKA_MODULUS_BITS" {
			out = append(out, a)
		}
	}
	return out
}

// Names lists the attributes of a template in its order.
func Names(as []Attribute) []string {
	out := make([]string, len(as))
	for i, a := range as {
		out[i] = a.Name
	}
	return out
}

// JoinNames is the text form of a list of attribute names, sorted.
func JoinNames(names []string) string {
	slices.Sort(names)
	return strings.Join(names, " ")
}
