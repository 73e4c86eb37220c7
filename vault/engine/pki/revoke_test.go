package pki_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/pki"
	"keyrite/vault/seal"
	"keyrite/vault/vaulttest"
)

// TestRevocation: what was revoked stands in the next list and is told by OCSP, in
// openssl's words; numbers of lists go up.
func TestRevocation(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	good := r.do("issue/plant", body{"common_name": "mes.example.com"})
	bad := r.do("issue/plant", body{"common_name": "plc1.line1.example.com"})
	ca := r.raw(engine.Read, "ca/pem", nil)
	list := func() *x509.RevocationList {
		der := r.raw(engine.Read, "crl", nil)
		l, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		zlintedList(t, der)
		if _, text, err := enginetest.OpenSSL(t, map[string][]byte{"ca": ca, "crl": der}, "crl", "-inform", "DER", "-in", "crl", "-noout", "-CAfile", "ca"); err != nil || !strings.Contains(text, "verify OK") {
			t.Errorf("openssl crl: %v %s", err, text)
		}
		return l
	}
	first := list()
	if again := list(); again.Number.Cmp(first.Number) != 0 {
		t.Error("a list was signed although nothing changed")
	}
	if got := r.ocspOf(ca, good["certificate"].(string)); !strings.Contains(got, "leaf: good") {
		t.Error(got)
	}
	rev := r.do("revoke", body{"serial_number": bad["serial_number"]})
	if rev["state"] != "revoked" || r.do("revoke", body{"certificate": bad["certificate"]})["revocation_time"] != rev["revocation_time"] {
		t.Error(rev)
	}
	second := list()
	if second.Number.Cmp(first.Number) <= 0 || len(second.RevokedCertificateEntries) != 1 || second.RevokedCertificateEntries[0].SerialNumber.Cmp(parse(t, bad["certificate"]).SerialNumber) != 0 {
		t.Errorf("list %s has %d entries", second.Number, len(second.RevokedCertificateEntries))
	}
	for name, want := range map[string]bool{"good": true, "bad": false} {
		leaf := map[string]any{"good": good["certificate"], "bad": bad["certificate"]}[name].(string)
		files := map[string][]byte{"ca": ca, "crl": r.raw(engine.Read, "crl/pem", nil), "leaf": []byte(leaf)}
		if _, text, err := enginetest.OpenSSL(t, files, "verify", "-crl_check", "-CRLfile", "crl", "-CAfile", "ca", "leaf"); (err == nil) != want {
			t.Errorf("%s: %s", name, text)
		}
	}
	if got := r.ocspOf(ca, bad["certificate"].(string)); !strings.Contains(got, "leaf: revoked") {
		t.Error(got)
	}
	r.Now = r.Now.Add(25 * time.Hour)
	if third := list(); third.Number.Cmp(second.Number) <= 0 || len(third.RevokedCertificateEntries) != 1 {
		t.Errorf("a day later the list is number %s", third.Number)
	}
	c, err := r.Do(r.e, engine.Read, "cert/"+bad["serial_number"].(string), nil)
	if err != nil || enginetest.Data(t, c)["revocation_time"] == 0.0 || enginetest.Data(t, c)["certificate"] != bad["certificate"] {
		t.Errorf("%v %v", c, err)
	}
	all, err := r.Do(r.e, engine.List, "certs", nil)
	if err != nil || len(enginetest.Data(t, all)["keys"].([]any)) != 2 {
		t.Errorf("%v %v", all, err)
	}
	for what, b := range map[string]body{"nothing": {}, "both": {"serial_number": "00", "certificate": "x"}, "too short": {"serial_number": "01:02"}, "no hex": {"serial_number": strings.Repeat("zz", 16)}, "no PEM": {"certificate": "x"}} {
		_, err := r.try("revoke", b)
		enginetest.Refused(r.t, what, fault.Usage, err)
	}
	if _, err := r.try("revoke", body{"serial_number": strings.Repeat("41", 16)}); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("an unknown number: %v", err)
	}
}

