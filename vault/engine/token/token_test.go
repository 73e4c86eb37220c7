package token_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/token"
	"keyrite/vault/seal"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

const issuer = "https://127.0.0.1:8200/v1/tokens"

func role(name string, edit func(*charter.TokenRole)) charter.TokenRole {
	r := charter.TokenRole{
		Audience: "https://mes.example", Claims: map[string]string{"line": "7"}, Issuer: issuer, Mount: "tokens", Name: name,
		Software: keys("ES256", 1, 1, 1), Subject: "spiffe://plant/{identity}", TTL: 300, Version: 1,
	}
	if edit != nil {
		edit(&r)
	}
	return r
}

func keys(alg string, oldest, signing, versions int) *charter.TokenKeys {
	return &charter.TokenKeys{Algorithm: alg, Oldest: oldest, Signing: signing, Versions: versions}
}

type room struct {
	*enginetest.Bench
	e *token.Engine
	t *testing.T
}

func newRoom(t *testing.T, roles ...charter.TokenRole) *room {
	t.Helper()
	b := enginetest.New(t, "token", "tokens")
	b.Now, b.Caller.Identity = time.Now(), "cell7"
	r := &room{b, token.New(b.Host), t}
	r.decide(roles...)
	return r
}

// decide states roles and has the engine make what they want.
func (r *room) decide(roles ...charter.TokenRole) {
	r.t.Helper()
	for _, x := range roles {
		r.World.Approve(charter.TypeTokenRole, x)
	}
	if err := r.Found(r.e); err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) end(name string) {
	r.t.Helper()
	r.World.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "tokens/" + name, Type: charter.TypeTokenRole})
	if err := r.Found(r.e); err != nil {
		r.t.Fatal(err)
	}
}

// issued is what a client gets.
type issued struct {
	Token   string
	TTL     int
	Expires string
	ID      string
	KeyID   string `json:"key_id"`
}

func (r *room) issue(name string) issued {
	r.t.Helper()
	var out issued
	if err := json.Unmarshal([]byte(r.Must(r.e, engine.Write, "tokens/token/"+name, "")), &out); err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *room) document(path string) string {
	r.t.Helper()
	a, err := r.Call(r.e, engine.Read, path, "")
	if err != nil {
		r.t.Fatal(err)
	}
	if a.ContentType != "application/json" || a.Data != nil {
		r.t.Errorf("%s is %q", path, a.ContentType)
	}
	return string(a.Raw)
}

// kids are the ids of the keys that are published.
func (r *room) kids() []string {
	r.t.Helper()
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal([]byte(r.document("tokens/jwks")), &set); err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, k := range set.Keys {
		if k["d"] != "" || k["use"] != "sig" || k["alg"] == "" {
			r.t.Errorf("a key is published as %v", k)
		}
		out = append(out, k["kid"])
	}
	return out
}

// reader is a program of others' (Debian's python3-jwt) that believes our keys and
// checks a token: it prints the claims.
const reader = `
import json, sys, jwt
d = json.load(sys.stdin)
kid = jwt.get_unverified_header(d["token"])["kid"]
key = [k for k in d["jwks"]["keys"] if k["kid"] == kid][0]
print(json.dumps(jwt.decode(d["token"], jwt.PyJWK(key).key, algorithms=[key["alg"]], audience=d["aud"], issuer=d["iss"],
      options={"require": ["exp", "nbf", "iat", "iss", "sub", "aud", "jti"]})))
`

// read has the others' program read a token.
func (r *room) read(jwks, tok, aud string) (map[string]any, error) {
	r.t.Helper()
	in, err := json.Marshal(map[string]any{"jwks": json.RawMessage(jwks), "token": tok, "aud": aud, "iss": issuer})
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", reader)
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.Output()
	if err != nil {
		var x *exec.ExitError
		if errors.As(err, &x) && strings.Contains(string(x.Stderr), "No module named") {
			r.t.Fatalf("scripts/setup installs python3-jwt: %s", x.Stderr)
		}
		return nil, err
	}
	var claims map[string]any
	return claims, json.Unmarshal(out, &claims)
}

