package node

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/relay/audit"
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
