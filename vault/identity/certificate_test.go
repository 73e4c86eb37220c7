package identity_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/vault/identity"
)

// maker makes certificates with openssl and certtool, so that not our own code says
// what is in them.
type maker struct {
	t   testing.TB
	dir string
	n   int
}

func newMaker(t testing.TB) *maker { return &maker{t: t, dir: t.TempDir()} }

func (m *maker) run(name string, args ...string) {
	m.t.Helper()
	c := exec.CommandContext(m.t.Context(), name, args...)
	c.Dir = m.dir
	if out, err := c.CombinedOutput(); err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func (m *maker) write(name, text string) string {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return name
}

func (m *maker) read(name string) *x509.Certificate {
	m.t.Helper()
	raw, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	b, _ := pem.Decode(raw)
	if b == nil {
		m.t.Fatalf("%s is no PEM file", name)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		m.t.Fatalf("%s: %v", name, err)
	}
	return c
}

const caExt = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"

// ca makes a self-signed CA under a name; ext comes beside the usual extensions.
func (m *maker) ca(name, cn, ext string) *x509.Certificate {
	m.t.Helper()
	conf := m.write(name+".cnf", "[req]\ndistinguished_name=dn\n[dn]\n[e]\n"+caExt+ext)
	m.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name+".key", "-out", name+".pem", "-subj", "/CN="+cn, "-days", "30", "-config", conf, "-extensions", "e")
	return m.read(name + ".pem")
}

const clientExt = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\nauthorityKeyIdentifier=keyid\n"

// leaf is a certificate of a CA with exactly those extensions.
func (m *maker) leaf(ca, cn, ext string, how ...string) *x509.Certificate {
	m.t.Helper()
	m.n++
	name := fmt.Sprintf("leaf%d", m.n)
	key := []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}
	var sign []string
	for _, h := range how {
		switch {
		case strings.HasPrefix(h, "rsa:"):
			key = []string{"-newkey", h}
		case h == "ed25519":
			key = []string{"-newkey", h}
		default:
			sign = append(sign, h)
		}
	}
	m.run("openssl", append(append([]string{"req", "-new", "-nodes"}, key...), "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN="+strings.ReplaceAll(cn, "/", `\/`))...)
	args := []string{"x509", "-req", "-in", name + ".csr", "-CA", ca + ".pem", "-CAkey", ca + ".key", "-set_serial", fmt.Sprint(1000 + m.n), "-days", "1", "-out", name + ".pem", "-extfile", m.write(name+".ext", ext)}
	m.run("openssl", append(args, sign...)...)
	return m.read(name + ".pem")
}

// dated is a certificate for a time, by certtool.
func (m *maker) dated(ca, uri, from, to string) *x509.Certificate {
	m.t.Helper()
	m.n++
	name := fmt.Sprintf("leaf%d", m.n)
	m.write(name+".tmpl", fmt.Sprintf("cn = %q\nuri = %q\ntls_www_client\nsigning_key\nserial = %d\nactivation_date = %q\nexpiration_date = %q\n", "dated", uri, 2000+m.n, from, to))
	m.run("certtool", "--generate-privkey", "--key-type", "ecdsa", "--curve", "secp256r1", "--outfile", name+".key")
	m.run("certtool", "--generate-certificate", "--load-privkey", name+".key", "--load-ca-certificate", ca+".pem", "--load-ca-privkey", ca+".key", "--template", name+".tmpl", "--outfile", name+".pem")
	return m.read(name + ".pem")
}

// oldCA is a CA for a time, by certtool.
func (m *maker) oldCA(name, from, to string) *x509.Certificate {
	m.t.Helper()
	m.write(name+".tmpl", fmt.Sprintf("cn = %q\nca\ncert_signing_key\nserial = 7\nactivation_date = %q\nexpiration_date = %q\n", name, from, to))
	m.run("certtool", "--generate-privkey", "--key-type", "ecdsa", "--curve", "secp256r1", "--outfile", name+".key")
	m.run("certtool", "--generate-self-signed", "--load-privkey", name+".key", "--template", name+".tmpl", "--outfile", name+".pem")
	return m.read(name + ".pem")
}