func (r *room) mustRead(tok issued) {
	r.t.Helper()
	claims, err := r.read(r.document("tokens/jwks"), tok.Token, "https://mes.example")
	if err != nil {
		r.t.Fatalf("a service does not believe the token: %v", err)
	}
	at := float64(r.Now.UTC().Truncate(time.Second).Unix())
	for k, v := range map[string]any{"sub": "spiffe://plant/cell7", "iss": issuer, "line": "7", "jti": tok.ID, "iat": at, "nbf": at, "exp": at + 300} {
		if claims[k] != v {
			r.t.Errorf("claim %s is %v, want %v", k, claims[k], v)
		}
	}
	if len(claims) != 8 {
		r.t.Errorf("claims are %v", claims)
	}
}

// A service that was not written by us believes the tokens, and no altered one
// (R-CER-18).
func TestServicesReadTheTokens(t *testing.T) {
	r := newRoom(t, role("es", nil), role("es3", func(r *charter.TokenRole) { r.Software = keys("ES384", 1, 1, 1) }), role("ed", func(r *charter.TokenRole) { r.Software = keys("EdDSA", 1, 1, 1) }))
	for _, name := range []string{"es", "es3", "ed"} {
		tok := r.issue(name)
		r.mustRead(tok)
		jwks := r.document("tokens/jwks")
		if _, err := r.read(jwks, tok.Token, "https://other.example"); err == nil {
			t.Errorf("%s: another audience", name)
		}
		head, rest, _ := strings.Cut(tok.Token, ".")
		body, sig, _ := strings.Cut(rest, ".")
		raw, err := base64.RawURLEncoding.DecodeString(body)
		if err != nil {
			t.Fatal(err)
		}
		other := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), "cell7", "cell8", 1)))
		if _, err := r.read(jwks, head+"."+other+"."+sig, "https://mes.example"); err == nil {
			t.Errorf("%s: another subject", name)
		}
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(r.document("tokens/.well-known/openid-configuration")), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["issuer"] != issuer || doc["jwks_uri"] != issuer+"/jwks" || len(doc["id_token_signing_alg_values_supported"].([]any)) != 3 {
		t.Errorf("discovery says %v", doc)
	}
}

// A key of the charter signs in the token, with an intent before and a result after,
// in each algorithm that a token may have.
func TestKeysInTheToken(t *testing.T) {
	algs := map[string]string{"j256": anchor.P256, "j384": anchor.P384, "jed": anchor.Ed25519, "jrsa": anchor.RSA3072, "jpss": anchor.RSA3072PSS}
	var born []vaulttest.Key
	for id, alg := range algs {
		born = append(born, vaulttest.Key{ID: id, Algorithm: alg, Domain: anchor.DomainJWT})
	}
	v := vaulttest.NewWith(t, born)
	v.Approve(charter.TypeMount, charter.Mount{Engine: "token", ID: "tokens"})
	b := enginetest.Over(t, v.World, v.Store(), "tokens")
	b.Now, b.Caller.Identity = time.Now(), "cell7"
	sealed := token.New(b.Host)
	r := &room{b, sealed, t}
	for id := range algs {
		r.decide(role(id, func(r *charter.TokenRole) { r.Software, r.TokenKey = nil, id }))
	}
	if _, err := r.Call(sealed, engine.Write, "tokens/token/j256", ""); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("without a token: %v", err)
	}
	b.Host.Token = v.Open()
	r.e = token.New(b.Host)
	for id := range algs {
		before := b.Store.Head().Size
		tok := r.issue(id)
		if n := b.Store.Head().Size - before; n != 2 {
			t.Errorf("%s: %d entries, an intent and a result are two", id, n)
		}
		r.mustRead(tok)
	}
	for _, kind := range []string{`"kind":"intent"`, `"kind":"result"`} {
		if !strings.Contains(b.Audit(), kind) {
			t.Errorf("the trail has no %s", kind)
		}
	}
	v.Approve(charter.TypeKeyRetired, charter.KeyRetired{ID: "j256", Reason: charter.ReasonCompromised, Record: "keyrite/record/test"})
	if _, err := r.Call(r.e, engine.Write, "tokens/token/j256", ""); fault.ClassOf(err) != fault.Policy {
		t.Errorf("a retired key signs: %v", err)
	}
	if n := len(r.kids()); n != len(algs)-1 {
		t.Errorf("%d keys are published, one of %d is retired", n, len(algs))
	}
}

