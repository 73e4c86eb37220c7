package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/internal/clitest"
)

// canaries are secrets that went through a running vault, and all that it said of them but
// the answers that are to have them.
type canaries struct {
	secrets map[string]string // by what they are
	said    bytes.Buffer
}

// mountSecrets mounts what gives passwords and encrypts, and returns the rules to use both.
func (h *house) mountSecrets() []access.Rule {
	h.Approve(charter.TypeMount, charter.Mount{ID: "pw", Engine: "password"})
	h.Approve(charter.TypePasswordPolicy, charter.PasswordPolicy{
		Alphabets: []charter.Alphabet{{Characters: "abcdefghijklmnopqrstuvwxyz"}}, History: 3, Length: 20, Mount: "pw", Name: "plc", Version: 1,
	})
	h.Approve(charter.TypeMount, charter.Mount{ID: "transit", Engine: "transit"})
	h.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "soft", Software: &charter.SoftwareKey{Type: "aes256-gcm96", Versions: 1, MinDecryption: 1, MinEncryption: 1}})
	can := []access.Capability{access.Create, access.Read, access.Update}
	return []access.Rule{{Path: "pw/*", Can: can}, {Path: "sys/metrics", Can: can[1:2]}, {Path: "transit/*", Can: can}}
}

// plant has secrets of each kind go through the vault, in requests that are answered and
// in ones that are refused at each of their steps.
func (c *clients) plant(h *house) *canaries {
	h.t.Helper()
	const value, plain = "kv value 5f2c91", "plaintext 5f2c91"
	x := &canaries{secrets: map[string]string{"a value": value, "a plaintext": plain, "a plaintext in base64": base64.StdEncoding.EncodeToString([]byte(plain))}}
	good := func(method, path, body string) map[string]any {
		h.t.Helper()
		code, out := c.ask(h, method, path, body)
		if code != 200 {
			h.t.Fatalf("%s %s: %d %v", method, path, code, out)
		}
		return out
	}
	member := func(of any, name string) string { s, _ := of.(map[string]any)[name].(string); return s }
	token := member(good("POST", "auth/cert/login", "")["auth"], "client_token")
	good("POST", "pw/password/a", `{"policy":"plc"}`)
	x.secrets["a token"], x.secrets["a password"] = token, member(good("GET", "pw/password/a", "")["data"], "password")
	good("POST", "kv/data/line1/canary", `{"data":{"a":"`+value+`"}}`)
	sealed := member(good("POST", "transit/encrypt/soft", `{"plaintext":"`+x.secrets["a plaintext in base64"]+`"}`)["data"], "ciphertext")
	if back := member(good("POST", "transit/decrypt/soft", `{"ciphertext":"`+sealed+`"}`)["data"], "plaintext"); back != x.secrets["a plaintext in base64"] {
		h.t.Errorf("decrypted to %q", back)
	}
	for name, s := range x.secrets {
		if len(s) < 12 {
			h.t.Fatalf("%s is %q", name, s)
		}
		in := fmt.Sprintf(`{"data":{"a":%q},"options":{"cas":7}}`, s)
		for _, r := range [][3]string{
			{"POST", "kv/data/line1/canary", in},
			{"POST", "kv/data/line2/canary", in},
			{"POST", "kv/data/line1/canary", in + in},
			{"POST", "kv/data/line1/canary", in[:len(in)-3]},
			{"POST", "kv/data/line1/canary", fmt.Sprintf(`{"data":%q}`, s)},
			{"POST", "kv/data/line1/canary", fmt.Sprintf(`{"data":{},"options":%q}`, s)},
			{"POST", "none/data/x", in},
			{"POST", "transit/encrypt/soft", fmt.Sprintf(`{"plaintext":%q}`, s+"!")},
			{"POST", "transit/encrypt/none", fmt.Sprintf(`{"plaintext":%q}`, s)},
			{"POST", "transit/decrypt/soft", fmt.Sprintf(`{"ciphertext":%q}`, "vault:v1:"+s)},
			{"POST", "transit/decrypt/soft", fmt.Sprintf(`{"ciphertext":%q}`, s)},
			{"POST", "pw/rotate/a", fmt.Sprintf(`{"cas":%q}`, s)},
			{"POST", "auth/jwt/login", fmt.Sprintf(`{"jwt":%q,"role":"mes"}`, s)},
			{"POST", "auth/approle/login", fmt.Sprintf(`{"role_id":"mes","secret_id":%q}`, s)},
			{"PUT", "sys/unseal", fmt.Sprintf(`{"key":%q}`, s)},
			{"PUT", "keyrite/charter", fmt.Sprintf(`{"statements":[%q]}`, s)},
		} {
			x.refused(h, c, r[0], r[1], r[2], "")
		}
		if !strings.Contains(s, " ") { // net/http takes no other header
			x.refused(h, c, "GET", "kv/data/line1/canary", "", s+"x")
		}
	}
	x.refused(h, c, "GET", "kv/data/line2/last", "", token)
	_, metrics := c.raw(h, "GET", "sys/metrics", "", "")
	if !strings.Contains(metrics, "keyrite_vault_sealed 0") {
		h.t.Errorf("metrics: %.200s", metrics)
	}
	x.said.WriteString(metrics)
	return x
}

// refused keeps what a refusal says.
func (x *canaries) refused(h *house, c *clients, method, path, body, token string) {
	h.t.Helper()
	code, said := c.raw(h, method, path, body, token)
	if code < 400 || code == 500 {
		h.t.Errorf("%s %s: %d %s", method, path, code, said)
	}
	x.said.WriteString(said)
}

// raw is an answer as it came.
func (c *clients) raw(h *house, method, path, body, token string) (int, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, c.base+"/v1/"+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

// copied waits for the copy of the trail to have all these requests.
func (x *canaries) copied(h *house) {
	h.t.Helper()
	if !clitest.Await(20*time.Second, func() bool { return bytes.Contains(x.copy(h), []byte("kv/data/line2/last")) }) {
		h.t.Fatal("the copy of the trail does not have these requests")
	}
}

func (*canaries) copy(h *house) []byte {
	data, err := os.ReadFile(h.path("state/audit/copy.jsonl"))
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

// check looks for the secrets in refusals, metrics, the process's log, the copies of the
// trail, and everything else that the vault left on its disk.
func (x *canaries) check(h *house, log []byte) {
	t := h.t
	t.Helper()
	places := map[string][]byte{"refusals and metrics": x.said.Bytes(), "the log": log, "what the programs of the host said": h.said.Bytes()}
	err := filepath.WalkDir(h.path("state"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			places[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(x.copy(h), []byte("transit/decrypt/soft")) || x.said.Len() < 1000 {
		t.Fatal("what is looked at does not have these requests")
	}
	for place, said := range places {
		for name, s := range x.secrets {
			if bytes.Contains(said, []byte(s)) {
				t.Errorf("%s stands in %s", name, place)
			}
		}
	}
}
