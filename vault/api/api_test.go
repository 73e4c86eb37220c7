package api_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/vault/api"
)

// TestShapes: what clients of HashiCorp Vault read in an answer is there, in the form
// and under the status that they know.
func TestShapes(t *testing.T) {
	r := newRig(t)
	p := r.put("kv/data/line1/plc", `{"data":{"user":"plc","pass":"canary"},"options":{"cas":0}}`)
	if p.status != 200 || p.data("version") != 1.0 {
		t.Fatalf("write: %d %s", p.status, p.raw)
	}
	for _, k := range []string{"request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"} {
		if _, ok := p.body[k]; !ok {
			t.Errorf("no member %q in %s", k, p.raw)
		}
	}
	if p.header.Get("Cache-Control") != "no-store" || p.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", p.header)
	}
	p = r.get("kv/data/line1/plc")
	if p.status != 200 || p.data("data", "pass") != "canary" || p.data("metadata", "version") != 1.0 {
		t.Errorf("read: %d %s", p.status, p.raw)
	}
	for _, list := range [][2]string{{"LIST", "kv/metadata/line1"}, {"GET", "kv/metadata/line1?list=true"}} {
		if p := r.ask(r.client, list[0], list[1], ""); p.status != 200 || fmt.Sprint(p.data("keys")) != "[plc]" {
			t.Errorf("%s: %d %s", list, p.status, p.raw)
		}
	}
	if p := r.put("kv/data/line1/plc", `{"data":{"a":"b"},"options":{"cas":0}}`); p.status != 400 {
		t.Errorf("check-and-set: %d %s", p.status, p.raw)
	}
	if p := r.ask(r.client, http.MethodDelete, "kv/data/line1/plc", ""); p.status != 204 || len(p.raw) != 0 {
		t.Errorf("delete: %d %s", p.status, p.raw)
	}
	if p := r.get("kv/data/line1/plc"); p.status != 404 || p.data("metadata", "deletion_time") == "" || p.data("metadata", "deletion_time") == nil {
		t.Errorf("deleted: %d %s", p.status, p.raw)
	}
	if p := r.get("kv/data/line1/none"); p.status != 404 || p.body["errors"] == nil {
		t.Errorf("missing: %d %s", p.status, p.raw)
	}
	p = r.get("kv/data/line2/x")
	if p.status != 403 || p.body["keyrite"].(map[string]any)["class"] != "policy" || p.body["keyrite"].(map[string]any)["request"] == "" {
		t.Errorf("denied: %d %s", p.status, p.raw)
	}
	if p := r.ask(r.as(nil), http.MethodGet, "kv/data/line1/plc", ""); p.status != 403 || strings.Contains(string(p.raw), "line1") {
		t.Errorf("unknown: %d %s", p.status, p.raw)
	}
}

// TestConfigurationIsTheCharters: what would configure the vault is refused with the
// command to use, and what there is not is not there.
func TestConfigurationIsTheCharters(t *testing.T) {
	r := newRig(t)
	for path, word := range map[string]string{
		"sys/mounts/other": "mount", "sys/remount": "mount", "sys/auth/github": "identity", "sys/policies/acl/root": "policy", "sys/policy/root": "policy",
		"auth/token/create": "identity", "auth/jwt/role/ci": "identity", "identity/entity": "identity",
		"sys/audit/file": "audit-sink", "sys/mounts/kv/tune": "mount", "sys/auth/jwt/tune": "identity", "sys/policies/password/plc": "password-policy",
	} {
		for _, m := range []string{"PUT", "POST", "DELETE"} {
			want := word
			if m == "DELETE" {
				want = "access-ended"
			}
			p := r.ask(r.client, m, path, `{"type":"kv"}`)
			hint, _ := p.body["keyrite"].(map[string]any)["hint"].(string)
			if p.status != 403 || !strings.HasPrefix(hint, "keyrite charter propose "+want+" ") {
				t.Errorf("%s %s: %d %s", m, path, p.status, p.raw)
			}
		}
	}
	for _, path := range []string{"sys/generate-root/attempt", "sys/rekey/init", "sys/rotate", "sys/raw/x", "sys/plugins/catalog/secret/x", "sys/storage/raft/snapshot", "cubbyhole/x", "sys/step-down"} {
		for _, m := range []string{"GET", "PUT", "DELETE", "LIST"} {
			if p := r.ask(r.client, m, path, ""); p.status != 404 {
				t.Errorf("%s %s: %d %s", m, path, p.status, p.raw)
			}
		}
	}
	for _, path := range []string{"sys/wrapping/wrap", "sys/wrapping/unwrap", "sys/wrapping/lookup"} {
		if p := r.put(path, `{"token":"x"}`); p.status != 403 {
			t.Errorf("%s: %d %s", path, p.status, p.raw)
		}
	}
	if p := r.put("sys/init", `{"secret_shares":1,"secret_threshold":1}`); p.status != 403 || !strings.Contains(string(p.raw), "ceremony") {
		t.Errorf("init: %d %s", p.status, p.raw)
	}
}

