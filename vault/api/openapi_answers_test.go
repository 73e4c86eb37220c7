package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/engine/kv"
	"keyrite/vault/seal"
)

// leasing is kv whose secret "leased" is given out for an hour, and may be renewed: no
// engine of ours gives such leases yet.
type leasing struct{ *kv.Engine }

// Plan implements engine.Engine.
func (e leasing) Plan(r *engine.Request) (*engine.Plan, error) {
	if len(r.Rest) == 0 || r.Rest[len(r.Rest)-1] != "leased" {
		return e.Engine.Plan(r)
	}
	return &engine.Plan{Needs: access.Update, Apply: func(*seal.Tx) (*engine.Answer, error) {
		return &engine.Answer{Data: map[string]any{}, Lease: &engine.Lease{TTL: time.Hour, Renewable: true, Object: "leased"}}, nil
	}}, nil
}

// End implements engine.Ender.
func (leasing) End(*seal.Tx, string, time.Time) error { return nil }

// documented is what the document says of an answer.
type documented struct {
	Paths map[string]map[string]struct {
		Responses map[string]struct {
			Content map[string]struct {
				Schema map[string]any `json:"schema"`
			} `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
}

// differs says where a value is not as its schema has it: members that are missing, not
// documented, or of another type. null stands for nothing anywhere.
func differs(at string, schema map[string]any, v any) []string {
	kind, _ := schema["type"].(string)
	if v == nil || kind == "" {
		return nil
	}
	var out []string
	switch x := v.(type) {
	case map[string]any:
		if kind != "object" {
			return []string{at + " is no " + kind}
		}
		members, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := x[name.(string)]; !ok {
				out = append(out, fmt.Sprintf("%s has no %s", at, name))
			}
		}
		for name, member := range x {
			s, ok := members[name].(map[string]any)
			if !ok && members != nil {
				out = append(out, at+" has "+name)
			}
			out = append(out, differs(at+"."+name, s, member)...)
		}
	case []any:
		items, _ := schema["items"].(map[string]any)
		if kind != "array" {
			return []string{at + " is no " + kind}
		}
		for _, item := range x {
			out = append(out, differs(at+"[]", items, item)...)
		}
	case string, bool, float64:
		if is := map[string]string{"string": "string", "bool": "boolean", "float64": "integer"}[fmt.Sprintf("%T", v)]; is != kind {
			return []string{fmt.Sprintf("%s is %s, not %s", at, is, kind)}
		}
	}
	return out
}

// newWholeRig is a vault with every engine, and a client that may use them all.
func newWholeRig(t *testing.T) (*rig, *http.Client, []byte) {
	t.Helper()
	const uri = "spiffe://example.com/all"
	r, ca := newPKIRig(t, func(r *rig, _ *charter.PKIRole) {
		r.Approve(charter.TypeMount, charter.Mount{ID: "transit", Engine: "transit"})
		for name, kind := range map[string]string{"soft": "aes256-gcm96", "sign": "ecdsa-p256", "mac": "hmac"} {
			k := &charter.SoftwareKey{Type: kind, Versions: 1, MinDecryption: 1, MinEncryption: 1}
			r.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: name, Software: k})
		}
		r.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "fwkey", TokenKey: "fwkey"})
		r.Approve(charter.TypeMount, charter.Mount{ID: "tokens", Engine: "token"})
		r.Approve(charter.TypeTokenRole, charter.TokenRole{
			Audience: "erp", Claims: map[string]string{"line": "1"}, Issuer: "https://vault.example/v1/tokens", Mount: "tokens", Name: "erp",
			Software: &charter.TokenKeys{Algorithm: "EdDSA", Oldest: 1, Signing: 1, Versions: 1}, Subject: "{identity}", TTL: 60, Version: 1,
		})
		r.Approve(charter.TypeMount, charter.Mount{ID: "pw", Engine: "password"})
		r.Approve(charter.TypePasswordPolicy, charter.PasswordPolicy{
			Alphabets: []charter.Alphabet{{Characters: "abcdefghijklmnopqrstuvwxyz"}}, History: 3, Length: 20, Mount: "pw", Name: "plc", Version: 1,
		})
		can := []access.Capability{access.Create, access.Delete, access.List, access.Read, access.Update}
		var rules []access.Rule
		for _, path := range []string{"kv/*", "pki/*", "pw/*", "sys/leases/lookup/*", "sys/leases/revoke-prefix/*", "sys/leases/revoke/*", "tokens/*", "transit/*"} {
			rules = append(rules, access.Rule{Path: path, Can: can})
		}
		r.Approve(charter.TypePolicy, charter.Policy{ID: "all", Version: 1, Rules: rules})
		r.Approve(charter.TypeIdentity, charter.Identity{ID: "all", Policies: []string{"all"}, TTL: 600, Certificate: &charter.Certificate{CA: r.ca.cert.Raw, URI: uri}})
	})
	all := r.ca.issue(t, "all", uri, nil)
	return r, r.as(&all), ca
}

// TestOpenAPIAnswers: every operation of every engine, and of leases, is answered with a
// status and members that the document has for it.
func TestOpenAPIAnswers(t *testing.T) {
	r, client, ca := newWholeRig(t)
	var doc documented
	r.ok(json.Unmarshal(r.get("sys/internal/specs/openapi").raw, &doc))
	asked := map[string]bool{}
	ask := func(row, path, body string, headers ...string) *reply {
		t.Helper()
		asked[row] = true
		method, at, _ := strings.Cut(row, " ")
		if strings.HasPrefix(path, "?") || path == "" {
			path = at + path
		}
		p := r.ask(client, method, path, body, headers...)
		o, ok := doc.Paths["/"+at][strings.ToLower(method)]
		answer, good := o.Responses[fmt.Sprint(p.status)]
		switch {
		case !ok:
			t.Errorf("%s is not in the document", row)
		case !good:
			t.Errorf("%s: %d is not documented: %.300s", row, p.status, p.raw)
		case len(answer.Content) == 0 && len(p.raw) > 0:
			t.Errorf("%s: a body that is not documented: %.300s", row, p.raw)
		}
		for kind, c := range answer.Content {
			if got, _, _ := strings.Cut(p.header.Get("Content-Type"), ";"); got != kind {
				t.Errorf("%s: %s, not %s", row, got, kind)
			}
			if kind == "application/json" && c.Schema["type"] == "object" {
				for _, d := range differs("the answer", c.Schema, p.body) {
					t.Errorf("%s: %s: %.300s", row, d, p.raw)
				}
			}
		}
		return p
	}
	askKV(ask)
	askTransit(ask)
	askPKI(r, ask, ca)
	askHandouts(ask)
	askLeases(r, client, ask)
	for path, methods := range doc.Paths {
		for method := range methods {
			row := strings.ToUpper(method) + " " + path[1:]
			if (strings.HasPrefix(path, "/{") || strings.HasPrefix(path, "/sys/leases/")) && !asked[row] {
				t.Errorf("%s is in the document and not asked here", row)
			}
		}
	}
}

type asking = func(row, path, body string, headers ...string) *reply

func askKV(ask asking) {
	const patch = "application/merge-patch+json"
	ask("POST {kv}/data/{path}", "kv/data/line1/a", `{"data":{"a":"b"},"options":{"cas":0}}`)
	ask("PATCH {kv}/data/{path}", "kv/data/line1/a", `{"data":{"c":"d"}}`, "Content-Type", patch)
	ask("GET {kv}/data/{path}", "kv/data/line1/a?version=1", "")
	ask("GET {kv}/subkeys/{path}", "kv/subkeys/line1/a", "")
	ask("GET {kv}/config", "kv/config", "")
	ask("POST {kv}/metadata/{path}", "kv/metadata/line1/a", `{"max_versions":5,"custom_metadata":{"a":"b"}}`)
	ask("PATCH {kv}/metadata/{path}", "kv/metadata/line1/a", `{"max_versions":4}`, "Content-Type", patch)
	ask("GET {kv}/metadata/{path}", "kv/metadata/line1/a", "")
	ask("POST {kv}/delete/{path}", "kv/delete/line1/a", `{"versions":[1]}`)
	ask("POST {kv}/undelete/{path}", "kv/undelete/line1/a", `{"versions":[1]}`)
	ask("POST {kv}/destroy/{path}", "kv/destroy/line1/a", `{"versions":[1]}`)
	ask("DELETE {kv}/data/{path}", "kv/data/line1/a", "")
	ask("DELETE {kv}/metadata/{path}", "kv/metadata/line1/a", "")
}

func askTransit(ask asking) {
	text := fmt.Sprintf(`"input":%q`, base64.StdEncoding.EncodeToString([]byte("text")))
	ask("GET {transit}/keys/{name}", "transit/keys/sign", "")
	for _, hash := range []string{"", "/{hash}"} {
		at := strings.Replace(hash, "{hash}", "sha2-256", 1)
		sig := ask("POST {transit}/sign/{name}"+hash, "transit/sign/sign"+at, "{"+text+"}").data("signature")
		ask("POST {transit}/verify/{name}"+hash, "transit/verify/sign"+at, fmt.Sprintf(`{%s,"signature":%q}`, text, sig))
		ask("POST {transit}/hmac/{name}"+hash, "transit/hmac/mac"+at, "{"+text+"}")
	}
	sealed := ask("POST {transit}/encrypt/{name}", "transit/encrypt/soft", `{"plaintext":"dGV4dA=="}`).data("ciphertext")
	ask("POST {transit}/decrypt/{name}", "transit/decrypt/soft", fmt.Sprintf(`{"ciphertext":%q}`, sealed))
	ask("POST {transit}/rewrap/{name}", "transit/rewrap/soft", fmt.Sprintf(`{"ciphertext":%q}`, sealed))
	ask("POST {transit}/datakey/plaintext/{name}", "transit/datakey/plaintext/soft", "")
	ask("POST {transit}/datakey/wrapped/{name}", "transit/datakey/wrapped/soft", "")
	ask("POST {transit}/random", "transit/random", `{"bytes":16}`)
	ask("POST {transit}/random/{source}/{bytes}", "transit/random/platform/16", "")
	ask("POST {transit}/hash/{hash}", "transit/hash/sha2-256", "{"+text+"}")
	ask("GET {transit}/releases/{name}", "transit/releases/fwkey", "")
}

func askPKI(r *rig, ask asking, ca []byte) {
	issued := ask("POST {pki}/issue/{role}", "pki/issue/plant", `{"common_name":"plc1.line1.example.com"}`)
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.ok(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "plc2.line1.example.com"}}, k)
	r.ok(err)
	ask("POST {pki}/sign/{role}", "pki/sign/plant", fmt.Sprintf(`{"csr":%q,"common_name":"plc2.line1.example.com"}`, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})))
	serial := fmt.Sprint(issued.data("serial_number"))
	ask("GET {pki}/cert/{serial}", "pki/cert/"+serial, "")
	issuer, err := x509.ParseCertificate(ca)
	r.ok(err)
	n, _ := new(big.Int).SetString(strings.ReplaceAll(serial, ":", ""), 16)
	question, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: n}, issuer, nil)
	r.ok(err)
	ask("POST {pki}/ocsp", "pki/ocsp", string(question), "Content-Type", "application/ocsp-request")
	ask("GET {pki}/ocsp/{request}", "pki/ocsp/"+base64.URLEncoding.EncodeToString(question), "")
	ask("POST {pki}/revoke", "pki/revoke", fmt.Sprintf(`{"serial_number":%q}`, serial))
	for _, path := range []string{"ca", "ca/pem", "ca_chain", "crl", "crl/pem"} {
		ask("GET {pki}/"+path, "pki/"+path, "")
	}
	ask("GET {pki}/roles/{role}", "pki/roles/plant", "")
}

func askHandouts(ask asking) {
	ask("POST {token}/token/{role}", "tokens/token/erp", "")
	ask("GET {token}/role/{role}", "tokens/role/erp", "")
	ask("GET {token}/jwks", "tokens/jwks", "")
	ask("GET {token}/.well-known/openid-configuration", "tokens/.well-known/openid-configuration", "")
	ask("POST {password}/password/{path}", "pw/password/a", `{"policy":"plc"}`)
	ask("GET {password}/password/{path}", "pw/password/a", "")
	ask("POST {password}/rotate/{path}", "pw/rotate/a", `{"cas":1}`)
	ask("POST {password}/rollback/{path}", "pw/rollback/a", `{"version":1}`)
	ask("GET {password}/history/{path}", "pw/history/a", "")
	ask("DELETE {password}/password/{path}", "pw/password/a", "")
	ask("GET {password}/policy/{policy}", "pw/policy/plc", "")
	ask("GET {password}/policy/{policy}/generate", "pw/policy/plc/generate", "")
}

func askLeases(r *rig, client *http.Client, ask asking) {
	lease := func() (id string) {
		p := r.ask(client, http.MethodPost, "kv/data/line1/leased", "")
		id, _ = p.body["lease_id"].(string)
		return id
	}
	id := lease()
	body := fmt.Sprintf(`{"lease_id":%q}`, id)
	ask("PUT sys/leases/lookup", "", body)
	ask("PUT sys/leases/renew", "", body)
	ask("PUT sys/leases/lookup/{path}", "sys/leases/lookup/"+id, "")
	ask("GET sys/leases/lookup/{path}", "sys/leases/lookup/kv?list=true", "")
	ask("PUT sys/leases/revoke", "", body)
	ask("PUT sys/leases/revoke/{path}", "sys/leases/revoke/"+lease(), "")
	ask("PUT sys/leases/revoke-prefix/{path}", "sys/leases/revoke-prefix/kv/data", "")
}

// TestDifferences: what compares answers with the document finds each difference.
func TestDifferences(t *testing.T) {
	schema := map[string]any{"type": "object", "required": []any{"a"}, "properties": map[string]any{"a": map[string]any{"type": "string"}, "b": map[string]any{"type": "array", "items": map[string]any{"type": "integer"}}}}
	for doc, want := range map[string]string{
		`{"a":"x","b":[1]}`: "", `{}`: "v has no a", `{"a":1}`: "v.a is integer, not string", `{"a":"x","c":1}`: "v has c", `{"a":"x","b":["y"]}`: "v.b[] is string, not integer", `[]`: "v is no object",
	} {
		var v any
		if err := json.Unmarshal([]byte(doc), &v); err != nil {
			t.Fatal(err)
		}
		got := differs("v", schema, v)
		if want == "" && len(got) > 0 || want != "" && !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", doc, got, want)
		}
	}
}
