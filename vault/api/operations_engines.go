package api

// Types of the engines' requests and answers, for the document.
type (
	kvWrite struct {
		Data    anyMap     `json:"data"`
		Options *kvOptions `json:"options,omitempty"`
	}
	kvOptions struct {
		CAS int `json:"cas,omitempty" doc:"version that must be the newest; 0 if there must be none"`
	}
	kvRead struct {
		Version int `json:"version,omitempty" doc:"0 for the newest"`
	}
	kvVersions struct {
		Versions []int `json:"versions"`
	}
	kvMeta struct {
		Version        int    `json:"version"`
		CreatedTime    string `json:"created_time"`
		CustomMetadata anyMap `json:"custom_metadata" doc:"names and texts; null if there are none"`
		DeletionTime   string `json:"deletion_time"`
		Destroyed      bool   `json:"destroyed"`
	}
	kvAnswer struct {
		Data     anyMap `json:"data"`
		Metadata kvMeta `json:"metadata"`
	}
	kvSettings struct {
		CASRequired        bool   `json:"cas_required,omitempty"`
		CustomMetadata     anyMap `json:"custom_metadata,omitempty" doc:"names and texts"`
		DeleteVersionAfter string `json:"delete_version_after,omitempty" doc:"such as 3600 or 1h; 0s: as the mount"`
		MaxVersions        int    `json:"max_versions,omitempty" doc:"0: as the mount"`
	}
	kvNames struct {
		Depth   int `json:"depth,omitempty" doc:"0 for all"`
		Version int `json:"version,omitempty" doc:"0 for the newest"`
	}
	tokenIn struct {
		TTL string `json:"ttl,omitempty" doc:"shorter than the role's"`
	}
	tokenOut struct {
		Expires string `json:"expires"`
		ID      string `json:"id" doc:"the claim jti"`
		KeyID   string `json:"key_id"`
		Token   string `json:"token" doc:"RFC 7519"`
		TTL     int    `json:"ttl" doc:"in seconds"`
	}
	passwordIn struct {
		Policy string `json:"policy"`
	}
	passwordRotate struct {
		CAS    int    `json:"cas,omitempty" doc:"version that must be the newest"`
		Policy string `json:"policy,omitempty" doc:"another one from now on"`
	}
	passwordBack struct {
		CAS     int `json:"cas,omitempty" doc:"version that must be the newest"`
		Version int `json:"version"`
	}
	passwordMade struct {
		Policy     string `json:"policy"`
		RotateTime string `json:"rotate_time" doc:"empty for never"`
		Version    int    `json:"version"`
	}
	passwordOut struct {
		CreatedTime   string `json:"created_time"`
		Password      string `json:"password"`
		Policy        string `json:"policy"`
		PolicyVersion int    `json:"policy_version"`
		RestoredFrom  int    `json:"restored_from,omitempty"`
		RotateTime    string `json:"rotate_time" doc:"empty for never"`
		Version       int    `json:"version"`
	}
	passwordVersion struct {
		Version int `json:"version,omitempty" doc:"without it: which there are"`
	}
	transitIn struct {
		Input      string   `json:"input,omitempty" doc:"base64"`
		Plaintext  string   `json:"plaintext,omitempty" doc:"base64"`
		Ciphertext string   `json:"ciphertext,omitempty"`
		Signature  string   `json:"signature,omitempty"`
		Prehashed  bool     `json:"prehashed,omitempty"`
		KeyVersion int      `json:"key_version,omitempty" doc:"0 for the newest"`
		BatchInput []anyMap `json:"batch_input,omitempty"`
	}
	transitOut struct {
		Signature  string `json:"signature,omitempty" doc:"vault:vN:base64"`
		Ciphertext string `json:"ciphertext,omitempty"`
		Plaintext  string `json:"plaintext,omitempty" doc:"base64"`
		Valid      bool   `json:"valid,omitempty"`
		KeyVersion int    `json:"key_version,omitempty" doc:"that signed or encrypted"`
	}
	pkiIn struct {
		CommonName string `json:"common_name,omitempty"`
		AltNames   string `json:"alt_names,omitempty"`
		IPSans     string `json:"ip_sans,omitempty"`
		URISans    string `json:"uri_sans,omitempty"`
		TTL        string `json:"ttl,omitempty"`
		CSR        string `json:"csr,omitempty" doc:"PEM; sign only"`
	}
	pkiOut struct {
		Certificate  string   `json:"certificate"`
		IssuingCA    string   `json:"issuing_ca"`
		CAChain      []string `json:"ca_chain"`
		PrivateKey   string   `json:"private_key,omitempty"`
		KeyType      string   `json:"private_key_type,omitempty"`
		SerialNumber string   `json:"serial_number"`
		Expiration   int      `json:"expiration"`
	}
)