// ocspOf asks with a request that openssl made, by POST and by GET, and returns what
// openssl says of the answer.
func (r *room) ocspOf(ca []byte, leaf string) string {
	t := r.t
	t.Helper()
	files := map[string][]byte{"ca": ca, "leaf": []byte(leaf)}
	dir, text, err := enginetest.OpenSSL(t, files, "ocsp", "-issuer", "ca", "-cert", "leaf", "-no_nonce", "-reqout", "req")
	if err != nil {
		t.Fatal(text)
	}
	req, err := os.ReadFile(filepath.Join(dir, "req"))
	if err != nil {
		t.Fatal(err)
	}
	files["resp"] = r.raw(engine.Write, "ocsp", body{"request": base64.StdEncoding.EncodeToString(req)})
	_, text, err = enginetest.OpenSSL(t, files, "ocsp", "-issuer", "ca", "-cert", "leaf", "-no_nonce", "-respin", "resp", "-CAfile", "ca")
	if err != nil || !strings.Contains(text, "Response verify OK") {
		t.Errorf("openssl ocsp: %v %s", err, text)
	}
	if got := r.raw(engine.Read, "ocsp/"+base64.URLEncoding.EncodeToString(req), nil); string(got) != string(files["resp"]) {
		t.Error("GET and POST give two answers within half an hour")
	}
	return text
}

// TestOCSPOfNothing: what is no question about one of ours is answered without the
// CA's key.
func TestOCSPOfNothing(t *testing.T) {
	r := newRoom(t, anchor.P256)
	if got := r.raw(engine.Write, "ocsp", body{"request": base64.StdEncoding.EncodeToString([]byte{0x30, 0})}); string(got) != "\x30\x03\x0a\x01\x01" {
		t.Errorf("malformed: %x", got)
	}
	if _, err := r.Do(r.e, engine.Read, "crl", nil); !errors.Is(err, pki.ErrNoRole) {
		t.Errorf("no role: %v", err)
	}
	r.state(func(*charter.PKIRole) {})
	leaf := r.do("issue/plant", body{"common_name": "mes.example.com"})["certificate"].(string)
	// Of another CA, and of a number that nobody took.
	stranger := ecKey(t, elliptic.P256())
	tpl := *r.ca
	tpl.PublicKey = nil
	der, err := x509.CreateCertificate(rand.Reader, &tpl, &tpl, stranger.Public(), stranger)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"ca": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), "leaf": []byte(leaf), "ours": r.raw(engine.Read, "ca/pem", nil)}
	for what, c := range map[string]struct {
		args []string
		want string
	}{
		"another CA":     {[]string{"-issuer", "ca", "-cert", "leaf"}, "unauthorized"},
		"another number": {[]string{"-issuer", "ours", "-serial", "0x41424344454647484142434445464748"}, "unknown"},
		"two at once":    {[]string{"-issuer", "ours", "-cert", "leaf", "-serial", "0x41"}, "malformed"},
	} {
		dir, text, err := enginetest.OpenSSL(t, files, append([]string{"ocsp", "-no_nonce", "-reqout", "req"}, c.args...)...)
		if err != nil {
			t.Fatal(text)
		}
		req, err := os.ReadFile(filepath.Join(dir, "req"))
		if err != nil {
			t.Fatal(err)
		}
		files["resp"] = r.raw(engine.Write, "ocsp", body{"request": base64.StdEncoding.EncodeToString(req)})
		_, text, _ = enginetest.OpenSSL(t, files, append([]string{"ocsp", "-no_nonce", "-respin", "resp", "-CAfile", "ours"}, c.args...)...)
		if !strings.Contains(strings.ToLower(text), c.want) {
			t.Errorf("%s: %s", what, text)
		}
	}
	for _, path := range []string{"ocsp/%", "ocsp/AAA", "ocsp/=", "ocsp/A/B"} {
		if strings.Contains(path, "%") {
			continue // such a path is none (artifact/access)
		}
		if a, err := r.Do(r.e, engine.Read, path, nil); err == nil && string(a.Raw) != "\x30\x03\x0a\x01\x01" || err != nil && fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v %v", path, a, err)
		}
	}
}

// TestLostCertificates: a number that was taken and never given out is revoked, and
// what was revoked while it was signed is not given out.
func TestLostCertificates(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(*charter.PKIRole) {})
	q := r.Request(engine.Write, "issue/plant", body{"common_name": "mes.example.com"})
	plan, err := r.e.Plan(q)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Work(t.Context()); fault.ClassOf(err) != fault.Unexpected {
		t.Errorf("signed without the number taken: %v", err)
	}
	update := func(f func(*seal.Tx) error) error {
		_, err := r.Store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) { return "x", f(tx) })
		return err
	}
	if err := update(plan.Reserve); err != nil {
		t.Fatal(err)
	}
	entries := func() int {
		l, err := x509.ParseRevocationList(r.raw(engine.Read, "crl", nil))
		if err != nil {
			t.Fatal(err)
		}
		return len(l.RevokedCertificateEntries)
	}
	if n := entries(); n != 0 {
		t.Errorf("%d entries while it is signed", n)
	}
	if _, err := r.Do(r.e, engine.List, "certs", nil); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("it is listed before it is there: %v", err)
	}
	r.Now = r.Now.Add(25 * time.Hour)
	if n := entries(); n != 1 {
		t.Errorf("%d entries for what was lost", n)
	}
	serial := plan.Shown["serial"].(string)
	r.do("revoke", body{"serial_number": serial})
	if err := plan.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := update(func(tx *seal.Tx) error { _, err := plan.Apply(tx); return err }); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("given out after it was revoked: %v", err)
	}
}

