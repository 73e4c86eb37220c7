package pki_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/seal"
)

// TestIssuedCertificatesHold: issued for keys of each type, under CAs of each, they
// pass zlint and openssl, bear the names and nothing more, and the key fits; also with
// the places of list and answers (R-CER-20).
func TestIssuedCertificatesHold(t *testing.T) {
	for _, alg := range []string{anchor.P256, anchor.P384, anchor.RSA3072} {
		t.Run(alg, func(t *testing.T) {
			r := newRoom(t, alg)
			r.state(func(*charter.PKIRole) {})
			for _, typ := range charter.PKIKeyTypes() {
				out := r.do("issue/plant", body{"common_name": "plc1.line1.example.com", "alt_names": "mes.example.com", "uri_sans": []string{"spiffe://example.com/line1/plc1"}, "ip_sans": "10.1.2.3", "ttl": "1h", "key_type": typ})
				c := parse(t, out["certificate"])
				zlinted(t, c.Raw)
				if _, err := tls.X509KeyPair([]byte(out["certificate"].(string)), []byte(out["private_key"].(string))); err != nil {
					t.Errorf("%s: the key does not fit: %v", typ, err)
				}
				if !slices.Equal(c.DNSNames, []string{"mes.example.com", "plc1.line1.example.com"}) || len(c.URIs) != 1 || len(c.IPAddresses) != 1 || c.IsCA || c.Subject.CommonName != "plc1.line1.example.com" {
					t.Errorf("%s: %v %v %v", typ, c.DNSNames, c.URIs, c.IPAddresses)
				}
				if c.SerialNumber.BitLen() != 127 || c.NotAfter.Sub(r.Now) > time.Hour {
					t.Errorf("%s: number of %d bits, until %s", typ, c.SerialNumber.BitLen(), c.NotAfter)
				}
				files := map[string][]byte{"ca": r.raw(engine.Read, "ca/pem", nil), "crl": r.raw(engine.Read, "crl/pem", nil), "leaf": []byte(out["certificate"].(string))}
				if _, text, err := enginetest.OpenSSL(t, files, "verify", "-x509_strict", "-crl_check", "-CRLfile", "crl", "-CAfile", "ca", "leaf"); err != nil {
					t.Errorf("%s: openssl: %s", typ, text)
				}
			}
			const crl, answers = "http://pki.example.com:8080/v1/pki/crl", "https://pki.example.com/v1/pki/ocsp"
			r.state(func(x *charter.PKIRole) { x.Name, x.CRL, x.OCSP = "places", crl, answers })
			c := parse(t, r.do("issue/places", body{"common_name": "mes.example.com"})["certificate"])
			zlinted(t, c.Raw)
			if !slices.Equal(c.CRLDistributionPoints, []string{crl}) || !slices.Equal(c.OCSPServer, []string{answers}) {
				t.Errorf("places %v %v", c.CRLDistributionPoints, c.OCSPServer)
			}
		})
	}
}

