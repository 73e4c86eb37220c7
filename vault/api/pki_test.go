package api_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"keyrite/artifact/access"
	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/vault/api"
	"keyrite/vault/engine"
	"keyrite/vault/engine/kv"
	"keyrite/vault/engine/password"
	"keyrite/vault/engine/pki"
	"keyrite/vault/engine/token"
	"keyrite/vault/engine/transit"
	"keyrite/vault/vaulttest"
)

// newPKIRig serves a vault with a CA in its token, for roles of the mount pki that f makes.
func newPKIRig(t *testing.T, f func(*rig, *charter.PKIRole)) (r *rig, ca []byte) {
	t.Helper()
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "plant-ca", Algorithm: anchor.P256, Domain: "x509"}, {ID: "fwkey", Algorithm: anchor.P256, Domain: anchor.DomainGeneral}})
	r = found(t, v.World)
	tok := v.Open()
	k, _, err := tok.Signer(t.Context(), "plant-ca")
	r.ok(err)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{string(v.World.World)}, CommonName: "plant CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(60 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("plant ca key id 0001"),
	}
	ca, err = x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	r.ok(err)
	r.Approve(charter.TypeMount, charter.Mount{ID: "pki", Engine: "pki"})
	role := charter.PKIRole{
		DNS: []string{".line1.example.com"}, Issuer: ca, Key: "plant-ca", KeyTypes: []string{"ecdsa-p256"}, MaxLive: 10, MaxTTL: 3600, Mount: "pki", Name: "plant",
		Usages: []string{"server"}, Version: 1,
	}
	f(r, &role)
	r.Approve(charter.TypePKIRole, role)
	rules := append([]access.Rule{}, r.State.Access.Policies["line1"].Rules...)
	rules = append(rules, access.Rule{Path: "pki/*", Can: []access.Capability{access.List, access.Read, access.Update}})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 2, Rules: rules})
	eng := engines()
	eng["kv"] = func(h *engine.Host) (engine.Engine, error) { return leasing{kv.New(h)}, nil }
	eng["transit"] = func(h *engine.Host) (engine.Engine, error) { return transit.New(h), nil }
	eng["token"] = func(h *engine.Host) (engine.Engine, error) { return token.New(h), nil }
	eng["password"] = func(h *engine.Host) (engine.Engine, error) { return password.New(h), nil }
	eng["pki"] = func(h *engine.Host) (engine.Engine, error) { return pki.New(h), nil }
	r.start(tok, eng, api.Limits{})
	return r, ca
}

// TestCertificatesOverHTTP: curl gets a certificate, the list and an answer about it,
// and openssl takes all three.
func TestCertificatesOverHTTP(t *testing.T) {
	r, ca := newPKIRig(t, func(*rig, *charter.PKIRole) {})
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	root, cert, key := r.files(r.mes)
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	curl := func(args ...string) string {
		t.Helper()
		args[len(args)-1] = "https://" + r.addr + "/v1/pki/" + args[len(args)-1]
		return run("curl", append([]string{"-sS", "--fail-with-body", "--cacert", root, "--cert", cert, "--key", key}, args...)...)
	}
	var out struct {
		Data struct {
			Certificate string `json:"certificate"`
			Serial      string `json:"serial_number"`
		} `json:"data"`
		Lease string `json:"lease_id"`
	}
	r.ok(json.Unmarshal([]byte(curl("-X", "PUT", "-d", `{"common_name":"plc1.line1.example.com"}`, "issue/plant")), &out))
	if out.Lease == "" {
		t.Error("a certificate without a lease")
	}
	r.ok(os.WriteFile(at("leaf"), []byte(out.Data.Certificate), 0o600))
	curl("-o", at("ca"), "ca/pem")
	if b, _ := pem.Decode([]byte(run("cat", "ca"))); b == nil || string(b.Bytes) != string(ca) {
		t.Error("ca/pem is another")
	}
	curl("-o", at("crl"), "crl/pem")
	run("openssl", "verify", "-crl_check", "-CRLfile", "crl", "-CAfile", "ca", "leaf")
	ask := func() string {
		t.Helper()
		run("openssl", "ocsp", "-issuer", "ca", "-cert", "leaf", "-no_nonce", "-reqout", "req")
		curl("-H", "Content-Type: application/ocsp-request", "--data-binary", "@req", "-o", at("resp"), "ocsp")
		return run("openssl", "ocsp", "-issuer", "ca", "-cert", "leaf", "-no_nonce", "-respin", "resp", "-CAfile", "ca")
	}
	if got := ask(); !strings.Contains(got, "leaf: good") {
		t.Error(got)
	}
	curl("-X", "PUT", "-d", `{"serial_number":"`+out.Data.Serial+`"}`, "revoke")
	if got := ask(); !strings.Contains(got, "leaf: revoked") {
		t.Error(got)
	}
	if got := curl("-D", "-", "-o", "/dev/null", "crl"); !strings.Contains(strings.ToLower(got), "content-type: application/pkix-crl") {
		t.Error(got)
	}
}

