package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
)

func fuzzCSR(f *testing.F) string {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	u, err := url.Parse("spiffe://example.com/line1/a")
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"a.line1.example.com"}, URIs: []*url.URL{u}}, k)
	if err != nil {
		f.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// FuzzCSR: whatever a request says, a role gives what it names and nothing else.
func FuzzCSR(f *testing.F) {
	f.Add(fuzzCSR(f))
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n")
	role := &charter.PKIRole{Name: "x", DNS: []string{".line1.example.com"}, URIs: []string{"spiffe://example.com/line1/"}}
	f.Fuzz(func(t *testing.T, text string) {
		pub, n, err := readCSR(text)
		if err != nil {
			if fault.ClassOf(err) != fault.Usage {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if pub == nil {
			t.Errorf("%q has no key", text)
		}
		if n.check(role) == nil {
			for _, d := range n.dns {
				if !strings.HasSuffix(d, ".line1.example.com") {
					t.Errorf("%q gives %q", text, d)
				}
			}
		}
	})
}

// FuzzOCSP: a request is about one certificate, or none.
func FuzzOCSP(f *testing.F) {
	f.Add([]byte{0x30, 0})
	f.Add([]byte{0x30, 0x06, 0x30, 0x04, 0x30, 0x02, 0x30, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		if q, err := parseOCSP(der); err == nil && (q.SerialNumber == nil || q.SerialNumber.Sign() <= 0 || !q.HashAlgorithm.Available()) {
			t.Errorf("%x is taken", der)
		}
	})
}

// FuzzPlan: no request crashes the engine or is decided upon as nothing.
func FuzzPlan(f *testing.F) {
	b := enginetest.New(f, "pki", "pki")
	b.World.Approve(charter.TypePKIRole, charter.PKIRole{
		DNS: []string{".line1.example.com"}, Issuer: b.World.Anchors.Certificates["relay-ca"], Key: "relay-ca", KeyTypes: []string{"ecdsa-p256"}, MaxLive: 10, MaxTTL: 60,
		Mount: "pki", Name: "plant", Usages: []string{"client"}, Version: 1,
	})
	e := New(b.Host)
	csr, err := json.Marshal(map[string]string{"csr": fuzzCSR(f), "common_name": "a.line1.example.com"})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range [][2]string{
		{"pki/issue/plant", `{"common_name":"a.line1.example.com","alt_names":["b.line1.example.com"],"ip_sans":"10.0.0.1","ttl":"30s"}`},
		{"pki/sign/plant", string(csr)},
		{"pki/revoke", `{"serial_number":"41:41:41:41:41:41:41:41:41:41:41:41:41:41:41:41"}`},
		{"pki/ocsp", `{"request":"MAA="}`},
		{"pki/ocsp/MAA=", ``},
		{"pki/cert/ca", ``},
		{"pki/crl/pem", ``},
		{"pki/certs", ``},
		{"pki/roles/plant", ``},
		{"pki/ca_chain", ``},
	} {
		for m := engine.Read; m <= engine.Delete; m++ {
			f.Add(int(m), s[0], s[1])
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
		case err == nil && (plan.Needs == "" || plan.Needs == access.Deny || plan.Apply == nil || plan.Work != nil && !plan.Intent && plan.Needs != access.List): // to list is to read what is there
			t.Errorf("%d %s %s: needs %q, or uses the CA's key without an intent", m, path, body, plan.Needs)
		}
	})
}

// TestSerialNumbers: in the spellings that clients use, and in no other.
func TestSerialNumbers(t *testing.T) {
	want := strings.Repeat("4f", 16)
	for _, s := range []string{want, strings.ToUpper(want), shownSerial(want), strings.ReplaceAll(shownSerial(want), ":", "-")} {
		if got, err := parseSerial(s); got != want || err != nil {
			t.Errorf("%q: %q %v", s, got, err)
		}
	}
	for _, s := range []string{"", "4f", want + "00", want[1:], "0x" + want[2:], strings.Repeat("zz", 16)} {
		if got, err := parseSerial(s); err == nil {
			t.Errorf("%q is %q", s, got)
		}
	}
	if got := indexed("plant", time.Unix(0x12, 0), want); got != "plant/000000000012/"+want {
		t.Error(got)
	}
}