// TestChain: below an intermediate the certificates above the issuer are given out, as
// the charter names them, in each form, and openssl builds its path from them to a root
// that the vault does not have.
func TestChain(t *testing.T) {
	r := newRoom(t, anchor.P256)
	root, above := r.subordinate()
	r.state(func(x *charter.PKIRole) { x.Chain = above })
	want := []byte{}
	for _, der := range append([][]byte{r.ca.Raw}, above...) {
		want = append(want, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if got := r.raw(engine.Read, "ca_chain", nil); !bytes.Equal(got, want) {
		t.Errorf("ca_chain:\n%s", got)
	}
	cert := func(which string) string {
		a, err := r.Do(r.e, engine.Read, "cert/"+which, nil)
		if err != nil {
			t.Fatal(err)
		}
		return enginetest.Data(t, a)["certificate"].(string)
	}
	if cert("ca_chain") != string(want) || cert("ca") != string(r.raw(engine.Read, "ca/pem", nil)) || !parse(t, cert("ca")).Equal(r.ca) {
		t.Error("cert/ca_chain is not the chain, or ca not the issuer alone")
	}
	ask := func(form string) map[string]any {
		return r.do("issue/plant", body{"common_name": "mes.example.com", "ttl": "1h", "format": form})
	}
	files := map[string][]byte{"root": root}
	verify := func(what, leaf string, chain []byte) {
		t.Helper()
		files["leaf"], files["chain"] = []byte(leaf), chain
		if _, text, err := enginetest.OpenSSL(t, files, "verify", "-x509_strict", "-CAfile", "root", "-untrusted", "chain", "leaf"); err != nil {
			t.Errorf("%s: openssl: %s", what, text)
		}
	}
	out := ask("pem")
	chain := out["ca_chain"].([]any)
	if len(chain) != 2 || out["issuing_ca"] != chain[0] {
		t.Fatalf("%d certificates above", len(chain))
	}
	verify("pem", out["certificate"].(string), []byte(chain[0].(string)+chain[1].(string)))
	if _, text, err := enginetest.OpenSSL(t, map[string][]byte{"root": root, "leaf": []byte(out["certificate"].(string)), "chain": []byte(chain[0].(string))}, "verify", "-CAfile", "root", "-untrusted", "chain", "leaf"); err == nil {
		t.Errorf("without the middle openssl finds a path: %s", text)
	}
	bundle := ask("pem_bundle")["certificate"].(string)
	_, certs, _ := strings.Cut(bundle, "-----END EC PRIVATE KEY-----\n")
	verify("pem_bundle", certs, []byte(certs))
	if strings.Count(certs, "BEGIN CERTIFICATE") != 3 {
		t.Errorf("the bundle:\n%s", certs)
	}
	for i, x := range ask("der")["ca_chain"].([]any) {
		if b, err := base64.StdEncoding.DecodeString(x.(string)); err != nil || !bytes.Equal(b, append([][]byte{r.ca.Raw}, above...)[i]) {
			t.Errorf("der: certificate %d above: %v", i, err)
		}
	}
}

// TestTLSWithIssuedCertificates: a server and a client that the vault gave
// certificates talk to each other.
func TestTLSWithIssuedCertificates(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	pair := func() tls.Certificate {
		out := r.do("issue/plant", body{"common_name": "mes.example.com", "private_key_format": "pkcs8"})
		p, err := tls.X509KeyPair([]byte(out["certificate"].(string)), []byte(out["private_key"].(string)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	pool := x509.NewCertPool()
	pool.AddCert(r.ca)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "hello")
	}()
	c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: "mes.example.com", Certificates: []tls.Certificate{pair()}, MinVersion: tls.VersionTLS13}}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
}

// TestSignedRequests: of a request only key and names are taken, and each name must be
// the role's.
func TestSignedRequests(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(x *charter.PKIRole) { x.KeyTypes = []string{"ecdsa-p256", "ed25519"} })
	k := ecKey(t, elliptic.P256())
	plain := func(*x509.CertificateRequest) {}
	out := r.do("sign/plant", body{"csr": request(t, k, func(c *x509.CertificateRequest) {
		c.Subject.Organization, c.Subject.OrganizationalUnit = []string{"Evil"}, []string{"Root"}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 1, 6}}} // keyCertSign, cRLSign
	})})
	c := parse(t, out["certificate"])
	zlinted(t, c.Raw)
	if out["private_key"] != nil || !k.PublicKey.Equal(c.PublicKey) || !slices.Equal(c.Subject.Organization, r.ca.Subject.Organization) || len(c.Subject.OrganizationalUnit) > 0 || c.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("subject %s, usage %b", c.Subject, c.KeyUsage)
	}
	got := parse(t, r.do("sign/plant", body{"csr": request(t, k, plain), "common_name": "mes.example.com"})["certificate"])
	if !slices.Equal(got.DNSNames, []string{"mes.example.com"}) {
		t.Errorf("names are %v", got.DNSNames)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.do("sign/plant", body{"csr": request(t, ed, plain)})
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	broken := []byte(request(t, k, plain))
	other, err := url.Parse("spiffe://example.com/line2/plc1")
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(text []byte) string {
		b, _ := pem.Decode(text)
		b.Bytes[len(b.Bytes)-3] ^= 1
		return string(pem.EncodeToMemory(b))
	}
	for what, x := range map[string]struct {
		class fault.Class
		body  body
	}{
		"none":                  {fault.Usage, body{}},
		"no PEM":                {fault.Usage, body{"csr": "AAAA"}},
		"two":                   {fault.Usage, body{"csr": string(broken) + string(broken)}},
		"huge":                  {fault.Usage, body{"csr": string(broken) + strings.Repeat(" ", 20_000)}},
		"no proof":              {fault.Usage, body{"csr": spoil(broken)}},
		"a certificate":         {fault.Usage, body{"csr": string(r.raw(engine.Read, "ca/pem", nil))}},
		"another curve":         {fault.Policy, body{"csr": request(t, ecKey(t, elliptic.P384()), plain)}},
		"a curve of nobody":     {fault.Policy, body{"csr": request(t, ecKey(t, elliptic.P521()), plain)}},
		"a weak key":            {fault.Policy, body{"csr": request(t, weak, plain)}},
		"a name more":           {fault.Policy, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.DNSNames = []string{"plc1.line1.example.com", "evil.example.com"} })}},
		"a name more, beside":   {fault.Policy, body{"common_name": "mes.example.com", "csr": request(t, k, func(c *x509.CertificateRequest) { c.DNSNames = []string{"evil.example.com"} })}},
		"a URI of another line": {fault.Policy, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.URIs = []*url.URL{other} })}},
		"an address of others":  {fault.Policy, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.IPAddresses = []net.IP{net.IPv4(10, 2, 0, 1)} })}},
		"an e-mail address":     {fault.Usage, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.EmailAddresses = []string{"a@example.com"} })}},
		"no name":               {fault.Usage, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.Subject = pkix.Name{} })}},
		"a wildcard":            {fault.Policy, body{"csr": request(t, k, func(c *x509.CertificateRequest) { c.DNSNames = []string{"*.line1.example.com"} })}},
		"a CA": {fault.Usage, body{"csr": request(t, k, func(c *x509.CertificateRequest) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		})}},
		"a name Go passes over": {fault.Usage, body{"csr": request(t, k, func(c *x509.CertificateRequest) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 4, 0x88, 2, 0x2a, 3}}}
		})}},
		"the CA's own key":       {fault.Usage, body{"csr": "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"}},
		"a key of the vault too": {fault.Usage, body{"csr": string(broken), "key_type": "ecdsa-p256"}},
	} {
		_, err := r.try("sign/plant", x.body)
		enginetest.Refused(r.t, what, x.class, err)
	}
}

