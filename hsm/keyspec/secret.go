package keyspec

// secretTemplates gives the one template of each kind of secret key.
func secretTemplates() map[Algorithm]Template {
	return map[Algorithm]Template{AES256: Seal, HMACSHA256: MAC}
}

// secretFamily is what the secret keys of one algorithm have in common.
func secretFamily(a Algorithm) (keyType, generate, use string) {
	if a == AES256 {
		return "CKK_AES", "CKM_AES_KEY_GEN", "CKM_AES_GCM"
	}
	// CKK_SHA256_HMAC would say more, and fewer modules know it.
	return "CKK_GENERIC_SECRET", "CKM_GENERIC_SECRET_KEY_GEN", "CKM_SHA256_HMAC"
}

// secretKey is the template of a secret key, which is always direct. A key that
// decrypts must never wrap (Clulow 2003), and one that encrypts must never unwrap.
func (s Spec) secretKey() []rule {
	keyType, generate, use := secretFamily(s.Algorithm)
	seal, mac := s.Template == Seal, s.Template == MAC
	return []rule{
		{"CKA_CLASS", "CKO_SECRET_KEY", true},
		{"CKA_KEY_TYPE", keyType, true},
		{"CKA_TOKEN", "true", true},
		{"CKA_PRIVATE", "true", true},
		{"CKA_LABEL", s.Label, true},
		{"CKA_ID", s.KeyID.String(), true},
		{"CKA_START_DATE", "", false},
		{"CKA_END_DATE", "", false},
		{"CKA_VALUE_LEN", "32", true},
		{"CKA_SENSITIVE", "true", true},
		{"CKA_EXTRACTABLE", "false", true},
		{"CKA_ENCRYPT", flag(seal), true},
		{"CKA_DECRYPT", flag(seal), true},
		{"CKA_SIGN", flag(mac), true},
		{"CKA_VERIFY", flag(mac), true},
		{"CKA_WRAP", "false", true},
		{"CKA_UNWRAP", "false", true},
		{"CKA_DERIVE", "false", true},
		{"CKA_WRAP_WITH_TRUSTED", "false", true},
		{"CKA_TRUSTED", "false", false}, // only an SO may say true
		{"CKA_ALLOWED_MECHANISMS", use, true},
		{"CKA_DESTROYABLE", "true", true},
		{"CKA_COPYABLE", "false", true},
		{"CKA_MODIFIABLE", "false", true},
		{"CKA_LOCAL", "true", false},
		{"CKA_ALWAYS_SENSITIVE", "true", false},
		{"CKA_NEVER_EXTRACTABLE", "true", false},
		{"CKA_KEY_GEN_MECHANISM", generate, false},
	}
}

// SecretReadList returns the names of all attributes of a secret key that are read
// back.
func SecretReadList() []string {
	return Names(pick(Spec{Algorithm: AES256, Template: Seal}.secretKey(), true))
}

// SecretAlgorithmOf tells the algorithm of a secret key by its attributes: key type,
// length, and the one mechanism it is allowed.
func SecretAlgorithmOf(secret []Attribute) (Algorithm, bool) {
	got := map[string]string{}
	for _, a := range secret {
		got[a.Name] = a.Value
	}
	for alg := range secretTemplates() {
		keyType, _, use := secretFamily(alg)
		if got["CKA_KEY_TYPE"] == keyType && got["CKA_VALUE_LEN"] == "32" && got["CKA_ALLOWED_MECHANISMS"] == use {
			return alg, true
		}
	}
	return "", false
}
