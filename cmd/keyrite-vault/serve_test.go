package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/trail"
	"keyrite/internal/clitest"
)

// clients are a CA of processes and servers, and a client of the process "mes".
type clients struct {
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	http *http.Client
	base string
	page string // HOST:PORT
	list string // of the lists, HOST:PORT
}

func newClients(h *house) *clients {
	h.t.Helper()
	c := &clients{}
	c.ca, c.key, _ = c.issue(h, "CA", "")
	_, key, chain := c.issue(h, "vault", "")
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write("tls.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain}))
	h.write("tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	_, key, chain = c.issue(h, "mes", "spiffe://example.com/mes")
	pool := x509.NewCertPool()
	pool.AddCert(c.ca)
	c.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{{Certificate: [][]byte{chain}, PrivateKey: key}},
	}}}
	return c
}

// newLine is newClients for a charter with the mount kv, in which the process "mes" may
// write and read below line1, seal the vault, and do what more rules give.
func newLine(h *house, more ...access.Rule) *clients {
	h.t.Helper()
	c := newClients(h)
	h.bind("head: {file: head.json}\ntls: {certificate: tls.pem, key: tls.key}\n")
	h.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	all := []access.Capability{access.Create, access.Read, access.Update}
	rules := append(more, access.Rule{Path: "kv/data/line1/*", Can: all}, access.Rule{Path: "sys/seal", Can: []access.Capability{access.Update}})
	h.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: rules})
	h.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"line1"}, TTL: 600, Certificate: &charter.Certificate{CA: c.ca.Raw, URI: "spiffe://example.com/mes"}})
	h.host()
	return c
}

// issue makes a certificate: of the CA itself, of a server on loopback, or of a process.
func (c *clients) issue(h *house, name, uri string) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	h.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent, signer := c.ca, c.key
	switch {
	case c.ca == nil:
		tpl.IsCA, tpl.KeyUsage, tpl.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
		parent, signer = tpl, k
	case uri != "":
		u, err := url.Parse(uri)
		if err != nil {
			h.t.Fatal(err)
		}
		tpl.URIs, tpl.IPAddresses, tpl.ExtKeyUsage = []*url.URL{u}, nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, k.Public(), signer)
	if err != nil {
		h.t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		h.t.Fatal(err)
	}
	return crt, k, der
}

func (c *clients) ask(h *house, method, path, body string) (int, map[string]any) {
	h.t.Helper()
	code, raw := c.raw(h, method, path, body, "")
	var out map[string]any
	if raw != "" {
		if err := json.Unmarshal([]byte(raw), &out); err != nil {
			h.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
		}
	}
	return code, out
}

// look asks for the first page, as the process "mes", and wants these texts on it.
func (c *clients) look(h *house, want ...string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "https://"+c.page+"/", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, w := range want {
		if !strings.Contains(string(raw), w) {
			h.t.Errorf("the page lacks %q: %s", w, raw)
		}
	}
}

// serveClients starts the vault with its listeners.
func (h *house) serveClients(c *clients) *serving {
	h.t.Helper()
	s := h.serveWith("--listen", "api=127.0.0.1:0", "--listen=page=127.0.0.1:0", "--listen=lists=127.0.0.1:0", "--socket", h.path("local.sock"))
	s.listeners(c)
	return s
}

// listeners reads where all roles listen.
func (s *serving) listeners(c *clients) {
	s.h.t.Helper()
	c.base = "https://" + s.listener("api")
	c.page = s.listener("page")
	c.list = s.listener("lists")
	s.listener("socket")
}