// TestLeasesAndLimits: a lease revoked early revokes; a role has no more certificates
// than it may; what ended makes room and is forgotten.
func TestLeasesAndLimits(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(x *charter.PKIRole) { x.MaxLive = 2 })
	a, err := r.Do(r.e, engine.Write, "issue/plant", body{"common_name": "mes.example.com", "ttl": 3600})
	if err != nil || a.Lease == nil || a.Lease.TTL != time.Hour || a.Lease.Renewable {
		t.Fatalf("%+v %v", a, err)
	}
	r.do("issue/plant", body{"common_name": "mes.example.com", "ttl": "1h"})
	if _, err := r.try("issue/plant", body{"common_name": "mes.example.com"}); !errors.Is(err, pki.ErrFull) {
		t.Errorf("a third: %v", err)
	}
	end := func(now time.Time) {
		_, err := r.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "end", r.e.End(tx, a.Lease.Object, now) })
		if err != nil {
			t.Fatal(err)
		}
	}
	revoked := func() bool {
		c, err := r.Do(r.e, engine.Read, "cert/"+a.Lease.Object, nil)
		if err != nil {
			t.Fatal(err)
		}
		return enginetest.Data(t, c)["revocation_time"] != 0.0
	}
	if end(r.Now.Add(time.Hour)); revoked() {
		t.Error("at its end a certificate was revoked")
	}
	if end(r.Now.Add(time.Minute)); !revoked() {
		t.Error("its lease was revoked, it was not")
	}
	r.Now = r.Now.Add(2 * time.Hour)
	r.do("issue/plant", body{"common_name": "mes.example.com", "ttl": "1h"})
	r.Now = r.Now.Add(8 * 24 * time.Hour)
	r.do("issue/plant", body{"common_name": "mes.example.com", "ttl": "1h"})
	if _, err := r.Do(r.e, engine.Read, "cert/"+a.Lease.Object, nil); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("a week after its end it is still there: %v", err)
	}
}

// TestNumbersAreConfirmed: while the head of the store is out of reach no certificate is
// signed, since a store put back would forget its number; the number is given back, so
// that the role is not filled. The certificate itself waits for nobody.
func TestNumbersAreConfirmed(t *testing.T) {
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "plant-ca", Algorithm: anchor.P256, Domain: "x509"}})
	away := &enginetest.Away{}
	r := roomOver(t, v, enginetest.StoreIn(t, t.TempDir(), away))
	t.Cleanup(func() { _ = r.Store.Close() })
	r.state(func(x *charter.PKIRole) { x.MaxLive = 2 })
	away.Gone.Store(true)
	for range 3 {
		if _, err := r.try("issue/plant", body{"common_name": "mes.example.com"}); !errors.Is(err, seal.ErrUnconfirmed) {
			t.Fatalf("the head is out of reach: %v", err)
		}
	}
	if log := r.Audit(); strings.Count(log, `"undone":"the token was not asked; the number was given back"`) != 3 {
		t.Error("the log does not say that the numbers were given back")
	}
	away.Gone.Store(false)
	tok := r.Host.Token
	r.Host.Token = nil
	_, err := r.try("issue/plant", body{"common_name": "mes.example.com"})
	enginetest.Refused(t, "no token", fault.Sealed, err)
	r.Host.Token = tok
	r.do("issue/plant", body{"common_name": "mes.example.com"})
	r.Reached = func(point string, _ *engine.Plan) { away.Gone.Store(point == enginetest.Worked) }
	r.do("issue/plant", body{"common_name": "mes.example.com"})
	r.Reached = nil
	if _, err := r.try("issue/plant", body{"common_name": "mes.example.com"}); !errors.Is(err, pki.ErrFull) {
		t.Errorf("a third: %v", err)
	}
}