// engines are the paths below mounts, by the kind of engine.
func engines() []operation {
	const kv, transit, pki, tokens, passwords = "{kv}", "{transit}", "{pki}", "{token}", "{password}"
	return []operation{
		{"GET", kv + "/data/{path}", "Read a secret", false, kvRead{}, kvAnswer{}, ""},
		{"POST", kv + "/data/{path}", "Write a new version", false, kvWrite{}, kvMeta{}, ""},
		{"PATCH", kv + "/data/{path}", "Write a new version from the newest (merge patch)", false, kvWrite{}, kvMeta{}, ""},
		{"DELETE", kv + "/data/{path}", "Delete the newest version", false, nil, nil, ""},
		{"POST", kv + "/delete/{path}", "Delete versions", false, kvVersions{}, nil, ""},
		{"POST", kv + "/undelete/{path}", "Bring deleted versions back", false, kvVersions{}, nil, ""},
		{"POST", kv + "/destroy/{path}", "Destroy versions for good", false, kvVersions{}, nil, ""},
		{"GET", kv + "/metadata/{path}", "Versions of a secret; with ?list=true the names below", false, nil, anyMap{}, ""},
		{"DELETE", kv + "/metadata/{path}", "Remove a secret with all versions", false, nil, nil, ""},
		{"POST", kv + "/metadata/{path}", "Settings of a secret", false, kvSettings{}, nil, ""},
		{"PATCH", kv + "/metadata/{path}", "Some settings of a secret (merge patch)", false, kvSettings{}, nil, ""},
		{"GET", kv + "/subkeys/{path}", "The names in a secret, without values", false, kvNames{}, anyMap{}, ""},
		{"GET", kv + "/config", "How versions are kept; the charter changes it", false, nil, kvSettings{}, ""},
		{"POST", tokens + "/token/{role}", "A short-lived token for another service", false, tokenIn{}, tokenOut{}, ""},
		{"GET", tokens + "/role/{role}", "What the charter says of a role", false, nil, anyMap{}, ""},
		{"GET", tokens + "/jwks", "The keys that tokens are checked with (RFC 7517)", false, nil, nil, "application/json"},
		{"GET", tokens + "/.well-known/openid-configuration", "Where the keys are", false, nil, nil, "application/json"},
		{"GET", passwords + "/password/{path}", "Read a password; with ?list=true the names below", false, nil, passwordOut{}, ""},
		{"POST", passwords + "/password/{path}", "Make a password", false, passwordIn{}, passwordMade{}, ""},
		{"DELETE", passwords + "/password/{path}", "Remove a password with all versions", false, nil, nil, ""},
		{"POST", passwords + "/rotate/{path}", "Make the next version", false, passwordRotate{}, passwordMade{}, ""},
		{"POST", passwords + "/rollback/{path}", "Make the next version the same as an earlier one", false, passwordBack{}, passwordMade{}, ""},
		{"GET", passwords + "/history/{path}", "Earlier versions", false, passwordVersion{}, anyMap{}, ""},
		{"GET", passwords + "/policy/{policy}", "What the charter says of a policy", false, nil, anyMap{}, ""},
		{"GET", passwords + "/policy/{policy}/generate", "A password that is not kept", false, nil, anyMap{}, ""},
		{"GET", transit + "/keys/{name}", "A key: kind, versions, public halves", false, nil, anyMap{}, ""},
		{"POST", transit + "/sign/{name}", "Sign", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/sign/{name}/{hash}", "Sign with a named hash", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/verify/{name}", "Verify", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/verify/{name}/{hash}", "Verify with a named hash", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/encrypt/{name}", "Encrypt", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/decrypt/{name}", "Decrypt", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/rewrap/{name}", "Encrypt anew under the newest version", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/hmac/{name}", "Make an HMAC", false, transitIn{}, anyMap{}, ""},
		{"POST", transit + "/hmac/{name}/{hash}", "Make an HMAC with a named hash", false, transitIn{}, anyMap{}, ""},
		{"POST", transit + "/datakey/plaintext/{name}", "A key for the caller's own use, in clear and encrypted", false, anyMap{}, anyMap{}, ""},
		{"POST", transit + "/datakey/wrapped/{name}", "A key for the caller's own use, encrypted", false, anyMap{}, anyMap{}, ""},
		{"POST", transit + "/random", "Random bytes", false, anyMap{}, anyMap{}, ""},
		{"POST", transit + "/random/{source}/{bytes}", "Random bytes of this host (platform), the token (seal) or both (all)", false, anyMap{}, anyMap{}, ""},
		{"POST", transit + "/hash/{hash}", "Hash", false, anyMap{}, anyMap{}, ""},
		{"GET", transit + "/releases/{name}", "What was approved for a key, and what became of it", false, nil, anyMap{}, ""},
		{"POST", pki + "/issue/{role}", "Make a key and its certificate", false, pkiIn{}, pkiOut{}, ""},
		{"POST", pki + "/sign/{role}", "Certify a key", false, pkiIn{}, pkiOut{}, ""},
		{"POST", pki + "/revoke", "Revoke a certificate", false, anyMap{}, anyMap{}, ""},
		{"GET", pki + "/ca/pem", "The issuer's certificate", false, nil, nil, "application/pem-certificate-chain"},
		{"GET", pki + "/ca", "The issuer's certificate, DER", false, nil, nil, "application/pkix-cert"},
		{"GET", pki + "/ca_chain", "The issuer's certificate, and those above it", false, nil, nil, "application/pem-certificate-chain"},
		{"GET", pki + "/cert/{serial}", "A certificate that was given out", false, nil, anyMap{}, ""},
		{"GET", pki + "/roles/{role}", "What the charter says of a role", false, nil, anyMap{}, ""},
		{"GET", pki + "/crl/pem", "The list of revoked certificates, PEM", false, nil, nil, "application/x-pem-file"},
		{"POST", pki + "/ocsp", "Whether a certificate holds (RFC 6960); the body is application/ocsp-request", false, anyMap{}, nil, "application/ocsp-response"},
		{"GET", pki + "/ocsp/{request}", "Whether a certificate holds; the request in base64url, padded", false, nil, nil, "application/ocsp-response"},
		{"GET", pki + "/crl", "The list of revoked certificates", false, nil, nil, "application/pkix-crl"},
	}
}