const mes = "spiffe://plant.example/line1/mes"

func uri(s string) string { return "subjectAltName=URI:" + s + "\n" }

func certIdentity(id, uri string, ca *x509.Certificate) charter.Identity {
	return charter.Identity{ID: id, Policies: []string{"reader"}, TTL: 600, MaxTTL: 3600, Certificate: &charter.Certificate{CA: ca.Raw, URI: uri}}
}

// TestCertificates: of certificates that others made exactly those are the identity
// that its CA issued for it, for clients, now (R-CER-17).
func TestCertificates(t *testing.T) {
	b, m := newBench(t), newMaker(t)
	day := func(d int) string { return time.Now().UTC().AddDate(0, 0, d).Format("2006-01-02 15:04:05") + " UTC" }
	b.decide(charter.TypeIdentity, certIdentity("mes", mes, m.ca("ca", "plant CA", "")))
	b.decide(charter.TypeIdentity, certIdentity("scada", "spiffe://plant.example/scada", m.ca("ca2", "second CA", "")))
	b.decide(charter.TypeIdentity, certIdentity("bound", "spiffe://plant.example/bound", m.ca("narrow", "narrow CA", "nameConstraints=critical,permitted;URI:other.example\n")))
	b.decide(charter.TypeIdentity, certIdentity("gone", "spiffe://plant.example/gone", m.read("ca.pem")))
	b.decide(charter.TypeIdentity, certIdentity("late", "spiffe://plant.example/late", m.oldCA("over", day(-9), day(-1))))
	b.end("gone")
	m.ca("twin", "plant CA", "") // the name of the first
	sub := m.leaf("ca", "sub CA", caExt+"authorityKeyIdentifier=keyid\n")
	m.run("cp", "leaf1.pem", "sub.pem")
	m.run("cp", "leaf1.key", "sub.key")
	good := m.leaf("ca", "anything", clientExt+uri(mes))
	revoked := m.leaf("ca", "anything", clientExt+uri(mes))
	b.decide(charter.TypeCertificateRevoked, charter.CertificateRevoked{Identity: "mes", SHA256: fmt.Sprintf("%x", sha256.Sum256(revoked.Raw))})

	type row struct {
		name  string
		shown []*x509.Certificate
		want  string // who it is, or, after "!", what the cause says
	}
	one := func(c *x509.Certificate) []*x509.Certificate { return []*x509.Certificate{c} }
	ext := func(replace, by string) string { return strings.Replace(clientExt, replace, by, 1) + uri(mes) }
	for _, r := range []row{
		{"P-256", one(good), "mes"},
		{"RSA", one(m.leaf("ca", "x", clientExt+uri(mes), "rsa:2048")), "mes"},
		{"Ed25519", one(m.leaf("ca", "x", clientExt+uri(mes), "ed25519")), "mes"},
		{"other kinds of names beside it", one(m.leaf("ca", "x", clientExt+"subjectAltName=URI:"+mes+",DNS:mes.plant.example,email:a@plant.example\n")), "mes"},
		{"for clients and servers", one(m.leaf("ca", "x", ext("clientAuth", "clientAuth,serverAuth"))), "mes"},
		{"made by certtool", one(m.dated("ca", mes, day(-1), day(1))), "mes"},
		{"the chain sent along", []*x509.Certificate{good, m.read("ca.pem")}, "mes"},

		{"none", nil, "!nothing was shown"},
		{"expired", one(m.dated("ca", mes, day(-3), day(-1))), "!expired"},
		{"not valid yet", one(m.dated("ca", mes, day(1), day(3))), "!not yet valid"},
		{"another CA", one(m.leaf("ca2", "x", clientExt+uri(mes))), "!its issuer is"},
		{"another CA of the same name", one(m.leaf("twin", "x", clientExt+uri(mes))), "!another key of its issuer"},
		{"another CA of the same name, without its key's id", one(m.leaf("twin", "x", strings.Replace(clientExt, "authorityKeyIdentifier=keyid\n", "authorityKeyIdentifier=none\n", 1)+uri(mes))), "!unknown authority"},
		{"another CA of the same name, sent along", []*x509.Certificate{m.leaf("twin", "x", clientExt+uri(mes)), m.read("twin.pem")}, "!another key of its issuer"},
		{"another identity's CA", one(m.leaf("ca", "x", clientExt+uri("spiffe://plant.example/scada"))), "!its issuer is"},
		{"nobody's URI", one(m.leaf("ca", "x", clientExt+uri("spiffe://plant.example/nobody"))), "!no identity"},
		{"ended by the charter", one(m.leaf("ca", "x", clientExt+uri("spiffe://plant.example/gone"))), "!no identity"},
		{"revoked", one(revoked), "!revoked"},
		{"longer than its CA", one(m.leaf("over", "x", clientExt+uri("spiffe://plant.example/late"))), "!expired"},
		{"for servers", one(m.leaf("ca", "x", ext("clientAuth", "serverAuth"))), "!not for clients"},
		{"for no purpose", one(m.leaf("ca", "x", ext("extendedKeyUsage=clientAuth\n", ""))), "!not for clients"},
		{"for any purpose", one(m.leaf("ca", "x", ext("clientAuth", "anyExtendedKeyUsage"))), "!not for clients"},
		{"for clients and any purpose", one(m.leaf("ca", "x", ext("clientAuth", "clientAuth,anyExtendedKeyUsage"))), "!any purpose"},
		{"beyond its CA's name constraint", one(m.leaf("narrow", "x", clientExt+uri("spiffe://plant.example/bound"))), "!not permitted"},
		{"the URI as common name", one(m.leaf("ca", mes, clientExt)), "!0 URIs"},
		{"the URI as DNS name", one(m.leaf("ca", "x", clientExt+"subjectAltName=DNS:"+mes+"\n")), "!0 URIs"},
		{"two URIs", one(m.leaf("ca", "x", clientExt+"subjectAltName=URI:"+mes+",URI:spiffe://plant.example/scada\n")), "!2 URIs"},
		{"the URI twice", one(m.leaf("ca", "x", clientExt+"subjectAltName=URI:"+mes+",URI:"+mes+"\n")), "!2 URIs"},
		{"scheme in capitals", one(m.leaf("ca", "x", clientExt+uri("SPIFFE://plant.example/line1/mes"))), "!no identity"},
		{"escaped", one(m.leaf("ca", "x", clientExt+uri("spiffe://plant.example/line1/%6des"))), "!no identity"},
		{"slash at the end", one(m.leaf("ca", "x", clientExt+uri(mes+"/"))), "!no identity"},
		{"a query", one(m.leaf("ca", "x", clientExt+uri(mes+"?"))), "!no identity"},
		{"of a sub-CA", []*x509.Certificate{m.leaf("sub", "x", clientExt+uri(mes)), sub}, "!its issuer is"},
		{"a CA", one(m.leaf("ca", "x", caExt+"extendedKeyUsage=clientAuth\n"+uri(mes))), "!one of a CA"},
		{"key for encryption", one(m.leaf("ca", "x", ext("digitalSignature", "keyEncipherment"), "rsa:2048")), "!not for signatures"},
		{"key for certificates", one(m.leaf("ca", "x", ext("digitalSignature", "digitalSignature,keyCertSign"))), "!for certificates"},
		{"weak key", one(m.leaf("ca", "x", clientExt+uri(mes), "rsa:1024")), "!weak"},
		{"SHA-1", one(m.leaf("ca", "x", clientExt+uri(mes), "-sha1")), "!unknown authority"},
		{"a critical extension nobody knows", one(m.leaf("ca", "x", clientExt+uri(mes)+"1.2.3.4.5=critical,DER:0500\n")), "!unhandled critical"},
		{"the leaf after another", []*x509.Certificate{m.leaf("twin", "x", clientExt+uri(mes)), good}, "!another key of its issuer"},
	} {
		t.Run(r.name, func(t *testing.T) { certificateRow(t, b, r.shown, r.want) })
	}
}