// plain asks the lists as a stranger does, without TLS.
func (c *clients) plain(h *house, path string) int {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+c.list+"/v1/"+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// listener reads where a role listens.
func (s *serving) listener(role string) string {
	s.h.t.Helper()
	line, err := s.out.ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ready "+role+" ")
	if err != nil || !ok {
		_ = s.cmd.Process.Kill() // what it said is read when it has ended
		_ = s.cmd.Wait()
		s.h.t.Fatalf("serve says %q (%v): %s", line, err, s.errs.String())
	}
	return addr
}

// TestServeClients: a vault is opened over HTTP by answers of its key masters, serves a
// process that the charter knows, takes statements from the file, and is sealed by a
// client; the process goes on under the same id and port, sealed.
func TestServeClients(t *testing.T) {
	h := newHouse(t)
	c := newLine(h, h.mountSecrets()...)
	s := h.serveClients(c)
	if code, body := c.ask(h, "GET", "sys/health", ""); code != 501 || body["initialized"] != false {
		t.Errorf("before anything: %d %v", code, body)
	}
	h.open(openrequest.Create, "master1", "master2", "master3")
	if code, body := c.ask(h, "PUT", "kv/data/line1/plc", `{"data":{"a":"b"}}`); code != 200 {
		t.Fatalf("write: %d %v", code, body)
	}

	c.look(h, "You may not see this page.", "you are <b>mes</b>")
	for _, path := range []string{"kv/data/line1/plc", "sys/health", "kv/crl", "pki/crl"} { // the charter opens none
		if code := c.plain(h, path); code != 403 {
			t.Errorf("a stranger asks the lists for %s: %d, want 403", path, code)
		}
	}

	// A client seals it.
	pid := s.cmd.Process.Pid
	if code, body := c.ask(h, "PUT", "sys/seal", ""); code != 204 {
		t.Fatalf("seal: %d %v", code, body)
	}
	s.ready()
	before := *c
	s.listeners(c)
	if c.base != before.base || c.page != before.page || c.list != before.list || s.cmd.Process.Pid != pid {
		t.Errorf("anew at %s, %s, %s, before at %s, %s, %s", c.base, c.page, c.list, before.base, before.page, before.list)
	}
	c.look(h, "The vault is sealed.", "no rule gives read")
	if code := c.plain(h, "kv/crl"); code != 503 {
		t.Errorf("lists of a sealed vault: %d", code)
	}
	if code, _ := c.ask(h, "GET", "kv/data/line1/plc", ""); code != 503 {
		t.Errorf("sealed: %d", code)
	}
	if code, figures := c.raw(h, "GET", "sys/metrics", "", ""); code != 200 || !strings.Contains(figures, "\nkeyrite_vault_sealed 1\n") {
		t.Errorf("metrics of a sealed vault: %d %.200s", code, figures)
	}

	h.openOverHTTP(c)
	if code, body := c.ask(h, "GET", "kv/data/line1/plc", ""); code != 200 || !strings.Contains(fmt.Sprint(body), "a:b") {
		t.Errorf("read: %d %v", code, body)
	}

	h.extracts()
	secrets := c.plant(h) // after a sink's file was deleted: the new one has these requests

	// The approvers end the process, in the file.
	h.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "mes", Type: charter.TypeIdentity})
	h.write("charter.jsonl", h.Charter)
	if !clitest.Await(20*time.Second, func() bool { code, _ := c.ask(h, "GET", "kv/data/line1/plc", ""); return code == 403 }) {
		t.Error("whose identity was ended is answered")
	}
	if st := h.status(); st.Sealed || st.Charter != h.State.Size() {
		t.Errorf("status %+v", st)
	}
	secrets.copied(h)
	s.stop()
	h.alone(0)
	h.noCanary()
	secrets.check(h, s.errs.Bytes())
	if bytes.Contains(s.errs.Bytes(), []byte("canary of")) {
		t.Error("a passphrase stands in the log")
	}
}

// openOverHTTP has key masters open the vault with the requests that stock clients make;
// what is refused leaves the progress.
func (h *house) openOverHTTP(c *clients) {
	t := h.t
	t.Helper()
	h.vault(0, "unseal", "--new-attempt", "--out", "http.request")
	answers := map[string]string{}
	for _, name := range []string{"master2", "master4", "master5"} {
		if code, text := h.answer("http.request", name, name+".http"); code != 0 {
			t.Fatalf("%s: exit %d: %s", name, code, text)
		}
		key, err := json.Marshal(string(h.read(name + ".http")))
		if err != nil {
			t.Fatal(err)
		}
		answers[name] = string(key)
	}
	wants := func(body map[string]any, progress int) bool {
		return body["sealed"] == true && body["progress"] == float64(progress) && body["t"] == 3.0 && body["n"] == 5.0
	}
	wrong := strings.Replace(answers["master2"], `\"share\":\"`, `\"share\":\"AAAA`, 1)
	refused := func(progress int, says string, want int, body string) {
		t.Helper()
		if code, out := c.ask(h, "PUT", "sys/unseal", body); code != want || !strings.Contains(fmt.Sprint(out), says) {
			t.Errorf("%.60s: %d %v", body, code, out)
		}
		if _, st := c.ask(h, "GET", "sys/seal-status", ""); !wants(st, progress) {
			t.Errorf("after %.60s: %v", body, st)
		}
	}
	refused(0, "share open", 400, `{"key":"8d2c0f"}`)
	refused(0, "master2", 400, `{"key":`+wrong+`}`)
	refused(0, "reset", 400, `{"reset":true,"migrate":false}`)
	refused(0, "migrate", 400, `{"key":`+answers["master2"]+`,"reset":false,"migrate":true}`)
	refused(0, "other", 400, `{"key":`+answers["master2"]+`,"other":false}`)

	// As the Vault CLI sends it.
	if code, body := c.ask(h, "PUT", "sys/unseal", `{"key":`+answers["master2"]+`,"reset":false,"migrate":false}`); code != 200 || !wants(body, 1) {
		t.Fatalf("first: %d %v", code, body)
	}
	refused(1, "master2", 403, `{"key":`+answers["master2"]+`}`)
	refused(1, "master4", 400, `{"key":`+strings.Replace(answers["master4"], `\"share\":\"`, `\"share\":\"AAAA`, 1)+`}`)
	h.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ca.Raw}))
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/hvac_unseal.py", c.base, h.path("ca.pem"), h.path("master4.http"))
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "progress 2" {
		t.Fatalf("hvac: %v: %s", err, out)
	}
	if code, body := c.ask(h, "PUT", "sys/unseal", `{"key":`+answers["master5"]+`}`); code != 200 || body["sealed"] != false {
		t.Fatalf("last: %d %v", code, body)
	}
}

