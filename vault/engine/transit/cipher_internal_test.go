package transit

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os/exec"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
)

// TestCiphertextIsPlainGCM: openssl, given the key out of the store, decrypts what
// the engine encrypted: GCM is counter mode from block 2 (NIST SP 800-38D).
func TestCiphertextIsPlainGCM(t *testing.T) {
	b := enginetest.New(t, "transit", "transit")
	b.World.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "k", Software: &charter.SoftwareKey{MinDecryption: 1, MinEncryption: 1, Type: typeAES, Versions: 1}})
	e := New(b.Host)
	if err := b.Found(e); err != nil {
		t.Fatal(err)
	}
	plain := []byte("recipe 7, longer than a block")
	a, err := b.Do(e, engine.Write, "encrypt/k", map[string]string{"plaintext": base64.StdEncoding.EncodeToString(plain)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(enginetest.Data(t, a)["ciphertext"].(string), "vault:v1:"))
	if err != nil || len(raw) != 12+len(plain)+16 {
		t.Fatalf("%d bytes: %v", len(raw), err)
	}
	u, err := e.use("k")
	if err != nil {
		t.Fatal(err)
	}
	s, err := u.version(1)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "openssl", "enc", "-d", "-aes-256-ctr", "-K", hex.EncodeToString(s.Secret), "-iv", hex.EncodeToString(raw[:12])+"00000002")
	cmd.Stdin = bytes.NewReader(raw[12 : len(raw)-16])
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, plain) {
		t.Errorf("openssl gives %q: %v", out, err)
	}
	secret := s.Secret
	u.wipe()
	if !bytes.Equal(secret, make([]byte, secretBytes)) {
		t.Error("the key was not wiped")
	}
}

// FuzzMade: whatever a client says the engine made is taken in its one spelling.
func FuzzMade(f *testing.F) {
	for _, s := range []string{"vault:v1:AAAA", "vault:v0:", "vault:v01:x", "vault:v10:", "vault:v1", "v1:AAAA", "vault:v-1:x", "vault:v+1:x", ""} {
		f.Add(s)
	}
	k := &key{minDec: 2, latest: 12}
	f.Fuzz(func(t *testing.T, s string) {
		n, rest, err := k.parseMade(s)
		if err == nil && (n < 2 || n > 12 || prefix(n)+rest != s) {
			t.Errorf("%q is taken as version %d of %q", s, n, rest)
		}
	})
}

// FuzzStored: a value of the store that is none is an error.
func FuzzStored(f *testing.F) {
	f.Add([]byte(`{"created":"2026-11-22T02:00:00Z","format":"keyrite/transit-version/v1","mac":"","secret":"","type":"hmac"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseStored(raw)
		if err == nil && (len(s.MAC) != secretBytes || len(s.Secret) == 0) {
			t.Errorf("%q is taken", raw)
		}
	})
}
