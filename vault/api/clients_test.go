package api_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/internal/clitest"
	"keyrite/vault/api"
	"keyrite/vault/engine"
	"keyrite/vault/engine/transit"
	"keyrite/vault/vaulttest"
)

// newTokenRig is a vault with a real work token: fwkey and boot sign from it, soft and
// softrsa are keys of the store. Its process mes may use them.
func newTokenRig(t testing.TB) *rig {
	t.Helper()
	v := vaulttest.NewWith(t, []vaulttest.Key{
		{ID: "fwkey", Algorithm: anchor.P256, Domain: anchor.DomainGeneral},
		{ID: "boot", Algorithm: anchor.Ed25519, Domain: anchor.DomainGeneral},
	})
	r := found(t, v.World)
	r.Approve(charter.TypeMount, charter.Mount{ID: "transit", Engine: "transit"})
	for _, id := range []string{"fwkey", "boot"} {
		r.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: id, TokenKey: id})
	}
	r.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "soft", Software: &charter.SoftwareKey{Type: "aes256-gcm96", Versions: 1, MinDecryption: 1, MinEncryption: 1}})
	r.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "softrsa", Software: &charter.SoftwareKey{Type: "rsa-3072", Versions: 1, MinDecryption: 1, MinEncryption: 1}})
	rules := append([]access.Rule{}, r.State.Access.Policies["line1"].Rules...)
	rules = append(rules, access.Rule{Path: "transit/*", Can: []access.Capability{access.Create, access.List, access.Read, access.Update}})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 2, Rules: rules})
	der, err := x509.MarshalPKIXPublicKey(r.ca.key.Public())
	r.ok(err)
	r.Approve(charter.TypeIdentity, charter.Identity{ID: "ci", Policies: []string{"line1"}, TTL: 600, JWT: &charter.JWT{
		Issuer: "https://ci.example.com", Audience: "keyrite", Subject: "job", Claims: map[string]string{}, Keys: []charter.JWTKey{{ID: "k1", Key: der}},
	}})
	eng := engines()
	eng["transit"] = func(h *engine.Host) (engine.Engine, error) { return transit.New(h), nil }
	r.start(v.Open(), eng, api.Limits{})
	return r
}

