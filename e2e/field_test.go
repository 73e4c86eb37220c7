// Package e2e holds the tests of whole chains: real programs' parts of several
// zones, joined as they are in the field. Nothing imports it.
package e2e

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/activation"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/gateway/enroll"
	"keyrite/gateway/secureelement/setest"
	gwtunnel "keyrite/gateway/tunnel"
	"keyrite/gateway/update"
	"keyrite/gateway/uplink"
	"keyrite/relay/node"
	"keyrite/signer/tuf"
	"keyrite/wire/control"
	"keyrite/wire/tunnel"
)

const password = "correct-horse-battery"

// field is a relay that serves and offers a release, an account, and whoever
// wants to be its gateways.
type field struct {
	t         *testing.T
	w         *artifacttest.World
	state     *node.State
	node      *node.Node
	repo      string
	root      []byte
	policyKey crypto.Signer
	user      tls.Certificate
}

func (f *field) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// newField founds the world; the devices are accepted.
func newField(t *testing.T, accepted ...*setest.Born) *field {
	t.Helper()
	f := &field{t: t, w: accepted[0].World, repo: t.TempDir(), policyKey: setest.Key(t)}
	f.publish(f.w.Release(image(t, 300_000), "1.0.0", 1))
	dir := t.TempDir()
	csrs, err := node.InitKeys(dir)
	f.ok(err)
	for _, role := range []string{node.RoleAccess, node.RoleVPN} {
		block, _ := pem.Decode(csrs[role])
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		f.ok(err)
		f.w.Approve(charter.TypeRelay, charter.Relay{ID: role + "1", Role: role, Certificate: f.relayCertificate(role, csr.PublicKey)})
	}
	f.ok(node.Init(t.Context(), dir, f.w.Anchors))
	f.state, err = node.OpenState(t.Context(), dir, time.Now)
	f.ok(err)
	t.Cleanup(func() { _ = f.state.Close() })
	b := f.w.Bundle()
	b.BundleID = setest.BundleID
	var born []artifacttest.Born
	for _, d := range accepted {
		born = append(born, artifacttest.Born{Cert: d.Cert})
	}
	_, err = f.state.ImportAcceptance(t.Context(), f.w.Accept(b, born...), f.w.Anchors)
	f.ok(err)
	spki, err := x509.MarshalPKIXPublicKey(f.policyKey.Public())
	f.ok(err)
	f.ok(f.state.Registry.AddAccount(t.Context(), "acme", spki))
	hash, err := f.state.Hasher.Hash(t.Context(), []byte(password))
	f.ok(err)
	f.ok(f.state.Registry.AddUser(t.Context(), "acme", "ann", hash))
	f.user = clientCertificate(t)
	f.start(dir)
	return f
}

