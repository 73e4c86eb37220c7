package node

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/relay/access"
	"keyrite/wire/control"
	"keyrite/wire/tunnel"
)

func TestOneFlow(t *testing.T) {
	r := newRelay(t)
	cert, p := r.acme()
	key, err := p.GatewayKey("press-7")
	r.ok(err)
	m := r.session(cert)
	c, err := r.flow(m, cert, r.open(p, "press-7", plc), key)
	r.ok(err)
	_, err = c.Write([]byte("canary-payload"))
	r.ok(err)
	got := make([]byte, 14)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "canary-payload" {
		t.Fatalf("%q %v", got, err)
	}
	for name, change := range map[string]func(*tunnel.Open){
		"other port":       func(o *tunnel.Open) { o.Port = 81 },
		"other address":    func(o *tunnel.Open) { o.Addr = "192.168.10.3" },
		"other gateway":    func(o *tunnel.Open) { o.Gateway = "press-8" },
		"other user":       func(o *tunnel.Open) { o.User = "bob" },
		"other world":      func(o *tunnel.Open) { o.World = "live" },
		"other version":    func(o *tunnel.Open) { o.PolicyVersion = 2 },
		"relay's own LAN":  func(o *tunnel.Open) { o.Addr = "10.0.0.1" },
		"public address":   func(o *tunnel.Open) { o.Addr = "1.1.1.1" },
		"the same, higher": func(o *tunnel.Open) { o.Port = 65535 },
	} {
		o := r.open(p, "press-7", plc)
		change(o)
		_, err := r.flow(m, cert, o, key)
		want(t, err, fault.Policy, name)
	}
	s, err := m.Open(t.Context())
	r.ok(err)
	r.ok(tunnel.WriteMessage(s, []byte(`{"addr":"127.0.0.1"}`)))
	a, err := tunnel.ReadAnswer(s)
	r.ok(err)
	want(t, a.Err(), fault.Verify, "malformed open message")
}