// TestHealth: the statuses and parameters that load balancers use.
func TestHealth(t *testing.T) {
	r := newRig(t)
	anonymous := r.as(nil)
	status := func(method, path string) int { return r.ask(anonymous, method, path, "").status }
	for path, want := range map[string]int{
		"sys/health": 200, "sys/health?standbyok=true&perfstandbyok=true": 200, "sys/health?activecode=299": 299, "sys/health?sealedcode=299": 200,
		"sys/health?activecode=99": 400, "sys/health?activecode=x": 400, "sys/health?other=1": 400, "sys/seal-status": 200, "sys/leader": 200, "sys/init": 200,
	} {
		for _, m := range []string{"GET", "HEAD"} {
			if got := status(m, path); got != want {
				t.Errorf("%s %s: %d, want %d", m, path, got, want)
			}
		}
	}
	r.ok(r.seal())
	for path, want := range map[string]int{"sys/health": 503, "sys/health?sealedcode=299": 299, "sys/seal-status": 200, "sys/leader": 503, "kv/data/line1/plc": 503} {
		if got := status("GET", path); got != want {
			t.Errorf("sealed: %s: %d, want %d", path, got, want)
		}
	}
	// The command "vault status" knows a sealed vault by these words.
	if p := r.ask(anonymous, "GET", "sys/leader", ""); fmt.Sprint(p.body["errors"]) != "[Vault is sealed]" {
		t.Errorf("leader: %s", p.raw)
	}
	if p := r.ask(anonymous, "GET", "sys/seal-status", ""); p.body["sealed"] != true || p.body["t"] != 3.0 || p.body["n"] != 5.0 {
		t.Errorf("seal-status %s", p.raw)
	}
	if p := r.ask(anonymous, "PUT", "sys/unseal", `{"key":"one"}`); p.status != 200 || p.body["progress"] != 1.0 || len(r.opening.got) != 1 {
		t.Errorf("unseal: %d %s", p.status, p.raw)
	}
}

