package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/world"
	"keyrite/vault/api"
	"keyrite/vault/engine"
	"keyrite/vault/engine/kv"
	"keyrite/vault/node"
	"keyrite/vault/seal"
	"keyrite/vault/vaulttest"
)

// TestMain is also the guarded process, and the server whose memory is measured.
func TestMain(m *testing.M) {
	vaulttest.Child()
	if len(os.Args) > 2 && os.Args[1] == "serve-slow-clients" {
		if err := serveAlone(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(1)
		}
		syscall.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "bench-load" {
		if err := benchLoad(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(1)
		}
		syscall.Exit(0)
	}
	os.Exit(m.Run())
}

func loopback() []net.IP { return []net.IP{net.IPv4(127, 0, 0, 1)} }

// folder is what a process needs to open the vault of a folder: it is kept there as JSON.
type folder struct {
	Dir   string
	Vault string
	World world.World
}

func (f folder) store() (seal.Config, error) {
	k, err := seal.NewFileKeeper(filepath.Join(f.Dir, "head"), f.World)
	if err != nil {
		return seal.Config{}, err
	}
	exe, err := os.Executable()
	if err != nil {
		return seal.Config{}, err
	}
	p := seal.Place{World: f.World, Epoch: 1}
	raw, err := hex.DecodeString(f.Vault)
	copy(p.Vault[:], raw)
	return seal.Config{Dir: f.Dir, Place: p, Head: k, Check: seal.Guard(exe)}, err
}

// key is the data key: the same each time, wrapped under a constant.
func (f folder) key() (*seal.DataKey, error) {
	path, secret := filepath.Join(f.Dir, "wrapped"), []byte("a secret of a safe that is NOT SECRET")
	c, err := f.store()
	if err != nil {
		return nil, err
	}
	if raw, err := os.ReadFile(path); err == nil {
		return seal.Unwrap(raw, secret, c.Place)
	}
	k, err := seal.NewDataKey()
	if err != nil {
		return nil, err
	}
	raw, err := k.Wrap(secret, c.Place)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return nil, err
	}
	return k, seal.Create(context.Background(), c, k, map[string]string{"did": "create"})
}

// engines are those that the tests mount.
func engines() map[string]func(*engine.Host) (engine.Engine, error) {
	return map[string]func(*engine.Host) (engine.Engine, error){
		"kv": func(h *engine.Host) (engine.Engine, error) { return kv.New(h), nil },
	}
}

// open opens the vault of a folder as a quorum did.
func (f folder) open(ctx context.Context, tok engine.Token, eng map[string]func(*engine.Host) (engine.Engine, error)) (*node.Node, *api.Metrics, func() error, error) {
	var metrics *api.Metrics
	n, err := node.New(node.Config{
		World: f.World, Vault: f.Vault, Charter: filepath.Join(f.Dir, "charter.jsonl"), Engines: eng,
		Metrics: func(p engine.Params) (*engine.Plan, error) { return metrics.Plan(p) },
	})
	if err != nil {
		return nil, nil, nil, err
	}
	metrics = api.NewMetrics(n.Status)
	c, err := f.store()
	if err != nil {
		return nil, nil, nil, err
	}
	k, err := f.key()
	if err != nil {
		return nil, nil, nil, err
	}
	defer k.Wipe()
	st, err := seal.Open(ctx, c, k)
	if err != nil {
		return nil, nil, nil, err
	}
	shut, err := n.Open(ctx, node.Opened{Store: st, Token: tok})
	if err != nil {
		return nil, nil, nil, errors.Join(err, st.Close())
	}
	return n, metrics, func() error { return errors.Join(shut.Close(), st.Close()) }, nil
}

// rig is a vault that is served on loopback, with the process "mes" that the charter
// knows by its certificate, and "local", known by its user.
type rig struct {
	*artifacttest.World
	folder
	t       testing.TB
	ca      *authority
	node    *node.Node
	server  *api.Server
	seal    func() error
	addr    string // HOST:PORT of the TLS listener
	socket  string
	mes     tls.Certificate
	client  *http.Client // with the certificate of mes
	opening *opening
	broken  error // why the newest charter cannot be read
}

const (
	uriMES   = "spiffe://example.com/line1/mes"
	localUID = 65534
)

// newRig founds a vault and serves it.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := found(t, artifacttest.New(t))
	r.start(nil, engines(), api.Limits{})
	return r
}

