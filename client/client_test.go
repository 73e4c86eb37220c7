package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
	"keyrite/wire/control"
	"keyrite/wire/problem"
)

const testWorld = world.World("rehearsal:0123456789ab")

func want(t *testing.T, err error, class fault.Class, doing string) {
	t.Helper()
	if got := fault.ClassOf(err); got != class {
		t.Errorf("%s: got class %q (%v), want %q", doing, got, err, class)
	}
}

func TestClientKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := Load(dir); fault.ClassOf(err) != fault.Token {
		t.Errorf("no key: %v", err)
	}
	h, err := Make(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Make(dir)
	if err != nil || again.Thumbprint() != h.Thumbprint() {
		t.Errorf("the key changed: %v", err)
	}
	key := filepath.Join(dir, keyFile)
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if _, err := h.Session(); fault.ClassOf(err) != fault.Token {
		t.Errorf("no login: %v", err)
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = Load(dir)
	want(t, err, fault.Usage, "key readable by others")
}

func payload(t *testing.T, change func(*policy.Policy)) []byte {
	t.Helper()
	p := &policy.Policy{
		Account: "acme", Format: policy.Format, NotBefore: "2026-11-22T00:00:00Z", NotAfter: "2026-11-23T00:00:00Z", Version: 1, World: testWorld,
		Users: []policy.User{}, Gateways: []policy.Gateway{}, Devices: []policy.Device{}, Rules: []policy.Rule{},
	}
	change(p)
	b, err := jcs.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPolicyKey(t *testing.T) {
	pass := []byte("a long passphrase")
	file, public, err := NewPolicyKey("acme", testWorld, pass)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ParsePolicyKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	good := payload(t, func(*policy.Policy) {})
	signed, _, err := SignPolicy(good, file, pass)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Verify(signed, pub, testWorld, "acme"); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		payload, file, pass []byte
		class               fault.Class
	}{
		"wrong passphrase": {good, file, []byte("another passphrase"), fault.Token},
		"other account":    {payload(t, func(p *policy.Policy) { p.Account = "globex" }), file, pass, fault.Policy},
		"other world":      {payload(t, func(p *policy.Policy) { p.World = world.Live }), file, pass, fault.Policy},
		"invalid policy":   {payload(t, func(p *policy.Policy) { p.Users = nil }), file, pass, fault.Verify},
		"damaged key file": {good, file[:len(file)-1], pass, fault.Verify},
		"no key file":      {good, []byte("x"), pass, fault.Verify},
	} {
		_, _, err := SignPolicy(c.payload, c.file, c.pass)
		want(t, err, c.class, name)
	}
	_, _, err = NewPolicyKey("acme", world.Live, []byte("short"))
	want(t, err, fault.Usage, "live account with a short passphrase")
	_, _, err = NewPolicyKey("../acme", testWorld, pass)
	want(t, err, fault.Usage, "account that walks")
	for name, bad := range map[string][]byte{"nothing": nil, "two blocks": append(bytes.Clone(public), public...), "private": []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")} {
		_, err := ParsePolicyKey(bad)
		want(t, err, fault.Usage, name)
	}
}

// relayServer is an access server of world w as far as a login goes.
func relayServer(t *testing.T, w *artifacttest.World, role, ip string, h http.HandlerFunc) string {
	t.Helper()
	return relayBy(t, w, "relay-ca", role, ip, h)
}

// relayBy is relayServer with a certificate by the relay CA of that key.
func relayBy(t *testing.T, w *artifacttest.World, ca, role, ip string, h http.HandlerFunc) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	der := w.Certificate(birthcert.Template{
		Profile: birthcert.Relay, SPKI: spki, Issuer: birthcert.IssuerOf(w.Parsed(w.Anchors.Certificates[ca])), Role: role, IPs: []string{ip},
		NotBefore: from, NotAfter: from.Add(24 * time.Hour),
	}, ca)
	return serve(t, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, h)
}