// TestStrictBodies: a body that could be read in two ways, or costs too much, is
// refused, and the caller is told which it was.
func TestStrictBodies(t *testing.T) {
	r := newRig(t)
	deep := func(n int) string {
		return `{"data":` + strings.Repeat(`{"a":`, n) + `1` + strings.Repeat(`}`, n) + `}`
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(make([]byte, 1<<20))
	_ = z.Close()
	for name, c := range map[string]struct {
		body    string
		status  int
		headers []string
	}{
		"good":               {`{"data":{"a":1}}`, 200, nil},
		"form type":          {`{"data":{"a":1}}`, 200, []string{"Content-Type", "application/x-www-form-urlencoded"}},
		"twice":              {`{"data":{"a":1},"data":{"a":2}}`, 400, nil},
		"twice within":       {`{"data":{"a":1,"a":2}}`, 400, nil},
		"twice, escaped":     {`{"data":{"a":1,"\u0061":2}}`, 400, nil},
		"list":               {`[1]`, 400, nil},
		"text":               {`"x"`, 400, nil},
		"null":               {`null`, 400, nil},
		"two documents":      {`{"data":{"a":1}}{}`, 400, nil},
		"cut off":            {`{"data":{"a":1}`, 400, nil},
		"not UTF-8":          {"{\"data\":{\"a\":\"\xff\"}}", 400, nil},
		"deep":               {deep(62), 200, nil},
		"too deep":           {deep(64), 400, nil},
		"far too deep":       {deep(100_000), 400, nil},
		"unknown":            {`{"data":{"a":1},"other":1}`, 400, nil},
		"large":              {`{"data":{"a":"` + strings.Repeat("x", 500_000) + `"}}`, 200, nil},
		"too large":          {`{"data":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`, 400, nil},
		"compressed":         {zipped.String(), 400, []string{"Content-Encoding", "gzip"}},
		"two tokens":         {`{"data":{"a":1}}`, 400, []string{"X-Vault-Token", "a", "Authorization", "Bearer b"}},
		"basic":              {`{"data":{"a":1}}`, 400, []string{"Authorization", "Basic eA=="}},
		"namespace":          {`{"data":{"a":1}}`, 400, []string{"X-Vault-Namespace", "team"}},
		"wrapping":           {`{"data":{"a":1}}`, 403, []string{"X-Vault-Wrap-TTL", "60"}},
		"from another page":  {`{"data":{"a":1}}`, 403, []string{"Sec-Fetch-Site", "cross-site"}},
		"of another origin":  {`{"data":{"a":1}}`, 403, []string{"Origin", "https://example.com"}},
		"vault's own header": {`{"data":{"a":1}}`, 200, []string{"X-Vault-Request", "true"}},
	} {
		if p := r.ask(r.client, http.MethodPost, "kv/data/line1/x", c.body, c.headers...); p.status != c.status {
			t.Errorf("%s: %d, want %d: %.200s", name, p.status, c.status, p.raw)
		}
	}
	// A web page of another origin has a browser read nothing either: the trail would say
	// that its user asked.
	for _, h := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://example.com"}, {"Origin", "null"}} {
		for _, m := range []string{http.MethodGet, "LIST", http.MethodDelete} {
			if p := r.ask(r.client, m, "kv/data/line1/x", "", h...); p.status != 403 || !strings.Contains(string(p.raw), "another origin") || p.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
				t.Errorf("%s %v: %d %s", m, h, p.status, p.raw)
			}
		}
	}
	if p := r.ask(r.client, http.MethodGet, "sys/health", "", "Sec-Fetch-Site", "none"); p.status != 200 {
		t.Errorf("a browser's own address line: %d", p.status)
	}
	if p := r.ask(r.client, http.MethodPost, "kv/data/line1/x?data=1", `{"data":{}}`); p.status != 400 {
		t.Errorf("twice, in query and body: %d %s", p.status, p.raw)
	}
	// Who shows nothing may send what a login needs, and no more.
	if p := r.ask(r.as(nil), http.MethodPost, "auth/jwt/login", `{"jwt":"`+strings.Repeat("x", 70_000)+`"}`); p.status != 403 {
		t.Errorf("large login: %d %s", p.status, p.raw)
	}
}

