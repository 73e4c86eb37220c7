package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/relay/access"
	"keyrite/relay/audit"
	"keyrite/relay/auth"
	"keyrite/relay/store"
	"keyrite/relay/vpn"
	"keyrite/wire/control"
	"keyrite/wire/tunnel"
)

// testRelay is a node on loopback in a founded world, with a factory, devices 1
// to 3 accepted, and the accounts acme and globex.
type testRelay struct {
	t      *testing.T
	w      *artifacttest.World
	dir    string
	bundle *bundle.Bundle
	born   []artifacttest.Born
	state  *State // beside the running node, as keyrite-relay admin is
	node   *Node
	stop   func()
	tuf    string
	logs   *bytes.Buffer

	policyKey map[string]crypto.Signer
}

const password = "canary-password-1"

func newRelay(t *testing.T) *testRelay {
	t.Helper()
	r := &testRelay{t: t, w: artifacttest.New(t), dir: t.TempDir(), tuf: t.TempDir(), logs: &bytes.Buffer{}, policyKey: map[string]crypto.Signer{}}
	r.w.FoundFactory()
	csrs, err := InitKeys(r.dir)
	r.ok(err)
	r.w.Keys["relay-access"], r.w.Keys["relay-vpn"] = r.w.Keys["relay-ca"], r.w.Keys["relay-ca"]
	for _, role := range []string{RoleAccess, RoleVPN} {
		block, _ := pem.Decode(csrs[role])
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		r.ok(err)
		r.w.Approve(charter.TypeRelay, charter.Relay{ID: role + "1", Role: role, Certificate: r.relayCert(role, csr.PublicKey)})
	}
	r.ok(Init(t.Context(), r.dir, r.w.Anchors))
	r.bundle = r.w.Bundle()
	for n := range int64(3) {
		r.born = append(r.born, r.w.Birth(n+1, r.bundle.BundleID))
	}
	r.state, err = OpenState(t.Context(), r.dir, time.Now)
	r.ok(err)
	t.Cleanup(func() { _ = r.state.Close() })
	_, err = r.state.ImportAcceptance(t.Context(), r.w.Accept(r.bundle, r.born...), r.w.Anchors)
	r.ok(err)
	hash, err := r.state.Hasher.Hash(t.Context(), []byte(password))
	r.ok(err)
	for _, a := range []string{"acme", "globex"} {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		r.ok(err)
		r.policyKey[a] = k
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		r.ok(err)
		r.ok(r.state.Registry.AddAccount(t.Context(), a, der))
		r.ok(r.state.Registry.AddUser(t.Context(), a, "ann", hash))
	}
	r.start()
	return r
}

func (r *testRelay) relayCert(role string, pub crypto.PublicKey) []byte {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	r.ok(err)
	ca := r.w.Parsed(r.w.Anchors.Certificates["relay-ca"])
	return r.w.Certificate(birthcert.Template{
		Profile: birthcert.Relay, SPKI: spki, Issuer: birthcert.IssuerOf(ca), Role: role, IPs: []string{"127.0.0.1"},
		NotBefore: time.Now().Add(-time.Hour).UTC().Truncate(time.Second), NotAfter: time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second),
	}, "relay-ca")
}

func (r *testRelay) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *testRelay) options() Options {
	return Options{
		StateDir: r.dir, Anchors: r.w.Anchors, Charter: r.w.State, Listen: map[string]string{RoleAccess: "127.0.0.1:0", RoleVPN: "127.0.0.1:0"},
		TUF: r.tuf, Now: time.Now, Log: slog.New(slog.NewTextHandler(r.logs, nil)),
	}
}

func (r *testRelay) start() {
	r.t.Helper()
	n, err := Open(r.t.Context(), r.options())
	r.ok(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	var stopped bool
	r.node, r.stop = n, func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				r.t.Error(err)
			}
		}
	}
	r.t.Cleanup(r.stop)
}

// tls returns the configuration of a peer that pins the relay CA.
func (r *testRelay) tls(cert tls.Certificate, role string) *tls.Config {
	ca := r.w.Parsed(r.w.Anchors.Certificates["relay-ca"])
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
		VerifyConnection: func(cs tls.ConnectionState) error {
			return birthcert.VerifyRelay(cs.PeerCertificates[0], ca, role, time.Now())
		},
	}
}

func (r *testRelay) client(cert tls.Certificate) *control.Client {
	return control.NewClient(r.node.Addr(RoleAccess), string(r.w.World), r.tls(cert, RoleAccess))
}

func device(b artifacttest.Born) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{b.Cert.Raw}, PrivateKey: b.Key}
}

// clientKey makes the identity of a keyrite-connect.
func clientKey(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keyrite-connect"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, tunnel.Thumbprint(c)
}