// certificateRow shows certificates at a login, and without one, twice.
func certificateRow(t *testing.T, b *bench, shown []*x509.Certificate, want string) {
	t.Parallel() // a refusal takes its time
	peer := withCert(shown...)
	for range 2 {
		auth, err := b.login(identity.MeansCertificate, nil, peer)
		caller, callErr := b.reg.Caller(secret(""), peer)
		why, refused := strings.CutPrefix(want, "!")
		if !refused {
			if err != nil || callErr != nil {
				t.Fatalf("refused: %s; %s", cause(err), cause(callErr))
			}
			if auth.Identity != want || caller.Identity != want || !caller.Bound || caller.Charter != b.charter().Size() {
				t.Errorf("is %q, %+v", auth.Identity, caller)
			}
			continue
		}
		wantRefused(t, err)
		wantRefused(t, callErr)
		if !strings.Contains(cause(callErr), why) {
			t.Errorf("cause %q, want %q", cause(callErr), why)
		}
	}
}

// TestCertificateIsRevoked: a certificate that the charter revokes ends with its tokens
// at the next request; the process goes on with another.
func TestCertificateIsRevoked(t *testing.T) {
	b, m := newBench(t), newMaker(t)
	b.decide(charter.TypeIdentity, certIdentity("mes", mes, m.ca("ca", "plant CA", "")))
	stolen, next := withCert(m.leaf("ca", "x", clientExt+uri(mes))), withCert(m.leaf("ca", "x", clientExt+uri(mes)))
	auth, other := b.mustLogin(identity.MeansCertificate, nil, stolen), b.mustLogin(identity.MeansCertificate, nil, next)
	if _, err := b.reg.Caller(secret(""), stolen); err != nil {
		t.Fatal(err)
	}
	b.decide(charter.TypeCertificateRevoked, charter.CertificateRevoked{Identity: "mes", SHA256: fmt.Sprintf("%x", sha256.Sum256(stolen.Certificates[0].Raw))})
	if !b.reg.Gone(auth.Accessor) || b.reg.Gone(other.Accessor) {
		t.Error("its token is out, or that of another is not")
	}
	for _, tok := range []string{"", string(auth.Token.Bytes())} {
		_, err := b.reg.Caller(secret(tok), stolen)
		wantRefused(t, err)
	}
	_, err := b.login(identity.MeansCertificate, nil, stolen)
	wantRefused(t, err)
	for _, tok := range []string{"", string(other.Token.Bytes())} {
		if _, err := b.reg.Caller(secret(tok), next); err != nil {
			t.Errorf("the next certificate: %s", cause(err))
		}
	}
}

// TestCertificateEnds: neither a token nor what was remembered of a certificate lives
// longer than it.
func TestCertificateEnds(t *testing.T) {
	b, m := newBench(t), newMaker(t)
	x := certIdentity("mes", mes, m.ca("ca", "plant CA", ""))
	x.TTL, x.MaxTTL = charter.MaxTTL-1, charter.MaxTTL
	b.decide(charter.TypeIdentity, x)
	end := time.Now().Add(30 * time.Minute)
	c := m.dated("ca", mes, time.Now().UTC().AddDate(0, 0, -1).Format("2006-01-02 15:04:05")+" UTC", end.UTC().Format("2006-01-02 15:04:05")+" UTC")
	peer := withCert(c)
	auth := b.mustLogin(identity.MeansCertificate, nil, peer)
	if auth.TTL > 30*time.Minute {
		t.Errorf("token of %v with a certificate of half an hour", auth.TTL)
	}
	if _, err := b.reg.Caller(secret(""), peer); err != nil {
		t.Fatal(cause(err))
	}
	b.at(31 * time.Minute)
	_, err := b.reg.Caller(secret(""), peer)
	wantRefused(t, err)
	_, err = b.reg.Caller(auth.Token, peer)
	wantRefused(t, err)
}