// TestCharterOverHTTP: a change that approvers signed is brought by a process that has
// the right to bring it, and is in force for a live token when that is answered.
func TestCharterOverHTTP(t *testing.T) {
	r := newRig(t)
	p := r.put("auth/cert/login", "")
	token, _ := p.body["auth"].(map[string]any)["client_token"].(string)
	if p.status != 200 || token == "" || p.body["auth"].(map[string]any)["lease_duration"] != 600.0 {
		t.Fatalf("login: %d %s", p.status, p.raw)
	}
	if p := r.ask(r.as(nil), "GET", "auth/token/lookup-self", "", "X-Vault-Token", token); p.status != 403 {
		t.Errorf("token without its certificate: %d %s", p.status, p.raw)
	}
	if p := r.ask(r.client, "GET", "auth/token/lookup-self", "", "Authorization", "Bearer "+token); p.status != 200 || p.data("meta", "identity") != "mes" {
		t.Errorf("lookup: %d %s", p.status, p.raw)
	}
	had := len(r.Charter)
	r.Approve(charter.TypeIdentity, charter.Identity{ID: "next", Policies: []string{"line1"}, TTL: 60, Unix: &charter.Unix{UID: 1234}})
	r.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeIdentity, ID: "mes"})
	lines := strings.Split(strings.TrimSuffix(string(r.Charter[had:]), "\n"), "\n")
	if p := r.put("keyrite/charter", fmt.Sprintf(`{"statements":[%q]}`, strings.Replace(lines[0], `"sig":"`, `"sig":"AAAA`, 1))); p.status == 200 {
		t.Errorf("altered: %d %s", p.status, p.raw)
	}
	p = r.put("keyrite/charter", fmt.Sprintf(`{"statements":[%q,%q]}`, lines[0], lines[1]))
	if p.status != 200 || p.data("size") != float64(r.State.Size()) || p.data("head") != r.State.Head() {
		t.Fatalf("append: %d %s", p.status, p.raw)
	}
	for name, p := range map[string]*reply{"with its token": r.ask(r.client, "GET", "kv/data/line1/x", "", "X-Vault-Token", token), "with its certificate": r.get("kv/data/line1/x")} {
		if p.status != 403 {
			t.Errorf("whose identity was ended, %s: %d %s", name, p.status, p.raw)
		}
	}
}

// TestOwnPaths: what auditors and clients look at is there for whom the charter lets.
func TestOwnPaths(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{
		"sys/mounts": `"kv/":{`, "sys/auth": `"cert/":{`, "sys/audit": `"store/"`, "sys/internal/ui/mounts": `"kv/"`, "sys/internal/ui/mounts/kv/line1": `"version":"2"`,
		"sys/policies/acl": `"line1"`, "sys/policies/acl/line1": `capabilities = [`, "keyrite/status": `"world"`, "keyrite/charter?from=3": `"statements":["{`,
		"auth/token/lookup-self": `"mes"`,
	} {
		if p := r.get(path); p.status != 200 || !strings.Contains(string(p.raw), want) {
			t.Errorf("%s: %d %s", path, p.status, p.raw)
		}
	}
	p := r.put("sys/capabilities-self", `{"paths":["kv/data/line1/x","kv/data/line2/x"]}`)
	if p.status != 200 || fmt.Sprint(p.data("kv/data/line1/x")) != "[create delete list read update]" || fmt.Sprint(p.data("kv/data/line2/x")) != "[deny]" {
		t.Errorf("capabilities: %d %s", p.status, p.raw)
	}
	r.get("kv/data/line2/x") // one refusal to be counted
	p = r.get("sys/metrics?format=prometheus")
	for _, want := range []string{"keyrite_vault_sealed 0", `keyrite_vault_requests_total{status="403"} 1`, "keyrite_vault_request_seconds_bucket", "go_goroutines"} {
		if p.status != 200 || !strings.Contains(string(p.raw), want) {
			t.Errorf("metrics: %d, no %q in %.300s", p.status, want, p.raw)
		}
	}
	if p := r.put("sys/seal", ""); p.status != 204 || !r.node.Status().Sealed {
		t.Errorf("seal: %d %s", p.status, p.raw)
	}
}

// TestStoppedStore: after the store stopped nothing is answered but the cause, health
// says its class, and the vault can be sealed.
func TestStoppedStore(t *testing.T) {
	r := newRig(t)
	r.stopStore()
	for _, p := range []*reply{r.put("kv/data/line1/x", `{"data":{}}`), r.get("kv/data/line2/x"), r.put("auth/cert/login", "")} {
		if p.status != 503 || !strings.Contains(string(p.raw), "stopped") {
			t.Errorf("%d %s", p.status, p.raw)
		}
	}
	if p := r.get("kv/data/line1/x"); !strings.Contains(string(p.raw), "older than its head") {
		t.Errorf("a caller who is known does not hear why: %s", p.raw)
	}
	if p := r.ask(r.as(nil), "GET", "sys/health", ""); p.status != 503 || p.body["sealed"] != false || !strings.Contains(fmt.Sprint(p.body["keyrite"]), "stopped:verify") || strings.Contains(string(p.raw), "older") {
		t.Errorf("health: %d %s", p.status, p.raw)
	}
	if p := r.ask(r.as(nil), "GET", "sys/seal-status", ""); p.status != 200 {
		t.Errorf("seal-status: %d %s", p.status, p.raw)
	}
	_ = r.seal() // the store cannot advance its head any more, and says so
	if !r.node.Status().Sealed {
		t.Error("it is not sealed")
	}
}

