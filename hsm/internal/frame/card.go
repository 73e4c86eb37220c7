package frame

// CardKey is one P-256 key of a person's card or token. Its id is whatever the
// card gives it, one byte on a PIV card, and not a keyspec.KeyID.
type CardKey struct {
	ID        string `json:"id"` // CKA_ID, lower-case hex
	Label     string `json:"label"`
	PublicKey []byte `json:"public_key"` // SubjectPublicKeyInfo, DER
	Sign      bool   `json:"sign"`
	Derive    bool   `json:"derive"`
}

// CardUse uses one of them: Input is a SHA-256 digest to sign, or the other
// side's uncompressed point.
type CardUse struct {
	ID    string `json:"id"`
	Input []byte `json:"input"`
}

// CardMake makes the two keys of a person in a token that can: one signs, one
// derives.
type CardMake struct {
	Label  string `json:"label"`
	Sign   string `json:"sign"`   // CKA_ID, hex
	Derive string `json:"derive"` // CKA_ID, hex
}