// nameLog puts the key of the vault's log into the charter.
func (h *house) nameLog() {
	h.t.Helper()
	block, _ := pem.Decode(h.read("state/log.pub"))
	if block == nil {
		h.t.Fatal("log.pub is no PEM")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := pub.(ed25519.PublicKey)
	if err != nil || !ok {
		h.t.Fatalf("log.pub: %v", err)
	}
	h.Approve(charter.TypeAuditLog, charter.AuditLog{Log: charter.LogSigner{Key: key, Name: "vault1"}, Version: 1})
}

// extracts has the trail written out, and verified by a program that knows the charter
// alone.
func (h *house) extracts() {
	h.t.Helper()
	if _, errs := h.vault(13, "audit", "--out", h.path("trail.jsonl")); !strings.Contains(errs, "audit-log") {
		h.t.Errorf("without a key in the charter: %s", errs)
	}
	h.nameLog()
	h.Approve(charter.TypeAuditSink, charter.AuditSink{ID: "copy", Kind: "file"})
	h.Approve(charter.TypeAuditSink, charter.AuditSink{ID: "folder", Kind: "file"})
	if err := os.MkdirAll(h.path("state/audit/folder.jsonl"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	h.write("charter.jsonl", h.Charter)
	if !clitest.Await(20*time.Second, func() bool { return h.status().Charter == h.State.Size() }) {
		h.t.Fatal("the charter file is not followed")
	}
	out, _ := h.vault(0, "audit", "--out", h.path("trail.jsonl"), "--json")
	if !strings.Contains(out, `"whole":true`) {
		h.t.Errorf("extract: %s", out)
	}
	h.vault(0, "audit", "--out", h.path("plc.jsonl"), "--path", "kv/data/line1")
	for name, want := range map[string]string{"trail.jsonl": "life", "plc.jsonl": "kv/data/line1/plc"} {
		f, err := os.Open(h.path(name))
		if err != nil {
			h.t.Fatal(err)
		}
		found := false
		_, err = trail.Verify(f, h.State.TrailSigners(), func(_ uint64, e *trail.Entry) error {
			found = found || string(e.Kind) == want || e.Path == want
			return nil
		})
		if err != nil || !found {
			h.t.Errorf("%s: %v, has %s: %v", name, err, want, found)
		}
		f.Close()
	}
	h.vault(16, "audit", "--out", h.path("trail.jsonl"))
	h.vault(2, "audit", "--out", h.path("none.jsonl"), "--identity", "nobody")
	h.vault(2, "audit", "--out", h.path("none.jsonl"), "--from", "tomorrow")
	if _, err := os.Stat(h.path("none.jsonl")); err == nil {
		h.t.Error("a failed extract left a file")
	}
	if !clitest.Await(20*time.Second, func() bool {
		data, _ := os.ReadFile(h.path("state/audit/copy.jsonl"))
		return bytes.Contains(data, []byte("kv/data/line1/plc"))
	}) {
		h.t.Error("the sink has no copy")
	}
	h.sinksShow()
}

// sinksShow looks how status tells of a sink in trouble and of a file that is deleted.
func (h *house) sinksShow() {
	h.t.Helper()
	says := func(what string) func() bool {
		return func() bool {
			out, _ := h.vault(0, "status")
			data, _ := h.vault(0, "status", "--json")
			return strings.Contains(out, "WARNING: "+what) && strings.Contains(data, `"deleted":`) == strings.Contains(what, "deleted")
		}
	}
	if !clitest.Await(20*time.Second, says("sink folder gets no copies of the trail since ")) {
		h.t.Error("status says nothing of a sink that is a folder")
	}
	for _, name := range []string{"state/audit/folder.jsonl", "state/audit/copy.jsonl"} {
		if err := os.Remove(h.path(name)); err != nil {
			h.t.Fatal(err)
		}
	}
	if !clitest.Await(20*time.Second, says("the file of sink copy was deleted, which was noticed ")) {
		h.t.Error("status says nothing of a sink whose file was deleted")
	}
	if !clitest.Await(20*time.Second, func() bool { out, _ := h.vault(0, "status"); return !strings.Contains(out, "sink folder") }) {
		h.t.Error("what was mended is told of still")
	}
}