func (f *field) start(dir string) {
	n, err := node.Open(f.t.Context(), node.Options{
		StateDir: dir, Anchors: f.w.Anchors, Charter: f.w.State, Listen: map[string]string{node.RoleAccess: "127.0.0.1:0", node.RoleVPN: "127.0.0.1:0"},
		TUF: f.repo, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	f.ok(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	f.node = n
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
}

func (f *field) relayCertificate(role string, pub crypto.PublicKey) []byte {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	f.ok(err)
	from := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	return f.w.Certificate(birthcert.Template{
		Profile: birthcert.Relay, SPKI: spki, Issuer: birthcert.IssuerOf(f.w.Parsed(f.w.Anchors.Certificates["relay-ca"])), Role: role, IPs: []string{"127.0.0.1"},
		NotBefore: from, NotAfter: from.Add(24 * time.Hour),
	}, "relay-ca")
}

// publish offers a release with the real writer of repositories.
func (f *field) publish(r *artifacttest.Release) {
	f.t.Helper()
	if f.root == nil {
		spec, err := tuf.RootOf(f.w.State, 1, time.Now().AddDate(1, 0, 0))
		f.ok(err)
		tbs, err := tuf.RootTBS(spec)
		f.ok(err)
		var sigs []tuf.RootSignature
		for _, s := range []crypto.Signer{f.w.Keys["tuf-root"], f.w.People["approver1"].Signer()} {
			sig, err := tuf.SignRoot(tbs, s)
			f.ok(err)
			sigs = append(sigs, sig)
		}
		f.root, err = tuf.Assemble(spec, sigs)
		f.ok(err)
	}
	path := filepath.Join(f.t.TempDir(), "firmware.krf")
	f.ok(os.WriteFile(path, r.KRF, 0o600))
	repo, err := tuf.Open(f.repo, f.root, f.w.State, f.w.Trust(), time.Now)
	f.ok(err)
	defer repo.Close()
	_, err = repo.Add(f.t.Context(), path)
	f.ok(err)
	f.ok(repo.Publish(func(id string) (crypto.Signer, error) { return f.w.Keys[id], nil }, tuf.DefaultValidity()))
}

// policy lets ann reach the device plc behind press-7.
func (f *field) policy(version int64, spki string, addr netip.AddrPort) {
	f.t.Helper()
	stamp := func(d time.Duration) string { return time.Now().Add(d).UTC().Format("2006-01-02T15:04:05Z") }
	port := int(addr.Port())
	p := &policy.Policy{
		Account: "acme", Format: policy.Format, NotBefore: stamp(-time.Hour), NotAfter: stamp(time.Hour), Version: version, World: f.w.World,
		Users:    []policy.User{{Name: "ann", Keys: []string{tunnel.Thumbprint(f.user.Leaf)}}},
		Gateways: []policy.Gateway{{ID: "press-7", SPKI: spki}},
		Devices:  []policy.Device{{Name: "plc", Gateway: "press-7", Addr: addr.Addr().String(), Ports: []policy.Ports{{First: port, Last: port}}}},
		Rules:    []policy.Rule{{User: "ann", Device: "plc"}},
	}
	data, err := policy.Sign(p, f.policyKey)
	f.ok(err)
	_, err = f.state.Registry.SetPolicy(f.t.Context(), "acme", data)
	f.ok(err)
}

// activation makes an entry and its file.
func (f *field) activation(id string) []byte {
	f.t.Helper()
	key, _, err := f.state.Registry.AddGateway(f.t.Context(), "acme", id)
	f.ok(err)
	spki, err := x509.MarshalPKIXPublicKey(f.policyKey.Public())
	f.ok(err)
	a := activation.Activation{Access: f.node.Addr(node.RoleAccess), ActivationKey: control.NormalKey(key), Format: activation.Format, PolicyKey: activation.Fingerprint(spki), World: f.w.World}
	data, err := a.Marshal()
	f.ok(err)
	return data
}

func (f *field) enrol(b *setest.Born, id string) (*enroll.Home, error) {
	f.t.Helper()
	anchors, err := f.w.Anchors.Marshal()
	f.ok(err)
	return enroll.Enrol(f.t.Context(), filepath.Join(f.t.TempDir(), "gateway"), b, enroll.Request{Activation: f.activation(id), Anchors: anchors, Root: f.root})
}

func image(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	b[0] = 0x7f
	return b
}

func (f *field) tls(role string, id tls.Certificate) *tls.Config {
	ca := f.w.Parsed(f.w.Anchors.Certificates["relay-ca"])
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{control.ALPN}, InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id, nil },
		VerifyConnection: func(cs tls.ConnectionState) error {
			return birthcert.VerifyRelay(cs.PeerCertificates[0], ca, role, time.Now())
		},
	}
}

// TestFieldChain: a device born in a TPM enrols, comes online, gets its release
// from the relay's repository, and carries a flow to equipment, all against the
// real relay; ann reaches what the account's policy permits and nothing else.
func TestFieldChain(t *testing.T) {
	w := artifacttest.New(t)
	b := setest.Birth(t, w, 1)
	f := newField(t, b)
	h, err := f.enrol(b, "press-7")
	if err != nil {
		t.Fatal(err)
	}
	f.update(h, b, "1.0.0")
	equipment := f.equipment()
	f.policy(1, h.SPKI, netip.MustParseAddrPort("192.168.10.2:80"))
	f.connect(h, b, equipment)

	access := control.NewClient(f.node.Addr(node.RoleAccess), string(w.World), f.tls("access", f.user))
	in, err := access.Login(t.Context(), "acme", "ann", []byte(password))
	f.ok(err)
	access.Token = in.Token
	session, err := access.Connect(t.Context(), "press-7")
	f.ok(err)
	conn, err := (&tls.Dialer{Config: f.tls("vpn", f.user)}).DialContext(t.Context(), "tcp", session.Server.Addr)
	f.ok(err)
	mux, err := tunnel.Dial(t.Context(), conn, session.Server.Addr, session.Ticket)
	f.ok(err)
	defer mux.Close()
	c, err := f.flow(mux, h.SPKI, "192.168.10.2", 80)
	f.ok(err)
	_, err = io.WriteString(c, "ping")
	f.ok(err)
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Errorf("echo %q, %v", got, err)
	}
	_ = c.Close()
	if _, err := f.flow(mux, h.SPKI, "192.168.10.3", 80); fault.ClassOf(err) != fault.Policy {
		t.Errorf("other equipment: %v", err)
	}
	if _, err := f.flow(mux, h.SPKI, "192.168.10.2", 22); fault.ClassOf(err) != fault.Policy {
		t.Errorf("other port: %v", err)
	}
}

// update installs what the relay's repository offers and starts it.
func (f *field) update(h *enroll.Home, b *setest.Born, want string) {
	f.t.Helper()
	d := update.Device{Product: h.Product, Hardware: h.Product}
	access, err := h.Control(h.Enrolment.Access)
	f.ok(err)
	base := "https://" + h.Enrolment.Access
	c := &update.Client{
		Source: update.NewRemote(access.HTTP, base+control.PathTUFMetadata, base+control.PathTUFTargets), Dir: filepath.Join(h.Dir, "tuf"),
		Root: h.Root, Anchors: h.Anchors, Element: b, Device: d, Now: time.Now,
	}
	o, err := c.Find(f.t.Context())
	f.ok(err)
	s, err := update.OpenSlots(filepath.Join(h.Dir, "boot"), b, d)
	f.ok(err)
	defer s.Close()
	_, err = s.Install(f.t.Context(), o)
	f.ok(err)
	booted, err := s.Boot()
	f.ok(err)
	if got := booted.Statement.Predicate.Version; got != want {
		f.t.Errorf("started %s, want %s", got, want)
	}
}