func serve(t *testing.T, cert tls.Certificate, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = false
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// The user's password goes to nobody but an access server of the anchors.
func TestLoginGoesToTheRelayOfTheAnchorsOnly(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	asked := 0
	h := func(rw http.ResponseWriter, _ *http.Request) {
		asked++
		control.Write(rw, &control.LoggedIn{Expires: "2026-11-22T12:00:00Z", Format: control.Format, Token: strings.Repeat("t", 43), World: string(w.World)})
	}
	home, err := Make(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, public, err := NewPolicyKey("acme", w.World, []byte("a long passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePolicyKey(public)
	if err != nil {
		t.Fatal(err)
	}
	login := func(addr string) error {
		_, err := home.Login(t.Context(), LoginOptions{Access: addr, Account: "acme", User: "ann", Password: []byte("canary"), Anchors: w.Anchors, PolicyKey: key})
		return err
	}
	for name, addr := range map[string]string{
		"relay of another world":    relayServer(t, other, "access", "127.0.0.1", h),
		"VPN server as access":      relayServer(t, w, "vpn", "127.0.0.1", h),
		"certificate for elsewhere": relayServer(t, w, "access", "127.0.0.2", h),
		"birth certificate":         serve(t, deviceCert(w), h),
		"web certificate":           serve(t, selfSigned(t), h),
	} {
		want(t, login(addr), fault.Peer, name)
	}
	if asked != 0 {
		t.Errorf("%d passwords went to a stranger", asked)
	}
	want(t, login("127.0.0.1:1"), fault.Unreachable, "nobody there")
	want(t, login("nowhere"), fault.Usage, "no port")
	refusing := relayServer(t, w, "access", "127.0.0.1", func(rw http.ResponseWriter, _ *http.Request) { problem.Write(rw, "token", "login refused") })
	want(t, login(refusing), fault.Token, "refused")
	if _, err := home.Session(); fault.ClassOf(err) != fault.Token {
		t.Errorf("a refused login left a session: %v", err)
	}
	if err := login(relayServer(t, w, "access", "127.0.0.1", h)); err != nil {
		t.Fatal(err)
	}
	s, err := home.Session()
	if err != nil || s.Login().User != "ann" {
		t.Errorf("%+v, %v", s, err)
	}
	b, err := os.ReadFile(filepath.Join(home.dir, loginFile))
	if err != nil || bytes.Contains(b, []byte("canary")) {
		t.Errorf("the password is kept, or no login: %v", err)
	}
}

// A relay whose CA gave way is none any more, from the moment the user was told, and is
// not made one again by an older statement or by leaving it out.
func TestLoginAfterTheRelayCAGaveWay(t *testing.T) {
	w := artifacttest.New(t)
	w.AddSuccessors()
	h := func(rw http.ResponseWriter, _ *http.Request) {
		control.Write(rw, &control.LoggedIn{Expires: "2026-11-22T12:00:00Z", Format: control.Format, Token: strings.Repeat("t", 43), World: string(w.World)})
	}
	home, err := Make(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, public, err := NewPolicyKey("acme", w.World, []byte("a long passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePolicyKey(public)
	if err != nil {
		t.Fatal(err)
	}
	login := func(addr string, statement []byte) error {
		_, err := home.Login(t.Context(), LoginOptions{Access: addr, Account: "acme", User: "ann", Password: []byte("canary"), Anchors: w.Anchors, Succession: statement, PolicyKey: key})
		return err
	}
	old, fresh := relayServer(t, w, "access", "127.0.0.1", h), relayBy(t, w, "relay-ca-2", "access", "127.0.0.1", h)
	one := w.Succession("succession", nil, "log")
	two := w.Succession("succession", one, "relay-ca")
	for _, x := range []struct {
		name      string
		addr      string
		statement []byte
		class     fault.Class
	}{
		{"the relay of the anchors", old, nil, ""},
		{"the twin is known from the first day", fresh, nil, ""},
		{"another key gave way", old, one, ""},
		{"the relay's CA gave way", old, two, fault.Peer},
		{"the twin under the statement", fresh, two, ""},
		{"the old relay, the statement left out", old, nil, fault.Peer},
		{"the old relay with the older statement", old, one, fault.Policy},
		{"the twin's relay, the statement left out", fresh, nil, ""},
		{"a statement that is none", fresh, []byte("{}"), fault.Verify},
	} {
		err := login(x.addr, x.statement)
		if x.class == "" && err != nil || x.class != "" && fault.ClassOf(err) != x.class {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	s, err := home.Session()
	if err != nil {
		t.Fatal(err)
	}
	if k, _, err := s.anchors.Key("relay-ca", "x509"); err != nil || k.ID != "relay-ca-2" {
		t.Errorf("a later command believes %v, %v", k, err)
	}
	// Another vault begins without the statement of the one before.
	other := artifacttest.New(t)
	other.AddSuccessors()
	_, err = home.Login(t.Context(), LoginOptions{Access: relayServer(t, other, "access", "127.0.0.1", func(rw http.ResponseWriter, _ *http.Request) {
		control.Write(rw, &control.LoggedIn{Expires: "2026-11-22T12:00:00Z", Format: control.Format, Token: strings.Repeat("t", 43), World: string(other.World)})
	}), Account: "acme", User: "ann", Password: []byte("canary"), Anchors: other.Anchors, PolicyKey: key})
	if err != nil {
		t.Errorf("another vault: %v", err)
	}
	// Going back to the first one takes back nothing that was said.
	if err := login(old, nil); fault.ClassOf(err) != fault.Peer {
		t.Errorf("the old relay after a login to another vault: %v", err)
	}
}

func deviceCert(w *artifacttest.World) tls.Certificate {
	w.FoundFactory()
	b := w.Birth(1, strings.Repeat("0", 32))
	return tls.Certificate{Certificate: [][]byte{b.Cert.Raw}, PrivateKey: b.Key}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

// A relay cannot hand out another policy than the account's newest that was
// seen here.
func TestPolicyIsTheAccounts(t *testing.T) {
	w := artifacttest.New(t)
	pass := []byte("a long passphrase")
	file, public, err := NewPolicyKey("acme", w.World, pass)
	if err != nil {
		t.Fatal(err)
	}
	foreign, _, err := NewPolicyKey("acme", w.World, pass)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(version int64, file []byte, change func(*policy.Policy)) []byte {
		out, _, err := SignPolicy(payload(t, func(p *policy.Policy) {
			p.World, p.Version = w.World, version
			p.NotBefore, p.NotAfter = time.Now().Add(-time.Hour).UTC().Format("2006-01-02T15:04:05Z"), time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05Z")
			change(p)
		}), file, pass)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	same := func(*policy.Policy) {}
	var offered []byte
	addr := relayServer(t, w, "access", "127.0.0.1", func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == control.PathUserPolicy {
			_, _ = rw.Write(offered)
			return
		}
		control.Write(rw, &control.LoggedIn{Expires: "2026-11-22T12:00:00Z", Format: control.Format, Token: strings.Repeat("t", 43), World: string(w.World)})
	})
	home, err := Make(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePolicyKey(public)
	if err != nil {
		t.Fatal(err)
	}
	s, err := home.Login(t.Context(), LoginOptions{Access: addr, Account: "acme", User: "ann", Password: []byte("x"), Anchors: w.Anchors, PolicyKey: key})
	if err != nil {
		t.Fatal(err)
	}
	expired := func(p *policy.Policy) { p.NotAfter = time.Now().Add(-time.Minute).UTC().Format("2006-01-02T15:04:05Z") }
	v5 := sign(5, file, same)
	for _, c := range []struct {
		name  string
		data  []byte
		class fault.Class
	}{
		{"the account's", v5, ""},
		{"the same again", v5, ""},
		{"older", sign(4, file, same), fault.Policy},
		{"same version, other content", sign(5, file, func(p *policy.Policy) {
			p.Users = []policy.User{{Keys: []string{strings.Repeat("a", 64)}, Name: "eve"}}
		}), fault.Policy},
		{"another key's", sign(6, foreign, same), fault.Verify},
		{"expired", sign(6, file, expired), fault.Policy},
		{"nothing", []byte("{}"), fault.Verify},
		{"newer", sign(6, file, same), ""},
		{"the one before", v5, fault.Policy},
	} {
		offered = c.data
		_, err := s.Policy(t.Context())
		want(t, err, c.class, c.name)
	}
}

func TestListensOnLoopbackOnly(t *testing.T) {
	l := &Link{}
	for _, addr := range []string{"0.0.0.0:0", "192.0.2.1:80", ":8080", "localhost:80", "127.0.0.1"} {
		if _, err := l.Listen(t.Context(), addr, netip.AddrPort{}); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", addr, err)
		}
	}
	f, err := l.Listen(t.Context(), "127.0.0.1:0", netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What forwards is known while it lives, and no longer.
func TestRunningAndDisconnect(t *testing.T) {
	h, err := Make(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	release, err := h.Announce(Running{Device: "hmi", Gateway: "press-7", Local: "127.0.0.1:1", PID: child.Process.Pid, Since: "2026-11-22T12:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	if rs, err := h.Running(); err != nil || len(rs) != 1 || rs[0].Device != "hmi" {
		t.Errorf("%+v, %v", rs, err)
	}
	if n, err := h.Disconnect("press-8"); n != 0 || err != nil {
		t.Errorf("another gateway: %d, %v", n, err)
	}
	if n, err := h.Disconnect("press-7"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	_ = child.Wait()
	release()
	// The file of a process that died is cleared away, its number not used.
	stale := filepath.Join(h.dir, runDir, "connect-1.json")
	if err := os.WriteFile(stale, []byte(`{"device":"hmi","gateway":"press-7","local":"","pid":1,"since":""}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := h.Disconnect(""); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("a dead entry stays")
	}
}
