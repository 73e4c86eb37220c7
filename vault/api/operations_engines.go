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
		Version      int    `json:"version"`
		CreatedTime  string `json:"created_time"`
		DeletionTime string `json:"deletion_time"`
		Destroyed    bool   `json:"destroyed"`
	}
	kvAnswer struct {
		Data     anyMap `json:"data"`
		Metadata kvMeta `json:"metadata"`
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
		SerialNumber string   `json:"serial_number"`
		Expiration   int      `json:"expiration"`
	}
)

// engines are the paths below mounts, by the kind of engine.
func engines() []operation {
	const kv, transit, pki = "{kv}", "{transit}", "{pki}"
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
		{"GET", transit + "/keys/{name}", "A key: kind, versions, public halves", false, nil, anyMap{}, ""},
		{"POST", transit + "/sign/{name}", "Sign", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/sign/{name}/{hash}", "Sign with a named hash", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/verify/{name}", "Verify", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/verify/{name}/{hash}", "Verify with a named hash", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/encrypt/{name}", "Encrypt", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/decrypt/{name}", "Decrypt", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/rewrap/{name}", "Encrypt anew under the newest version", false, transitIn{}, transitOut{}, ""},
		{"POST", transit + "/hmac/{name}", "Make an HMAC", false, transitIn{}, anyMap{}, ""},
		{"POST", pki + "/issue/{role}", "Make a key and its certificate", false, pkiIn{}, pkiOut{}, ""},
		{"POST", pki + "/sign/{role}", "Certify a key", false, pkiIn{}, pkiOut{}, ""},
		{"POST", pki + "/revoke", "Revoke a certificate", false, anyMap{}, anyMap{}, ""},
		{"GET", pki + "/ca/pem", "The issuer's certificate", false, nil, nil, "application/pem-certificate-chain"},
		{"GET", pki + "/crl", "The list of revoked certificates", false, nil, nil, "application/pkix-crl"},
	}
}
