package api_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/vault/api"
	"keyrite/vault/engine"
	"keyrite/vault/engine/password"
	"keyrite/vault/engine/token"
)

// newHandoutRig is a vault that hands out tokens and passwords; mes may have them, but
// no earlier version of a password.
func newHandoutRig(t *testing.T) *rig {
	t.Helper()
	r := found(t, artifacttest.New(t))
	r.Approve(charter.TypeMount, charter.Mount{ID: "tokens", Engine: "token"})
	r.Approve(charter.TypeMount, charter.Mount{ID: "pw", Engine: "password"})
	r.Approve(charter.TypeTokenRole, charter.TokenRole{
		Audience: "erp", Claims: map[string]string{"line": "1"}, Issuer: "https://vault.example/v1/tokens", Mount: "tokens", Name: "erp",
		Software: &charter.TokenKeys{Algorithm: "EdDSA", Oldest: 1, Signing: 1, Versions: 1}, Subject: "{identity}", TTL: 60, Version: 1,
	})
	r.Approve(charter.TypePasswordPolicy, charter.PasswordPolicy{
		Alphabets: []charter.Alphabet{{Characters: "abcdefghijklmnopqrstuvwxyz"}}, History: 3, Length: 20, Mount: "pw", Name: "plc", Version: 1,
	})
	most := []access.Capability{access.Create, access.Delete, access.List, access.Read, access.Update}
	rules := append([]access.Rule{}, r.State.Access.Policies["line1"].Rules...)
	rules = append(rules, access.Rule{Path: "tokens/*", Can: most}, access.Rule{Path: "pw/*", Can: most}, access.Rule{Path: "pw/history/*", Can: []access.Capability{access.Deny}})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 2, Rules: rules})
	eng := engines()
	eng["token"] = func(h *engine.Host) (engine.Engine, error) { return token.New(h), nil }
	eng["password"] = func(h *engine.Host) (engine.Engine, error) { return password.New(h), nil }
	r.start(nil, eng, api.Limits{})
	return r
}

// TestHandsOutTokens: over the wire a token comes as clients read it, the keys as services
// do, and what only the charter changes says so (R-CER-18).
func TestHandsOutTokens(t *testing.T) {
	r := newHandoutRig(t)
	p := r.put("tokens/token/erp", "")
	tok, _ := p.data("token").(string)
	parts := strings.Split(tok, ".")
	if p.status != 200 || len(parts) != 3 || p.data("ttl") != 60.0 {
		t.Fatalf("%d %s", p.status, p.raw)
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !strings.Contains(string(claims), `"sub":"mes"`) {
		t.Errorf("claims are %s (%v)", claims, err)
	}
	p = r.get("tokens/jwks")
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(p.raw, &set); err != nil || p.status != 200 || len(set.Keys) != 1 || set.Keys[0]["kty"] != "OKP" || p.header.Get("Content-Type") != "application/json" {
		t.Errorf("keys are %d %s", p.status, p.raw)
	}
	if p := r.get("tokens/.well-known/openid-configuration"); p.status != 200 || p.body["issuer"] != "https://vault.example/v1/tokens" {
		t.Errorf("discovery is %d %s", p.status, p.raw)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "tokens/token/erp", "", 404},
		{"PUT", "tokens/token/other", "", 404},
		{"PUT", "tokens/token/erp", `{"ttl":"1h"}`, 400},
		{"PUT", "tokens/role/erp", `{"ttl":60}`, 403},
		{"LIST", "tokens/role", "", 200},
		{"GET", "tokens/role/erp", "", 200},
	} {
		if p := r.ask(r.client, c.method, c.path, c.body); p.status != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, p.status, p.raw)
		}
	}
	if p := r.ask(r.as(nil), "GET", "tokens/jwks", ""); p.status != 403 {
		t.Errorf("keys for a stranger: %d %s", p.status, p.raw)
	}
}

// TestHandsOutPasswords: over the wire a password is made, read and rotated, and its
// history is denied where a policy says so (R-CER-19).
func TestHandsOutPasswords(t *testing.T) {
	r := newHandoutRig(t)
	steps := []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "pw/password/a", `{"policy":"plc"}`, 200},
		{"PUT", "pw/password/a", `{"policy":"plc"}`, 400},
		{"GET", "pw/password/a", "", 200},
		{"POST", "pw/rotate/a", `{"cas":1}`, 200},
		{"POST", "pw/rotate/a", `{"cas":1}`, 400},
		{"GET", "pw/history/a?version=1", "", 403},
		{"POST", "pw/rollback/a", `{"version":1}`, 200},
		{"GET", "pw/policy/plc/generate", "", 200},
		{"PUT", "pw/policy/plc", `{}`, 403},
		{"LIST", "pw/password", "", 200},
		{"GET", "pw/password?list=true", "", 200},
		{"DELETE", "pw/password/a", "", 204},
		{"GET", "pw/password/a", "", 404},
	}
	for _, c := range steps {
		p := r.ask(r.client, c.method, c.path, c.body)
		if p.status != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, p.status, p.raw)
		}
		secret := fmt.Sprint(p.data("password"))
		if reads := c.method == "GET" && p.status == 200 && !strings.Contains(c.path, "?"); reads != (len(secret) == 20) {
			t.Errorf("%s %s: %s", c.method, c.path, p.raw)
		}
	}
}