// plain serves the lists over HTTP until the test ends.
func (r *rig) plain(l net.Listener) {
	lists := r.server.Lists()
	done := make(chan error, 1)
	go func() { done <- lists.Serve(l) }()
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = lists.Shutdown(ctx)
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

// TestRevocationForWhoeverChecks: where the role says so its certificates name the places
// of list and answers, which openssl follows over HTTP, without any identity; nothing else
// is there, and the trail tells of it.
func TestRevocationForWhoeverChecks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String() + "/v1/pki/"
	r, ca := newPKIRig(t, func(_ *rig, p *charter.PKIRole) { p.CRL, p.OCSP, p.Public = base+"crl", base+"ocsp", true })
	r.plain(l)
	dir := t.TempDir()
	run := func(args ...string) (string, error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	r.ok(os.WriteFile(filepath.Join(dir, "ca"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}), 0o600))
	issued := r.put("pki/issue/plant", `{"common_name":"plc1.line1.example.com"}`)
	text, _ := issued.data("certificate").(string)
	r.ok(os.WriteFile(filepath.Join(dir, "leaf"), []byte(text), 0o600))
	shown, err := run("x509", "-in", "leaf", "-noout", "-text")
	if err != nil || !strings.Contains(shown, "URI:"+base+"crl") || !strings.Contains(shown, "OCSP - URI:"+base+"ocsp") {
		t.Fatalf("%v: %s", err, shown)
	}
	size := r.node.Status().Store.Size
	if out, err := run("verify", "-crl_check", "-crl_download", "-CAfile", "ca", "leaf"); err != nil || !strings.Contains(out, "leaf: OK") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := run("crl", "-in", base+"crl", "-CAfile", "ca", "-noout", "-text"); err != nil || !strings.Contains(out, "verify OK") || !strings.Contains(out, "No Revoked") {
		t.Errorf("%v: %s", err, out)
	}
	answer := func() string {
		t.Helper()
		out, err := run("ocsp", "-issuer", "ca", "-cert", "leaf", "-no_nonce", "-url", base+"ocsp", "-CAfile", "ca")
		if err != nil || !strings.Contains(out, "Response verify OK") {
			t.Errorf("%v: %s", err, out)
		}
		return out
	}
	if got := answer(); !strings.Contains(got, "leaf: good") {
		t.Error(got)
	}
	if n := r.node.Status().Store.Size - size; n < 4 {
		t.Errorf("%d entries about strangers who looked", n)
	}
	if p := r.put("pki/revoke", `{"serial_number":"`+issued.data("serial_number").(string)+`"}`); p.status != 200 {
		t.Fatal(p.status)
	}
	if got := answer(); !strings.Contains(got, "leaf: revoked") {
		t.Error(got)
	}
	if out, err := run("verify", "-crl_check", "-crl_download", "-CAfile", "ca", "leaf"); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("%v: %s", err, out)
	}
	get := func(method, path string, headers ...string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+"/v1/"+path, nil)
		r.ok(err)
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		r.ok(err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for path, method := range map[string]string{
		"sys/health": "GET", "pki/ca": "GET", "pki/certs": "LIST", "pki/crl/pem": "GET", "kv/crl": "GET", "nothing/crl": "GET", "auth/cert/login": "POST",
		"pki/issue/plant": "POST", "pki/../pki/crl": "GET", "pki/crl?list=true": "GET", "pki/revoke": "POST", "kv/data/line1/x": "GET", "keyrite/charter": "GET",
	} {
		if status := get(method, path); status < 400 {
			t.Errorf("%s %s: %d", method, path, status)
		}
	}
	if status := get("GET", "pki/crl"); status != 200 {
		t.Errorf("the list: %d", status)
	}
	if status := get("GET", "pki/crl", "X-Vault-Token", "x"); status < 400 {
		t.Errorf("a token over HTTP: %d", status)
	}
	// The same over TLS, for who comes there; a wrong token is still wrong.
	stranger := r.as(nil)
	if p := r.ask(stranger, "GET", "pki/crl", ""); p.status != 200 || p.header.Get("Content-Type") != "application/pkix-crl" {
		t.Errorf("the list over TLS: %d", p.status)
	}
	if p := r.ask(stranger, "GET", "pki/crl", "", "X-Vault-Token", "x"); p.status != 403 {
		t.Errorf("with a wrong token: %d", p.status)
	}
}