// equipment is a server that sends back what it gets.
func (f *field) equipment() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	f.ok(err)
	f.t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return ln.Addr().String()
}

// connect runs the gateway and waits until it is online with its policy. The
// LAN is the equipment's loopback port under the address of the policy.
func (f *field) connect(h *enroll.Home, b *setest.Born, equipment string) {
	f.t.Helper()
	key, err := birthcert.ParseSPKI(h.Enrolment.PolicyKey)
	f.ok(err)
	keeper, err := gwtunnel.NewKeeper(gwtunnel.KeeperConfig{
		Path: filepath.Join(h.Dir, "policy.json"), Element: b, Key: key, World: f.w.World, Account: "acme", Gateway: h.Enrolment.Gateway, SPKI: h.SPKI, Now: h.Now,
	})
	f.ok(err)
	id, err := b.TLSCertificate()
	f.ok(err)
	access, err := h.Control(h.Enrolment.Access)
	f.ok(err)
	var u *uplink.Uplink
	end := gwtunnel.New(gwtunnel.Config{
		Keeper: keeper, Identity: id, World: f.w.World, Gateway: h.Enrolment.Gateway, LAN: []netip.Prefix{netip.MustParsePrefix("192.168.10.0/24")},
		Now: h.Now, Log: slog.New(slog.DiscardHandler), Refresh: func(ctx context.Context) { u.Refresh(ctx) },
		Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", equipment)
		},
	})
	online := make(chan struct{}, 10)
	u = uplink.New(uplink.Config{
		Control: access, Dial: uplink.DialRelay(h), Keeper: keeper, Flows: end.Serve, Rejudge: end.Rejudge, Log: slog.New(slog.DiscardHandler),
		Report: func(s uplink.State) {
			if s.State == uplink.Online && s.PolicyVersion > 0 {
				online <- struct{}{}
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		u.Run(ctx)
		close(done)
	}()
	f.t.Cleanup(func() {
		cancel()
		<-done
	})
	select {
	case <-online:
	case <-time.After(20 * time.Second):
		f.t.Fatal("the gateway did not come online")
	}
}

// flow opens one as keyrite-connect does.
func (f *field) flow(m tunnel.Mux, gatewayKey, addr string, port int) (net.Conn, error) {
	f.t.Helper()
	id := make([]byte, 16)
	rand.Read(id)
	o := &tunnel.Open{Addr: addr, Flow: hexOf(id), Format: tunnel.FormatOpen, Gateway: "press-7", PolicyVersion: 1, Port: port, Proto: "tcp", User: "ann", World: string(f.w.World)}
	raw, err := o.Marshal()
	f.ok(err)
	st, err := m.Open(f.t.Context())
	f.ok(err)
	f.ok(tunnel.WriteMessage(st, raw))
	a, err := tunnel.ReadAnswer(st)
	f.ok(err)
	if err := a.Err(); err != nil {
		_ = st.Close()
		return nil, err
	}
	return tunnel.UserEnd(f.t.Context(), st, raw, f.user, gatewayKey)
}

// TestFieldRefuses: a device that nobody accepted, one of another CA, and a
// relay that names another policy key.
func TestFieldRefuses(t *testing.T) {
	w := artifacttest.New(t)
	b, stranger := setest.Birth(t, w, 1), setest.Birth(t, w, 2)
	f := newField(t, b)
	_, err := f.enrol(stranger, "press-8")
	if fault.ClassOf(err) != fault.Policy {
		t.Errorf("in no acceptance: %v", err)
	}
	foreign := setest.Birth(t, artifacttest.New(t), 1)
	id, err := foreign.TLSCertificate()
	f.ok(err)
	client := control.NewClient(f.node.Addr(node.RoleAccess), string(w.World), f.tls("access", id))
	_, err = client.GatewaySession(t.Context())
	if fault.ClassOf(err) != fault.Peer {
		t.Errorf("of another CA: %v", err)
	}
	act := bytes.Clone(f.activation("press-9"))
	f.policyKey = setest.Key(t)
	spki, err := x509.MarshalPKIXPublicKey(f.policyKey.Public())
	f.ok(err)
	a, err := activation.Parse(act)
	f.ok(err)
	a.PolicyKey = activation.Fingerprint(spki)
	data, err := a.Marshal()
	f.ok(err)
	anchors, err := w.Anchors.Marshal()
	f.ok(err)
	_, err = enroll.Enrol(t.Context(), t.TempDir(), b, enroll.Request{Activation: data, Anchors: anchors, Root: f.root})
	if !errors.Is(err, enroll.ErrPolicyKey) {
		t.Errorf("another policy key: %v", err)
	}
}
