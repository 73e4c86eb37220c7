package api_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/vault/api"
	"keyrite/vault/engine"
	"keyrite/vault/engine/pki"
	"keyrite/vault/vaulttest"
)

// TestCertificatesOverHTTP: curl gets a certificate, the list and an answer about it,
// and openssl takes all three.
func TestCertificatesOverHTTP(t *testing.T) {
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "plant-ca", Algorithm: anchor.P256, Domain: "x509"}})
	r := found(t, v.World)
	tok := v.Open()
	k, _, err := tok.Signer(t.Context(), "plant-ca")
	r.ok(err)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{string(v.World.World)}, CommonName: "plant CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(60 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("plant ca key id 0001"),
	}
	ca, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	r.ok(err)
	r.Approve(charter.TypeMount, charter.Mount{ID: "pki", Engine: "pki"})
	r.Approve(charter.TypePKIRole, charter.PKIRole{
		DNS: []string{".line1.example.com"}, Issuer: ca, Key: "plant-ca", KeyTypes: []string{"ecdsa-p256"}, MaxLive: 10, MaxTTL: 3600, Mount: "pki", Name: "plant",
		Usages: []string{"server"}, Version: 1,
	})
	rules := append([]access.Rule{}, r.State.Access.Policies["line1"].Rules...)
	rules = append(rules, access.Rule{Path: "pki/*", Can: []access.Capability{access.List, access.Read, access.Update}})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 2, Rules: rules})
	eng := engines()
	eng["pki"] = func(h *engine.Host) (engine.Engine, error) { return pki.New(h), nil }
	r.start(tok, eng, api.Limits{})

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