// TestNodeVault: the client that people use from Node works unchanged.
func TestNodeVault(t *testing.T) {
	r := newTokenRig(t)
	ca, cert, key := r.files(r.mes)
	if out, err := clitest.Node(t, "vault-client.mjs", "https://"+r.addr, ca, cert, key); err != nil || strings.TrimSpace(out) != "ok" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestHvac: the client that people use from Python works unchanged.
func TestHvac(t *testing.T) {
	r := newTokenRig(t)
	ca, cert, key := r.files(r.mes)
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/hvac_client.py", "https://"+r.addr, ca, cert, key)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCurl: requests as they stand in scripts: PUT, POST with -d, LIST, a token in either
// header, a certificate or none.
func TestCurl(t *testing.T) {
	r := newRig(t)
	ca, cert, key := r.files(r.mes)
	curl := func(args ...string) string {
		args = append([]string{"-sS", "-w", "%{http_code}", "--cacert", ca}, args...)
		args[len(args)-1] = "https://" + r.addr + "/v1/" + args[len(args)-1]
		out, err := exec.CommandContext(t.Context(), "curl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	mine := func(args ...string) string { return curl(append([]string{"--cert", cert, "--key", key}, args...)...) }
	for _, c := range []struct{ got, status, want string }{
		{mine("-X", "POST", "-d", `{"data":{"a":"b"}}`, "kv/data/line1/c"), "200", `"version":1`},
		{mine("-X", "PUT", "-H", "X-Vault-Request: true", "-d", `{"data":{"a":"c"}}`, "kv/data/line1/c"), "200", `"version":2`},
		{mine("kv/data/line1/c?version=1"), "200", `"a":"b"`},
		{mine("-X", "LIST", "kv/metadata/line1"), "200", `"keys":["c"]`},
		{mine("-X", "DELETE", "kv/data/line1/c"), "204", ""},
		{mine("--path-as-is", "kv/data/line2/../line1/c"), "400", "one spelling"},
		{mine("-X", "TRACE", "kv/data/line1/c"), "404", ""},
		{curl("kv/data/line1/c"), "403", `"class":"peer"`},
		{curl("-H", "X-Vault-Token: root", "kv/data/line1/c"), "403", `"class":"peer"`},
		{curl("-I", "sys/health"), "200", "HTTP/1.1 200"},
	} {
		if !strings.HasSuffix(c.got, c.status) || !strings.Contains(c.got, c.want) {
			t.Errorf("want %s with %q, got %s", c.status, c.want, c.got)
		}
	}
}

// TestCosignRequests: the requests that cosign v3.1.3 makes for hashivault://fwkey, as
// they were recorded, and in each answer what it reads there.
func TestCosignRequests(t *testing.T) {
	r := newTokenRig(t)
	p := r.put("auth/cert/login", "")
	token, _ := p.body["auth"].(map[string]any)["client_token"].(string)
	as := func(method, path, body string) *reply {
		return r.ask(r.client, method, path, body, "X-Vault-Token", token, "X-Vault-Request", "true")
	}
	// generate-key-pair: the charter makes keys.
	if p := as("PUT", "transit/keys/other", `{"type":"ecdsa-p256"}`); p.status != 403 || !strings.Contains(string(p.raw), "keyrite charter propose") {
		t.Errorf("make a key: %d %s", p.status, p.raw)
	}
	for name, first := range map[string]string{"fwkey": "-----BEGIN PUBLIC KEY-----", "boot": ""} {
		p := as("GET", "transit/keys/"+name, "")
		pub, _ := p.data("keys", "1", "public_key").(string)
		if p.status != 200 || p.data("latest_version") != 1.0 || !strings.HasPrefix(pub, first) {
			t.Fatalf("%s: %d %s", name, p.status, p.raw)
		}
		if block, _ := pem.Decode([]byte(pub)); first != "" && block == nil {
			t.Errorf("%s: %q is no PEM", name, pub)
		}
		if raw, err := base64.StdEncoding.DecodeString(pub); first == "" && (err != nil || len(raw) != 32 || p.data("keys", "1", "name") != "ed25519") {
			t.Errorf("%s: %q is no raw Ed25519 key: %s", name, pub, p.raw)
		}
	}
	sum := sha256.Sum256([]byte("blob"))
	digest, message := base64.StdEncoding.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString([]byte("blob"))
	for name, c := range map[string]struct {
		input, hash string
		holds       func(pub any, sig []byte) bool
	}{
		"fwkey": {digest, "/sha2-256", func(pub any, sig []byte) bool { return ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), sum[:], sig) }},
		"softrsa": {digest, "/sha2-256", func(pub any, sig []byte) bool {
			return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), crypto.SHA256, sum[:], sig) == nil
		}},
		"boot": {message, "", func(pub any, sig []byte) bool { return ed25519.Verify(pub.(ed25519.PublicKey), []byte("blob"), sig) }}, // as a whole, without a hash
	} {
		p := as("PUT", "transit/sign/"+name+c.hash, fmt.Sprintf(`{"input":%q,"prehashed":%v,"key_version":"0","signature_algorithm":"pkcs1v15"}`, c.input, c.hash != ""))
		sig, _ := p.data("signature").(string)
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sig, "vault:v1:"))
		if p.status != 200 || !strings.HasPrefix(sig, "vault:v1:") || err != nil {
			t.Fatalf("%s: sign: %d %s", name, p.status, p.raw)
		}
		if !c.holds(r.public(as("GET", "transit/keys/"+name, "")), raw) {
			t.Errorf("%s: the signature does not hold", name)
		}
		verify := func(raw []byte) *reply {
			return as("PUT", "transit/verify/"+name+c.hash, fmt.Sprintf(`{"input":%q,"prehashed":%v,"signature":"vault:v1:%s","signature_algorithm":"pkcs1v15"}`, c.input, c.hash != "", base64.StdEncoding.EncodeToString(raw)))
		}
		if p := verify(raw); p.status != 200 || p.data("valid") != true {
			t.Errorf("%s: verify: %d %s", name, p.status, p.raw)
		}
		raw[len(raw)-1] ^= 1
		if p := verify(raw); p.status == 200 && p.data("valid") == true {
			t.Errorf("%s: verify another: %d %s", name, p.status, p.raw)
		}
	}
}

