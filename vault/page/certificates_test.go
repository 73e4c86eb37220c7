package page_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/node"
)

// TestCertificatesOnAPage: what an engine gave out is listed and shown to whom its rules
// let, and to nobody else.
func TestCertificatesOnAPage(t *testing.T) {
	r := newRig(t)
	k, _, err := r.Open().Signer(t.Context(), "ca1")
	r.ok(err)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{string(r.World.World)}, CommonName: "plant CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(60 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("plant ca key id 0001"),
	}
	ca, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	r.ok(err)
	r.Approve(charter.TypeMount, charter.Mount{ID: "pki", Engine: "pki"})
	r.Approve(charter.TypePKIRole, charter.PKIRole{
		DNS: []string{".line1.example.com"}, Issuer: ca, Key: "ca1", KeyTypes: []string{"ecdsa-p256"}, MaxLive: 10, MaxTTL: 3600, Mount: "pki", Name: "plant",
		Usages: []string{"server"}, Version: 1,
	})
	can := func(path string, c ...access.Capability) access.Rule { return access.Rule{Path: path, Can: c} }
	r.Approve(charter.TypePolicy, charter.Policy{ID: "auditor", Version: 2, Rules: []access.Rule{can("pki/certs", access.List), can("pki/cert/+", access.Read)}})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "process", Version: 2, Rules: []access.Rule{can("pki/issue/plant", access.Update)}})
	r.file()
	r.open()

	c := r.issue(clerk, uriOf(clerk))
	reply, err := r.node.Do(t.Context(), node.Call{
		Method: engine.Write, RawPath: "pki/issue/plant", Params: engine.Params{"common_name": json.RawMessage(`"plc1.line1.example.com"`)},
		Peer: identity.Peer{UID: -1, Remote: netip.MustParseAddr("192.0.2.7"), Certificates: []*x509.Certificate{c.Leaf}},
	})
	r.ok(err)
	raw, err := json.Marshal(reply.Answer.Data)
	r.ok(err)
	var out struct {
		Serial string `json:"serial_number"`
		Key    string `json:"private_key"`
	}
	r.ok(json.Unmarshal(raw, &out))
	if out.Serial == "" || out.Key == "" {
		t.Fatalf("no certificate: %d bytes", len(raw))
	}
	one := "/certificates/one?" + url.Values{"mount": {"pki"}, "serial": {out.Serial}}.Encode()
	p := r.get(anna, "/certificates")
	p.has(t, "list", out.Serial, "mount=pki&amp;serial=")
	p = r.get(anna, one)
	p.has(t, "certificate", "plc1.line1.example.com", "plant CA", "BEGIN CERTIFICATE")
	p.lacks(t, "certificate", "PRIVATE")
	r.get(clerk, "/certificates").has(t, "who only issues", "You may not see this", "pki/certs")
	r.get(clerk, "/certificates").lacks(t, "who only issues", out.Serial)
	if p := r.get(clerk, one); p.status != http.StatusForbidden {
		t.Errorf("one certificate for who only issues: %d", p.status)
	}
	for path, want := range map[string]int{
		"/certificates?mount=kv": 400, "/certificates?mount=none": 400, "/certificates/one": 400, "/certificates/one?mount=pki&serial=../x": 400,
		"/certificates/one?mount=pki/cert&serial=1": 400, "/certificates/one?mount=pki&serial=4f:4f": 400, "/certificates/one?mount=pki&serial=4f:4f:4f:4f:4f:4f:4f:4f:4f:4f:4f:4f:4f:4f:4f:4f": 404, "/certificates/one?mount=keyrite&serial=x": 404,
	} {
		if p := r.get(anna, path); p.status != want {
			t.Errorf("%s: %d, want %d: %s", path, p.status, want, p.text)
		}
	}
	b := r.browse(t, anna)
	b.show("/certificates")
	b.check("certificates")
	b.show(one)
	b.check("certificate")
}
