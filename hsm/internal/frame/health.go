package frame

import "keyrite/hsm/keyspec"

// HealthKey is a key that a token is expected to hold.
type HealthKey struct {
	ID        keyspec.KeyID `json:"id"`
	Label     string        `json:"label"`
	PublicKey []byte        `json:"public_key"` // SubjectPublicKeyInfo, DER
	// Attributes are compared whole where they are given.
	Attributes *keyspec.Pair `json:"attributes,omitempty"`
}

// HealthBody asks for the state of a token.
type HealthBody struct {
	Keys []HealthKey `json:"keys"`
}

// FindingKind says what is wrong in a token.
type FindingKind string

// The kinds.
const (
	// FindingFile: an object file of a file token is cut or not one.
	FindingFile FindingKind = "damaged-file"
	// FindingHidden: there are more object files than objects.
	FindingHidden FindingKind = "hidden-object"
	// FindingList: the token does not list its objects.
	FindingList FindingKind = "no-inventory"
	// FindingHalf: an object that says TOKEN=false or has no class: a half copy.
	FindingHalf FindingKind = "half-object"
	// FindingMissing: an expected key is not there.
	FindingMissing FindingKind = "missing-key"
	// FindingPair: the halves of a key cannot be read, or are not one of each.
	FindingPair FindingKind = "broken-pair"
	// FindingOther: public key, label or attributes are not those expected.
	FindingOther FindingKind = "other-key"
	// FindingUse: the private half does not do what it is for.
	FindingUse FindingKind = "unusable-key"
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind FindingKind `json:"kind"`
	Key  string      `json:"key,omitempty"` // id in hex
	Text string      `json:"text"`
}

// Health is the state of a token as a fresh process sees it.
type Health struct {
	Objects  int         `json:"objects"`
	Keys     []KeyHealth `json:"keys"`
	Findings []Finding   `json:"findings"`
}

// KeyHealth is a pair that was read whole and used once.
type KeyHealth struct {
	ID        string            `json:"id"`
	Label     string            `json:"label"`
	Algorithm keyspec.Algorithm `json:"algorithm"`
	PublicKey []byte            `json:"public_key"`
}