// A version is published before it signs and after it signed, and is destroyed when
// the charter leaves it behind or ends the role. Found does nothing twice.
func TestRotation(t *testing.T) {
	at := func(version, oldest, signing, versions int) charter.TokenRole {
		return role("mes", func(r *charter.TokenRole) { r.Version, r.Software = version, keys("ES256", oldest, signing, versions) })
	}
	r := newRoom(t, at(1, 1, 1, 1))
	first := r.issue("mes")
	r.decide(at(2, 1, 1, 2))
	if kids := r.kids(); len(kids) != 2 || kids[0] != first.KeyID || r.issue("mes").KeyID != first.KeyID {
		t.Errorf("the second version is not published, or signs: %v", kids)
	}
	r.decide(at(3, 1, 2, 2))
	second := r.issue("mes")
	if kids := r.kids(); len(kids) != 2 || second.KeyID != kids[1] || second.KeyID == first.KeyID {
		t.Errorf("the second version does not sign: %v", kids)
	}
	r.mustRead(first)
	r.decide(at(4, 2, 2, 2))
	r.decide()
	if kids := r.kids(); len(kids) != 1 || kids[0] != second.KeyID {
		t.Errorf("published are %v", kids)
	}
	stored := func() (out []string) {
		err := r.Store.View(func(v *seal.View) error {
			out = v.Keys("token-key/tokens", "")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := stored(); len(got) != 1 || got[0] != "mes#2" {
		t.Errorf("in the store are %v", got)
	}
	r.Reopen()
	r.mustRead(second)
	r.end("mes")
	if got := stored(); len(got) != 0 {
		t.Errorf("in the store after the end are %v", got)
	}
	for path, m := range map[string]engine.Method{"tokens/token/mes": engine.Write, "tokens/role/mes": engine.Read, "tokens/jwks": engine.Read, "tokens/role": engine.List, "tokens/.well-known/openid-configuration": engine.Read} {
		if _, err := r.Call(r.e, m, path, ""); !errors.Is(err, engine.ErrNotThere) {
			t.Errorf("%s after the end: %v", path, err)
		}
	}
}

// The role that was decided upon is the one that the token is of.
func TestRoleThatChanges(t *testing.T) {
	r := newRoom(t, role("mes", nil))
	p, err := r.e.Plan(r.Whole(engine.Write, "tokens/token/mes", ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.decide(role("mes", func(r *charter.TokenRole) { r.Version, r.Claims = 2, map[string]string{"line": "8"} }))
	if _, err := p.Apply(nil); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("a token of the role before: %v", err)
	}
	r.end("mes")
	if _, err := p.Apply(nil); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("a token of a role that ended: %v", err)
	}
}

// A caller can make a token shorter and nothing else; it needs the right to update,
// and an id.
func TestRefused(t *testing.T) {
	r := newRoom(t, role("mes", nil))
	if got := r.Must(r.e, engine.Write, "tokens/token/mes", `{"ttl":"1m"}`); !strings.Contains(got, `"ttl":60`) {
		t.Errorf("a shorter one: %s", got)
	}
	for _, body := range []string{`{"ttl":"301s"}`, `{"ttl":0}`, `{"ttl":"500ms"}`, `{"ttl":"1500ms"}`, `{"ttl":"x"}`, `{"sub":"admin"}`, `{"claims":{"a":"b"}}`, `{"audience":"x"}`} {
		if _, err := r.Call(r.e, engine.Write, "tokens/token/mes", body); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", body, err)
		}
	}
	for _, m := range []engine.Method{engine.Write, engine.Patch, engine.Delete} {
		if _, err := r.Call(r.e, m, "tokens/role/mes", `{"ttl":1}`); !errors.Is(err, engine.ErrByCharter) || !strings.Contains(fault.HintOf(err), "token-role") {
			t.Errorf("configuration by a client: %v", err)
		}
	}
	for _, path := range []string{"tokens", "tokens/token", "tokens/token/mes/x", "tokens/jwks/x", "tokens/.well-known", "tokens/.well-known/jwks", "tokens/keys"} {
		for m := engine.Read; m <= engine.Delete; m++ {
			if _, err := r.Call(r.e, m, path, ""); !errors.Is(err, engine.ErrNoPath) {
				t.Errorf("%d %s: %v", m, path, err)
			}
		}
	}
	if _, err := r.Call(r.e, engine.Read, "tokens/token/mes", ""); !errors.Is(err, engine.ErrNoPath) {
		t.Errorf("issued by reading: %v", err)
	}
	if _, err := r.Call(r.e, engine.Write, "tokens/token/other", ""); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("a role that is not there: %v", err)
	}
	r.Rules = []access.Rule{{Path: "tokens/*", Can: []access.Capability{access.Create, access.Delete, access.List, access.Read}}}
	if _, err := r.Call(r.e, engine.Write, "tokens/token/mes", ""); !errors.Is(err, access.ErrDenied) {
		t.Errorf("issued without the right to update: %v", err)
	}
	r.Rules, r.Caller.Identity = nil, ""
	if _, err := r.Call(r.e, engine.Write, "tokens/token/mes", ""); fault.ClassOf(err) != fault.Peer {
		t.Errorf("issued to nobody: %v", err)
	}
}

// Tokens given at once have ids of their own, and neither token nor key is in the
// trail or in the file.
func TestManyAtOnce(t *testing.T) {
	r := newRoom(t, role("mes", nil))
	var mu sync.Mutex
	ids, tokens := map[string]bool{}, []string{}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			a, err := r.Call(r.e, engine.Write, "tokens/token/mes", "")
			if err != nil {
				t.Error(err)
				return
			}
			m := a.Data.(map[string]any)
			mu.Lock()
			defer mu.Unlock()
			ids[m["id"].(string)] = true
			tokens = append(tokens, m["token"].(string))
		})
	}
	wg.Wait()
	if len(ids) != 32 {
		t.Errorf("%d ids for 32 tokens", len(ids))
	}
	trail := r.Audit()
	for _, tok := range tokens {
		if sig := tok[strings.LastIndex(tok, ".")+1:]; strings.Contains(trail, sig) {
			t.Error("the trail has a token")
		}
	}
	for id := range ids {
		if !strings.Contains(trail, id) {
			t.Error("the trail does not say which token was given")
		}
	}
}