// TestNamesOfTheRole: what a role does not name it does not give.
func TestNamesOfTheRole(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	for what, x := range map[string]struct {
		class fault.Class
		body  body
	}{
		"nothing":                  {fault.Usage, body{}},
		"the suffix itself":        {fault.Policy, body{"common_name": "line1.example.com"}},
		"a name that ends so":      {fault.Policy, body{"common_name": "evilline1.example.com"}},
		"another":                  {fault.Policy, body{"common_name": "example.com"}},
		"one of two":               {fault.Policy, body{"common_name": "mes.example.com", "alt_names": "evil.example.com"}},
		"capitals":                 {fault.Policy, body{"common_name": "MES.example.com"}},
		"a dot at the end":         {fault.Policy, body{"common_name": "mes.example.com."}},
		"a nul":                    {fault.Policy, body{"common_name": "mes.example.com\x00.evil.com"}},
		"a wildcard":               {fault.Policy, body{"common_name": "*.line1.example.com"}},
		"an address as name":       {fault.Policy, body{"common_name": "10.1.2.3"}},
		"another network":          {fault.Policy, body{"ip_sans": "10.2.0.1"}},
		"IPv4 in IPv6":             {fault.Policy, body{"ip_sans": "::ffff:10.1.2.3"}},
		"an odd address":           {fault.Usage, body{"ip_sans": "10.1.02.3"}},
		"a zone":                   {fault.Policy, body{"ip_sans": "fe80::1%eth0"}},
		"the URI's place":          {fault.Policy, body{"uri_sans": "spiffe://example.com/line1"}},
		"a URI beside":             {fault.Policy, body{"uri_sans": "spiffe://example.com/line10/x"}},
		"a URI with dots":          {fault.Policy, body{"uri_sans": "spiffe://example.com/line1/../line2"}},
		"a URI with percent":       {fault.Policy, body{"uri_sans": "spiffe://example.com/line1/%2e%2e"}},
		"a URI with user":          {fault.Policy, body{"uri_sans": "spiffe://x@example.com/line1/a"}},
		"a URI with query":         {fault.Policy, body{"uri_sans": "spiffe://example.com/line1/a?b"}},
		"too long":                 {fault.Policy, body{"common_name": "mes.example.com", "ttl": "25h"}},
		"a key of another type":    {fault.Policy, body{"common_name": "mes.example.com", "key_type": "rsa-2048"}},
		"a format of nobody":       {fault.Usage, body{"common_name": "mes.example.com", "format": "pkcs12"}},
		"an unknown parameter":     {fault.Usage, body{"common_name": "mes.example.com", "not_after": "9999-12-31T23:59:59Z"}},
		"other names":              {fault.Usage, body{"common_name": "mes.example.com", "other_sans": "1.2;UTF8:x"}},
		"a number of the caller's": {fault.Usage, body{"common_name": "mes.example.com", "serial_number": "01"}},
	} {
		_, err := r.try("issue/plant", x.body)
		enginetest.Refused(r.t, what, x.class, err)
	}
	if _, err := r.try("issue/nobody", body{"common_name": "mes.example.com"}); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("an unknown role: %v", err)
	}
	for _, path := range []string{"roles/plant", "config/urls", "root/generate/internal", "tidy"} {
		if _, err := r.try(path, body{}); !errors.Is(err, engine.ErrByCharter) {
			t.Errorf("%s: %v", path, err)
		}
	}
	err := r.Store.View(func(v *seal.View) error {
		if n := len(v.Keys("pki/pki", "")); n > 0 {
			t.Errorf("%d numbers were taken for what was refused", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestRelayCertificates: in the profile that gateways check, for the role alone.
func TestRelayCertificates(t *testing.T) {
	r := newRoom(t, anchor.P256)
	k, rec, err := r.Host.Token.Signer(t.Context(), "plant-ca")
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := (&birthcert.Template{Profile: birthcert.RelayCA, World: r.v.World.World, Serial: birthcert.NewCertSerial(), NotBefore: r.Now.Add(-time.Hour).Truncate(time.Second).UTC(), SPKI: rec.Public}).TBS()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	sig, err := k.SignContext(t.Context(), sum[:])
	if err != nil {
		t.Fatal(err)
	}
	der, err := birthcert.Assemble(tbs, sig)
	if err != nil {
		t.Fatal(err)
	}
	if r.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	r.state(func(x *charter.PKIRole) {
		x.Relay, x.KeyTypes, x.Usages, x.URIs, x.DNS, x.MaxTTL = "vpn", []string{"ecdsa-p256"}, []string{"server"}, nil, []string{".relay.example.com"}, charter.MaxPKITTL
	})
	c := parse(t, r.do("issue/plant", body{"common_name": "vpn1.relay.example.com", "ip_sans": "10.1.0.9"})["certificate"])
	zlinted(t, c.Raw)
	if err := birthcert.VerifyRelay(c, r.ca, "vpn", r.Now); err != nil {
		t.Error(err)
	}
	if err := birthcert.VerifyRelay(c, r.ca, "access", r.Now); err == nil {
		t.Error("it stands for another role")
	}
	if err := c.VerifyHostname("vpn1.relay.example.com"); err != nil {
		t.Error(err)
	}
	for what, b := range map[string]body{"a URI": {"common_name": "vpn1.relay.example.com", "uri_sans": birthcert.RoleURI("access")}, "another name": {"common_name": "vpn1.example.com"}} {
		_, err := r.try("issue/plant", b)
		enginetest.Refused(r.t, what, fault.Policy, err)
	}
}

// TestKeysAreNotKept: the private key is in the answer and nowhere in the store or its
// log.
func TestKeysAreNotKept(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	out := r.do("issue/plant", body{"common_name": "mes.example.com"})
	b, _ := pem.Decode([]byte(out["private_key"].(string)))
	k, err := x509.ParseECPrivateKey(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"hex": hex.EncodeToString(secret), "raw": string(secret), "base64": base64.StdEncoding.EncodeToString(b.Bytes)}
	look := func(where string, data []byte) {
		for how, s := range all {
			if strings.Contains(string(data), s) {
				t.Errorf("%s has the key in %s", where, how)
			}
		}
	}
	for i := range r.Store.Head().Size {
		e, err := r.Store.Entry(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		look("the log", e)
	}
	err = r.Store.View(func(v *seal.View) error {
		for _, bucket := range []string{"pki/pki", "pki-index/pki", "pki-begun/pki", "pki-crl/pki"} {
			for _, key := range v.Keys(bucket, "") {
				data, err := v.Get(bucket, key)
				if err != nil {
					return err
				}
				look(bucket, data)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