// TestMetricsOfASilentVault: a vault that is sealed, or whose store stopped, tells whom the
// charter lets read the metrics that it is so, and nobody else.
func TestMetricsOfASilentVault(t *testing.T) {
	for name, c := range map[string]struct {
		silence func(*rig)
		want    []string
	}{
		"sealed":  {func(r *rig) { r.ok(r.seal()) }, []string{"keyrite_vault_sealed 1", "keyrite_vault_stopped 0"}},
		"stopped": {(*rig).stopStore, []string{"keyrite_vault_sealed 0", "keyrite_vault_stopped 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := found(t, artifacttest.New(t))
			r.Approve(charter.TypeIdentity, charter.Identity{ID: "plain", Policies: []string{"line1"}, TTL: 600, Certificate: &charter.Certificate{CA: r.ca.cert.Raw, URI: "spiffe://example.com/line1/plain"}})
			r.start(nil, engines(), api.Limits{})
			token, _ := r.put("auth/cert/login", "").body["auth"].(map[string]any)["client_token"].(string)
			c.silence(r)
			p := r.get("sys/metrics?format=prometheus")
			for _, want := range c.want {
				if p.status != 200 || !strings.Contains(string(p.raw), "\n"+want+"\n") {
					t.Errorf("%d, no %q in %.300s", p.status, want, p.raw)
				}
			}
			plain, foreign := r.ca.issue(t, "plain", "spiffe://example.com/line1/plain", nil), newAuthority(t).issue(t, "mes", uriMES, nil)
			refused := func(who string, p *reply) {
				t.Helper()
				if p.status != 503 && p.status != 403 && p.status != 400 || strings.Contains(string(p.raw), "keyrite_vault") {
					t.Errorf("%s: %d %.200s", who, p.status, p.raw)
				}
			}
			refused("nobody", r.ask(r.as(nil), "GET", "sys/metrics", ""))
			refused("one without the rule", r.ask(r.as(&plain), "GET", "sys/metrics", ""))
			refused("of another CA", r.ask(r.as(&foreign), "GET", "sys/metrics", ""))
			refused("a token alone", r.ask(r.as(nil), "GET", "sys/metrics", "", "X-Vault-Token", token))
			refused("another parameter", r.get("sys/metrics?format=prometheus&x=1"))
			refused("a page of another origin", r.ask(r.client, "GET", "sys/metrics", "", "Origin", "https://example.com"))
			refused("another method", r.put("sys/metrics", ""))
			refused("another path", r.get("sys/mounts"))
			r.broken = errors.New("an older charter was put back")
			refused("by a doubtful charter", r.get("sys/metrics"))
			r.broken = nil
			r.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeIdentity, ID: "mes"})
			refused("whose identity was ended", r.get("sys/metrics"))
		})
	}
}

// stopStore stops the store: another copy of it went on, what is kept outside is ahead.
func (r *rig) stopStore() {
	r.t.Helper()
	head := fmt.Sprintf(`{"format":"keyrite/store-head/v1","root":"%064d","size":1000000,"vault":%q,"world":%q}`, 0, r.Vault, r.folder.World)
	end := time.Now().Add(20 * time.Second)
	for r.node.Status().Store.Stopped == nil {
		if time.Now().After(end) {
			r.t.Fatal("it does not stop")
		}
		// Again each time: an advance under way may have put its own head over it.
		r.ok(os.WriteFile(filepath.Join(r.Dir, "head"), []byte(head), 0o600))
		r.put("kv/data/line1/x", `{"data":{}}`)
	}
}