// TestRevocationIsForNobodyByDefault: without the role's word strangers hear nothing.
func TestRevocationIsForNobodyByDefault(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := newPKIRig(t, func(_ *rig, p *charter.PKIRole) { p.CRL = "http://example.com/crl" })
	r.plain(l)
	for _, path := range []string{"pki/crl", "pki/ocsp/AAAA"} {
		resp, err := http.Get("http://" + l.Addr().String() + "/v1/" + path)
		r.ok(err)
		_ = resp.Body.Close()
		if p := r.ask(r.as(nil), "GET", path, ""); resp.StatusCode != 403 || p.status != 403 {
			t.Errorf("%s: %d over HTTP, %d over TLS", path, resp.StatusCode, p.status)
		}
	}
}

// TestStrangersDoNotUseUpTheToken: of strangers who ask for ever more the token signs for
// a few, the rest is told to come later; a process that is known is served meanwhile.
func TestStrangersDoNotUseUpTheToken(t *testing.T) {
	r, ca := newPKIRig(t, func(_ *rig, p *charter.PKIRole) { p.Public, p.MaxLive = true, 100 })
	issuer, err := x509.ParseCertificate(ca)
	r.ok(err)
	var questions [][]byte
	for range 12 {
		p := r.put("pki/issue/plant", `{"common_name":"plc1.line1.example.com"}`)
		b, _ := pem.Decode([]byte(p.data("certificate").(string)))
		leaf, err := x509.ParseCertificate(b.Bytes)
		r.ok(err)
		for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			q, err := ocsp.CreateRequest(leaf, issuer, &ocsp.RequestOptions{Hash: h})
			r.ok(err)
			questions = append(questions, q)
		}
	}
	never := *issuer
	never.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 126)
	unknown, err := ocsp.CreateRequest(&never, issuer, nil)
	r.ok(err)
	stranger := r.as(nil)
	ask := func(q []byte) *reply {
		return r.ask(stranger, "POST", "pki/ocsp", string(q), "Content-Type", "application/ocsp-request")
	}
	size := r.node.Status().Store.Size
	for range 50 {
		if p := ask(unknown); p.status != 200 || string(p.raw) != string(ocsp.UnauthorizedErrorResponse) {
			t.Fatalf("about a number that was never given out: %d %q", p.status, p.raw)
		}
	}
	if n := r.node.Status().Store.Size - size; n > 60 {
		t.Errorf("50 questions about nothing made %d entries", n)
	}
	good, later := 0, 0
	began := time.Now()
	for _, q := range questions {
		switch p := ask(q); p.status {
		case 200:
			good++
		case 429:
			later++
		default:
			t.Errorf("%d %s", p.status, p.raw)
		}
	}
	if most := 20 + 2 + int(time.Since(began)/(200*time.Millisecond)); good > most || good < 20 || good+later != len(questions) {
		t.Errorf("%d signed for strangers and %d refused, at most %d", good, later, most)
	}
	if p := ask(questions[0]); p.status != 200 {
		t.Errorf("an answer that is there: %d", p.status)
	}
	if p := r.put("pki/issue/plant", `{"common_name":"plc2.line1.example.com"}`); p.status != 200 {
		t.Errorf("a process that is known: %d %s", p.status, p.raw)
	}
}
