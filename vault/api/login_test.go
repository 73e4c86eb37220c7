package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/vault/api"
)

const uriOrchestrator = "spiffe://example.com/orchestrator"

// newLoginRig is a vault that knows a job, a role, and who may ask for its secret ids.
func newLoginRig(t *testing.T) (*rig, *ecdsa.PrivateKey) {
	t.Helper()
	r := found(t, artifacttest.New(t))
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.ok(err)
	pub, err := x509.MarshalPKIXPublicKey(k.Public())
	r.ok(err)
	r.Approve(charter.TypeIdentity, charter.Identity{ID: "build", Policies: []string{"line1"}, TTL: 60, JWT: &charter.JWT{
		Audience: "https://vault.example", Claims: map[string]string{"ref": "refs/heads/main"}, Issuer: "https://ci.example", Subject: "repo:plant", Keys: []charter.JWTKey{{ID: "k1", Key: pub}},
	}})
	r.Approve(charter.TypeIdentity, charter.Identity{ID: "historian", Policies: []string{"line1"}, TTL: 60, AppRole: &charter.AppRole{Networks: []string{"127.0.0.0/8"}}})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "orchestrator", Version: 1, Rules: []access.Rule{{Path: "auth/approle/role/historian/secret-id", Can: []access.Capability{access.Update}}}})
	r.Approve(charter.TypeIdentity, charter.Identity{ID: "orchestrator", Policies: []string{"orchestrator"}, TTL: 60, Certificate: &charter.Certificate{CA: r.ca.cert.Raw, URI: uriOrchestrator}})
	r.start(nil, engines(), api.Limits{})
	return r, k
}