// public is the key of an answer about one: PEM, or an Ed25519 key as it is.
func (r *rig) public(p *reply) any {
	r.t.Helper()
	text, _ := p.data("keys", "1", "public_key").(string)
	if raw, err := base64.StdEncoding.DecodeString(text); err == nil {
		return ed25519.PublicKey(raw)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		r.t.Fatalf("no key in %s", p.raw)
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	r.ok(err)
	return pub
}

// TestLongCosign: cosign itself, built from its module, signs with a key in a token of
// ours and verifies it.
func TestLongCosign(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: cosign is built from its module")
	}
	cosign := os.Getenv("KEYRITE_COSIGN")
	if cosign == "" {
		t.Fatal("KEYRITE_COSIGN names no program: scripts/test --long cosign builds it")
	}
	r := newTokenRig(t)
	// cosign shows no client certificate, so it comes with a token of a job that has none.
	token := r.jobToken()
	ca, _, _ := r.files(r.mes)
	dir := t.TempDir()
	r.ok(os.WriteFile(dir+"/blob", []byte("blob"), 0o600))
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), cosign, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "VAULT_ADDR=https://" + r.addr, "VAULT_TOKEN=" + token, "VAULT_CACERT=" + ca, "SSL_CERT_FILE=" + ca, "TRANSIT_SECRET_ENGINE_PATH=transit"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const key = "hashivault://fwkey"
	if out, err := run("public-key", "--key", key); err != nil || !strings.Contains(out, "BEGIN PUBLIC KEY") {
		t.Fatalf("public-key: %v: %s", err, out)
	}
	if out, err := run("sign-blob", "--yes", "--key", key, "--tlog-upload=false", "--use-signing-config=false", "--new-bundle-format=true", "--bundle", "b.json", "blob"); err != nil {
		t.Fatalf("sign-blob: %v: %s", err, out)
	}
	if out, err := run("verify-blob", "--key", key, "--insecure-ignore-tlog=true", "--bundle", "b.json", "blob"); err != nil || !strings.Contains(out, "Verified OK") {
		t.Fatalf("verify-blob: %v: %s", err, out)
	}
	r.ok(os.WriteFile(dir+"/blob", []byte("another"), 0o600))
	if out, err := run("verify-blob", "--key", key, "--insecure-ignore-tlog=true", "--bundle", "b.json", "blob"); err == nil {
		t.Fatalf("another blob is verified: %s", out)
	}
	if out, err := run("generate-key-pair", "--kms", "hashivault://other"); err == nil || !strings.Contains(out, "403") {
		t.Fatalf("a key is made: %v: %s", err, out)
	}
	t.Log("long: cosign signs and verifies: 1 of 1")
}

// jobToken is a token that no certificate is needed for: by JWT, of a job of CI.
func (r *rig) jobToken() string {
	r.t.Helper()
	p := r.ask(r.as(nil), "POST", "auth/jwt/login", `{"role":"ci","jwt":"`+r.job()+`"}`)
	token, _ := p.body["auth"].(map[string]any)["client_token"].(string)
	if p.status != 200 || token == "" {
		r.t.Fatalf("login of a job: %d %s", p.status, p.raw)
	}
	return token
}

// job is a token of the CI system (RFC 7519), for one login.
func (r *rig) job() string {
	r.t.Helper()
	var id [16]byte
	rand.Read(id[:])
	now := time.Now()
	part := func(v any) string {
		raw, err := json.Marshal(v)
		r.ok(err)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(map[string]any{"alg": "ES256", "kid": "k1", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "https://ci.example.com", "aud": "keyrite", "sub": "job", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": hex.EncodeToString(id[:]),
	})
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, r.ca.key, sum[:])
	r.ok(err)
	sig := make([]byte, 64)
	a.FillBytes(sig[:32])
	b.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}