// found founds the vault of a world, with its processes and kv.
func found(t testing.TB, w *artifacttest.World) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyrite-api-test-") //nolint:usetesting // short: it has a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rig{World: w, t: t, folder: folder{Dir: dir, Vault: w.State.Vault, World: w.World}, ca: newAuthority(t), opening: &opening{}}
	r.mes = r.ca.issue(t, "mes", uriMES, nil)
	all := []access.Capability{access.Create, access.Delete, access.List, access.Read, access.Update}
	r.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: []access.Rule{
		{Path: "kv/data/line1/*", Can: all},
		{Path: "kv/delete/line1/*", Can: all},
		{Path: "kv/metadata/line1", Can: all},
		{Path: "kv/metadata/line1/*", Can: all},
		{Path: "kv/undelete/line1/*", Can: all},
	}})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "auditor", Version: 1, Rules: []access.Rule{
		{Path: "keyrite/charter", Can: []access.Capability{access.Read, access.Update}},
		{Path: "keyrite/status", Can: []access.Capability{access.Read}},
		{Path: "sys/audit", Can: []access.Capability{access.Read}},
		{Path: "sys/auth", Can: []access.Capability{access.Read}},
		{Path: "sys/metrics", Can: []access.Capability{access.Read}},
		{Path: "sys/mounts", Can: []access.Capability{access.Read}},
		{Path: "sys/policies/acl", Can: []access.Capability{access.List}},
		{Path: "sys/policies/acl/*", Can: []access.Capability{access.Read}},
		{Path: "sys/seal", Can: []access.Capability{access.Update}},
	}})
	r.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"auditor", "line1"}, TTL: 600, MaxTTL: 3600, Certificate: &charter.Certificate{CA: r.ca.cert.Raw, URI: uriMES}})
	r.Approve(charter.TypeIdentity, charter.Identity{ID: "local", Policies: []string{"line1"}, TTL: 600, Unix: &charter.Unix{UID: localUID}})
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// start opens the vault and serves it over TLS and on a socket, until the test ends.
func (r *rig) start(tok engine.Token, eng map[string]func(*engine.Host) (engine.Engine, error), limits api.Limits) {
	t := r.t
	t.Helper()
	r.ok(os.WriteFile(filepath.Join(r.Dir, "charter.jsonl"), r.Charter, 0o600))
	n, metrics, shut, err := r.open(context.Background(), tok, eng)
	r.ok(err)
	r.node, r.seal = n, shut
	t.Cleanup(func() { _ = shut() })
	s, err := api.New(api.Config{Vault: n, Version: "1.15.0", Limits: limits, Metrics: metrics, Opening: r.opening, Charter: func() (*charter.State, error) { return r.State, r.broken }, Log: slog.New(slog.NewTextHandler(logTo{t}, nil))})
	r.ok(err)
	r.server = s
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.ok(err)
	r.socket = filepath.Join(r.Dir, "s")
	u, err := net.Listen("unix", r.socket)
	r.ok(err)
	r.ok(os.Chmod(r.socket, 0o666))
	r.ok(os.Chmod(r.Dir, 0o755))
	server := r.ca.issue(t, "vault", "", []net.IP{net.IPv4(127, 0, 0, 1)})
	done := make(chan error, 2)
	go func() {
		done <- s.Serve(l, api.TLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &server, nil }))
	}()
	go func() { done <- s.Serve(u, nil) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	r.addr = l.Addr().String()
	r.client = r.as(&r.mes)
}

type logTo struct{ t testing.TB }

func (l logTo) Write(p []byte) (int, error) {
	l.t.Logf("server: %s", bytes.TrimSpace(p))
	return len(p), nil
}

// as is a client with a certificate, or with none.
func (r *rig) as(c *tls.Certificate) *http.Client {
	tr := &http.Transport{TLSClientConfig: r.tls(c), MaxIdleConnsPerHost: 64}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func (r *rig) tls(c *tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(r.ca.cert)
	out := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if c != nil {
		out.Certificates = []tls.Certificate{*c}
	}
	return out
}

// reply is an answer as it came.
type reply struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

// data is a member of the answer's data.
func (p *reply) data(path ...string) any {
	v := p.body["data"]
	for _, k := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// ask makes a request as client c; headers are pairs.
func (r *rig) ask(c *http.Client, method, path, body string, headers ...string) *reply {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "https://"+r.addr+"/v1/"+path, bytes.NewReader([]byte(body)))
	r.ok(err)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	r.ok(err)
	defer resp.Body.Close()
	out := &reply{status: resp.StatusCode, header: resp.Header}
	out.raw, err = io.ReadAll(resp.Body)
	r.ok(err)
	if resp.Header.Get("Content-Type") == "application/json" && len(out.raw) > 0 {
		r.ok(json.Unmarshal(out.raw, &out.body))
	}
	return out
}

// get and put are requests of mes.
func (r *rig) get(path string) *reply { r.t.Helper(); return r.ask(r.client, http.MethodGet, path, "") }

func (r *rig) put(path, body string) *reply {
	r.t.Helper()
	return r.ask(r.client, http.MethodPut, path, body)
}

// opening stands for vault/unseal, whose own tests have its ways.
type opening struct {
	got  []string
	fail error
}

func (o *opening) Progress() api.Progress {
	return api.Progress{Initialized: true, Need: 3, Of: 5, Have: len(o.got), Attempt: "a1"}
}

func (o *opening) Unseal(_ context.Context, p engine.Params) error {
	key, err := p.String("key")
	if err == nil {
		err = o.fail
	}
	if err == nil {
		o.got = append(o.got, key)
	}
	return err
}

// authority issues certificates to processes.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "processes"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, k, 1}
}

// issue issues a certificate for a URI, or for a server at addresses.
func (a *authority) issue(t testing.TB, name, uri string, ips []net.IP) tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.n++
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: ips, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		tpl.URIs, tpl.ExtKeyUsage = []*url.URL{u}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}
}

// files writes the CA and a client's certificate and key as PEM, for programs.
func (r *rig) files(c tls.Certificate) (ca, cert, key string) {
	r.t.Helper()
	dir := r.t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	r.ok(err)
	write := func(name, kind string, raw []byte) string {
		path := filepath.Join(dir, name)
		r.ok(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600))
		return path
	}
	return write("ca.pem", "CERTIFICATE", r.ca.cert.Raw), write("cert.pem", "CERTIFICATE", c.Certificate[0]), write("key.pem", "PRIVATE KEY", der)
}