// jobToken is a token of the CI system with an id.
func jobToken(t *testing.T, k *ecdsa.PrivateKey, id string) string {
	t.Helper()
	now := time.Now().Unix()
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	body := part(map[string]any{"alg": "ES256", "kid": "k1"}) + "." + part(map[string]any{"iss": "https://ci.example", "aud": "https://vault.example", "sub": "repo:plant", "ref": "refs/heads/main", "jti": id, "iat": now, "exp": now + 60})
	sum := sha256.Sum256([]byte(body))
	a, b, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	a.FillBytes(sig[:32])
	b.FillBytes(sig[32:])
	return body + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// loggedIn is the token of a login that must succeed.
func (r *rig) loggedIn(c *http.Client, means, body string) string {
	r.t.Helper()
	p := r.ask(c, http.MethodPost, "auth/"+means+"/login", body)
	auth, _ := p.body["auth"].(map[string]any)
	tok, _ := auth["client_token"].(string)
	if p.status != 200 || !strings.HasPrefix(tok, "krt.") {
		r.t.Fatalf("login by %s: %d %s", means, p.status, p.raw)
	}
	return tok
}

// TestLogins: processes log in over the wire by certificate, job and secret id; a token
// of a certificate counts with that certificate only, a job's and a secret id once
// (R-CER-17, R-CER-18).
func TestLogins(t *testing.T) {
	r, k := newLoginRig(t)
	nobody := r.as(nil)
	reads := func(c *http.Client, tok string) bool {
		switch p := r.ask(c, http.MethodGet, "kv/data/line1/x", "", "X-Vault-Token", tok); p.status {
		case 404: // there is none, and it is told so
			return true
		case 401, 403:
			return false
		default:
			t.Errorf("%d %s", p.status, p.raw)
			return false
		}
	}
	tok := r.loggedIn(r.client, "cert", `{"name":"mes"}`)
	twin := r.ca.issue(t, "mes", uriMES, nil)
	if !reads(r.client, tok) || reads(nobody, tok) || reads(r.as(&twin), tok) {
		t.Error("a token of a certificate counts without it, or not with it")
	}
	if p := r.ask(r.client, http.MethodPut, "auth/token/renew-self", `{"increment":"300s"}`, "X-Vault-Token", tok); p.status != 200 {
		t.Errorf("renew: %d %s", p.status, p.raw)
	}
	if p := r.ask(r.client, http.MethodGet, "auth/token/lookup-self", "", "X-Vault-Token", tok); p.data("display_name") != "mes" {
		t.Errorf("look up: %d %s", p.status, p.raw)
	}
	if p := r.ask(r.client, http.MethodPut, "auth/token/revoke-self", "", "X-Vault-Token", tok); p.status != 204 || reads(r.client, tok) {
		t.Errorf("revoke: %d %s", p.status, p.raw)
	}

	job := fmt.Sprintf(`{"role":"build","jwt":%q}`, jobToken(t, k, "1"))
	if !reads(nobody, r.loggedIn(nobody, "jwt", job)) {
		t.Error("a job's token does not count")
	}
	if p := r.ask(nobody, http.MethodPost, "auth/jwt/login", job); p.status == 200 {
		t.Error("a job's token counts twice")
	}

	orchestrator := r.ca.issue(t, "o", uriOrchestrator, nil)
	p := r.ask(r.as(&orchestrator), http.MethodPost, "auth/approle/role/historian/secret-id", `{"ttl":"60s"}`)
	role := fmt.Sprintf(`{"role_id":"historian","secret_id":%q}`, p.data("secret_id"))
	if !reads(nobody, r.loggedIn(nobody, "approle", role)) {
		t.Error("a secret id does not count")
	}
	if p := r.ask(nobody, http.MethodPost, "auth/approle/login", role); p.status == 200 {
		t.Error("a secret id counts twice")
	}
	if p := r.put("auth/approle/role/historian/secret-id", ""); p.status != 403 {
		t.Errorf("without a rule: %d %s", p.status, p.raw)
	}
}

// TestStrangers: whoever is not known gets the same answer, byte for byte but for the
// id of the request, whatever was wrong.
func TestStrangers(t *testing.T) {
	r, k := newLoginRig(t)
	foreign := newAuthority(t)
	otherCA, otherURI, server := foreign.issue(t, "mes", uriMES, nil), r.ca.issue(t, "mes", "spiffe://example.com/x", nil), r.ca.issue(t, "mes", "", nil)
	forged := strings.Replace(jobToken(t, k, "2"), ".", "A.", 1)
	wrongRole := fmt.Sprintf(`{"role":"mes","jwt":%q}`, jobToken(t, k, "3"))
	answers := map[string][]string{}
	note := func(what string, p *reply) {
		t.Helper()
		if p.status < 400 {
			t.Errorf("%s: %d %s", what, p.status, p.raw)
		}
		meta, _ := p.body["keyrite"].(map[string]any)
		id, _ := meta["request"].(string)
		key := fmt.Sprint(p.status, strings.Replace(string(p.raw), id, "ID", 1))
		answers[key] = append(answers[key], what)
	}
	for name, cert := range map[string]*tls.Certificate{"no certificate": nil, "another CA": &otherCA, "another URI": &otherURI, "a server's": &server} {
		c := r.as(cert)
		for _, tok := range []string{"", "x", "krt.", "krt." + strings.Repeat("A", 43), "hvs.CAESIAAA"} {
			note(name+" and token "+tok, r.ask(c, http.MethodGet, "kv/data/line1/x", "", "X-Vault-Token", tok))
		}
		note(name+" and log in", r.ask(c, http.MethodPost, "auth/cert/login", ""))
	}
	c := r.as(nil)
	for means, bodies := range map[string][]string{
		"unix":    {``, `{"role":"local"}`},
		"jwt":     {``, `{"role":"build"}`, `{"role":"nobody","jwt":"x"}`, `{"role":"build","jwt":"x.y.z"}`, fmt.Sprintf(`{"role":"build","jwt":%q}`, forged), wrongRole},
		"approle": {``, `{"role_id":"nobody","secret_id":"x"}`, `{"role_id":"mes","secret_id":"x"}`, `{"role_id":"historian","secret_id":"krs.` + strings.Repeat("A", 43) + `"}`},
	} {
		for _, body := range bodies {
			note(means+" "+body, r.ask(c, http.MethodPost, "auth/"+means+"/login", body))
		}
	}
	if len(answers) != 1 {
		t.Errorf("%d answers: %v", len(answers), answers)
	}
}
