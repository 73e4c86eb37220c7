package record

import (
	"testing"

	"go.yaml.in/yaml/v3"
)

// The same specifications, with the same hashes, stand in ceremony/script: the
// engine writes the hash and the verifier recomputes it.
func TestSpecHash(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{
			"before successors",
			`{id: firmware, safe: work, purpose: signs release statements, algorithm: p256, domain: dsse, usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: false, destroyable: true}}`,
			"c6f9c67633e147d5ed96a0c61ae2b21db9e0ef3d0f051d7308b53fa9e3512756",
		},
		{
			"every member of before attestations",
			`{id: kek-2, safe: work2, purpose: wraps, algorithm: rsa3072, domain: wrap, successor_of: kek, movable: true, usage: {sign: true, decrypt: true, encrypt: true, wrap: true, unwrap: true, wrap_with_trusted: true, derive: true, sign_recover: true, extractable: true, sensitive: true, always_authenticate: true, destroyable: true}}`,
			"76d9031298fb48cd91bf8ab39537621b83845748cf0e0b513b92ec0024d47966",
		},
		{
			"with an attestation",
			`{id: log, safe: work, purpose: signs the log, algorithm: ed25519, domain: note, attestation: quorum, usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: false, destroyable: true}}`,
			"6be21035071ae17b310000c0a96a92634608cc789cc38cf5b116e04a95bb1a31",
		},
	} {
		var k scriptKey
		if err := yaml.Unmarshal([]byte(tt.yaml), &k); err != nil {
			t.Fatal(err)
		}
		got, err := k.specHash()
		if err != nil || got != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}