// entry makes a gateway entry and returns its activation key.
func (r *testRelay) entry(account, id string) string {
	r.t.Helper()
	key, _, err := r.state.Registry.AddGateway(r.t.Context(), account, id)
	r.ok(err)
	return key
}

// permit writes version v of account's policy: user ann with key may reach addr
// behind each gateway, given as id to device.
func (r *testRelay) permit(account string, v int64, key string, addr netip.AddrPort, gateways map[string]artifacttest.Born) *policy.Policy {
	r.t.Helper()
	p := &policy.Policy{
		Account: account, Format: policy.Format, NotBefore: audit.Stamp(time.Now().Add(-time.Hour)), NotAfter: audit.Stamp(time.Now().Add(time.Hour)), Version: v, World: r.w.World,
		Users: []policy.User{{Keys: []string{key}, Name: "ann"}}, Gateways: []policy.Gateway{}, Devices: []policy.Device{}, Rules: []policy.Rule{},
	}
	for id, b := range gateways {
		p.Gateways = append(p.Gateways, policy.Gateway{ID: id, SPKI: birthcert.Hash(b.Cert.RawSubjectPublicKeyInfo)})
		if addr.IsValid() {
			p.Devices = append(p.Devices, policy.Device{Addr: addr.Addr().String(), Gateway: id, Name: "hmi-" + id, Ports: []policy.Ports{{First: int(addr.Port()), Last: int(addr.Port())}}})
			p.Rules = append(p.Rules, policy.Rule{Device: "hmi-" + id, User: "ann"})
		}
	}
	p.Sort()
	data, err := policy.Sign(p, r.policyKey[account])
	r.ok(err)
	_, err = r.state.Registry.SetPolicy(r.t.Context(), account, data)
	r.ok(err)
	return p
}

// gateway enrols device b as account's id and brings it online: it echoes what
// it is sent, with the end-to-end part of a real one. A rogue skips its own
// decision.
func (r *testRelay) gateway(b artifacttest.Born, account, id string, p *policy.Policy) tunnel.Mux {
	r.t.Helper()
	c := r.client(device(b))
	_, err := c.Enrol(r.t.Context(), r.entry(account, id))
	r.ok(err)
	m := r.online(b)
	go func() {
		for {
			s, err := m.Accept()
			if err != nil {
				return
			}
			go r.echo(s, b, id, p)
		}
	}()
	r.await(func() bool { return r.node.vpn.Online(account, id) })
	return m
}

func (r *testRelay) online(b artifacttest.Born) tunnel.Mux {
	r.t.Helper()
	s, err := r.client(device(b)).GatewaySession(r.t.Context())
	r.ok(err)
	m, err := r.dial(device(b), s.Ticket)
	r.ok(err)
	r.t.Cleanup(func() { _ = m.Close() })
	return m
}

func (r *testRelay) dial(cert tls.Certificate, ticket []byte) (tunnel.Mux, error) {
	c, err := tls.Dial("tcp", r.node.Addr(RoleVPN), r.tls(cert, RoleVPN))
	if err != nil {
		return nil, err
	}
	return tunnel.Dial(r.t.Context(), c, r.node.Addr(RoleVPN), ticket)
}

func (r *testRelay) echo(s net.Conn, b artifacttest.Born, id string, p *policy.Policy) {
	defer s.Close()
	raw, err := tunnel.ReadMessage(s)
	if err != nil {
		return
	}
	o, err := tunnel.ParseOpen(raw)
	if err != nil || tunnel.WriteAnswer(s, tunnel.Accepted()) != nil {
		return
	}
	c, err := tunnel.GatewayEnd(context.Background(), s, raw, device(b), func(thumb string) error {
		to := o.AddrPort()
		return policy.Decide(p, policy.Flow{User: o.User, Key: thumb, Gateway: id, Addr: to.Addr(), Port: int(to.Port())}, time.Now())
	})
	if err != nil || tunnel.WriteAnswer(c, tunnel.Accepted()) != nil {
		return
	}
	_, _ = io.Copy(c, c)
}

func (r *testRelay) await(f func() bool) {
	r.t.Helper()
	tick, end := time.NewTicker(10*time.Millisecond), time.After(5*time.Second)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			r.t.Fatal("it did not happen within 5 s")
		}
	}
}

// user logs ann in.
func (r *testRelay) user(cert tls.Certificate, account string) *control.Client {
	r.t.Helper()
	c := r.client(cert)
	in, err := c.Login(r.t.Context(), account, "ann", []byte(password))
	r.ok(err)
	c.Token = in.Token
	return c
}

func (r *testRelay) open(p *policy.Policy, gateway string, to netip.AddrPort) *tunnel.Open {
	var id [16]byte
	rand.Read(id[:])
	return &tunnel.Open{
		Addr: to.Addr().String(), Flow: fmt.Sprintf("%x", id), Format: tunnel.FormatOpen, Gateway: gateway, PolicyVersion: p.Version,
		Port: int(to.Port()), Proto: "tcp", User: "ann", World: string(r.w.World),
	}
}