// A session holds so many flows and no more, and a flow that ends makes room.
func TestFlowsOfASessionAreLimited(t *testing.T) {
	r := newRelay(t)
	cert, p := r.acme()
	key, err := p.GatewayKey("press-7")
	r.ok(err)
	m := r.session(cert)
	var open []net.Conn
	for range tunnel.MaxFlows {
		c, err := r.flow(m, cert, r.open(p, "press-7", plc), key)
		r.ok(err)
		open = append(open, c)
	}
	_, err = r.flow(m, cert, r.open(p, "press-7", plc), key)
	want(t, err, fault.Quota, "one flow too many")
	_ = open[0].Close()
	r.await(func() bool {
		c, err := r.flow(m, cert, r.open(p, "press-7", plc), key)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// A gateway that connects again takes the place of its old session; one that
// leaves is unreachable.
func TestGatewayComesAndGoes(t *testing.T) {
	r := newRelay(t)
	cert, p := r.acme()
	key, err := p.GatewayKey("press-7")
	r.ok(err)
	first := r.node.vpn.Route("acme", "press-7")
	again := r.online(r.born[0])
	r.await(func() bool { return r.node.vpn.Route("acme", "press-7") != first })
	<-first.Done()
	m := r.session(cert)
	_ = again.Close()
	r.await(func() bool { return !r.node.vpn.Online("acme", "press-7") })
	_, err = r.flow(m, cert, r.open(p, "press-7", plc), key)
	want(t, err, fault.Unreachable, "flow to a gateway that left")
	_, err = r.user(cert, "acme").Connect(t.Context(), "press-7")
	want(t, err, fault.Unreachable, "connect to a gateway that left")
}

// What a relay that lies sends past its own firewall, the gateway refuses.
func TestGatewayRefusesWhatALyingRelayOpens(t *testing.T) {
	r := newRelay(t)
	cert, p := r.acme()
	key, err := p.GatewayKey("press-7")
	r.ok(err)
	g := r.node.vpn.Route("acme", "press-7")
	for name, c := range map[string]struct {
		port  int
		relay bool // the relay itself plays the user
	}{"a port the policy denies": {81, false}, "the relay's own key": {80, true}} {
		o := r.open(p, "press-7", netip.AddrPortFrom(plc.Addr(), uint16(c.port)))
		raw, err := o.Marshal()
		r.ok(err)
		s, err := g.Open(t.Context())
		r.ok(err)
		r.ok(tunnel.WriteMessage(s, raw))
		_, err = tunnel.ReadAnswer(s)
		r.ok(err)
		id := cert
		if c.relay {
			id, _ = clientKey(t)
		}
		_, err = tunnel.UserEnd(t.Context(), s, raw, id, key)
		if err == nil {
			t.Errorf("%s: the gateway let it through", name)
		}
	}
}

func TestTicketsAreForOneKeyOneServerOnce(t *testing.T) {
	r := newRelay(t)
	cert, _ := r.acme()
	u := r.user(cert, "acme")
	s, err := u.Connect(t.Context(), "press-7")
	r.ok(err)
	thief, _ := clientKey(t)
	_, err = r.dial(thief, s.Ticket)
	want(t, err, fault.Policy, "another key")
	m, err := r.dial(cert, s.Ticket)
	r.ok(err)
	defer m.Close()
	_, err = r.dial(cert, s.Ticket)
	want(t, err, fault.Policy, "used before")
	_, err = r.dial(cert, nil)
	want(t, err, fault.Policy, "no ticket")
	_, err = r.dial(cert, append([]byte{}, bytes.Replace(s.Ticket, []byte(`"sig":"`), []byte(`"sig":"A`), 1)...))
	if err == nil {
		t.Error("a changed ticket was taken")
	}
	// A ticket outlives neither the login nor a restart.
	s, err = u.Connect(t.Context(), "press-7")
	r.ok(err)
	r.ok(u.Logout(t.Context()))
	_, err = r.dial(cert, s.Ticket)
	want(t, err, fault.Token, "after logout")
}

func TestEnrolment(t *testing.T) {
	r := newRelay(t)
	key := r.entry("acme", "press-7")
	stranger := r.w.Birth(9, r.bundle.BundleID) // genuine, in no acceptance
	_, err := r.client(device(stranger)).Enrol(t.Context(), key)
	want(t, err, fault.Policy, "device in no acceptance")
	foreign := artifacttest.New(t)
	foreign.FoundFactory()
	_, err = r.client(device(foreign.Birth(1, r.bundle.BundleID))).Enrol(t.Context(), key)
	want(t, err, fault.Peer, "device of a foreign CA")
	user, _ := clientKey(t)
	_, err = r.client(user).Enrol(t.Context(), key)
	want(t, err, fault.Peer, "client key instead of a birth key")
	out, err := r.client(device(r.born[0])).Enrol(t.Context(), strings.ToLower(key))
	r.ok(err)
	if out.Account != "acme" || out.Gateway != "press-7" {
		t.Errorf("enrolled as %+v", out)
	}
	// The answer got lost: the same device with the same key is told again.
	again, err := r.client(device(r.born[0])).Enrol(t.Context(), key)
	if err != nil || again.Account != out.Account || again.Gateway != out.Gateway || !bytes.Equal(again.PolicyKey, out.PolicyKey) {
		t.Errorf("enrolled again as %+v, %v", again, err)
	}
	r.ok(r.state.Registry.DisableGateway(t.Context(), "acme", "press-7", true))
	_, err = r.client(device(r.born[0])).Enrol(t.Context(), key)
	want(t, err, fault.Policy, "enrolment again, switched off")
	// Used, unknown, and a device that has an entry: one answer.
	var texts []string
	for name, try := range map[string]func() error{
		"used key": func() error { _, err := r.client(device(r.born[1])).Enrol(t.Context(), key); return err },
		"unknown key": func() error {
			_, err := r.client(device(r.born[1])).Enrol(t.Context(), strings.Repeat("A", 26))
			return err
		},
		"device elsewhere": func() error {
			_, err := r.client(device(r.born[0])).Enrol(t.Context(), r.entry("globex", "stolen"))
			return err
		},
	} {
		err := try()
		want(t, err, fault.Policy, name)
		texts = append(texts, err.Error())
	}
	if texts[0] != texts[1] || texts[1] != texts[2] {
		t.Errorf("answers differ: %q", texts)
	}
	// Guessing stops.
	c := r.client(device(r.born[1]))
	for range 12 {
		_, err = c.Enrol(t.Context(), strings.Repeat("B", 26))
	}
	want(t, err, fault.Quota, "guessing activation keys")
}

// A birth certificate that its holder changed, and one that another factory
// issued within this world, end in the handshake.
func TestForgedIdentities(t *testing.T) {
	r := newRelay(t)
	key := r.entry("acme", "press-7")
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.ok(err)
	for name, cert := range map[string]tls.Certificate{
		"self-signed with the serial of another": selfSigned(t, other, "gw100-00000001"),
		"signed by itself with the CA's name":    forged(t, r, other),
	} {
		_, err := r.client(cert).Enrol(t.Context(), key)
		want(t, err, fault.Peer, name)
	}
	// The stolen certificate without its key proves nothing.
	if _, err := tls.Dial("tcp", r.node.Addr(RoleAccess), r.tls(tls.Certificate{Certificate: [][]byte{r.born[0].Cert.Raw}, PrivateKey: other}, RoleAccess)); err == nil {
		c := r.client(tls.Certificate{Certificate: [][]byte{r.born[0].Cert.Raw}, PrivateKey: other})
		if _, err := c.Enrol(t.Context(), key); err == nil {
			t.Error("a certificate without its key was taken")
		}
	}
}

func selfSigned(t *testing.T, k crypto.Signer, serial string) tls.Certificate {
	t.Helper()
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{SerialNumber: serial}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

func forged(t *testing.T, r *testRelay, k crypto.Signer) tls.Certificate {
	t.Helper()
	ca := r.w.Parsed(r.w.State.Factories["factory1"].CA)
	// The name and key id of the CA, and the forger's key in the place of its own.
	issuer, tpl := *ca, *r.born[0].Cert
	issuer.PublicKey = k.Public()
	der, err := x509.CreateCertificate(rand.Reader, &tpl, &issuer, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

func TestLoginRefusals(t *testing.T) {
	r := newRelay(t)
	cert, _ := clientKey(t)
	c := r.client(cert)
	var texts []string
	for name, a := range map[string][3]string{
		"wrong password": {"acme", "ann", "wrong-password"}, "unknown user": {"acme", "eve", password}, "unknown account": {"initech", "ann", password},
	} {
		_, err := c.Login(t.Context(), a[0], a[1], []byte(a[2]))
		want(t, err, fault.Token, name)
		texts = append(texts, err.Error())
	}
	if texts[0] != texts[1] || texts[1] != texts[2] {
		t.Errorf("answers differ: %q", texts)
	}
	good := r.user(cert, "acme")
	// Another key guesses until it is stopped; ann, whose key is known, is not.
	thief, _ := clientKey(t)
	var err error
	for range 11 {
		_, err = r.client(thief).Login(t.Context(), "acme", "ann", []byte("wrong-password"))
	}
	want(t, err, fault.Quota, "guessing")
	r.user(cert, "acme")
	// The token is nothing without the key.
	stolen := r.client(thief)
	stolen.Token = good.Token
	_, err = stolen.Gateways(t.Context())
	want(t, err, fault.Token, "token with another key")
	// Disabling ends it at once.
	r.ok(r.state.Registry.DisableUser(t.Context(), "acme", "ann", true))
	_, err = good.Gateways(t.Context())
	want(t, err, fault.Token, "disabled user")
	_, err = r.client(cert).Login(t.Context(), "acme", "ann", []byte(password))
	want(t, err, fault.Token, "disabled user logs in")
}

// Every route is called by everybody who may not call it; a route that is not
// in this table of the code does not exist.
func TestEveryRouteRefusesTheWrongCaller(t *testing.T) {
	r := newRelay(t)
	cert, _ := r.acme()
	loggedIn := r.user(cert, "acme")
	expired := r.user(cert, "acme")
	r.ok(expired.Logout(t.Context()))
	stranger := r.w.Birth(9, r.bundle.BundleID)
	callers := map[string]struct {
		c   *control.Client
		may []access.Who
	}{
		"enrolled device":     {r.client(device(r.born[0])), []access.Who{access.Accepted, access.Enrolled}},
		"accepted device":     {r.client(device(r.born[1])), []access.Who{access.Accepted}},
		"device not accepted": {r.client(device(stranger)), nil},
		"client key":          {r.client(cert), []access.Who{access.Key}},
		"ended login":         {expired, []access.Who{access.Key}},
		"user":                {loggedIn, []access.Who{access.Key, access.User}},
	}
	for _, rt := range access.Routes() {
		for name, who := range callers {
			allowed := false
			for _, w := range who.may {
				allowed = allowed || w == rt.Who
			}
			if allowed {
				continue
			}
			if status := call(t, who.c, rt.Method, rt.Path, []byte("{}")); status < 400 || status == http.StatusNotFound {
				t.Errorf("%s may %s %s: %d", name, rt.Method, rt.Path, status)
			}
		}
	}
	for _, path := range []string{"/", "/v1/", "/v1/user/../user/login", "//v1/user/login", "/v1/user/login/", "/v1/gateway/tuf/metadata/../../relay.db", "/v1/user/gateways?account=globex", "/debug/pprof/"} {
		if status := call(t, loggedIn, http.MethodGet, path, nil); status < 400 {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func call(t *testing.T, c *control.Client, method, path string, body []byte) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+c.Addr, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = "//" + c.Addr + path
	req.Header.Set("Content-Type", "application/json")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		if _, ok := errors.AsType[*net.OpError](err); ok {
			return 499 // refused in the handshake
		}
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Server") != "" {
		t.Errorf("%s %s: headers %v", method, path, resp.Header)
	}
	return resp.StatusCode
}

// Nothing of acme is reachable for globex, whatever names it uses.
func TestAccountsAreIsolated(t *testing.T) {
	r := newRelay(t)
	cert, p := r.acme()
	_, thumb := clientKey(t)
	spy, thumb2 := clientKey(t)
	_ = thumb
	// globex names acme's gateway and its real key in its own policy.
	gp := r.permit("globex", 1, thumb2, plc, map[string]artifacttest.Born{"press-7": r.born[0], "mine": r.born[1]})
	u := r.user(spy, "globex")
	gs, err := u.Gateways(t.Context())
	r.ok(err)
	if len(gs.Gateways) != 0 {
		t.Errorf("globex sees %+v", gs.Gateways)
	}
	_, err = u.Connect(t.Context(), "press-7")
	want(t, err, fault.Policy, "connect to acme's gateway")
	first := err.Error()
	_, err = u.Connect(t.Context(), "no-such")
	want(t, err, fault.Policy, "connect to nothing")
	if err.Error() != first {
		t.Errorf("answers differ: %q, %q", first, err)
	}
	// With a gateway of its own it gets a session, and a flow named for acme's
	// gateway on it goes nowhere.
	r.gateway(r.born[1], "globex", "mine", gp)
	s, err := u.Connect(t.Context(), "mine")
	r.ok(err)
	m, err := r.dial(spy, s.Ticket)
	r.ok(err)
	defer m.Close()
	_, err = r.flow(m, spy, r.open(gp, "press-7", plc), "")
	want(t, err, fault.Policy, "flow to acme's gateway")
	// And acme's policy never leaves acme.
	data, err := u.UserPolicy(t.Context())
	r.ok(err)
	if bytes.Contains(data, []byte("acme")) {
		t.Error("globex got acme's policy")
	}
	_ = p
	_ = cert
}

// A change of policy, a disabled user or gateway ends what is open.
func TestRevocationCutsOpenFlows(t *testing.T) {
	for name, revoke := range map[string]func(*testRelay, *policy.Policy, string) error{
		"newer policy": func(r *testRelay, p *policy.Policy, thumb string) error {
			r.permit("acme", 2, thumb, netip.AddrPort{}, map[string]artifacttest.Born{"press-7": r.born[0]})
			return nil
		},
		"user disabled": func(r *testRelay, _ *policy.Policy, _ string) error {
			return r.state.Registry.DisableUser(r.t.Context(), "acme", "ann", true)
		},
		"gateway disabled": func(r *testRelay, _ *policy.Policy, _ string) error {
			return r.state.Registry.DisableGateway(r.t.Context(), "acme", "press-7", true)
		},
		"account disabled": func(r *testRelay, _ *policy.Policy, _ string) error {
			return r.state.Registry.DisableAccount(r.t.Context(), "acme", true)
		},
		"gateway removed": func(r *testRelay, _ *policy.Policy, _ string) error {
			return r.state.Registry.RemoveGateway(r.t.Context(), "acme", "press-7")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			cert, p := r.acme()
			key, err := p.GatewayKey("press-7")
			r.ok(err)
			c, err := r.flow(r.session(cert), cert, r.open(p, "press-7", plc), key)
			r.ok(err)
			began := time.Now()
			r.ok(revoke(r, p, p.Users[0].Keys[0]))
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("the flow goes on: %v", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("cut after %v", took)
			}
		})
	}
}

func TestPolicyIsOnlyTakenFromItsAccountAndUpwards(t *testing.T) {
	r := newRelay(t)
	_, thumb := clientKey(t)
	r.permit("acme", 5, thumb, plc, map[string]artifacttest.Born{"press-7": r.born[0]})
	p := r.permit("globex", 1, thumb, plc, map[string]artifacttest.Born{"press-7": r.born[0]})
	p.Account, p.Rules = "acme", []policy.Rule{}
	for name, c := range map[string]struct {
		version int64
		key     string
		class   fault.Class
	}{
		"lower version":         {4, "acme", fault.Policy},
		"same version, other":   {5, "acme", fault.Policy},
		"another account's key": {6, "globex", fault.Verify},
		"higher version":        {7, "acme", ""},
	} {
		p.Version = c.version
		data, err := policy.Sign(p, r.policyKey[c.key])
		r.ok(err)
		_, err = r.state.Registry.SetPolicy(t.Context(), "acme", data)
		if name == "higher version" {
			r.ok(err)
			_, err = r.state.Registry.SetPolicy(t.Context(), "acme", data)
			r.ok(err) // the very same once more changes nothing
			continue
		}
		want(t, err, c.class, name)
	}
}

func TestAcceptanceOnce(t *testing.T) {
	r := newRelay(t)
	again := r.w.Accept(r.bundle, r.born...)
	_, err := r.state.ImportAcceptance(t.Context(), again, r.w.Anchors)
	want(t, err, fault.Policy, "the same report")
	b := r.w.Bundle()
	_, err = r.state.ImportAcceptance(t.Context(), r.w.Accept(b, r.w.Birth(4, b.BundleID), r.w.Birth(1, b.BundleID)), r.w.Anchors)
	want(t, err, fault.Policy, "a serial again")
	bad := bytes.Replace(again, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
	_, err = r.state.ImportAcceptance(t.Context(), bad, r.w.Anchors)
	want(t, err, fault.Verify, "changed file")
	other := artifacttest.New(t)
	_, err = r.state.ImportAcceptance(t.Context(), again, other.Anchors)
	want(t, err, fault.Policy, "other world")
}

func TestUpdateRepositoryIsServedToEnrolledGatewaysOnly(t *testing.T) {
	r := newRelay(t)
	for _, d := range []string{"metadata", "targets"} {
		r.ok(os.Mkdir(filepath.Join(r.tuf, d), 0o755))
	}
	r.ok(os.WriteFile(filepath.Join(r.tuf, "metadata", "timestamp.json"), []byte("{}"), 0o644))
	r.ok(os.WriteFile(filepath.Join(r.tuf, "secret"), []byte("s"), 0o644))
	r.ok(os.Symlink("/etc/passwd", filepath.Join(r.tuf, "targets", "passwd")))
	r.acme()
	c := r.client(device(r.born[0]))
	if s := call(t, c, http.MethodGet, control.PathTUFMetadata+"timestamp.json", nil); s != 200 {
		t.Errorf("metadata: %d", s)
	}
	for _, p := range []string{"metadata/", "metadata/../secret", "targets/passwd", "metadata/nothing.json", "targets/.", "targets/%2e%2e/secret", "secret"} {
		if s := call(t, c, http.MethodGet, "/v1/gateway/tuf/"+p, nil); s < 400 {
			t.Errorf("%s: %d", p, s)
		}
	}
	if s := call(t, r.client(device(r.born[1])), http.MethodGet, control.PathTUFMetadata+"timestamp.json", nil); s != 403 {
		t.Errorf("device without an account: %d", s)
	}
}

// Neither database, nor trail, nor log holds a password, token, ticket or
// activation key.
func TestNoSecretIsKept(t *testing.T) {
	r := newRelay(t)
	cert, p := r.acme()
	key := r.entry("acme", "press-9")
	u := r.user(cert, "acme")
	s, err := u.Connect(t.Context(), "press-7")
	r.ok(err)
	m, err := r.dial(cert, s.Ticket)
	r.ok(err)
	spki, err := p.GatewayKey("press-7")
	r.ok(err)
	c, err := r.flow(m, cert, r.open(p, "press-7", plc), spki)
	r.ok(err)
	_ = c.Close()
	_ = m.Close()
	_, _ = r.client(cert).Login(t.Context(), "acme", "ann", []byte("canary-password-2"))
	r.stop()
	var all bytes.Buffer
	r.ok(r.state.Trail.Export(t.Context(), "", func(line []byte) error { all.Write(line); return nil }))
	if !strings.Contains(all.String(), `"action":"open-flow"`) || !strings.Contains(all.String(), `"class":"token"`) {
		t.Error("the trail lacks the flow or the refused login")
	}
	r.ok(r.state.Close())
	for _, f := range []string{"relay.db", "relay.db-wal"} {
		b, err := os.ReadFile(filepath.Join(r.dir, f))
		if err == nil {
			all.Write(b)
		}
	}
	all.Write(r.logs.Bytes())
	for name, secret := range map[string]string{
		"password": "canary-password", "token": u.Token, "activation key": strings.ReplaceAll(key, "-", ""), "grouped activation key": key, "ticket": string(s.Ticket[20:60]),
	} {
		if bytes.Contains(all.Bytes(), []byte(secret)) {
			t.Errorf("the %s is kept", name)
		}
	}
}

func TestTrailShowsChanges(t *testing.T) {
	r := newRelay(t)
	r.acme()
	r.stop()
	head, err := r.state.Trail.Verify(t.Context())
	r.ok(err)
	if head.Size < 5 {
		t.Errorf("%d entries", head.Size)
	}
	r.ok(r.state.Registry.AddUser(t.Context(), "acme", "bob", "x"))
	later, err := r.state.Trail.Verify(t.Context())
	r.ok(err)
	if later.Size != head.Size+1 || later.Root == head.Root {
		t.Errorf("%+v after %+v", later, head)
	}
}