func FuzzPlan(f *testing.F) {
	b := enginetest.New(f, "token", "tokens")
	b.World.Approve(charter.TypeTokenRole, role("mes", nil))
	e := token.New(b.Host)
	for m := engine.Read; m <= engine.Delete; m++ {
		for _, path := range []string{"tokens/token/mes", "tokens/role/mes", "tokens/jwks", "tokens/.well-known/openid-configuration"} {
			f.Add(int(m), path, `{"ttl":"60s"}`)
		}
	}
	f.Fuzz(func(t *testing.T, m int, path, body string) {
		p, err := access.ParsePath(path)
		var params engine.Params
		if err != nil || body != "" && json.Unmarshal([]byte(body), &params) != nil {
			return
		}
		plan, err := e.Plan(&engine.Request{Caller: b.Caller, Method: engine.Method(m), Path: p, Rest: strings.Split(path, "/")[1:], Params: params, Now: b.Now})
		switch {
		case err != nil && fault.ClassOf(err) == fault.Unexpected:
			t.Errorf("%d %s %s: %v", m, path, body, err)
		case err == nil && (plan.Needs == "" || plan.Apply == nil || strings.HasPrefix(path, "tokens/token/") && plan.Needs != access.Update):
			t.Errorf("%d %s %s: needs %q", m, path, body, plan.Needs)
		}
	})
}