// flow opens a flow on a user's session up to the inner handshake.
func (r *testRelay) flow(m tunnel.Mux, cert tls.Certificate, o *tunnel.Open, gatewayKey string) (net.Conn, error) {
	r.t.Helper()
	raw, err := o.Marshal()
	r.ok(err)
	s, err := m.Open(r.t.Context())
	if err != nil {
		return nil, err
	}
	r.ok(tunnel.WriteMessage(s, raw))
	a, err := tunnel.ReadAnswer(s)
	if err != nil {
		return nil, err
	}
	if err := a.Err(); err != nil {
		return nil, err
	}
	return tunnel.UserEnd(r.t.Context(), s, raw, cert, gatewayKey)
}

func want(t *testing.T, err error, class fault.Class, doing string) {
	t.Helper()
	if got := fault.ClassOf(err); got != class {
		t.Errorf("%s: got class %q (%v), want %q", doing, got, err, class)
	}
}

var plc = netip.MustParseAddrPort("192.168.10.2:80")

// acme is the usual case: device 1 is press-7 of acme, ann may reach the PLC.
func (r *testRelay) acme() (cert tls.Certificate, p *policy.Policy) {
	r.t.Helper()
	cert, thumb := clientKey(r.t)
	p = r.permit("acme", 1, thumb, plc, map[string]artifacttest.Born{"press-7": r.born[0]})
	r.gateway(r.born[0], "acme", "press-7", p)
	return cert, p
}

func (r *testRelay) session(cert tls.Certificate) tunnel.Mux {
	r.t.Helper()
	s, err := r.user(cert, "acme").Connect(r.t.Context(), "press-7")
	r.ok(err)
	m, err := r.dial(cert, s.Ticket)
	r.ok(err)
	r.t.Cleanup(func() { _ = m.Close() })
	return m
}

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

// Peers that send nothing, half a request, or too much are cut.
func TestSlowAndLargePeers(t *testing.T) {
	r := newRelay(t)
	cert, _ := clientKey(t)
	for name, send := range map[string]string{
		"large header":        "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
		"negative length":     "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n",
		"two lengths":         "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"length and chunked":  "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"huge length":         "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999999\r\n\r\n",
		"chunked":             "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"space before colon":  "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Length : 2\r\n\r\n{}",
		"HTTP/2 in clear":     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"bare CR in a header": "GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n",
	} {
		c, err := tls.Dial("tcp", r.node.Addr(RoleAccess), r.tls(cert, RoleAccess))
		r.ok(err)
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		_, _ = c.Write([]byte(send))
		line := make([]byte, 12)
		if _, err := io.ReadFull(c, line); err == nil && line[9] != '4' && line[9] != '5' {
			t.Errorf("%s: answered %q", name, line)
		}
		_ = c.Close()
	}
	if testing.Short() {
		return
	}
	c, err := net.Dial("tcp", r.node.Addr(RoleVPN))
	r.ok(err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	began := time.Now()
	if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(began) > 15*time.Second {
		t.Errorf("a peer that never speaks was held for %v: %v", time.Since(began), err)
	}
}

func TestRefusesDoubtfulState(t *testing.T) {
	r := newRelay(t)
	_, err := Open(t.Context(), r.options())
	want(t, err, fault.Sealed, "second node on one folder")
	r.stop()
	o := r.options()
	o.Anchors = artifacttest.New(t).Anchors
	_, err = Open(t.Context(), o)
	want(t, err, fault.Policy, "other world's anchors")
	o = r.options()
	o.Now = func() time.Time { return time.Now().Add(40 * 24 * time.Hour) }
	_, err = Open(t.Context(), o)
	want(t, err, fault.Policy, "expired certificate")
	r.ok(os.Chmod(filepath.Join(r.dir, "keys", "vpn.key"), 0o644))
	_, err = Open(t.Context(), r.options())
	want(t, err, fault.Usage, "key readable by others")
	o = r.options()
	o.StateDir = t.TempDir()
	_, err = Open(t.Context(), o)
	want(t, err, fault.Usage, "empty folder")
	if _, err := InitKeys(r.dir); fault.ClassOf(err) != fault.Exists {
		t.Errorf("keys were overwritten: %v", err)
	}
}

// hostile is a session whose far end keeps to no limit.
func (r *testRelay) hostile(cert tls.Certificate, ticket []byte) *yamux.Session {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.node.Addr(RoleVPN), r.tls(cert, RoleVPN))
	r.ok(err)
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\nAuthorization: %s %s\r\n\r\n",
		tunnel.Path, tunnel.Token, tunnel.Scheme, base64.StdEncoding.EncodeToString(ticket))
	r.ok(err)
	resp, err := http.ReadResponse(bufio.NewReaderSize(&oneByte{c}, 16), nil) //nolint:bodyclose // what follows the head is the session
	r.ok(err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatal(resp.Status)
	}
	conf := yamux.DefaultConfig()
	conf.LogOutput = io.Discard
	s, err := yamux.Client(c, conf)
	r.ok(err)
	r.t.Cleanup(func() { _ = s.Close() })
	return s
}

// oneByte reads no further than it is asked to, so that nothing is lost between
// an answer's head and the session behind it.
type oneByte struct{ io.Reader }

func (o *oneByte) Read(b []byte) (int, error) { return o.Reader.Read(b[:1]) }

// Streams that are refused and that the other side does not close end the
// session: a session never has more than tunnel.MaxStreams of them, each with one
// window, so what one peer can make the relay hold is bounded.
func TestRefusedStreamsEndTheSession(t *testing.T) {
	r := newRelay(t)
	cert, _ := r.acme()
	s, err := r.user(cert, "acme").Connect(t.Context(), "press-7")
	r.ok(err)
	m := r.hostile(cert, s.Ticket)
	var wg sync.WaitGroup
	for range 2 * tunnel.MaxStreams {
		st, err := m.OpenStream()
		if err != nil {
			break
		}
		wg.Go(func() {
			_ = tunnel.WriteMessage(st, []byte(`{"addr":"127.0.0.1"}`))
			_ = st.SetWriteDeadline(time.Now().Add(5 * time.Second))
			_, _ = st.Write(make([]byte, 64<<10))
		})
	}
	r.await(m.IsClosed)
	wg.Wait()
}

func TestStreamOfAGatewayEndsItsSession(t *testing.T) {
	r := newRelay(t)
	_, _ = r.acme()
	m := r.online(r.born[0])
	s, err := m.Open(t.Context())
	r.ok(err)
	_, _ = s.Write([]byte("x"))
	select {
	case <-m.Done():
	case <-time.After(5 * time.Second):
		t.Error("the session goes on")
	}
}

func TestSessionsOfAUserAreLimited(t *testing.T) {
	r := newRelay(t)
	cert, _ := r.acme()
	u := r.user(cert, "acme")
	var first tunnel.Mux
	for i := range vpn.MaxUserSessions + 1 {
		s, err := u.Connect(t.Context(), "press-7")
		r.ok(err)
		m, err := r.dial(cert, s.Ticket)
		r.ok(err)
		defer m.Close()
		if i == 0 {
			first = m
		}
		if i == vpn.MaxUserSessions {
			select {
			case <-m.Done():
			case <-time.After(5 * time.Second):
				t.Error("one session too many")
			}
		}
	}
	select {
	case <-first.Done():
		t.Error("an older session ended instead")
	default:
	}
}

// Who fails on an address locks out neither a key that logged in from there
// before nor a device that enrols.
func TestSharedAddressLocksNobodyOut(t *testing.T) {
	r := newRelay(t)
	known, _ := clientKey(t)
	r.user(known, "acme")
	bad, _ := clientKey(t)
	var err error
	for i := range auth.TriesSource + 1 {
		_, err = r.client(bad).Login(t.Context(), "acme", fmt.Sprintf("nobody%d", i), []byte("wrong-password"))
	}
	want(t, err, fault.Quota, "guessing from one address")
	if _, err := r.client(known).Login(t.Context(), "acme", "ann", []byte(password)); err != nil {
		t.Errorf("known key: %v", err)
	}
	if _, err := r.client(device(r.born[0])).Enrol(t.Context(), r.entry("acme", "press-7")); err != nil {
		t.Errorf("enrolment: %v", err)
	}
}

// A stranger cannot fill the audit trail.
func TestRefusalsAreWrittenDownWithinLimits(t *testing.T) {
	r := newRelay(t)
	size := func() (n int64) {
		r.ok(r.state.DB.Read(t.Context(), func(tx *store.Tx) (err error) {
			n, err = tx.AuditSize()
			return err
		}))
		return n
	}
	cert, _ := clientKey(t)
	before := size()
	for range auth.TriesSource + 20 {
		if _, err := r.dial(cert, []byte("ticket")); err == nil {
			t.Fatal("a session without a ticket")
		}
	}
	if n := size() - before; n != auth.TriesSource+1 {
		t.Errorf("%d entries of refused sessions", n)
	}
	before = size()
	for range auth.TriesUser + 20 {
		if _, err := r.client(cert).Login(t.Context(), "acme", "ann", []byte("wrong-password")); err == nil {
			t.Fatal("logged in")
		}
	}
	if n := size() - before; n != auth.TriesUser+1 {
		t.Errorf("%d entries of refused logins", n)
	}
}
